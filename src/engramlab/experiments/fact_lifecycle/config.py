"""Options and presets of the lifecycle of facts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os.path import normpath
from pathlib import Path
from typing import Any, Literal

from engramlab.base import named
from engramlab.base.errors import UserError, listed, quoted
from engramlab.base.options import at_least, check_rules, once
from engramlab.corpora.facts import FactOptions, FactTable
from engramlab.corpora.facts.teaching import divide
from engramlab.editing.cases import require_model

INJECTED = "injected"
#: Methods whose edits are changes of weights, which go on being trained.
IN_WEIGHTS = ("ft-m", "ft-l", "lora", "locft", "rome", "memit", "alphaedit", "ultraedit")
Part = Literal["half-life", "name", "wordings"]


@dataclass(frozen=True)
class Config(FactOptions):
    """Everything that decides the numbers of a run."""

    READS = (*FactOptions.READS, "model", "stream", "other_stream", "run")
    BASIC = (
        ("what is edited", ("model", "facts", "attributes", "parts", "count", "run")),
        ("how facts fade", ("arms", "steps", "trained")),
        ("how far edits reach", ("methods", "name_edits", "wordings", "seed")),
    )

    model: str = ""
    """What is edited and then trained on: a model folder, a .gguf file or a hub id. Required, but for `name` of a network."""
    parts: tuple[Part, ...] = ("half-life", "name", "wordings")
    """half-life: how long edits, injected facts and native ones last under further training. name: whether an edit is read from
    the subject's name or only from the phrase. wordings: what several wordings at edit time are worth."""
    count: int = 24
    """Facts that are edited, each about a subject of its own as far as there are enough."""
    arms: tuple[str, ...] = ("ft-m", "lora", "memit", "alphaedit", "locft", INJECTED)
    """Half-life: ways in which facts enter: editing methods, and `injected`: trained in, in changing sentences. A method can
    have settings, `ft-m:steps=10`, and stand there at several strengths, so that they can be matched."""
    encounters: tuple[int, ...] = (8,)
    """Half-life: sentences about each injected fact; several numbers are several arms, so that strengths can be matched."""
    injection_rate: float = 1e-4
    """Half-life: learning rate of the injection."""
    trained: tuple[Literal["all", "edited", "others"], ...] = ("all",)
    """Half-life: which weights go on being trained: all; as controls the layers that an arm edited, or all but them."""
    stream: str = "fictional"
    """Half-life: the text trained on: `fictional` (passages about a made-up world), `sampled` (the unedited model's own), or a
    file of text."""
    other_stream: str = ""
    """Half-life: another text, as a control, trained on with all weights; empty for none."""
    steps: int = 64
    """Half-life: optimizer steps of further training; measured at 0, 1, 2, 4 ... of them."""
    rows: int = 4
    """Half-life: rows a step."""
    window: int = 64
    """Half-life: tokens a row."""
    learning_rate: float = 3e-5
    """Half-life: of AdamW, constant."""
    options: int = 20
    """Wrong objects that a fact's own is compared with, at most."""
    methods: tuple[str, ...] = ("ft-m", "lora", "rome", "memit")
    """Name and wordings: editing methods."""
    run: Path | None = None
    """Name: a finished run of knowledge-extraction whose network is edited. None trains a small network on bioS."""
    of_model: bool = False
    """Name: edit the model and its facts instead of a network; the first of `attributes` is probed."""
    people: int = 400
    """Name: people that the small network is trained on."""
    network: str = "4x128"
    """Name: its layers x width."""
    network_steps: int = 1500
    """Name: optimizer steps of its training, a batch of 32 entries each."""
    values: int = 10
    """Name: so many objects of the relation that is probed, in a small network of ours."""
    name_edits: int = 40
    """Name: edits, one subject each, that no probe was trained on."""
    probe_steps: int = 500
    """Name: optimizer steps of the probes."""
    wordings: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Wordings: how many wordings an edit is made with."""
    unedited: int = 16
    """Wordings: facts about other subjects that are rows of the edit too, in the arm with them; 0 for no such arm."""
    checkpoint_minutes: float = 2.0
    """Time after which a checkpoint is due."""
    seed: int = 0
    """Of the choice of facts and targets, of the streams, of networks and probes, and of the bootstrap."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("arms", (*IN_WEIGHTS, INJECTED)),
            ("methods", IN_WEIGHTS),
            ("parts", ("half-life", "name", "wordings")),
        ):
            for one in getattr(self, name):
                bare = one.partition(":")[0] if name == "arms" else one
                if bare == INJECTED != one:
                    raise UserError(f"arms: {quoted(one)}: {INJECTED} has no settings; say how strong by --encounters")
                if bare not in allowed:
                    raise UserError(f"{name}: there is no {quoted(one)} here; choose of {listed(allowed)}")
            once(name, getattr(self, name))
        for name in ("encounters", "trained", "wordings"):
            once(name, getattr(self, name))
        if self.other_stream and normpath(self.other_stream) == normpath(self.stream):
            raise UserError(
                f"stream and other_stream: both are {quoted(self.stream)}, and a control must be another text; give one of "
                "them another, or leave the control out with --other-stream ''"
            )
        at_least(self, 1, "count", "steps", "rows", "people", "network_steps", "name_edits", "probe_steps")
        at_least(self, 2, "window", "options")
        at_least(self, 3, "values")
        at_least(self, 0, "unedited")
        check_rules(
            self,
            [
                ("parts", bool(self.parts), "at least one"),
                ("arms", bool(self.arms), "at least one"),
                ("methods", bool(self.methods), "at least one"),
                ("trained", "all" in self.trained, "all, and what else beside it"),
                ("encounters", bool(self.encounters) and min(self.encounters) >= 1, "numbers from 1 up"),
                ("wordings", bool(self.wordings) and min(self.wordings) >= 1, "numbers from 1 up"),
                ("learning_rate", self.learning_rate > 0, "above 0"),
                ("injection_rate", self.injection_rate > 0, "above 0"),
            ],
        )

    @property
    def needs_model(self) -> bool:
        """Is the model used at all?"""
        return self.of_model or bool({"half-life", "wordings"} & set(self.parts))

    @property
    def entries(self) -> list[str]:
        """The arms by which facts enter, each number of encounters by itself."""
        found: list[str] = []
        for arm in self.arms:
            found += [f"{INJECTED} {k}" for k in self.encounters] if arm == INJECTED else [arm]
        return found


SMALL = Config(trained=("all", "edited", "others"), other_stream="sampled", encounters=(4, 8, 16))
TINY = Config(
    count=8,
    arms=("ft-m", "memit", INJECTED),
    steps=16,
    people=60,
    network="2x64",
    network_steps=300,
    values=4,
    name_edits=10,
    probe_steps=200,
    methods=("ft-m", "memit"),
    wordings=(1, 4),
    unedited=4,
)
PRESETS = {
    "small": SMALL,
    "tiny": TINY,
    "gpu": replace(SMALL, count=200, rows=16, steps=256, people=4000, name_edits=200),
}


def editing(arm: str) -> tuple[str, Any]:
    """The method of an arm that edits, and its settings: its own defaults but for those named. Raises UserError."""
    from engramlab.editing import method

    name = arm.partition(":")[0]
    return name, named.parse({name: method.load(name).Config()}, "arms: method", arm)


def check(config: Config) -> FactTable | None:
    """The facts; None where no part needs any. Raises UserError for options that cannot work, and for the facts."""
    for arm in config.arms:
        if arm != INJECTED:
            editing(arm)
    if not config.needs_model:
        return None
    require_model(config.model)
    table = config.fact_table() or FactTable.read("countries", relations=config.attributes)
    divide(table.wordings)
    if len(table.subjects) < 4:
        raise UserError(f"facts: {table.name} has {len(table.subjects)} subjects; at least 4 are needed")
    return table
