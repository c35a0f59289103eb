"""The one training loop: a generator that yields after each optimizer step.

Whatever else should happen — logging, evaluating, saving, stopping — is the body of the caller's ``for``::

    state = TrainState(model, recipe)
    for step in train(state, stream):
        if step.number % 100 == 0:
            save(...)

Pretraining, mixed training and finetuning differ in their stream and recipe only.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from accelerate import Accelerator
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.options import check_rules
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import takes_beside, target_seen
from engramlab.core.models import mask_token
from engramlab.core.text.batches import IGNORE, Batch, Stream
from engramlab.core.text.packing import side_by_side
from engramlab.core.training import losses, schedules, sharding
from engramlab.core.training.compiling import Compiled
from engramlab.core.training.step import NonFiniteLoss, Step


@dataclass(frozen=True)
class Recipe:
    """How to train: AdamW, its schedule, and the size of a step."""

    steps: int = 1000
    """Optimizer steps in all."""
    batch: int = 96
    """Rows an optimizer step, over all devices."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    weight_decay: float = 0.1
    """AdamW's decay, on all trained parameters with two or more dimensions."""
    eps: float = 1e-6
    """AdamW's epsilon."""
    beta1: float = 0.9
    """AdamW's decay of the gradient mean."""
    beta2: float = 0.999
    """AdamW's decay of the squared gradients' mean."""
    warmup: int = 0
    """Steps in which the learning rate rises linearly from zero; of a short training at most half."""
    schedule: str = "cosine"
    """Course of the learning rate after the warm-up: cosine, linear, constant, halving:every=20, or
    plateau:fall=0.25."""
    schedule_start: int = 0
    """Updates made before step 0 that the schedule counts too, where another training is gone on with."""
    schedule_steps: int | None = None
    """Steps that the schedule is laid out for, those before step 0 included; None for `steps`."""
    final: float = 0.1
    """Learning rate at the end, as a fraction of the highest (cosine and linear)."""
    clip: float | None = 1.0
    """Largest norm of the gradient; None for no clipping."""
    micro_batch: int | None = None
    """Rows a forward pass on each device; None for all at once. Gradients are summed up to the full batch."""
    loss: str = "cross-entropy"
    """Loss of each target token, by name."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or plain stochastic gradient descent (betas and eps play no part)."""
    compile: bool = False
    """Compile the model's layers (torch.compile) before the first step, which takes up to a minute. What that gives depends on
    the machine: bench/bench_training.py --compile. Needs a C++ compiler. Numbers differ in their last digits."""

    def __post_init__(self) -> None:
        rules = [
            ("steps", self.steps >= 1, "at least 1"),
            ("batch", self.batch >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("eps", self.eps > 0, "above 0"),
            ("beta1", 0 <= self.beta1 < 1, "at least 0 and below 1"),
            ("beta2", 0 <= self.beta2 < 1, "at least 0 and below 1"),
            ("warmup", self.warmup >= 0, "at least 0"),
            ("schedule_start", self.schedule_start >= 0, "at least 0"),
            ("schedule_steps", self.schedule_steps is None or self.schedule_steps >= 1, "at least 1, or None"),
            ("final", 0 <= self.final <= 1, "between 0 and 1"),
            ("clip", self.clip is None or self.clip > 0, "above 0, or None"),
            ("micro_batch", self.micro_batch is None or self.micro_batch >= 1, "at least 1, or None"),
        ]
        check_rules(self, rules, "recipe: ")
        losses.parse(self.loss)
        schedules.parse(self.schedule)

    def rate(self, step: int) -> float:
        """Learning rate of the update from state ``step`` to ``step + 1``."""
        step, steps = step + self.schedule_start, self.schedule_steps or self.steps
        warmup = min(self.warmup, steps // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * schedules.parse(self.schedule)(step - warmup, steps - warmup, self.final)


class TrainState:
    """A model being trained: its parameters, optimizer and step count, on the device that accelerate gives.

    Args:
        model: is moved to the device; its other parameters are not changed.
        recipe: how to train.
        parameters: the ones that may change; None for those that require gradients now.
        accelerator: None for a default one (all devices of the launch, float32).
        local: train in this process alone, on the device the parameters are on, with no accelerator.
        problems: every trained parameter stacks those of several independent problems, one a leading row; weight decay then
            leaves alone what each problem holds as a vector.

    Raises:
        UserError: no parameters to train, a batch that the devices cannot share, or fp16, whose loss scaling is not done.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        parameters: Iterable[nn.Parameter] | None = None,
        accelerator: Accelerator | None = None,
        local: bool = False,
        problems: bool = False,
    ) -> None:
        self.recipe = recipe
        self._accelerator = accelerator or (None if local else Accelerator())
        self.world = self._accelerator.num_processes if self._accelerator else 1
        if self._accelerator and self._accelerator.mixed_precision == "fp16":
            raise UserError("precision fp16 would need its losses scaled, which is not done here; use bf16 or none")
        if recipe.batch % self.world:
            raise UserError(f"recipe: batch {recipe.batch} cannot be shared evenly by {self.world} processes")
        chosen = list(parameters) if parameters is not None else [p for p in model.parameters() if p.requires_grad]
        if not chosen:
            raise UserError("there is no parameter to train")
        ids = {id(p) for p in chosen}
        self.names = [name for name, p in model.named_parameters() if id(p) in ids]
        self.bare = model.to(self._accelerator.device) if self._accelerator else model
        shared = self.world > 1 and sharding.wanted()
        self.own = sharding.shard(self.bare, self.accelerator.device) if shared else self.bare
        self.trained = [p for name, p in self.own.named_parameters() if name in set(self.names)]
        matrices = 3 if problems else 2  # dimensions from which on a parameter decays
        groups = [
            {"params": [p for p in self.trained if p.dim() >= matrices], "weight_decay": recipe.weight_decay},
            {"params": [p for p in self.trained if p.dim() < matrices], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, fused=True)
        else:
            betas = recipe.beta1, recipe.beta2
            self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.eps, fused=True)
        self.compiled = Compiled(sharding.blocks(self.own), chosen[0].device) if recipe.compile else None
        self.step = 0
        self.failed: set[int] = set()
        # Does the model read rows side by side as it reads each alone? Found out once, where rows are short.
        self.takes_beside: bool | None = None
        with self.only_trained():
            self.model = self.accelerator.prepare_model(self.bare) if self.world > 1 and not shared else self.own

    @property
    def accelerator(self) -> Accelerator:
        """The devices it trains on; a local state has none."""
        if self._accelerator is None:
            raise RuntimeError("a local training state has no accelerator: it takes an objective, not a stream")
        return self._accelerator

    @contextlib.contextmanager
    def only_trained(self) -> Iterator[None]:
        """Inside the block exactly the chosen parameters require gradients; afterwards all are as they were."""
        before = [(p, p.requires_grad) for p in self.own.parameters()]
        chosen = {id(p) for p in self.trained}
        try:
            for p, _ in before:
                p.requires_grad_(id(p) in chosen)
            yield
        finally:
            for p, required in before:
                p.requires_grad_(required)

    def keep_rows(self, index: torch.Tensor) -> None:
        """Of independent problems, one a leading row of every trained parameter, only those in ``index`` go on."""
        for parameter in self.trained:
            moments = self.optimizer.state.get(parameter, {})
            for name, value in moments.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    moments[name] = value[index]
            parameter.data = parameter.data[index]
        self.failed = {new for new, old in enumerate(index.tolist()) if old in self.failed}


#: The loss to minimise: one number, or one for each independent problem ``[B]``, where problem ``b`` owns row ``b`` of every
#: trained parameter.
Objective = Callable[[], torch.Tensor]


def train(
    state: TrainState,
    stream: Stream | None = None,
    objective: Objective | None = None,
    until: int | None = None,
    enough: float | None = None,
) -> Generator[Step]:
    """Trains from ``state.step`` to ``state.recipe.steps``, or to step ``until`` before, yielding after each step.

    Dropout is on while a step runs; between steps the model's mode is whatever the caller left it in when the loop began, so
    the loop body may evaluate freely. Closing the generator early leaves everything usable.

    Args:
        stream: batches, whose target tokens' mean loss is minimised.
        objective: minimised instead of a stream's loss; of several processes, the mean of what each gives. Where it gives a
            loss for each of several independent problems, one whose loss or gradient is not finite gets no gradient from
            then on and its row number stands in ``state.failed``; the others never notice.
        enough: of independent problems, one whose loss is below this, or whose gradient is exactly zero, is solved as it
            stands and does not move any more (momentum would carry it on); where all are, there is no step.

    Raises:
        NonFiniteLoss: at the first loss or gradient that is NaN or infinite, before it reaches the parameters.
    """
    with state.only_trained():
        while state.step < (state.recipe.steps if until is None else until):
            if objective is not None:
                yield _descend(state, objective, enough)
            elif stream is not None:
                yield _step(state, stream)
            else:
                raise ValueError("train needs a stream or an objective")


def _descend(state: TrainState, objective: Objective, enough: float | None) -> Step:
    """One step on an objective."""
    losses_now = objective()
    if not losses_now.dim():
        losses_now.backward()
        total = losses_now.detach()
        if state.world > 1:  # the gradients that no wrapper has averaged
            total = state.accelerator.reduce(total, "mean")
            for p in state.trained:
                p.grad = None if p.grad is None else state.accelerator.reduce(p.grad, "mean")
        return _update(state, total, 0, 0)
    if state.world > 1:
        raise ValueError("independent problems are trained in one process")
    finite, values = losses_now.isfinite(), losses_now.detach()
    settled = torch.zeros_like(finite) if enough is None else values < enough
    if bool((settled | ~finite).all()) and bool(settled.any()):
        state.failed.update((~finite).nonzero().flatten().tolist())
        return Step(
            state.step, float(values[settled].sum()), 0.0, 0.0, 0, 0, values, torch.zeros_like(settled), settled
        )
    losses_now.masked_fill(~finite, 0).sum().backward()
    # One pass over the gradients: their norm by row tells what failed, what stands still, and the norm of all.
    norms = torch.stack(
        [torch.linalg.vector_norm(p.grad.flatten(1), dim=1) for p in state.trained if p.grad is not None]
    )
    bad = ~(finite & norms.isfinite().all(0))
    idle = (norms == 0).all(0)
    bad[list(state.failed)] = True
    if bad.any():
        state.failed.update(bad.nonzero().flatten().tolist())
        for parameter in state.trained:
            if parameter.grad is not None:
                parameter.grad[bad] = 0
    norm = norms[:, ~bad].norm()
    if enough is not None:
        settled = (settled | idle) & ~bad
    still = settled.nonzero().flatten()
    stood = [p.detach()[still] for p in state.trained]
    step = _update(state, values.masked_fill(bad, 0).sum(), 0, 0, norm)
    with torch.no_grad():
        for p, before in zip(state.trained, stood, strict=True):
            p[still] = before
    return replace(step, losses=values, idle=idle, settled=settled)


def _step(state: TrainState, stream: Stream) -> Step:
    """One step on a batch of the stream."""
    recipe, accelerator = state.recipe, state.accelerator
    share = recipe.batch // state.world
    first = accelerator.process_index * share
    batch = stream.take(recipe.batch, slice(first, first + share))
    targets, tokens = int((batch.targets != IGNORE).sum()), batch.tokens
    if state.world > 1:
        counts = accelerator.reduce(torch.tensor([targets, tokens], device=accelerator.device))
        targets, tokens = (int(c) for c in counts)
    if not targets:
        raise UserError(f"step {state.step + 1}: the batch has no target token")
    total = torch.zeros((), device=accelerator.device)
    with mode(state.model, True), state.compiled.running() if state.compiled else contextlib.nullcontext():
        for part, last in _parts(batch, recipe.micro_batch):
            with contextlib.nullcontext() if last or state.world == 1 else accelerator.no_sync(state.model):
                loss = _loss_sum(state, part) / targets
                # Data parallelism averages gradients over processes; the mean here is over all processes' targets.
                accelerator.backward(loss * state.world)
            total += loss.detach()
    if state.world > 1:
        total = accelerator.reduce(total)
    return _update(state, total, tokens, targets)


def _update(
    state: TrainState, total: torch.Tensor, tokens: int, targets: int, norm: torch.Tensor | None = None
) -> Step:
    """The optimizer step that gradients now in place call for."""
    recipe = state.recipe
    if norm is None:
        norm = sharding.whole(torch.nn.utils.get_total_norm([p.grad for p in state.trained if p.grad is not None]))
    value, size = torch.stack([total, norm.to(total.dtype)]).tolist()  # one wait for the device
    if not (math.isfinite(value) and math.isfinite(size)):
        state.optimizer.zero_grad(set_to_none=True)
        raise NonFiniteLoss(
            f"step {state.step + 1}: the loss became {value} (gradient norm {size}); the last good checkpoint is kept: "
            f"lower the learning rate (now {recipe.rate(state.step):.2g}) or set a clip norm"
        )
    if recipe.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(state.trained, recipe.clip, norm)
    rate = recipe.rate(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    sharding.gather(state.own, state.bare, state.names)
    state.step += 1
    return Step(state.step, value, rate, size, tokens, targets)


def _parts(batch: Batch, size: int | None) -> Iterator[tuple[Batch, bool]]:
    rows = len(batch.input_ids)
    size = size or rows
    for start in range(0, rows, size):
        cut = slice(start, start + size)
        inside = None if batch.inside is None else batch.inside[cut]
        part = Batch(batch.input_ids[cut], batch.targets[cut], batch.tokens, batch.source[cut], inside)
        yield part, start + size >= rows


def _loss_sum(state: TrainState, batch: Batch) -> torch.Tensor:
    """Sum of the losses of this part's target tokens; the part is on the CPU, where its rows are laid side by side."""
    device, masked = state.accelerator.device, mask_token(state.bare) is not None
    beside = None if masked or state.world > 1 else side_by_side(batch)
    if beside is not None and state.takes_beside is None:
        state.takes_beside = takes_beside(state.model, batch.to(device))
    if beside is not None and state.takes_beside:
        beside = beside.to(device)
        ids, targets, positions, inside = beside.input_ids, beside.targets, beside.positions, None
    else:
        batch = batch.to(device)
        # A causal model never looks at the padding.
        ids, targets, positions, inside = batch.input_ids, batch.targets, None, batch.inside if masked else None
    keep = targets != IGNORE
    with state.accelerator.autocast():
        logits = target_seen(state.model, ids, keep, inside, positions=positions).logits
    return losses.parse(state.recipe.loss)(logits, targets[keep]).sum()
