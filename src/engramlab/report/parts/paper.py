"""The figures the storage paper prints, to be shown beside a run's own.

Source: Allen-Zhu & Li, Physics of Language Models, Part 3.1: Knowledge Storage and Extraction, arXiv
2309.14316v3. All are exact match on P_test with N = 100,000 people; bioS was read by GPT-2 small with rotary
embedding (124M parameters), bioR by the wider model (302M).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = "arXiv 2309.14316v3"
_PARAMETERS = {"bioS": "124M", "bioR": "302M"}


@dataclass(frozen=True)
class Published:
    """One published accuracy, as a share in 0..1."""

    dataset: str
    mode: str
    family: str
    attribute: str
    exact_match: float

    @property
    def source(self) -> str:
        """Where the figure comes from and what it was measured on; belongs beside every print of it."""
        return f"{SOURCE}; {self.family}, N = 100k, {_PARAMETERS[self.family]} parameters"


@cache
def figures() -> dict[tuple[str, str, str, str], Published]:
    """All of them, by dataset, mode, family and attribute."""
    lines = Path(__file__).with_name("paper.tsv").read_text(encoding="utf-8").splitlines()[1:]
    made = {}
    for dataset, mode, family, attribute, share in (line.split("\t") for line in lines):
        made[dataset, mode, family, attribute] = Published(dataset, mode, family, attribute, float(share))
    return made


#: What the figures were made with, of options that a sweep may vary.
MADE_WITH = {"qa-ratio": 0.8, "people": 100_000.0}


def made_with(over: str) -> bool:
    """Are the figures for these values of what is swept over, as in ``qa-ratio=0.8, people=100000``? Of an option that is not
    among ``MADE_WITH`` the figures stand for no one value, and so beside none."""
    settings = (part.partition("=") for part in over.split(", ") if part)
    return all(name in MADE_WITH and _is(value, MADE_WITH[name]) for name, _, value in settings)


def _is(text: str, number: float) -> bool:
    try:
        return abs(float(text) - number) < 1e-9
    except ValueError:
        return False


#: What the paper says in words of models that see both ways (GBERT), mixed training and QA finetuning alike.
BIDIRECTIONAL = f"In the paper masked models answer well about birth date and major and poorly elsewhere ({SOURCE})."


def published(dataset: str, mode: str, family: str = "bioS", attribute: str = "mean") -> Published | None:
    """The paper's figure for one dataset and way of training, or None where it prints none."""
    return figures().get((dataset, mode, family, attribute))
