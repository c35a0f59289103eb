"""Options of knowledge extraction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, between, once
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora import datasets
from engramlab.files.documents import check_source

Source: Any = datasets.options()  # what the corpora ask for


@dataclass(frozen=True)
class Model:
    """Which network is trained."""

    READS = ("name",)

    name: str = "tiny"
    """A size (LAYERSxWIDTH, or a name: see `engramlab models`), trained from scratch;
    or a model folder, a .gguf file or a hub id, trained on."""
    family: str = "gpt-neox"
    """Architecture of a named size: gpt-neox (GPT-2 with rotary embedding), llama, ... (see `engramlab models`)."""
    context: int = 512
    """Tokens of a row in the packed layout, and the longest text a model from scratch can read."""
    dropout: float = 0.0
    """Dropout of a model from scratch while it trains."""
    objective: Literal["causal", "masked"] = "causal"
    """`causal`: predict the next token. `masked`: the same network with a full attention mask (the paper's GBERT) learns
    to name hidden words; a question is asked with as many mask tokens as the answer has tokens, right if all are named."""
    masked_words: float = 0.15
    """Share of the words chosen in masked training; of these 80 % are hidden, 10 % kept, 10 % replaced by random tokens."""


class Attempt(NamedTuple):
    """One finetuning of the grid."""

    recipe: Recipe
    rank: int
    embedding_rank: int | Literal["full"]

    @property
    def settings(self) -> dict[str, Any]:
        """What tells it from the others of its grid."""
        return {
            "learning_rate": self.recipe.learning_rate,
            "weight_decay": self.recipe.weight_decay,
            "lora_rank": self.rank,
            "embedding_rank": self.embedding_rank,
        }


@dataclass(frozen=True)
class Finetune:
    """Finetuning on questions: every combination of the lists is tried, the best by P_test accuracy is reported."""

    recipe: Recipe = field(default_factory=Recipe)
    """Steps, batch and schedule of each attempt."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates to try; none means the recipe's."""
    weight_decays: tuple[float, ...] = ()
    """Weight decays to try; none means the recipe's."""
    ranks: tuple[int, ...] = (0,)
    """Ranks of LoRA on query and value to try; 0 is full finetuning."""
    embedding_ranks: tuple[int | Literal["full"], ...] = (128,)
    """With LoRA, ranks of the update of the token embedding to try; `full` trains the whole embedding."""

    def __post_init__(self) -> None:
        for name in ("ranks", "embedding_ranks"):
            values = getattr(self, name)
            if not values or any(v != "full" and v < 0 for v in values):
                raise UserError(f"finetune.{name}: give ranks of 0 or more, not {values}")
        for name in ("learning_rates", "weight_decays", "ranks", "embedding_ranks"):
            once(f"finetune.{name}", getattr(self, name))

    def attempts(self) -> list[Attempt]:
        """Every attempt of the grid. Full finetuning trains the embedding like all else: its rank plays no part there."""
        rates = self.learning_rates or (self.recipe.learning_rate,)
        decays = self.weight_decays or (self.recipe.weight_decay,)
        return [
            Attempt(replace(self.recipe, learning_rate=rate, weight_decay=decay), rank, embedding_rank)
            for rank in self.ranks
            for embedding_rank in (self.embedding_ranks if rank else (0,))
            for rate in rates
            for decay in decays
        ]


@dataclass(frozen=True)
class Config(Source):
    """Everything that decides the numbers of a run."""

    READS = ("text", "tokenizer")
    BASIC = (
        ("what is read and asked", ("facts", "key", "templates", "people", "variants")),
        ("training", ("model.name", "pretrain.steps", "finetune.recipe.steps", "mode")),
        ("numbers", ("seed", "precision")),
    )

    variants: tuple[str, ...] = ("single", "multi5+permute")
    """Corpora about the same subjects, each with a model of its own."""
    mode: Literal["finetune", "mixed"] = "finetune"
    """`finetune`: pretrain on entries, then finetune on questions. `mixed`: train on both at once."""
    minority_share: float = 1 / 6
    """Share of the rows read in pretraining that are ordinary people's entries in +CEL and +TEXT variants; the rest are
    celebrities' entries, or text. 1/6 is also what one entry a person beside five a celebrity comes to."""
    text_share: float | None = None
    """Share of the rows that are text in +TEXT variants; none means 1 - minority_share, which leaves the people as few rows
    as beside celebrities (ours). The paper's is one half."""
    text: str | None = None
    """Unrelated text that +TEXT variants (`single+TEXT`) read where +CEL would read celebrities: a file, a folder, a
    pattern, or hub:owner/name. The control that shows whether more text alone helps."""
    text_column: str = "text"
    """Column of the text in JSON lines, Parquet and hub data sets."""
    tokenizer: str = "compact"
    """`compact`: a BPE trained on the corpus; or a tokenizer's folder or hub id. A loaded model brings its own."""
    vocabulary: int = 4096
    """Largest size of a compact tokenizer."""
    layout: Literal["packed", "entries"] = "packed"
    """Rows of training texts: windows cut from the shuffled entries laid end to end, or one entry a row."""
    model: Model = field(default_factory=Model)
    """The network."""
    pretrain: Recipe = field(default_factory=Recipe)
    """Pretraining on entries (or mixed training)."""
    finetune: Finetune = field(default_factory=Finetune)
    """Finetuning on questions."""
    qa_ratio: float = 0.8
    """Share of rows that are questions in mixed training (the paper's QA_r)."""

    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of the forward and backward passes."""
    evaluations: int = 10
    """How often a stage measures first-token accuracies along training."""
    evaluated_people: int = 100
    """Subjects of each group in those measurements; the final accuracy covers everybody up to `asked_people`."""
    asked_people: int = 10_000
    """Subjects of each group whose questions are asked at the end."""
    beams: int = 1
    """Above 1, final answers are also written by beam search and reported as `generated`."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""


def check(config: Config) -> None:
    if not config.variants:
        raise UserError("variants: name at least one, such as multi5+permute")
    models.check(config.model.name, config.model.family)
    once("variants", config.variants)
    between(config, "qa_ratio")
    between(config, "minority_share")
    if config.text_share is not None:
        between(config, "text_share")
    between(config.model, "masked_words", "model.")
    if config.model.objective == "masked" and config.beams > 1:
        raise UserError("beams: a masked model names all tokens of an answer at once; leave beams at 1")
    _check_beside(config)
    if config.mode == "mixed" and config.layout != "packed":
        raise UserError("mode mixed needs layout packed: each row is all entries or all questions")
    at_least(config, 1, "evaluated_people", "asked_people", "beams")


def _check_beside(config: Config) -> None:
    """What is read beside the people's entries: celebrities (+CEL) or text (+TEXT)."""
    written = datasets.parse_variants(config, config.variants)
    texts = any(variant.text for variant in written)
    if texts and config.text is None:
        raise UserError("text: a +TEXT variant needs a text to read; give a file, a folder or hub:owner/name")
    if config.text is not None:
        if not texts:
            raise UserError("text: is for +TEXT variants, such as single+TEXT; there is none in the variants")
        check_source(config.text)
