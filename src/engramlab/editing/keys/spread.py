"""One change of value, spread over several layers: what MEMIT and AlphaEdit share (arXiv 2210.07229, algorithm 1).

The value search asks for a change of the last layer's output. From the first layer on, each of ``m`` layers takes its part of
what is still missing, ``1 / (layers left)`` of it; keys and what is missing are read again after each layer, since the layers
already changed alter both. The methods differ only in how a layer's keys become the rows of its update.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from engramlab.base.facts import Edit
from engramlab.core import deltas
from engramlab.core.deltas import Change, Dense, LowRank, WeightDelta
from engramlab.core.forward.tails import Tail
from engramlab.core.training.losses import Loss
from engramlab.editing.keys.keyvalue import Rows, Search, key_weights, prefixes, watch
from engramlab.editing.method import EditFailed, down_projection, failed, layer_at
from engramlab.editing.requests import encode_edits, name_of
from engramlab.editing.solve.valuesearch import search_values

#: ``(layer, keys[d, n]) -> rows[n, d]``, float64: the update of that layer is ``missing[D, n] @ rows``.
ClosedForm = Callable[[int, torch.Tensor], torch.Tensor]


def chosen_layers(model: nn.Module, layers: tuple[int, ...] | None, fractions: Sequence[float]) -> list[int]:
    """The layers to change, lowest first: those asked for, or those at these fractions of the depth."""
    if layers is not None:
        return sorted({layer_at(model, layer, 0.0) for layer in layers})
    return sorted({layer_at(model, None, fraction) for fraction in fractions})


def spread(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[Sequence[Edit]],
    layers: Sequence[int],
    search: Search,
    loss: Loss,
    closed_form: ClosedForm,
    *,
    keep_keys: str = "",
) -> list[WeightDelta | EditFailed]:
    """The delta of each case; the edits of a case are solved jointly, cases are independent of each other.

    An edit whose search fails is left out of its case, with a warning; a case without any other has failed.

    Args:
        layers: lowest first; the values are searched at the last one.
        keep_keys: prefix of the names under which the deltas carry their keys, ``extras[keep_keys + path]`` of shape
            ``[n, d]``; none are carried if empty.

    Raises:
        UserError: a subject that is not in its prompt, a target without a token; names the edit.
    """
    contexts = prefixes(model, tokenizer, search)
    flat = [edit for edits in cases for edit in edits]
    of = torch.tensor([c for c, edits in enumerate(cases) for _ in edits])
    values = search_values(model, tokenizer, flat, layers[-1], contexts, search, loss, "output")
    wanted = values.outputs + values.change
    bad = (values.failed | ~wanted.isfinite().all(1).cpu()).tolist()
    found: list[WeightDelta | EditFailed] = [
        failed([flat[i] for i in range(len(flat)) if of[i] == c]) for c in range(len(cases))
    ]
    whole = [i for i in range(len(flat)) if not bad[i]]
    for i in range(len(flat)):
        if bad[i] and any(of[j] == of[i] for j in whole):
            warnings.warn(f"{name_of(flat[i])} failed (its loss became non-finite) and is left out", stacklevel=3)
    if not whole:
        return found
    alive = sorted({int(of[i]) for i in whole})
    mine = torch.tensor([alive.index(int(of[i])) for i in whole])
    made = _solve(
        model, tokenizer, [flat[i] for i in whole], mine, wanted[whole], layers, contexts, closed_form, keep_keys
    )
    for case, delta in zip(alive, made, strict=True):
        fine = all(change.matrix().isfinite().all() for change in delta.changes.values())
        if fine:
            found[case] = delta
    return found


class _Far(Exception):
    """The last layer has been computed; those above are not needed."""


@torch.no_grad()
def _solve(
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Edit],
    of: torch.Tensor,
    wanted: torch.Tensor,
    layers: Sequence[int],
    contexts: Sequence[str],
    closed_form: ClosedForm,
    keep_keys: str,
) -> list[WeightDelta]:
    """Layer by layer; ``of[n]`` is each edit's case and ``wanted[n, D]`` what the last layer is to say for it."""
    device = wanted.device
    requests = encode_edits(tokenizer, [[e] for e in edits], prefixes=contexts, subjects=True, device=device)
    rows = Rows.of(requests, whole=False)
    tail = Tail(model, layers[0], rows.ids, rows.mask)
    ends = torch.full((len(rows.ids),), rows.begin, device=device)
    owner = of.to(device).repeat_interleave(len(contexts))
    weights = key_weights(len(contexts), grouped=True, device=device)
    model_name = deltas.fingerprint(model)
    made = [WeightDelta(model_name, {}) for _ in range(int(of.max()) + 1)]
    for i, layer in enumerate(layers):
        keys, outputs = _read(model, tail, layer, layers[-1], made if i else [], ends, owner)
        keys = torch.einsum("npd,p->dn", keys.view(len(edits), len(contexts), -1), weights).double()
        missing = ((wanted - outputs[:: len(contexts)]) / (len(layers) - i)).T
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

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        raise _Far

    with watch(model, layer, -1) as here, watch(model, last, -1) as there:
        handle = tail.layers[last - tail.start].register_forward_hook(stop)
        try:
            if made:
                with deltas.together(model, made), deltas.routing(model, ends, owner):
                    tail.run()
            else:
                tail.run()
        except _Far:
            pass
        finally:
            handle.remove()
    return here.key, there.output
