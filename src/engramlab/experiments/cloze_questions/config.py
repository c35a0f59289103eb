"""Options and presets of cloze questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, check_rules, once
from engramlab.corpora.facts import FactOptions
from engramlab.measuring.cloze import TRAINED, Score

Translator = Literal["rules", "own", "model", "bare"]


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run."""

    READS = ("model", "questions", "translations", "writer")
    BASIC = (
        ("what is asked", ("model", "questions", "limit", "wrong")),
        ("how", ("translators", "translations", "writer", "scores", "consistency", "train_by", "control", "seed")),
    )

    model: str = ""
    """What is asked: a model folder, a .gguf file or a hub id; causal, or a masked one trained here. Required."""
    questions: str = "facts"
    """Multiple-choice questions: a file in the format of CommonsenseQA, OpenBookQA or SocialIQA; `facts` for questions made of
    a table of facts, the embedded countries unless another is given."""
    table: FactOptions = field(default_factory=FactOptions)
    """Facts of your own, for questions that are made of them."""
    limit: int | None = 200
    """Questions asked, drawn by the seed; None for all."""
    wrong: int = 4
    """Wrong options of a question that is made of a fact."""
    translators: tuple[Translator, ...] = ("rules", "own", "bare")
    """How a question becomes a statement with a gap: `rules` for English; `own`, the statements that came with the questions or
    are given by --translations; `model`, by a chat model; `bare`, the question with a gap behind it."""
    translations: Path | None = None
    """A file of your translations: records with id and translations, a list of texts with [MASK] in each."""
    writer: str = ""
    """The chat model that translates; by default the one that is asked."""
    tries: int = 3
    """Answers asked of that model for each question, before it is left untranslated."""
    scores: tuple[Score, ...] = ()
    """What of an option counts. Masked models: `raw` (the released code's), `pll`, `answer`; causal ones: `sum`, `mean`,
    `character`, `prior`. None: all that are for the model."""
    consistency: bool = True
    """Train the model, without labels, until the translations agree; ask before and after."""
    train_by: Score | None = None
    """The score it is trained by: `raw` or `answer`, `sum` or `mean`. None: `raw` for masked models, `sum` for causal ones."""
    control: bool = True
    """Train another copy on the translations of other questions, which must gain nothing."""
    epochs: int = 3
    """Passes over the questions."""
    batch: int = 16
    """Questions an optimizer step, with all their translations and options."""
    learning_rate: float = 1e-5
    """Of AdamW, constant; no dropout."""
    tokens_at_once: int = 4096
    """Padded tokens of a pass of training; a step of more is read in parts, twice each."""
    seed: int = 0
    """Of questions, wrong options, their order, training and the bootstrap."""
    checkpoint_minutes: float = 5.0
    """Wall-clock minutes between checkpoints of training."""


PRESETS = {
    "tiny": Config(limit=100),
    "small": Config(limit=500),
    "paper": Config(limit=None, translators=("rules", "own", "model", "bare")),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    at_least(config, 2, "limit")
    at_least(config, 1, "wrong", "tries", "epochs", "batch", "tokens_at_once")
    check_rules(
        config,
        [
            ("learning_rate", config.learning_rate > 0, "above 0"),
            ("checkpoint_minutes", config.checkpoint_minutes >= 0, "at least 0"),
            ("train_by", config.train_by is None or config.train_by in TRAINED, f"one of {', '.join(sorted(TRAINED))}"),
        ],
    )
    for name in ("translators", "scores"):
        once(name, getattr(config, name))
    if not config.translators:
        raise UserError("translators: name at least one of rules, own, model, bare")
    if config.translations is not None and "own" not in config.translators:
        raise UserError("translations: the file is read by the translator `own`; name it among the translators")
