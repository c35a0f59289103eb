"""From facts with dates to cases: what holds now is edited in, what follows is composed, what has no date stays.

Wordings are ours: "Since 2024, the capital of France has been". A relation is a noun; with it goes what it is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from engramlab.base.facts import Case, Edit, Query

_MOST = 3  # facts a case composes, and as many that stay


@dataclass(frozen=True, slots=True)
class Dated:
    """A fact from ``start`` until just before ``end``: ISO dates, of which days and months may be missing; "" is open."""

    subject: str
    relation: str
    object: str
    start: str = ""
    end: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def dated(self) -> bool:
        """Does it hold at some time only?"""
        return bool(self.start or self.end)


#: The facts without dates, by their subject in lower case.
Invariant = Mapping[str, Sequence[Dated]]


def invariant(facts: Sequence[Dated]) -> dict[str, list[Dated]]:
    """Those facts that have no dates, by subject; of several objects of one relation none is the answer: they are left out."""
    found: dict[tuple[str, str], list[Dated]] = {}
    for fact in facts:
        found.setdefault((fact.subject.casefold(), fact.relation), []).append(fact)
    kept: dict[str, list[Dated]] = {}
    for (subject, _), of in found.items():
        if len(of) == 1 and not of[0].dated:
            kept.setdefault(subject, []).append(of[0])
    return kept


def clash(history: Sequence[Dated]) -> tuple[int, int] | None:
    """Two facts (by number) about one subject and relation with different objects at one time; None if there are none."""
    order = sorted(range(len(history)), key=lambda i: (history[i].start, history[i].end or "~"))
    for i, j in combinations(order, 2):
        one, other = history[i], history[j]
        common = min(len(one.end), len(other.start)) or len(one.end)  # as precisely as both dates are known
        apart = one.end and one.end[:common] <= other.start[:common]
        if one.object.casefold() != other.object.casefold() and not apart:
            return i, j
    return None


def current(history: Sequence[Dated]) -> Dated | None:
    """The fact that still holds."""
    return next((fact for fact in history if not fact.end), None)


def case_of(history: Sequence[Dated], facts: Invariant) -> Case | None:
    """The edit of a subject's relation to what holds now; None where nothing does.

    Modification where something else held before, injection where nothing did. Judges: other wordings, what follows by facts
    without dates about the new object ("multi-hop", composed), what held at an earlier date ("past"), and facts without dates
    about subject and both objects ("time-invariant").

    Args:
        history: the facts of one subject and relation, which do not clash.
        facts: of ``invariant``.
    """
    new = current(history)
    if new is None:
        return None
    earlier = [fact for fact in history if fact.object.casefold() != new.object.casefold()]
    old = max(earlier, key=lambda fact: fact.start, default=None)
    name, about = f"{new.relation}/{new.subject}", f"the {new.relation} of {new.subject}"
    prompt = f"Since {new.start[:4]}, {about} has been" if new.start else f"Today, {about} is"

    def ask(text: str, fact: Dated, role: str, group: str) -> Query:
        answer = (text, fact.object, fact.aliases)
        return Query(
            *answer, id=f"{name}/{group}/{text}", subject=new.subject, relation=fact.relation, role=role, group=group
        )

    judges = [ask(f"The {about[4:]} is now", new, "generality", "statement")]
    judges.append(ask(f"Q: What is {about} today?\nA:", new, "generality", "Q&A"))
    for fact in facts.get(new.object.casefold(), ())[:_MOST]:
        judges.append(ask(f"Today, the {fact.relation} of {about} is", fact, "portability", "multi-hop"))
    if old is not None and old.start:
        judges.append(ask(f"In {old.start[:4]}, {about} was", old, "locality", "past"))
    for one in (new.subject, new.object, old.object if old else ""):
        for fact in facts.get(one.casefold(), ())[:_MOST]:
            judges.append(
                Query(
                    f"The {fact.relation} of {fact.subject} is",
                    fact.object,
                    fact.aliases,
                    id=f"{fact.relation}/{fact.subject}",
                    subject=fact.subject,
                    relation=fact.relation,
                    role="locality",
                    group="time-invariant",
                )
            )
    before = ("", ()) if old is None else (old.object, old.aliases)
    query = Query(prompt, *before, id=name, subject=new.subject, relation=new.relation, role="edit")
    unlike = {judge.prompt: judge for judge in reversed(judges)}
    return Case(name, (Edit(query, new.object, new.aliases, tuple(reversed(unlike.values()))),))
