"""Digests of what a run reads: whether it is still what it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engramlab.files import digests
from engramlab.files.digests import digest


def test_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts").mkdir()
    one, two = tmp_path / "texts" / "1.txt", tmp_path / "texts" / "2.txt"
    one.write_text("a" * 50_000)
    two.write_text("b")
    named = [one, tmp_path / "texts", str(tmp_path / "texts" / "*.txt")]
    for whole in (digests.WHOLE, 0):
        monkeypatch.setattr(digests, "WHOLE", whole)
        one.write_text("a" * 50_000)
        before = [digest(name) for name in named]
        assert len(set(before)) == 3
        assert before == [digest(name) for name in named]
        one.write_text("a" * 25_000 + "c" + "a" * 24_999)
        assert not set(before) & {digest(name) for name in named}
        one.write_text("a" * 49_999)
        assert not set(before) & {digest(name) for name in named}
    before = [digest(name) for name in named]
    (tmp_path / "texts" / ".lock").write_text("")
    assert before == [digest(name) for name in named]
    assert digest(tmp_path / "texts", apart=tmp_path / "texts") is None
    two.rename(tmp_path / "texts" / "3.txt")
    assert digest(tmp_path / "texts") != before[1]


def test_what_is_no_file(tmp_path: Path) -> None:
    for name in ("", "hub:owner/name", "fictional", "2x64", tmp_path / "absent", "x" * 5000, tmp_path):
        assert digest(name) is None


def test_of_a_run_only_what_others_read(tmp_path: Path) -> None:
    model = tmp_path / "single" / "pretrain" / "model"
    model.mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps({"experiment": "x"}))
    (model / "model.safetensors").write_text("1")
    before = digest(tmp_path)
    (tmp_path / "report.html").write_text("page")
    assert digest(tmp_path) == before
    (model / "model.safetensors").write_text("2")
    assert digest(tmp_path) != before
