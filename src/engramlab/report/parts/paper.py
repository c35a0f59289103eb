"""The figures the storage paper prints, to be shown beside a run's own.

Source: Allen-Zhu & Li, Physics of Language Models, Part 3.1: Knowledge Storage and Extraction, arXiv
2309.14316v3. All are exact match on P_test with N = 100,000 people; bioS was read by GPT-2 small with rotary
embedding (124M parameters), bioR by the wider model (302M).
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "arXiv 2309.14316v3"
_PARAMETERS = {"bioS": "124M", "bioR": "302M"}


@dataclass(frozen=True)
class Published:
    """One published accuracy, as a share in 0..1."""

    dataset: str
    exact_match: float
    mode: str = "finetune"
    family: str = "bioS"
    attribute: str = "mean"

    @property
    def source(self) -> str:
        """Where the figure comes from and what it was measured on; belongs beside every print of it."""
        return f"{SOURCE}; {self.family}, N = 100k, {_PARAMETERS[self.family]} parameters"


PUBLISHED = (
    Published("single", 0.866, mode="mixed"),
    Published("single", 0.777, mode="mixed", family="bioR"),
    Published("single", 0.097),
    Published("single", 0.33, attribute="birth_date"),
    Published("single+permute1", 0.044),
    Published("multi5", 0.41),
    Published("single+permute5", 0.70),
    Published("multi5+permute", 0.966),
    Published("single+permute1+CEL", 0.868),
    Published("single", 0.100, family="bioR"),
    Published("single+CEL", 0.763, family="bioR"),
    Published("single+fullname+CEL", 0.822, family="bioR"),
)


#: What the paper says in words of models that see both ways (GBERT), mixed training and QA finetuning alike.
BIDIRECTIONAL = f"In the paper masked models answer well about birth date and major and poorly elsewhere ({SOURCE})."


def published(dataset: str, mode: str, family: str = "bioS", attribute: str = "mean") -> Published | None:
    """The paper's figure for one dataset and way of training, or None where it prints none."""
    wanted = (dataset, mode, family, attribute)
    for figure in PUBLISHED:
        if (figure.dataset, figure.mode, figure.family, figure.attribute) == wanted:
            return figure
    return None
