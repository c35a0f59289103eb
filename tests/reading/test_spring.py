"""SPRING's files: read as they are, refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engramlab.base.errors import UserError
from engramlab.reading.contexts import spring

GOOD = {"question": "Who?", "target": "Ann", "ret_passages": ["Ann did.", "Bob slept."], "score": 1}


def written(folder: Path, *records: Any) -> Path:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def test_a_record_as_it_is(tmp_path: Path) -> None:
    one, other = spring.read(written(tmp_path, GOOD, GOOD | {"target": ["Ann", "A."], "question": "WHO? "}))
    assert (one.question, one.answers, one.passages) == ("Who?", ("Ann",), ("Ann did.", "Bob slept."))
    assert other.answers == ("Ann", "A.")
    assert one.subject == other.subject  # never on both sides of a split


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question": None}, "line 2.*'question'"),
        ({"question": " "}, "line 2.*'question'"),
        ({"target": None}, "line 2.*'target'"),
        ({"target": []}, "line 2.*'target'"),
        ({"target": " "}, "line 2.*'target'"),
        ({"target": [3]}, "line 2.*'target'"),
        ({"ret_passages": []}, "line 2.*'ret_passages'.*one at least"),
        ({"ret_passages": None}, "line 2.*'ret_passages'"),
        ({"ret_passages": "text"}, "line 2.*'ret_passages'"),
        ({"ret_passages": ["a", ""]}, "line 2.*'ret_passages', number 2"),
    ],
)
def test_a_bad_record_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        spring.read(written(tmp_path, GOOD, GOOD | change))


@pytest.mark.parametrize("key", ["question", "target", "ret_passages"])
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"line 1.*'{key}'"):
        spring.read(written(tmp_path, {k: v for k, v in GOOD.items() if k != key}))


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no questions|no records"):
        spring.read(written(tmp_path))
