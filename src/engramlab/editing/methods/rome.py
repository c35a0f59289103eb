"""ROME: one new key and value in the memory of one MLP, a rank-one change (arXiv 2202.05262)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engramlab.base.facts import Edit
from engramlab.core import deltas
from engramlab.core.deltas import Delta, LowRank, WeightDelta
from engramlab.core.models.geometry import down_projection, layer_at
from engramlab.core.training.losses import Loss
from engramlab.editing.keys.context_noise import ContextNoise
from engramlab.editing.keys.keyvalue import Search, key_weights, mean_length, prefixes
from engramlab.editing.keys.moments import SecondMoment, second_moments
from engramlab.editing.method import Cases, EditFailed, Made, failed
from engramlab.editing.requests import sharing
from engramlab.editing.solve.valuesearch import search_values

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, True, False, False
SEPARATE = True
ONE_VALUE = True


@dataclass(frozen=True)
class Config(Search):
    """Hyperparameters; defaults are the field's usual ones for llama-2-7b (20 steps and clamp 4 in the paper's GPT-2 XL)."""

    layer: int | None = None
    """Layer whose MLP is changed; None for 5 of 32, as a fraction of the depth."""
    context_lengths: tuple[tuple[int, int], ...] = ((5, 10), (10, 10))
    """Texts that the model writes itself, put before the prompt so that the edit holds in any context: (tokens, how many)."""
    covariance: bool = True
    """Weigh the key by the inverse second moment of all keys (equation 2); without it the key stands for itself."""


def rank_one(
    change: torch.Tensor, key: torch.Tensor, moment: SecondMoment | None, at: torch.Tensor | None = None
) -> LowRank:
    """The update ``U`` that changes the key's value by ``change`` and those of all other keys least (equation 2).

    Of all ``U`` with ``U k = change`` it has the smallest ``tr(U C U^T)``, the mean squared change of the values of other
    keys: ``U = change (C^-1 k)^T / (k^T C^-1 k)``.

    Args:
        change: ``[D]``.
        key: ``k[d]``, the mean over contexts.
        moment: ``C``; None for the identity.
        at: ``[d]``, the key of the bare prompt: as in the authors' code, it is there that the change is to be exact. None for
            the key itself.
    """
    k = key.double()
    u = moment.solve(k[:, None].to(moment.values.device))[:, 0].to(k.device) if moment is not None else k
    u = u / u.norm()
    exact = k if at is None else at.double()
    return LowRank((change.double() / (exact @ u)).float()[:, None], u.float()[None])


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss) -> Made:
    """Each case on this model, the value searches of all cases with one key at once; a case's keys one after another."""
    keys = [[[edits[i] for i in some] for some in sharing(tokenizer, edits)] for edits in cases]
    single = [i for i, groups in enumerate(keys) if len(groups) == 1]
    made = _single(model, tokenizer, [keys[i][0] for i in single], config, loss) if single else []
    found: dict[int, Delta | EditFailed] = dict(zip(single, made, strict=True))
    for i, groups in enumerate(keys):
        if i not in found:
            try:
                found[i] = _in_turn(model, tokenizer, groups, config, loss)
            except EditFailed as error:
                found[i] = error
    return [found[i] for i in range(len(cases))]


def _in_turn(
    model: nn.Module, tokenizer: Any, groups: Sequence[Sequence[Edit]], config: Config, loss: Loss
) -> WeightDelta:
    """A rank-one change for each key, each made on a model that has the earlier ones."""
    made: list[WeightDelta] = []
    with contextlib.ExitStack() as stack:
        for edits in groups:
            if made:
                stack.enter_context(deltas.active(model, made[-1]))
            (one,) = _single(model, tokenizer, [edits], config, loss)
            if isinstance(one, EditFailed):
                raise one
            made.append(one)
    return WeightDelta.sum(made)


@torch.no_grad()
def _update(model: nn.Module, layer: int, change: torch.Tensor, keys: torch.Tensor, moment: Any) -> WeightDelta:
    """Of a value's change ``[D]`` and its keys ``[P, d]`` behind all contexts in all wordings, the bare prompt's first."""
    key = key_weights(len(keys), grouped=False, device=keys.device) @ keys
    update = rank_one(change, key, moment, keys[0])
    return WeightDelta(deltas.fingerprint(model), {down_projection(model, layer): update})


def _single(
    model: nn.Module, tokenizer: Any, groups: Sequence[Sequence[Edit]], config: Config, loss: Loss
) -> list[WeightDelta | EditFailed]:
    layer = layer_at(model, config.layer, 5 / 32)
    moment = second_moments(model, tokenizer, [layer], config.source)[layer] if config.covariance else None
    contexts = prefixes(model, tokenizer, config)
    values = search_values(model, tokenizer, groups, layer, contexts, config, loss, "value")
    found: list[WeightDelta | EditFailed] = []
    for i, edits in enumerate(groups):
        if why := values.why_not(i):
            found.append(failed(edits, why))
            continue
        made = _update(model, layer, values.change[i], values.keys[i, : values.rows[i]], moment)
        found.append(made if all(t.isfinite().all() for t in made.tensors().values()) else failed(edits))
    return found


def prepare(model: nn.Module, tokenizer: Any, config: Config) -> None:
    """Computes and keeps what every edit of this model needs: statistics, and contexts or the noise in their place."""
    layer = layer_at(model, config.layer, 5 / 32)
    if config.covariance:
        second_moments(model, tokenizer, [layer], config.source)
    prefixes(model, tokenizer, config)
    ContextNoise.of(model, tokenizer, layer, config)
    if config.norm_anchor is not None:
        mean_length(model, tokenizer, layer, "value", config)
