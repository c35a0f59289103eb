"""The run: its dataset, its tokenizer and the network to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.core import models
from engramlab.core.text import tokenizers, tokens
from engramlab.corpora.datasets import dataset, parse_variants
from engramlab.experiments import _run
from engramlab.experiments.plug_in_memory.config import Config

TEXTS = 20_000  # entries, and as many questions, that a compact tokenizer learns from


class Run(_run.Run):
    """What training and asking share."""

    config: Config

    def __init__(self, config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> None:
        super().__init__("plug-in-memory", config, out, preset=preset, console=console)
        (written,) = parse_variants(config, [config.variant])
        if written.celebrities or written.text:
            raise UserError(f"variant: {config.variant} has others beside the people; leave +CEL and +TEXT out")
        self.data = dataset(config, config.variant)
        self.tokenizer = self.scratch_tokenizer(self._texts, config.vocabulary, chosen=config.tokenizer)
        if self.masked:
            tokenizers.with_mask(self.tokenizer)
            self.words = tokenizers.WordStarts(self.tokenizer)
        self.end, self.start = tokens.end_token(self.tokenizer), tokens.start_tokens(self.tokenizer)

    @property
    def masked(self) -> bool:
        return self.config.model.objective == "masked"

    def _texts(self) -> Iterator[str]:
        for corpus in (self.data.corpus, self.data.questions):
            chosen = np.unique(np.linspace(0, len(corpus) - 1, TEXTS).astype(np.int64))
            for row in corpus.layout(chosen).pieces.tolist():
                yield "".join([corpus.pieces[p] for p in row])

    def first_model(self) -> nn.Module:
        """The network with random weights and an empty memory; the same with and without one."""
        model, memory = self.config.model, self.config.memory
        own: dict[str, Any] = {"memory_top": memory.top, "memory_beta": memory.beta}
        own |= {"memory_layers": list(memory.layers)} if memory.layers else {}
        own |= {"memory_keys": memory.keys} if memory.keys else {}
        return self.fresh_model(
            model.name,
            self.tokenizer,
            family="pluglm",
            context=model.context,
            dropout=model.dropout,
            masked=self.masked,
            own=own,
        )

    def save(self, model: Any, folder: Path) -> None:
        """Writes network, memory and tokenizer so that transformers loads them."""
        models.save(model, self.tokenizer, folder)
