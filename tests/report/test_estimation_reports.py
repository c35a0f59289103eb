"""Pages and terminal tables of audit and estimation, from small summaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report
from engramlab.report.experiments import fact_audit
from engramlab.report.page import read_runs

CLASSES = fact_audit.CLASSES


def audit_row(part: str = "", **more: Any) -> dict[str, Any]:
    counts = dict(zip(CLASSES, (2, 1, 3, 2, 1), strict=True))
    shares = {f"at_least_{name}": 0.5 for name in CLASSES[:-1]}
    ends = {f"{name}_{end}": value for name in shares for end, value in (("low", 0.4), ("high", 0.6))}
    nulls = {"at_least_recognised_null": 0.05, "at_least_recognised_corrected": 0.47}
    common = {"dataset": "home", "relation": "home", "part": part, "facts": 10, "guessable": 1, "majority": 0.2}
    return {**common, **counts, **shares, **ends, **nulls, "contradicted": 1, "unaskable": 0, **more}


def write_audit(path: Path, beside: bool = True) -> None:
    rows = [audit_row(), audit_row("beside", extractable=0, unknown=3)] if beside else [audit_row()]
    moved = {"subject": "<b>Zor</b>", "relation": "home", "object": "x", "from": "extractable", "to": "unknown"}
    compared = {
        "facts": 9,
        "classes": [[int(i == j) for j in range(5)] for i in range(5)],
        "tests": [{"at_least": name, "won": 0, "lost": 2, "p": 0.5} for name in CLASSES[:-1]],
        "won": [],
        "lost": [moved],
    }
    summary = {"experiment": "fact-audit", "seed": 0, "seconds": 3.0, "model": "models/one.gguf", "rows": rows}
    ends = {f"at_least_{name}{end}": 0.5 for name in CLASSES[:-1] for end in ("", "_low", "_high")}
    rows[0] |= {"probe_accuracy": 0.6, "probe_low": 0.5, "probe_high": 0.7, "probe_majority": 0.2, "probe_passes": True}
    counts = {"facts": 9, "one": 4, "other": 3, "both": 1, "agree": 1 / 6}
    summary["agreement"] = [{"part": "", "ways": "written, ranked", **counts}]
    summary["popularity"] = [{"part": "", "group": k, "facts": 9, "least": k, "most": 10**k, **ends} for k in (1, 2)]
    write_json(path / "summary.json", summary | ({"beside": "two", "compared": compared} if beside else {}))
    write_json(path / "config.json", {"experiment": "fact-audit", "config": {"seed": 0}})
    (path / "facts.csv").write_text(
        "subject,relation,object,class,written,rank,said,contradicted\n<script>,home,x,latent,0.0,0.9,y,\nb,home,z,unknown,0,0,y,\n"
    )


def estimation_row(way: str = "list", shown: int = 0, accuracy: float = 0.5, **more: Any) -> dict[str, Any]:
    common = {
        "dataset": "home",
        "relation": "home",
        "way": way,
        "shown": shown,
        "control": None,
        "place": None,
        "wording": None,
    }
    counts = {"draws": 2, "subjects": 20, "options": 5, "ties": 0}
    shares = {
        "chance": 0.2,
        "majority": 0.3,
        "accuracy": accuracy,
        "low": accuracy - 0.1,
        "high": accuracy + 0.1,
        "mass": 0.4,
    }
    return {**common, **counts, **shares, "draw_low": 0.4, "draw_high": 0.6, **more}


def write_estimation(path: Path) -> None:
    rows = [
        *(estimation_row(shown=n, accuracy=a) for n, a in ((0, 0.2), (1, 0.4), (20, 0.7))),
        estimation_row(shown=20, accuracy=0.6, control="incorrect", place="end"),
        estimation_row("wording", accuracy=0.3, wording="{subject} <lives> in"),
    ]
    write_json(
        path / "summary.json",
        {"experiment": "knowledge-estimation", "seed": 0, "seconds": 2.0, "model": "m", "rows": rows},
    )
    write_json(path / "config.json", {"experiment": "knowledge-estimation", "config": {"seed": 0}})


def test_the_page_of_an_audit(tmp_path: Path) -> None:
    write_audit(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "one.gguf: of 9 facts that cannot be guessed, 22.2" in page
    assert "chance would give 5.0" in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;Zor" in page
    assert 'class="long"' in page
    assert "Lost: 1 facts" in page
    assert ">contradicted<" not in page.partition("Fact by fact")[2]  # of nobody
    assert len(page) < 1_500_000


def test_the_headline_of_one_model_speaks_of_it_alone(tmp_path: Path) -> None:
    write_audit(tmp_path / "run", beside=False)
    (run,) = read_runs([tmp_path / "run"])
    assert fact_audit.headline([run]).count("of 9 facts") == 1
    assert not any(section.title.startswith("What the second") for section in fact_audit.sections([run]))


def test_the_page_of_an_estimation(tmp_path: Path) -> None:
    write_estimation(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "home: 70.0" in page
    assert "lists find more" in page
    assert "{subject} &lt;lives&gt; in" in page


@pytest.mark.parametrize("write", [write_audit, write_estimation])
def test_eighty_columns(tmp_path: Path, write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    write(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "home" in said
