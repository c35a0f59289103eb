"""Records of anything, and what is said when they cannot be read."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engramlab.base.errors import UserError, listed, nearest, quoted
from engramlab.files.tables import objects, read_table, records
from engramlab.files.text import LINE, read_text

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
    assert quoted("short") == "'short'"
    assert len(quoted("x" * 500)) == 60
    assert len(listed(["x" * 500] * 500)) < 2000
    assert listed(["a", "b\n\x1b[2J", 3]) == r"a, b\n\x1b[2J, 3"
    assert nearest("multi" * 200_000, ["single", "multi"]) == "multi"


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (",name,size\n0,a,1\n1,b,\n", {"name": ["a", "b"], "size": ["1", ""]}),  # pandas' numbers of rows
        ("Unnamed: 0,name,\n0,a,\n1,b,\n", {"name": ["a", "b"]}),  # again, and separators at the ends of lines
        ("name;size\na;1,5\n;\n  ; \nb;2\n;\n", {"name": ["a", "b"], "size": ["1,5", "2"]}),  # blank rows
        ("sep=;\nname;size\na;1\n", {"name": ["a"], "size": ["1"]}),
        ('"name, first";size;n\na;1;2\n', {"name, first": ["a"], "size": ["1"], "n": ["2"]}),
    ],
)
def test_csv_as_other_programs_write_it(tmp_path: Path, content: str, columns: dict[str, list[str]]) -> None:
    assert read_table(write(tmp_path / "t.csv", content)).columns == columns


def test_a_column_of_row_numbers_is_passed_over_with_a_note(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ",Unnamed: 0,name\n0,0,a\n1,1,b\n")
    with pytest.warns(
        UserWarning, match="t.csv: a column without a name, which numbers the rows, is passed over"
    ) as told:
        assert read_table(path).columns == {"name": ["a", "b"]}
    assert len(told) == 1
    with warnings.catch_warnings(record=True) as told:
        read_table(write(tmp_path / "ends.csv", "name,\na,\nb,\n"))  # separators at the ends of lines are no column
    assert not told


def test_a_column_without_a_name_is_named_where_it_holds_something(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="t.csv, line 3: column 1 has no name, and holds 'b'; give it one"):
        read_table(write(tmp_path / "t.csv", ",size\n1,1\nb,2\n"))
    wide = ",".join(f"c{i}" for i in range(40_000))  # looked through once, not once a column
    with pytest.raises(UserError, match=r"line 1: two columns are called 'c7' \(8 and 40001\); rename one"):
        read_table(write(tmp_path / "t.csv", f"{wide},c7\n"))


def test_what_nobody_asks_for_is_not_looked_at(tmp_path: Path) -> None:
    rows = [{"a": "x", "b": {"deep": [1]}, "c": "\ud800"}, {"a": "y", "b": float("nan"), "c": "\0"}]
    table = read_table(write(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert table.column("a") == ["x", "y"]
    for column, message in (
        ("b", r"line 1, column 'b': \{'deep': \[1\]\} is not a single value"),
        ("c", "line 1, column 'c': the cell holds half of a surrogate pair"),
    ):
        with pytest.raises(UserError, match=message):
            table.column(column)


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("depth", [101, 990, 100_000])
def test_depth_is_refused(tmp_path: Path, ending: str, depth: int) -> None:
    path = write(tmp_path / f"t.{ending}", '{"a": ' + "[" * depth + "]" * depth + "}\n")
    with pytest.raises(UserError, match="nested deeper than 100"):
        list(objects(path))


def test_sizes_are_looked_at_before(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", '{"a": 1}\n{"a": "' + "x" * LINE + '"}\n')
    with pytest.raises(UserError, match="line 2: is longer than 16 MB"):
        list(objects(tmp_path / "t.jsonl"))
    write(
        tmp_path / "t.json", '[{"a": "' + "x" * LINE + '"}]'
    )  # a list on one line may be of any length, but not a cell
    with pytest.raises(UserError, match="record 1, column 'a': the cell is .* characters long"):
        read_table(tmp_path / "t.json").column("a")
    pq.write_table(
        pa.table({"a": pa.DictionaryArray.from_arrays([0] * 60_000, ["x" * 900_000])}), tmp_path / "t.parquet"
    )
    table = read_table(tmp_path / "t.parquet")  # 54 GB of text, but one and the same
    assert len(table) == 60_000


def test_a_nul_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="t.csv, line 2: holds a NUL character"):
        read_table(write(tmp_path / "t.csv", "a,b\n1,\0\n"))
    with pytest.raises(UserError, match="line 1, column 'a': the cell holds a NUL character"):
        read_table(write(tmp_path / "t.jsonl", '{"a": "\\u0000"}\n')).column("a")


def test_zstandard_is_unpacked(tmp_path: Path) -> None:
    packed = pa.compress(b"name,size\na,1\n", codec="zstd", asbytes=True)
    (tmp_path / "t.csv.zst").write_bytes(packed)
    assert read_table(tmp_path / "t.csv.zst").columns == {"name": ["a"], "size": ["1"]}
    (tmp_path / "t.csv.zst").write_bytes(packed[:-8])
    with pytest.raises(UserError, match="t.csv.zst: cannot be read"):
        read_table(tmp_path / "t.csv.zst")


def test_parquet_of_any_type(tmp_path: Path) -> None:
    """What Python holds is read as ever, what it does not as text, and what cannot be read harms who asks for it."""
    big = 1 << 60
    columns = {
        "date": pa.array([0, -(1 << 30)], pa.date32()),
        "time": pa.array([1_000, 3], pa.time64("ns")),
        "moment": pa.array([1_000, 3], pa.timestamp("ns")),
        "far": pa.array([0, big], pa.timestamp("ms")),
        "span": pa.array([86_400, big], pa.duration("us")),
        "kind": pa.array(["x", None]).dictionary_encode(),
        "decimal": pa.array([1, 2]).cast(pa.decimal128(20, 1)),
        "text": pa.array(["a", "b"]),
        "bytes": pa.array([b"a", b"\xff"]),
        "nested": pa.array([{"a": 1}, None]),
        "__index_level_0__": pa.array([0, 1]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert set(table.columns) == columns.keys() - {"__index_level_0__"}
    for name, first in {"date": "1970-01-01", "kind": "x", "decimal": "1.0", "text": "a"}.items():
        assert table.column(name)[0] == first
    for name in columns.keys() - {"__index_level_0__"}:
        try:
            assert all(isinstance(cell, str) for cell in table.column(name))
        except UserError as error:
            assert f"column {name!r}" in str(error)  # noqa: PT017


def test_a_flipped_byte_is_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x", "y"] * 50, "b": list(range(100))}), tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for at in range(0, len(whole), 3):
        (tmp_path / "t.parquet").write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            read_table(tmp_path / "t.parquet").column("a")
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
