"""Options and presets of factual decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, once
from engramlab.core.forward.decoding import dola
from engramlab.corpora.facts import FactOptions

Part = Literal["choices", "spans", "passages", "speed"]


@dataclass(frozen=True)
class Config(FactOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model", "truthfulqa", "factor", "cad_file", "micd_questions", "micd_passages")
    BASIC = (
        ("what is asked", ("model", "truthfulqa", "factor", "facts", "limit", "subjects", "shots", "parts")),
        ("how", ("divergence", "likelihood", "penalty", "alphas", "seed")),
    )

    model: str = ""
    """What is asked: a model folder, a .gguf file or a hub id. Required."""
    parts: tuple[Part, ...] = ("choices", "spans", "passages", "speed")
    """What is done: answers to choose from, layer by layer over sentences, passages, and how long each decoder takes."""
    truthfulqa: Path | None = None
    """TruthfulQA.csv: its questions are asked too, behind six of our own with answers."""
    factor: Path | None = None
    """A CSV file of FACTOR (news, wiki or expert), asked too."""
    factor_prefix: Literal["full", "cut"] = "full"
    """What stands before FACTOR's completions: `full_prefix` (news), or `turncated_prefixes` (wiki)."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What becomes of a record that is no question: the run is refused, or the record left out and named."""
    limit: int = 200
    """Questions of a set, at most, drawn by the seed; the first half chooses layers, the other is reported."""
    options: int = 5
    """Objects to choose from when facts are asked for, the right one among them."""
    shots: int = 5
    """Other facts of the relation, with their answers, that stand before a question; of MICD's file other questions."""
    subjects: int = 100
    """Facts that are asked for behind passages, and sentences that are looked at layer by layer."""
    candidates: tuple[int, ...] = ()
    """Layers that a static one is chosen from; by default all of the low and the high bucket."""
    plausible: float = 0.1
    """Of DoLa: tokens less likely than this share of the likeliest are out."""
    divergence: dola.Divergence = "jensen-shannon"
    """Of DoLa: how far apart two distributions are, or the formula of the authors' code ("released")."""
    likelihood: Literal["all", "head", "none"] = "all"
    """Of DoLa: how likelihoods are normalised, see `engramlab ask --decoding dola --help`."""
    early_norm: bool = False
    """Of DoLa: take early distributions behind the final norm."""
    penalty: float = 1.2
    """Repetition penalty where DoLa writes, and of greedy decoding's second row."""
    alphas: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
    """Weights of CAD's and MICD's contrasts."""
    cad_file: Path | None = None
    """A JSON-lines file as CAD has it: its questions are written with and without contrast."""
    micd_questions: Path | None = None
    """A TSV file of questions as MICD has it; needs --micd-passages."""
    micd_passages: Path | None = None
    """Its passages, JSON lines."""
    new_tokens: int = 15
    """Most tokens that are written."""
    seed: int = 0
    """Of questions, options, passages, random layers and the bootstrap."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the model."""

    def dola(self, **more: object) -> dola.Config:
        """DoLa with the run's settings."""
        common = {
            "plausible": self.plausible,
            "divergence": self.divergence,
            "likelihood": self.likelihood,
            "early_norm": self.early_norm,
            "penalty": self.penalty,
            "seed": self.seed,
        }
        return dola.Config(**{**common, **more})  # type: ignore[arg-type]


PRESETS = {
    "tiny": Config(limit=60, subjects=24, alphas=(0.5, 1.0, 2.0)),
    "small": Config(),
    "paper": Config(limit=10_000, subjects=1000),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    at_least(config, 2, "limit", "options", "subjects")
    at_least(config, 1, "new_tokens")
    at_least(config, 0, "shots")
    once("parts", config.parts)
    once("alphas", config.alphas)
    once("candidates", config.candidates)
    if not config.parts:
        raise UserError("parts: name at least one of choices, spans, passages, speed")
    if "passages" in config.parts and not config.alphas:
        raise UserError("alphas: name at least one weight")
    for alpha in config.alphas:
        if not math.isfinite(alpha):
            raise UserError(f"alphas: must be finite numbers, not {alpha}")
    if (config.micd_questions is None) != (config.micd_passages is None):
        raise UserError("micd_questions and micd_passages go together: give both files, or neither")
    config.dola()
