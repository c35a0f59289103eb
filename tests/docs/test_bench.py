"""All benches run one after another, each in its time, and their rows become the table."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = """
import sys
sys.path.insert(0, {bench!r})
from _options import compared, options
options(__doc__)
compared("sums", "1 s", "by hand: 3 s", 3.0, aim=4, why="3 additions at 1 s")
compared("products", "1 s", "by hand: 3 s", 3.0, aim=4, why="3 products: at most 12.0x", bound=12.0)
"""


def test_each_bench_has_its_time_and_gives_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "benches", tmp_path / "bench.json"
    folder.mkdir()
    (folder / "bench_a.py").write_text(GOOD.format(bench=str(ROOT / "bench")))
    (folder / "bench_b.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    (folder / "bench_c.py").write_text("raise SystemExit(3)\n")
    (folder / "bench_large.py").write_text("raise SystemExit('wants a GPU')\n")  # which is run by hand
    command = [sys.executable, str(ROOT / "bench" / "run_all.py"), "--folder", str(folder), "--out", str(out)]
    subprocess.run([*command, "--minutes", "0.15"], check=True, capture_output=True)
    kept = json.loads(out.read_text())
    assert [one["script"] for one in kept["benches"]] == ["bench_a.py", "bench_b.py", "bench_c.py"]
    assert [one["problem"].partition(" after")[0] for one in kept["benches"]] == ["", "not at its end", "ended with 3"]
    assert kept["benches"][1]["said"] == ["begun"]
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    drawn = runpy.run_path(str(ROOT / "results" / "bench_table.py"))["bench"]
    table = drawn(out)
    assert "| sums | 1 s | by hand: 3 s | 3.0× | 4× | `bench/bench_a.py` |" in table
    assert "- sums: 3 additions at 1 s\n" in table
    assert "- products: 3 products: at most 12.0x, of which 25% is reached" in table
    assert "(ended with 3)" in table
    (folder / "bench_c.py").write_text("print('all is well')\n")
    subprocess.run([*command, "--minutes", "1", "--only", "bench_c.py"], check=True, capture_output=True)
    again = json.loads(out.read_text())["benches"]
    assert again[:2] == kept["benches"][:2]
    assert (again[2]["script"], again[2]["problem"]) == ("bench_c.py", "")
    assert drawn(tmp_path / "none.json") == "Not measured with this version: `make bench`."


def test_every_plan_names_a_bench_and_options_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    plans = runpy.run_path(str(ROOT / "bench" / "run_all.py"))["PLANS"]
    for name, (given, _) in plans.items():
        text = (ROOT / "bench" / name).read_text()
        for option in given[::2]:
            assert f'"{option}"' in text or f"{option[2:].replace('-', '_')}=" in text, (name, option)


def test_figures_of_a_gpu_say_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    monkeypatch.setattr(sys, "argv", ["bench/bench_large.py", "--cases", "2"])
    tables = runpy.run_path(str(ROOT / "results" / "bench_table.py"))
    kept, file = runpy.run_path(str(ROOT / "bench" / "_options.py"))["kept"], tmp_path / "edits.json"
    rows = [{"method": "ft-m", "alone": 1.0, "together": 0.25, "memory": 3 * 2**30, "statistics": 0.0}]
    kept(file, parameters=7_000_000_000, edits=8, queries_a_second=5.7, methods=rows)
    document = json.loads(file.read_text())
    assert document["command"] == "python bench/bench_large.py --cases 2"
    assert document["versions"]["torch"]
    file.write_text(json.dumps(document | {"versions": document["versions"] | {"gpu": "a card"}, "commit": "abc"}))
    table = tables["gpu_edits"](file)
    assert "| `ft-m` | 1.00 s | 0.25 s | 4.00 | 3.0 GiB |" in table
    assert "7.00 G random parameters" in table
    assert f"a card, torch {document['versions']['torch']}, at abc: `python bench/bench_large.py --cases 2`." in table
    steps = [{"size": "x", "side": "compiled", "seconds": [0.1, 0.2, 0.3], "tokens_a_second": 1_000_000, "share": 0.25}]
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"peak_tflops": 1000.0, "batch": 2, "context": 10, "steps": steps})
    )
    table = tables["gpu_training"](file)
    assert "| `x`, 2 × 10 | engramlab, compiled | 200.0 ms | 1,000,000 | 25.0 % | 0.0 h |" in table
    assert "bf16, 250 M operations a token" in table  # a quarter of 1000 TFLOP/s over a million tokens a second
