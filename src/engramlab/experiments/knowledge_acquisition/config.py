"""Options and presets of knowledge acquisition."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from engramlab.acquisition.curves import CurveOptions
from engramlab.base.errors import UserError
from engramlab.base.options import check_rules, once
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora.facts import FactOptions
from engramlab.corpora.fictional_world import KINDS
from engramlab.files.documents import check_source

Rate = Literal["continue", "constant", "mean"]
Filter = Literal["entity", "short"]
Moments = Literal["restored", "fresh", "warmed"]


@dataclass(frozen=True)
class Fiction:
    """The generator of fictional passages, and the stream of texts about its other entities."""

    passages: int = 120
    """Passages to inject."""
    control: int = 10
    """Passages that are measured and never injected."""
    background: int = 9_000
    """Other entities, whose texts make the stream."""
    sentences: int = 12
    """Sentences of a passage; ten state a fact each."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of entities; fewer need fewer wordings, for a model that sees little text."""
    limit: int | None = None
    """Most lines used of any pool of names and values; None for all."""
    texts: int = 2
    """Texts in the wordings of passages for each entity of the stream."""
    statements: int | None = 12
    """Statements in the wordings of queries for each entity of the stream; None for all."""
    together: float = 0.5
    """Part of the entities whose statements follow a passage about them."""


@dataclass(frozen=True)
class Optimizer:
    """AdamW for a checkpoint that does not say how it was trained."""

    weight_decay: float = 0.1
    """Decay of parameters with two or more dimensions."""
    eps: float = 1e-8
    """Epsilon."""
    beta1: float = 0.9
    """Decay of the gradient mean."""
    beta2: float = 0.95
    """Decay of the squared gradients' mean."""
    clip: float | None = 1.0
    """Largest norm of the gradient; None for no clipping."""
    learning_rate: float = 1e-4
    """Learning rate, unless `--learning-rate` names some."""
    warmup: int = 100
    """Steps on the stream before step 0 in which AdamW's moments are estimated and the learning rate rises from zero."""


@dataclass(frozen=True)
class Config(FactOptions):
    """Everything that decides the numbers of a run. Several models, batches, rates, ... make one part each, to compare."""

    READS = ("model", "stream", "inject", "tokenizer")
    BASIC = (
        ("what is trained, on what", ("model", "stream", "batch", "window", "learning_rate")),
        ("what is injected, and how often", ("facts", "inject", "schedule", "interval", "times", "after")),
        ("numbers", ("seed", "precision")),
    )

    model: tuple[str, ...] = ("tiny",)
    """Checkpoints (a folder, a .gguf file, owner/name or owner/name@revision), or named sizes, first
    trained on the stream."""
    stage: tuple[float, ...] = (1.0,)
    """Named sizes: parts of pretraining after which injection begins, each a part of the run."""
    batch: tuple[int, ...] = (16,)
    """Rows a step; several compare batch sizes."""
    equal: Literal["tokens", "steps"] = "tokens"
    """With several batches: the same tokens between injections (steps in proportion to the first batch), or the same steps."""
    rate: tuple[Rate, ...] = ("continue",)
    """Learning rate: `continue` the schedule of the checkpoint where it is known, hold it `constant` at its value there, or at
    the `mean` of what all checkpoints of the run have there (app. F: equal rates), all of which must say it."""
    learning_rate: tuple[float, ...] = ()
    """Constant learning rates instead; several compare them."""
    moments: tuple[Moments, ...] = ("restored",)
    """AdamW's moments at step 0: `restored` with the checkpoint (estimated where it has none), `fresh` (app. G, batch 128), or
    `warmed`: estimated on the stream in `--optimizer.warmup` steps; several compare them."""

    stream: str = "fictional"
    """Text that training goes on with: files (.txt, .jsonl, .parquet), a folder, hub:owner/name, or `fictional`."""
    column: str = "text"
    """Column of the stream's text."""
    repeat: bool = False
    """Read a stream that is too short again and again; the fictional one always is."""
    inject: str = "fictional"
    """Passages to inject: a .jsonl or .json file (see `engramlab corpus check`), or `fictional`."""
    fiction: Fiction = field(default_factory=Fiction)
    """The fictional passages and stream."""

    schedule: Literal["duplicate", "paraphrase", "once", "all"] = "all"
    """How passages are met; `all`: a third each paraphrase, duplicate and once."""
    control: int = 0
    """Passages of a file or of your facts, the last ones, that are measured and never injected."""
    passages: int | None = None
    """Passages of a file or of your facts to inject, the first ones; None for all but the control."""
    interval: tuple[int, ...] = (100,)
    """Steps from one injection of a passage to the next; several compare them."""
    times: int = 10
    """Injections a passage."""
    after: int = 1500
    """Steps without injections at the end."""
    stagger: int = 1
    """Parts of each group that are injected at different steps, spread over an interval: for batches too small for all. With
    several batches that of the first; the others have as many more or fewer as their intervals have steps."""
    measure: Literal["every", "window", "log", "own"] = "every"
    """States measured: every one, or densely after injections and on a logarithmic grid elsewhere; `own`: so for each query
    after its own passage's injections alone."""
    filters: tuple[Filter, ...] = ()
    """Queries left out, as where the paper's set was made: `entity`, whose target does not end in a name or a number; `short`,
    compositional ones whose target has more than five words."""
    straddling: Literal["refuse", "keep", "drop"] = "refuse"
    """Queries whose target begins inside a token of the prompt."""
    reading: CurveOptions = field(default_factory=CurveOptions)
    """How the curves are read."""

    window: int = 512
    """Tokens of a row."""
    family: str = "gpt-neox"
    """Architecture of a named size: gpt-neox, llama, ... (see `engramlab models`)."""
    tokenizer: str = "compact"
    """Of a named size: `compact`, a BPE trained on the stream and the passages, or a tokenizer's folder or hub id."""
    vocabulary: int = 8192
    """Largest size of a compact tokenizer."""
    pretrain: Recipe = field(default_factory=Recipe)
    """Pretraining of a named size."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """AdamW for other checkpoints; one made here goes on with its own settings and moments."""
    micro_batch: int | None = None
    """Rows a forward pass; None for all at once."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of the forward and backward passes."""
    budget: int = 4_096
    """Most tokens a forward pass while measuring; larger batches mix more lengths and pad more."""
    seed: int = 0
    """Of the passages, their rows, the stream's order and the initial weights."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""

    def parts(self) -> list[PartConfig]:
        """The parts of the run, one a combination of what there are several of."""
        found = []
        rates: list[tuple[Rate, float | None]] = [(rate, None) for rate in self.rate]
        if self.learning_rate:
            rates = [("constant", value) for value in self.learning_rate]
        for model, stage, batch, interval, (rate, value), moments in product(
            self.model, self.stage, self.batch, self.interval, rates, self.moments
        ):
            scratch = models.about(model).from_scratch
            if not scratch and stage != self.stage[0]:
                continue
            stage = stage if scratch else 1.0
            scale = self.batch[0] / batch if self.equal == "tokens" else 1.0
            found.append(
                PartConfig(
                    name="-".join(
                        [self._name(model, stage, batch, interval, rate, value)]
                        + ([moments] if len(self.moments) > 1 else [])
                    ),
                    model=model,
                    stage=stage,
                    batch=batch,
                    interval=_scaled("interval", interval, scale),
                    times=1 if self.schedule == "once" else self.times,
                    after=_scaled("after", self.after, scale),
                    stagger=max(1, int(self.stagger * scale)),
                    rate=rate,
                    learning_rate=value,
                    moments=moments,
                )
            )
        return found

    def _name(self, model: str, stage: float, batch: int, interval: int, rate: str, value: float | None) -> str:
        words = [
            Path(model).stem if "/" not in model or Path(model).exists() else model.split("/", 1)[1].replace("/", "-")
        ]
        if len({Path(m).stem for m in self.model}) < len(self.model) and not models.about(model).from_scratch:
            words[0] += f"-{self.model.index(model) + 1}"
        words += [f"stage{stage:g}"] if len(self.stage) > 1 else []
        words += [f"batch{batch}"] if len(self.batch) > 1 else []
        words += [f"interval{interval}"] if len(self.interval) > 1 else []
        words += [f"lr{value:g}" if value is not None else rate] if len(self.rate) + len(self.learning_rate) > 1 else []
        return "-".join(words)


@dataclass(frozen=True)
class PartConfig:
    """What one part of a run differs in from the others.

    Attributes:
        name: of its folder and in reports.
        interval, after: in steps of this part's own batch.
        times: injections a passage.
        stagger: parts of each group.
        learning_rate: a constant one; None for the checkpoint's.
        moments: AdamW's at step 0.
    """

    name: str
    model: str
    stage: float
    batch: int
    interval: int
    times: int
    after: int
    stagger: int
    rate: Rate
    learning_rate: float | None
    moments: Moments = "restored"

    @property
    def steps(self) -> int:
        """Updates after step 0."""
        return self.interval * self.times + self.after


def _scaled(name: str, steps: int, scale: float) -> int:
    exact = steps * scale
    if abs(exact - round(exact)) > 1e-9 or round(exact) < 1:
        raise UserError(
            f"batch: {name} {steps} steps become {exact:g} steps at equal tokens, which is no whole number; choose batches "
            "that divide it, or --equal steps"
        )
    return round(exact)


def check(config: Config) -> None:
    """Everything that can be checked without reading a file; raises UserError."""
    for name in ("model", "stage", "batch", "interval", "moments"):
        values = getattr(config, name)
        if not values:
            raise UserError(f"{name}: name at least one")
        once(name, values)
    for name in ("rate", "learning_rate"):
        once(name, getattr(config, name))
    for name in ("stage", "learning_rate"):  # as the names of parts have them
        once(name, [f"{value:g}" for value in getattr(config, name)])
    if not config.rate and not config.learning_rate:
        raise UserError("rate: choose continue, constant or mean")
    if "warmed" in config.moments and not config.optimizer.warmup:
        raise UserError("moments: warmed needs steps to estimate them in; make --optimizer.warmup at least 1")
    if config.learning_rate and config.rate != ("continue",):
        raise UserError("learning_rate: is constant; leave rate out")
    leasts = (("times", 1), ("after", 1), ("stagger", 1), ("window", 2), ("budget", 1), ("control", 0))
    check_rules(
        config,
        [(name, getattr(config, name) >= least, f"at least {least}") for name, least in leasts]
        + [(name, min(getattr(config, name)) >= 1, "at least 1") for name in ("batch", "interval")]
        + [
            ("stage", all(0 < stage <= 1 for stage in config.stage), "above 0 and at most 1"),
            ("passages", config.passages is None or config.passages >= 1, "at least 1"),
            ("learning_rate", all(rate > 0 for rate in config.learning_rate), "above 0"),
        ],
    )
    reading = config.reading
    rules = [(name, getattr(reading, name) >= 1, "at least 1") for name in ("window", "bootstrap", "t_min")]
    rules += [("least_fit", reading.least_fit <= 1, "at most 1"), ("aim", reading.aim > 0, "above 0")]
    check_rules(reading, [*rules, ("base", reading.base > 1, "above 1")], "reading.")
    never = config.fiction.control if config.facts is None and config.inject == "fictional" else config.control
    if reading.drift == "control" and not never:
        raise UserError(
            "reading.drift: control needs passages that are never injected; give --control some, or leave it at kept"
        )
    for part in config.parts():
        if part.stagger > part.interval:
            raise UserError(
                f"stagger: {part.stagger} parts do not fit into an interval of {part.interval} steps; choose at most that many"
            )
        if part.after <= reading.window:
            raise UserError(
                f"after: {part.after} steps end inside the window of {reading.window} steps in which the last maximum is "
                "looked for; make the run longer or --reading.window smaller"
            )
        models.check(part.model, config.family)
        here = "/" in part.model or Path(part.model).expanduser().exists()
        if not here and not models.about(part.model).from_scratch:
            raise UserError(
                f"model {part.model!r}: is no named size ({', '.join(models.SIZES)}) nor LAYERSxWIDTH, and no folder here"
            )
    if config.stream != "fictional":
        check_source(config.stream)
    if config.facts is not None and config.inject != "fictional":
        raise UserError("inject and facts: give one of them, each brings its own passages")
    if config.inject != "fictional" and not Path(config.inject).is_file():
        raise UserError(f"inject {config.inject}: no such file; give a .jsonl or .json file of passages, or fictional")
