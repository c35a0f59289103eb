"""Options and presets of knowledge editing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, comma_separated, once
from engramlab.core.training import losses
from engramlab.corpora.facts import FactOptions
from engramlab.editing import benchmarks, method, wording
from engramlab.editing import cases as editing_cases
from engramlab.editing.hyper import Hyperparameters
from engramlab.editing.judge import beyond
from engramlab.editing.judge.options import BesideOptions

_TWIN_ROOM = 12  # cases read for each twin: of some the subject is edited


@dataclass(frozen=True)
class Config(FactOptions, BesideOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model", "benchmark", "text")
    BASIC = (
        ("what is edited", ("model", "facts", "benchmark", "known_only", "limit")),
        ("how", ("methods", "losses", "setting", "counts", "turn")),
        ("numbers", ("dtype", "device", "seed")),
    )

    model: str = ""
    """The model to edit: a folder, a .gguf file or a hub id."""
    methods: tuple[str, ...] = ("ft-m", "lora", "rome", "memit")
    """Methods by name; `all` for every one. Commas or spaces between them."""
    losses: tuple[str, ...] = ("cross-entropy", "overtone")
    """Losses by name, with settings if you like: overtone:mixing=0.3:clip=0. Methods without a loss run once."""
    benchmark: str = "world"
    """`world` (facts about countries, built in), `people` (made-up people, up to 30,000 facts to be learnt), a file of edits in
    any of the known formats, or hub:owner/name."""
    learn: bool = False
    """Of your own facts: the model shall learn the table's objects. By default each edit puts another object of the same
    relation in the place of the table's."""
    format: str | None = None
    """Format of the file; None to tell by its records."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What to do about malformed records: refuse the file, or leave them out and say so."""
    known_only: bool = False
    """Only cases whose old answer the model itself writes: knowledge it has."""
    part: Literal["all", "tune", "test"] = "all"
    """All cases, or a part: `tune` (a quarter of the subjects, to choose settings on) or `test` (the others, to report)."""
    words: int = 0
    """Only cases whose new answers have at least so many words: tokens of long ones overfit unevenly."""
    judged_by: tuple[str, ...] = ()
    """Only cases that are judged by each of these: generality, portability, locality."""
    limit: int | None = None
    """At most so many cases; None for all of a file, for 100 of world and 1,000 of people; of turns, for as many as the largest
    of `counts`."""
    judges: int | None = None
    """At most so many queries of each role and kind judge a case; None for all the benchmark has."""
    wordings: int = 1
    """In how many wordings each edit is made: its prompt, those of its record, then plain ones or a chat model's; none of them
    judges it."""
    writer: str = ""
    """A chat model that writes the wordings; by default they are made by templates."""
    chat: bool = False
    """Put every prompt as a message of a user, in the model's chat template: to edit, and to ask. A right answer may then say
    the question again first."""
    setting: Literal["single", "continual", "batch", "turns"] = "single"
    """`single`: each case on the unedited model. `continual`: one after another. `batch`: all at once. `turns`: turn after turn
    on one model, for thousands: a sample of all ages is judged, beside what was never edited and what was lost."""
    counts: tuple[int, ...] = (1, 10, 100)
    """Continual: after so many edits, everything edited so far is judged. Turns: a sample of it."""
    turn: int = 100
    """Turns: so many cases are edited together."""
    order_seed: int | None = None
    """Turns: draws another order of the same edits, so that two orders can be compared: of those before each of `counts`, and
    the last one about a prompt stays the last. None for the order in which they come."""
    sample: int = 500
    """Turns: so many cases are judged after each count, evenly over tenths of age; drawn before the run, by the seed. Of at
    most 100 of them fluency is measured."""
    twins: int = 100
    """Turns: so many cases of the same relations, about other subjects, are asked and never edited."""
    natives: int = 200
    """Turns: at most so many facts about countries, which the unedited model writes, judge locality beside the benchmark."""
    unknown: int = 50
    """Turns: beside the natives, at most so many facts that the unedited model does not write are asked: how many are won?"""
    contexts: int = 0
    """Also ask each edit's prompt behind so many sentences that no method has seen, at most 16: an edit should hold there too.
    These answers are in no share, but a number of their own."""
    asides: bool = False
    """Turns: also ask each judged edit negated ("The capital of France is not") and the other way round, where its prompt
    names a relation of a subject; such answers are in no share, but told apart."""
    text: str = "sampled"
    """Turns: text on which nats a token are measured, --text-rows passages of it, in place of --drift-text: `sampled` (the
    unedited model's own), a file, or hub:owner/name."""
    at_once: int = 16
    """Single: cases edited and judged together in one batch, each under its own delta. Results are the same for any number."""
    new_tokens: int | None = None
    """Tokens written at most after each prompt; None for the longest answer and two more, at most 24, and more only after
    prompts whose own right answers are longer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model's weights. In bfloat16 the same prompt can be answered differently in batches of another shape, which
    looks like a few per cent of lost locality."""
    device: str | None = None
    """Such as cuda:0; None for a GPU if there is one."""
    seed: int = 0
    """Of the choice of cases and of the bootstrap."""
    checkpoint_minutes: float = 2.0
    """Continual: wall-clock minutes between checkpoints."""
    hyper: Hyperparameters = field(default_factory=Hyperparameters)
    """Hyperparameters of the methods."""

    @property
    def most(self) -> int | None:
        """How many cases at most."""
        if self.setting == "turns":
            return max(self.counts) if self.limit is None else min(self.limit, max(self.counts))
        made = benchmarks.made().get(self.benchmark) if self.facts is None else None
        return getattr(made, "LIMIT", None) if self.limit is None else self.limit

    @property
    def read(self) -> int | None:
        """How many cases to read of a benchmark that is made; None for all, and always of a file."""
        made = self.facts is None and self.benchmark in benchmarks.made()
        if not made or self.known_only or self.part != "all" or self.words or self.judged_by:
            return None
        more = _TWIN_ROOM * self.twins if self.setting == "turns" else 0
        return None if self.most is None else self.most + more

    def chosen(self) -> list[tuple[str, str]]:
        """Every (method, loss) to run; loss "none" for a method that takes none."""
        listed = comma_separated(self.methods)
        found = []
        for name in method.names() if "all" in listed else listed:
            for loss in comma_separated(self.losses) if method.load(name).TAKES_LOSS else ("none",):
                found.append((name, loss))
        return found


def folder_of(out: Path, unit: tuple[str, str]) -> Path:
    """Where the results of a (method, loss) are kept."""
    name, loss = unit
    return out / name / loss.replace(":", "_").replace("=", "-")


TINY = Config(limit=16, judges=1, counts=(1, 4, 16), turn=1, sample=20, twins=8, natives=8, text_rows=8)
LIFELONG = Config(
    benchmark="people",
    setting="turns",
    counts=(100, 1000),
    judges=1,
    methods=("ultraedit", "locft", "ft-m", "memit"),
)
PAPER = Config(methods=("ft-m", "lora", "melo", "wise"), at_once=8)
PRESETS = {
    "default": Config(),
    "tiny": TINY,
    "world": Config(known_only=True, part="test", judges=1),
    "paper": PAPER,
    "lifelong": dataclasses.replace(LIFELONG, losses=("cross-entropy",)),
}


def check(config: Config) -> None:
    """Everything that can be checked without a model or a file; raises UserError."""
    editing_cases.require_model(config.model)
    listed = comma_separated(config.methods)
    if not listed:
        raise UserError(f"methods: name at least one of {', '.join(method.names())}")
    if not comma_separated(config.losses):
        raise UserError(f"losses: name at least one of {', '.join(losses.LOSSES)}")
    for name in listed:
        if name != "all":
            method.load(name)
    for loss in comma_separated(config.losses):
        losses.parse(loss)
    for option in ("methods", "losses"):
        once(option, comma_separated(getattr(config, option)))
    once("counts", config.counts)
    at_least(config, 1, "limit", "judges", "at_once", "new_tokens", "turn", "sample")
    at_least(config, 0, "twins", "natives", "unknown", "words", "contexts")
    if config.contexts > len(beyond.SENTENCES):
        raise UserError(
            f"contexts: there are {len(beyond.SENTENCES)} sentences; at most so many, not {config.contexts}"
        )
    config.check_beside(config.setting != "single", instead="--setting continual, batch or turns")
    editing_cases.check_roles(config.judged_by)
    if not config.counts or min(config.counts) < 1:
        raise UserError(f"counts: must be numbers of edits from 1 up, not {config.counts}")
    if config.setting == "turns" and (odd := [n for n in config.counts if n % config.turn and n != config.limit]):
        raise UserError(
            f"counts: {odd[0]} edits do not fill turns of {config.turn}; give multiples of --turn, or that many as --limit"
        )
    if config.order_seed is not None and config.setting != "turns":
        raise UserError(f"order_seed: is of --setting turns; leave it out for {config.setting}")
    if config.setting == "batch":
        for name, _ in config.chosen():
            if not method.load(name).TOGETHER:
                raise UserError(
                    f"method {name!r} cannot make many edits at once; leave it out, or use --setting continual"
                )
    if config.facts is not None and config.benchmark != Config.benchmark:
        raise UserError("benchmark and facts: give one of them, each brings its own cases")
    benchmarks.check(config.benchmark)
    wording.check(config.wordings, config.writer)
    if config.wordings > 1 and config.chat:
        raise UserError("wordings: are made of plain prompts; leave --chat out, or give one wording")
