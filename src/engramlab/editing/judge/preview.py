"""What shows at a glance whether an edit holds: its prompt, other wordings of it, and a few facts beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engramlab.base.facts import Case, Edit, Query
from engramlab.editing.judge.evaluation import Row
from engramlab.editing.requests import name_of

#: Everyday facts that small models know too; an edit should leave them alone.
UNRELATED = (
    "The capital of Japan is",
    "The sun rises in the",
    "The opposite of hot is",
    "The author of Romeo and Juliet is William",
    "Water is made of hydrogen and",
    "The largest planet in the solar system is",
    "Two plus two equals",
)
SHOWN = 5
_OPENINGS = (
    "the",
    "a",
    "an",
    "in",
    "on",
    "at",
    "its",
    "his",
    "her",
    "their",
    "this",
    "that",
    "it",
    "he",
    "she",
    "they",
)


def rephrasings(prompt: str) -> tuple[str, ...]:
    """The prompt in other words, as far as that can be done without knowing what it says.

    >>> rephrasings("Who wrote Emma?")
    ('Q: Who wrote Emma?\\nA:', 'Please answer the question. Who wrote Emma?')
    >>> rephrasings("The capital of France is")
    ('As everyone knows, the capital of France is', 'Here is a fact. The capital of France is')
    """
    bare = prompt.strip()
    if bare.endswith("?"):
        return f"Q: {bare}\nA:", f"Please answer the question. {bare}"
    first, _, rest = bare.partition(" ")
    inner = f"{first.lower()} {rest}" if first.lower() in _OPENINGS and rest else bare
    return f"As everyone knows, {inner}", f"Here is a fact. {bare}"


def with_unrelated(cases: Sequence[Case]) -> list[Case]:
    """The cases, the first one with unrelated prompts that name no subject, old or new answer of any of them."""
    edits = [edit for case in cases for edit in case.edits]
    words = {w.casefold() for e in edits for w in (e.query.subject, e.query.target, e.target, *e.aliases) if w.strip()}
    prompts = {_plain(edit.query.prompt) for edit in edits}
    free = [p for p in UNRELATED if _plain(p) not in prompts and not any(word in p.casefold() for word in words)]
    judges = tuple(Query(prompt, "", role="locality", group="unrelated") for prompt in free[:SHOWN])
    first, *others = cases
    last = first.edits[-1]
    return [Case(first.id, (*first.edits[:-1], replace(last, judges=last.judges + judges))), *others]


def holds(row: Row) -> bool:
    """Does the model write the answer by itself (where it is too long to be written: is each of its tokens the likeliest)?"""
    return bool(row["generated"]) if row["generated"] is not None else row["teacher_forced"] == 1.0


def conflict(one: Edit, other: Edit) -> str:
    """How messages name two edits that contradict each other."""
    return f"{name_of(one)} and {name_of(other)} give the same prompt {one.query.prompt!r} different answers"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
