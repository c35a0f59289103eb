"""bioR: biographies that a chat model has written, from the folder that `engramlab corpus bior` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engramlab.base.errors import UserError
from engramlab.corpora.datasets import Dataset, halves
from engramlab.corpora.people import QUESTIONS
from engramlab.corpora.rewriting import rewritten
from engramlab.corpora.variants import Variant

GIVEN, VARIANTS = "corpus", ("bior",)


@dataclass(frozen=True)
class Config:
    """Biographies of made-up people that a chat model has written."""

    READS = ("corpus",)

    corpus: Path | None = None
    """A folder written by `engramlab corpus bior`, instead of bioS; its one variant is then called bior."""
    seed: int = 0
    """Of the split and whatever is trained."""


def dataset(config: Config, variant: str) -> Dataset:
    """The texts of the folder, and questions about half of its people."""
    if config.corpus is None:
        raise UserError("corpus: give a folder that `engramlab corpus bior` wrote")
    return halves(rewritten(config.corpus), QUESTIONS, config.seed, variant, Variant())
