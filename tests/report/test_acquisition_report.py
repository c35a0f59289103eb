"""The page of knowledge acquisition: curves, bars, fits, tables, facts to pick; several runs; hostile text; nothing yet."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from tests.report.test_page import HOSTILE, Page, render, strings
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report

DEPTHS = ("memorization", "semantic", "compositional")


def write_run(
    path: Path, parts: tuple[str, ...] = ("tiny",), *, text: str = "The town is", finished: bool = True
) -> Path:
    """A run in which memorization gains most and duplicates decay fastest; compositional curves never decay."""
    path.mkdir(parents=True)
    write_json(path / "config.json", {"experiment": "knowledge-acquisition", "config": {"seed": 0}, "command": text})
    if not finished:
        return path
    rows: list[dict[str, Any]] = []
    for part in parts:
        curves, kept, facts = [], [], []
        for group in ("duplicate", "paraphrase", "never"):
            for k, depth in enumerate(DEPTHS):
                row: dict[str, Any] = {"dataset": part, "group": group, "depth": depth, "queries": 10, "passages": 2}
                gain = 0.9 - 0.2 * k if group != "never" else 0.1
                row |= {"effectivity": gain, "effectivity_low": gain - 0.1, "effectivity_high": gain + 0.1}
                row |= {"by_encounter": [gain + 0.1, gain - 0.1], "before": -4.0, "after": -3.5, "final_gain": 0.5}
                if group != "never":
                    row |= {
                        "effectivity_net": gain - 0.1,
                        "effectivity_net_low": gain - 0.3,
                        "effectivity_net_high": gain,
                    }
                    a = 0.3 if group == "duplicate" else 0.2
                    row |= {"decay_constant": a, "decay_low": a - 0.1, "decay_high": a + 0.1, "stderr": 0.01}
                    row |= {"intercept": 0.9, "r_squared": 0.9, "undefined": 1, "outliers_mean": 0.5}
                    infinite = depth == "compositional"
                    for name in ("threshold_steps", "threshold_steps_low", "threshold_steps_high"):
                        row[name] = "infinite" if infinite else 1000.0
                    row |= {"threshold_tokens": "infinite" if infinite else 4.1e6}
                    row["log10_threshold_tokens"] = None if infinite else 6.61
                    kept.append({"group": group, "depth": depth, "t": [1, 10, 100], "r": [0.9, 0.6, None]})
                    kept[-1]["r"][2] = 0.3
                rows.append(row)
                marks = [0, 10] if group != "never" else []
                curves.append(
                    {"group": group, "depth": depth, "x": [0, 1, 10, 20], "y": [0, gain, 0.2, 0.4], "injections": marks}
                )
                for passage in ("p1", text):
                    fact = {"passage": passage + group, "group": group, "depth": depth, "prompt": text, "target": text}
                    fact |= {"injections": marks, "y": [-4.0, -3.0, -3.5], "t_lam": [5] if marks else []}
                    facts.append(fact | {"y_lam": [-3.0] if marks else []})
        document = {"dataset": part, "curves": curves, "retainability": kept, "fact_steps": [0, 5, 20], "facts": facts}
        document["texts"] = {"p1duplicate": "The town was founded in 1723."}
        write_json(path / part / "curves.json", document)
    optimizer = {"moments": "restored with the checkpoint", "first_rate": 1e-3, "last_rate": 1e-3}
    about = {
        "model": "tiny",
        "batch": 16,
        "window": 256,
        "interval": 10,
        "steps": 20,
        "base": 10.0,
        "optimizer": optimizer,
    }
    summary = {
        "experiment": "knowledge-acquisition",
        "seed": 0,
        "seconds": 12.0,
        "choices": {"window of a maximum (t_w)": 50, "log-probability of a target": "mean over its tokens"},
        "parts": [{"dataset": part, **about} for part in parts],
        "rows": rows,
        "training": [
            {"dataset": part, "stage": "injection", "steps": 20, "tokens": 1000, "loss": 2.0, "seconds": 9.0}
            for part in parts
        ],
    }
    write_json(path / "summary.json", summary)
    return path


def test_the_page_shows_everything_the_issue_asks_for(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "run"))
    for words in (
        "Rise at each encounter",
        "Effectivity",
        "retainability against log t",
        "One passage",
        "What was chosen",
    ):
        assert words in page.text
    assert "0.300 (0.200 to 0.400)" in page.text  # a decay constant with its interval
    assert "0.80 (0.60 to 0.90)" in page.text  # effectivity above the control
    assert "1,000 (1,000 to 1,000)" in page.text  # a threshold
    assert "∞" in page.text
    assert "mean over its tokens" in page.text
    assert "0.300 (0.200 to 0.400), paraphrases 0.200 (0.100 to 0.300) within noise" in page.text
    assert "effectivity: memorization > semantic > compositional duplicate" in page.text
    assert "gains, above the control that was not injected, in nats: memorization +0.80 (0.60 to 0.90)" in page.text
    assert "duplicate: p1duplicate. Log-probabilities" in page.text  # questions beside their curves
    assert "The town was founded in 1723." in page.text  # and the text
    assert "restored with the checkpoint" in page.text
    menus = [menu for figure in page.figures for menu in figure["layout"].get("updatemenus", [])]
    assert len(menus) == 1
    assert len(menus[0]["buttons"]) == 6


def test_injections_are_marked_in_every_curve(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "run"))
    curves = [f for f in page.figures if "Δ log-probability" in json.dumps(f["layout"], ensure_ascii=False)]
    assert len(curves) == 3
    for figure in curves:
        assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [0, 10]


def test_several_runs_and_parts_are_compared(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", ("tiny-batch16", "tiny-batch64"))
    page = render(tmp_path, one, write_run(tmp_path / "two"))
    for name in ("one: tiny-batch16", "one: tiny-batch64", "two"):
        assert name in page.text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    clean = render(tmp_path / "a", write_run(tmp_path / "a" / "run"))
    page = render(tmp_path / "b", write_run(tmp_path / "b" / "run", text=HOSTILE))
    assert page.scripts == clean.scripts
    assert not any(tag == "img" for tag, _ in page.elements)
    assert not [text for figure in page.figures for text in strings(figure) if "<script" in text]


def test_a_run_that_has_not_ended_says_so(tmp_path: Path) -> None:
    page: Page = render(tmp_path, write_run(tmp_path / "run", finished=False))
    assert "unfinished" in page.text


def test_the_terminal_has_both_tables(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    out = io.StringIO()
    print_summary(json.loads((run / "summary.json").read_text()), Console(file=out, width=140))
    assert "0.90 (0.80 to 1.00)" in out.getvalue()
    assert "0.80 (0.60 to 0.90)" in out.getvalue()  # above the control
    assert "0.300 (0.200 to 0.400)" in out.getvalue()


def test_many_passages_do_not_make_a_page_heavy(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    document = json.loads((run / "tiny" / "curves.json").read_text())
    [fact, *_] = document["facts"]
    steps = list(range(130))
    document["facts"] = [
        {
            **fact,
            "passage": f"p{k}",
            "prompt": "What is it? " * 9,
            "y": [-3.14159 - i / 9 for i in steps],
            "depth": DEPTHS[q % 3],
        }
        for k in range(160)
        for q in range(15)
    ]
    write_json(run / "tiny" / "curves.json", {**document, "fact_steps": steps})
    page = write_report([run], tmp_path / "page.html")
    assert page.stat().st_size < 1_500_000
    assert "more passages" in page.read_text()


def test_claims_of_the_paper_come_out_or_do_not(tmp_path: Path) -> None:
    """Two parts at batches 8 and 32: the small one gains more, forgets faster, and composition most."""
    run = write_run(tmp_path / "run", ("small", "large"))
    summary = json.loads((run / "summary.json").read_text())
    for part, batch in zip(summary["parts"], (8, 32), strict=True):
        part |= {"batch": batch, "stage": 1.0, "rate": "continue", "optimizer": {**part["optimizer"], "parameters": 7}}
    for row in summary["rows"]:
        small, hard = row["dataset"] == "small", row["depth"] == "compositional"
        row |= {"effectivity_all": row["effectivity"], "effectivity_outliers": 2.0, "failed": [1, 2]}
        row |= {"by_encounter_lifted": [0.77], "written": 0.25, "written_low": 0.2, "written_high": 0.3}
        if row["group"] == "never":
            continue
        for name, value in (
            ("effectivity_net", 2.0 if small else 1.0),
            ("decay", (0.9 if hard else 0.4) if small else 0.2),
        ):
            key = "decay_constant" if name == "decay" else name
            row |= {key: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
        if row["group"] == "paraphrase":
            row |= {"effectivity": 0.2, "effectivity_low": 0.1, "effectivity_high": 0.3}
            row |= {"poor_fit": 1.0, "decay_constant": None, "decay_low": None, "decay_high": None}
    seen = {"compared": "tiny: duplicate beside paraphrase", "depth": "semantic", "detectable": 0.125, "aim": 0.1}
    summary["power"] = [
        seen | {"passages": 40, "passages_needed": 62.5, "rows": 8, "quieter": 1.5625, "steps_needed": None}
    ]
    write_json(run / "summary.json", summary)
    page = render(tmp_path, run)
    assert "a smaller batch gains more from an encounter duplicate, differences: memorization +1.000" in page.text
    for claim in ("gains more from an encounter", "forgets faster", "hurts composition most"):
        row = next(part for part in page.text.split("small beside large")[1:] if claim in part and "duplicate" in part)
        assert "as in the paper" in row, claim
    assert "duplicates have a larger mean effectivity than paraphrases, at all depths" in page.text
    assert "poor fit" in page.text
    assert "0.25 (0.20 to 0.30)" in page.text or "0.250 (0.200 to 0.300)" in page.text
    assert "What this run could show" in page.text
    assert "0.125" in page.text


def test_a_claim_about_all_is_so_only_where_every_part_of_it_is() -> None:
    from engramlab.report.parts.verdicts import NOISE, NOT_SO, SO, UNKNOWN, Interval, every, less

    assert every([SO, SO]) == SO
    assert every([SO, NOISE]) == NOISE
    assert every([NOISE, NOT_SO, UNKNOWN]) == NOT_SO
    assert every([]) == UNKNOWN
    found = less(Interval(5, 2, 9), Interval(1, -2, 5))  # half-widths 3 and 4 below, 4 and 3 above
    assert found == Interval(4, -1, 9)


def write_popularity(path: Path) -> Path:
    """What `engramlab plan --popularity` keeps."""
    path.mkdir(parents=True)
    write_json(path / "config.json", {"experiment": "knowledge-popularity", "config": {"seed": 0}})
    of = {"depth": "semantic", "condition": "each time in the same words", "learnt": 0.25}
    row = of | {"statements": 10, "interval": 100.0, "gain": 0.5, "needed": 1.0}
    shares = [of | {"half": 20, "threshold": "infinite"}]
    summary = {"experiment": "knowledge-popularity", "seed": 0, "rows": [row, row | {"statements": 100}]}
    write_json(path / "summary.json", summary | {"shares": shares, "poor": ["once semantic"]})
    return path


def test_the_page_of_popularity(tmp_path: Path) -> None:
    page = render(tmp_path, write_popularity(tmp_path / "run"))
    assert "each time in the same words 25.0%" in page.text
    assert "section 4.4" in page.text
    assert "poor fit: once semantic" in page.text
