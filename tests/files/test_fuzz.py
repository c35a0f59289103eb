"""Broken files of every kind: taken, or refused in one line; ``bench/fuzz_readers.py`` tries more of them."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PATH = Path(__file__).parents[2] / "bench" / "fuzz_readers.py"


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_readers", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PATH.parent))  # as for a script, which imports its neighbours
        spec.loader.exec_module(module)
    return module


def test_a_few_mutants_of_every_format(fuzzer: ModuleType) -> None:
    counts, bad = fuzzer.fuzz(fuzzer.FORMATS, 10, 7)
    assert not bad, "\n\n".join(bad)
    assert {sum(found.values()) for found in counts.values()} == {10}


@pytest.mark.slow
def test_many_mutants_of_every_format(fuzzer: ModuleType) -> None:
    _, bad = fuzzer.fuzz(fuzzer.FORMATS, 300, 0)
    assert not bad, "\n\n".join(bad)


MB = 1 << 20


def numbered(line: str, count: int = 20_000) -> bytes:
    return "".join(line.replace("#", str(i)) for i in range(count)).encode()


def ripple(prompt: str, relation: str = "", asked: str = "x") -> bytes:
    test = {"test_queries": [{"prompt": asked, "subject_id": "Q9"}]}
    change = {"prompt": prompt, "relation": relation, "subject_id": "Q9"}
    return json.dumps([{"edit": change, "Relation_Specificity": [test]}]).encode()


def words(order: Iterable[int]) -> str:
    return " ".join(f"w{i}" for i in order)


#: What, the format it is read as, the ending of its file, and the file.
MONSTERS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "passages 10,000 deep": ("passages", ".jsonl", lambda: b'{"text": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "facts 900 deep": ("facts lines", ".jsonl", lambda: b'{"a": 1, "b": ' + b'{"x":' * 900 + b"1" + b"}" * 901),
    "edits 100,000 deep": ("plain", ".json", lambda: b"[" * 100_000),
    "a target 90 deep": ("plain", ".json", lambda: b'[{"prompt": "a", "target": ' + b"[" * 90 + b"]" * 90 + b"}]"),
    "a stream's line of 50 MB": ("stream", ".jsonl", lambda: b'{"text": "' + b"a " * (25 * MB) + b'"}\n'),
    "a text's line of 50 MB": ("stream", ".txt", lambda: b"a " * (25 * MB)),
    "a fact of 50 MB": ("facts lines", ".json", lambda: b'[{"a": "x", "b": "' + b"y" * (50 * MB) + b'"}]'),
    "a prompt of 50 MB": ("plain", ".json", lambda: b'[{"target": "x", "prompt": "' + b"y" * (50 * MB) + b'"}]'),
    "a CSV cell of 50 MB": ("facts tables", ".csv", lambda: b"a,b\nx," + b"y" * (50 * MB)),
    "gzip of 2 GB of nothing": ("facts tables", ".csv.gz", lambda: gzip.compress(bytes(64 * MB), 1) * 32),
    "20,000 columns": ("facts tables", ".csv", lambda: numbered("c#,") + b"\n" + b"1," * 20_000),
    "20,000 columns of one name": ("facts tables", ".csv", lambda: b"c," * 20_000 + b"c\n"),
    "20,000 relations": ("facts tables", ".csv", lambda: b"subject,relation,object\n" + numbered("x,r#,1\n")),
    "20,000 conflicts": ("facts tables", ".csv", lambda: b"subject,relation,object\n" + numbered("x,r,#\n")),
    "20,000 names twice": ("facts tables", ".csv", lambda: b"a,b\n" + numbered("x#,1\nx#,2\n")),
    "20,000 aliases": (
        "facts tables",
        ".csv",
        lambda: b"subject,relation,object,object_aliases\n" + numbered("x,r,1,n#\n"),
    ),
    "two prompts of 40,000 words": (
        "rippleedits",
        ".json",
        lambda: ripple(f"The x of {words(range(40_000))} is b.", "", words(range(40_000, 0, -1))),
    ),
    "the relation 80,000 times": ("rippleedits", ".json", lambda: ripple("x of " * 80_000 + "is b.", "x")),
    "a key of 1 MB": ("plain", ".json", lambda: json.dumps([{"prompt": "a", "target": "b", "k" * MB: 1}]).encode()),
    "300,000 {} and a long subject": (
        "plain",
        ".json",
        lambda: json.dumps([{"prompt": "{}" * 300_000, "subject": "a" * 300_000, "target": "b"}]).encode(),
    ),
    "20,000 answers": ("plain", ".jsonl", lambda: numbered('{"prompt": "a", "target": "#", "aliases": ["z"]}\n')),
    "a variant of 1 MB": ("variants", "", lambda: b"multi" * (MB // 5)),
    "a loss of 1 MB": ("losses", "", lambda: b"overtone:" * (MB // 9)),
    "a template of 1 MB": ("templates", ".txt", lambda: b"{subject} is {value}" + b"[" * MB),
    "a question of 1 MB": ("questions", ".txt", lambda: b"capital\t" + b"{subject} " * (MB // 10)),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", MONSTERS)
def test_monsters(fuzzer: ModuleType, tmp_path: Path, what: str) -> None:
    name, ending, make = MONSTERS[what]
    path, data = tmp_path / f"f{ending}", make()
    path.write_bytes(data)
    with fuzzer.watched():
        assert fuzzer.tried(name, path, data) in ("taken", "refused")


@pytest.mark.slow
def test_a_parquet_of_a_few_megabytes_that_unfolds_to_60_gigabytes(fuzzer: ModuleType, tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), pa.array(["y" * 1_000_001]))
    pq.write_table(pa.table({"name": [f"n{i}" for i in range(60_000)], "text": texts}), tmp_path / "f.parquet")
    with fuzzer.watched():
        assert fuzzer.tried("facts parquet", tmp_path / "f.parquet", b"") == "refused"
