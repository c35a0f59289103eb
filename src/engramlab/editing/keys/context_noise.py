"""What a context does to a key, as noise to be drawn: in place of texts before the prompt while a value is searched.

The idea is that of arXiv 2401.07544 ("See the Unseen"): what contexts do to the activations of one fact looks Gaussian, so that
noise of that shape can stand for them. Layers, scale and prompts are ours: with a the down-projection's input at the subject's
last token, ``a(context + prompt) - a(prompt)`` over contexts and prompts that nobody edits gives a mean and a diagonal variance
for every layer, from which noise is added there.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.base.random_access import key as stream_key
from engramlab.core import deltas
from engramlab.core.forward.hooks import mode, reading
from engramlab.core.models.geometry import depth, down_projection
from engramlab.editing.keys.keyvalue import AlignedRows, Search, written_contexts
from engramlab.editing.keys.running_text import keep
from engramlab.editing.requests import encode_edits, subject_span

_ROWS = 64  # rows of a pass
#: Prompts that are not edited, each with its subject; ours.
PROMPTS = (
    *(("The Eiffel Tower stands in", "The Eiffel Tower"), ("The currency of Japan is", "Japan")),
    *(
        ("The main language of Brazil is", "Brazil"),
        ("Mozart died in", "Mozart"),
        ("The Nile flows through", "The Nile"),
    ),
    *(("The author of Hamlet is", "Hamlet"), ("The headquarters of Toyota are in", "Toyota")),
    *(("Marie Curie was born in", "Marie Curie"), ("The capital of Kenya is", "Kenya"), ("Honey is made by", "Honey")),
    *(("The chemical symbol of iron is", "iron"), ("The painter of Guernica is", "Guernica")),
    *(("Mount Everest lies in", "Mount Everest"), ("The piano was invented in", "The piano")),
    *(("The continent of Peru is", "Peru"), ("Isaac Newton worked at", "Isaac Newton")),
    *(("The Danube ends in", "The Danube"), ("The founder of Microsoft is", "Microsoft")),
    *(("The opposite of winter is", "winter"), ("Penguins live in", "Penguins"), ("The moon orbits", "The moon")),
    *(("The inventor of the telephone was", "telephone"), ("Chess is played on", "Chess")),
    *(("The river that runs through London is", "London"),),
)


@dataclass(frozen=True)
class Moment:
    """Of what contexts add to a layer's keys.

    Attributes:
        mean: ``[d]``, float32.
        deviation: ``[d]``, float32: the root of the (unbiased) variance of each entry.
    """

    __repr__ = brief

    mean: torch.Tensor
    deviation: torch.Tensor


@torch.no_grad()
def shifts(
    model: nn.Module,
    tokenizer: Any,
    layers: Sequence[int],
    contexts: Sequence[str],
    prompts: Sequence[tuple[str, str]] = PROMPTS,
) -> dict[int, torch.Tensor]:
    """By layer, what each context adds to the key of each prompt's subject: float32 ``[prompts * contexts, d]``.

    Args:
        prompts: with the subjects that stand in them.

    Raises:
        UserError: fewer than two contexts, or a layer that does not exist.
    """
    if len(contexts) < 2:
        raise UserError(f"noise is made of what contexts do, so it takes at least 2 of them, not {len(contexts)}")
    paths = {layer: down_projection(model, layer) for layer in layers}
    edits = [[Edit(Query(prompt, "", subject=subject), "a")] for prompt, subject in prompts]
    device = next(model.parameters()).device
    requests = encode_edits(tokenizer, edits, prefixes=("", *contexts), subjects=True, device=device)
    rows = AlignedRows.of(requests, whole=False)
    mask = torch.ones_like(rows.ids) if rows.mask is None else rows.mask
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    for ids, real in zip(rows.ids.split(_ROWS), mask.split(_ROWS), strict=True):
        places = (real.cumsum(1) - 1).clamp(min=0)
        with (
            mode(model, False),
            reading(model, list(paths.values()), (slice(None), -1), until=paths[max(layers)]) as seen,
        ):
            model(input_ids=ids, attention_mask=real, position_ids=places, use_cache=False)
        for layer, path in paths.items():
            found[layer].append(seen[path].read.float())
    keys = {layer: torch.cat(parts).unflatten(0, (len(prompts), -1)) for layer, parts in found.items()}
    return {layer: (of[:, 1:] - of[:, :1]).flatten(0, 1) for layer, of in keys.items()}


def moments(model: nn.Module, tokenizer: Any, search: Search) -> dict[int, Moment]:
    """Of every layer: from the cache folder, or from a few passes over short texts (see ``Search.context_lengths``).

    They are those of the unedited model; where deltas are on it and the cache has none, the edited model's serve, with a
    warning, and are not kept.
    """
    from safetensors.torch import load, save

    contexts = written_contexts(model, tokenizer, search)
    about = json.dumps([deltas.fingerprint(model), contexts, PROMPTS])
    name = f"context-noise-{hashlib.blake2b(about.encode(), digest_size=10).hexdigest()}.safetensors"
    path: Path = search.source.folder / name
    layers = range(depth(model))
    device = next(model.parameters()).device
    try:
        held = load(path.read_bytes())
        found = {i: Moment(held[f"{i}.mean"].to(device), held[f"{i}.deviation"].to(device)) for i in layers}
        if all(torch.isfinite(m.mean).all() and torch.isfinite(m.deviation).all() for m in found.values()):
            return found
    except Exception:  # no file, or a damaged one, which may raise anything
        pass
    edited = bool(deltas.installed(model))
    if edited:
        warnings.warn(
            "no noise of contexts in the unedited model is in the cache: that of the edited model serves, and is not kept",
            stacklevel=2,
        )
    moved = shifts(model, tokenizer, layers, contexts)
    found = {i: Moment(of.mean(0), of.std(0)) for i, of in moved.items()}
    if not edited:
        tensors = {f"{i}.{part}": value.cpu() for i, m in found.items() for part, value in vars(m).items()}
        keep(path, save(tensors))
    return found


@dataclass(frozen=True)
class ContextNoise:
    """Noise for the searches of one model, by ``Search.noise`` and what follows it there.

    What is drawn depends on the seed, the text up to the subject's end, the step, the layer and the row alone: not on what
    else is in the batch.

    Attributes:
        edited: the layer whose value is searched.
        last: the highest layer that is noisy.
    """

    search: Search
    moments: dict[int, Moment]
    edited: int
    last: int

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Any, edited: int, search: Search) -> ContextNoise | None:
        """None where the search is without noise."""
        if search.noise == "none":
            return None
        last = edited if search.noise == "edit" else depth(model) - 1
        return cls(search, moments(model, tokenizer, search), edited, last)

    @property
    def layers(self) -> range:
        """Those that are noisy while a value is searched."""
        return range(self.edited, self.last + 1)

    def while_searching(self, edit: Edit, step: int, layer: int, rows: int) -> torch.Tensor:
        """``[rows, d]``, float32, for one step of a search.

        Raises:
            UserError: a layer below the edited one, whose noise no change could answer for, or one that is not noisy.
        """
        if layer not in self.layers:
            raise UserError(
                f"noise: layer {layer} is not noisy, but layers {self.edited} to {self.last}: none below the edited"
            )
        return self._draw(edit, step, layer, rows)

    def of_keys(self, edit: Edit, layer: int, rows: int) -> torch.Tensor:
        """``[rows, d]``, float32, for the key itself, in any layer whose memory is written to."""
        return self._draw(edit, "key", layer, rows)

    def _draw(self, edit: Edit, when: int | str, layer: int, rows: int) -> torch.Tensor:
        moment = self.moments[layer]
        name = edit.query.prompt[: subject_span(edit)[1]]
        generator = torch.Generator().manual_seed(stream_key(self.search.seed, "context noise", name, when, layer))
        drawn = torch.randn(rows, len(moment.mean), generator=generator).to(moment.mean.device)
        if self.search.noise_shape == "isotropic":
            level = (moment.mean.square() + moment.deviation.square()).mean().sqrt()
            return self.search.noise_scale * level * drawn
        centre = moment.mean if self.search.noise_mean else torch.zeros_like(moment.mean)
        return centre + self.search.noise_scale * moment.deviation * drawn
