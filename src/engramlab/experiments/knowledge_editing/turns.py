"""Judging a long sequence of edits honestly: a sample of all ages, what was never edited, and what became of the model.

Everything that is asked is chosen before the run by the seed, so that no method and no count decides it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.facts import Case, Edit, Query
from engramlab.base.random_access import key, permute, random_words
from engramlab.base.rows import Row
from engramlab.core import deltas
from engramlab.corpora.facts.rewording import relation_of
from engramlab.editing import benchmarks
from engramlab.editing.cases import judged_together, known_groups, superseded, unjudged
from engramlab.editing.judge import evaluation
from engramlab.editing.judge.beyond import nats
from engramlab.editing.judge.evaluation import Before
from engramlab.editing.judge.metrics import right
from engramlab.measuring.answers import is_answer, same_answer
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, as_read, write
from engramlab.measuring.audit.classes import kept

AGES = 10


@dataclass(frozen=True)
class Asked:
    """What is asked after some edits: cases, and of each (by id) what it is: the columns that its rows get."""

    cases: list[Case]
    about: dict[str, Row]
    newest: dict[str, tuple[str, ...]]
    """Of an edit that a later one took the place of, by case: the answers that hold now."""


@dataclass(frozen=True)
class Plan:
    """What the sequence is asked about.

    Attributes:
        cases: all that are edited, in the order in which they are.
        sample: how many of them are judged at a time.
        twins: cases that are never edited, without judges.
        natives: questions of role "locality" that the unedited model answers right.
        unknown: questions of the same kind that it answers wrong.
        texts: running text.
        asides: are edits asked negated and the other way round too?
    """

    cases: Sequence[Case]
    sample: int
    seed: int
    twins: Sequence[Case] = ()
    natives: Sequence[Query] = ()
    unknown: Sequence[Query] = ()
    texts: Sequence[str] = ()
    asides: bool = False
    order: Sequence[int] = ()
    """Where the cases are edited in another order than they come in (see ``shuffled``): which of them is at each place."""

    def chosen(self, count: int) -> list[int]:
        """The cases judged after ``count`` edits, by their places: evenly over tenths of the age that they have in the order
        they come in, those first in an order that no count changes. In any other order they are the same cases."""
        order = random_words(key(self.seed, "turns sample"), np.arange(count)).argsort(kind="stable")
        ages = Counter[int]()
        size = max(1, math.ceil(self.sample / min(AGES, count)))
        found: list[int] = []
        for i in order.tolist():
            if len(found) < self.sample and ages[age_of(i, count)] < size:
                ages[age_of(i, count)] += 1
                found.append(i)
        place = {case: at for at, case in enumerate(self.order)}
        return [place.get(i, i) for i in sorted(found)]

    def asked(self, count: int) -> Asked:
        """What is asked after ``count`` edits."""
        made = judged_together(self.cases[:count])
        gone = superseded(made)
        about: dict[str, Row] = {}
        live: list[Case] = []
        old: list[Case] = []
        for i in self.chosen(count):
            case = aside(made[i]) if self.asides else made[i]
            about[case.id] = {"part": "overwritten" if i in gone else "edited", "age": age_of(i, count)}
            (old if i in gone else live).append(unjudged(case) if i in gone else case)
        natives = self._unedited(self.natives, count)
        for k in range(min(len(live), len(natives))):
            first, *rest = live[k].edits
            mine = tuple(islice(natives, k, None, len(live)))
            live[k] = replace(live[k], edits=(replace(first, judges=(*first.judges, *mine)), *rest))
        about |= {case.id: {"part": "twin", "age": 0} for case in self.twins}
        return Asked([*live, *old, *self.twins], about, {made[i].id: answers for i, answers in gone.items()})

    def _unedited(self, queries: Sequence[Query], count: int) -> list[Query]:
        """Those that no edit so far is about."""
        edited = {name for c in self.cases[:count] for edit in c.edits for name in (edit.query.id, edit.query.prompt)}
        return [query for query in queries if query.id not in edited and query.prompt not in edited]

    def standing(self, count: int) -> list[Case]:
        """The cases judged after ``count`` edits whose edits are to hold then."""
        asked = self.asked(count)
        return [case for case in asked.cases if asked.about[case.id]["part"] == "edited"]

    def everything(self, counts: Sequence[int]) -> list[Case]:
        """What is asked at all: of the unedited model too."""
        return [case for count in counts for case in self.asked(count).cases]

    def judge(self, model: nn.Module, tokenizer: Any, before: Before, count: int) -> tuple[list[Row], Row]:
        """The rows after ``count`` edits, and what became of the model."""
        asked = self.asked(count)
        rows = evaluation.judge(model, tokenizer, asked.cases, before)
        for row in rows:
            row |= asked.about[row["case"]]
            row["right_before"] = float(right(row, "before"))
            row["same"] = float(same_answer(row["written_before"], row["written_after"]))
            answers = asked.newest.get(row["case"])
            row["newest"] = (
                None if answers is None else float(is_answer(row["written_after"], answers, row.get("said", "")))
            )
        norms = grown(model)
        room = {q.prompt: before.room(q).tokens for case in asked.cases for q in evaluation.queries_of(case)}
        return rows, {
            "edits": count,
            "nats": nats(model, tokenizer, self.texts),
            "norm": max(norms.values(), default=None),
            "norms": norms,
            "facts": moved(model, tokenizer, rows, self._unedited(self.unknown, count)),
            **{when: outputs(tokenizer, rows, f"written_{when}", room) for when in ("before", "after")},
        }


def shuffled(cases: Sequence[Case], counts: Sequence[int], seed: int) -> list[int]:
    """Another order of the same edits: the number of the case at each place.

    After each of ``counts`` cases the same ones have been edited as in the order they come in, and of those that speak of one
    prompt the same is the last: what is to hold does not hang on the order.
    """
    ends = sorted({0, *(min(count, len(cases)) for count in counts), len(cases)})
    order: list[int] = []
    for start, end in pairwise(ends):
        order += (start + permute(key(seed, "turns order", start), range(end - start), end - start)).tolist()
    groups: dict[int, list[int]] = {}
    for at, group in enumerate(_of_one_prompt([cases[i] for i in order])):
        groups.setdefault(group, []).append(at)
    for places in groups.values():
        for at, i in zip(places, sorted(order[at] for at in places), strict=True):
            order[at] = i
    return order


def _of_one_prompt(cases: Sequence[Case]) -> list[int]:
    """For each case a number that it shares with those that speak, directly or by others, of a prompt of its."""
    group = list(range(len(cases)))

    def first(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    known: dict[str, int] = {}
    for i, case in enumerate(cases):
        for edit in case.edits:
            group[first(i)] = first(known.setdefault(benchmarks.spelt(edit.query.prompt), i))
    return [first(i) for i in range(len(cases))]


def age_of(i: int, count: int) -> int:
    """In which tenth of age the edit at place ``i`` of ``count`` is: 1 for the youngest."""
    return 1 + AGES * (count - 1 - i) // count


NEGATED, REVERSED = "negated", "reversed"


def aside(case: Case) -> Case:
    """The case with each edit also asked negated, where the new answer should not follow, and the other way round. Where a
    prompt does not name a relation of a subject alone nothing is added. (Edits do not know that a negation turns them round:
    arXiv 2510.00625.)"""

    def asked(edit: Edit) -> Edit:
        query = edit.query
        called = relation_of(query.prompt, query.subject)
        if not called:
            return edit
        more = (
            Query(f"{query.prompt} not", edit.target, edit.aliases, subject=query.subject, role=NEGATED, group=NEGATED),
            Query(
                f"{edit.target} is the {called} of", query.subject, subject=query.subject, role=REVERSED, group=REVERSED
            ),
        )
        return replace(edit, judges=(*edit.judges, *more))

    return replace(case, edits=tuple(map(asked, case.edits)))


def twins(cases: Sequence[Case], spare: Sequence[Case], most: int) -> list[Case]:
    """Cases that are not edited, about subjects that are not, of the relations that are; without judges."""
    queries = [edit.query for case in cases for edit in case.edits]
    subjects, relations, prompts = ({getattr(q, name) for q in queries} for name in ("subject", "relation", "prompt"))

    def fits(case: Case) -> bool:
        own = [edit.query for edit in case.edits]
        return all(
            q.relation in relations and q.prompt not in prompts and (not q.subject or q.subject not in subjects)
            for q in own
        )

    ids = {case.id for case in cases}
    return list(islice((unjudged(case) for case in spare if case.id not in ids and fits(case)), most))


def natives(
    model: nn.Module, tokenizer: Any, most: int, unknown: int, seed: int, chat: Any
) -> tuple[list[Query], list[Query]]:
    """At most so many facts about countries that the model writes right, as questions whose answers must stay; and at most so
    many (``unknown``) that it was asked on the way and does not."""
    if not most:
        return [], []
    found = benchmarks.made()["world"].cases(seed, None)
    found = found if chat is None else list(map(chat.case, found))
    right: list[Query] = []
    wrong: list[Query] = []
    for group, good in known_groups(model, tokenizer, found, most):
        known = {case.id for case in good}
        for case in group:
            (right if case.id in known else wrong).append(replace(case.edits[0].query, role="locality", group=NATIVE))
    wrong = wrong[: 2 * unknown]
    # In the room that they will have after the edits: some may be right in that.
    writes = _answered(model, tokenizer, wrong)
    return right[:most], [query for query, knows in zip(wrong, writes, strict=True) if not knows][:unknown]


NATIVE = "known facts"


def _answered(model: nn.Module, tokenizer: Any, queries: Sequence[Query]) -> list[bool]:
    """Does the model, as it is now, write the answer of each?"""
    texts = write(model, tokenizer, as_read(model, tokenizer, [q.prompt for q in queries]), Room(MOST_NEW_TOKENS))
    return [is_answer(text, (q.target, *q.aliases), q.said) for q, text in zip(queries, texts, strict=True)]


def moved(model: nn.Module, tokenizer: Any, rows: Sequence[Row], unknown: Sequence[Query]) -> Row:
    """Of facts about countries that no edit is about: how many were ``asked``, ``right_before``, ``lost`` and ``won`` since.

    Without a test: how many were asked of either kind was chosen.

    Args:
        rows: of this moment; those about natives among them.
        unknown: questions that the unedited model answers wrong.
    """
    before = [{"group": NATIVE, "prompt": q.prompt, "right": False} for q in unknown]
    now = _answered(model, tokenizer, unknown)
    after = [{**row, "right": answered} for row, answered in zip(before, now, strict=True)]
    for row in rows:
        if row["group"] == NATIVE and row["role"] == "locality":
            about = {"group": NATIVE, "prompt": row["prompt"]}
            before.append({**about, "right": bool(row["right_before"])})
            after.append({**about, "right": right(row, "after")})
    found = kept(before, after)
    return {"asked": len(after), **{name: found[name] for name in ("right_before", "lost", "won")}}


def grown(model: nn.Module) -> dict[str, float]:
    """By module path, the norm of each matrix that was changed in place over what it was."""
    stack = deltas.stack_of(model)
    first = stack.originals if stack else {}

    def norm(weight: torch.Tensor) -> float:
        return float(torch.linalg.vector_norm(weight.float()))

    return {path: norm(weight) / norm(first[path]) for path, weight in deltas.changed(model).items()}


def outputs(tokenizer: Any, rows: Sequence[Row], column: str, room: dict[str, int]) -> Row:
    """What is wrong with what was written, whatever it says: shares of texts (one a prompt) that are empty, that the end of the
    room cut off, and that say the same few words again."""
    texts = {row["prompt"]: row[column] for row in rows}
    lengths = {prompt: len(tokenizer(text, add_special_tokens=False)["input_ids"]) for prompt, text in texts.items()}
    found = [(not text.strip(), lengths[prompt] >= room[prompt], repeats(text)) for prompt, text in texts.items()]
    shares = [float(np.mean(column)) if found else None for column in zip(*found, strict=True)] or [None] * 3
    return dict(zip(("empty", "endless", "repeated"), shares, strict=True))


def repeats(text: str) -> bool:
    """Are at least six words said, and fewer than half of them for the first time?"""
    words = text.casefold().split()
    return len(words) >= 6 and 2 * len(set(words)) < len(words)
