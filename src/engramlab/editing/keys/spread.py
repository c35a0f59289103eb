"""One change of value, spread over several layers: what MEMIT and AlphaEdit share (arXiv 2210.07229, algorithm 1).

The value search asks for a change of the last layer's output. From the first layer on, each of ``m`` layers takes its part of
what is still missing, ``1 / (layers left)`` of it; keys and what is missing are read again after each layer, since the layers
already changed alter both. The methods differ only in how a layer's keys become the rows of its update.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from engramlab.base.facts import Edit
from engramlab.core import deltas
from engramlab.core.deltas import Change, Dense, LowRank, WeightDelta
from engramlab.core.forward.hooks import reading
from engramlab.core.forward.tails import Tail
from engramlab.core.models.geometry import down_projection, layer_at, layer_path
from engramlab.core.training.losses import Loss
from engramlab.editing.keys.context_noise import ContextNoise
from engramlab.editing.keys.keyvalue import AlignedRows, Search, key_weights, mean_length, prefixes, value_share
from engramlab.editing.keys.moments import second_moments
from engramlab.editing.method import Cases, Made, failed
from engramlab.editing.requests import encode_edits, name_of, sharing, spoken
from engramlab.editing.solve.valuesearch import search_values

#: ``(layer, keys[d, n]) -> rows[n, d]``, float64: the update of that layer is ``missing[D, n] @ rows``.
ClosedForm = Callable[[int, torch.Tensor], torch.Tensor]


_LAYERS = (4, 5, 6, 7, 8)  # of 32


@dataclass(frozen=True)
class SpreadSearch(Search):
    """Settings of both methods; their configurations add their own."""

    layers: tuple[int, ...] | None = None
    """Layers whose MLPs are changed; None for 4 to 8 of 32, as fractions of the depth. Where a norm stands behind the MLP
    (Gemma 2 and 3, OLMo 2) parts of a change do not add up, and only the last of them is."""


def chosen_layers(model: nn.Module, layers: tuple[int, ...] | None) -> list[int]:
    """The layers to change, lowest first: those asked for, or those at the usual fractions of the depth; see ``layers``."""
    asked = [(None, layer / 32) for layer in _LAYERS] if layers is None else [(layer, 0.0) for layer in layers]
    chosen = sorted({layer_at(model, *one) for one in asked})
    return chosen if value_share(model, chosen[-1]) is not None else chosen[-1:]


def prepare(model: nn.Module, tokenizer: Any, config: SpreadSearch) -> None:
    """Computes and keeps what every edit of this model needs: statistics, and contexts or the noise in their place."""
    layers = chosen_layers(model, config.layers)
    second_moments(model, tokenizer, layers, config.source)
    prefixes(model, tokenizer, config)
    ContextNoise.of(model, tokenizer, layers[-1], config)
    if config.norm_anchor is not None:
        site: Literal["value", "output"] = "value" if value_share(model, layers[-1]) is None else "output"
        mean_length(model, tokenizer, layers[-1], site, config)


def spread_over_layers(
    model: nn.Module,
    tokenizer: Any,
    cases: Cases,
    layers: Sequence[int],
    search: Search,
    loss: Loss,
    closed_form: ClosedForm,
    *,
    keep_keys: str = "",
) -> Made:
    """The delta of each case; the edits of a case are solved jointly, cases are independent of each other.

    Edits of a case that share a key share one value. An edit whose search fails is left out of its case, with a warning; a case
    without any other has failed.

    Args:
        layers: lowest first; the values are searched at the last one.
        keep_keys: prefix of the names under which the deltas carry their keys, ``extras[keep_keys + path]`` of shape
            ``[n, d]``; none are carried if empty.

    Raises:
        UserError: a subject that is not in its prompt, a target without a token; names the edit.
    """
    contexts = prefixes(model, tokenizer, search)
    groups = [(c, [edits[i] for i in some]) for c, edits in enumerate(cases) for some in sharing(tokenizer, edits)]
    share = value_share(model, layers[-1])
    site: Literal["value", "output"] = "value" if share is None else "output"
    values = search_values(model, tokenizer, [edits for _, edits in groups], layers[-1], contexts, search, loss, site)
    asked = values.change if share is None else values.outputs + share * values.change
    finite = asked.isfinite().all(1).cpu()
    why = [values.why_not(g) or (None if finite[g] else "its value became non-finite") for g in range(len(groups))]
    # An equation an edit: those of one key ask for the same value as often as they are many.
    flat = [edit for _, edits in groups for edit in edits]
    of = torch.tensor([c for c, edits in groups for _ in edits])
    row = [g for g, (_, edits) in enumerate(groups) for _ in edits]
    wanted = asked[row]
    found: Made = [failed(edits) for edits in cases]
    whole = [i for i, g in enumerate(row) if why[g] is None]
    for i, g in enumerate(row):
        if why[g] is not None and any(of[j] == of[i] for j in whole):
            warnings.warn(f"{name_of(flat[i])} failed ({why[g]}) and is left out", stacklevel=3)
        elif why[g] is not None:
            found[int(of[i])] = failed(cases[int(of[i])], str(why[g]))
    if not whole:
        return found
    alive = sorted({int(of[i]) for i in whole})
    mine = torch.tensor([alive.index(int(of[i])) for i in whole])
    noise = ContextNoise.of(model, tokenizer, layers[-1], search)
    some = [flat[i] for i in whole]
    made = _solve(model, tokenizer, some, mine, wanted[whole], share, layers, contexts, noise, closed_form, keep_keys)
    for case, delta in zip(alive, made, strict=True):
        fine = all(change.matrix().isfinite().all() for change in delta.changes.values())
        if fine:
            found[case] = delta
    return found


@torch.no_grad()
def _solve(
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Edit],
    of: torch.Tensor,
    wanted: torch.Tensor,
    share: float | None,
    layers: Sequence[int],
    contexts: Sequence[str],
    noise: ContextNoise | None,
    closed_form: ClosedForm,
    keep_keys: str,
) -> list[WeightDelta]:
    """Layer by layer; ``of[n]`` is each edit's case and ``wanted[n, D]`` what the last layer is to say for it (or, without a
    ``share``, by what the one layer's value is to change)."""
    device = wanted.device
    requests = encode_edits(tokenizer, [[e] for e in edits], prefixes=contexts, subjects=True, device=device)
    rows = AlignedRows.of(requests, whole=False)
    tail = Tail(model, layers[0], rows.ids, rows.mask)
    ends = torch.full((len(rows.ids),), rows.begin, device=device)
    owner = of.to(device)[requests.owner]
    prompts = requests.owner[:: len(contexts)]  # whose each is: an edit has as many as wordings
    counts = torch.bincount(prompts, minlength=len(edits))
    first = (counts.cumsum(0) - counts) * len(contexts)
    weights = key_weights(len(contexts), grouped=True, device=device)
    model_name = deltas.fingerprint(model)
    made = [WeightDelta(model_name, {}) for _ in range(int(of.max()) + 1)]
    for i, layer in enumerate(layers):
        keys, outputs = _read(model, tail, layer, layers[-1], made if i else [], ends, owner)
        keys = keys.view(len(prompts), len(contexts), -1)
        if noise is not None:
            worded = (one for edit in edits for one in spoken(edit))
            keys[:, 1:] += torch.stack([noise.of_keys(one, layer, len(contexts) - 1) for one in worded])
        keys = torch.einsum("npd,p->dn", keys, weights).double()
        keys = keys.new_zeros(len(keys), len(edits)).index_add(1, prompts, keys) / counts
        missing = wanted.T if share is None else ((wanted - outputs[first]) / share / (len(layers) - i)).T
        path = down_projection(model, layer)
        for case, delta in enumerate(made):
            some = (of == case).nonzero().squeeze(1).to(device)
            right = closed_form(layer, keys[:, some]).to(missing.dtype)
            delta.changes[path] = _small(LowRank(missing[:, some].contiguous(), right.contiguous()))
            if keep_keys:
                delta.extras[keep_keys + path] = keys[:, some].T.float().contiguous()
    return made


def _small(change: LowRank) -> Change:
    """Dense where that is the shorter form."""
    return Dense(change.matrix()) if change.left.shape[1] * 2 > min(change.shape) else change


def _read(
    model: nn.Module,
    tail: Tail,
    layer: int,
    last: int,
    made: Sequence[WeightDelta],
    ends: torch.Tensor,
    owner: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys ``[R, d]`` of ``layer`` and outputs ``[R, D]`` of layer ``last``, rows under their cases' updates so far."""

    path, top = down_projection(model, layer), layer_path(model, last)
    with reading(model, (path, top), (slice(None), -1), until=top) as seen, contextlib.ExitStack() as under:
        if made:
            under.enter_context(deltas.together(model, made))
            under.enter_context(deltas.routing(model, ends, owner))
        tail.run()
    return seen[path].read.float(), seen[top].said.float()
