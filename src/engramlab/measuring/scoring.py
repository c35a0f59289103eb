"""The span-scoring engine: log-probability, rank and greedy match of every target token, in as few passes as it takes.

Rows are sorted by length, batched by a token budget so that hardly any padding is computed, a beginning that many rows share is
read once, and the vocabulary projection runs at target positions only. The result is evidence per token; metrics are small
functions over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.progress import Progress
from engramlab.core import deltas
from engramlab.core.forward import prefixes
from engramlab.core.forward.decoding import Decoding, greedy
from engramlab.core.forward.generation import check_beside
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import shared_cache, target_seen
from engramlab.core.models import context_limit, mask_token
from engramlab.core.text.tokens import GAP, Sequences

_PLAIN = Decoding()
_PLACES = 4096  # rows of logits that early layers may add up to in a pass
#: Logits of a pass, at most: of running texts every token is scored, under vocabularies of hundreds of thousands.
_LOGITS = 1 << 29


@dataclass(frozen=True)
class Scores:
    """Evidence for each scored token, in the order of the rows and of the tokens in them.

    Attributes:
        logprobs: float32 ``[total]``: natural log-probability of the token after the true tokens before it.
        ranks: int32 ``[total]``: how many tokens of the vocabulary are strictly likelier (0 is best).
        greedy: bool ``[total]``: the token is what greedy decoding would choose (ties go to the lower token id).
        offsets: int64 ``[rows + 1]``: tokens of row ``i`` are ``offsets[i]:offsets[i + 1]``.
        marks: int8 ``[total]``: the marks of the tokens.
        predicted: int32 ``[total]``: the token that greedy decoding would choose.
    """

    __repr__ = brief

    logprobs: np.ndarray
    ranks: np.ndarray
    greedy: np.ndarray
    offsets: np.ndarray
    marks: np.ndarray
    predicted: np.ndarray

    def exact(self) -> np.ndarray:
        """bool ``[rows]``: every scored token of the row is the greedy choice.

        For a row of prompt, answer and end token this equals "greedy decoding writes exactly this answer and stops": by
        induction each greedy token extends the true prefix. Rows without scored tokens are False.
        """
        wrong = np.append(0, np.cumsum(~self.greedy))[self.offsets]
        return (np.diff(wrong) == 0) & (np.diff(self.offsets) > 0)

    def first(self) -> np.ndarray:
        """bool ``[rows]``: the row's first scored token that is not a ``GAP`` is the greedy choice; False without one."""
        solid = np.flatnonzero(self.marks != GAP)
        first = np.append(solid, len(self.marks))[np.searchsorted(solid, self.offsets[:-1])]
        return (first < self.offsets[1:]) & np.append(self.greedy, False)[first]

    def sum_logprob(self) -> np.ndarray:
        """float64 ``[rows]``: log-probability of all the row's scored tokens together; 0 for a row without any."""
        counts = np.diff(self.offsets)
        rows = np.repeat(np.arange(len(counts)), counts)
        return np.bincount(rows, self.logprobs.astype(np.float64), minlength=len(counts))  # -inf stays in its row

    def mean_logprob(self) -> np.ndarray:
        """float64 ``[rows]``: mean log-probability of the row's scored tokens; NaN for a row without any."""
        counts = np.diff(self.offsets)
        return np.divide(self.sum_logprob(), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def score(
    model: nn.Module,
    sequences: Sequences,
    *,
    decoding: Decoding | None = None,
    beside: Sequence[Sequences] = (),
    owner: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    budget: int = 16_384,
    progress: Progress | None = None,
) -> Scores:
    """Scores every token with a positive mark, given all true tokens before it in its row.

    A masked LM sees the whole row, with a mask token in the place of every token to be scored: all of them are named in one
    pass, none given another.

    Deltas on the model that decide something at the end of a prompt (``Delta.routed``) decide it there: what is to be scored
    stands in the input, but plays no part in their decision.

    Args:
        model: a causal or masked LM; it comes back in the mode it had.
        sequences: rows; a causal LM cannot score a row's first token.
        decoding: evidence is that of the distribution it takes tokens from; the model's own by default.
        beside: for decoders that compare: for each context they name, the same tokens to be scored, row by row, behind it.
        owner: int64 ``[rows]``: index of the delta (of ``deltas.together``) each row is scored under.
        ends: int64 ``[rows]``: position of each row's last prompt token; that before its first scored token by default.
        budget: most padded tokens a forward pass.
        progress: called with (rows done, rows in all).

    Raises:
        UserError: a row is longer than the model's context, or its first token is to be scored; a decoder that compares,
            without its contexts or with a masked LM.
        ValueError: another context before other tokens.
    """
    how = decoding or greedy.Config()
    check_beside(how, beside, len(sequences))
    named = dict(zip(how.beside, beside, strict=True))
    more = {"owner": owner, "ends": ends, "budget": budget, "progress": progress}
    return score_each(model, sequences, [how], beside=named, **more)[0]  # type: ignore[arg-type]


class _Union(Decoding):
    """Wants to see what any of several decoders does."""

    def __init__(self, several: Sequence[Decoding], model: nn.Module) -> None:
        self.wanted = {layer for one in several for layer in one.layers(model)}
        norms = {one.early_norm for one in several if one.layers(model)}
        if len(norms) > 1:
            raise ValueError("decoders that look behind the final norm, and others that do not, are scored apart")
        self.early_norm = norms.pop() if norms else True

    def layers(self, model: nn.Module) -> tuple[int, ...]:
        return tuple(sorted(self.wanted))


@torch.inference_mode()
def score_each(
    model: nn.Module,
    sequences: Sequences,
    decodings: Sequence[Decoding],
    *,
    beside: Mapping[str, Sequences] | None = None,
    owner: np.ndarray | None = None,
    ends: np.ndarray | None = None,
    budget: int = 16_384,
    progress: Progress | None = None,
) -> list[Scores]:
    """``score`` under several decoders, for which the model reads its rows once.

    Args:
        beside: by name the contexts that any of them compares with.
    """
    beside = beside or {}
    for how in decodings:
        check_beside(how, [beside[name] for name in how.beside if name in beside], len(sequences))
    union = _Union(decodings, model)
    layers = union.layers(model)
    hidden = mask_token(model)
    first = first_scored(model, sequences)
    if (beside or layers) and hidden is not None:
        what = "other contexts" if beside else "early layers"
        raise UserError(f"a masked language model is scored without {what}; choose another decoder")
    lasts = {name: np.minimum(first_scored(model, others), others.lengths) - 1 for name, others in beside.items()}
    for others in beside.values():
        if not np.array_equal(sequences.ids[sequences.marks > 0], others.ids[others.marks > 0]):
            raise ValueError("another context stands before other tokens than the first")
    wanted = sequences.marks > 0
    total = int(wanted.sum())
    found = [(np.empty(total, np.float32), np.empty(total, np.int32), np.empty(total, np.int32)) for _ in decodings]
    counts = np.concatenate([[0], np.cumsum(wanted)])
    device = next(model.parameters()).device
    budget //= 1 + len(layers)
    scored = np.diff(counts[sequences.offsets])
    most = max(2, _PLACES // (1 + len(layers)) // max(1, int(scored.max(initial=1)))) if layers else None
    config: Any = model.config
    room = _LOGITS // config.get_text_config().vocab_size
    stops = np.minimum(first, sequences.lengths) - 1 if ends is None else np.asarray(ends, dtype=np.int64)
    share = hidden is None and not deltas.routed(model)
    done, a_pass = 0, prefixes.a_pass(device)
    with mode(model, False):
        for rows, shared in prefixes.batches(
            sequences, first, budget, owner=owner, share=share, most=most, places=scored, room=room, cost=a_pass
        ):
            tokens, goals, inside, at = _padded(sequences, rows, device)
            if hidden is None:
                read, keep, seen = tokens[:, :-1], goals[:, 1:], None
            else:
                read, keep, seen = tokens.masked_fill(goals, hidden), goals, inside
            if keep.any():
                at_end = torch.from_numpy(stops[rows]).to(device)
                under = None if owner is None else torch.from_numpy(owner[rows]).to(device)
                cache = None
                if shared:
                    with deltas.routing(model, at_end[:1], None if under is None else under[:1]):
                        cache = shared_cache(model, read[:1, :shared], len(read))
                if cache is not None:
                    read, keep, at_end = read[:, shared:], keep[:, shared:], at_end - shared
                with deltas.routing(model, at_end, under):
                    said = target_seen(model, read, keep, seen, cache=cache, decoding=union)
                streams = {}
                for name, others in beside.items():
                    ids, their_goals, _, _ = _padded(others, rows, device)
                    their_end = torch.from_numpy(lasts[name][rows]).to(device)
                    alike = share and (owner is None or shared > 0)  # rows of one owner
                    common = _common(ids, int(lasts[name][rows].min())) if alike else 0
                    cache = None
                    if common * (len(rows) - 1) > a_pass:
                        with deltas.routing(model, their_end[:1], None if under is None else under[:1]):
                            cache = shared_cache(model, ids[:1, :common], len(ids))
                    common = 0 if cache is None else common
                    with deltas.routing(model, their_end - common, under):
                        ids, their_goals = ids[:, common:-1], their_goals[:, common + 1 :]
                        streams[name] = target_seen(model, ids, their_goals, cache=cache).logits
                if hidden is None and any(how.reads_text for how in decodings):
                    said = replace(said, before=_before(tokens, goals))
                into = counts[at][wanted[at]]
                for how, columns in zip(decodings, found, strict=True):
                    early = {layer: said.early[layer] for layer in how.layers(model)}
                    own = replace(said, early=early, beside=tuple(streams[name] for name in how.beside))
                    scores = how.scores(own)
                    logprob, rank, likeliest = evidence(scores, tokens[goals], how)
                    if how.penalty != 1:
                        likeliest = how.likeliest(own, scores).int()
                    for column, values in zip(columns, (logprob, rank, likeliest), strict=True):
                        column[into] = values.cpu().numpy()
            done += len(rows)
            if progress:
                progress(done, len(sequences))
    marks, offsets = sequences.marks[wanted], counts[sequences.offsets]
    return [
        Scores(logprobs, ranks, predicted == sequences.ids[wanted], offsets, marks, predicted)
        for logprobs, ranks, predicted in found
    ]


def _common(ids: torch.Tensor, most: int) -> int:
    """How many tokens, ``most`` at most, all rows begin with."""
    different = (ids[:, :most] != ids[:1, :most]).any(0).nonzero()
    return int(different[0]) if len(different) else most


def _before(tokens: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """int64 ``[n, T]``: the tokens before each goal, in row-major order, padded at the left with -1."""
    rows, columns = goals.nonzero(as_tuple=True)
    width = int(columns.max())
    at = columns[:, None] - width + torch.arange(width, device=tokens.device)
    return tokens[rows[:, None], at.clamp(min=0)].masked_fill(at < 0, -1)


def first_scored(model: nn.Module, sequences: Sequences) -> np.ndarray:
    """int64 ``[rows]``: position of each row's first token to be scored, beyond all where there is none.

    Raises:
        UserError: it has nothing before it, or the row does not fit the model.
    """
    wanted = sequences.marks > 0
    if mask_token(model) is None and len(sequences) and wanted[sequences.offsets[:-1][sequences.lengths > 0]].any():
        raise UserError("the first token of a text cannot be scored: nothing stands before it (use a start token)")
    limit = context_limit(model)
    if limit and len(sequences) and int(sequences.lengths.max()) > limit:
        row = int(sequences.lengths.argmax())
        raise UserError(f"text {row} has {int(sequences.lengths[row])} tokens; the model's context is {limit}")
    first = np.full(len(sequences), np.iinfo(np.int64).max)  # rows without a scored token share what they like
    of = np.repeat(np.arange(len(sequences)), sequences.lengths)[wanted]
    np.minimum.at(first, of, np.flatnonzero(wanted) - sequences.offsets[of])
    return first


def _padded(
    sequences: Sequences, rows: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    """Some rows side by side, padded at the right, ``[rows, longest]``: ids, which are to be scored, which are no padding; and
    where in ``sequences.ids`` the tokens come from, in row-major order."""
    lengths = sequences.lengths[rows]
    width = int(lengths.max())
    inside = np.arange(width) < lengths[:, None]
    at = (sequences.offsets[:-1][rows][:, None] + np.arange(width))[inside]
    ids = np.zeros((len(rows), width), dtype=np.int64)
    ids[inside] = sequences.ids[at]
    scored = np.zeros((len(rows), width), dtype=bool)
    scored[inside] = sequences.marks[at] > 0
    tokens, goals, real = (torch.from_numpy(table).to(device) for table in (ids, scored, inside))
    return tokens, goals, real, at


def evidence(
    logits: torch.Tensor, targets: torch.Tensor, decoding: Decoding = _PLAIN, chunk: int = 1 << 25
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probability, rank and the likeliest token ``[n]`` at each target ``[n]`` under ``logits[n, V]``; see ``Scores``.

    Args:
        decoding: whose scores they are; a model's own logits by default.
        chunk: logits looked at at a time, so that float32 copies stay small.
    """
    parts = []
    rows = max(1, chunk // logits.shape[-1])
    for part, goal in zip(logits.split(rows), targets.split(rows), strict=True):
        part = part.float()
        chosen = part.gather(-1, goal[:, None])
        logprob = chosen.squeeze(-1) - decoding.mass(part)
        rank = (part > chosen).sum(-1, dtype=torch.int32)
        parts.append((logprob, rank, part.argmax(-1).int()))
    a, b, c = (torch.cat(column) for column in zip(*parts, strict=True))
    return a, b, c


def nats(model: nn.Module, rows: Sequences, start: Sequence[int]) -> float:
    """Mean negative log-probability of the tokens of running texts, in nats; with nothing before it a text's first is not
    predicted.

    Args:
        rows: the texts; their marks play no part.
        start: tokens put before each.
    """
    wrapped = Sequences(rows.ids, rows.offsets, np.ones(len(rows.ids), np.int8)).wrapped(start, [])
    marks = wrapped.marks.copy()
    marks[wrapped.offsets[:-1]] = 0
    return -float(score(model, Sequences(wrapped.ids, wrapped.offsets, marks)).logprobs.astype(np.float64).mean())
