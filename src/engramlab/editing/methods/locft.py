"""LocFT-BF: one MLP down-projection fine-tuned as training is done elsewhere, in epochs of minibatches, the end token
learnt too (arXiv 2509.22072)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.facts import Edit
from engramlab.base.options import check_rules, meant
from engramlab.base.random_access import key, permute
from engramlab.core.deltas import Delta, OwnRows, WeightDelta, fingerprint, routing
from engramlab.core.forward.hooks import frozen, grafting
from engramlab.core.forward.tails import Tail
from engramlab.core.models.geometry import down_projection, layer_at, matrix_shape
from engramlab.core.training.loop import TrainState, train
from engramlab.core.training.losses import Loss
from engramlab.core.training.step import NonFiniteLoss
from engramlab.editing.method import Cases, EditFailed, Made, failed, recipe
from engramlab.editing.requests import encode_edits
from engramlab.editing.solve.descent import DenseUpdates, grafts_of

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, True, False


@dataclass(frozen=True)
class Config:
    """Rate, batch and epochs are the paper's; layer and stop are FT-M's."""

    layers: tuple[int, ...] | None = None
    """Layers whose down-projection changes; None for the one at 21/32 of the depth."""
    epochs: int = 25
    """Times that every edit is seen at most."""
    batch: int = 100
    """Edits an optimizer step."""
    learning_rate: float = 5e-4
    """Of Adam."""
    stop_below: float = 1e-2
    """The edits are done when the mean loss of an epoch is below this; 0 for never."""
    end_token: bool = True
    """Teach the tokenizer's end token behind the target, so that the model stops there by itself."""
    seed: int = 0
    """Of the order of the edits in an epoch."""

    def __post_init__(self) -> None:
        meant(self)
        rules = [(name, getattr(self, name) >= 1, "at least 1") for name in ("epochs", "batch")]
        check_rules(self, [*rules, ("learning_rate", self.learning_rate > 0, "above 0")])


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss) -> Made:
    """One case after another: the minibatches are of the edits of a case."""
    encode_edits(tokenizer, cases)  # a target must have tokens beside the end token
    end = (getattr(tokenizer, "eos_token", None) or "") if config.end_token else ""
    ended = [[replace(edit, stop=edit.stop + end) for edit in edits] for edits in cases]
    return [_edit(model, tokenizer, edits, config, loss) for edits in ended]


def _edit(model: nn.Module, tokenizer: Any, edits: Sequence[Edit], config: Config, loss: Loss) -> Delta | EditFailed:
    layers = [layer_at(model, layer, 21 / 32) for layer in config.layers or (None,)]
    device = next(model.parameters()).device
    paths = [down_projection(model, layer) for layer in layers]
    updates = {path: DenseUpdates(1, matrix_shape(model, path), device) for path in paths}
    requests = encode_edits(tokenizer, [[edit] for edit in edits], device=device)
    with routing(model, requests.prompt_ends):
        tail = Tail(model, min(layers), requests.ids)
    steps = math.ceil(len(edits) / config.batch)
    plan = recipe(config.epochs * steps, config.learning_rate)
    state = TrainState(nn.ParameterList([update.update for update in updates.values()]), plan, local=True)

    def objective() -> torch.Tensor:
        epoch, step = divmod(state.step, steps)
        places = np.arange(step * config.batch, min(len(edits), (step + 1) * config.batch))
        numbers = np.sort(permute(key(config.seed, "locft", epoch), places, len(edits)))
        some = torch.as_tensor(numbers.astype(np.int64), device=device)
        now = requests.select(some, crop=False)
        rows = OwnRows(torch.zeros_like(some), 1)
        with grafting(model, grafts_of(updates, rows)), routing(model, now.prompt_ends):
            logits = tail.only(some).logits(now.keep)
        return now.mean(loss(logits, now.targets)).mean()

    seen: list[float] = []
    try:
        with frozen(model):
            for made in train(state, objective=objective):
                seen.append(float(made.loss))
                if state.step % steps == 0 and sum(seen[-steps:]) / steps < config.stop_below:
                    break
    except NonFiniteLoss:
        return failed(edits)
    return WeightDelta(fingerprint(model), {path: update.change(0) for path, update in updates.items()})
