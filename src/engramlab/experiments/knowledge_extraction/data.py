"""One variant's entries and questions, from bioS or from a user's table."""

from __future__ import annotations

from engramlab.corpora import datasets
from engramlab.corpora.datasets import Dataset, Source
from engramlab.experiments.knowledge_extraction.config import Config

__all__ = ["Dataset", "dataset", "variants"]


def dataset(config: Config, variant: str) -> Dataset:
    """The entries and questions of one variant. Raises UserError for whatever is wrong with the options or the table."""
    return datasets.dataset(Source.of(config), variant)


def variants(config: Config) -> tuple[str, ...]:
    """The variants of a run; a rewritten corpus has only the one it was written in."""
    return ("bior",) if config.corpus is not None else config.variants
