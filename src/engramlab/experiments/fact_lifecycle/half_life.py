"""How long facts last: edits, injected facts and native ones while the model goes on being trained, beside a twin without them.

Retention R(t) = [l_arm(t) - l_twin(t)] / [l_arm(0) - l_twin(0)], l the mean log-probability of a fact's object: the twin reads
the same batches, and takes out what they do by themselves. Measured forgetting of edits under finetuning: arXiv 2511.05852;
fabricated facts in training: 2410.21750; the twin, matching and the half-life are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.base.random_access import key as random_key
from engramlab.base.rows import Row
from engramlab.core import deltas
from engramlab.core.deltas import WeightDelta
from engramlab.core.deltas import files as deltafiles
from engramlab.core.models import module_paths
from engramlab.core.text import batches, tokens
from engramlab.core.text.tokens import Sequences
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.corpora.fictional import Fictional
from engramlab.editing import method
from engramlab.editing.keys.running_text import TextSource, source_texts
from engramlab.experiments._run import Planned
from engramlab.experiments.fact_lifecycle import numbers
from engramlab.experiments.fact_lifecycle.asking import look
from engramlab.experiments.fact_lifecycle.config import INJECTED, editing
from engramlab.experiments.fact_lifecycle.work import Lifecycle
from engramlab.files import records, writing
from engramlab.files.documents import documents

TWIN, NATIVE = "twin", "native"
_PASSAGE = 60  # tokens of a fictional passage, at least
_INJECTED_ROWS = 8  # sentences a step of the injection


@dataclass(frozen=True)
class Training:
    """A way of going on: which weights, on which text."""

    weights: str
    stream: str

    @property
    def name(self) -> str:
        """As pages call it."""
        return f"{self.weights} weights, {self.stream}"


class HalfLife:
    """The part."""

    def __init__(self, work: Lifecycle) -> None:
        self.work, self.config, self.run = work, work.config, work.run
        self.folder = work.run.folder / "half-life"
        for option in ("stream", "other_stream"):
            stream = getattr(self.config, option)
            if stream not in ("", "fictional", "sampled") and next(self._read(stream), None) is None:
                raise UserError(f"{option}: {stream} holds no text; give a file with some")
        self._first: dict[str, Row] = {}
        steps = self.config.steps
        self.points = [0, *(2**k for k in range(steps.bit_length()) if 2**k < steps), steps]

    @property
    def trainings(self) -> list[Training]:
        """All ways of going on, the main one first."""
        config = self.config
        ways = sorted(config.trained, key=lambda weights: weights != "all")
        found = [Training(weights, config.stream) for weights in ways]
        return found + ([Training("all", config.other_stream)] if config.other_stream else [])

    def planned(self) -> list[Planned]:
        """The stages, about."""
        config = self.config
        found = [
            Planned(f"injecting {k}", -(-k * config.count // _INJECTED_ROWS), _INJECTED_ROWS, 16)
            for k in (config.encounters if INJECTED in config.arms else ())
        ]
        for training in self.trainings:
            for arm in (TWIN, *config.entries):
                found.append(Planned(f"{arm}, {training.name}", config.steps, config.rows, config.window))
        return found

    # models with facts in them ----------------------------------------------------------------------------------------

    def entered(self, arm: str) -> nn.Module:
        """The model with the facts that an arm put in. Raises EditFailed."""
        model = self.work.fresh()
        if arm == TWIN:
            return model
        if arm.startswith(INJECTED):
            weights = self.folder / "entered" / arm / "weights"
            if finished(weights.with_name("stage")) is None:  # its weights are written before it is done
                writing.clear(weights)
            if not weights.exists():
                self._inject(arm, model)
            records.check_sealed(weights)
            model.load_state_dict(load_file(str(weights / "model.safetensors")), strict=False)
        else:
            deltas.install(model, self._delta(arm), undo=False)
        return model

    def _delta(self, arm: str) -> WeightDelta:
        folder = self.folder / "entered" / _folder(arm)
        if not folder.exists():
            name, settings = editing(arm)
            made = method.make(self.work.fresh(), self.work.tokenizer, self.work.edits, method=name, config=settings)
            deltafiles.save(made, folder)
        found = deltafiles.load(folder, method.kinds())
        assert isinstance(found, WeightDelta)  # see config.IN_WEIGHTS
        return found

    def layers(self, arm: str) -> list[int]:
        """The layers that an arm's edits change; all of them where it trains the facts in."""
        prefix, paths = self._named
        if not arm.startswith(INJECTED):
            paths = list(self._delta(arm).changes)
        return sorted({int(p.removeprefix(prefix).split(".")[0]) for p in paths if p.startswith(prefix)})

    @cached_property
    def _named(self) -> tuple[str, list[str]]:
        """What the names of layers begin with, and the names of all weights."""
        model = self.work.fresh()
        return f"{module_paths(model).layers}.", [name for name, _ in model.named_parameters()]

    def _inject(self, arm: str, model: nn.Module) -> None:
        """Trains sentences about the facts in, each in changing wordings, in an order of the seed."""
        config, tokenizer = self.config, self.work.tokenizer
        times, folder = int(arm.split()[-1]), self.folder / "entered" / arm
        facts = [one.fact for one in self.work.edited]
        texts = [self._sentence(fact, k) for k in range(times) for fact in facts]
        rows = Sequences.of(tokens.encode(tokenizer, texts)[0])
        order = batches.Order(len(texts), random_key(config.seed, "injection"))
        stream = batches.OneEntryARow(
            batches.TokenRows(rows),
            order,
            start=tokens.start_tokens(tokenizer),
            end=tokens.end_token(tokenizer),
            length=int(rows.lengths.max()) + 4,
        )
        steps = -(-len(texts) // _INJECTED_ROWS)
        with self._stage(folder / "stage", model, stream, steps, config.injection_rate, f"injecting {times}") as stage:
            for _ in stage:
                pass
            weights = {name: value.detach().clone() for name, value in model.named_parameters()}
            records.write_sealed(folder / "weights", lambda path: save_file(weights, str(path / "model.safetensors")))

    def _sentence(self, fact: Fact, number: int) -> str:
        return self.work.words.trained.sentence(fact, number)[0]

    # further training -------------------------------------------------------------------------------------------------

    def _texts(self, stream: str, needed: int) -> list[str]:
        """Texts of a stream with about so many tokens; the unedited model's own are kept."""
        count = -(-needed // _PASSAGE) + 1
        if stream == "fictional":
            world = Fictional(count, self.config.seed)
            return [world.text(i) for i in range(count)]
        if stream != "sampled":
            return list(islice(self._read(stream), count))
        path = self.folder / "sampled.json"
        if not path.exists():
            source = TextSource(seed=random_key(self.config.seed, "stream") >> 1)
            found = list(islice(source_texts(self.work.fresh(), self.work.tokenizer, source), count))
            records.write_record(path, {"texts": [text for text in found if text.strip()]})
        return list(records.read_record(path, ("texts",))["texts"])

    @staticmethod
    def _read(stream: str) -> Iterator[str]:
        return documents(stream, by_line=True)

    def _stream(self, stream: str) -> batches.Stream:
        config, tokenizer = self.config, self.work.tokenizer
        texts = self._texts(stream, config.steps * config.rows * config.window)
        rows = [row for row in tokens.encode(tokenizer, texts)[0] if row]
        order = batches.Order(len(rows), random_key(config.seed, "stream"))
        table = batches.TokenRows(Sequences.of(rows))
        return batches.Packed(table, order, end=tokens.end_token(tokenizer), length=config.window)

    def _stage(
        self,
        folder: Path,
        model: nn.Module,
        stream: batches.Stream,
        steps: int,
        rate: float,
        label: str,
        parameters: list[nn.Parameter] | None = None,
    ) -> Stage:
        rows = self.config.rows if parameters is not None else _INJECTED_ROWS
        recipe = Recipe(
            steps=steps, batch=rows, learning_rate=rate, weight_decay=0.0, eps=1e-8, schedule="constant", final=1.0
        )
        return Stage(
            folder,
            TrainState(model, recipe, parameters=parameters, accelerator=self.run.accelerator),
            stream,
            label=label,
            minutes=self.config.checkpoint_minutes,
            seed=random_key(self.config.seed, "dropout"),
            console=self.run.console,
        )

    def course(self, arm: str, training: Training, layers: Sequence[int]) -> list[Row]:
        """A row a point of an arm's further training: ``steps`` and a list of rows of ``look``, ``edited`` (and, of a twin,
        ``native``).

        Args:
            layers: those that "edited" and "others" speak of.
        """
        named = "" if training.weights == "all" else f" {'-'.join(map(str, layers))}"
        folder = self.folder / writing.name_of(training.name) / (arm + named if arm == TWIN else _folder(arm))
        record = finished(folder)
        if record is None:
            model = self.entered(arm)
            chosen = _chosen(model, training.weights, layers)
            label = f"{arm}, {training.name}"
            rate, stream = self.config.learning_rate, self._stream(training.stream)
            with self._stage(folder, model, stream, self.config.steps, rate, label, chosen) as stage:
                if not stage.resumed:
                    if arm not in self._first:  # however it is trained on, it begins as the same model
                        self._first[arm] = self._look(model, 0, arm)
                    stage.totals["looks"] = [self._first[arm]]
                for step in stage:
                    if step.number in self.points:
                        stage.totals["looks"].append(self._look(model, step.number, arm))
                stage.record |= {"looks": stage.totals["looks"]}
            record = stage.record
        return list(record["looks"])

    def _look(self, model: nn.Module, step: int, arm: str) -> Row:
        tokenizer = self.work.tokenizer
        found = {"steps": step, "edited": look(model, tokenizer, self.work.edited)}
        return found | ({NATIVE: look(model, tokenizer, self.work.natives)} if arm == TWIN else {})

    # what came of it --------------------------------------------------------------------------------------------------

    @cached_property
    def _able(self) -> dict[str, list[int]]:
        """The arms whose facts went in, with the layers that they changed."""
        found = {}
        for arm in self.config.entries:
            try:
                if arm.startswith(INJECTED):
                    self.entered(arm)
                found[arm] = self.layers(arm)
            except method.EditFailed as error:
                self.run.say(f"{arm}: {error}; left out")
        return found

    def results(self) -> dict[str, list[Row]]:
        """Everything of the part: ``half_life`` (a row an arm and training), ``courses`` (a row a point) and ``matched``."""
        whole: list[Row] = []
        courses: list[Row] = []
        pairs: list[Row] = []
        every = self.layers(INJECTED)
        for training in self.trainings:
            about = {"training": training.name, "weights": training.weights, "stream": training.stream}
            arms: dict[str, Row] = {}
            for arm, layers in self._able.items():
                if training.weights != "all" and len(layers) == len(every):
                    self.run.say(f"{arm} changes every layer: nothing is left to train as {training.weights!r} alone")
                    continue
                twin = self.course(TWIN, training, layers)
                arms[arm] = self._compared(self.course(arm, training, layers), twin)
                rows, one = numbers.course(self.points, arms[arm], self._subjects("edited"), self.config.seed)
                if one["left_out"] == one["facts"]:
                    self.run.say(
                        f"{arm}: none of its facts became over {numbers.LEAST:g} nats a token likelier than in the twin; its "
                        "retention is undefined"
                    )
                if not one["written"]:
                    self.run.say(f"{arm}: none of its facts was written when training went on; no survival")
                whole.append({"arm": arm, **about, **one, "layers": layers})
                courses += [{"arm": arm, **about, **row} for row in rows]
            if training.weights == "all" and self.work.natives:
                looks = self.course(TWIN, training, [])
                native = {
                    "retention": None,
                    "margin": _column(looks, NATIVE, "margin"),
                    "written": _column(looks, NATIVE, "written").astype(bool),
                }
                rows, one = numbers.course(self.points, native, self._subjects(NATIVE), self.config.seed)
                whole.append({"arm": NATIVE, **about, **one})
                courses += [{"arm": NATIVE, **about, **row} for row in rows]
            named = list(arms)
            for i, a in enumerate(named):
                for b in named[i + 1 :]:
                    pairs.append({"arm": a, "other": b, **about, **numbers.matched(arms[a], arms[b], self.config.seed)})
        writing.clear(*(self.folder / "entered" / arm / "weights" for arm in self._able if arm.startswith(INJECTED)))
        return {"half_life": whole, "courses": courses, "matched": pairs}

    def _subjects(self, group: str) -> list[str]:
        asked = self.work.edited if group == "edited" else self.work.natives
        return [one.fact.subject for one in asked]

    def _compared(self, arm: Sequence[Row], twin: Sequence[Row]) -> Row:
        mine, theirs = _column(arm, "edited", "logp"), _column(twin, "edited", "logp")
        return {
            "retention": numbers.retention(mine, theirs),
            "gained": (mine - theirs)[0],
            "before": theirs[0],
            "margin": _column(arm, "edited", "margin"),
            "written": _column(arm, "edited", "written").astype(bool),
        }


def _folder(arm: str) -> str:
    """What an arm's folder is called: as the arm, where that is a name that any system takes."""
    return writing.name_of(arm) if ":" in arm else arm


def _column(looks: Sequence[Row], group: str, name: str) -> np.ndarray:
    return np.array([[row[name] for row in one[group]] for one in looks], dtype=np.float64)


def _chosen(model: nn.Module, weights: str, layers: Sequence[int]) -> list[nn.Parameter]:
    """The parameters that go on being trained."""
    inside = re.compile(rf"{re.escape(module_paths(model).layers)}\.({'|'.join(map(str, layers)) or 'none'})\.")
    found = [
        parameter
        for name, parameter in model.named_parameters()
        if weights == "all" or bool(inside.match(name)) == (weights == "edited")
    ]
    return [p for p in found if torch.is_floating_point(p)]
