"""Options, presets and arms of teaching."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engramlab.base.errors import UserError, at_places, listed, quoted
from engramlab.base.options import at_least, between, check_rules, comma_separated, once
from engramlab.corpora.facts import FactOptions, FactTable
from engramlab.corpora.facts.teaching import Divided, divide, only
from engramlab.corpora.variants import parse_variant
from engramlab.files.tables import read_table

FEWEST = 8  # subjects a half: fewer say nothing of those whose questions were never trained
FINISH = 0.25  # of the steps, for the questions that were held back


@dataclass(frozen=True)
class Arm:
    """One way of putting facts into a model.

    Attributes:
        variant: how the entries about a subject are written; "" where nothing is trained.
        crossing: are facts also stated from another side?
        questions: are questions about half of the subjects trained?
        way: "train", "edit", "context" (the passage that states the fact stands before each question), "retrieved" (the one
            that shares the most words with it does) or "untouched".
        rote: are facts learnt by heart first, behind meaningless words, and only then questions trained?
    """

    variant: str = ""
    crossing: bool = False
    questions: bool = False
    way: Literal["train", "edit", "context", "retrieved", "untouched"] = "train"
    rote: bool = False

    @property
    def varied(self) -> bool:
        """Do the texts about a subject differ in their wordings? Then a chat model may write them."""
        return self.variant not in ("", "single")


AUGMENTED = "multi8+permute+fullname"
ARMS = {
    "untouched": Arm(way="untouched"),
    "single": Arm("single"),
    "augmented": Arm(AUGMENTED, crossing=True),
    "augmented+questions": Arm(AUGMENTED, crossing=True, questions=True),
    "single+questions": Arm("single", questions=True),
    "rote": Arm("single", questions=True, rote=True),
    "edit": Arm(way="edit"),
    "context": Arm(way="context"),
    "retrieved": Arm(way="retrieved"),
}


@dataclass(frozen=True)
class Config(FactOptions):
    """Everything that decides the numbers of a run."""

    READS = (*FactOptions.READS, "model", "text", "replay", "documents", "writer", "known")
    BASIC = (
        ("what is taught", ("model", "facts", "attributes", "documents", "writer")),
        ("how", ("arms", "encounters", "weights", "learning_rate", "replay", "finish")),
        ("how it is judged", ("known", "seed")),
    )

    model: str = ""
    """What is taught: a model folder, a .gguf file or a hub id. Required."""
    arms: tuple[str, ...] = ("augmented+questions",)
    """Ways of putting the facts in, each from the same model with as many trained tokens as the first that trains: untouched,
    single, augmented, augmented+questions, single+questions, rote (by heart behind meaningless words, then questions, as in
    arXiv 2507.21914), edit, context, retrieved; commas or spaces between them. The first that trains is kept as a model.
    Others may be added to a run that is done."""
    documents: Path | None = None
    """Documents to be taught, in place of facts: a file or a folder of text. They are cut into passages."""
    writer: str = ""
    """A chat model. Of documents it writes rewrites of the passages and questions about them; without one their sentences are
    only put in other orders and nothing is asked about them in training: expect next to nothing to be learnt. Of facts, in arms
    with augmentation, it writes the texts about each subject, in place of templates."""
    rewrites: int = 10
    """Texts by the writer: rewrites of each passage, or texts about each subject."""
    asked_share: float = 0.5
    """Share of the subjects whose questions are trained too; the result is how the others can be asked."""
    encounters: int = 50
    """Texts read about each subject."""
    pilot: bool = False
    """Try three learning rates around the one given on a few subjects first, and reckon from the best how many texts are
    needed; `encounters` is what is read where that tells nothing."""
    batch: int = 16
    """Rows a step."""
    question_share: float = 0.3
    """Share of the rows that are questions, where any are trained."""
    replay_share: float = 0.1
    """Share of the rows that are replayed text, against forgetting."""
    crossing_share: float = 0.25
    """Share of the rows about the facts that state them from another side, in arms with augmentation."""
    replay: str = "self"
    """What is replayed: "self" (text that the model writes beforehand), a file of text, or "none"."""
    replay_texts: int | None = None
    """Texts that are replayed; a quarter as many more are kept unseen, to measure drift. None for as many as training reads
    once each, from 256 to 20,000: a text that is read again and again is learnt by heart, and keeps nothing else."""
    replay_tokens: int = 96
    """Longest replayed text."""
    text: Path | None = None
    """Other running text, never trained on, on which drift is measured too."""
    text_column: str = "text"
    """Where a .jsonl or .parquet file of text keeps it."""
    weights: Literal["lora", "full"] = "lora"
    """What is trained: low-rank updates of all projections, merged in the end, or all weights."""
    rank: int = 16
    """Rank of the low-rank updates; they are scaled by 2."""
    keep: Literal["model", "adapter"] = "model"
    """What is written for you: the taught model as a whole, in the number type it came in, or the low-rank update alone, as a
    PEFT adapter that goes on the model as it was."""
    learning_rate: float | None = None
    """None for 1e-3 of low-rank updates and 1e-4 of all weights."""
    weight_decay: float = 0.01
    """AdamW's decay."""
    points: int = 8
    """Measurements along the way."""
    watched_facts: int = 48
    """Facts of each half that are asked along the way; in the end all are."""
    stop: bool = True
    """End when the share of held-out questions that are answered rose less than a point over three measurements, or drift was
    over its limit for three and is not coming back; only where one arm alone is trained."""
    drift_limit: float = 0.05
    """Most nats a token that unseen replay text (or, where nothing is replayed, other text) may become less likely before a run
    of one arm ends."""
    finish: bool = False
    """In the end, train the questions about the other half too, for a quarter of the steps. The verdict is from before, and the
    model is marked as untested. May be added to a run that is done."""
    edit_method: Literal["memit", "lora", "ft-m", "alphaedit"] = "memit"
    """Of the arm "edit"."""
    audit: bool = True
    """Ask first which facts the model knows already (in four fifths of all wordings): they are left alone, and must stay
    known."""
    audit_facts: int | None = None
    """Facts that are asked first, at most, drawn by the seed: the others are taught without a look, and what is asked along the
    way and in the end is of these. None for all."""
    asked_facts: int = 2000
    """Facts of each group that are asked for in the end, at most."""
    only: tuple[str, ...] = ()
    """Of facts.csv that `engramlab audit` wrote, given as the facts: those of these classes, such as `unknown recognised`; the
    others have no part in the run. All where none is named."""
    known: Path | None = None
    """A table of facts that the model knows and shall keep: they are asked for before and after, and trained only where
    replayed text states them, which is said. Columns, templates, phrases and questions are as of the facts. None for capitals
    of the world, where those are about something else."""
    native_facts: int = 60
    """So many of them are asked for, drawn by the seed; 0 for none."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision."""
    checkpoint_minutes: float = 2.0
    """Time after which a checkpoint is due."""
    seed: int = 0
    """Of halves, orders, replay and the bootstrap."""

    def __post_init__(self) -> None:
        for name in ("arms", "only"):  # kept as words, however they were given
            object.__setattr__(self, name, comma_separated(getattr(self, name)))
        for arm in self.arms:
            if arm not in ARMS:
                raise UserError(f"arms: there is no {quoted(arm)}; there are {listed(ARMS)}")
        once("arms", self.arms)
        if self.only:
            from engramlab.measuring.audit.classes import CLASSES

            if wrong := [name for name in self.only if name not in CLASSES]:
                raise UserError(f"only: there is no class {quoted(wrong[0])}; an audit finds {listed(CLASSES)}")
            once("only", self.only)
        at_least(self, 1, "rewrites", "batch", "replay_texts", "points", "watched_facts", "asked_facts", "rank")
        at_least(self, 0, "native_facts", "encounters")
        at_least(self, 8, "replay_tokens")
        at_least(self, 0, "weight_decay")
        for name in ("asked_share", "question_share"):
            between(self, name)
        check_rules(
            self,
            [
                ("arms", bool(self.arms), "at least one"),
                ("replay_share", 0 <= self.replay_share < 1, "at least 0 and below 1"),
                ("crossing_share", 0 <= self.crossing_share < 1, "at least 0 and below 1"),
                ("replay_share", self.replay_share + self.question_share < 1, "below 1 with question_share"),
                ("learning_rate", self.learning_rate is None or self.learning_rate > 0, "above 0"),
                ("drift_limit", self.drift_limit > 0, "above 0"),
                ("audit_facts", self.audit_facts is None or self.audit_facts >= FEWEST, f"at least {FEWEST}"),
            ],
        )
        if self.keep == "adapter":
            self._check_adapter()

    def _check_adapter(self) -> None:
        """Raises UserError where there is no low-rank update that could be kept alone."""
        if self.weights == "full":
            raise UserError(
                "keep: an adapter holds low-rank updates, and --weights full trains all weights; use --weights lora or --keep "
                "model"
            )
        if self.finish:
            raise UserError(
                "keep: --finish trains on from the taught model as a whole; use --keep model, or leave it out"
            )
        if not self.trained or not self.encounters:
            raise UserError("keep: there is no adapter where nothing is trained; use --keep model")

    def known_table(self) -> FactTable | None:
        """The facts that shall be kept; None where none are given. Raises UserError for whatever is wrong with them."""
        return None if self.known is None else replace(self, facts=self.known, only=()).fact_table()

    def fact_table(self) -> FactTable | None:
        """The facts, of the classes named; None where none are given. Raises UserError for whatever is wrong with them."""
        table = super().fact_table()
        return table if table is None or not self.only else self._of_classes(table)

    def _of_classes(self, table: FactTable) -> FactTable:
        given = None if str(self.facts) == "countries" else read_table(self.facts)
        if given is None or not {"subject", "relation", "class"} <= given.columns.keys():
            raise UserError(
                f"only: {self.facts} has no classes; give --facts the facts.csv that engramlab audit wrote, with its columns "
                "subject, relation and class"
            )
        rows = zip(*(given.column(name) for name in ("subject", "relation", "class")), strict=True)
        classes = {(subject, relation): found for subject, relation, found in rows}
        kept = [fact for fact in table if classes[fact.subject, fact.relation] in self.only]
        if not kept:
            there = Counter(classes[fact.subject, fact.relation] for fact in table)
            raise UserError(
                f"only: no fact of {self.facts} is {listed(self.only)}; there are "
                + listed(f"{count:,} {found}" for found, count in there.items())
            )
        return only(table, kept)

    @property
    def written(self) -> list[str]:
        """The arms whose texts a chat model writes about the subjects of a table, where there is one."""
        return [name for name in self.trained if ARMS[name].varied]

    @property
    def trained(self) -> list[str]:
        """The arms that train."""
        return [name for name in self.arms if ARMS[name].way == "train"]

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-3 if self.weights == "lora" else 1e-4


PRESETS = {
    "small": Config(),
    "tiny": Config(encounters=20, replay_texts=64, replay_tokens=64, points=4, watched_facts=24),
    "gpu": Config(encounters=100, batch=64, precision="bf16"),
    # Millions of facts, over several devices: nothing is asked of all of them, and, as in the paper, no text crosses subjects.
    "paper": Config(
        encounters=100,
        batch=1024,
        crossing_share=0.0,
        weights="full",
        points=16,
        watched_facts=200,
        audit_facts=4000,
        precision="bf16",
        checkpoint_minutes=10.0,
    ),
}


BY_TABLE = ("rote", "edit")  # arms that documents do not have


def check(config: Config) -> FactTable | None:
    """The facts; None where documents are taught. Raises UserError for options that cannot work, and whatever is wrong with the
    facts."""
    if not config.model.strip():
        raise UserError("model: say which model is taught, with --model and a model folder, a .gguf file or a hub id")
    table = config.fact_table()
    if (known := config.known_table()) is not None:
        divide(known.wordings)
        if table is not None and (both := sorted(set(known.subjects) & set(table.subjects))):
            raise UserError(
                f"known: {quoted(both[0])} of {config.known} is among the facts that are taught ({len(both)} subjects are); "
                "leave it out of one of the tables"
            )
    if config.documents is not None:
        if table is not None:
            raise UserError("documents and facts: give one of them")
        if config.only:
            raise UserError("only: names classes of facts that an audit wrote; leave it out with --documents")
        if wrong := [name for name in config.arms if name in BY_TABLE]:
            raise UserError(f"arms: {wrong[0]} needs a table of facts; leave it out with --documents")
        return None
    if table is None:
        raise UserError("facts: give the facts to be taught, for example --facts my_facts.csv (or --documents)")
    if len(table.subjects) < 2 * FEWEST:
        raise UserError(
            f"facts: {table.name} has {len(table.subjects)} subjects; at least {2 * FEWEST} are needed, half of which are "
            "asked about although their questions are never trained (for a few facts use engramlab edit)"
        )
    if config.writer and not config.written:
        written = [name for name, arm in ARMS.items() if arm.varied]
        raise UserError(
            f"writer: of the arms {listed(config.arms)} none is trained on texts that {config.writer} could write; add one of "
            f"{listed(written)} to --arms, or leave --writer out"
        )
    words = divide(table.wordings)
    for name in config.trained:
        parse_variant(ARMS[name].variant)
    if config.written and not config.writer:
        _check_several(config.written[0], words)
    return table


def _check_several(arm: str, words: Divided) -> None:
    """Raises UserError where a relation has no two sentences to be trained: an arm of changing wordings would repeat one."""
    for relation, lines in words.trained.spoken.items():
        if len(lines) < 2:
            raise UserError(
                f"templates of {quoted(relation)}: beside what is only asked with {len(lines)} is left to be trained "
                f"({at_places([line.where for line in lines])}), and {arm} trains changing wordings; give one more, or name "
                "arms without augmentation, such as --arms single+questions"
            )
