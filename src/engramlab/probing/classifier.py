"""Nearly linear classifiers of a frozen model's hidden states, all tasks of a probe in one batched pass.

A task has parameters of its own: a low-rank update of the token embedding, a norm with affine, a linear classifier. Tasks never
meet: every text of a batch is read under each task's embedding update, and each task's loss reaches its own rows of the stacked
parameters alone. So training all tasks together equals training each by itself, to floating-point tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.options import at_least
from engramlab.base.random_access import key
from engramlab.core.models import EmbeddingUpdates
from engramlab.core.training.loop import Recipe
from engramlab.probing.examples import UNKNOWN

Norm = Literal["layer", "batch", "none"]
_EPS = 1e-5  # of both norms, as torch's


@dataclass(frozen=True)
class Probe:
    """How nearly linear a probe is, and how it trains."""

    rank: int
    """Rank of each task's update of the token embedding; 0 for a linear probe without any."""
    norm: Norm
    """In front of the classifier, with affine: layer norm, batch norm, or none."""
    layer: int | None = None
    """Layer whose output is read (0 is the first); None for the last, after the model's final norm."""
    dropout: bool = True
    """Keep the frozen network's own dropout on while probes train."""
    recipe: Recipe = field(default_factory=Recipe)
    """Steps, and texts a step, of every task. Gradients are never clipped: tasks would share the norm."""

    def __post_init__(self) -> None:
        at_least(self, 0, "rank", what="probe: ")
        if self.recipe.clip is not None:
            raise UserError("probe: recipe.clip must be None: all tasks together would be clipped by one norm")


class Probes(nn.Module):
    """Stacked probes of ``tasks`` independent tasks; row ``k`` of every parameter is task ``k``'s.

    Args:
        classes: number of classes of each task.
        width: of the hidden states.
        norm: in front of the classifiers.
        seeds: one a task, of its initial parameters; they do not depend on what other tasks there are.
        updates: of the token embedding, one a task; None for linear probes.
    """

    def __init__(
        self,
        classes: Sequence[int],
        width: int,
        norm: Norm,
        seeds: Sequence[int],
        updates: EmbeddingUpdates | None = None,
    ) -> None:
        super().__init__()
        tasks, most = len(classes), max(classes)
        self.norm, self.updates = norm, updates
        weight, bias = torch.zeros(tasks, width, most), torch.zeros(tasks, most)
        for k, (count, seed) in enumerate(zip(classes, seeds, strict=True)):
            generator, bound = torch.Generator().manual_seed(seed), width**-0.5  # as torch's Linear begins
            weight[k, :, :count] = torch.empty(count, width).uniform_(-bound, bound, generator=generator).T
            bias[k, :count] = torch.empty(count).uniform_(-bound, bound, generator=generator)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        if norm != "none":
            self.scale, self.shift = nn.Parameter(torch.ones(tasks, width)), nn.Parameter(torch.zeros(tasks, width))
        # Tasks with fewer classes than the largest: what lies behind their classes is impossible.
        beyond = torch.arange(most) >= torch.tensor(classes)[:, None]
        self.register_buffer("closed", torch.zeros(tasks, most).masked_fill(beyond, -torch.inf), persistent=False)

    def logits(self, hidden: torch.Tensor, moments: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """``hidden[tasks, n, D] -> [tasks, n, C]``.

        Args:
            moments: mean and variance ``[tasks, 1, D]`` that a batch norm uses; None for those of ``hidden`` itself.
        """
        if self.norm == "layer":
            hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:], eps=_EPS)
        elif self.norm == "batch":
            mean, variance = moments or (hidden.mean(1, keepdim=True), hidden.var(1, keepdim=True, unbiased=False))
            hidden = (hidden - mean) * (variance + _EPS).rsqrt()
        if self.norm != "none":
            hidden = torch.addcmul(self.shift[:, None], hidden, self.scale[:, None])
        return torch.baddbmm((self.bias + self.get_buffer("closed"))[:, None], hidden, self.weight)

    def losses(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy ``[tasks]`` of ``hidden[tasks, n, D]``; of ``labels[tasks, n]``, ``UNKNOWN`` is left out."""
        logits = self.logits(hidden)
        each = nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=UNKNOWN, reduction="none"
        )
        return each.view(labels.shape).sum(1) / (labels != UNKNOWN).sum(1).clamp(min=1)


def make_probes(
    probe: Probe, model: nn.Module, names: Sequence[str], classes: Sequence[int], ids: torch.Tensor, seed: int
) -> Probes:
    """Untrained probes of a model.

    Args:
        names: of the tasks; a task begins the same in whatever company.
        ids: the tokens that training reads.
    """
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    updates = None
    if probe.rank:
        seeds = [key(seed, "embedding update", name) >> 1 for name in names]
        updates = EmbeddingUpdates(ids, embedding.shape[0], embedding.shape[1], probe.rank, seeds)
    width = int(model.config.get_text_config().hidden_size)  # type: ignore[union-attr,operator]
    return Probes(classes, width, probe.norm, [key(seed, "probe", name) >> 1 for name in names], updates)


def check_layer(model: nn.Module, layer: int | None) -> None:
    """Raises UserError unless the model has hidden states of this layer."""
    layers = int(model.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr,operator]
    if layer is not None and not 0 <= layer < layers:
        raise UserError(f"layer {layer} does not exist: this model has layers 0 to {layers - 1}")


def hidden_states(
    model: nn.Module,
    ids: torch.Tensor,
    lengths: torch.Tensor,
    places: torch.Tensor,
    layer: int | None = None,
    updates: EmbeddingUpdates | None = None,
) -> torch.Tensor:
    """Hidden states of a causal LM, without its vocabulary projection.

    Args:
        ids: int64 ``[B, T]``, padded at the right.
        lengths: int64 ``[B]``: tokens that are no padding.
        places: int64 ``[B, P]``: which positions to read.
        layer: see ``Probe``.
        updates: every row is read under each of them.

    Returns:
        float32 ``[updates, B, P, D]``, or ``[1, B, P, D]`` without updates; differentiable in them.
    """
    embedded = model.get_input_embeddings()(ids)[None]  # type: ignore[operator]
    if updates is not None:
        embedded = embedded + updates(ids).to(embedded.dtype)
    tasks, rows = len(embedded), len(ids)
    base = getattr(model, str(model.base_model_prefix))
    more = {}
    if not getattr(model.config, "is_causal", True):  # a causal model never looks at the padding at the right
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        more["attention_mask"] = mask.long().repeat(tasks, 1)
    out = base(inputs_embeds=embedded.flatten(0, 1), use_cache=False, output_hidden_states=layer is not None, **more)
    found = out.last_hidden_state if layer is None else out.hidden_states[layer + 1]
    found = found.view(tasks, rows, *found.shape[1:]).float()
    index = places[None, :, :, None].expand(tasks, -1, -1, found.shape[-1])
    return found.gather(2, index)


def random_while_training(model: nn.Module) -> bool:
    """Has the model dropout, so that its hidden states differ from pass to pass in training mode?"""
    # Attention's dropout is no module; other settings, such as a classification head's, play no part in a causal LM.
    of_attention = (getattr(model.config, name, 0) for name in ("attention_dropout", "attn_pdrop"))
    return any(of_attention) or any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
