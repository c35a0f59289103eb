"""Corpora that a chat model writes: answers asked for in rounds, each with a seed of its own, in a folder that can go on.

Try 1 for every item, then try 2 for those that are still without an accepted answer, and so on, in batches cut in order. What
happened is appended to a log batch by batch, so a killed run reads the log, goes on with the batch it was at, and ends with the
very texts that an uninterrupted run would have: batches have the same members either way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engramlab.base.errors import UserError
from engramlab.base.interrupts import kept
from engramlab.base.options import at_least
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key
from engramlab.base.terminal import Console
from engramlab.files import locks, runs, writing
from engramlab.files.journal import Journal

Conversation = Sequence[Mapping[str, str]]
#: Answers conversations, each with its own seed.
Writer = Callable[[Sequence[Conversation], Sequence[int]], list[str]]

#: What one text is about: numbers of passages, subjects, sentences, ..., as the stage has it.
Item = tuple[int, ...]

LOG = "answers.jsonl"


@dataclass(frozen=True)
class Author:
    """The options of every corpus that a chat model writes."""

    model: str
    """A chat model: a folder, a .gguf file or a hub id. A model without a chat template continues the request instead."""
    seed: int = 0
    """Decides whom and what the texts are about, and the texts."""
    temperature: float = 0.7
    """Divides the logits; lower is safer and more alike."""
    top_p: float = 0.9
    """Sample among the likeliest tokens that together have this probability."""
    max_new_tokens: int = 160
    """Longest answer, in tokens; a sentence that is cut off is dropped."""
    batch: int = 32
    """Answers written at once."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the model."""
    tries: int = 20
    """Answers asked for each text before it is given up; with more of them the same command goes on."""

    def __post_init__(self) -> None:
        at_least(self, 1, "max_new_tokens", "batch", "tries")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"temperature must be at least 0 and top_p above 0 and at most 1, not {self.temperature} and {self.top_p}"
            )

    def decisive(self) -> dict[str, Any]:
        """The options that decide what is written; the others only say when to stop."""
        return {name: value for name, value in runs.plain(self).items() if name not in ("tries", "missing")}

    def writer(self) -> Writer:
        """Answers by the model, which is loaded when it is first asked something, on a GPU where there is one."""
        loaded: list[Any] = []

        def write(conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
            import torch

            from engramlab.core import models
            from engramlab.core.forward.decoding.sampling import Config
            from engramlab.core.forward.generation import answer

            if not loaded:
                device = "cuda" if torch.cuda.is_available() else "cpu"
                loaded.extend(models.load(self.model, dtype=getattr(torch, self.dtype), device=device))
            drawn = Config(self.temperature, self.top_p)
            return answer(loaded[0], loaded[1], conversations, seeds, drawn, max_new_tokens=self.max_new_tokens)

        return write


@dataclass
class Turn:
    """A batch that is asked for.

    Attributes:
        attempt: which try it is, from 1.
        items: whose.
        record: what the log has of it; None where it is to be asked for now, and then to be filled in.
    """

    attempt: int
    items: Sequence[Any]
    record: dict[str, Any] | None


class Rounds:
    """The rounds of one corpus, and their log in ``folder``."""

    def __init__(self, config: Author, folder: Path) -> None:
        self.config, self.journal = config, Journal(folder / LOG)
        self._known = iter(self.journal.rows)

    def turns(
        self, head: Mapping[str, Any], items: Sequence[Any], found: Collection[Any], bar: ProgressBar
    ) -> Iterator[Turn]:
        """Batch by batch, until every item is in ``found`` or has had its tries.

        The loop's body puts accepted items into ``found``, read from the turn's record or newly asked for.

        Args:
            head: what the log says of all these batches.

        Raises:
            UserError: the log is of something else, or cannot be written.
        """
        waiting, accepted, answers = list(items), 0, 0
        for attempt in range(1, self.config.tries + 1):
            for start in range(0, len(waiting), self.config.batch):
                batch = waiting[start : start + self.config.batch]
                plain = [list(item) if isinstance(item, tuple) else item for item in batch]
                own = {**head, "try": attempt, "items": plain}
                record = next(self._known, None)
                if record is not None and {name: record.get(name) for name in own} != own:
                    raise UserError(f"{self.journal.path}: not what this command wrote; remove that folder")
                turn = Turn(attempt, batch, record)
                yield turn
                if record is None:
                    self.journal.add(**own, **(turn.record or {}))
                answers += len(batch)
                accepted += sum(item in found for item in batch)
                bar.update(accepted, f"try {attempt}, {accepted / answers:.1%} of answers accepted")
            waiting = [item for item in waiting if item not in found]
            if not waiting:
                break


class Stages:
    """Answers that are asked for stage by stage, each read by itself: what was accepted is in ``found[stage][item]``.

    Args:
        label: of the progress bars, before the stage.
        head: what the log says of all batches, beside the stage: of what they are.
    """

    def __init__(
        self,
        config: Author,
        folder: Path,
        write: Writer,
        stages: Sequence[str],
        label: str = "corpus passages",
        head: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.write, self.label, self.head = config, write, label, head or {}
        self.rounds = Rounds(config, folder)
        self.found: dict[str, dict[Item, Any]] = {stage: {} for stage in stages}
        self.answers: Counter[str] = Counter()

    def stage(
        self,
        stage: str,
        items: Sequence[Item],
        ask: Callable[[Item], Conversation],
        read: Callable[[Item, str], Any],
        console: Console,
    ) -> None:
        """All rounds of a stage: those in the log are read, the others written.

        Args:
            read: what is accepted of an answer; nothing (None or an empty text) has it asked for again.
        """
        found = self.found[stage]
        with ProgressBar(f"{self.label}: {stage}", len(items), console=console) as bar:
            for turn in self.rounds.turns({"stage": stage, **self.head}, items, found, bar):
                self.answers[stage] += len(turn.items)
                if turn.record is not None:
                    kept = zip(turn.items, turn.record["values"], strict=True)
                    found |= {item: tuple(v) if isinstance(v, list) else v for item, v in kept if v}
                    continue
                seeds = [key(self.config.seed, "passages", stage, *item, turn.attempt) for item in turn.items]
                values = []
                answers = self.write([ask(item) for item in turn.items], seeds)
                for item, answer in zip(turn.items, answers, strict=True):
                    values.append(read(item, answer))
                    if values[-1]:  # at once: what comes next must differ from it
                        found[item] = values[-1]
                turn.record = {"values": values}


def finished_corpus(out: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """What the dataset.json of a corpus says that was made with this config; None where there is nothing yet.

    Raises:
        UserError: the folder holds another corpus, or something else.
    """
    if (out / "dataset.json").is_file():
        about: dict[str, Any] = writing.read_json(out / "dataset.json")
        changed = runs.differences(about.get("config"), config)
        if changed:
            raise UserError(f"{out} holds another corpus ({'; '.join(changed[:5])}); choose another --out")
        writing.clear(_beside(out))  # a kill may have come before
        writing.tidy(*writing.unfinished(_beside(out)))
        return about
    if not locks.vacant(out):
        raise UserError(f"{out}: already exists and is no corpus; choose another --out")
    return None


def _beside(out: Path) -> Path:
    return out.with_name(out.name + ".generating")


@contextmanager
def generating(out: Path, command: str, config: dict[str, Any]) -> Iterator[Path]:
    """The folder beside ``out`` in which ``command`` writes a corpus, with its journal ``LOG``; it goes when all is done.

    The same call goes on there after an interruption. Without a single answer the folder goes too: a mistyped model must not
    claim the name.
    """
    place = runs.RunFolder(_beside(out), command, config)
    place.open()
    try:
        with kept(lambda: "every answer so far is kept"):
            yield place.folder
        writing.clear(place.folder)
    finally:
        if not (place.folder / LOG).exists():
            writing.clear(place.folder)
        place.close()
