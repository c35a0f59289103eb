"""Keys with radii that say which prompts an edit is for: what GRACE and MELO share.

Whether a prompt is meant is decided by the activations at its last token, before any target token is read; so the decision is
the same when a target is scored and when the model writes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from engramlab.core.deltas import Route

#: What became of a key: an entry of its own, room in one of the same label, half of the way to one of another label, or the
#: place of one that said something else about the same prompt.
Verdict = Literal["new", "same", "split", "replaced"]


class Codebook:
    """Keys, each with the radius within which a query is meant and the label it stands for (GRACE, arXiv 2211.11031).

    Attributes:
        keys: float32 ``[n, d]``.
        radii: float32 ``[n]``, in the units of the activations.
        labels: ``[n]``.
    """

    def __init__(self, keys: torch.Tensor, radii: torch.Tensor, labels: Sequence[str]) -> None:
        self.keys, self.radii, self.labels = keys, radii, list(labels)

    @classmethod
    def empty(cls, width: int, device: torch.device | str = "cpu") -> Codebook:
        """Without any entry; ``width`` is the length of a key."""
        return cls(torch.zeros(0, width, device=device), torch.zeros(0, device=device), [])

    def __len__(self) -> int:
        return len(self.labels)

    def copy(self) -> Codebook:
        """One that can be changed on its own."""
        return Codebook(self.keys.clone(), self.radii.clone(), self.labels)

    def to(self, device: torch.device) -> Codebook:
        """The same entries on another device."""
        return Codebook(self.keys.to(device), self.radii.to(device), self.labels)

    def nearest(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance to, and index of, the entry nearest to each of ``queries[R, d]``; the newest of equally near ones."""
        far = distances(queries, self.keys).flip(1)
        distance, index = far.min(1)
        return distance, far.shape[1] - 1 - index

    def find(self, queries: torch.Tensor) -> torch.Tensor:
        """int64 ``[R]``: the entry each query falls to, -1 where the nearest one's radius does not reach it."""
        if not len(self):
            return torch.full((len(queries),), -1, device=queries.device)
        distance, entry = self.nearest(queries)
        return torch.where(distance <= self.radii[entry], entry, -1)

    def place(self, key: torch.Tensor, label: str, radius: float, noise: float = 0.0) -> tuple[int, Verdict]:
        """Makes room for ``key[d]``: the entry that serves it from now on, and how it came to it.

        Far from every entry (beyond the nearest one's radius plus ``radius``) it becomes a new one. Near one of the same label,
        that one's radius grows to reach it. Near one of another label, each gets half of the distance between them. Within
        ``noise`` no radius could keep two entries apart: the older edit of that very prompt is given up.
        """
        key = key.float()
        if len(self):
            found, at = self.nearest(key[None])
            distance, entry = float(found), int(at)
            if distance <= float(self.radii[entry]) + radius:
                if self.labels[entry] == label:
                    self._widen(entry, key, distance, radius)
                    return entry, "same"
                if distance <= noise:
                    self._replace(entry, key, label, radius)
                    return entry, "replaced"
                self._halve(entry, distance)
                return self._append(key, label, distance / 2), "split"
        return self._append(key, label, radius), "new"

    def _append(self, key: torch.Tensor, label: str, radius: float) -> int:
        self.keys = torch.cat([self.keys, key[None]])
        self.radii = torch.cat([self.radii, self.radii.new_tensor([radius])])
        self.labels.append(label)
        return len(self) - 1

    def _widen(self, entry: int, key: torch.Tensor, distance: float, radius: float) -> None:
        self.radii[entry] = max(float(self.radii[entry]), distance * (1 + 1e-5))  # rounding must not leave it outside

    def _halve(self, entry: int, distance: float) -> None:
        self.radii[entry] = distance / 2

    def _replace(self, entry: int, key: torch.Tensor, label: str, radius: float) -> None:
        self.keys[entry], self.radii[entry], self.labels[entry] = key, radius, label


def distances(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Euclidean distances ``[R, n]`` of ``queries[R, d]`` to ``keys[n, d]``, float32.

    Not through a matrix product, which would lose what is small beside the norms.
    """
    return torch.cdist(queries.float(), keys, compute_mode="donot_use_mm_for_euclid_dist")


def rounding(activations: torch.Tensor) -> torch.Tensor:
    """How far equal prompts may lie apart because they were read in other batches: a share of their norm, ``[..., d]``."""
    share = max(1e-4, 4 * torch.finfo(activations.dtype).eps)
    return activations.float().norm(dim=-1) * share


def at_ends(x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Of ``x[R, T, d]`` the activations at each row's prompt end, ``[R, d]``."""
    return x[torch.arange(len(x), device=x.device), ends.to(x.device)]


def decide_where(
    route: Route, key: Any, x: torch.Tensor, find: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[Any, bool]:
    """What ``find`` says of the activations at the prompts' ends, and whether this pass is the one that reads the prompts.

    The pass that decides reads them, and so does a later one over as many positions (a repetition from some layer on); a single
    token that comes later is one the model has just written.
    """
    fresh: list[bool] = []

    def compute(ends: torch.Tensor) -> tuple[torch.Tensor, int]:
        fresh.append(True)
        return find(at_ends(x, ends)), x.shape[1]

    found, length = route.decide(key, compute)
    return found, bool(fresh) or (x.shape[1] == length and length > 1)
