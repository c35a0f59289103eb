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
from engramlab.base.facts import NO_SPACE, Edit, Query
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

    def mean(self, losses: torch.Tensor, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Losses of target tokens ``[n]`` to losses ``[groups]``: mean over a row's tokens, then over a group's rows (of them
        those that ``rows`` indexes)."""
        each = self._average(losses, self.target_rows, len(self.ids))
        return self._average(each[rows], self.owner[rows], self.groups)

    @staticmethod
    def _average(values: torch.Tensor, into: torch.Tensor, count: int) -> torch.Tensor:
        sums = values.new_zeros(count).index_add(0, into, values)
        return sums / torch.bincount(into, minlength=count).clamp(min=1).to(values.dtype)

    def only(self, rows: torch.Tensor) -> Requests:
        """Only these rows (int64 indices, ascending); groups and width as they are."""
        new = torch.full((len(self.ids),), -1, device=rows.device).index_copy(
            0, rows, torch.arange(len(rows), device=rows.device)
        )
        of = new[self.target_rows] >= 0
        return Requests(
            self.ids[rows],
            self.keep[rows],
            self.targets[of],
            new[self.target_rows[of]],
            self.owner[rows],
            self.lengths[rows],
            self.prompt_ends[rows],
            self.subject_ends[rows],
            self.groups,
        )

    def select(self, groups: torch.Tensor, *, crop: bool = True) -> Requests:
        """Only these groups (int64 indices, ascending), renumbered from 0; rows cut to the longest that is left if ``crop``."""
        renumber = torch.full((self.groups,), -1, device=groups.device).index_copy(
            0, groups, torch.arange(len(groups), device=groups.device)
        )
        found = self.only((renumber[self.owner] >= 0).nonzero().squeeze(1))
        width = int(found.lengths.max()) if crop else self.ids.shape[1]
        cut = {"ids": found.ids[:, :width], "keep": found.keep[:, :width], "owner": renumber[found.owner]}
        return replace(found, **cut, groups=len(groups))


def name_of(edit: Edit) -> str:
    """How error messages call an edit."""
    return f"edit {edit.query.id or repr(edit.query.prompt)} -> {edit.target!r}"


def any_of(edit: Edit, targets: Sequence[str]) -> tuple[Edit, ...]:
    """Edits that give this one's prompt several answers, any of which is right: each names the others as aliases.

    So they contradict nothing (``benchmarks.contradictions``), and made together they are one step towards all of them: methods
    with a key a subject search one value for those that share it (``sharing``), under which the mean of the targets' losses is
    least. That is multi-label editing (MLE) of arXiv 2310.02129.
    """
    return tuple(
        replace(edit, target=one, aliases=tuple(other for other in targets if other != one)) for one in targets
    )


def of_passage(text: str, subject: str = "", id: str = "") -> Edit:
    """A text as an edit: behind its first word the model shall say the rest. So methods that train on targets read it whole
    (a first word has nothing before it that it could be predicted from).

    Raises:
        UserError: a text of less than two words.
    """
    first, _, rest = text.strip().partition(" ")
    if not rest.strip():
        raise UserError(
            f"passage {id or repr(text)}: has less than two words; there is nothing to learn behind the first"
        )
    return Edit(Query(first, "", id=id, subject=subject), rest.strip(), statement=text)


def statement_of(edit: Edit) -> str:
    """The edit as a text: its statement, or prompt and target; without a full stop at its end."""
    return (edit.statement or told(edit)).strip().rstrip(" .")


def told(edit: Edit) -> str:
    """Its question and its target as one text, without a chat template."""
    # In a template it may be that no space joins the target to what is before it; to the bare question one does.
    target = edit.target.removeprefix(NO_SPACE) if edit.query.said else edit.target
    return join(edit.query.question, target)[0]


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
        raise UserError(f"{name_of(edit)}: {lacking_subject(edit)}; give it exactly as it stands there")
    return found


def lacking_subject(edit: Edit) -> str:
    """What an edit lacks for a method that needs its subject: it has none, or its prompt does not quote it; "" for nothing."""
    prompt, subject = edit.query.prompt, edit.query.subject
    if not subject.strip():
        return f"no subject is given with the prompt {prompt!r}"
    return "" if find_last(prompt, subject) else f"the subject {subject!r} is not in the prompt {prompt!r}"


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
