"""What all datasets of one run share: the tokenizer, the devices, the model to begin with, the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.random_access import key as random_key
from engramlab.core import models
from engramlab.core.text import tokenizers, tokens
from engramlab.corpora.datasets import dataset, variants
from engramlab.experiments.knowledge_extraction.config import Config
from engramlab.files import writing
from engramlab.files.documents import documents

TOKENIZER_TEXTS = 20_000  # entries, and as many questions, that a compact tokenizer learns from
TOKENIZER_DOCUMENTS = 2_000  # and documents of unrelated text


class Work:
    """What the stages of one run share: the config, the tokenizer, the devices, the output."""

    def __init__(self, config: Config, folder: Path, console: Console) -> None:
        from accelerate import Accelerator

        self.config, self.folder, self.console = config, folder, console
        self.accelerator = Accelerator(mixed_precision=config.precision)
        self.datasets = [dataset(config, variant) for variant in variants(config, config.variants)]
        self.about = models.about(config.model.name)
        self._check_objective()
        self.tokenizer = self._tokenizer()
        if self.masked:
            tokenizers.with_mask(self.tokenizer)
            self.words = tokenizers.Words(self.tokenizer)
        self.end = tokens.end_token(self.tokenizer)
        self.start = tokens.start_tokens(self.tokenizer)

    def say(self, line: str) -> None:
        """A line for the user."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @property
    def masked(self) -> bool:
        return self.config.model.objective == "masked"

    def _check_objective(self) -> None:
        """A model that is trained on must have been trained the same way."""
        name, wanted = self.config.model.name, self.config.model.objective
        if not self.about.from_scratch and (there := self.about.objective) != wanted:
            raise UserError(
                f"model.objective: {name} is a {there} language model; give --model.objective {there}, or a named size to "
                "train from scratch"
            )

    def _tokenizer(self) -> Any:
        config = self.config
        if not self.about.from_scratch:
            return models.load_tokenizer(config.model.name)
        if config.tokenizer != "compact":
            try:
                return tokenizers.lead_with_space(models.load_tokenizer(config.tokenizer))
            except UserError as error:
                raise UserError(f"{error}; `--tokenizer compact` trains one on the corpus instead") from None
        if (self.folder / "tokenizer").exists():
            return models.load_tokenizer(str(self.folder / "tokenizer"))
        return tokenizers.train_compact_tokenizer(self._texts(), config.vocabulary)

    def save_tokenizer(self) -> None:
        """Keeps the tokenizer in the run folder; a resumed run must not train it again."""
        if not (self.folder / "tokenizer").exists():
            writing.write_folder(self.folder / "tokenizer", lambda path: self.tokenizer.save_pretrained(path))

    def _texts(self) -> Iterator[str]:
        """Entries and questions, all or a spread of them: what a compact tokenizer is trained on."""
        for data in self.datasets:
            for corpus in (data.corpus, data.questions):
                chosen = np.unique(np.linspace(0, len(corpus) - 1, TOKENIZER_TEXTS).astype(np.int64))
                for row in corpus.layout(chosen).pieces.tolist():
                    yield "".join([corpus.pieces[p] for p in row])
        if self.config.text is not None:
            yield from islice(documents(self.config.text, self.config.text_column), TOKENIZER_DOCUMENTS)

    def fresh_model(self) -> nn.Module:
        """The model that pretraining starts from."""
        model = self.config.model
        if not self.about.from_scratch:
            return models.load(model.name)[0]
        return models.build(
            model.name,
            self.tokenizer,
            family=model.family,
            context=model.context,
            dropout=model.dropout,
            seed=random_key(self.config.seed, "weights") >> 1,
            masked=self.masked,
        )

    def saver(self, model: nn.Module) -> Callable[[Path], None]:
        """Writes the model and the tokenizer so that transformers loads both."""

        def save(folder: Path) -> None:
            with models.quiet():
                model.save_pretrained(folder)  # type: ignore[operator]
                self.tokenizer.save_pretrained(folder)

        return save
