"""The page of the lifecycle of facts: headlines keep to intervals and controls; every table is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.synthetic import write_json

from engramlab.report import write_report
from engramlab.report.experiments import fact_lifecycle
from engramlab.report.rows import read_run


def write_run(
    path: Path, *, name: tuple[float, float, float] = (0.6, 0.5, 0.7), right: float = 0.4, noted: bool = True
) -> None:
    """A run of all parts; ``name``: share and interval of names read as the new object; ``right``: what the name's probes read
    right, where the commonest object is 0.19; ``noted``: does the run say itself what can be read?"""
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
        | ({"readable": right - 0.04 > 0.19 or place != "name"} if noted else {})
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
        | ({"reliability_unedited": 0.0, "generality_unedited": 0.1} if noted else {})
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
            "probes": [
                {"place": place, "layer": layer, "majority": 0.19}
                | (ends("accuracy", accuracy, 0.04) if noted else {"accuracy": accuracy})
                for place, accuracy in (("name", right), ("end of the prompt", 0.8))
                for layer in (0, 1)
            ],
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
    assert page.count("unedited</") == 2


def test_what_noise_may_hide_is_not_called_more(tmp_path: Path) -> None:
    write_run(tmp_path, name=(0.08, 0.0, 0.16))
    assert "within noise of a third object's" in fact_lifecycle.headline([read_run(tmp_path)])


@pytest.mark.parametrize("noted", [True, False])
def test_where_the_probe_is_no_better_than_the_commonest_object_nothing_is_read(tmp_path: Path, noted: bool) -> None:
    write_run(tmp_path, right=0.14, noted=noted)
    run = read_run(tmp_path)
    said = fact_lifecycle.headline([run]).replace("\u00a0", " ")
    assert "Names cannot be read here" in said
    assert "14.0 % of held-out subjects right, not surely more than the commonest object's 19.0 %" in said
    assert "read as the new object" not in said
    read = {cells[1]: cells[3:] for cells in fact_lifecycle.name_cells(run.summary)}
    assert read["name"] == ["cannot be read here", "–", "–", "–", "–"]
    assert read["end of the prompt"][0].startswith("0.60")
    (table,) = (table for table in fact_lifecycle.terminal(run.summary) if "read at" in table.columns)
    assert "cannot be read here" in str(table.rows)
    assert "cannot be read here" in write_report([tmp_path], tmp_path / "page.html").read_text()


def test_runs_that_do_not_say_what_can_be_read_are_judged_by_their_probes(tmp_path: Path) -> None:
    write_run(tmp_path, noted=False)
    assert "memit 60.0" in fact_lifecycle.headline([read_run(tmp_path)])


def test_where_nothing_lies_below_an_edit_nothing_is_said_of_it() -> None:
    row = {"method": "lora", "edits": 4, "failed": 0, "written": 1.0, "written_held": 0.5}
    said = [
        fact_lifecycle.edit_cells({"name_edits": [{**row, "same_below": same}]})[0][-1] for same in (True, False, None)
    ]
    assert said == ["yes", "no", "–"]


def test_curves_of_the_controls_are_drawn_beside_the_main_ones(tmp_path: Path) -> None:
    write_run(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    for training, weights, stream in (
        ("all weights, sampled", "all", "sampled"),
        ("others weights, fictional", "others", "fictional"),
    ):
        summary["courses"] += [
            {**row, "training": training, "weights": weights, "stream": stream}
            for row in summary["courses"]
            if row["training"] == "all weights, fictional"
        ]
    write_json(tmp_path / "summary.json", summary)
    (section,) = (one for one in fact_lifecycle.sections([read_run(tmp_path)]) if one.title == "While training goes on")
    titles = [title for title, _ in section.blocks[0].figures]  # type: ignore[union-attr]
    for training in ("all weights, fictional", "all weights, sampled", "others weights, fictional"):
        assert [f"{what}, {training}" for what in ("Retention", "Facts still written", "Margin kept")] == [
            title for title in titles if training in title
        ]
