"""MELO: low-rank blocks in a few layers, of which the prompt's last hidden state chooses one or none (arXiv 2312.11795)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.options import check_rules, meant
from engramlab.core.deltas import Delta, Modifier, Route, fingerprint
from engramlab.core.models.geometry import depth, down_projection, layer_at, matrix_shape
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made, Watch, failed, recipe
from engramlab.editing.requests import encode_edits
from engramlab.editing.routed.codebook import Codebook, at_ends, distances, rounding
from engramlab.editing.routed.learning import continued, inputs_at, standing_in
from engramlab.editing.solve.descent import LowRankUpdates, descend

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, False, True


@dataclass(frozen=True)
class Config:
    """The settings published for GPT2-XL, the paper's decoder (in its code).

    Two things differ. Keys and blocks sit at down-projections, the one MLP matrix that every family here has by name, where
    the paper takes the up-projection. And the key is read at the prompt's last token, never at the input's, which under
    teacher forcing is a token of the answer.
    """

    key_layer: int | None = None
    """Layer whose down-projection's input is the key; None for the one at 35/48 of the depth."""
    layers: tuple[int, ...] | None = None
    """Layers that hold the blocks, all above the key's; None for the next two."""
    rank: int = 2
    """Rank of a block (num_rank_per_block)."""
    scale: float = 350.0
    """What a block's product is multiplied by: its code scales both factors by the root of the number of blocks, 350."""
    steps: int = 50
    """Adam steps for a block, at most."""
    learning_rate: float = 1e-3
    """Of Adam; halved every ``halve_every`` steps."""
    halve_every: int = 20
    """Steps after which the learning rate is halved."""
    radius: float = 0.5
    """First radius of a cluster, in the units of the key; see GRACE on what it can hold."""
    edits_per_block: int = 1
    """Edits of one call that share a block, in their order (the paper's sequences: 4 to 100)."""
    stop_below: float = 1e-2
    """A block is done when its mean loss over target tokens is below this; 0 for never."""
    seed: int = 0
    """Of the factor that starts at random."""

    def __post_init__(self) -> None:
        meant(self)
        above = ("rank", "steps", "halve_every", "edits_per_block")
        check_rules(
            self,
            [(name, getattr(self, name) >= 1, "at least 1") for name in above]
            + [(name, getattr(self, name) > 0, "above 0") for name in ("scale", "learning_rate", "radius")],
        )


class Clusters(Codebook):
    """A codebook whose entries are clusters of keys, and where each key names a block (the paper's vector database).

    Attributes:
        keys: centres of the clusters, float32 ``[n, d]``.
        points: the keys in them, float32 ``[m, d]``.
        cluster: int64 ``[m]``: the cluster of each.
        block: int64 ``[m]``: the block of each.
    """

    def __init__(self, book: Codebook, points: torch.Tensor, cluster: torch.Tensor, block: torch.Tensor) -> None:
        super().__init__(book.keys, book.radii, book.labels)
        self.points, self.cluster, self.block = points, cluster, block

    @classmethod
    def empty(cls, width: int, device: torch.device | str = "cpu") -> Clusters:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(Codebook.empty(width, device), torch.zeros(0, width, device=device), none, none)

    def copy(self) -> Clusters:
        return Clusters(super().copy(), self.points, self.cluster, self.block)

    def to(self, device: torch.device) -> Clusters:
        return Clusters(super().to(device), self.points.to(device), self.cluster.to(device), self.block.to(device))

    def find_block(self, queries: torch.Tensor) -> torch.Tensor:
        """int64 ``[R]``: the block of the nearest key of the cluster each query falls into; -1 for none."""
        cluster = self.find(queries)
        if not len(self.points):
            return cluster
        far = distances(queries, self.points).masked_fill(self.cluster != cluster[:, None], torch.inf)
        distance, point = far.flip(1).min(1)  # the newest of equally near ones
        return torch.where(distance.isfinite(), self.block.flip(0)[point], -1)

    def add(self, key: torch.Tensor, label: str, radius: float, block: int) -> None:
        """Makes room for a key that stands for ``block``."""
        cluster, _ = self.place(key, label, radius, noise=float(rounding(key)))
        self.points = torch.cat([self.points, key.float()[None]])
        self.cluster = torch.cat([self.cluster, self.cluster.new_tensor([cluster])])
        self.block = torch.cat([self.block, self.block.new_tensor([block])])

    def _widen(self, entry: int, key: torch.Tensor, distance: float, radius: float) -> None:
        inside = torch.cat([self.points[self.cluster == entry], key[None]])
        self.keys[entry] = inside.mean(0)
        reach = float(distances(inside, self.keys[entry][None]).max()) * (1 + 1e-5)
        self.radii[entry] = max(reach, radius)

    def _halve(self, entry: int, distance: float) -> None:
        super()._halve(entry, distance)
        self._forget(entry, distances(self.points, self.keys[entry][None])[:, 0] > self.radii[entry])

    def _replace(self, entry: int, key: torch.Tensor, label: str, radius: float) -> None:
        super()._replace(entry, key, label, radius)
        self._forget(entry, torch.ones_like(self.cluster, dtype=torch.bool))

    def _forget(self, entry: int, which: torch.Tensor) -> None:
        left = ~((self.cluster == entry) & which)
        self.points, self.cluster, self.block = self.points[left], self.cluster[left], self.block[left]


@dataclass(eq=False)
class MeloDelta(Delta):
    """Clusters of keys at the module ``path``, and blocks of low rank at others.

    Attributes:
        left: by module path, float32 ``[blocks, out, rank]``; the scale is in it.
        right: by module path, float32 ``[blocks, rank, in]``.
    """

    kind: ClassVar[str] = "melo"
    routed: ClassVar[bool] = True

    model: str
    path: str
    clusters: Clusters
    left: dict[str, torch.Tensor]
    right: dict[str, torch.Tensor]
    continues: Delta | None = None

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        if not len(self.clusters):
            return {}
        device = next(model.get_submodule(self.path).parameters()).device
        clusters, key = self.clusters.to(device), (id(self), "block")

        def decide(x: torch.Tensor, y: torch.Tensor, route: Route) -> torch.Tensor:
            route.decide(key, lambda ends: clusters.find_block(at_ends(x, ends)))
            return y

        def block(left: torch.Tensor, right: torch.Tensor) -> Modifier:
            def modify(x: torch.Tensor, y: torch.Tensor, route: Route) -> torch.Tensor:
                chosen = route.decided(key)
                if chosen is None:
                    return y
                rows = (chosen >= 0).nonzero().squeeze(1)
                if not len(rows):
                    return y
                mine = chosen[rows]
                more = torch.bmm(torch.bmm(x[rows].float(), right[mine].transpose(1, 2)), left[mine].transpose(1, 2))
                return y.index_copy(0, rows, (y[rows] + more).to(y.dtype))

            return modify

        found: dict[str, Modifier] = {self.path: decide}
        for path, left in self.left.items():
            at = next(model.get_submodule(path).parameters()).device
            found[path] = block(left.to(at), self.right[path].to(at))
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        c = self.clusters
        found = {"keys": c.keys, "radii": c.radii, "points": c.points, "cluster": c.cluster, "block": c.block}
        return found | {f"left:{p}": t for p, t in self.left.items()} | {f"right:{p}": t for p, t in self.right.items()}

    def settings(self) -> dict[str, Any]:
        return {"path": self.path, "labels": self.clusters.labels}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> MeloDelta:
        book = Codebook(tensors["keys"], tensors["radii"], settings["labels"])
        clusters = Clusters(book, tensors["points"], tensors["cluster"], tensors["block"])
        factors: dict[str, dict[str, torch.Tensor]] = {"left": {}, "right": {}}
        for name, tensor in tensors.items():
            part, _, path = name.partition(":")
            if path:
                factors[part][path] = tensor
        return cls(model, settings["path"], clusters, factors["left"], factors["right"])


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """Clusters and blocks of its own for each case; all blocks are trained in one batch."""
    key_layer, layers = _layers(model, config)
    key_path, name = down_projection(model, key_layer), fingerprint(model)
    paths = [down_projection(model, layer) for layer in layers]
    device = next(model.parameters()).device
    older: MeloDelta | None = continued(model, MeloDelta, key_path)
    if older is not None and set(older.left) != set(paths):
        raise UserError(
            f"layers: the model holds MELO blocks at {', '.join(older.left)}, so new ones must be there too; not at "
            f"{', '.join(paths)}"
        )
    size = config.edits_per_block
    groups = [list(case[at : at + size]) for case in cases for at in range(0, len(case), size)]
    requests = encode_edits(tokenizer, groups, device=device)
    width = matrix_shape(model, key_path)[1]
    empty = MeloDelta(name, key_path, Clusters.empty(width), {}, {}, continues=older)
    generator = torch.Generator().manual_seed(config.seed)
    updates = {
        path: LowRankUpdates(len(groups), matrix_shape(model, path), config.rank, config.scale, generator, device)
        for path in paths
    }
    plan = recipe(config.steps, config.learning_rate, schedule=f"halving:every={config.halve_every}")
    with standing_in(model, empty):
        keys = inputs_at(model, key_path, requests)
        trained = descend(model, requests, min(layers), updates, plan, loss, watch, config.stop_below)
    found: Made = []
    row = group = 0
    for case in cases:
        clusters = older.clusters.to(device).copy() if older else Clusters.empty(width, device)
        first = len(older.left[paths[0]]) if older else 0
        count = -(-len(case) // size)
        mine = trained[group : group + count]
        for i, edit in enumerate(case):
            clusters.add(keys[row + i], edit.target.strip(), config.radius, first + i // size)
        row, group = row + len(case), group + count
        blocks = [delta.changes for delta in mine if delta is not None]
        if len(blocks) < count:
            found.append(failed(case))
            continue
        sides: list[dict[str, torch.Tensor]] = []
        for side in ("left", "right"):
            held = getattr(older, side) if older else {}
            new = {path: torch.stack([getattr(block[path], side) for block in blocks]).to(device) for path in paths}
            sides.append({path: torch.cat([held[path].to(device), new[path]]) if held else new[path] for path in paths})
        found.append(MeloDelta(name, key_path, clusters, sides[0], sides[1], continues=older))
    return found


def _layers(model: nn.Module, config: Config) -> tuple[int, tuple[int, ...]]:
    """The key's layer and those of the blocks. Raises UserError where no layer is above the key's."""
    count = depth(model)
    if count < 2:
        raise UserError("melo needs a model of at least two layers: the key is read below the blocks")
    key = layer_at(model, config.key_layer, 35 / 48)
    if config.key_layer is None and config.layers is None:
        key = min(key, count - 2)
    layers = config.layers or tuple(sorted({min(key + 1, count - 1), min(key + 2, count - 1)}))
    layers = tuple(layer_at(model, layer, 0) for layer in layers)
    if min(layers) <= key:
        raise UserError(
            f"layers: blocks must be in layers above the key's ({key}), not in {', '.join(map(str, layers))}"
        )
    return key, layers
