"""The page of teaching: its headline follows the intervals, and says what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.synthetic import write_json

from engramlab.report import write_report
from engramlab.report.experiments import teaching
from engramlab.report.rows import read_run


def write_run(path: Path, *, after: tuple[float, float, float] = (0.6, 0.5, 0.7)) -> None:
    """A run of two arms; ``after``: share and interval of what is asked of the others in held-out wordings."""

    def row(arm: str, group: str, part: str, share: tuple[float, float, float]) -> dict[str, Any]:
        names = dict(zip(("share", "low", "high"), share, strict=True))
        return {"arm": arm, "group": group, "wordings": part, "kind": "any", **names, "subjects": 20, "facts": 60}

    rows = [
        row(arm, group, part, share)
        for arm, share in (("untouched", (0.01, 0.0, 0.03)), ("augmented+questions", after))
        for group in ("unasked", "asked")
        for part in ("held-out", "trained")
    ]
    write_json(
        path / "summary.json",
        {
            "experiment": "teaching",
            "seed": 0,
            "seconds": 61.0,
            "kept_arm": "augmented+questions",
            "rows": rows,
            "chosen": {
                "rate": 1e-3,
                "encounters": 40,
                "low": 30,
                "high": 60,
                "drifted": True,
                "tried": [{"rate": 1e-3, "gain": 2.0, "share": 0.2, "drift": 0.01}],
            },
            "kept": [
                {
                    "arm": "augmented+questions",
                    "group": "native",
                    "right_before": 40,
                    "lost": 3,
                    "won": 1,
                    "facts_lost": 2,
                    "facts_won": 0,
                    "p": 0.5,
                },
                {"arm": "single", "group": "native", "right_before": 40, "lost": 3, "won": 1, "p": 0.625},
            ],
            "edited": {
                "method": "memit",
                "edits": 32,
                "failed": 1,
                "recited": 0.91,
                "recited_low": 0.81,
                "recited_high": 1.0,
            },
            "drift": [{"arm": "augmented+questions", "text": "replayed kind", "before": 2.5, "nats": 0.04}],
            "training": [
                {
                    "dataset": "augmented+questions",
                    "stage": "train",
                    "steps": 9,
                    "tokens": 900,
                    "loss": 1.0,
                    "seconds": 5.0,
                }
            ],
        },
    )
    write_json(path / "config.json", {"experiment": "teaching", "config": {"encounters": 5}})


def test_the_headline_tells_the_result_its_control_and_its_cost(tmp_path: Path) -> None:
    write_run(tmp_path)
    said = teaching.headline([read_run(tmp_path)]).replace("\u00a0", " ")
    cells = next(
        table.rows
        for table in teaching.terminal(read_run(tmp_path).summary)
        if table.caption == "What the model knew before"
    )
    assert [row[2:] for row in cells] == [["40", "3", "1", "2", "0", "0.5"], ["40", "3", "1", "–", "–", "–"]]
    for part in ("60.0 %", "more than the 1.0 % before", "of 40 right answers", "3 were lost", "+0.04 nats"):
        assert part in said
    page = write_report([tmp_path], tmp_path / "page.html").read_text()
    assert "subjects whose questions were never trained" in page
    assert "at every rate: the one given stays. 40 texts a subject (30 to 60)" in page


def test_replies_that_name_the_object_have_a_table_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path)
    summary = read_run(tmp_path).summary
    titles = [table.caption for table in teaching.terminal(summary)]
    assert "Replies that name the object anywhere" not in titles  # of an older version
    rows = [{**row, "named": 0.8, "named_low": 0.7, "named_high": 0.9} for row in summary["rows"]]
    (recited,) = [t for t in teaching.terminal(summary) if t.caption.startswith("Edited facts")]
    assert recited.rows == [["memit", "32", "1", "91.0\xa0% (81 to 100)"]]
    without = teaching.terminal({**summary, "edited": None})  # a run without such an arm
    assert not [t for t in without if t.caption.startswith("Edited facts")]
    (named,) = [t for t in teaching.terminal({**summary, "rows": rows}) if t.caption.startswith("Replies")]
    assert [str(cell).replace("\u00a0", " ") for cell in named.rows[1]] == [
        "augmented+questions",
        "80.0 % (70 to 90)",
        "–",
        "80.0 % (70 to 90)",
    ]


def test_what_ended_early_was_left_out_or_is_untested_is_said(tmp_path: Path) -> None:
    write_run(tmp_path)
    plain = read_run(tmp_path).summary
    assert not [t for t in teaching.terminal(plain) if t.caption.startswith("Ended early")]
    assert "untested" not in teaching.headline([read_run(tmp_path)])
    training = [{**plain["training"][0], "stopped": "unseen text had become less likely"}]
    summary = {**plain, "training": training, "budget": 2000, "left_out": {"edit": "the loss is NaN"}, "finished": True}
    write_json(tmp_path / "summary.json", {k: v for k, v in summary.items() if k != "sha256"})
    (table,) = [t for t in teaching.terminal(summary) if t.caption.startswith("Ended early")]
    assert table.rows == [
        ["augmented+questions", "ended after 900 of 2,000 tokens", "unseen text had become less likely"],
        ["edit", "left out", "the loss is NaN"],
    ]
    assert "which is untested: nobody is left to ask about" in teaching.headline([read_run(tmp_path)])
    page = write_report([tmp_path], tmp_path / "page.html").read_text()
    for said in ("ended after 900 of 2,000 tokens", "the loss is NaN", "untested"):
        assert said in page


def test_what_noise_may_hide_is_not_called_more(tmp_path: Path) -> None:
    write_run(tmp_path, after=(0.04, 0.0, 0.08))
    assert "within noise of the 1.0" in teaching.headline([read_run(tmp_path)]).replace("\u00a0", " ")
