"""The page of the lifecycle of facts: headlines keep to intervals and controls; every table is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.synthetic import write_json

from engramlab.report import write_report
from engramlab.report.experiments import fact_lifecycle
from engramlab.report.rows import read_run


def write_run(path: Path, *, name: tuple[float, float, float] = (0.6, 0.5, 0.7)) -> None:
    """A run of all parts; ``name``: share and interval of names read as the new object."""
    about = {"training": "all weights, fictional", "weights": "all", "stream": "fictional"}

    def ends(what: str, value: float, wide: float = 0.1) -> dict[str, float]:
        return {what: value, f"{what}_low": value - wide, f"{what}_high": value + wide}

    counts = {"facts": 24, "left_out": 1, "written": 20}
    half = [
        {"arm": "memit", **about, **counts, **ends("half", 16.0, 4.0), "censored": False},
        {"arm": "ft-m", **about, **counts, "half": None, "half_low": None, "half_high": None, "censored": True},
        {"arm": "native", **about, **counts, "half": None, "censored": None},
    ]
    courses = [
        {
            "arm": row["arm"],
            **about,
            "steps": t,
            **ends("retention", 1 - t / 100),
            **ends("survival", 0.9),
            **ends("margin", 0.8),
        }
        for row in half
        for t in (0, 1, 64)
    ]
    matched = [
        {
            "arm": "memit",
            "other": "ft-m",
            **about,
            "pairs": 9,
            "unmatched": 15,
            "difference": -0.3,
            "low": -0.4,
            "high": -0.2,
        }
    ]
    share: dict[str, Any] = dict(zip(("new", "new_low", "new_high"), name, strict=True))
    read = [
        {
            "method": "memit",
            "place": place,
            "layer": layer,
            "subjects": 30,
            **share,
            **ends("old", 0.2),
            **ends("random", 0.05, 0.04),
        }
        | {"neither": 0.2, "beside": 0.97}
        for place in ("name", "end of the prompt")
        for layer in (0, 1)
    ]
    wordings = [
        {
            "method": "memit",
            "kind": kind,
            "wordings": k,
            "protocol": protocol,
            "cases": 24,
            "failed": 0,
            "old": 0.4,
            "old_before": 0.9,
        }
        | {
            **ends("reliability", 0.9, 0.05),
            **ends("generality", value),
            **ends("portability", 0.2),
            **ends("portability one-hop", 0.1),
        }
        | ends("locality", 0.8)
        for kind, k, value in (("wordings", 1, 0.3), ("wordings", 16, 0.7), ("copies", 16, 0.3))
        for protocol in ("generated", "teacher_forced")
    ]
    write_json(
        path / "summary.json",
        {
            "experiment": "fact-lifecycle",
            "seed": 0,
            "seconds": 61.0,
            "half_life": half,
            "courses": courses,
            "matched": matched,
            "name": read,
            "name_edits": [
                {"method": "memit", "edits": 40, "failed": 0, "written": 0.9, "written_held": 0.4, "same_below": True}
            ],
            "probes": [{"place": "name", "layer": 0, "accuracy": 0.4, "majority": 0.1}],
            "wordings": wordings,
        },
    )
    write_json(path / "config.json", {"experiment": "fact-lifecycle", "config": {"steps": 64}})


def test_headlines_keep_to_intervals_and_controls(tmp_path: Path) -> None:
    write_run(tmp_path)
    said = fact_lifecycle.headline([read_run(tmp_path)]).replace("\u00a0", " ")
    for part in (
        "memit 16 (12 to 20)",
        "ft-m over 64",
        "ft-m keeps more than memit",
        "memit 60.0 %, more than a third object's 5.0 %",
        "memit 70.0 %, more than the 30.0 % of as many copies",
    ):
        assert part in said
    page = write_report([tmp_path], tmp_path / "page.html").read_text()
    for part in ("Facts that are alike", "Did the edit reach the name?", "one-hop", "another wording"):
        assert part in page


def test_what_noise_may_hide_is_not_called_more(tmp_path: Path) -> None:
    write_run(tmp_path, name=(0.08, 0.0, 0.16))
    assert "within noise of a third object's" in fact_lifecycle.headline([read_run(tmp_path)])
