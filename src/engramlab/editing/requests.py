"""Edits as token rows: where the prompt ends, where the subject ends, which positions predict the target.

Everything a method needs to know about positions is decided here, on the spans of ``core/text/tokens.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit
from engramlab.core.text.tokens import find_last, join, place, start_tokens, token_span


@dataclass(frozen=True)
class Requests:
    """Rows ``start tokens + [prefix] + prompt + target + stop`` without the last of these tokens, which nothing is predicted
    from. An edit's stop is learnt like the target, and meant where target tokens are spoken of.

    Attributes:
        ids: int64 ``[R, T]``, padded at the right (a causal model needs no mask for that).
        keep: bool ``[R, T]``: the positions that predict a target token.
        targets: int64 ``[n]``: the target tokens, in the row-major order of ``keep``.
        target_rows: int64 ``[n]``: the row of each.
        owner: int64 ``[R]``: which group of edits a row belongs to.
        lengths: int64 ``[R]``: tokens of each row.
        prompt_ends: int64 ``[R]``: index of the last prompt token. A lone space between prompt and target (many tokenizers cut
            " 1996" that way) is no part of the prompt: the model writes it, so it is a target token here.
        subject_ends: int64 ``[R]``: index of the last token of the subject; -1 where no subject was asked for.
        groups: number of groups.
    """

    __repr__ = brief

    ids: torch.Tensor
    keep: torch.Tensor
    targets: torch.Tensor
    target_rows: torch.Tensor
    owner: torch.Tensor
    lengths: torch.Tensor
    prompt_ends: torch.Tensor
    subject_ends: torch.Tensor
    groups: int

    def mean(self, losses: torch.Tensor) -> torch.Tensor:
        """Losses of target tokens ``[n]`` to losses ``[groups]``: mean over a row's tokens, then over a group's rows."""
        rows = self._average(losses, self.target_rows, len(self.ids))
        return self._average(rows, self.owner, self.groups)

    @staticmethod
    def _average(values: torch.Tensor, into: torch.Tensor, count: int) -> torch.Tensor:
        sums = values.new_zeros(count).index_add(0, into, values)
        return sums / torch.bincount(into, minlength=count).clamp(min=1).to(values.dtype)

    def select(self, groups: torch.Tensor, *, crop: bool = True) -> Requests:
        """Only these groups (int64 indices, ascending), renumbered from 0; rows cut to the longest that is left if ``crop``."""
        renumber = torch.full((self.groups,), -1, device=groups.device).index_copy(
            0, groups, torch.arange(len(groups), device=groups.device)
        )
        rows = (renumber[self.owner] >= 0).nonzero().squeeze(1)
        width = int(self.lengths[rows].max()) if crop else self.ids.shape[1]
        row_new = torch.full((len(self.ids),), -1, device=rows.device).index_copy(
            0, rows, torch.arange(len(rows), device=rows.device)
        )
        of = row_new[self.target_rows] >= 0
        return Requests(
            self.ids[rows, :width],
            self.keep[rows, :width],
            self.targets[of],
            row_new[self.target_rows[of]],
            renumber[self.owner[rows]],
            self.lengths[rows],
            self.prompt_ends[rows],
            self.subject_ends[rows],
            len(groups),
        )


def name_of(edit: Edit) -> str:
    """How error messages call an edit."""
    return f"edit {edit.query.id or repr(edit.query.prompt)} -> {edit.target!r}"


def spoken(edit: Edit) -> list[Edit]:
    """An edit in each of its wordings, its own prompt first."""
    if not edit.wordings:
        return [edit]
    bare = replace(edit, wordings=())
    return [bare, *(replace(bare, query=replace(edit.query, prompt=text)) for text in edit.wordings)]


def subject_span(edit: Edit) -> tuple[int, int]:
    """Characters of the subject in the edit's prompt, its last occurrence; raises UserError where it is not there."""
    prompt, subject = edit.query.prompt, edit.query.subject
    if not subject.strip():
        raise UserError(f"{name_of(edit)}: this method needs the subject; give it as the prompt quotes it")
    found = find_last(prompt, subject)
    if found is None:
        raise UserError(
            f"{name_of(edit)}: the subject {subject!r} is not in the prompt {prompt!r}; give it exactly as it stands there"
        )
    return found


def encode_edits(
    tokenizer: Any,
    groups: Sequence[Sequence[Edit]],
    *,
    prefixes: Sequence[str] = ("",),
    subjects: bool = False,
    device: torch.device | str = "cpu",
) -> Requests:
    """Token rows of edits, one a prefix, wording and edit: the wordings of an edit one after another.

    Args:
        groups: edits that are solved together; rows of group ``g`` have owner ``g``.
        prefixes: texts put before every prompt, joined by the space rule; "" for none.
        subjects: also find where the subject ends.

    Raises:
        UserError: a target without a token of its own, or (if asked for) a subject that is not in its prompt; names the edit.
    """
    texts: list[tuple[str, int, int, int]] = []
    subject_places: list[int] = []  # behind the subject's last character
    rows: list[tuple[int, Edit]] = []
    for group, edits in enumerate(groups):
        for edit in (one for whole in edits for one in spoken(whole)):
            subject_end = subject_span(edit)[1] if subjects else -1
            text, start, stop = join(edit.query.prompt, edit.target)
            text, stop = text + edit.stop, stop + len(edit.stop)
            for prefix in prefixes:
                whole, shift, _ = join(prefix, text)
                texts.append((whole, start + shift, stop + shift, len(edit.query.prompt) + shift))
                subject_places.append(subject_end + shift)
                rows.append((group, edit))
    placed = place(tokenizer, texts)
    first = start_tokens(tokenizer)
    width = max(0 if at is None else len(at.ids) for at in placed) + len(first) - 1
    table = torch.zeros(len(placed), max(1, width), dtype=torch.int64)
    keep = torch.zeros_like(table, dtype=torch.bool)
    targets: list[int] = []
    of: list[int] = []
    ends, subject_ends, lengths = [], [], []
    for r, (at, subject_end) in enumerate(zip(placed, subject_places, strict=True)):
        edit = rows[r][1]
        if at is None:
            raise UserError(f"{name_of(edit)}: the target {edit.target!r} has no token of its own; name something")
        a, b = at.begin, at.last
        if a + len(first) == 0:
            raise UserError(f"{name_of(edit)}: nothing stands before the target; give a prompt")
        inputs = (first + at.ids)[: len(first) + b - 1]
        table[r, : len(inputs)] = torch.tensor(inputs, dtype=torch.int64)
        keep[r, len(first) + a - 1 : len(first) + b - 1] = True
        targets += at.ids[a:b]
        of += [r] * (b - a)
        ends.append(len(first) + a - 1)
        lengths.append(len(inputs))
        subject_ends.append(len(first) + token_span(at.spans, subject_end - 1, subject_end)[0] if subjects else -1)
    return Requests(
        table.to(device),
        keep.to(device),
        torch.tensor(targets, device=device),
        torch.tensor(of, device=device),
        torch.tensor([group for group, _ in rows], device=device),
        torch.tensor(lengths, device=device),
        torch.tensor(ends, device=device),
        torch.tensor(subject_ends, device=device),
        len(groups),
    )


def sharing(tokenizer: Any, edits: Sequence[Edit]) -> list[list[int]]:
    """The edits, by number, in groups whose prompts are the same tokens up to the end of the subject: to a model that reads
    from left to right their subject is one and the same there, and so is what it recalls of it."""
    rows = encode_edits(tokenizer, [spoken(edit)[:1] for edit in edits], subjects=True)
    found: dict[tuple[int, ...], list[int]] = {}
    for i, end in enumerate(rows.subject_ends.tolist()):
        found.setdefault(tuple(rows.ids[i, : end + 1].tolist()), []).append(i)
    return list(found.values())
