"""UltraEdit: a turn of edits in closed form from one backward pass, without statistics of text (arXiv 2505.14679).

Of a matrix ``W``, at the positions that predict target tokens, ``H`` are the inputs and ``G`` the gradients of the loss by the
output. ``[h; g]`` is standardised by mean and deviation over all positions of all turns so far; every position wants its output
to move by ``v = -eta |h'|^2 g'`` (primes: standardised), and ``dW = V^T (H H^T + ridge I)^-1 H`` comes closest, which is the
``(H^T H + I)^-1 H^T V`` of the authors' code, transposed and written in the space of the positions.

Two cases that the definition leaves open: of a single position there is no deviation, so it is measured by its own size (the
mean is taken for zero); a position whose gradient is zero asks for nothing, moves nothing and counts nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engramlab.base.options import check_rules, meant
from engramlab.core import deltas
from engramlab.core.deltas import Change, Dense, LowRank, WeightDelta
from engramlab.core.forward.hooks import Graft, frozen, grafting
from engramlab.core.forward.tails import Tail
from engramlab.core.models.geometry import down_projection, layer_at, matrix_shape
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made, failed
from engramlab.editing.requests import Requests, encode_edits

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, True, False
_MOMENTS = "ultraedit:"  # under this name, and the module's path, a delta carries the moments of its own turn
_LAYERS = (29, 30)  # of 32
Read = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Config:
    """The layers are the down-projections that the authors edit in Mistral-7B (29 and 30 of 32).

    Standardised, a position's move is about ``eta * in * sqrt(out)`` long, whatever the scale of the model: the authors' eta of
    1e-6 for models of 7 billion parameters moves nothing in SmolLM2-135M, whose down-projections put out vectors of length 200.
    By default eta is therefore such that this length is ``reach`` times what the matrix puts out on average at the positions.
    """

    layers: tuple[int, ...] | None = None
    """Layers whose down-projection changes; None for 29 and 30 of 32, as fractions of the depth."""
    eta: float | None = None
    """Size of a position's move, see above; 1e-6 is the authors'; None to go by ``reach``."""
    reach: float = 0.3
    """Without an eta: about how long a position's move is, in lengths of the matrix's output there."""
    ridge: float = 1.0
    """Weight of the update's squared size."""
    at_once: int = 32
    """Edits a backward pass; changes memory and speed, not results."""

    def __post_init__(self) -> None:
        meant(self)
        check_rules(
            self,
            (
                ("eta", self.eta is None or self.eta > 0, "above 0, or none"),
                ("reach", self.reach > 0, "above 0"),
                ("ridge", self.ridge > 0, "above 0"),
                ("at_once", self.at_once >= 1, "at least 1"),
            ),
        )

    def size(self, shape: tuple[int, int], length: float) -> float:
        """Eta for a matrix of shape (out, in) whose outputs are so long."""
        return self.reach * length / (shape[1] * shape[0] ** 0.5) if self.eta is None else self.eta


@dataclass(frozen=True)
class Moments:
    """Of some positions: how many, their mean ``[w]`` and the sum of squares around it ``[w]``, float64."""

    count: int
    mean: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor) -> Moments:
        """Of ``rows[n, w]``, at least one."""
        mean = rows.double().mean(0)
        return cls(len(rows), mean, (rows.double() - mean).square().sum(0))

    def __add__(self, other: Moments) -> Moments:
        count, step = self.count + other.count, other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + step.square() * (self.count * other.count / count))

    def standardised(self, rows: torch.Tensor) -> torch.Tensor:
        """``rows[n, w]`` in deviations from the mean; 0 where there is no deviation."""
        single = self.count == 1
        mean = torch.zeros_like(self.mean) if single else self.mean
        deviation = self.mean.abs() if single else (self.squares / (self.count - 1)).sqrt()
        return torch.where(deviation > 0, (rows.double() - mean) / deviation.clamp(min=1e-300), 0.0)

    def row(self) -> torch.Tensor:
        """``[1, 1 + 2 w]``, to be kept."""
        count = torch.tensor([self.count], dtype=torch.float64, device=self.mean.device)
        return torch.cat([count, self.mean, self.squares])[None].contiguous()

    @classmethod
    def from_row(cls, row: torch.Tensor) -> Moments:
        """What ``row`` gave."""
        mean, squares = row[1:].chunk(2)
        return cls(int(row[0]), mean, squares)


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss) -> Made:
    """Each case is a turn of its own on this model."""
    layers = sorted(
        {layer_at(model, *((None, i / 32) if config.layers is None else (i, 0.0))) for i in config.layers or _LAYERS}
    )
    paths = [down_projection(model, layer) for layer in layers]
    flat = [(c, edit) for c, edits in enumerate(cases) for edit in edits]
    found: list[dict[str, Read]] = []
    owners: list[torch.Tensor] = []
    for start in range(0, len(flat), config.at_once):
        some = flat[start : start + config.at_once]
        device = next(model.parameters()).device
        requests = encode_edits(tokenizer, [[edit] for _, edit in some], device=device)
        found.append(_read(model, requests, layers[0], paths, loss))
        owners.append(torch.tensor([c for c, _ in some], device=device)[requests.target_rows])
    of = torch.cat(owners)
    made: Made = []
    for c, edits in enumerate(cases):
        mine = (of == c).nonzero().squeeze(1)
        delta = WeightDelta(deltas.fingerprint(model), {})
        for path in paths:
            h, g, lengths = (torch.cat(parts)[mine] for parts in zip(*(part[path] for part in found), strict=True))
            if not (h.isfinite().all() and g.isfinite().all()):
                break
            change, moments = turn(h, g, earlier(model, path), config, float(lengths.mean()))
            if change is not None and moments is not None:
                delta.changes[path], delta.extras[_MOMENTS + path] = change, moments.row()
        else:
            made.append(delta)
            continue
        made.append(failed(edits))
    return made


def _read(model: nn.Module, requests: Requests, start: int, paths: Sequence[str], loss: Loss) -> dict[str, Read]:
    """By path, of the positions that predict targets: inputs ``[n, in]``, gradients by the output ``[n, out]``, and lengths of
    the output ``[n]``.

    The loss is the mean over an edit's tokens, summed over edits: what stands in the same pass changes nothing."""
    keep, rows = requests.keep, requests.ids.shape
    device = requests.ids.device
    moves = {
        path: torch.zeros(*rows, matrix_shape(model, path)[0], device=device, requires_grad=True) for path in paths
    }
    inputs: dict[str, torch.Tensor] = {}
    lengths: dict[str, torch.Tensor] = {}

    def graft(path: str) -> Graft:
        def act(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            inputs[path], lengths[path] = x.detach()[keep].float(), y.detach()[keep].float().norm(dim=-1)
            return y + moves[path].to(y.dtype)

        return act

    with frozen(model), deltas.routing(model, requests.prompt_ends):
        tail = Tail(model, start, requests.ids, first=paths[0])
        with torch.enable_grad(), grafting(model, {path: graft(path) for path in paths}):
            whole = requests.mean(loss(tail.logits(keep), requests.targets)).sum()
            gradients = torch.autograd.grad(whole, list(moves.values()))
    said = zip(moves, gradients, strict=True)
    return {path: (inputs[path], gradient[keep].float(), lengths[path]) for path, gradient in said}


def earlier(model: nn.Module, path: str) -> Moments | None:
    """The moments that this method's deltas on the model have gathered for the module at ``path``."""
    name, there = _MOMENTS + path, deltas.installed(model)
    rows = [row for d in there if isinstance(d, WeightDelta) and name in d.extras for row in d.extras[name]]
    found = None
    for row in rows:
        found = Moments.from_row(row) if found is None else found + Moments.from_row(row)
    return found


def turn(
    h: torch.Tensor, g: torch.Tensor, before: Moments | None, config: Config, length: float
) -> tuple[Change | None, Moments | None]:
    """The change of a matrix by one turn, and the moments of the turn alone; None where no position asks for anything.

    Args:
        h: inputs ``[n, in]``.
        g: gradients by the output ``[n, out]``.
        before: of all earlier turns.
        length: of the matrix's output on average.
    """
    asks = (g != 0).any(1)
    if not bool(asks.any()):
        return None, None
    h, g = h[asks].double(), g[asks].double()
    z = torch.cat([h, g], 1)
    own = Moments.of(z)
    all_so_far = own if before is None else _on(before, z.device) + own
    h_hat, g_hat = all_so_far.standardised(z).split([h.shape[1], g.shape[1]], 1)
    v = -config.size((g.shape[1], h.shape[1]), length) * h_hat.square().sum(1, keepdim=True) * g_hat
    gram = h @ h.T + config.ridge * torch.eye(len(h), dtype=h.dtype, device=h.device)
    change = LowRank(v.T.float().contiguous(), torch.linalg.solve(gram, h).float().contiguous())
    # Dense where that is the shorter form.
    return (Dense(change.matrix()) if 2 * len(h) > min(change.shape) else change), own


def _on(moments: Moments, device: torch.device) -> Moments:
    return Moments(moments.count, moments.mean.to(device), moments.squares.to(device))
