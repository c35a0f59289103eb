"""Documents and questions as rows of tokens, for every way of putting identifiers into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engramlab.base.errors import UserError, quoted
from engramlab.base.random_access import key, permute
from engramlab.core.text.tokens import Sequences, encode, end_token, place
from engramlab.corpora.documents import Document, DocumentQuestion
from engramlab.experiments.source_attribution.config import Arm, Config
from engramlab.measuring.citing import Form, answer_rows, tag

TRAINED, HELD, OUT = "trained", "in-domain", "out-of-document"


@dataclass(frozen=True)
class Asked:
    """A question, the document it is about, and its group."""

    question: DocumentQuestion
    document: int
    group: str


def document_rows(tokenizer: Any, documents: Sequence[Document], arm: Arm, letters: bool, seed: int) -> Sequences:
    """Every document and its copies, with the identifier where the arm puts it; start and end tokens come later."""
    texts = [document.copy(number, seed) for document in documents for number in range(arm.copies)]
    end, rows = end_token(tokenizer), []
    for document, (ids, spans) in zip(
        texts, zip(*encode(tokenizer, [d.text for d in texts]), strict=True), strict=True
    ):
        if arm.strategy == "no-id":
            rows.append(ids)
            continue
        named = tag(tokenizer, document.id, letters)
        if arm.strategy == "begin":
            rows.append([*named, *ids])
        elif arm.strategy == "end":
            rows.append([*ids, end, *named])
        else:
            stops = np.cumsum([len(sentence) + 1 for sentence in document.sentences]) - 1
            of = np.searchsorted(stops, [a for a, _ in spans], side="right")
            parts = [[t for t, k in zip(ids, of.tolist(), strict=True) if k == s] for s in range(len(stops))]
            rows.append([token for part in parts for token in (*part, *named)])
    return Sequences.of(rows)


def question_rows(tokenizer: Any, documents: Sequence[Document], asked: Sequence[Asked], form: Form) -> Sequences:
    """Questions with answer and identifier; marked is what the loss is taken on, all that is right of the question."""
    names = [documents[one.document].id for one in asked]
    rests = [documents[one.document].rest(one.question) for one in asked]
    found = answer_rows(tokenizer, form, *_columns(asked), rests)
    rows = [[*ids, *tag(tokenizer, name, form.letters)] for (ids, _), name in zip(found, names, strict=True)]
    marks = [[0] * begin + [1] * (len(row) - begin) for row, (_, begin) in zip(rows, found, strict=True)]
    return Sequences.of(rows, marks)


def _columns(asked: Sequence[Asked]) -> tuple[list[str], list[str]]:
    return [one.question.text for one in asked], [one.question.answer for one in asked]


def plain_rows(tokenizer: Any, documents: Sequence[Document]) -> Sequences:
    """The documents' texts without identifiers; the tokens of answers in them are marked."""
    texts = [document.text for document in documents]
    encoded, _ = encode(tokenizer, texts)
    marks = [[0] * len(ids) for ids in encoded]
    for row, document in zip(marks, documents, strict=True):
        for question in document.questions:
            start = document.text.find(question.answer, max(0, document.text.find(question.subject)))
            if start >= 0:
                ((at),) = place(tokenizer, [(document.text, start, start + len(question.answer), start)])
                if at is not None:
                    row[at.first] = 1
    return Sequences.of(encoded, marks)


def grouped(config: Config, documents: Sequence[Document]) -> list[Asked]:
    """All questions by group: trained, held out of documents with trained ones, and of documents without.

    Raises:
        UserError: a group would be empty.
    """
    able = [i for i, document in enumerate(documents) if document.questions]
    several = [i for i in able if len(documents[i].questions) > 1]
    known = {i: documents[i].in_domain for i in able if documents[i].in_domain is not None}
    drawn = [i for i in several if i not in known]
    order: list[int] = (
        permute(key(config.seed, "in-domain"), np.arange(len(drawn)), len(drawn)).tolist() if drawn else []
    )
    most = round(config.in_domain * len([i for i in able if i not in known]))
    inside = {i for i, one in known.items() if one and i in several} | {drawn[k] for k in order[:most]}
    found = []
    for i in able:
        questions, count = documents[i].questions, len(documents[i].questions)
        held = min(max(1, round(config.held_out * count)), count - 1)
        ranks = permute(key(config.seed, "held out", documents[i].id), np.arange(count), count)
        for question, rank in zip(questions, ranks.tolist(), strict=True):
            found.append(Asked(question, i, OUT if i not in inside else HELD if rank < held else TRAINED))
    for group, wanted in (
        (TRAINED, "documents with two questions or more"),
        (OUT, "documents whose questions stay untrained"),
    ):
        if not any(one.group == group for one in found):
            raise UserError(
                f"questions: none is {group}, as there are no {wanted}; {len(able)} of {len(documents)} documents have "
                "questions: give more, or another --in-domain"
            )
    return found


def chosen(config: Config, asked: Sequence[Asked]) -> list[Asked]:
    """Of each group so many as are asked in the end."""
    found: list[Asked] = []
    for group in (TRAINED, HELD, OUT):
        members = [one for one in asked if one.group == group]
        if members:
            order = permute(key(config.seed, "asked", group), np.arange(len(members)), len(members))
            found += [members[i] for i in order[: config.asked].tolist()]
    return found


def check_length(rows: Sequences, names: Sequence[str], extra: int, limit: int, what: str) -> None:
    """Raises UserError for a row that with ``extra`` tokens around it does not fit the model's context."""
    if len(rows) and int(rows.lengths.max()) + extra > limit:
        longest = int(rows.lengths.argmax())
        raise UserError(
            f"{what} {quoted(names[longest])}: has {int(rows.lengths[longest]) + extra} tokens, and the model's context is "
            f"{limit}; shorten it, or raise --context of a model from scratch"
        )


def unread(config: Config, documents: Sequence[Document]) -> list[Document]:
    """Documents of the same kind that nobody reads: about other people, where they are made; else none."""
    if config.sources is not None:
        return []
    from engramlab.corpora.documents import of_people

    count = max(20, min(200, len(documents) // 4))
    more = of_people(
        count,
        key(config.seed, "unread") >> 1,
        people=config.people,
        facts=config.facts,
        pools=config.pools,
        templates=config.templates,
    )
    return [replace(one, questions=()) for one in more]
