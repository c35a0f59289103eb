"""The pages of knowledge editing and of token overfitting: both protocols, several runs, hostile text, few cases."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tests.report.test_page import HOSTILE, Page, render, strings
from tests.support.synthetic import write_json

from engramlab.base.errors import UserError
from engramlab.report import print_summary, write_report
from engramlab.report.experiments import knowledge_editing
from engramlab.report.parts.cases import MOST_CASES, leaves
from engramlab.report.parts.judged import gain
from engramlab.report.rows import read_runs

ROLES = ("reliability", "generality", "portability", "locality")


def query(case: int, k: int, role: str, after: str, text: str, good: bool) -> dict[str, Any]:
    tokens = [" Wash", "ington"]
    row = {"case": f"case{case}", "query": k, "role": role, "group": "" if k < 2 else f"{role} kind"}
    row |= {"prompt": f"{text} {case} {k}", "target": "Washington", "aliases": ["D.C.", text]}
    row |= {"teacher_forced": 1.0 if good else 0.5, "generated": float(good) if role != "generality" else None}
    row |= {"written_before": "Paris", "written_after": after, "tokens": tokens}
    for when, shift in (("before", -4.0), ("after", -0.25)):
        row |= {f"logprobs_{when}": [shift, shift / 2], f"ranks_{when}": [3, 0], f"greedy_{when}": [False, True]}
        row |= {f"predicted_{when}": [text, "ington"]}
    return row


def write_run(
    path: Path,
    methods: Mapping[str, Sequence[str]],
    *,
    counts: Sequence[int] = (1,),
    cases: int = 3,
    text: str = "The capital of France",
    finished: bool = True,
) -> Path:
    """A run of these methods, each under its losses; OVERTONE is 5 points better, and surely so for portability."""
    setting = "single" if tuple(counts) == (1,) else "continual"
    config = {"model": text, "benchmark": "world", "setting": setting}
    write_json(path / "config.json", {"experiment": "knowledge-editing", "config": config, "command": text})
    rows, differences, quality = [], [], []
    for method, losses in methods.items():
        for loss in losses:
            judged = []
            for count in counts:
                for protocol, level in (("teacher-forced", 0.9), ("generated", 0.6)):
                    more = 0.05 if loss == "overtone" else 0.0
                    shares = {role: level + more - 0.1 * i - 0.001 * count for i, role in enumerate(ROLES)}
                    row = {"method": method, "loss": loss, "edits": count, "protocol": protocol, **shares}
                    row |= {"mean": level + more - 0.15, "portability:one-hop": 0.31, "locality:Forgetfulness": 0.77}
                    row |= {"cases": cases, "failed": 1, "seconds_per_edit": 0.123}
                    rows.append(row)
                    if loss == "overtone":
                        about = {"method": method, "loss": loss, "edits": count, "protocol": protocol}
                        for role in (*ROLES, "mean"):
                            low = 0.01 if role == "portability" else -0.02
                            differences.append({**about, "role": role, "difference": 0.05, "low": low, "high": 0.12})
                quality.append({"method": method, "loss": loss, "edits": count, "es": 0.5, "bp": 0.25, "eq": 1 / 3})
                if method == "ike":
                    quality[-1] |= {"recalled_in": 0.875, "recalled_out": 0.125, "options": 4, "sum_before": 0.25}
                    quality[-1] |= {"sum_after": 0.75, "mean_before": 0.5, "mean_after": 1.0}
                    quality[-1] |= {"behind_before": 0.125, "behind": 0.5, "behind_low": 0.25, "behind_high": 0.75}
                for case in range(cases):
                    about = {"method": method, "loss": loss, "setting": setting, "edits": count}
                    judged += [
                        {**about, **query(case, k, role, f"{method} {text}", text, good=k < 2)}
                        for k, role in enumerate(ROLES)
                    ]
            folder = path / method / loss
            folder.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(judged), folder / "rows.parquet")
    if finished:
        summary = {"experiment": "knowledge-editing", "seed": 0, "seconds": 12.0, "new_tokens": 8, **config}
        failed = [{"method": "ft-m", "loss": "overtone", "case": "case9", "reason": text}]
        skipped = [{"index": 7, "key": "prompt", "reason": text}]
        summary |= {"rows": rows, "differences": differences, "quality": quality, "failed": failed, "skipped": skipped}
        task = {"method": "ft-m", "loss": "overtone", "edits": 1, "task": text, "before": 0.5, "score": 0.25}
        summary["tasks"] = [task]
        summary["oddities"] = [{"text": f"edits whose new answer is the old one: 2 ({text})"}]
        write_json(path / "summary.json", summary)
    return path


def write_turns(path: Path, methods: Mapping[str, Sequence[str]], *, noted: bool = True) -> Path:
    """A run of edits in turns: what holds falls with age, and the model suffers with the number of edits; ``noted``: its order
    was drawn, and it says what it cost, how texts end, and which facts were lost and won, as older runs do not."""
    write_run(path, methods, counts=(100, 1000))
    for name in ("config.json", "summary.json"):
        path.joinpath(name).write_text(path.joinpath(name).read_text().replace('"continual"', '"turns"'))
    summary = json.loads((path / "summary.json").read_text())
    units = [{"method": method, "loss": loss} for method, losses in methods.items() for loss in losses]
    summary["ages"] = [
        {
            **unit,
            "edits": edits,
            "age": age,
            "role": role,
            "protocol": protocol,
            "share": 1 - age / 20,
            "unedited": 0.05,
        }
        for unit in units
        for edits in (100, 1000)
        for age in (1, 5, 10)
        for role in ("reliability", "generality")
        for protocol in ("teacher_forced", "generated")
    ]
    summary["damage"] = [
        {
            **unit,
            "edits": edits,
            "seconds_per_edit": 0.125,
            "statistics_seconds": 60.0,
            "nats_before": 2.5,
            "norm": 1.25,
        }
        | {"nats_more": edits / 1000, "twins": 7, "twins_same": 0.75, "twins_right": 0.0, "twins_right_before": 0.0}
        | {f"{what}_{when}": 0.2 for what in ("empty", "endless", "repeated") for when in ("before", "after")}
        | {"overwritten": 3, "overwritten_old": 0.25, "overwritten_newest": 0.5}
        | ({"device": "cpu", "peak_memory": 1_500_000_000, "stops_before": 0.5, "stops": 0.25} if noted else {})
        | ({"whole_before": 0.0, "whole": 0.2, "stops_asked": 20} if noted else {})
        | ({"fluency_before": 5.0, "fluency": 2.5} if noted else {})
        | ({"facts_asked": 9, "facts_right_before": 6, "facts_lost": 2, "facts_won": 1} if noted else {})
        for unit in units
        for edits in (100, 1000)
    ]
    write_json(path / "summary.json", summary | ({"order_seed": 3} if noted else {}))
    return path


BOTH = {"ft-m": ("cross-entropy", "overtone"), "ike": ("none",)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("demo")
    return render(path, write_run(path / "demo", BOTH))


def test_the_two_protocols_stand_apart(demo: Page) -> None:
    forced = "FT-M 89.9 94.9 +5.0 [−2.0, +12.0] 79.9 84.9 +5.0 [−2.0, +12.0] 69.9 74.9 +5.0 ▲ [+1.0, +12.0]"
    written = "FT-M 59.9 64.9 +5.0 [−2.0, +12.0] 49.9 54.9 +5.0 [−2.0, +12.0] 39.9 44.9 +5.0 ▲ [+1.0, +12.0]"
    first, second = demo.text.split("Generated: what the model writes by itself")
    assert forced in first
    assert written in second
    assert written not in first
    assert "method Rel. Gen. Por. Loc. mean IKE 89.9 79.9 69.9 59.9 75.0" in demo.text
    assert "FT-M with OVERTONE: 64.9 % (20–93) of 3 edits hold, 34.9 % of what must stay stays" in demo.text
    assert "portability with OVERTONE instead of cross-entropy, in points: FT-M +5.0 ▲." in demo.text
    assert "Each edit by itself FT-M OVERTONE 3 1 0.123" in demo.text
    assert "These runs make no sequence of edits." in demo.text


def test_what_the_unedited_model_answers_stands_first(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {"ft-m": ("cross-entropy", "overtone"), "ike": ("none",)})
    summary = json.loads((path / "summary.json").read_text())
    for row in summary["rows"]:
        level = 0.25 if row["protocol"] == "teacher-forced" else 0.125
        row |= {"reliability_unedited": level, "generality_unedited": level / 2, "portability_unedited": None}
    write_json(path / "summary.json", summary)
    page = render(tmp_path, path)
    first, second = page.text.split("Generated: what the model writes by itself")
    for text, shares in ((first, "25.0 {}12.5 {}– {}– {}–"), (second, "12.5 {}6.2 {}– {}– {}–")):
        assert "unedited model " + shares.format(*[""] * 4) in " ".join(text.split())
    assert "of the unedited model's answers 12.5 % are the new ones." in page.text
    tables = knowledge_editing.terminal(summary)[:2]
    assert [list(table.rows[0])[:5] for table in tables] == [
        ["unedited", "–", "25.0", "12.5", "–"],
        ["unedited", "–", "12.5", "6.2", "–"],
    ]


def test_runs_from_before_the_two_spellings_became_one_give_the_same_page(tmp_path: Path) -> None:
    pages = []
    methods = {"ft-m": ("cross-entropy", "overtone"), "grace": ("none",)}
    for name, write in (("editing", partial(write_run, methods=methods)), ("course", write_course)):
        for spelling in ("teacher-forced", "teacher_forced"):
            path = write(tmp_path / spelling / name) / "summary.json"
            path.write_text(path.read_text().replace("teacher-forced", spelling))
            page = write_report([path.parent], tmp_path / "page.html").read_text()
            pages.append((page.replace(str(path.parent), ""), printed(path.parent, 100)))
    assert pages[0] == pages[1]
    assert pages[2] == pages[3]
    assert all("teacher-forced (%)" in shown for _, shown in pages)


def test_edits_in_turns_by_age_and_what_became_of_the_model(tmp_path: Path) -> None:
    page = render(tmp_path, write_turns(tmp_path / "turns", BOTH))
    assert "Edits in turns, T = 1,000" in page.text
    assert "reliability after 1,000 edits, generated" in page.text
    assert "FT-M cross-entropy 1,000 8 60 2.5 1 1.25 20.0 → 20.0" in page.text
    assert "FT-M cross-entropy 100 7 75.0 0.0 → 0.0 3 25.0 50.0" in page.text
    assert "FT-M cross-entropy 100 1.5 50.0 → 25.0 0.0 → 20.0 500 → 250 9 6 2 1" in page.text
    assert "In every row, device: cpu" in page.text
    assert "The order of the edits was drawn anew, by seed 3; the same cases are judged" in page.text
    summary = json.loads((tmp_path / "turns" / "summary.json").read_text())
    table = knowledge_editing.terminal(summary)[-1]
    assert list(table.rows[0]) == ["FT-M", "100", "8", "cpu", "1.5", "50.0 → 25.0", "0.0 → 20.0", "6 / 2 / 1"]


def test_runs_in_turns_of_older_versions_are_read(tmp_path: Path) -> None:
    page = render(tmp_path, write_turns(tmp_path / "turns", BOTH, noted=False))
    assert "FT-M cross-entropy 1,000 8 60 2.5 1 1.25 20.0 → 20.0" in page.text
    assert "Peak memory" not in page.text
    assert "drawn anew" not in page.text
    summary = json.loads((tmp_path / "turns" / "summary.json").read_text())
    assert all("device" not in table.columns for table in knowledge_editing.terminal(summary))


def test_edit_quality_and_what_was_read_and_chosen(demo: Page) -> None:
    assert "FT-M cross-entropy 50.0 25.0 33.3 – – – – –" in demo.text
    behind = "12.5 → 50.0 [25.0, 75.0]"
    assert f"IKE – 50.0 25.0 33.3 {behind} 87.5 12.5 25.0 → 75.0 50.0 → 100.0" in demo.text


def test_what_holds_behind_texts_and_tasks_of_others(demo: Page, tmp_path: Path) -> None:
    assert "FT-M OVERTONE The capital of France" in demo.text.split("General ability")[-1]
    assert "0.5 0.25" in demo.text.split("General ability")[-1]
    summary = json.loads((write_run(tmp_path / "run", BOTH) / "summary.json").read_text())
    tables = {table.caption: table for table in knowledge_editing.terminal(summary)}
    assert tables["lm-eval"].rows[0][-2:] == ["0.5", "0.25"]
    (held,) = [table for caption, table in tables.items() if caption.startswith("behind sentences")]
    assert [row[-1] for row in held.rows if row[-1] != "–"] == ["12.5 → 50.0 [25.0, 75.0]"]


def test_a_run_without_turns_shows_no_ages(demo: Page) -> None:
    assert "by the age of the edit" not in demo.text
    assert "What became of the model" not in demo.text


def test_failures_and_skipped_records_have_their_reasons(demo: Page) -> None:
    assert "ft-m overtone case9 The capital of France" in demo.text
    assert "7 prompt The capital of France" in demo.text
    assert "the old one: 2 (The capital of France)" in demo.text


def test_kinds_and_figures(demo: Page) -> None:
    assert "one-hop Forgetfulness FT-M cross-entropy 31.0 77.0" in demo.text
    names = [trace.get("name") for trace in demo.figures[0]["data"]]
    assert names == ["FT-M", "IKE", "cross-entropy", "OVERTONE", "no loss"]
    assert demo.figures[0]["data"][0]["x"] == pytest.approx([59.9, 64.9])
    assert demo.figures[0]["data"][0]["y"] == pytest.approx([69.9, 74.9])


def test_a_sequence_of_edits_has_curves(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "many", BOTH, counts=(1, 10, 100)))
    curves = [figure for figure in page.figures if figure["layout"]["xaxis"]["title"]["text"] == "edits made"]
    assert len(curves) == 10
    assert curves[0]["data"][0]["x"] == [1, 10, 100]
    assert curves[0]["data"][0]["y"] == pytest.approx([89.9, 89.0, 80.0])
    assert [trace["line"]["dash"] for trace in curves[0]["data"]] == ["solid", "dash", "dot"]
    assert "One edit after another, T = 100" in page.text


def test_several_runs_are_one_table(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", BOTH)
    two = write_run(tmp_path / "two", {"rome": ("cross-entropy", "overtone", "overtone:clip=0")})
    page = render(tmp_path, one, two)
    assert "one FT-M OVERTONE 89.9 94.9" in page.text
    assert "two ROME OVERTONE 89.9 94.9" in page.text
    assert "two ROME OVERTONE:clip=0 89.9 89.9 – 79.9" in page.text


def test_cases_are_few_and_spread(tmp_path: Path) -> None:
    run = write_run(tmp_path / "large", {"ft-m": ("cross-entropy", "overtone")}, cases=150, counts=(1, 10))
    data = leaves(read_runs([run]))
    assert [len(view["cases"]) for view in data["views"]] == [MOST_CASES] * 2
    assert {view["total"] for view in data["views"]} == {150}
    assert {view["edits"] for view in data["views"]} == {10}
    assert len(data["queries"]) == 4 * MOST_CASES, "what is equal for both losses is said once"
    answers = data["views"][0]["cases"][-1]
    assert answers["edit"] == "The capital of France 149 0 → Washington"
    asked = data["queries"][answers["answers"][2][0]]
    assert (asked["role"], asked["kind"], asked["tokens"]) == ("portability", "portability kind", [" Wash", "ington"])
    assert answers["answers"][2][1:] == [
        0.5,
        0.0,
        "ft-m The capital of France",
        [-0.25, -0.12],
        [3, 0],
        asked["predicted"],
    ]
    assert len(json.dumps(data)) < 200_000


def test_hostile_text_stays_text(tmp_path: Path, demo: Page) -> None:
    text = HOSTILE.replace("\ud800", "")
    page = render(tmp_path, write_run(tmp_path / "x", BOTH, text=text, counts=(1, 2)))
    assert page.scripts == demo.scripts == 3  # plotly, the page's own, the cases' data
    assert not {"b", "i", "img"} & {tag for tag, _ in page.elements}
    assert "</script><script>alert(1)" in page.text
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]


def test_an_unfinished_run_shows_the_cases_there_are(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "half", BOTH, finished=False))
    assert "No edit was judged yet: run half is unfinished." in page.text
    assert "A case opens to what was asked" in page.text


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "broken", BOTH)
    (run / "ft-m" / "overtone" / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"rows\.parquet is not readable as Parquet"):
        render(tmp_path, run)


def test_differences_say_when_they_are_sure() -> None:
    assert gain({"difference": 0.05, "low": 0.01, "high": 0.12}) == "+5.0 ▲\n[+1.0, +12.0]"
    assert gain({"difference": -0.05, "low": -0.1, "high": -0.01}) == "−5.0 ▼\n[−10.0, −1.0]"
    assert gain({"difference": 0.0, "low": -0.01, "high": math.nan}) == "0.0"
    assert gain(None) == "–"


def printed(run: Path, width: int = 80) -> str:
    out = io.StringIO()
    print_summary(json.loads((run / "summary.json").read_text()), Console(file=out, width=width, color_system=None))
    return out.getvalue()


def test_the_terminal_has_a_table_a_protocol(tmp_path: Path) -> None:
    text = printed(write_run(tmp_path / "demo", BOTH, counts=(1, 10)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert max(map(len, text.splitlines())) <= 80
    assert "FT-M OVERTONE 10 94.0 84.0 74.0 64.0 80.0 0.123" in lines
    assert "IKE – 1 59.9 49.9 39.9 29.9 45.0 0.123" in lines
    assert lines.index("generated (%)") > lines.index("FT-M OVERTONE 10 94.0 84.0 74.0 64.0 80.0 0.123")


# token overfitting ------------------------------------------------------------------------------------------------------


def write_course(path: Path, *, text: str = "Wash", finished: bool = True) -> Path:
    config = {"model": text, "method": "ft-m"}
    write_json(path / "config.json", {"experiment": "token-overfitting", "config": config})
    rows, differences = [], []
    for setting, speed in (("cross-entropy", 1.0), ("full", 0.5), ("no clip", 0.7)):
        course = []
        for case in range(4):
            # The first token lags; the second was likely from the start. Edits of `full` are over a step early.
            for step in range(6 if setting != "full" or case else 5):
                for token, start in enumerate((-8.0, -0.5)):
                    values = {"logprob": start * math.exp(-speed * step * (1 + 3 * token)), "rank": 9 - step}
                    row = {"case": f"case{case}", "edit": 0, "step": step, "token": token, "text": f"{text}{token}"}
                    course.append({"setting": setting, **row, **values, "loss": 0.1, "final": step == 5})
        judged = [{"setting": setting, "edits": 1, **query(case, 0, ROLES[0], text, text, True)} for case in range(4)]
        folder = path / setting.replace(" ", "-")
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(course), folder / "course.parquet")
        pq.write_table(pa.Table.from_pylist(judged), folder / "rows.parquet")
        for protocol in ("teacher-forced", "generated"):
            row = {"method": "ft-m", "loss": "overtone", "setting": setting, "protocol": protocol, "mean": 0.5}
            rows.append({**row, **dict.fromkeys(ROLES, 0.5), "cases": 4, "failed": 0, "final_loss_spread": speed})
            if setting != "full":
                interval = {"difference": -0.1, "low": -0.2, "high": -0.05}
                differences += [{**row, "role": role, **interval} for role in (*ROLES, "mean")]
    if finished:
        of = {"edits": 4, "cases": 4, "start_spread": 2.0, "low": 0.1, "high": 0.4, "final_loss": 0.2}
        lengths = [
            {"setting": name, "shortest": a, "longest": b, "final_loss_spread": spread, "to_full": interval, **of}
            for name, spread in (("cross-entropy", 0.3), ("full", 0.0))
            for a, b in ((1, 1), (3, 4))
        ]
        summary = {"experiment": "token-overfitting", "rows": rows, "differences": differences, "method": "ft-m"}
        summary["lengths"] = lengths
        write_json(path / "summary.json", summary)
    return path


def test_the_picture_of_overfitting(tmp_path: Path) -> None:
    page = render(tmp_path, write_course(tmp_path / "course"))
    assert [list(trace["y"]) for trace in page.figures[5]["data"]] == [[0.3, 0.3], [0, 0]]
    assert "3 to 4" in page.text
    assert "0.3 [0.1, 0.4]" in page.text
    assert "cross-entropy: the tokens of an edit end 1 nats apart" in page.text
    along, maps, picked = page.figures[:3], page.figures[3], page.figures[4]
    likely, unlikely = along[0]["data"]
    assert [likely["name"], unlikely["name"]] == [
        "likely at the start (10 % or more): 4",
        "unlikely at the start (below 0.1 %): 4",
    ]
    assert likely["y"][0] == pytest.approx(0.5)
    assert unlikely["y"][5] == pytest.approx(8 * math.exp(-5))
    assert along[0]["layout"]["yaxis"]["range"] == along[1]["layout"]["yaxis"]["range"]
    assert [len(trace["y"]) for trace in maps["data"]] == [2] * 6
    # An edit that was over early keeps its last value in means, and its own map ends.
    full = along[1]["data"][1]["y"]
    assert full[5] == pytest.approx(8 * math.exp(-0.5 * (5 * 3 + 4) / 4), rel=1e-4)
    shown = [trace for trace in picked["data"] if trace["visible"]]
    assert len(shown) == 6
    assert [len(trace["x"]) for trace in shown] == [6, 5, 6] * 2
    assert len(picked["layout"]["updatemenus"][0]["buttons"]) == 4
    assert "FT-M OVERTONE without clip 50.0 −10.0 ▼ [−20.0, −5.0] 50.0" in page.text


def test_hostile_tokens_stay_text(tmp_path: Path) -> None:
    text = HOSTILE.replace("\ud800", "")
    page = render(tmp_path, write_course(tmp_path / "x", text=text))
    assert not {"b", "i", "img"} & {tag for tag, _ in page.elements}
    drawn = [
        each for figure in page.figures for each in strings({**figure, "layout": {**figure["layout"], "template": 0}})
    ]
    assert any("&lt;/script&gt;" in each for each in drawn)
    assert not [each for each in drawn if "<" in each.replace("<extra></extra>", "")]


def test_an_unfinished_course_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    page = render(tmp_path, write_course(tmp_path / "half", finished=False))
    assert "unfinished" in page.text
    assert len(page.figures) == 5


def test_the_terminal_of_token_overfitting(tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in printed(write_course(tmp_path / "course")).splitlines()]
    assert "OVERTONE without clip 50.0 50.0 50.0 50.0 50.0 0.7" in lines
    path = tmp_path / "course" / "summary.json"
    summary = json.loads(path.read_text())
    for row in summary["rows"]:
        row |= {"reliability_unedited": 0.125, "generality_unedited": 0.0}
    write_json(path, summary)
    lines = [" ".join(line.split()) for line in printed(path.parent).splitlines()]
    assert lines.count("unedited 12.5 0.0 – – – –") == 2
    assert "unedited model – 12.5 0.0" in " ".join(render(tmp_path, path.parent).text.split())
