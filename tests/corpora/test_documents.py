"""Documents with identifiers: what each states, copies, what can be guessed from the question; and the files they come in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engramlab.base.errors import UserError
from engramlab.base.sentences import sentences
from engramlab.corpora.documents import (
    LETTERS,
    Document,
    DocumentQuestion,
    guessed,
    of_people,
    random_ids,
    to_jsonl,
)
from engramlab.reading.attributed import read_documents, with_questions


def test_every_document_states_what_it_is_asked_and_nobody_is_in_two() -> None:
    documents = of_people(30, 3, facts=2)
    assert documents == of_people(30, 3, facts=2)
    assert [one.questions for one in documents] != [one.questions for one in of_people(30, 4, facts=2)]
    names: list[str] = []
    for document in documents:
        people = list(dict.fromkeys(question.subject for question in document.questions))
        names += people
        assert 2 <= len(people) <= 4
        assert len(document.questions) == len(document.sentences) == 2 * len(people)
        for question, sentence in zip(document.questions, document.sentences, strict=True):
            assert question.subject in sentence
            assert question.subject in question.text
            assert question.answer in sentence
            assert sentence.endswith(".")
    assert len(names) == len(set(names))
    assert len({document.id for document in documents}) == 30
    assert {len(document.id) for document in documents} == {2}


def test_identifiers() -> None:
    ids = random_ids(600, 1)
    assert len(set(ids)) == 600
    assert {len(one) for one in ids} == {3}  # 24 letters make 576 of two
    assert set("".join(ids)) <= set(LETTERS)
    assert len(LETTERS) == 24
    for document in of_people(20, 0, ids="names"):
        last = list(dict.fromkeys(question.subject.split()[-1] for question in document.questions))
        assert document.id.startswith("-".join(name[:3].lower() for name in last))


def test_copies_say_the_same_in_other_orders() -> None:
    document = of_people(5, 0, people=(4, 4))[0]
    copies = [document.copy(number, 7) for number in range(4)]
    assert copies[0] == document
    assert copies == [document.copy(number, 7) for number in range(4)]
    assert {tuple(sorted(one.sentences)) for one in copies} == {tuple(sorted(document.sentences))}
    assert len({one.sentences for one in copies}) > 2
    assert {one.id for one in copies} == {document.id}


def test_the_rest_of_a_document() -> None:
    document = Document("a", ("Ann lives in Rome.", "Bob was born in Rome, Italy.", "Bob paints."))
    assert document.rest(DocumentQuestion("Where?", "Rome", "Bob")) == ", Italy. Bob paints."
    assert document.rest(DocumentQuestion("Where?", "Rome")) == ". Bob was born in Rome, Italy. Bob paints."
    assert document.rest(DocumentQuestion("Where?", "Oslo", "Bob")) == ""


def test_what_letters_tell() -> None:
    questions = [
        DocumentQuestion("Where did Ann Wilson work?", "Oslo", "Ann Wilson"),
        DocumentQuestion("Who is it?", "x"),
    ]
    found = guessed(questions, ["wil-joh", "ann-wil", "kq", "who-abc", "wi"])
    np.testing.assert_array_equal(found, [[1, 2, 0, 0, 0], [0, 0, 0, 1, 0]])


def test_documents_come_back_from_their_file(tmp_path: Path) -> None:
    documents = of_people(12, 5)
    path = tmp_path / "documents.jsonl"
    path.write_text(to_jsonl(documents))
    again = read_documents(path)
    assert [(one.id, one.text) for one in again] == [(one.id, one.text) for one in documents]
    plain = [[(q.text, q.answer) for q in one.questions] for one in documents]
    assert [[(q.text, q.answer) for q in one.questions] for one in again] == plain
    (tmp_path / "again.jsonl").write_text(to_jsonl(again))
    assert (tmp_path / "again.jsonl").read_text() == path.read_text()


def test_sentences() -> None:
    assert tuple(sentences("It is so. (Or not?) Yes, e.g. this.\nNo.")) == (
        "It is so.",
        "(Or not?)",
        "Yes, e.g. this.",
        "No.",
    )


GOOD = {"text": "Ann lives in Oslo. Bob lives in Rome.", "url": "ab", "qa": ["Where does Ann live?\nOslo"]}


def written(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def test_a_file_of_a_user(tmp_path: Path) -> None:
    more = {
        **GOOD,
        "url": "c",
        "qa": [{"question": "Who?", "answer": "Bob"}],
        "metadata": {"in_domain": True},
        "facts": [1],
    }
    one, other = read_documents(written(tmp_path / "a.jsonl", GOOD, more))
    assert one == Document(
        "ab", ("Ann lives in Oslo.", "Bob lives in Rome."), (DocumentQuestion("Where does Ann live?", "Oslo"),)
    )
    assert (other.in_domain, other.questions) == (True, (DocumentQuestion("Who?", "Bob"),))
    asked = written(
        tmp_path / "q.jsonl", {"text": "Who is it?\nAnn", "url": ["ab", "c"]}, {"text": "And?\nBob", "url": "c"}
    )
    one, other = with_questions([one, other], asked)
    assert [q.text for q in one.questions] == ["Where does Ann live?", "Who is it?"]
    assert [q.text for q in other.questions] == ["Who?", "Who is it?", "And?"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "A b.", "qa": []}, r"line 2: key 'url' is missing"),
        ({"text": "A b.", "url": " "}, r"line 2: key 'url' must be a text that is not empty"),
        ({"text": "", "url": "x"}, r"line 2: key 'text' must be a text that is not empty"),
        ({"url": "x"}, r"line 2: key 'text' is missing"),
        ({"text": "A b.", "url": "ab"}, r"line 2, key 'url': 'ab' is another document's too"),
        ({**GOOD, "url": "x", "qa": "Who?"}, r"line 2: key 'qa' must be a list"),
        (
            {**GOOD, "url": "x", "qa": ["Who?"]},
            r"line 2, key 'qa', number 1: must be a question and its answer in two lines",
        ),
        ({**GOOD, "url": "x", "qa": [{"question": "Who?"}]}, r"line 2, key 'qa', number 1: key 'answer' is missing"),
        ({**GOOD, "url": "x", "title": "t"}, r"line 2: there is no key 'title'; did you mean"),
        ({**GOOD, "url": "x", "metadata": {"in_domain": "yes"}}, r"in_domain must be true or false, not 'yes'"),
        ({"name": "x"}, r"line 2: is of no known format \(biocite\)"),
    ],
)
def test_what_a_file_may_not_have(record: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        read_documents(written(tmp_path / "a.jsonl", GOOD, record))


def test_questions_that_belong_to_no_document(tmp_path: Path) -> None:
    documents = read_documents(written(tmp_path / "a.jsonl", GOOD))
    for record, words in (
        ({"text": "Who?\nAnn", "url": "zz"}, r"q.jsonl, line 1, key 'url': no document has the identifier 'zz'"),
        ({"text": "Who?\nAnn"}, r"line 1: key 'url' must name a document"),
        ({"text": "Who? Ann", "url": "ab"}, r"must be a question and its answer in two lines"),
    ):
        with pytest.raises(UserError, match=words):
            with_questions(documents, written(tmp_path / "q.jsonl", record))
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UserError, match="there are no documents|no records|empty"):
        read_documents(tmp_path / "none.jsonl")
