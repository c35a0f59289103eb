"""One run of an experiment, from its options to its summary: what all experiments do alike.

An experiment has runs, a run has parts (a dataset, a model, a method under a loss, ...), and a part has stages. It writes

    with Run("my-experiment", config, out, preset=preset, console=console) as run:
        rows = [part.results() for part in parts]
        return run.finish(rows=rows, seconds=seconds)

and what is made before ``with`` may still refuse the run: nothing is written until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.interrupts import kept as keeping
from engramlab.base.progress import ProgressBar, Whole
from engramlab.base.random_access import key as random_key
from engramlab.base.terminal import Console
from engramlab.core import models
from engramlab.core.text import tokenizers
from engramlab.corpora.facts import FactOptions
from engramlab.files import digests, locks, records, runs, writing


def inputs(config: Any, apart: Path | None = None, prefix: str = "") -> dict[str, str]:
    """Digests of what a config names and others may change, by option.

    Which options those are their classes say: ``READS``, a tuple of names of fields beside them. A field's default is never a
    file's name. Facts count by what they say, whatever file they are in.

    Args:
        apart: the run's own folder, which may lie in one of those it reads.
    """
    found: dict[str, str] = {}
    reads = {name for kind in type(config).__mro__ for name in vars(kind).get("READS", ())}
    for field in fields(config) if is_dataclass(config) else ():
        value, default = getattr(config, field.name), getattr(type(config), field.name, None)
        if is_dataclass(value):
            found |= inputs(value, apart, f"{prefix}{field.name}.")
        elif field.name in reads and value != default:
            several = value if isinstance(value, tuple) else (value,)
            digests_of = [made for one in several if one is not None and (made := digests.digest(one, apart))]
            found |= {prefix + field.name: " ".join(digests_of)} if digests_of else {}
    if isinstance(config, FactOptions) and (facts := config.fact_table()) is not None:
        found["facts"] = facts.digest
    return found


def launched() -> Any:
    """The processes of this launch. Whoever asks accelerate first decides for all, and it forgets by itself that a launch on
    CPUs is one: each of its processes would take itself for the only one."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


@dataclass(frozen=True)
class Planned:
    """A stage that a run will go through.

    Attributes:
        label: of its progress bar.
        steps: optimizer steps, edits, ...
        rows, length: of a step: rows, and tokens of one (about).
        make: a model of the size that is trained, where it is known before; on the device of a ``torch.device`` block.
        weight: how much work a token is, beside those of other stages.
    """

    label: str
    steps: int
    rows: int = 1
    length: float = 1.0
    make: Callable[[], nn.Module] | None = None
    weight: float = 1.0


class Tried(BaseException):
    """What ends a run that was only to be checked: everything has been read, and nothing written."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.experiment)
        self.run = run


_Value = TypeVar("_Value")
_trying: ContextVar[bool] = ContextVar("trying", default=False)


def tried(run: Callable[[], Any]) -> Run:
    """The run that a call would make, with all its options and inputs checked; nothing is written.

    Raises:
        UserError: what the run would refuse.
    """
    token = _trying.set(True)
    try:
        run()
    except Tried as found:
        return found.run
    finally:
        _trying.reset(token)
    raise UserError("this experiment does not say what it would do")


class Run:
    """A run: its config, its folder, the devices, and the tokenizer of models from scratch.

    Inside its block the folder is this process's own (of a launch of several the first one's).

    Args:
        experiment: its name.
        config: the experiment's; it has ``seed``, and ``precision`` where models are trained.
        out: the folder; an unfinished run there goes on.
        preset: name of the preset the config started from.
        recorded: what is kept of the plain config, where that is not all of it.
        grows: options that may be added to in the folder of a run, see ``RunFolder``.

    Attributes:
        resumed: does the run go on?
        previous: the plain config that it had, before options were added to.
        stages: what it will do, in order, as far as that is known before; progress bars then say how long the run has left.
        kept: a tokenizer that its folder shall keep.

    Raises:
        UserError: the folder belongs to another run, or is in use.
    """

    def __init__(
        self,
        experiment: str,
        config: Any,
        out: Path,
        *,
        preset: str = "",
        console: Console | None = None,
        recorded: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        grows: Sequence[str] = (),
    ) -> None:
        self.experiment, self.config, self.folder = experiment, config, locks.place(out)
        self.console = console or Console(stderr=True)
        self._place = runs.RunFolder(
            self.folder,
            experiment,
            config,
            preset=preset,
            recorded=recorded,
            grows=grows,
            inputs=inputs(config, self.folder),
        )
        self.resumed, self.previous = self._place.resumed, self._place.previous
        self.kept: Any = None
        self.stages: list[Planned] = []

    @cached_property
    def accelerator(self) -> Any:
        """The devices."""
        from accelerate import Accelerator

        return Accelerator(mixed_precision=getattr(self.config, "precision", "no"))

    @property
    def main(self) -> bool:
        """Is this the process of the launch that writes?"""
        return bool(launched().is_main_process)

    def agreed(self, value: _Value) -> _Value:
        """What the main process of a launch makes of it, for all of them: what each finds in a folder that the main one writes
        to may differ, and processes that then take different ways wait for each other forever. All call it, or none."""
        said = [value]
        if self.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(said)
        return said[0]

    def alone(self) -> None:
        """Raises UserError in a launch of several processes."""
        if self.accelerator.num_processes > 1:
            raise UserError(f"{self.experiment} runs in one process on one device; start it without a launcher")

    def say(self, text: str) -> None:
        """A line for the user."""
        if self.main:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def scratch_tokenizer(
        self, texts: Callable[[], Iterable[str]], vocabulary: int, *, chosen: str = "compact", closed: bool = False
    ) -> Any:
        """The tokenizer of models from scratch, which the run's folder keeps: a run that goes on must not train it again.

        Args:
            texts: what a compact one learns from, see ``tokenizers.train_compact_tokenizer``.
            chosen: "compact", or the folder or hub id of another one.
        """
        kept = self.folder / "tokenizer"
        if chosen != "compact":
            try:
                self.kept = tokenizers.lead_with_space(models.load_tokenizer(chosen))
            except UserError as error:
                raise UserError(f"{error}; `--tokenizer compact` trains one on the corpus instead") from None
        elif kept.exists():
            records.check_sealed(kept, f"take it from a copy, or remove {self.folder} to start the run over")
            self.kept = models.load_tokenizer(str(kept))
        else:
            self.kept = tokenizers.train_compact_tokenizer(texts(), vocabulary, closed=closed)
        return self.kept

    def fresh_model(self, size: str, tokenizer: Any, **more: Any) -> nn.Module:
        """A model from scratch, its weights of the run's seed; see ``models.build``."""
        return models.build(size, tokenizer, seed=random_key(self.config.seed, "weights") >> 1, **more)

    def in_parts(
        self,
        folder: Path,
        label: str,
        count: int,
        size: int,
        make: Callable[[int, int], Mapping[str, Any]],
        empty: Mapping[str, Any],
        what: str = "cases",
        later: Mapping[str, Any] = {},
    ) -> dict[str, Any]:
        """The record of so many things, made so many at a time and kept part by part: what is done is not done again.

        Args:
            folder: where it is kept, as ``done.json``.
            label: for the progress bar and for whoever stops the run.
            make: the record of the things from the first number up to the second.
            empty: the record of nothing; that of all is the sum of the parts', key by key.
            later: what of such a record those of older runs lack.
        """
        needed, nothing = tuple(empty), {**empty, **later}
        if not (folder / "done.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            record, done = nothing, 0
            says = keeping(lambda: f"{done} of {count} {what} of {label} are done and kept")
            with says, ProgressBar(label, count, console=self.console) as bar:
                for start in range(0, count, size):
                    path, stop = folder / f"part-{start:06d}.json", min(start + size, count)
                    if not path.exists():
                        records.write_record(path, make(start, stop))
                    found = nothing | records.read_record(path, needed)
                    record = {key: record[key] + found[key] for key in nothing}
                    done = stop
                    bar.update(done)
            records.write_record(folder / "done.json", record)
        writing.clear(*folder.glob("part-*"))
        return nothing | records.read_record(folder / "done.json", needed)

    def ready(self) -> None:
        """Everything is checked: a run that was only to be tried ends here, before a model is loaded."""
        if _trying.get():
            raise Tried(self)

    def __enter__(self) -> Self:
        self.ready()
        self.console.whole = Whole({s.label: s.steps * s.rows * s.length * s.weight for s in self.stages})
        if self.main:
            self._place.open()
            if self.kept is not None and not (self.folder / "tokenizer").exists():
                records.write_sealed(self.folder / "tokenizer", self.kept.save_pretrained)
        launched().wait_for_everyone()
        if launched().num_processes > 1:
            self.resumed, self.previous = self.agreed((self.resumed, self.previous))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UserError) and self.main:
            self._place.forget("tokenizer")
        self._place.close()

    def finish(self, *, seconds: float, **found: Any) -> dict[str, Any]:
        """The summary of the run, written to its folder."""
        about = {"experiment": self.experiment, "seed": self.config.seed, "seconds": round(seconds, 1)}
        if self.main:
            records.write_record(self.folder / "summary.json", about | found)
        return about | found
