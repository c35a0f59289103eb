"""Records of anything, and what is said when they cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engramlab.base.errors import UserError
from engramlab.files.tables import cut, objects, read_table, read_text, records

ROWS = [{"name": "a", "size": "1"}, {"name": "b; c", "size": "2"}]


def write(path: Path, content: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return path


def test_every_kind_of_file_holds_the_same_records(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "r.parquet")
    for source in (
        write(tmp_path / "r.csv", "name,size\na,1\nb; c,2\n"),
        write(tmp_path / "semicolons.csv", 'name;size\na;1\n"b; c";2\n'),
        write(tmp_path / "tabs.csv", "name\tsize\na\t1\nb; c\t2\n"),
        write(tmp_path / "r.tsv", "name\tsize\na\t1\nb; c\t2\n"),
        write(tmp_path / "r.jsonl", lines),
        write(tmp_path / "r.jsonl.gz", lines),
        write(tmp_path / "r.csv.gz", "name,size\na,1\nb; c,2\n"),
        write(tmp_path / "r.json", json.dumps(ROWS)),
        write(tmp_path / "wrapped.json", json.dumps({"about": ["x"], "rows": ROWS})),
        write(tmp_path / "lines.json", lines),
        tmp_path / "r.parquet",
        table,
    ):
        assert [record.value for record in records(source)] == ROWS, source
        assert read_table(source).columns == {"name": ["a", "b; c"], "size": ["1", "2"]}


def test_lines_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", '{"a": 1}\n\n{"a": 2}\nno json\n')
    found = records(path)
    assert [(record.value, record.place) for record in (next(found), next(found))] == [
        ({"a": 1}, "line 1"),
        ({"a": 2}, "line 3"),
    ]
    assert next(found).broken.startswith("not JSON")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "ends in '.txt'; use one of .csv"),
        ("a.json", '[{"a": 1}, 7]', "a.json, record 2: 7 is no object"),
        ("a.jsonl", f'"{"x" * 500}"\n', "line 1: 'x{58}… is no object"),
        ("a.csv", "a,b\n1\n", "line 2: 1 cells, but the header has 2 columns"),
        ("a.json", '{"a": [{"x": 1}], "b": [{"x": 1}]}', r"several lists of records \(a, b\)"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_what_cannot_be_read_is_named_at_a_readable_length(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        list(objects(write(tmp_path / name, content)))
    assert str(tmp_path / name) in str(error.value)
    assert len(str(error.value)) < 220 + len(str(tmp_path))


def test_broken_archives_and_bytes_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 100)[:-20])
    (tmp_path / "b.csv.gz").write_bytes(b"no archive")
    (tmp_path / "c.csv").write_bytes(b"a,b\n1,2\n\xff,3\n")
    for name, message in (
        ("a.jsonl.gz", "cannot be read"),
        ("b.csv.gz", "cannot be read: Not a gzipped file"),
        ("c.csv", r"line 3: byte 8 \(0xff\) is not UTF-8"),
    ):
        with pytest.raises(UserError, match=f"{name}.*{message}"):
            read_text(tmp_path / name)


def test_lists_in_cells_are_columns_of_their_own_kind() -> None:
    table = read_table(pa.table({"a": ["x", "y"], "b": [["1", "2 "], []], "c": ["p | q|p", ""]}))
    assert table.lists("b") == [("1", "2"), ()]
    assert table.lists("c") == [("p", "q"), ()]
    assert table.lists("none") == [(), ()]
    with pytest.raises(UserError, match=r"the Table, record 1, column 'b': \['1', '2'\] is not a single value"):
        table.column("b")
    with pytest.raises(UserError, match="no column 'd'; did you mean"):
        table.column("d")
    with pytest.raises(UserError, match="the int is no table"):
        read_table(7)


def test_quotations_are_cut() -> None:
    assert cut("short") == "'short'"
    assert len(cut("x" * 500)) == 60
