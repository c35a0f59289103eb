"""What shows at a glance whether an edit holds: its prompt, other wordings of it, and a few facts beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engramlab.base.facts import Case, Edit, Query
from engramlab.base.joining import last_letter, spaceless
from engramlab.base.rows import ROLES
from engramlab.core.text.chat import Chat
from engramlab.editing.judge.evaluation import Row
from engramlab.editing.requests import name_of
from engramlab.measuring.answers import same_answer

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


CHAT, AFTER = "in chat", "after other text"
"""Kinds of wordings that are no rewordings: the prompt put in a conversation, and the prompt behind other text."""

FORMS = ("question and answer", "as a question", "gap to fill")
"""Wordings that are a text around the question, which may be said again."""


def rewordings(edit: Edit, *, chat: bool = False) -> tuple[Query, ...]:
    """The edit's prompt in other words, as far as that can be done without knowing what it says; ``group`` says how.

    Of an English prompt: as a question, in another order, with a gap to be filled, the fact the other way round (which does not
    follow for a model, so it is "portability") and unchanged behind other text.

    Args:
        chat: only what a user would say in a conversation.

    >>> wish = Edit(Query("The capital of France is", "", subject="France"), "Rome")
    >>> for query in rewordings(wish): print(f"{query.group}: {query.prompt!r} -> {query.target}")
    as a question: 'Q: What is the capital of France?\\nA:' -> Rome
    gap to fill: 'Fill in the gap: The capital of France is ___.\\nThe gap:' -> Rome
    reordered: "France's capital is" -> Rome
    after other text: 'As everyone knows, the capital of France is' -> Rome
    after other text: 'Here is a fact. The capital of France is' -> Rome
    the other way round: 'Rome is the capital of' -> France
    """
    bare, subject = edit.query.prompt.strip(), edit.query.subject.strip()
    if not re.search("[A-Za-z]", bare) or spaceless(last_letter(bare)) or "\n" in bare:
        return ()
    first, _, rest = bare.partition(" ")
    inner = f"{first.lower()} {rest}" if first.lower() in _OPENINGS and rest else bare
    found: list[tuple[str, str]] = []
    forms: list[tuple[str, str]] = []  # texts that a user of a conversation would not write
    other_way = ""
    if bare.endswith("?"):
        asked = re.fullmatch(rf"What (is|was|are|were) the (.+) of {re.escape(subject)}\?", bare) if subject else None
        forms.append(("question and answer", f"Q: {bare}\nA:"))
        if asked:
            found.append(("as a statement", f"The {asked[2]} of {subject} {asked[1]}"))
        found.append((AFTER, f"Please answer the question. {bare}"))
    else:
        stated = re.fullmatch(rf"The (.+) of {re.escape(subject)} (is|was|are|were)", bare) if subject else None
        if stated:
            forms.append(("as a question", f"Q: What {stated[2]} the {stated[1]} of {subject}?\nA:"))
            found.append(("reordered", f"{subject}'s {stated[1]} {stated[2]}"))
            other_way = f"{edit.target} {stated[2]} the {stated[1]} of"
        else:
            forms.append(("as a question", f"Q: {bare} what?\nA:"))
            if subject and not bare.startswith(subject):
                found.append(("subject first", f"{subject}: {inner}"))
        forms.append(("gap to fill", f"Fill in the gap: {bare} ___.\nThe gap:"))
        found += [(AFTER, f"As everyone knows, {inner}"), (AFTER, f"Here is a fact. {bare}")]
    whole = Query("", edit.target, edit.aliases, subject=subject, role="generality")
    made = [replace(whole, prompt=prompt, group=group, said=bare) for group, prompt in forms if not chat]
    made += [replace(whole, prompt=prompt, group=group) for group, prompt in found]
    if other_way and not chat:
        made.append(Query(other_way, subject, role="portability", group="the other way round"))
    return tuple(made)


def with_chat(cases: Sequence[Case], chat: Chat) -> list[Case]:
    """The cases, every edit whose prompt is in no template yet also judged by it in a conversation."""

    def asked(edit: Edit) -> Edit:
        if chat.holds(edit.query.prompt):
            return edit
        said = replace(edit.query, target=edit.target, aliases=edit.aliases, role="generality", group=CHAT)
        return replace(edit, judges=(*edit.judges, chat.query(said)))

    return [replace(case, edits=tuple(map(asked, case.edits))) for case in cases]


def with_unrelated(cases: Sequence[Case]) -> list[Case]:
    """The cases, the first one with unrelated prompts that name no subject, old or new answer of any of them."""
    edits = [edit for case in cases for edit in case.edits]
    words = {w.casefold() for e in edits for w in (e.query.subject, e.query.target, e.target, *e.aliases) if w.strip()}
    prompts = {_plain(edit.query.prompt) for edit in edits}
    free = [p for p in UNRELATED if _plain(p) not in prompts and not any(word in p.casefold() for word in words)]
    judges = tuple(Query(prompt, "", role="locality", group="unrelated") for prompt in free[:SHOWN])
    first, *others = cases
    last = first.edits[-1]
    return [replace(first, edits=(*first.edits[:-1], replace(last, judges=last.judges + judges))), *others]


def holds(row: Row) -> bool:
    """Does the model write the answer by itself (where it is too long to be written: is each of its tokens the likeliest)?"""
    return bool(row["generated"]) if row["generated"] is not None else row["teacher_forced"] == 1.0


def kept(row: Row) -> bool:
    """Is an answer that was to stay the same as before, up to where its first clause ends ("Tokyo." and "Tokyo. It is")?"""
    before, after = (_CLAUSE.split(row[f"written_{when}"].strip(), maxsplit=1)[0] for when in ("before", "after"))
    return bool(row["generated"]) or bool(before and same_answer(before, after))


_CLAUSE = re.compile(r"[.,;:!?\n。，；：！？、]")


@dataclass(frozen=True)
class Scores:
    """What rows say of some edits, as (right, of how many).

    Attributes:
        held: the edits themselves.
        reworded: other wordings, also in a conversation; not the same one behind other text.
        kept: unrelated answers, see ``kept``.
        chat: the edits in a conversation.
        drift: by how many nats an unrelated token's log-probability has moved, on average.
    """

    held: tuple[int, int]
    reworded: tuple[int, int]
    kept: tuple[int, int]
    chat: tuple[int, int]
    drift: float

    @property
    def shares(self) -> tuple[float | None, float | None, float | None]:
        """Of ``held``, ``reworded`` and ``kept``; None where nothing was asked."""
        a, b, c = (right / of if of else None for right, of in (self.held, self.reworded, self.kept))
        return a, b, c


def scores(rows: Sequence[Row]) -> Scores:
    """The scores of an edit's rows."""

    def of(some: Sequence[Row]) -> tuple[int, int]:
        return sum(map(holds, some)), len(some)

    by_role = {role: [row for row in rows if row["role"] == role] for role in ROLES}
    near = by_role["locality"]
    moved = [
        abs(after - before)
        for row in near
        for before, after in zip(row["logprobs_before"], row["logprobs_after"], strict=False)
    ]
    return Scores(
        of(by_role["reliability"]),
        of([row for row in by_role["generality"] if row["group"] != AFTER]),
        (sum(map(kept, near)), len(near)),
        of([row for row in by_role["generality"] if row["group"] == CHAT]),
        sum(moved) / len(moved) if moved else 0.0,
    )


def conflict(one: Edit, other: Edit) -> str:
    """How messages name two edits that contradict each other."""
    return f"{name_of(one)} and {name_of(other)} give the same prompt {one.query.prompt!r} different answers"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
