"""Questions about given facts: the formats, the real files, and what is refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engramlab.base.errors import UserError
from engramlab.reading.deductions import read_episodes

REAL = Path(__file__).parents[3] / "shared/data/benchmarks/reasoning"
LETTERED: dict[str, Any] = {
    "id": "one",
    "context": "Rompuses are warm. Max is a rompus. Wumpuses are cold.",
    "question": "Is the following statement true or false? Max is warm.",
    "options": ["A) True", "B) False"],
    "answer": "A",
}
PLAIN: dict[str, Any] = {"guid": "g", "facts": ["Bob is red."], "questions": ["Bob is kind."], "answers": ["Unknown"]}


def written(folder: Path, *records: Any) -> Path:
    path = folder / "questions.json"
    path.write_text(json.dumps(records))
    return path


def test_proofwriter(tmp_path: Path) -> None:
    (made,) = read_episodes(written(tmp_path, LETTERED))
    assert made.facts == ("Rompuses are warm.", "Max is a rompus.", "Wumpuses are cold.")
    assert (made.question, made.answer, made.labels) == ("Max is warm. This is", "true", ("true", "false"))
    assert (made.distractors, made.hops) == ((), 0)


def test_prontoqa(tmp_path: Path) -> None:
    said = ["Max is a rompus.", "Rompuses are warm.", "Max is warm."]
    (made,) = read_episodes(written(tmp_path, {**LETTERED, "explanation": said}))
    assert made.facts == ("Max is a rompus.", "Rompuses are warm.")
    assert (made.distractors, made.hops) == (("Wumpuses are cold.",), 2)


def test_reckoning(tmp_path: Path) -> None:
    several = {
        **PLAIN,
        "questions": ["Bob is kind.", "Bob is red."],
        "answers": ["unknown", "true"],
        "distractors": ["A."],
    }
    made = read_episodes(written(tmp_path, several))
    assert [(one.id, one.answer) for one in made] == [("g/1", "unknown"), ("g/2", "true")]
    assert made[0].distractors == ("A.",)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({**LETTERED, "context": ""}, "record 1: has no facts"),
        ({**LETTERED, "context": "Max is cold.", "explanation": ["Max is warm."]}, "has no facts"),
        ({**LETTERED, "answer": "C"}, "key 'answer' must be one of A, B, not 'C'"),
        ({**LETTERED, "options": ["True", "False"]}, "key 'options': an option must read as in 'A) True', not 'True'"),
        ({**LETTERED, "question": "Max is warm."}, "key 'question' must hold a statement behind"),
        ({**LETTERED, "question": "True? That Max is warm is true."}, "answer 'true' stands in the question"),
        ({**PLAIN, "facts": []}, "has no facts"),
        ({**PLAIN, "answers": ["maybe"]}, "must be one of true, false, unknown, not 'maybe'"),
        ({**PLAIN, "answers": []}, "key 'answers' must give one answer for each of 1 questions"),
        ({**PLAIN, "questions": ["It is unknown that Bob is kind."]}, "answer 'unknown' stands in the question"),
        ({"text": "?"}, "is of no known format (prontoqa, proofwriter, reckoning); its keys are text"),
    ],
)
def test_refusals(record: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        read_episodes(written(tmp_path, record))


def test_ids_twice_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'one' is another record's id too"):
        read_episodes(written(tmp_path, LETTERED, LETTERED))
    with pytest.raises(UserError, match="there are no questions"):
        read_episodes(written(tmp_path))


@pytest.mark.parametrize(("name", "count"), [("ProofWriter_dev.json", 600), ("ProntoQA_dev.json", 500)])
def test_real_files(name: str, count: int) -> None:
    if not (REAL / name).exists():
        pytest.skip(f"{name} is not in ../shared/data beside this checkout")
    made = read_episodes(REAL / name)
    records = json.loads((REAL / name).read_text())
    assert len(made) == count == len(records)
    for one, record in zip(made, records, strict=True):
        assert {*one.facts, *one.distractors} == set(re.split(r"(?<=[.])\s+", record["context"].strip()))
        assert one.answer in one.labels
        assert record["question"].endswith(one.question.removesuffix(" This is"))
