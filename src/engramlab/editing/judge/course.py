"""The course of edits, token by token: every target token's log-probability, rank and loss before each step and at the end.

    followed = Course(tokenizer, loss, len(cases))
    deltas = method.make_each(model, tokenizer, cases, method="ft-m", loss=followed.loss, watch=followed.watch)
    followed.finish(model, cases, deltas)

Then ``followed.rows`` is the course, and ``loss_spread`` says how unevenly it ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit
from engramlab.core.deltas import Delta, routing, together
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import target_seen
from engramlab.core.training.losses import Loss, cross_entropy
from engramlab.editing.requests import Requests, encode_edits
from engramlab.measuring.asking import TokenTexts
from engramlab.measuring.scoring import evidence


@dataclass
class _Seen:
    """One look at the batch; every array has one entry a target token."""

    step: int  # -1 when all is done
    case: np.ndarray
    edit: np.ndarray  # its number in the case
    token: np.ndarray  # its number in the target
    ids: np.ndarray
    logprobs: np.ndarray
    ranks: np.ndarray
    losses: np.ndarray


class Course:
    """Follows a method's descent through the two things it is given: ``watch``, and the ``loss`` that it calls right after.

    A case whose tokens are all clipped has no gradient any more: its edit is over, and what its rows do while they are still in
    the batch is not written down.

    Args:
        loss: what is minimised.
        cases: how many are edited, one a group of the requests.
    """

    def __init__(self, tokenizer: Any, loss: Loss, cases: int) -> None:
        self.tokenizer, self._loss, self.cases = tokenizer, loss, cases
        self._clip = float(getattr(loss, "clip", 0.0))
        self._seen: list[_Seen] = []
        self._final: list[_Seen] = []
        self._last: dict[int, int] = {}  # by case, the last step that was taken
        self._over: set[int] = set()
        self._open = False

    def watch(
        self, step: int, alive: torch.Tensor, logprobs: torch.Tensor, ranks: torch.Tensor, requests: Requests
    ) -> None:
        """See ``method.Watch``; raises UserError for a method that makes several problems of one case."""
        if not self._seen and len(alive) != self.cases:
            raise UserError(
                f"the course of these edits cannot be followed: the method makes {len(alive)} problems of {self.cases} cases; "
                "take cases of one edit each"
            )
        self._seen.append(_look(step, alive, logprobs, ranks, requests))
        self._open = True

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss itself; what it says is written down."""
        losses = self._loss(logits, targets)
        if self._open:
            seen, self._open = self._seen[-1], False
            seen.losses = losses.detach().float().cpu().numpy()
            for case in set(seen.case.tolist()) - self._over:
                self._last[case] = seen.step
                if self._clip > 0 and bool((seen.losses[seen.case == case] <= self._clip).all()):
                    self._over.add(case)
        return losses

    @torch.no_grad()
    def finish(
        self, model: nn.Module, cases: Sequence[Sequence[Edit]], deltas: Sequence[Delta], numbers: Sequence[int] = ()
    ) -> None:
        """Writes down the tokens as they are under the finished deltas.

        Args:
            cases: those whose edit was made.
            deltas: one a case.
            numbers: which of the edited cases these are; all by default.
        """
        requests = encode_edits(self.tokenizer, cases, device=next(model.parameters()).device)
        with mode(model, False), together(model, deltas), routing(model, requests.prompt_ends, requests.owner):
            logits = target_seen(model, requests.ids, requests.keep).logits
        _, ranks, _ = evidence(logits, requests.targets)
        alive = torch.tensor(list(numbers or range(len(cases))))
        seen = _look(-1, alive, -cross_entropy(logits, requests.targets), ranks, requests)
        seen.losses = self._loss(logits, requests.targets).float().cpu().numpy()
        self._final = [seen]

    def rows(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """One row a case that was finished, edit, step and target token.

        ``case`` (id), ``edit`` (its number in the case), ``step`` (steps done; the last is after the edit), ``token`` (its
        number in the target, a lone space before the answer included), ``text``, ``logprob`` (nats), ``rank`` (how many tokens
        are likelier), ``loss`` (as the descent was given it), ``final`` (is it after the last step?).

        Args:
            ids: of all cases that were edited.
        """
        words = TokenTexts(self.tokenizer)
        finished = {case for seen in self._final for case in seen.case.tolist()}
        found = []
        for seen in [*self._seen, *self._final]:
            final = seen.step < 0
            for i, text in enumerate(words(seen.ids.tolist())):
                case = int(seen.case[i])
                if case not in finished or seen.step > self._last[case]:
                    continue
                row = {"case": ids[case], "edit": int(seen.edit[i])}
                row |= {"step": self._last[case] + 1 if final else seen.step, "token": int(seen.token[i]), "text": text}
                row |= {"logprob": round(float(seen.logprobs[i]), 5), "rank": int(seen.ranks[i])}
                found.append(row | {"loss": round(float(seen.losses[i]), 5), "final": final})
        return found


def _look(step: int, alive: torch.Tensor, logprobs: torch.Tensor, ranks: torch.Tensor, requests: Requests) -> _Seen:
    target_rows = requests.target_rows.cpu().numpy()
    owner = requests.owner.cpu().numpy()
    nth = np.array([int((owner[:r] == owner[r]).sum()) for r in range(len(owner))])
    first = np.searchsorted(target_rows, target_rows)  # where each token's row begins
    ids = requests.targets.cpu().numpy()
    return _Seen(
        step,
        alive.cpu().numpy()[owner[target_rows]],
        nth[target_rows],
        np.arange(len(target_rows)) - first,
        ids,
        logprobs.detach().float().cpu().numpy(),
        ranks.detach().cpu().numpy(),
        np.full(len(ids), np.nan),
    )


def loss_spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """How unevenly the tokens of an edit are learnt in the end, of the rows of ``Course.rows``.

    Returns:
        ``final_loss_spread``: mean, over edits with at least two target tokens, of the largest minus the smallest negative
        log-probability after the last step (nats; None without such an edit); ``final_loss``: mean over all target tokens.
    """
    by_edit: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["final"]:
            by_edit.setdefault((row["case"], row["edit"]), []).append(-row["logprob"])
    spreads = [max(values) - min(values) for values in by_edit.values() if len(values) > 1]
    every = [value for values in by_edit.values() for value in values]
    return {
        "final_loss_spread": float(np.mean(spreads)) if spreads else None,
        "final_loss": float(np.mean(every)) if every else None,
    }


#: Target lengths that are told apart, in tokens: the first and the last of each.
LENGTHS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 10**9))


def spread_by_length(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """``loss_spread`` by how many tokens an edit's target has: only where they end unevenly can a loss do something about it.

    Args:
        rows: of ``Course.rows``.
        seed: of the bootstrap over edits.

    Returns:
        A row for each of ``LENGTHS`` that has edits: ``shortest``, ``longest``, ``edits``, ``cases`` (their ids),
        ``start_spread`` (before the first step), ``final_loss_spread`` with ``low`` and ``high`` (95 %), ``final_loss``; nats.
    """
    ends: dict[tuple[str, int], list[float]] = {}
    starts: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        edit = (row["case"], row["edit"])
        if row["final"]:
            ends.setdefault(edit, []).append(-row["logprob"])
        elif row["step"] == 0:
            starts.setdefault(edit, []).append(-row["logprob"])
    found = []
    for shortest, longest in LENGTHS:
        edits = [edit for edit, values in ends.items() if shortest <= len(values) <= longest]
        if not edits:
            continue
        spreads = np.array([max(ends[edit]) - min(ends[edit]) for edit in edits])
        cloud = bootstrap.times(bootstrap.draws(len(edits), 2000, seed)) @ spreads / len(edits)
        low, high = bootstrap.interval(cloud)
        begun = [max(starts[edit]) - min(starts[edit]) for edit in edits if edit in starts]
        found.append(
            {
                "shortest": shortest,
                "longest": max(len(ends[edit]) for edit in edits),
                "edits": len(edits),
                "cases": sorted({case for case, _ in edits}),
                "start_spread": float(np.mean(begun)) if begun else None,
                "final_loss_spread": float(spreads.mean()),
                "low": low,
                "high": high,
                "final_loss": float(np.mean([value for edit in edits for value in ends[edit]])),
            }
        )
    return found
