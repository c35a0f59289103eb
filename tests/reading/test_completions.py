"""TruthfulQA, FACTOR, and the passage files of CAD and MICD: read as they are, and refused by place and key."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from engramlab.base.errors import UserError
from engramlab.reading import completions
from engramlab.reading.completions import factor, truthfulqa
from engramlab.reading.contexts import cad, micd

BENCHMARKS = Path(__file__).parents[3] / "shared/data/benchmarks"
TRUTH = {
    "Question": "What is red?",
    "Best Answer": "A rose",
    "Correct Answers": "A rose; Blood is red.; ",
    "Incorrect Answers": "Grass;The sky",
}
FACT = {
    "": "0",
    "full_prefix": "Long ago. It rained. ",
    "turncated_prefixes": "It rained. ",
    "completion": "It was wet.",
    "contradiction_0": "It was dry.",
    "contradiction_1": "It was hot.",
    "contradiction_2": "It was  dusty.",
}


def table(path: Path, *records: dict[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        lines = csv.DictWriter(file, list(records[0]))
        lines.writeheader()
        lines.writerows(records)
    return path


def test_truthfulqa(tmp_path: Path) -> None:
    (one,), left = completions.read(table(tmp_path / "t.csv", TRUTH), truthfulqa)
    assert not left
    assert one.true == ("A rose.", "Blood is red.")
    assert one.false == ("Grass.", "The sky.")
    assert one.prompt.count("Q: ") == 7
    assert one.prompt.endswith("Q: What is red?\nA:")


def test_factor(tmp_path: Path) -> None:
    path = table(tmp_path / "f.csv", FACT)
    (one,), _ = completions.read(path, factor)
    assert (one.prompt, one.true) == ("Long ago. It rained.", ("It was wet.",))
    assert one.false == ("It was dry.", "It was hot.", "It was dusty.")
    (cut,), _ = completions.read(path, factor, question=factor.cut)
    assert cut.prompt == "It rained."


@pytest.mark.parametrize(
    ("form", "record", "change", "words"),
    [
        (
            truthfulqa,
            TRUTH,
            {"Best Answer": "Tomatoes"},
            "line 3: key 'Best Answer': 'Tomatoes.' is not among the 'Correct",
        ),
        (truthfulqa, TRUTH, {"Incorrect Answers": ""}, "key 'Incorrect Answers' is missing or empty"),
        (truthfulqa, TRUTH, {"Incorrect Answers": " ; "}, "key 'Incorrect Answers' holds no answer"),
        (truthfulqa, TRUTH, {"Incorrect Answers": "A rose"}, "'A rose.' is also among the 'Correct Answers'"),
        (truthfulqa, TRUTH, {"Question": ""}, "key 'Question' is missing or empty"),
        (factor, FACT, {"contradiction_1": ""}, "line 3: key 'contradiction_1' is missing or empty"),
        (factor, FACT, {"contradiction_2": "It was wet."}, "key 'contradiction_2' is the completion itself"),
        (factor, FACT, {"full_prefix": ""}, "key 'full_prefix' is missing or empty"),
    ],
)
def test_bad_records(tmp_path: Path, form: Any, record: dict[str, str], change: dict[str, str], words: str) -> None:
    path = table(tmp_path / "bad.csv", record, record | change)
    with pytest.raises(UserError, match=words):
        completions.read(path, form)
    found, left = completions.read(path, form, bad="skip")
    assert len(found) == 1
    assert words.split(": ")[-1].split("'")[1] in left[0]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no truthfulqa file: the first record has the keys"):
        completions.read(table(tmp_path / "f.csv", FACT), truthfulqa)
    with pytest.raises(UserError, match="has no question that can be asked"):
        completions.read(table(tmp_path / "t.csv", TRUTH | {"Best Answer": "x"}), truthfulqa, bad="skip")


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


WITH = {
    "input_index": 0,
    "context_string": "It is x. What?",
    "assigned_weight": 2,
    "filter_p": 0.0,
    "gold_answers": ["x"],
}
BARE = {"input_index": 0, "context_string": "What?", "assigned_weight": -1}


def test_files_of_cad(tmp_path: Path) -> None:
    (one,) = cad.read(lines(tmp_path / "c.jsonl", BARE, WITH))
    assert (one.prompt, one.bare, one.answers) == ("It is x. What?", "What?", ("x",))
    assert (one.alpha, one.plausible) == (1, 0)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([WITH], "line 1: question '0' has 1 streams"),
        ([WITH, BARE | {"assigned_weight": 1}], "key 'assigned_weight': 2 and 1 are not 1 . alpha and -alpha"),
        ([WITH, BARE | {"assigned_weight": "x"}], "line 2: key 'assigned_weight' must be a finite number"),
        ([WITH, BARE | {"context_string": " "}], "line 2: key 'context_string' must be a text that is not empty"),
        ([WITH | {"gold_answers": []}, BARE], "key 'gold_answers': must be a text or a list of texts"),
        ([WITH | {"filter_p": 2}, BARE], "key 'filter_p': must be from 0 to 1"),
        ([{**WITH, "input_index": None}], "line 1: key 'input_index' is missing"),
    ],
)
def test_bad_files_of_cad(tmp_path: Path, records: list[Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        cad.read(lines(tmp_path / "c.jsonl", *records))


def micd_files(folder: Path, answers: str = "['x', 'y']", **change: Any) -> tuple[Path, Path]:
    tsv = folder / "q.tsv"
    tsv.write_text(f"question\tanswers\tans\nWhat?\t{answers}\tx\n")
    one = {"question": "What?", "ctxs": [{"id": "1", "text": "It is x.", "hasanswer": True}], "gold_ctx": "Gold: x."}
    other = {"question": "Who?", "ctxs": [{"id": "2", "text": "She is."}], "gold_ctx": "g", "question_irr": "What?"}
    return tsv, lines(folder / "p.jsonl", one | {"question_irr": "Who?"} | change, other)


def test_files_of_micd(tmp_path: Path) -> None:
    files = micd_files(tmp_path)
    (one,) = micd.read(*files)
    assert one.prompt == "It is x.\n\nQuestion: What?\nAnswer:"
    assert one.irrelevant == "She is.\n\nQuestion: What?\nAnswer:"
    assert (one.bare, one.answers) == ("Question: What?\nAnswer:", ("x", "y"))
    assert micd.read(*files, which="gold")[0].prompt.startswith("Gold: x.\n\n")


def test_shown_questions_of_micd_are_the_same_in_each_context_and_not_asked(tmp_path: Path) -> None:
    tsv, passages = micd_files(tmp_path)
    tsv.write_text(tsv.read_text() + "Who?\t['y']\ty\n")
    (one,) = micd.read(tsv, passages, shots=1)
    shown, asked = ("Who", "What") if "What?\nAnswer:" in one.prompt[-20:] else ("What", "Who")
    own = {"What": "It is x.", "Who": "She is."}
    answer = {"What": "x", "Who": "y"}[shown]
    before = f"{own[shown]}\n\nQuestion: {shown}?\nAnswer: {answer}\n\n"
    assert one.prompt == f"{before}{own[asked]}\n\nQuestion: {asked}?\nAnswer:"
    assert one.irrelevant == f"{before}{own[shown]}\n\nQuestion: {asked}?\nAnswer:"
    assert one.bare == f"Question: {shown}?\nAnswer: {answer}\n\nQuestion: {asked}?\nAnswer:"
    with pytest.raises(UserError, match="has 2 questions, 2 of which would be shown"):
        micd.read(tsv, passages, shots=2)


@pytest.mark.parametrize(
    ("answers", "change", "words"),
    [
        ("__import__('os').getcwd()", {}, "line 2, key 'answers': .* is no list of texts"),
        ("[]", {}, "key 'answers'"),
        ("['x']", {"question_irr": "Where?"}, "line 1, key 'question_irr': 'Where.' is no question of"),
        ("['x']", {"question": "When?"}, "key 'question': 'What.' has no passage in"),
        ("['x']", {"ctxs": [{"id": "1", "text": " "}]}, "passage 1: key 'text' must be a text that is not empty"),
        ("['x']", {"ctxs": []}, "key 'ctxs' must be a list of passages"),
    ],
)
def test_bad_files_of_micd(tmp_path: Path, answers: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        micd.read(*micd_files(tmp_path, answers, **change))


@pytest.mark.parametrize(
    ("name", "form", "good", "bad"),
    [
        ("truthfulqa/TruthfulQA.csv", truthfulqa, 788, 2),
        ("factor/expert_factor.csv", factor, 236, 0),
        ("factor/news_factor.csv.gz", factor, 1036, 0),
    ],
)
def test_real_files(name: str, form: Any, good: int, bad: int) -> None:
    path = BENCHMARKS / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    found, left = completions.read(path, form, bad="skip")
    assert (len(found), len(left)) == (good, bad)
    assert all("key 'Incorrect Answers'" in text for text in left)  # two call the same answer right and wrong
