"""``engramlab corpus check`` and ``engramlab plan`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engramlab.cli import main

RECORD = {
    "id": "mill",
    "text": "The Orla Mill stands in Tarn. It was built by Ada Wren.",
    "paraphrases": ["In Tarn there is a mill called Orla.", "The Orla Mill was built by Ada Wren."],
    "queries": {
        "memorization": [{"prompt": "The Orla Mill stands in", "target": "Tarn"}],
        "semantic": [{"prompt": "The town of Tarn has a mill; the mill is in", "target": "Tarn"}],
    },
}


def passages(folder: Path) -> Path:
    path = folder / "passages.jsonl"
    path.write_text(json.dumps(RECORD) + "\n", encoding="utf-8")
    return path


def test_check_names_each_defect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["corpus", "check", str(passages(tmp_path))])
    said = capsys.readouterr().out
    assert "1 passages, 2 queries" in said
    assert "target in its prompt: 1 (semantic 1)" in said
    assert "passage mill, semantic query 1" in said
    assert "fact lost in some" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["corpus", "check", "nowhere.jsonl"], "nowhere.jsonl"),
        (["corpus", "check", "a", "b"], "takes one file"),
        (["plan", "--run", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert words in said
    assert said.count("\n") == 1
