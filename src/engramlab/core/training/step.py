"""What a step of the training loop says."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engramlab.base.errors import UserError


@dataclass(frozen=True)
class Step:
    """What one optimizer step did.

    Attributes:
        number: updates made so far (1 after the first).
        loss: mean loss over the target tokens of the batch, before the update.
        learning_rate: of this update.
        gradient_norm: before clipping.
        tokens: input tokens seen in this step, padding left out, over all devices.
        targets: target tokens in this step, over all devices.
        losses: the loss of each independent problem, before the update, where an objective gave one for each.
        idle: bool, one for each of them: its gradient was exactly zero.
        settled: bool, one for each of them: it was solved as it stood, and took no step; see ``train``.
    """

    number: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    targets: int
    losses: torch.Tensor | None = None
    idle: torch.Tensor | None = None
    settled: torch.Tensor | None = None


class NonFiniteLoss(UserError):
    """The loss became NaN or infinite; the parameters are those before the bad step."""
