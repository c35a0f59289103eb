"""Training what a routed method adds to modules (values, side memories): many independent edits in one batch.

Like ``editing/solve/descent.py``, but for changes that are no weight deltas: they depend on where prompts end, or are pulled by
more than the loss of the target tokens. Layers below the changed one are computed once, and what the module reads at the
prompts' ends is kept, for keys and margins are made from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from engramlab.core import deltas
from engramlab.core.deltas import Delta
from engramlab.core.forward.hooks import Graft, frozen, grafting, mode, reading
from engramlab.core.forward.tails import Tail
from engramlab.core.text.tokens import start_tokens
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.losses import Loss
from engramlab.core.training.problems import solve
from engramlab.editing.method import Watch
from engramlab.editing.requests import Requests
from engramlab.measuring.scoring import evidence


def continued(model: nn.Module, kind: type[Delta], path: str) -> Any:
    """The newest delta of this kind on the model that acts at this module, from which a new edit goes on; None without one."""
    found = [d for d in deltas.installed(model) if isinstance(d, kind) and getattr(d, "path", None) == path]
    return found[-1] if found else None


@contextlib.contextmanager
def standing_in(model: nn.Module, empty: Delta) -> Iterator[None]:
    """Inside the block no parameter requires gradients, and ``empty``, which does nothing, has taken over what it continues."""
    with frozen(model), deltas.active(model, empty) if empty.continues is not None else contextlib.nullcontext():
        yield


def _at_ends(ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of each row's prompt end."""
    return torch.arange(len(ends), device=ends.device), ends


@torch.no_grad()
def inputs_at(model: nn.Module, path: str, requests: Requests) -> torch.Tensor:
    """What the module at ``path`` reads at the prompts' ends, ``[R, d]``; layers above it are not computed."""
    ends = requests.prompt_ends
    with mode(model, False), deltas.routing(model, ends), reading(model, [path], _at_ends(ends), until=path) as seen:
        model(input_ids=requests.ids[:, : int(ends.max()) + 1], use_cache=False)
    return seen[path].read


@torch.no_grad()
def read_everywhere(model: nn.Module, tokenizer: Any, path: str, texts: Sequence[str]) -> torch.Tensor:
    """What the module at ``path`` reads in ``texts`` at every token but each first, which is unlike all others: ``[n, d]``."""
    rows = [start_tokens(tokenizer) + ids for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    rows = [row for row in rows if len(row) > 1]
    width, device = max(map(len, rows)), next(model.parameters()).device
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    there = torch.arange(width, device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
    there[:, 0] = False
    with mode(model, False), deltas.routing(model, there.sum(1)), reading(model, [path], there, until=path) as seen:
        model(input_ids=ids, use_cache=False)
    return seen[path].read


class TrainedRows:
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

    def __enter__(self) -> TrainedRows:
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
        with reading(self.model, [self.path]) as seen:
            self.tail = Tail(self.model, self.start, requests.ids, begin=self.begin, first=self.path)
        at = _at_ends(self.ends)  # of the latest pass
        self.read, self.wrote = seen[self.path].read[at], seen[self.path].said[at]

    def losses(self, loss: Loss, watch: Watch, step: int) -> torch.Tensor:
        """Mean loss of the target tokens of each group, ``[G]``."""
        logits = self.tail.logits(self.requests.keep[:, self.begin :])
        if watch is not None:
            with torch.no_grad():
                watch(step, self.alive, *evidence(logits, self.requests.targets)[:2], self.requests)
        return self.requests.mean(loss(logits, self.requests.targets))


def train_routed(
    rows: TrainedRows,
    parameter: nn.Parameter,
    change: Graft,
    recipe: Recipe,
    objective: Callable[[int], torch.Tensor],
    over: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    enough: float | None = None,
) -> tuple[torch.Tensor, set[int]]:
    """Minimises a loss of each problem over its own row of ``parameter``; a problem that is over does not change any more.

    Args:
        rows: hold the requests, whose groups are the problems; when half of them are over, the others are read again by
            themselves.
        change: ``(x, y) -> new y`` of the module at ``rows.path``.
        objective: steps done -> losses of the problems in ``rows.alive``.
        over, enough: see ``solve``.

    Returns:
        The parameter, each problem's row as it was when that problem ended; the problems whose loss or gradient became
        non-finite.
    """
    state = TrainState(nn.ParameterList([parameter]), recipe, local=True)
    found, failed = parameter.detach().clone(), set()

    def losses() -> torch.Tensor:
        with grafting(rows.model, {rows.path: change}):
            return objective(state.step)

    for end in solve(state, losses, over, rows.keep, share=0.5, enough=enough):
        found[end.problem] = parameter.detach()[end.row]
        if end.failed:
            failed.add(end.problem)
    return found, failed
