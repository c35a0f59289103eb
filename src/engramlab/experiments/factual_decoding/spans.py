"""How far each layer is from the last one, at the tokens of answers and at function words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.facts import Fact
from engramlab.core.forward.decoding import Decoding, dola
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import target_seen
from engramlab.core.text.tokens import encode, start_tokens, token_span
from engramlab.corpora.facts import FactTable
from engramlab.experiments.factual_decoding.config import Config
from engramlab.experiments.factual_decoding.numbers import mean

#: English words that say little by themselves.
FUNCTION = frozenset(
    (
        *(
            "a",
            "an",
            "the",
            "of",
            "in",
            "on",
            "at",
            "by",
            "to",
            "from",
            "for",
            "with",
            "as",
            "into",
            "and",
            "or",
            "but",
        ),
        *("that", "this", "it", "its", "is", "are", "was", "were", "be", "been", "has", "have", "had", "his", "her"),
        *("their", "he", "she", "they", "which", "who", "whose"),
    )
)
KINDS = ("answer", "function")


@dataclass(frozen=True)
class _Every(Decoding):
    """Wants to see some layers."""

    wanted: tuple[int, ...]
    early_norm: bool = False

    def layers(self, model: nn.Module) -> tuple[int, ...]:
        return self.wanted


def looked(config: Config, model: Any, tokenizer: Any, table: FactTable, facts: list[Fact]) -> list[dict[str, Any]]:
    """A row a kind of token, layer and way of reading it (with the final norm, and without): mean divergence in nats with its
    interval over sentences; and of each kind the depth, as a share of all layers, from which it stays under half of its
    largest value.
    """
    depth = int(model.config.get_text_config().num_hidden_layers)
    layers = tuple(range(0, depth, max(1, depth // 15)))
    texts = [table.wordings.sentence(fact, i) for i, fact in enumerate(facts)]
    prefix = start_tokens(tokenizer)
    encoded = list(zip(*encode(tokenizer, [text for text, _ in texts]), strict=True))
    found: dict[tuple[str, bool], list[np.ndarray]] = {(kind, norm): [] for kind in KINDS for norm in (False, True)}
    with torch.inference_mode(), mode(model, False):
        for fact, (text, begin), (ids, spans) in zip(facts, texts, encoded, strict=True):
            of = places(text, spans, begin, begin + len(fact.object))
            row = torch.tensor([[*prefix, *ids]], device=next(model.parameters()).device)
            keep = torch.ones_like(row, dtype=torch.bool)
            for norm in (False, True):
                seen = target_seen(model, row, keep, decoding=_Every(layers, norm))
                far = (
                    torch.stack([dola.apart(seen.logits.float(), seen.early[k].float()) for k in layers]).cpu().numpy()
                )
                for kind in KINDS:
                    at = [len(prefix) + i - 1 for i in of[kind] if len(prefix) + i > 0]
                    if at:
                        found[kind, norm].append(far[:, at].mean(axis=1))
    return [
        row
        for (kind, norm), values in found.items()
        if values
        for row in _rows(kind, norm, np.stack(values), layers, depth, config.seed)
    ]


def _rows(
    kind: str, norm: bool, far: np.ndarray, layers: tuple[int, ...], depth: int, seed: int
) -> list[dict[str, Any]]:
    dies = mean("dies", [dies_at(one, layers) / depth for one in far], seed)
    common = {"kind": kind, "norm": norm, "sentences": len(far), **dies}
    return [{**common, "layer": layer, **mean("apart", far[:, k], seed)} for k, layer in enumerate(layers)]


def dies_at(far: np.ndarray, layers: tuple[int, ...]) -> int:
    """The layer from which a divergence stays under half of its largest value."""
    above = np.flatnonzero(far >= far.max() / 2)
    return layers[min(int(above[-1]) + 1, len(layers) - 1)] if far.max() > 0 else layers[0]


def places(text: str, spans: list[tuple[int, int]], begin: int, end: int) -> dict[str, list[int]]:
    """The tokens of the answer at characters ``[begin, end)``, and those that are whole function words."""
    first, last = token_span(spans, begin, end)
    words = [i for i, (a, b) in enumerate(spans) if text[a:b].strip().lower() in FUNCTION and not first <= i < last]
    return {"answer": list(range(first, last)), "function": words}
