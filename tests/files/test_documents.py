"""Documents of a stream: every kind of file, and what is said when one cannot be read."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engramlab.base.errors import UserError
from engramlab.files.documents import CHARACTERS, check_source, documents, file_digest


def test_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "Three.", "x": 1}) + "\n\n" + json.dumps("Four.") + "\n")
    pq.write_table(pa.table({"text": ["Five.", "  "]}), tmp_path / "c.parquet")
    found = [text for name in ("a.txt", "b.jsonl", "c.parquet") for text in documents(str(tmp_path / name))]
    assert found == ["One.\n\nTwo.", "Three.", "Four.", "Five."]
    assert list(documents(str(tmp_path / "*.jsonl"))) == ["Three.", "Four."]


def test_of_a_folder_one_kind_is_taken_and_the_others_named(tmp_path: Path) -> None:
    """A shard is never passed over for the README beside it."""
    (tmp_path / "README.md").write_text("About. " * 5000)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.jsonl").write_text('{"text": "Hidden."}\n')
    (tmp_path / "dataset_infos.json").write_text('{"rows": 2}')
    for number, text in enumerate(("One.", "Two.")):
        packed = gzip.compress("".join(json.dumps({"text": text}) + "\n" for _ in range(2)).encode())
        (tmp_path / f"part-{number}.json.gz").write_bytes(packed)
    with pytest.warns(UserWarning, match=r"read are its 2 \.jsonl files; passed over: README.md, dataset_infos.json"):
        assert list(documents(str(tmp_path))) == ["One.", "One.", "Two.", "Two."]
    only = tmp_path / "only"
    only.mkdir()
    (only / "README.md").write_text("About.")
    with pytest.raises(UserError, match="holds no .txt, .*file that is not about it"):
        check_source(str(only))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_records_without_a_text_are_passed_over_and_counted(tmp_path: Path, ending: str) -> None:
    rows = [{"text": "One."}, {"text": None}, {"text": "Two."}, {"text": None}]
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.warns(UserWarning, match="records without a text under 'text' were passed over: 2"):
        assert list(documents(str(path))) == ["One.", "Two."]


def test_a_long_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i} " + "word " * 200 for i in range(20)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    found = list(documents(str(tmp_path / "book.txt")))
    assert len(found) > 1
    assert max(map(len, found)) < 2 * CHARACTERS
    assert " ".join(" ".join(found).split()) == " ".join(" ".join(paragraphs).split())


def test_tables_of_other_kinds_and_archives(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;n\nOne, two.;1\n;2\n")
    (tmp_path / "b.json").write_text(json.dumps([{"text": "Three."}, "Four."]))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"Five.\r\n\r\nSix.\r\n"))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "Seven."}\n'))
    with pytest.warns(UserWarning, match="records without a text"):
        assert list(documents(str(tmp_path / "a.csv"))) == ["One, two."]
    assert list(documents(str(tmp_path / "b.json"))) == ["Three.", "Four."]
    assert list(documents(str(tmp_path / "c.txt.gz"))) == ["Five.\n\nSix."]
    assert list(documents(str(tmp_path / "d.jsonl.gz"))) == ["Seven."]
    assert list(documents(str(tmp_path / "c.txt.gz"), by_line=True)) == ["Five.", "Six."]


def test_a_digest_is_of_what_the_files_say(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "b.txt").write_text("Two.")
    both, one = file_digest(str(tmp_path)), file_digest(str(tmp_path / "a.txt"))
    assert one == hashlib.sha256(b"One.").hexdigest()
    (tmp_path / "b.txt").write_text("Too.")
    assert file_digest(str(tmp_path)) != both
    assert file_digest(str(tmp_path / "a.txt")) == one


def test_other_columns(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps({"body": "Three."}) + "\n")
    assert list(documents(str(tmp_path / "b.jsonl"), "body")) == ["Three."]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', "line 1: has no key 'text'; it has body"),
        ("a.jsonl", b'{"text": 3}\n', "3 must be a text, not int"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.parquet", b"no", "not a readable Parquet file"),
        ("a.pdf", b"", "ends in '.pdf'"),
        (None, b"", "no such file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str | None, content: bytes, words: str) -> None:
    path = tmp_path / (name or "nowhere.txt")
    if name:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        list(documents(str(path)))
