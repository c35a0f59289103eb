"""bioR: biographies that a chat model wrote from the six facts; the part that knows the text, not the model.

Whether an answer states every fact (`stated_in`), and the finished texts as a corpus (`RewrittenCorpus`, read by `rewritten`).
What is asked, and the writing itself, is `engramlab.writing.bior`.

Source: Physics of Language Models, Part 3.1 (arXiv 2309.14316), section 2 and appendix: facts in random order, texts
drawn again until every attribute is there word for word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engramlab.base.arrays import Integers
from engramlab.base.errors import UserError
from engramlab.base.facts import Passage
from engramlab.base.joining import standing
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.entities import Entities
from engramlab.corpora.layout import CHUNK, NAME, Layout, Population, as_passages, entry_indices
from engramlab.corpora.people import ATTRIBUTES, QUESTIONS
from engramlab.corpora.questions import QuestionCorpus, Split
from engramlab.corpora.templates import PRONOUNS


@dataclass(frozen=True)
class Stated:
    """What a text states: (start, end, mark) in the order of the text, marks as in a layout, and what it leaves out.

    missing: the attributes, and "name", that do not occur; a text is accepted when there is none.
    """

    spans: tuple[tuple[int, int, int], ...]
    missing: tuple[str, ...]


def stated_in(
    text: str,
    name: str | Sequence[str],
    values: Sequence[str | Sequence[str]],
    attributes: Sequence[str] = ATTRIBUTES,
) -> Stated:
    """Find every mention of the name, and of each value the first that is not part of another.

    Names and values count only word for word and as whole words. Two attributes with one value (born and working in the
    same city) need two mentions, since each is to be stated; so do a name and a value that are the same, or of which one
    stands inside the other ("Guatemala City", the capital of Guatemala).

    Args:
        name, values: each a text, or several spellings of which any counts.
    """
    wanted = {a + 1: _spellings(value) for a, value in enumerate(values)} | {NAME: _spellings(name)}
    # The longest first, or "Columbia" would take the beginning of "Columbia, SC"; of equals the value, which needs but one.
    every = sorted(((said, mark) for mark, of in wanted.items() for said in of), key=lambda one: -len(one[0]))
    taken: list[tuple[int, int, int]] = []
    found: set[int] = set()
    for said, mark in every:
        for begin, stop in standing(text, said) if mark == NAME or mark not in found else ():
            if any(start < stop and begin < end for start, end, _ in taken):
                continue
            found.add(mark)
            taken.append((begin, stop, mark))
            if mark != NAME:
                break
    lacking = ["name"] if NAME not in found else []
    longest = sorted((mark for mark in wanted if mark not in {NAME, *found}), key=lambda mark: -len(wanted[mark][0]))
    return Stated(_told_apart(text, sorted(taken)), (*lacking, *(attributes[mark - 1] for mark in longest)))


def _spellings(said: str | Sequence[str]) -> Sequence[str]:
    return (said,) if isinstance(said, str) else said


def _told_apart(text: str, spans: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Spans in their order; a name said twice in a row is one mention: spans of one mark that touch could not be told apart."""
    kept: list[tuple[int, int, int]] = []
    for start, end, mark in spans:
        if not (kept and mark == NAME == kept[-1][2] and not text[kept[-1][1] : start].strip()):
            kept.append((start, end, mark))
    return tuple(kept)


class _Slices(Sequence[str]):
    """Pieces of texts, cut when asked for: piece p is texts[owner[p]][start[p]:end[p]]. The first is empty."""

    def __init__(self, texts: Sequence[str], owner: Integers, start: Integers, end: Integers) -> None:
        self._texts, self._owner, self._start, self._end = texts, owner, start, end

    def __len__(self) -> int:
        return len(self._owner)

    def __getitem__(self, piece: int) -> str:  # type: ignore[override]
        if piece == 0:
            return ""
        return self._texts[self._owner[piece]][self._start[piece] : self._end[piece]]


class RewrittenCorpus:
    """Stored texts about a population: a `Corpus`.

    No piece is in two texts, so nothing is shared between them; a text is cut only where a name or value begins or ends.

    Entry m * subjects + s is the m-th text about subject s as long as none is left out; then the later ones move up. Every
    subject has at least one.

    population: whom the texts are about.
    texts, subjects: n strings and whom each is about, sorted by (number of the text, subject).
    spans: for each text (start, end, mark), in the order of the text and not overlapping.
    tries: how many answers each text took, where known.
    asked: how many subjects, the first, are asked about; None for all.
    """

    def __init__(
        self,
        population: Population,
        texts: Sequence[str],
        subjects: npt.ArrayLike,
        spans: Sequence[Sequence[tuple[int, int, int]]],
        tries: npt.ArrayLike | None = None,
        asked: int | None = None,
    ) -> None:
        self.population = population
        self.attributes = population.attributes
        self.subjects = range(len(population) if asked is None else asked)
        self._texts, self._spans = texts, spans
        self.tries = np.asarray(np.zeros(len(texts)) if tries is None else tries, np.int64)
        self._subject = np.asarray(subjects, np.int64)
        known, self._first_entry = np.unique(self._subject, return_index=True)
        if not np.array_equal(known, range(len(population))):
            raise ValueError("every subject of the population needs a text, and no other has one")
        cuts = [_cut(text, found) for text, found in zip(texts, spans, strict=True)]
        counts = np.array([len(cut) for cut in cuts], np.int64)
        self._first = 1 + np.concatenate([[0], np.cumsum(counts)])
        columns = np.array([(0, 0, 0), *(piece for cut in cuts for piece in cut)], np.int64).T
        owner = np.concatenate([[0], np.repeat(np.arange(len(texts)), counts)])
        self.pieces: Sequence[str] = _Slices(texts, owner, columns[0], columns[1])
        self._marks = columns[2].astype(np.int8)

    def __len__(self) -> int:
        return len(self._subject)

    def first(self, most: int, people: int | None = None) -> RewrittenCorpus:
        """The first texts about each subject.

        Args:
            most: so many of them.
            people: of the first so many subjects alone, who then are those asked about; the others keep all their texts, behind
                theirs.
        """
        order = np.argsort(self._subject, kind="stable")
        number = np.empty(len(order), np.int64)
        starts = np.searchsorted(self._subject[order], np.arange(len(self.population)))
        number[order] = np.arange(len(order)) - starts[self._subject[order]]
        ours = self._subject < (len(self.population) if people is None else people)
        kept = np.concatenate([np.flatnonzero(ours & (number < most)), np.flatnonzero(~ours)])
        texts, spans = [self._texts[i] for i in kept], [self._spans[i] for i in kept]
        return RewrittenCorpus(self.population, texts, self._subject[kept], spans, self.tries[kept], people)

    def with_full_names(self) -> RewrittenCorpus:
        """The same with every pronoun of the subject replaced by the name (the paper's +fullname); verbs stay as they are."""
        people = self.population
        made = [
            named(text, spans, people.name(s), people.pronouns[p] if people.pronouns else "they")
            for text, spans, s, p in zip(
                self._texts, self._spans, self._subject.tolist(), people.pronoun(self._subject).tolist(), strict=True
            )
        ]
        texts, spans = [text for text, _ in made], [found for _, found in made]
        return RewrittenCorpus(people, texts, self._subject, spans, self.tries)

    def subject(self, entries: npt.ArrayLike) -> Integers:
        """Whom entries are about: int64[n], indices into the population."""
        return self._subject[entry_indices(entries, len(self))]

    def first_entry(self, subjects: npt.ArrayLike) -> Integers:
        """The first entry about each subject: int64[n]."""
        return self._first_entry[np.asarray(subjects, np.int64)]

    def layout(self, entries: npt.ArrayLike) -> Layout:
        indices = entry_indices(entries, len(self))
        first, counts = self._first[indices], self._first[indices + 1] - self._first[indices]
        slots = np.arange(counts.max(initial=0))
        pieces = np.where(slots < counts[:, None], first[:, None] + slots, 0).astype(np.int32)
        return Layout(pieces, self._marks[pieces])

    def coverage(self) -> Iterator[Layout]:
        for start in range(0, len(self), CHUNK):
            yield self.layout(np.arange(start, min(start + CHUNK, len(self))))

    def passage(self, entry: int) -> Passage:
        return as_passages(self.layout([entry]), self.pieces, self.attributes, [str(entry)])[0]


_OWNED = re.compile(r" (?!(?:to|in|at|and|as|from|for|with|on|by|the|an?|that|when|while|where)\b)\w")  # behind "her"


def named(
    text: str, spans: Sequence[tuple[int, int, int]], name: str, pronoun: str
) -> tuple[str, list[tuple[int, int, int]]]:
    """A text with the name in the place of every pronoun of the subject, and where its values and names then stand.

    "her" is taken for "his" where a word follows that can be owned, else for "him". A pronoun right behind the name stays.

    >>> named("Ada is here. She has her hat.", [(0, 3, -1)], "Ada", "she")
    ("Ada is here. Ada has Ada's hat.", [(0, 3, -1), (13, 16, -1), (21, 24, -1)])
    """
    forms = PRONOUNS[pronoun]
    owning = {forms["his"], *(["hers"] if pronoun == "she" else ["theirs"] if pronoun == "they" else [])}
    words = "|".join(sorted({forms["he"], forms["him"], *owning}, key=len, reverse=True))
    parts: list[tuple[int, int, int, str]] = [(start, end, mark, text[start:end]) for start, end, mark in spans]
    for match in re.finditer(rf"(?<![\w'])({words})(?!\w)", text, re.IGNORECASE):
        if any(match.start() < end and start < match.end() for start, end, _ in spans):
            continue
        genitive = match[0].lower() in owning and (match[0].lower() != "her" or bool(_OWNED.match(text, match.end())))
        parts.append((match.start(), match.end(), NAME, name + ("'s" if genitive else "")))
    made, at, last = "", 0, 0
    found: list[tuple[int, int, int]] = []
    for start, end, mark, said in sorted(parts):
        made += text[at:start]
        if mark == NAME and last == NAME and not made[found[-1][1] :].strip():  # two mentions that touch are no two
            made, at = made + text[start:end], end
            continue
        length = len(name) if mark == NAME else len(said)
        found.append((len(made), len(made) + length, mark))
        made, at, last = made + said, end, mark
    return made + text[at:], found


def _cut(text: str, spans: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """A text as (start, end, mark) from its first character to its last; a span takes the space before it."""
    pieces, at = [], 0
    for start, end, mark in spans:
        led = start - (start > at and text[start - 1] == " ")
        if led > at:
            pieces.append((at, led, 0))
        pieces.append((led, end, mark))
        at = end
    return [*pieces, (at, len(text), 0)] if at < len(text) else pieces


def people_table(profiles: Mapping[str, Sequence[str]]) -> Entities:
    """A population with the columns "name" and "pronoun" and one an attribute."""
    return Entities(profiles["name"], {name: profiles[name] for name in ATTRIBUTES}, profiles["pronoun"])


def rewritten(folder: str | Path) -> RewrittenCorpus:
    """Read a folder that `engramlab corpus bior` wrote.

    Raises:
        UserError: a file is missing or damaged, or spans do not quote what the profiles say.
    """
    folder = Path(folder)
    for name in ("dataset.json", "profiles.parquet", "entries.parquet"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name} there; give a folder that `engramlab corpus bior` wrote")
    profiles = FactTable.read(folder / "profiles.parquet", key="name", relations=ATTRIBUTES, pronoun_column="pronoun")
    population = profiles.entities()
    marks = {"": NAME, **{attribute: a + 1 for a, attribute in enumerate(ATTRIBUTES)}}
    try:
        table = pq.read_table(folder / "entries.parquet", columns=["subject", "text", "spans", "tries"])
        texts, subjects, tries = (table[name].to_pylist() for name in ("text", "subject", "tries"))
        spans = [
            [(span["start"], span["end"], marks[span["relation"]]) for span in found]
            for found in table["spans"].to_pylist()
        ]
        corpus = RewrittenCorpus(population, texts, subjects, spans, tries)
    except (pa.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{folder / 'entries.parquet'}: not what `engramlab corpus bior` writes ({error})") from None
    _check_spans(folder / "entries.parquet", corpus, texts, spans)
    return corpus


def _check_spans(
    path: Path, corpus: RewrittenCorpus, texts: list[str], spans: list[list[tuple[int, int, int]]]
) -> None:
    """Labels of training and probing come from the spans: an edited text must not shift them unseen."""
    people = corpus.population
    for entry, (text, found, subject) in enumerate(zip(texts, spans, corpus._subject.tolist(), strict=True)):
        for start, end, mark in found:
            said = people.name(subject) if mark == NAME else people.value(subject, mark - 1)
            if text[start:end] != said:
                raise UserError(
                    f"{path}, entry {entry}: characters {start} to {end} are {text[start:end]!r}, not {said!r} as the "
                    "profile says"
                )


def rewritten_questions(corpus: RewrittenCorpus, split: Split | None = None) -> QuestionCorpus:
    """Six questions about each person, worded as for bioS."""
    return QuestionCorpus(corpus.population, QUESTIONS, corpus.subjects, split)
