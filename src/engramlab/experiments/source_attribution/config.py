"""Options and presets of source attribution."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, between, once
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora.documents import IdKind
from engramlab.corpora.people import Pools
from engramlab.measuring.citing import INSTRUCTION

Strategy = Literal["no-id", "begin", "end", "repeat"]


@dataclass(frozen=True)
class Arm:
    """One way of putting identifiers into the documents that are read.

    Attributes:
        copies: texts a document: itself, and so many less one with its sentences in other orders.
        thought: is the rest of the document told before its identifier when a question is answered?
    """

    strategy: Strategy
    copies: int
    thought: bool = False

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.strategy}-{self.copies}" + ("-thought" if self.thought else "")


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run."""

    READS = ("model", "sources", "questions", "text", "tokenizer")
    BASIC = (
        ("what is read and asked", ("sources", "questions", "documents", "ids", "in_domain")),
        ("how", ("model", "strategies", "copies", "thought", "mode", "read.steps", "answer.steps")),
        ("numbers", ("seed",)),
    )

    model: str = "tiny"
    """A size, trained from scratch; or a model folder, a .gguf file or a hub id, trained on."""
    family: str = "llama"
    """Architecture of a size (see `engramlab models`)."""
    context: int = 256
    """Longest text that a model from scratch reads, in tokens."""
    sources: Path | None = None
    """Your documents: records with text, url (the identifier) and qa, the form of BioCite. None: documents about made-up
    people."""
    questions: Path | None = None
    """More questions about your documents: records with text (question and answer in two lines) and url."""
    documents: int = 400
    """Documents about made-up people."""
    people: tuple[int, int] = (2, 4)
    """Fewest and most people of such a document; each is in one document only."""
    facts: int = 2
    """Facts of each person that it states."""
    templates: int | None = None
    """Only the first so many wordings of a fact; None for all."""
    pools: Pools = field(default_factory=Pools)
    """How much of each pool of names and values is used."""
    ids: IdKind = "random"
    """Identifiers of such documents: letters drawn at random, or three letters of each last name (BioCite's, which can be
    guessed from the question)."""
    in_domain: float = 0.5
    """Share of the documents of which questions are trained, where your file does not say which (metadata, in_domain)."""
    held_out: float = 0.5
    """Share of those documents' questions that are not trained."""
    strategies: tuple[Strategy, ...] = ("no-id", "begin", "end", "repeat")
    """Where a document's identifier stands while it is read: nowhere, before its text, behind it, or behind every
    sentence."""
    copies: tuple[int, ...] = (1, 3)
    """Texts a document: itself, and copies with its sentences in other orders."""
    thought: bool = True
    """Also the strategy `end` with most copies and a chain of thought: the rest of the document is told before its
    identifier."""
    mode: Literal["after", "mixed"] = "after"
    """Questions behind the reading, in a stage of their own, or both mixed in one."""
    question_share: float = 0.5
    """Share of the rows that are questions, in mode mixed."""
    instruction: str = INSTRUCTION
    """What stands before every question."""
    read: Recipe = field(default_factory=Recipe)
    """Reading the documents, or the mixed training."""
    answer: Recipe = field(default_factory=Recipe)
    """Training the questions, in mode after."""
    asked: int = 400
    """Questions of each group that are asked in the end, at most, drawn by the seed."""
    beams: int = 0
    """0: every identifier is scored, exactly. Otherwise the width of a beam search, for very many documents (the paper: 10)."""
    text: Path | None = None
    """Other text, a file or a folder, to see what of it is lost."""
    text_column: str = "text"
    """Column of that text in JSON lines and Parquet."""
    tokenizer: str = "compact"
    """Of a model from scratch: `compact`, a BPE trained on the documents; or a tokenizer's folder or hub id."""
    vocabulary: int = 4096
    """Largest size of a compact tokenizer."""
    keep: Literal["best", "all"] = "best"
    """Which models are kept: the one that `engramlab cite` asks, or every arm's too."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of the forward and backward passes."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""
    seed: int = 0
    """Of documents, identifiers, groups, training and the bootstrap."""

    def arms(self) -> list[Arm]:
        """What is trained, in order."""
        found = [Arm(strategy, copies) for copies in self.copies for strategy in self.strategies]
        return [*found, *([Arm("end", max(self.copies), True)] if self.thought else [])]


_SMALL = Pools(60, 60, 200, 60, 60, 60, 40, 60)
_RECIPE = Recipe(steps=800, batch=32, learning_rate=4e-3, warmup=50)
TINY = Config(
    model="2x64",
    documents=100,
    people=(2, 3),
    templates=4,
    pools=_SMALL,
    mode="mixed",
    read=_RECIPE,
    answer=_RECIPE,
)
PRESETS = {
    "tiny": TINY,
    "small": replace(
        TINY,
        model="tiny",
        documents=400,
        people=(2, 4),
        templates=None,
        read=Recipe(steps=6000, batch=96, learning_rate=2e-3, warmup=50),
        answer=Recipe(steps=1500, batch=96, learning_rate=2e-3, warmup=50),
    ),
    "paper": Config(
        model="TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
        documents=100_000,
        ids="names",
        beams=10,
        asked=1000,
        precision="bf16",
        read=Recipe(
            steps=7812,  # 10 epochs of the documents at 128 rows
            batch=128,
            learning_rate=8e-5,
            beta1=0.9,
            beta2=0.98,
            eps=1e-6,
            weight_decay=0.02,
            warmup=781,
            schedule="linear",
            final=0.1,
        ),
        answer=Recipe(
            steps=4360,
            batch=128,
            learning_rate=1e-5,
            beta1=0.9,
            beta2=0.98,
            eps=1e-6,
            weight_decay=0.02,
            schedule="linear",
            final=0.1,
        ),
    ),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    at_least(config, 1, "documents", "asked", "facts", "templates", "context")
    for name in ("in_domain", "held_out", "question_share"):
        between(config, name)
    models.check(config.model, config.family)
    for name in ("strategies", "copies"):
        once(name, getattr(config, name))
    if not config.strategies:
        raise UserError("strategies: name at least one of no-id, begin, end, repeat")
    if not config.copies or min(config.copies) < 1:
        raise UserError(f"copies: name at least one, none below 1, not {config.copies}")
    if config.thought and "end" not in config.strategies:
        raise UserError(
            "thought: the chain of thought ends as a document does, with its identifier; name end among the strategies, or say "
            "--no-thought"
        )
    if not 1 <= config.people[0] <= config.people[1]:
        raise UserError(f"people: fewest and most of a document, such as 2 4, not {config.people}")
    if config.facts > 6:
        raise UserError(f"facts: a person has six, not {config.facts}")
    if config.beams and config.beams < 10:
        raise UserError(f"beams: must be 0, or at least 10 for Hits@10, not {config.beams}")
    if config.questions is not None and config.sources is None:
        raise UserError("questions: are about your own documents; give them with --sources too")
