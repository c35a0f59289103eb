"""How facts are put into words: sentence templates and a question for each relation, our plain ones or a user's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engramlab.base.errors import UserError, at_places, listed, nearest, note, quoted
from engramlab.base.facts import Fact
from engramlab.corpora.sentences import STOPS
from engramlab.corpora.templates import Template, parse_templates, read_data
from engramlab.files.text import read_text, wrong_with

_PREPOSITIONS = frozenset(("in", "of", "at", "by", "on", "to", "from", "for", "with", "as", "into"))
_NO_NOUNS = frozenset(
    (
        *(
            "is",
            "was",
            "are",
            "were",
            "has",
            "have",
            "had",
            "does",
            "did",
            "can",
            "been",
            "made",
            "born",
            "lives",
            "lived",
        ),
        *(
            "works",
            "worked",
            "plays",
            "played",
            "speaks",
            "spoke",
            "located",
            "founded",
            "owned",
            "used",
            "called",
            "known",
        ),
        *("who", "what", "when", "where", "which", "how", "why", *_PREPOSITIONS),
    )
)


@dataclass(frozen=True)
class Said:
    """How a source's facts are put, where it knows better than our plain sentences.

    Attributes:
        beginnings: by relation, beginnings of sentences that end in the object, with ``{subject}``, or ``{Subject}`` where it
            opens the sentence.
        questions: by relation, a prompt with ``{subject}``.
        mentions: by subject, what the middle of a sentence calls it, where that is not its name: "the Netherlands".
    """

    beginnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    questions: Mapping[str, str] = field(default_factory=dict)
    mentions: Mapping[str, str] = field(default_factory=dict)


def _behind(said: str, text: str) -> str:
    """A text behind a name or an object, whose own full stop is that of the sentence, too."""
    return text.removeprefix(".") if said.endswith(STOPS) else text


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Wordings:
    """The wordings of some relations.

    Attributes:
        templates: by relation, in the order of the file.
        spoken: the same, but first come those in which the object ends the sentence: their beginnings ask for it. Last come
            those in which it stands before the subject, and whose beginnings ask for nothing.
        asking: by relation, how many end in the object with the subject before it.
        questions: by relation, a prompt with ``{subject}``.
        own: the text of the user's files, as read.
        called: by relation, what sentences and questions call it.
        said: the source's own ways, where it has some; what the user gives goes first.
        more_questions: further forms of the question that the user gave; only teaching has a use for them.
    """

    templates: dict[str, tuple[Template, ...]]
    spoken: dict[str, tuple[Template, ...]]
    asking: dict[str, int]
    questions: dict[str, str]
    own: tuple[str, ...] = ()
    called: dict[str, str] = field(default_factory=dict)
    said: Said = field(default_factory=Said)
    more_questions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def sentence(self, fact: Fact, number: int) -> tuple[str, int]:
        """A fact in the spoken template of that number (counted round), and the character where its object begins."""
        lines = self.spoken[fact.relation]
        line = lines[number % len(lines)]
        frame = line.frame("it", named=True)
        mention = self.said.mentions.get(fact.subject, "")
        if line.opens:
            head = (_upper(mention) or fact.subject) + frame.before + ("" if frame.bare else " ")
            return head + fact.object + _behind(fact.object, frame.after), len(head)
        name = (mention or fact.subject, frame.bare_name)
        first, last = ((fact.object, frame.bare), name) if frame.turned else (name, (fact.object, frame.bare))
        head = frame.lead + (" " if frame.lead and not first[1] else "")
        middle = first[0] + _behind(first[0], frame.before) + ("" if last[1] else " ")
        return head + middle + last[0] + _behind(last[0], frame.after), len(head if frame.turned else head + middle)

    def leading(self, relation: str) -> int:
        """In how many of the spoken templates, the first ones, the subject comes before the object."""
        return sum(not line.turned for line in self.spoken[relation])

    def prompts(self, relation: str, subject: str) -> list[str]:
        """The beginnings of the sentences that end in the object, then the question."""
        if relation in self.said.beginnings:
            mention = self.said.mentions.get(subject, subject)
            begun = [t.replace("{subject}", mention) for t in self.said.beginnings[relation]]
            return [*(t.replace("{Subject}", _upper(mention)) for t in begun), self.question(relation, subject)]
        blank = Fact(subject, relation, "\0")
        said = [self.sentence(blank, k) for k in range(self.asking[relation])]
        return [*(text[:start].rstrip() for text, start in said), self.question(relation, subject)]

    def forms(self, relation: str, subject: str, statements: int = 3, questions: int = 3) -> list[tuple[str, str]]:
        """Ways of asking for the relation of a subject, each with its kind: at most so many beginnings of sentences
        ("statement"), and the question in so many forms ("question", at most three)."""
        said = self.prompts(relation, subject)[:-1][:statements]
        bare, plain = self.question(relation, subject), self.plain(relation, subject)
        asked = [bare, f"Question: {plain}\nAnswer:", f"Q: {plain}\nA:"][:questions]
        return [*(("statement", text) for text in said), *(("question", text) for text in dict.fromkeys(asked))]

    def plain(self, relation: str, subject: str) -> str:
        """The question as a user of a chat model puts it: without "Answer:"."""
        return without_answer(self.question(relation, subject))

    def question(self, relation: str, subject: str) -> str:
        """The question for the relation of a subject."""
        return self.every_question(relation, subject)[0]

    def every_question(self, relation: str, subject: str) -> list[str]:
        """The question in all forms that the user gave, or the one there is."""
        mention = self.said.mentions.get(subject, subject)
        forms = (self.questions[relation], *self.more_questions.get(relation, ()))
        return [form.replace("{subject}", mention) for form in forms]


def without_answer(question: str) -> str:
    """A prompt that ends in "Answer:" without that."""
    return question.removesuffix("Answer:").strip()


def read_wordings(
    relations: Sequence[str],
    templates: str | Path | None = None,
    questions: str | Path | None = None,
    phrases: Mapping[str, str] | None = None,
    said: Said | None = None,
) -> Wordings:
    """Wordings of relations, from files or by default from the relation's name.

    Args:
        templates: a file of sentence templates for every relation, or a folder with RELATION.txt files and, for the relations
            without one, default.txt. None is plain templates that fit every relation.
        questions: a file of lines RELATION, tab, question with {subject}, for relations that shall not be asked "What is the
            RELATION of {subject}? Answer:". A relation may have several lines: the first is its question, and teaching trains
            the others as well.
        phrases: what relations are called, instead of by their names with spaces for underscores.
        said: the source's own ways; not those of relations with a phrase, and no beginnings where there are templates.

    Raises:
        UserError: a file that cannot be read, a wording for no relation, or one without its slots; with file and line.
    """
    read: list[str] = []
    called = {relation: relation.replace("_", " ") for relation in relations}
    for relation, phrase in (phrases or {}).items():
        _check_known(relation, relations, "phrases")
        called[relation] = phrase
        read.append(f"{relation}={phrase}")
    for relation, phrase in called.items():
        if wrong := "has {subject} in it" if "{subject}" in phrase else wrong_with(phrase, 1000):
            raise UserError(
                f"attribute {quoted(relation)}: what it is called {wrong}; rename the column, or give a phrase"
            )
    found = _templates(Path(templates) if templates is not None else None, called, read)
    _note_turned(found)
    asked = {relation: _plain_question(phrase) for relation, phrase in called.items()}
    if said is not None and said != Said():
        kept = [relation for relation in relations if relation not in (phrases or {})]
        begun = {r: said.beginnings[r] for r in kept if r in said.beginnings and templates is None}
        said = Said(begun, {r: said.questions[r] for r in kept if r in said.questions}, said.mentions)
        asked |= said.questions
        read.append(repr(said))
    more: dict[str, tuple[str, ...]] = {}
    if questions is not None:
        read.append(read_text(questions))
        for relation, forms in read_questions(Path(questions), relations).items():
            asked[relation], more[relation] = forms[0], forms[1:]
    return Wordings(
        found,
        # Sorting keeps the order of those that are alike.
        {
            r: tuple(sorted(lines, key=lambda line: (not _ends_in_value(line), line.turned)))
            for r, lines in found.items()
        },
        {relation: sum(map(_ends_in_value, lines)) for relation, lines in found.items()},
        asked,
        tuple(read),
        called,
        said or Said(),
        {relation: forms for relation, forms in more.items() if forms},
    )


def doubtful(wordings: Wordings) -> list[tuple[str, str]]:
    """Relations whose names make no noun of a sentence ("What is the made in of ..."), and what is asked for them."""
    return [
        (relation, asked)
        for relation, asked in wordings.questions.items()
        if asked == _plain_question(wordings.called[relation]) and _reads_badly(wordings.called[relation])
    ]


def _reads_badly(phrase: str) -> bool:
    first, *_, last = [*phrase.split(), phrase.split()[-1]]
    return (
        first.lower() in _NO_NOUNS
        or last.lower() in _PREPOSITIONS
        or len(phrase) == 1
        or bool(re.search(r"[a-z][A-Z]|[a-z]\d|[^\w\s'’(),./&%-]", phrase))
    )


def _plain_question(phrase: str) -> str:
    return f"What is the {phrase} of {{subject}}? Answer:"


def _ends_in_value(line: Template) -> bool:
    return not line.turned and not line.frame("it", named=True).after.strip(" .!?")


def _note_turned(templates: Mapping[str, Sequence[Template]]) -> None:
    """Says which templates can be read but not asked with; one that serves several relations is named once."""
    places = dict.fromkeys(line.where for lines in templates.values() for line in lines if line.turned)
    if places:
        note(
            f"templates: {{value}} comes before {{subject}} in {len(places)} of them ({at_places(list(places))}): facts are "
            "stated in such a sentence, and nothing is asked with it"
        )


def read_questions(path: Path, relations: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The questions of a file by relation, in their order; one that is there already counts once, with a note.

    Raises:
        UserError: a relation that is not there or a question without its slot.
    """
    wordings: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        relation, _, wording = (part.strip() for part in line.strip().partition("\t"))
        where = f"{path}, line {number}"
        if line.strip() and not wording:
            raise UserError(f"{where}: write ATTRIBUTE, a tab, and a question with {{subject}}: {quoted(line)}")
        if wording:
            _check_known(relation, relations, where)
            if wording.count("{subject}") != 1:
                raise UserError(
                    f"{where}: question for {quoted(relation)}: needs {{subject}} exactly once: {quoted(wording)}"
                )
            if wording in wordings.get(relation, ()):
                note(f"{where}: the question {quoted(wording)} is there already and counts once")
                continue
            wordings[relation] = (*wordings.get(relation, ()), wording)
    return wordings


def _check_known(relation: str, relations: Sequence[str], where: str) -> None:
    if relation not in relations:
        raise UserError(
            f"{where}: {quoted(relation)} is no attribute; did you mean {quoted(nearest(relation, relations))}? "
            f"The attributes are {listed(relations)}"
        )


def _templates(path: Path | None, called: Mapping[str, str], read: list[str]) -> dict[str, tuple[Template, ...]]:
    """The templates of each relation, from its own file, the folder's default, or the package's."""
    relations = list(called)
    default, where = read_data("templates", "table", "default.txt"), "templates/table/default.txt"
    own: dict[str, Path] = {}
    if path is not None and path.is_dir():
        own = {file.stem: file for file in sorted(path.glob("*.txt"))}
        if "default" in own and "default" not in relations:
            where = str(own["default"])
            default = read_text(own.pop("default"))
            read.append(default)
        for stem, file in own.items():
            _check_known(stem, relations, str(file))
    elif path is not None:
        default, where = read_text(path), str(path)
        read.append(default)
    found = {}
    for relation in relations:
        text, name = default, where
        if relation in own:
            text, name = read_text(own[relation]), str(own[relation])
            read.append(text)
        found[relation] = parse_templates(text, name, called[relation])
    return found
