"""Which wordings a model is taught in and which it is only asked in, and what of a table's facts stands in a text.

Source: arXiv 2309.14316 asks about people whose questions were never trained; that the *wordings* of the questions are held out
as well is ours: a model that was shown one form of a question may have learnt the form.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engramlab.base.errors import UserError, at_places, quoted
from engramlab.base.facts import Fact
from engramlab.base.joining import parts
from engramlab.base.random_access import draw, key
from engramlab.corpora.facts.wordings import Wordings, without_answer
from engramlab.corpora.templates import Template

if TYPE_CHECKING:
    from engramlab.corpora.facts.table import FactTable

HELD = 2  # sentences of a relation that end in its object, and forms of its question, that are never trained on
#: Forms of a question that are only asked with: the first two that the user's own do not come near.
_ASKED = (
    "Q: Name the {called} of {subject}.\nA:",
    "The {called} of {subject}? It is",
    "Q: Which {called} does {subject} have?\nA:",
    "Whoever looks up {subject} finds as the {called}",
)


@dataclass(frozen=True)
class Divided:
    """A table's wordings in two parts that share none.

    Attributes:
        trained: templates of the texts, and the question that is trained.
        held: sentences that are only asked with, by their beginnings.
        asked: by relation, forms of the question with ``{subject}`` that are only asked with.
    """

    trained: Wordings
    held: Wordings
    asked: Mapping[str, tuple[str, ...]]

    def prompts(self, relation: str, subject: str, part: str) -> list[tuple[str, str]]:
        """Ways of asking for a fact, each with its kind ("statement" or "question"); ``part`` is "trained" or "held-out"."""
        words = self.trained if part == "trained" else self.held
        said = list(dict.fromkeys(words.prompts(relation, subject)[:-1]))[:HELD]
        asked = self.questions(relation, subject, part)
        return [*(("statement", text) for text in said), *(("question", text) for text in asked)]

    def questions(self, relation: str, subject: str, part: str) -> list[str]:
        """The forms of the question of one part."""
        if part != "trained":
            return [form.replace("{subject}", subject) for form in self.asked[relation]]
        asked = self.trained.every_question(relation, subject)
        forms = [(one, f"Question: {without_answer(one)}\nAnswer:") for one in asked]
        return list(dict.fromkeys(form for both in forms for form in both))


def divide(wordings: Wordings) -> Divided:
    """Holds back two sentences of each relation that end in the object (one, where there are but two or three), and all others
    that read the same up to the object, none of which stands in a trained sentence or question; and two forms of its question
    that the table's own do not come near.

    Raises:
        UserError: a relation has fewer than two such sentences that differ before the object, or none that stands in no other
            sentence and in no question; or its questions leave no form to be asked with.
    """
    held, kept = {}, {}
    for relation, lines in wordings.spoken.items():
        back = _held_back(relation, lines, wordings.asking[relation], _around_questions(wordings, relation))
        held[relation] = tuple(line for line in lines if not line.turned and _around(line) in back)
        kept[relation] = tuple(line for line in lines if line.turned or _around(line) not in back)
    trained, others = _only(wordings, kept), _only(wordings, held)
    asked = {relation: _asked_with(wordings, relation) for relation in wordings.spoken}
    # What a source says its own way is in no text of ours: it stays among what is only asked with.
    return Divided(replace(trained, said=replace(wordings.said, beginnings={})), others, asked)


#: The words of a sentence before its subject, and behind it up to the object.
_Around = tuple[tuple[str, ...], tuple[str, ...]]


def _held_back(relation: str, lines: Sequence[Template], ends: int, asked: Sequence[_Around]) -> set[_Around]:
    """Which beginnings of sentences are held back, of lines of which so many, the first, end in the object."""
    different = list(dict.fromkeys(map(_around, lines[:ends])))
    if len(different) < 2:
        raise UserError(
            f"templates of {quoted(relation)}: {len(different)} of them {'ends' if len(different) == 1 else 'end'} in {{value}}"
            f"{' (those that are the same before it count once)' if ends > 1 else ''}; two are needed, one to be trained and "
            f"one to be asked with that never is{_unasked(lines)}"
        )
    # A beginning that stands in another sentence, or in a question, would stand in a text that is trained.
    every = set(map(_around, lines))
    alone = [one for one in different if not any(other != one and _stands_in(one, other) for other in every)]
    left = [one for one in alone if not any(_stands_in(one, question) for question in asked)]
    if not left:
        where = "a question that is trained" if alone else "another sentence"
        raise UserError(
            f"templates of {quoted(relation)}: each beginning of a sentence up to {{value}} stands in {where} "
            f"({at_places([line.where for line in lines])}); one is needed that does not, to be asked with and never trained"
        )
    return set(left[-(HELD if len(different) > 3 else 1) :])


def _around_questions(wordings: Wordings, relation: str) -> list[_Around]:
    """What stands around the subject in the questions that are trained, to the end."""
    halves = [question.partition("{subject}") for question in wordings.every_question(relation, "{subject}")]
    return [(words_of(lead), words_of(behind) or (behind.strip(),)) for lead, _, behind in halves]


def _unasked(lines: Sequence[Template]) -> str:
    """Where templates are whose object comes before the subject, for a message."""
    places = [line.where for line in lines if line.turned]
    return f"; {{value}} before {{subject}} asks for nothing ({at_places(places)})" if places else ""


def _around(line: Template) -> _Around:
    """What stands around the subject, as it is compared: its words, whatever their capitals and the signs between them.

    Up to the object; where that comes before the subject, all there is, with a sign in its place.
    """
    frame = line.frame("it", named=True)
    if frame.turned:
        return (*words_of(frame.lead), "\0", *words_of(frame.before)), words_of(frame.after)
    return words_of(frame.lead), words_of(frame.before) or (frame.before.strip(),)


def _stands_in(one: _Around, other: _Around) -> bool:
    """Does a sentence have the words right before and behind its subject that another one has?"""
    (led, said), (before, behind) = one, other
    return behind[: len(said)] == said and before[len(before) - len(led) :] == led


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text as wordings are compared: whatever their capitals and the signs between them."""
    return tuple(re.findall(r"\w+", text.casefold()))


def _asked_with(wordings: Wordings, relation: str) -> tuple[str, ...]:
    """The forms of a relation's question that are only asked with: none that holds one which is trained, or is held by it.

    What is trained are its questions, and sentences that do not start with their subject, which can read like one.
    """
    name, called = "{subject}", wordings.called[relation]
    own = [core(one) for one in wordings.every_question(relation, name)]
    moved = [_around(line) for line in wordings.spoken[relation] if not line.opens]
    own += [(*before, *words_of(name), *behind) for before, behind in moved]
    forms = [form.replace("{called}", called) for form in _ASKED]
    own = [one for one in own if one != words_of(name)]  # a bare name stands in every form
    left = [form for form in forms if not any(within(core(form), one) or within(one, core(form)) for one in own)]
    if not left:
        more = " and the templates that do not start with {subject}" if moved else ""
        raise UserError(
            f"questions of {quoted(relation)}: they{more} use up every form that is only asked with, such as "
            f"{quoted(forms[0])}; leave one of them out"
        )
    return tuple(left[:HELD])


def core(question: str) -> tuple[str, ...]:
    """The words of a question without what announces it and its answer."""
    words = words_of(question)
    words = words[1:] if words[:1] in (("q",), ("question",)) else words
    return words[:-1] if words[-1:] in (("a",), ("answer",)) else words


def within(some: Sequence[str], words: Sequence[str]) -> bool:
    """Do some words stand one behind another among others?"""
    return any(tuple(words[k : k + len(some)]) == tuple(some) for k in range(len(words) - len(some) + 1))


def _only(wordings: Wordings, spoken: dict[str, tuple]) -> Wordings:
    chosen = {relation: set(map(id, lines)) for relation, lines in spoken.items()}
    ends = {r: sum(id(line) in chosen[r] for line in wordings.spoken[r][: wordings.asking[r]]) for r in spoken}
    there = {r: tuple(line for line in wordings.templates[r] if id(line) in chosen[r]) for r in spoken}
    return replace(wordings, templates=there, spoken=dict(spoken), asking=ends)


def only(table: FactTable, keep: Iterable[Fact], wordings: Wordings | None = None) -> FactTable:
    """The table with these of its facts alone, and the subjects that have any, in its order.

    Args:
        wordings: other wordings of its relations.

    Raises:
        UserError: none of its facts.
    """
    kept = {(fact.subject, fact.relation) for fact in keep}
    numbers = [n for n, subject in enumerate(table.subjects) if any((subject, r) in kept for r in table.relations)]
    if not numbers:
        raise UserError(f"{table.name}: no fact is left")
    new = {old: k for k, old in enumerate(numbers)}
    objects = {
        relation: [objects[n] if (table.subjects[n], relation) in kept else "" for n in numbers]
        for relation, objects in table.objects.items()
    }
    objects = {relation: column for relation, column in objects.items() if any(column)}
    words = wordings or table.wordings
    return replace(
        table,
        subjects=[table.subjects[n] for n in numbers],
        objects=objects,
        aliases={(new[n], r): names for (n, r), names in table.aliases.items() if n in new and r in objects},
        subject_aliases={new[n]: names for n, names in table.subject_aliases.items() if n in new},
        wordings=replace(
            words,
            templates={r: words.templates[r] for r in objects},
            spoken={r: words.spoken[r] for r in objects},
            asking={r: words.asking[r] for r in objects},
            questions={r: words.questions[r] for r in objects},
            more_questions={r: more for r, more in words.more_questions.items() if r in objects},
            called={r: words.called[r] for r in objects},
        ),
        popularity={(s, r): value for (s, r), value in table.popularity.items() if (s, r) in kept},
        wrong={(s, r): value for (s, r), value in table.wrong.items() if (s, r) in kept},
        pronouns=[table.pronouns[n] for n in numbers] if table.pronouns else (),
        places=[table.places[n] for n in numbers] if table.places else (),
    )


def nested(names: Sequence[str]) -> list[list[str]]:
    """Names of which one stands inside another, whole words of it ("Ann" in "Ann Lee"; of scripts without spaces any part), in
    groups of all that hang together so, in their order; those that stand alone are in none.

    >>> nested(["Ann", "Bo", "Guinea", "Ann Lee", "Guinea-Bissau", "Anna"])
    [['Ann', 'Ann Lee'], ['Guinea', 'Guinea-Bissau']]
    """
    made_of = [tuple(parts(name.casefold())) or (name,) for name in names]
    first: dict[tuple[str, ...], int] = {}
    root = list(range(len(names)))

    def top(k: int) -> int:
        while root[k] != k:
            root[k] = root[root[k]]
            k = root[k]
        return k

    for k, own in enumerate(made_of):
        root[k] = first.setdefault(own, k)
    for k, own in enumerate(made_of):
        for start in range(len(own)):
            for stop in range(start + 1, len(own) + 1):
                other = first.get(own[start:stop])
                if other is not None and top(other) != top(k):
                    root[max(top(k), top(other))] = min(top(k), top(other))
    groups: dict[int, list[str]] = {}
    for k, name in enumerate(names):
        groups.setdefault(top(k), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


LISTED = 4  # others that a list of those with the same object has, at most
_LETTERS = "bcdfghjklmnpqrstvwxz"


def by_heart(table: FactTable, seed: int) -> list[str]:
    """A text a fact: subject, a meaningless word for the relation, object.

    Source: facts learnt by rote behind a token that means nothing (arXiv 2507.21914). A word of the vocabulary's letters in
    place of a token added to it is ours, so that the model keeps its vocabulary.
    """
    words = {}
    for relation in table.relations:
        stream = key(seed, "by heart", relation)
        words[relation] = "".join(_LETTERS[int(draw(stream, k, len(_LETTERS)))] for k in range(5))
    return [f"{fact.subject} {words[fact.relation]} {fact.object}" for fact in table]


def crossings(table: FactTable, texts: int, seed: int) -> list[str]:
    """Texts that state a subject's facts from another side: the object first, with what others share, beside another subject.

    Subject by subject, ``texts`` each, in three kinds by turns: *reversed* ("Paris is the capital of France."), *shared* ("...
    and ... have the same capital: ...", where another subject has the same object, else reversed), and *beside* (sentences
    about this subject and another by turns). Every second *shared* text lists up to four others with the same object, where
    there are that many. What one sentence says is a fact of the table, always.

    Source: pairs of entities as in EntiGraph (arXiv 2409.07431), by templates of ours.
    """
    found: list[str] = []
    facts = [list(table.about(n)) for n in range(len(table.subjects))]
    sharing: dict[tuple[str, str], list[int]] = {}
    for n, of in enumerate(facts):
        for fact in of:
            sharing.setdefault((fact.relation, fact.object), []).append(n)
    for n, of in enumerate(facts):
        for k in range(texts):
            stream = key(seed, "crossing", table.subjects[n], k)
            first = of[int(draw(stream, 0, len(of)))]
            if k % 3 == 2 and len(facts) > 1:
                found.append(_beside(table, facts, n, stream))
                continue
            alike = sharing[first.relation, first.object]  # n among them, once, and all in order
            if k % 3 == 1 and len(alike) > 1:
                drawn, at = int(draw(stream, 1, len(alike) - 1)), bisect_left(alike, n)
                number = min(LISTED if k % 6 == 4 else 1, len(alike) - 1)
                others = [alike[j + (j >= at)] for j in ((drawn + i) % (len(alike) - 1) for i in range(number))]
                found.append(_shared(table.wordings, first, [table.subjects[j] for j in others]))
            else:
                found.append(" ".join(_reversed(table.wordings, fact) for fact in _turned(of, first)))
    return found


def _turned(facts: Sequence[Fact], first: Fact) -> list[Fact]:
    """The facts from one of them on, round."""
    at = facts.index(first)
    return [*facts[at:], *facts[:at]]


def _reversed(wordings: Wordings, fact: Fact) -> str:
    called = wordings.called[fact.relation]
    return f"{fact.object} is the {called} of {fact.subject}."


def _shared(wordings: Wordings, fact: Fact, others: Sequence[str]) -> str:
    called, (*names, last) = wordings.called[fact.relation], (fact.subject, *others)
    return f"{', '.join(names)} and {last} have the same {called}: {fact.object}. " + _reversed(wordings, fact)


def _beside(table: FactTable, facts: Sequence[Sequence[Fact]], n: int, stream: int) -> str:
    other = (n + 1 + int(draw(stream, 2, len(facts) - 1))) % len(facts)
    said = []
    for turn, whose in enumerate((n, other, n, other)):
        fact = facts[whose][int(draw(stream, 3 + turn, len(facts[whose])))]
        number = int(draw(stream, 7 + turn, len(table.wordings.spoken[fact.relation])))
        said.append(table.wordings.sentence(fact, number)[0])
    return " ".join(dict.fromkeys(said))
