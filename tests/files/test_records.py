"""Files that carry their digest: what was changed is named, what is older is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engramlab.base.errors import UserError
from engramlab.files import records
from engramlab.files.journal import Journal, read_rows

RECORD = {"steps": 3, "loss": float("nan"), "rows": [{"a": 0.1, "b": None, "ü": [1, "\u2028"]}]}
ROWS = [{"case": "a", "value": 0.1}, {"case": "b", "value": None, "more": [1, 2]}]


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """What is read, or None and what is said instead."""
    try:
        return read(), ""
    except UserError as error:
        return None, str(error)


def damages(content: bytes) -> list[bytes]:
    flips = [content[:k] + bytes([content[k] ^ 2]) + content[k + 1 :] for k in range(0, len(content), 5)]
    return [content[: len(content) // 2], b"", b"[]", b"{}", b"\xff" + content, b"[" * 20_000, *flips]


def test_a_record_is_what_was_written_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "done.json"
    with pytest.raises(UserError, match=r"done.json is missing; remove it to do that part again"):
        records.read_record(path)
    records.write_record(path, RECORD)
    read = records.read_record(path, ("steps", "loss"))
    assert json.dumps(read) == json.dumps(RECORD)
    for content in damages(path.read_bytes()):
        path.write_bytes(content)
        found, said = outcome(lambda: records.read_record(path, ("steps", "loss"), "start over"))
        if said:
            assert said.startswith(f"{path} is ")
            assert said.endswith("; start over")
        else:  # the name of the digest, or white space
            assert {k: repr(v) for k, v in found.items() if k in RECORD} == {k: repr(v) for k, v in RECORD.items()}
    path.write_text(json.dumps(RECORD))  # of an older engramlab
    assert records.read_record(path, ("steps",)).keys() == RECORD.keys()


def test_rows_are_what_was_written_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    records.write_rows(path, ROWS)
    whole = records.read_rows(path, ("case",))
    assert whole == pq.read_table(path).to_pylist()
    for content in damages(path.read_bytes()):
        path.write_bytes(content)
        found, said = outcome(lambda: records.read_rows(path, ("case",)))
        assert said.startswith(f"{path} is damaged") or found == whole
    old = pa.Table.from_pylist(ROWS)  # of an older engramlab, which kept what the first row had
    pq.write_table(old, path)
    assert records.read_rows(path, ("case",)) == old.to_pylist()
    with pytest.raises(UserError, match=r"rows.parquet is damaged \(it lacks edits\)"):
        records.read_rows(path, ("edits",))
    records.write_rows(path, [])
    assert records.read_rows(path, ("case",)) == []


def test_a_sealed_folder_is_what_was_written_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(UserError, match="model is missing; train it again"):
        records.check_sealed(folder, "train it again")
    records.write_sealed(folder, lambda path: [(path / name).write_text(name) for name in ("a", "b")])
    records.check_sealed(folder)
    (folder / "b").write_text("c")
    with pytest.raises(UserError, match=f"model/b is damaged .*; remove {folder} to do that part again"):
        records.check_sealed(folder)
    (folder / "b").unlink()
    with pytest.raises(UserError, match="model/b is missing"):
        records.check_sealed(folder)
    (folder / records.DIGESTS).unlink()  # of an older engramlab
    records.check_sealed(folder)


def test_a_journal_s_lines_are_what_was_written_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for k in range(3):
        Journal(path).add(step=k, text="ü\u2028")
    whole = read_rows(path)
    for content in damages(path.read_bytes()):
        path.write_bytes(content)
        found, said = outcome(lambda: read_rows(path, 3))
        if said:
            assert said.startswith(f"{path} is damaged")
            assert said.endswith(f"; remove {tmp_path} to do that part again")
        else:
            assert [{k: row.get(k) for k in ("step", "text")} for row in found] == whole
    path.write_text('{"step": 0}\n{"step": 1')  # of an older engramlab, and cut
    assert Journal(path).rows == [{"step": 0}]
    assert path.read_text() == '{"step": 0}\n'


def test_a_journal_is_not_written_through_a_link(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    (tmp_path / "metrics.jsonl").symlink_to(notes)
    with pytest.raises(UserError, match="metrics.jsonl is a link, and nothing is written through links; remove it"):
        Journal(tmp_path / "metrics.jsonl").add(step=1)
    assert notes.read_text() == "mine"


def test_what_only_later_rows_have_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    records.write_rows(path, [{"a": 1}, {"a": 2, "within": 10}])
    assert records.read_rows(path) == [{"a": 1, "within": None}, {"a": 2, "within": 10}]
