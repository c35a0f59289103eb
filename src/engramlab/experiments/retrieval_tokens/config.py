"""Options and presets of retrieval tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, between, once
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora.facts import FactOptions

Retrieval = Literal["gold", "words", "states", "vectors", "faiss", "bm25"]


@dataclass(frozen=True)
class Config(FactOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model", "records", "documents", "vectors", "question_vectors")
    BASIC = (
        ("what is read and asked", ("model", "facts", "records", "documents", "retrieval", "limit", "trained")),
        ("training", ("tokens", "epochs", "learning_rate", "lora", "seed")),
    )

    model: str = "2x128"
    """Which model reads: a model folder, a .gguf file or a hub id; or LAYERSxWIDTH, trained from scratch beforehand."""
    records: Path | None = None
    """Questions with passages, in JSON lines as SPRING has them: `question`, `target`, `ret_passages`."""
    documents: str | None = None
    """Passages that questions about the facts are answered from: a file, a folder or a pattern. None: of each subject one that
    states its facts, and those of others."""
    retrieval: Retrieval = "gold"
    """How a question's passages are found. Without --documents `gold`: the subject's, and others drawn by the seed. With them
    `words` (rare ones), `states` (the model's own), `vectors` (yours), `faiss` (the same by FAISS), `bm25`."""
    vectors: Path | None = None
    """Vectors of the documents, in their order, for `--retrieval vectors` or `faiss`: .npy or .safetensors."""
    question_vectors: Path | None = None
    """Vectors of the questions likewise, in the order of the facts; for `faiss` the model's own states where there are none."""
    most: int = 5
    """Passages of a question, at most; how many are read is drawn from 1 on each time it is trained."""
    subjects: int = 200
    """From scratch: people whose questions are trained or asked."""
    people: int = 4000
    """From scratch: other people, whose entries the model is trained on."""
    family: str = "llama"
    """From scratch: the architecture, see `engramlab models`."""
    context: int = 512
    """From scratch: most tokens that the model reads."""
    vocabulary: int = 2048
    """From scratch: largest size of the tokenizer."""
    pretrain: Recipe = field(default_factory=lambda: Recipe(steps=2000, batch=16, learning_rate=3e-3, warmup=100))
    """From scratch: how entries are read, two of one person a row."""
    tokens: int = 50
    """Virtual tokens (the paper's 50)."""
    ks: tuple[int, ...] = (1, 10, 50)
    """How many of them, the first ones, are read when questions are asked."""
    epochs: int = 3
    """How often each question is trained."""
    batch: int = 8
    """Questions a step (the paper's 64)."""
    learning_rate: float = 1e-2
    """Highest learning rate of the tokens, linear warm-up over 2 % of the steps (the paper's 1e-4, in many more steps)."""
    lora: bool = True
    """Also train LoRA on all projections, on the same rows without the tokens."""
    lora_rank: int = 8
    """Its rank."""
    lora_rate: float = 2e-4
    """Its highest learning rate."""
    train_share: float = 0.5
    """Share of the subjects whose questions are trained; the others are asked."""
    trained: int | None = None
    """Questions trained, at most, drawn by the seed."""
    limit: int = 200
    """Questions asked, at most, drawn by the seed."""
    new_tokens: int = 24
    """Most tokens of an answer (the paper's 50)."""
    seed: int = 0
    """Of people, subjects, passages, their order, the number of tokens in a step, and the bootstrap."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of a model that is loaded."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""

    @property
    def scratch(self) -> bool:
        """Is the model trained here, from nothing?"""
        return models.is_size(self.model)


PRESETS = {
    "tiny": Config(attributes=("birth_city", "university", "major"), most=1, epochs=10, limit=150, lora_rate=1e-3),
    "small": Config(model=""),
    "paper": Config(model="", batch=64, learning_rate=1e-4, limit=10_000, new_tokens=50),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    if not config.model.strip():
        raise UserError("model: say which model reads, with --model and a model folder, a .gguf file or a hub id")
    models.check(config.model, config.family)
    whole = ("most", "subjects", "people", "tokens", "epochs", "batch", "lora_rank", "limit", "new_tokens")
    at_least(config, 1, *whole)
    between(config, "train_share")
    once("ks", config.ks)
    for k in config.ks:
        if not 1 <= k <= config.tokens:
            raise UserError(f"ks: must be from 1 to {config.tokens}, the number of virtual tokens, not {k}")
    if config.trained is not None:
        at_least(config, 1, "trained")
    if config.records is not None and (config.facts is not None or config.documents is not None):
        raise UserError("records: come with their own passages and answers; leave facts and documents out")
    if (config.documents is None) != (config.retrieval == "gold"):
        raise UserError(
            f"retrieval {config.retrieval!r} needs --documents, a folder of passages to be searched"
            if config.documents is None
            else "documents: say how they are searched, with --retrieval words, states, vectors, faiss or bm25"
        )
    if config.documents is not None and config.facts is None:
        raise UserError("documents: questions come from facts; give --facts, a table or countries")
    given = (config.vectors is not None, config.question_vectors is not None)
    if given[0] != given[1] or (config.retrieval == "vectors" and not given[0]):
        raise UserError("vectors and question_vectors go together: give both files")
    if any(given) and config.retrieval not in ("vectors", "faiss"):
        raise UserError(f"vectors: play no part in retrieval {config.retrieval!r}; choose vectors or faiss")
    if config.scratch and (config.records is not None or config.facts is not None):
        raise UserError("model: a size is trained on entries of people; give a model that exists for facts or records")
