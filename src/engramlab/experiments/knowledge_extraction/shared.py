"""What all datasets of one run share: the tokenizer and the model to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.core import models
from engramlab.core.text import tokenizers, tokens
from engramlab.core.training.cost import like
from engramlab.corpora.datasets import dataset, variants
from engramlab.editing.folders.opening import require_in_weights
from engramlab.experiments import _run
from engramlab.experiments.knowledge_extraction.config import Config
from engramlab.files.documents import documents

TOKENIZER_TEXTS = 20_000  # entries, and as many questions, that a compact tokenizer learns from
TOKENIZER_DOCUMENTS = 2_000  # and documents of unrelated text


class Run(_run.Run):
    """What the parts of one run share: the datasets, the tokenizer, the model to begin with."""

    config: Config

    def __init__(self, config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> None:
        super().__init__("knowledge-extraction", config, out, preset=preset, console=console)
        self.datasets = [dataset(config, variant) for variant in variants(config, config.variants)]
        self.about = models.about(config.model.name)
        self._check_objective()
        if self.about.from_scratch:
            self.tokenizer = self.scratch_tokenizer(self._texts, config.vocabulary, chosen=config.tokenizer)
        else:
            self.tokenizer = self.kept = models.load_tokenizer(config.model.name)
        if self.masked:
            tokenizers.with_mask(self.tokenizer)
            self.words = tokenizers.WordStarts(self.tokenizer)
        self.end = tokens.end_token(self.tokenizer)
        self.start = tokens.start_tokens(self.tokenizer)

    @property
    def masked(self) -> bool:
        return self.config.model.objective == "masked"

    def _check_objective(self) -> None:
        """A model that is trained on must have been trained the same way."""
        name, wanted = self.config.model.name, self.config.model.objective
        require_in_weights("model.name", name)
        if not self.about.from_scratch and (there := self.about.objective) != wanted:
            raise UserError(
                f"model.objective: {name} is a {there} language model; give --model.objective {there}, or a size to train "
                "from scratch"
            )

    def _texts(self) -> Iterator[str]:
        """Entries and questions, all or a spread of them: what a compact tokenizer is trained on."""
        for data in self.datasets:
            for corpus in (data.corpus, data.questions):
                chosen = np.unique(np.linspace(0, len(corpus) - 1, TOKENIZER_TEXTS).astype(np.int64))
                for row in corpus.layout(chosen).pieces.tolist():
                    yield "".join([corpus.pieces[p] for p in row])
        if self.config.text is not None:
            yield from islice(documents(self.config.text, self.config.text_column), TOKENIZER_DOCUMENTS)

    def first_model(self) -> nn.Module:
        """The model that pretraining starts from."""
        model = self.config.model
        if not self.about.from_scratch:
            return models.load(model.name)[0]
        return self.fresh_model(
            model.name,
            self.tokenizer,
            family=model.family,
            context=model.context,
            dropout=model.dropout,
            masked=self.masked,
        )

    def outline(self) -> nn.Module:
        """A model of that shape, with random weights."""
        return self.first_model() if self.about.from_scratch else like(self.config.model.name)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Writes the model and the tokenizer so that transformers loads both."""
        models.save(model, self.tokenizer, folder)
