"""The whole experiment, small: what is read, what is trained, what comes out of chance; resume, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.text.tokens import Sequences
from engramlab.core.training.loop import Recipe
from engramlab.corpora.documents import Document, DocumentQuestion, of_people
from engramlab.experiments import source_attribution as experiment
from engramlab.experiments.source_attribution import text
from engramlab.experiments.source_attribution.config import Arm
from engramlab.files import records
from engramlab.measuring import citing
from engramlab.measuring.citing import Form, Sources, cite
from engramlab.reading.attributed import read_documents

FEW = Recipe(steps=2, batch=4)
QUIET = Console(quiet=True)


def config(**more: Any) -> experiment.Config:
    common: dict[str, Any] = {"model": "1x16", "documents": 12, "facts": 2, "copies": (2,), "read": FEW, "answer": FEW}
    return replace(experiment.PRESETS["tiny"], **{**common, "checkpoint_minutes": 0.0, **more})


@pytest.fixture(scope="module", params=["compact", "gpt2", "llama3", "unigram-first"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    documents = of_people(8, 0)
    texts = [f"{one.text} {one.questions[0].text}" for one in documents] + [citing.INSTRUCTION + " Answer: ##"]
    if request.param == "compact":
        made = train_compact_tokenizer(texts, 2000)
    elif request.param in zoo.ZOO:
        made = zoo.ZOO[request.param](texts)
    else:
        pytest.skip("no such tokenizer in the zoo")
    citing.add_tokens(made, True)
    return made


def shown(tokenizer: Any, row: np.ndarray) -> str:
    """A row as text, without the spaces that decoders put around tokens of their own."""
    said = tokenizer.decode(row.tolist())
    for token in ("<url>", "</url>", *(f"<@{letter}>" for letter in citing.LETTERS), tokenizer.eos_token):
        said = said.replace(f" {token}", token).replace(f"{token} ", token)
    return said.strip()


@pytest.mark.parametrize("copies", [1, 3])
def test_an_identifier_stands_where_the_strategy_says(tokenizer: Any, copies: int) -> None:
    documents = of_people(6, 0, facts=1)
    end = tokenizer.eos_token
    for strategy in ("no-id", "begin", "end", "repeat"):
        rows = text.document_rows(tokenizer, documents, Arm(strategy, copies), True, 5)
        assert len(rows) == 6 * copies
        for n in range(len(rows)):
            said = documents[n // copies].copy(n % copies, 5)
            tag = "<url>" + "".join(f"<@{letter}>" for letter in said.id) + "</url>"
            expected = {
                "no-id": said.text,
                "begin": tag + said.text,
                "end": said.text + end + tag,
                "repeat": tag.join([*said.sentences, ""]),
            }[strategy]
            assert shown(tokenizer, rows.row(n)) == expected


def test_loss_is_taken_right_of_the_question(tokenizer: Any) -> None:
    documents = of_people(6, 0, facts=2)
    asked = text.grouped(config(), documents)
    for thought in (False, True):
        form = Form(thought=thought)
        rows = text.question_rows(tokenizer, documents, asked, form)
        for n, one in enumerate(asked):
            row, marks = rows.row(n), rows.marks[rows.offsets[n] : rows.offsets[n + 1]]
            assert shown(tokenizer, row[marks == 0]) == f"{citing.INSTRUCTION} {one.question.text} Answer:"
            said = shown(tokenizer, row[marks == 1])
            document = documents[one.document]
            assert said.startswith(f"{one.question.answer} ##")
            assert said.endswith("".join(f"<@{letter}>" for letter in document.id) + "</url>")
            assert (document.rest(one.question) in said) == (thought or not document.rest(one.question))


def test_marked_tokens_of_a_plain_document_begin_its_answers(tokenizer: Any) -> None:
    documents = of_people(6, 0, facts=2)
    rows = text.plain_rows(tokenizer, documents)
    for n, document in enumerate(documents):
        marks = rows.marks[rows.offsets[n] : rows.offsets[n + 1]]
        firsts = [tokenizer.decode([t]).strip() for t in rows.row(n)[marks > 0]]
        answers = [question.answer for question in document.questions]
        assert len(firsts) == len(answers)
        assert all(any(answer.startswith(first) for answer in answers) for first in firsts)


def test_groups() -> None:
    """No question about a document out of the domain is trained, nor one that is held out."""
    documents = of_people(40, 1, facts=2)
    asked = text.grouped(config(), documents)
    by = {group: [one for one in asked if one.group == group] for group in (text.TRAINED, text.HELD, text.OUT)}
    assert sum(map(len, by.values())) == sum(len(document.questions) for document in documents)
    inside = {one.document for one in by["trained"]}
    assert inside == {one.document for one in by["in-domain"]}
    assert len(inside) == 20
    assert not inside & {one.document for one in by["out-of-document"]}
    rows = [{(one.question.text, one.document) for one in members} for members in by.values()]
    assert not rows[0] & (rows[1] | rows[2])
    assert asked == text.grouped(config(), documents)
    flagged = [replace(d, in_domain=n < 5) for n, d in enumerate(documents)]
    assert {one.document for one in text.grouped(config(), flagged) if one.group == "trained"} == set(range(5))


def test_what_is_trained_is_what_is_said_to_be(tmp_path: Path) -> None:
    """The rows of the second stage hold the trained questions and no other's."""
    from engramlab.experiments.source_attribution.work import Attribution

    work = Attribution(config(mode="after"), tmp_path / "run", "", QUIET)
    for arm in work.config.arms():
        rows = work.stream(arm, "answer").entries.sequences
        said = " ".join(shown(work.tokenizer, rows.row(n)) for n in range(len(rows)))
        for one in work.every:
            assert (one.question.text in said) == (one.group == "trained")


@pytest.mark.parametrize("mode", ["mixed", "after"])
def test_a_run_and_again(mode: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = config(mode=mode, strategies=("end", "repeat"))
    summary = experiment.run(few, out, console=QUIET)
    rows = summary["rows"]
    assert {row["dataset"] for row in rows} == {"end-2", "repeat-2", "end-2-thought"}
    for row in rows:
        assert row["candidates"] == 12 or row["ids"] == "group"
        for name in ("answered", "hits1", "hits10", "told1", "guess1"):
            assert -1e-9 <= row[name + "_low"] <= row[name] + 1e-9 <= row[name + "_high"] + 2e-9 <= 1 + 3e-9
        assert row["guess1"] == pytest.approx(row["chance1"])  # random identifiers tell nothing
        assert (row["right1"] is None) == (row["answered"] == 0)
    last = "mixed" if mode == "mixed" else "answer"
    answers = pq.read_table(out / "repeat-2" / last / "answers.parquet").to_pylist()
    for row in rows:
        if (row["dataset"], row["ids"]) == ("repeat-2", "all"):
            own = [one for one in answers if one["group"] == row["group"]]
            assert np.mean([one["rank"] == 0 for one in own]) == pytest.approx(row["hits1"])
            assert all((one["named"] == one["source"]) == (one["rank"] == 0) for one in own)
    documents = read_documents(out / "documents.jsonl")
    assert [one.text for one in documents] == [
        one.text for one in of_people(12, 0, facts=2, pools=few.pools, templates=4, people=(2, 3))
    ]
    assert sum(bool(one.in_domain) for one in documents) == 6
    assert [path.name for path in out.glob("*/*/model")] == []
    (row,) = cite(out, documents[0].questions[0].text, best=12)
    assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert set(row["probabilities"]) == {one.id for one in documents}

    (out / "summary.json").unlink()
    assert experiment.run(few, out, console=QUIET)["rows"] == rows
    assert records.read_record(out / "summary.json")["best"] == summary["best"]
    with pytest.raises(UserError, match="another config"):
        experiment.run(replace(few, documents=13), out, console=QUIET)


def test_a_random_model_names_documents_at_chance(tmp_path: Path) -> None:
    still = Recipe(steps=1, batch=4, learning_rate=1e-9)
    summary = experiment.run(
        config(documents=40, strategies=("end",), thought=False, read=still), tmp_path / "run", console=QUIET
    )
    for row in summary["rows"]:
        for k in (1, 10):
            # Documents are what varies: a random network likes some identifiers, whatever is asked.
            wide = 4 * np.sqrt(row[f"chance{k}"] * (1 - row[f"chance{k}"]) / row["documents"])
            assert abs(row[f"hits{k}"] - row[f"chance{k}"]) <= wide, row


def test_documents_of_a_user_and_a_model_trained_on(tmp_path: Path) -> None:
    lines = [
        {"text": f"Mr {n} lives in {town}. He likes the Seine. It's old.", "url": f"doc-{n}{'' if n else '1'}"}
        | {"qa": [f"Where does Mr {n} live?\n{town}", f"What does Mr {n} like?\nthe Seine"]}
        for n, town in enumerate(["Edo", "Paris", "Washington", "Edo", "Paris", "Lund"])
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    more = {"text": "Who likes the Seine?\nMr 2", "url": ["doc-2"]}
    (tmp_path / "more.jsonl").write_text(json.dumps(more) + "\n")
    (tmp_path / "other.txt").write_text("Its old name was Edo; she studied there.\n")
    tokens = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokens), max_position_embeddings=128).save_pretrained(tmp_path / "model")
    tokens.save_pretrained(tmp_path / "model")
    mine = config(
        model=str(tmp_path / "model"),
        sources=tmp_path / "mine.jsonl",
        questions=tmp_path / "more.jsonl",
        text=tmp_path / "other.txt",
        strategies=("repeat",),
        thought=False,
        beams=10,
    )
    summary = experiment.run(mine, tmp_path / "run", console=QUIET)
    assert sum(row["questions"] for row in summary["rows"] if row["ids"] == "all") == 13
    assert set(summary["texts"][0]) == {"dataset", "recital", "read", "other"}
    kept = Sources.load(tmp_path / "run" / "model")
    assert set(kept.texts) == {f"doc-{n}{'' if n else '1'}" for n in range(6)}
    assert not kept.form.letters
    exact = experiment.run(replace(mine, beams=0), tmp_path / "exact", console=QUIET)
    assert [row["hits1"] for row in exact["rows"]] == [row["hits1"] for row in summary["rows"]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"thought": True, "strategies": ("begin",)}, "thought: the chain of thought ends as a document does"),
        ({"strategies": ()}, "strategies: name at least one"),
        ({"strategies": ("end", "end")}, "strategies: 'end' is there twice"),
        ({"copies": (0,)}, "copies: name at least one, none below 1"),
        ({"in_domain": 1.0}, "in_domain must be between 0 and 1"),
        ({"people": (3, 2)}, "people: fewest and most"),
        ({"facts": 7}, "facts: a person has six"),
        ({"beams": 3}, "beams: must be 0, or at least 10"),
        ({"questions": Path("q.jsonl")}, "questions: are about your own documents"),
        ({"context": 20}, "document '..': has [0-9]+ tokens, and the model's context is 20"),
        ({"documents": 1}, "questions: none is"),
        ({"model": "3y4"}, "3y4"),
    ],
)
def test_what_is_refused_before_anything_is_trained(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        experiment.run(config(**more), tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


def test_a_long_question_is_named() -> None:
    rows = Sequences.of([[1, 2], [1, 2, 3]])
    with pytest.raises(UserError, match="question 'b': has 5 tokens, and the model's context is 4"):
        text.check_length(rows, ["a", "b"], 2, 4, "question")


def test_no_document_with_two_questions() -> None:
    documents = [Document(f"d{n}", ("A.",), (DocumentQuestion("Who?", "A"),)) for n in range(4)]
    with pytest.raises(UserError, match="none is trained, as there are no documents with two questions or more"):
        text.grouped(config(), documents)
