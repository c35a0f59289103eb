"""AlphaEdit: MEMIT with updates that leave the values of preserved keys alone, in the null space (arXiv 2410.02355)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engramlab.base.options import check_rules
from engramlab.core import deltas
from engramlab.core.deltas import WeightDelta
from engramlab.core.models.geometry import down_projection
from engramlab.core.training.losses import Loss
from engramlab.editing.keys.moments import SecondMoment, second_moments
from engramlab.editing.keys.spread import SpreadSearch, chosen_layers, prepare, spread_over_layers
from engramlab.editing.method import Cases, Made

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, True, True, False
ONE_VALUE = True
__all__ = ["Config", "edit_each", "prepare"]
_KEYS = "alphaedit:"  # under this name, and the module's path, a delta carries the keys it wrote


@dataclass(frozen=True)
class Config(SpreadSearch):
    """Hyperparameters.

    Null space and ridge are those of the authors' code for Llama-3-8B; the search is MEMIT's for llama-2-7b, its ``objective``
    as there that of ROME's paper. The authors' own (learning rate 0.1, weight decay 0.5, clamp 0.75) is scaled to Llama 3's
    short hidden states: on SmolLM2-135M its 25 steps get to a reliability of 0.59, where these reach 1.00.
    """

    null_space: float = 0.02
    """Eigenvectors of the keys' (mean) second moment with smaller eigenvalues are free to change."""
    ridge: float = 10.0
    """Weight of the update's squared size (L2 of the authors' code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rules(self, (("ridge", self.ridge > 0, "above 0"),))


def rows_of(keys: torch.Tensor, earlier: torch.Tensor, basis: torch.Tensor, ridge: float) -> torch.Tensor:
    """``[n, d]``, float64: the update of a layer that misses ``R[D, n]`` is ``R`` times these rows.

    ``R K^T P (K K^T P + K' K'^T P + ridge I)^-1`` with the projection ``P = Q Q^T`` (the paper's closed form, with the ridge of
    the authors' code) equals ``R`` times the first ``n`` rows of ``(A^T A + ridge I)^-1 A^T Q^T``, where ``A = Q^T [K, K']``: a
    system as small as the number of keys.

    Args:
        keys: ``K[d, n]``.
        earlier: ``K'[d, m]``, keys of edits that must hold.
        basis: ``Q[d, q]``, orthonormal columns of the null space.
        ridge: above 0.
    """
    q = basis.to(keys.device).double()
    a = q.T @ torch.cat([keys.double(), earlier.to(keys.device).double()], 1)
    small = a.T @ a + ridge * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    return torch.linalg.solve(small, a.T)[: keys.shape[1]] @ q.T


def earlier_keys(model: nn.Module, path: str, like: torch.Tensor) -> torch.Tensor:
    """``[d, m]``: what this method's deltas on the model wrote into the module at ``path``, as ``like[d, n]``."""
    name, there = _KEYS + path, deltas.installed(model)
    found = [d.extras[name].T for d in there if isinstance(d, WeightDelta) and name in d.extras]
    return torch.cat([like[:, :0], *(keys.to(like) for keys in found)], 1)


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss) -> Made:
    """Each case on this model: the value searches of all edits at once, the edits of a case solved jointly."""
    layers = chosen_layers(model, config.layers)
    moments = second_moments(model, tokenizer, layers, config.source)
    device = next(model.parameters()).device
    bases = {layer: null_space(moments[layer], config.null_space).to(device) for layer in layers}

    def closed_form(layer: int, keys: torch.Tensor) -> torch.Tensor:
        earlier = earlier_keys(model, down_projection(model, layer), keys)
        return rows_of(keys, earlier, bases[layer], config.ridge)

    return spread_over_layers(model, tokenizer, cases, layers, config, loss, closed_form, keep_keys=_KEYS)


def null_space(moment: SecondMoment, threshold: float) -> torch.Tensor:
    """Columns ``[d, q]``: the directions that ordinary keys hardly have.

    The threshold is the paper's, in the scale of its models' keys. Where it lets through no direction (nothing could be
    written) or every direction (nothing would be preserved), the half with the smaller eigenvalues is taken.
    """
    basis = moment.null_space(threshold)
    width = len(moment.values)
    return basis if 0 < basis.shape[1] < width else moment.vectors[:, : max(1, width // 2)]
