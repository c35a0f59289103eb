"""What an edit did: every query before and after it, under two protocols that are never mixed.

- **teacher-forced**: for reliability, generality and portability the share of the target's tokens that are the argmax given
  the prompt and the true tokens before them; for locality the share of the target's positions whose argmax is what it was
  before the edit, right or wrong. Over the target alone, as published tables have it: aliases play no part. A lone space
  token between prompt and target is none of the target's.
- **generated**: the model writes freely (greedily, to the end of a line or ``new_tokens`` tokens; as far as the longest right
  answer of the prompt where that has several lines or more tokens); for reliability, generality
  and portability what it wrote must begin with the target or an alias (``answers.is_answer``; where the benchmark says within
  how many tokens, hold one), for locality it must be what it wrote before the edit.

A query is judged under its own case's delta (single edits: many cases in one batch, ``deltas.together``) or under whatever is
on the model (continual and batch edits). Routed deltas decide at the end of the prompt, before any target token is read.
Dropout is off. What the unedited model says is computed once, by ``before``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Query
from engramlab.base.progress import Progress
from engramlab.base.rows import OVERRULED, Row
from engramlab.core.deltas import Delta, together
from engramlab.editing.judge.metrics import difference, fluency, metrics, right, unedited
from engramlab.editing.requests import statement_of, told
from engramlab.measuring.answers import is_answer, normalise, same_answer
from engramlab.measuring.asking import (
    MOST_NEW_TOKENS,
    Evidence,
    Room,
    TokenTexts,
    as_read,
    contexts,
    evidence_on,
    lengths_of,
    rooms,
    write,
)

__all__ = [
    "Before",
    "Evidence",
    "Row",
    "before",
    "difference",
    "enough_tokens",
    "fluency",
    "is_answer",
    "judge",
    "metrics",
    "normalise",
    "queries_of",
    "same_answer",
    "unedited",
]


@dataclass(frozen=True)
class Before:
    """What the unedited model says to every query.

    Attributes:
        new_tokens: most tokens that were, and after an edit will be, written.
        rooms: by prompt, where its right answers need more.
        written: by prompt, what it wrote.
        evidence: by prompt and target (as the query has it: "" for none).
    """

    __repr__ = brief

    new_tokens: int
    written: dict[str, str] = field(default_factory=dict)
    evidence: dict[tuple[str, str], Evidence] = field(default_factory=dict)
    rooms: dict[str, Room] = field(default_factory=dict)

    def room(self, query: Query) -> Room:
        """How much may be written after a query's prompt."""
        return self.rooms.get(query.prompt, Room(self.new_tokens))

    def rows(self) -> list[Row]:
        """The same as rows fit for JSON or Parquet."""
        return [
            {"prompt": p, "asked": t, "written": self.written[p], "new_tokens": self.new_tokens}
            | {"room": asdict(self.rooms[p]) if p in self.rooms else None}
            | {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(e).items()}
            for (p, t), e in self.evidence.items()
        ]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Before:
        """From what ``rows`` gave."""
        found, new_tokens = cls(0), 0
        for row in rows:
            new_tokens = int(row["new_tokens"])
            found.written[row["prompt"]] = row["written"]
            parts = {name: tuple(row[name]) for name in ("tokens", "logprobs", "ranks", "predicted")}
            found.evidence[row["prompt"], row["asked"]] = Evidence(row["target"], **parts)
            if row.get("room"):  # runs made before there were rooms have none
                found.rooms[row["prompt"]] = Room(**row["room"])
        return cls(new_tokens, found.written, found.evidence, found.rooms)

    def target(self, query: Query) -> str:
        """What is scored for a query; raises UserError if the unedited model was not asked it."""
        try:
            return self.evidence[query.prompt, query.target].target
        except KeyError:
            raise UserError(
                f"query {query.id or query.prompt!r}: the unedited model was not asked this; the answers before the edits "
                "belong to other cases"
            ) from None


def queries_of(case: Case) -> list[Query]:
    """Everything a case is judged by: one reliability query an edit that is to hold (its prompt and new answer), then its
    judges. An edit that a later one overrules is asked as ``overruled``, which is in no share."""
    made = [
        Query(
            edit.query.prompt,
            edit.target,
            edit.aliases,
            id=edit.query.id,
            subject=edit.query.subject,
            relation=edit.query.relation,
            role=OVERRULED if case.ordered and edit is not case.edits[-1] else "reliability",
            said=edit.query.said,
        )
        for edit in case.edits
    ]
    return made + [judge for edit in case.edits for judge in edit.judges]


def enough_tokens(tokenizer: Any, cases: Sequence[Case]) -> int:
    """New tokens that hold the longest answer or alias of the cases and two more, but at most 24.

    What is written beyond the answer cannot make it wrong, but costs a pass a token; sentences as answers would cost hundreds.
    """
    lengths = lengths_of(tokenizer, [query for case in cases for query in queries_of(case)])
    return min(MOST_NEW_TOKENS, max(lengths.values(), default=0) + 2)


def before(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[Case],
    *,
    new_tokens: int | None = None,
    least: int = 0,
    progress: Progress | None = None,
) -> Before:
    """What the model says now, to be asked before any edit; equal queries of different cases are asked once.

    Args:
        new_tokens: most tokens to write after a prompt; by default ``enough_tokens``, and more after those with longer answers.
        least: no fewer than so many.
        progress: called with (prompts and targets done, how many in all).

    Raises:
        UserError: a target without a token of its own, or a prompt too long for the model (names it).
    """
    queries = list({(q.prompt, q.target): q for case in cases for q in queries_of(case)}.values())
    for query in queries:
        if not query.target.strip() and not _open(query):
            raise UserError(f"query {query.id or query.prompt!r} ({query.role}): its target is blank; give the answer")
    most = max(least, enough_tokens(tokenizer, cases) if new_tokens is None else new_tokens)
    needed = rooms(tokenizer, queries, most, grows=new_tokens is None)
    prompts = list(dict.fromkeys(query.prompt for query in queries))
    report = _report(progress, len(prompts) + len(queries))
    texts = as_read(model, tokenizer, prompts)
    room = [needed.get(prompt, Room(most)) for prompt in prompts]
    written = dict(zip(prompts, write(model, tokenizer, texts, room, None, report(0)), strict=True))
    targets = [written[q.prompt] if _open(q) else q.target for q in queries]
    reads = dict(zip(prompts, texts, strict=True))
    asked = [Query(reads[q.prompt], t, id=q.id) for q, t in zip(queries, targets, strict=True)]
    found = evidence_on(model, tokenizer, asked, None, report(len(prompts)))
    return Before(most, written, {(q.prompt, q.target): e for q, e in zip(queries, found, strict=True)}, needed)


def judge(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[Case],
    before: Before,
    *,
    deltas: Sequence[Delta] | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Asks every query of every case, and compares with what was said before the edits.

    Args:
        before: from ``before`` with at least these cases; it also says how many tokens may be written, since a text can only be
            compared with one of equal length.
        deltas: one a case: its queries are judged under it. None: all are judged under what is on the model.
        progress: called with (prompts and targets done, how many in all).

    Returns:
        One row a query, in the order of the cases and of ``queries_of``: ``case`` (id), ``query`` (its number in the case),
        ``role``, ``group`` (kind), ``prompt``, ``target``, ``aliases``; ``said`` where the prompt is that in a chat template,
        ``within`` where the answer may stand anywhere in so many tokens; ``teacher_forced`` (0 to 1; None where there is
        nothing to score: a locality query without an answer to which the unedited model wrote nothing); ``generated`` (0.0 or
        1.0; None where no answer fits into the room for it);
        under deltas that put notes before a prompt ``bare`` (nothing was put) and ``recalled`` (an edit of the case was);
        ``written_before``, ``written_after``; and, one entry a target token, ``tokens`` (text), and ``logprobs``, ``ranks``,
        ``greedy`` and ``predicted`` (text of the likeliest token), each with ``_before`` and ``_after``.

    Raises:
        UserError: a query that ``before`` does not know, a prompt too long for the model.
        ValueError: not one delta a case.
    """
    if deltas is not None and len(deltas) != len(cases):
        raise ValueError(f"{len(deltas)} deltas for {len(cases)} cases")
    listed = [(c, k, query) for c, case in enumerate(cases) for k, query in enumerate(queries_of(case))]
    # By owner, prompt as it is read, and target: cases without deltas of their own share what they ask.
    owned = list(dict.fromkeys((0 if deltas is None else c, query.prompt) for c, _, query in listed))
    own = None if deltas is None else [deltas[c] for c, _ in owned]
    reads = dict(zip(owned, as_read(model, tokenizer, [prompt for _, prompt in owned], own), strict=True))
    keys: list[tuple[int, str, str]] = []
    for c, _, query in listed:
        owner = 0 if deltas is None else c
        keys.append((owner, reads[owner, query.prompt], before.target(query)))
    noted = any(delta.reads == "notes" for delta in (*contexts(model), *(deltas or ())))
    prompts, targets = list(dict.fromkeys(key[:2] for key in keys)), list(dict.fromkeys(keys))
    room = {key[:2]: before.room(query) for key, (_, _, query) in zip(keys, listed, strict=True)}
    report = _report(progress, len(prompts) + len(targets))
    owners: list[np.ndarray | None] = [None, None]
    if deltas is not None:
        owners = [np.array([key[0] for key in of], dtype=np.int64) for of in (prompts, targets)]
    with contextlib.nullcontext() if deltas is None else together(model, deltas):
        texts = write(model, tokenizer, [p for _, p in prompts], [room[p] for p in prompts], owners[0], report(0))
        asked = [Query(prompt, target) for _, prompt, target in targets]
        evidence = evidence_on(model, tokenizer, asked, owners[1], report(len(prompts)))
    written, found = dict(zip(prompts, texts, strict=True)), dict(zip(targets, evidence, strict=True))
    lengths = lengths_of(tokenizer, [query for _, _, query in listed])
    words = TokenTexts(tokenizer)
    return [
        {"case": cases[c].id, "query": k, "role": query.role, "group": query.group, "prompt": query.prompt}
        | {"target": query.target, "aliases": list(query.aliases)}
        | (_reading(cases[c], query, key[1]) if noted else {})
        | _compared(query, before, found[key], written[key[:2]], lengths, words)
        for (c, k, query), key in zip(listed, keys, strict=True)
    ]


def _reading(case: Case, query: Query, text: str) -> Row:
    """Of what was read: was it the bare prompt, and did an edit of the case stand before it?"""
    stated = {statement_of(edit) for edit in case.edits} | set(map(told, case.edits))
    before = text[: text.rfind(query.question)]
    return {"bare": text == query.prompt, "recalled": any(one in before for one in stated)}


def _compared(
    query: Query, before: Before, after: Evidence, written: str, lengths: Mapping[str, int], words: TokenTexts
) -> Row:
    """The part of a row that compares."""
    was, said = before.evidence[query.prompt, query.target], before.written[query.prompt]
    generated: float | None
    counted = {name: value for name, value in (("said", query.said), ("within", query.within)) if value}
    if query.role == "locality":
        forced = _share_alike(was, after)
        generated = float(same_answer(said, written))
    else:
        forced = float(np.mean(after.greedy)) if after.tokens else None
        fit = [a for a in (query.target, *query.aliases) if lengths[a] <= before.room(query).tokens]
        about = {**counted, "target": fit[0], "aliases": fit[1:], "written_after": written} if fit else {}
        generated = float(right(about, "after")) if fit else None
    return {
        **counted,
        "teacher_forced": forced,
        "generated": generated,
        "written_before": said,
        "written_after": written,
        "tokens": words(after.tokens),
        **{f"logprobs_{when}": list(e.logprobs) for when, e in (("before", was), ("after", after))},
        **{f"ranks_{when}": list(e.ranks) for when, e in (("before", was), ("after", after))},
        **{f"greedy_{when}": e.greedy for when, e in (("before", was), ("after", after))},
        **{f"predicted_{when}": words(e.predicted) for when, e in (("before", was), ("after", after))},
    }


def _share_alike(was: Evidence, now: Evidence) -> float | None:
    """Share of positions with the same likeliest token; a context can in principle cut the target into other tokens, and what
    has no counterpart is not alike."""
    if not was.tokens or not now.tokens:
        return None
    alike = sum(a == b for a, b in zip(was.predicted, now.predicted, strict=False))
    return alike / max(len(was.predicted), len(now.predicted))


def _open(query: Query) -> bool:
    """Has the benchmark no answer to it, so that only sameness with the unedited model counts?"""
    return query.role == "locality" and not query.target.strip()


def _report(progress: Progress | None, total: int) -> Callable[[int], Progress | None]:
    """The progress of a part that begins after so many things done."""
    return lambda start: None if progress is None else lambda done, _: progress(start + done, total)
