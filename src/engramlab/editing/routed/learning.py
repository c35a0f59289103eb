"""Training what a routed method adds to modules (values, side memories): many independent edits in one batch.

Like ``editing/solve/descent.py``, but for changes that are no weight deltas: they depend on where prompts end, or are pulled by
more
than the loss of the target tokens. Layers below the changed one are computed once, and what the module reads at the prompts'
ends is kept, for keys and margins are made from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engramlab.core import deltas
from engramlab.core.deltas import Delta
from engramlab.core.forward.hooks import frozen, mode
from engramlab.core.forward.passes import select_positions
from engramlab.core.forward.tails import Tail
from engramlab.core.text.tokens import start_tokens
from engramlab.core.training.loop import NonFiniteLoss, Recipe, TrainState, train
from engramlab.core.training.losses import Loss
from engramlab.editing.requests import Requests
from engramlab.editing.routed.codebook import at_ends
from engramlab.editing.solve.descent import Watch
from engramlab.measuring.scoring import evidence


def continued(model: nn.Module, kind: type[Delta], path: str) -> Any:
    """The newest delta of this kind on the model that acts at this module, from which a new edit goes on; None without one."""
    found = [d for d in deltas.installed(model) if isinstance(d, kind) and getattr(d, "path", None) == path]
    return found[-1] if found else None


@contextlib.contextmanager
def standing_in(model: nn.Module, empty: Delta) -> Iterator[None]:
    """Inside the block no parameter requires gradients, and ``empty``, which does nothing, has taken over what it continues."""
    with frozen(model), deltas.applied(model, empty) if empty.continues is not None else contextlib.nullcontext():
        yield


@torch.no_grad()
def inputs_at(model: nn.Module, path: str, requests: Requests) -> torch.Tensor:
    """What the module at ``path`` reads at the prompts' ends, ``[R, d]``; layers above it are not computed."""

    class Read(Exception):
        pass

    seen: list[torch.Tensor] = []

    def before(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(at_ends(args[0], requests.prompt_ends))
        raise Read

    hook = model.get_submodule(path).register_forward_pre_hook(before)
    try:
        with mode(model, False), deltas.routing(model, requests.prompt_ends), contextlib.suppress(Read):
            model(input_ids=requests.ids[:, : int(requests.prompt_ends.max()) + 1], use_cache=False)
    finally:
        hook.remove()
    return seen[0]


@torch.no_grad()
def read_everywhere(model: nn.Module, tokenizer: Any, path: str, texts: Sequence[str]) -> torch.Tensor:
    """What the module at ``path`` reads in ``texts`` at every token but each first, which is unlike all others: ``[n, d]``."""
    rows = [start_tokens(tokenizer) + ids for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    rows = [row for row in rows if len(row) > 1]
    width, device = max(map(len, rows)), next(model.parameters()).device
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    there = torch.arange(width, device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
    there[:, 0] = False
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda module, args: seen.append(args[0][there]))
    ends = there.sum(1)
    try:
        with mode(model, False), deltas.routing(model, ends), select_positions(model, torch.zeros_like(there)):
            model(input_ids=ids, use_cache=False)
    finally:
        hook.remove()
    return seen[0]


class Rows:
    """The rows being trained on: their tail from layer ``start`` on, and what the module at ``path`` reads at their ends.

    Args:
        after_end: nothing changes before a prompt's last token, so that the positions before all of them are read only once.

    Attributes:
        requests: the rows.
        alive: int64 ``[G]``: the problem each group of the requests is.
        read: ``[R, d]``: input of the module at each row's prompt end.
        wrote: ``[R, d]``: its output there.
    """

    def __init__(self, model: nn.Module, start: int, path: str, requests: Requests, *, after_end: bool = False) -> None:
        self.model, self.start, self.path = model, start, path
        self.after_end = after_end and not deltas.routed(model)
        self._routing = contextlib.ExitStack()
        self.requests: Requests
        self.alive = torch.arange(requests.groups, device=requests.ids.device)
        self._take(requests)

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: Any) -> None:
        self._routing.close()

    def keep(self, groups: torch.Tensor) -> None:
        """Only these groups go on."""
        self.alive = self.alive[groups]
        self._take(self.requests.select(groups))

    def regroup(self, owner: torch.Tensor, groups: int) -> None:
        """The same rows as problems ``owner[R]`` of ``groups``."""
        r = self.requests
        self.requests = Requests(
            r.ids, r.keep, r.targets, r.target_rows, owner, r.lengths, r.prompt_ends, r.subject_ends, groups
        )
        self.alive = torch.arange(groups, device=r.ids.device)

    @torch.no_grad()
    def _take(self, requests: Requests) -> None:
        self._routing.close()
        self._routing = contextlib.ExitStack()
        self.requests = requests
        self.begin = int(requests.prompt_ends.min()) if self.after_end else 0
        self.ends = requests.prompt_ends - self.begin  # in what the tail recomputes
        # Deltas of other methods may be on the model; what they decide at the prompts' ends holds for all runs of the tail.
        self._routing.enter_context(deltas.routing(self.model, requests.prompt_ends))
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        module = self.model.get_submodule(self.path)
        hook = module.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
        try:
            self.tail = Tail(self.model, self.start, requests.ids, begin=self.begin)
        finally:
            hook.remove()
        self.read, self.wrote = (at_ends(values, self.ends) for values in seen[-1])  # the last pass holds the ends

    def losses(self, loss: Loss, watch: Watch | None, step: int) -> torch.Tensor:
        """Mean loss of the target tokens of each group, ``[G]``."""
        logits = self.tail.logits(self.requests.keep[:, self.begin :])
        if watch is not None:
            with torch.no_grad():
                watch(step, self.alive, *evidence(logits, self.requests.targets)[:2], self.requests)
        return self.requests.mean(loss(logits, self.requests.targets))


@dataclass
class Solved:
    """What a descent found.

    Attributes:
        values: the parameter, each problem's row as it was when that problem ended.
        failed: problems whose loss or gradient became non-finite.
        steps: int64 ``[problems]``: optimizer steps each took.
    """

    values: torch.Tensor
    failed: set[int]
    steps: torch.Tensor


def descend(
    rows: Rows,
    parameter: nn.Parameter,
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    recipe: Recipe,
    objective: Callable[[int], torch.Tensor],
    *,
    over: Callable[[torch.Tensor], torch.Tensor],
    constrain: Callable[[], None] | None = None,
) -> Solved:
    """Minimises a loss of each problem over its own row of ``parameter``; a problem that is over does not change any more.

    Args:
        rows: hold the requests, whose groups are the problems; when half of them are over, the others are read again by
            themselves.
        change: ``(x, y) -> new y`` of the module at ``rows.path``.
        objective: steps done -> losses of the problems in ``rows.alive``.
        over: losses of the problems in ``rows.alive`` -> bool: need they no further step? One without any gradient never does.
        constrain: called after every step, to put the parameter back into bounds.
    """
    state = TrainState(nn.ParameterList([parameter]), recipe, local=True)
    final = parameter.detach().clone()
    steps = torch.zeros(len(final), dtype=torch.int64, device=final.device)
    done = torch.zeros(len(rows.alive), dtype=torch.bool, device=final.device)
    failed: set[int] = set()

    def finish(which: torch.Tensor) -> None:
        final[rows.alive[which]] = parameter.detach()[which]
        steps[rows.alive[which]] = state.step

    module = rows.model.get_submodule(rows.path)
    handle = module.register_forward_hook(lambda module, args, output: change(args[0], output))
    try:
        for step in train(state, objective=lambda: objective(state.step)):
            if constrain is not None:
                with torch.no_grad():
                    constrain()
            assert step.losses is not None
            assert step.idle is not None
            now = (over(step.losses) | step.idle).to(done.device)
            now[list(state.failed)] = True
            failed |= {int(rows.alive[row]) for row in state.failed}
            finish(now & ~done)
            done |= now
            left = (~done).nonzero().squeeze(1)
            if not len(left):
                break
            if 2 * len(left) <= len(done) and state.step < recipe.steps:
                state.keep_rows(left)
                handle.remove()
                rows.keep(left)
                handle = module.register_forward_hook(lambda module, args, output: change(args[0], output))
                done = torch.zeros_like(left, dtype=torch.bool)
    except NonFiniteLoss:
        failed |= {int(problem) for problem in rows.alive[~done]}
    finally:
        handle.remove()
    finish(~done)
    return Solved(final, failed, steps)
