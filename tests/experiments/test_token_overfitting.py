"""The whole experiment, small: a random model, a file of edits, every setting, resume, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS

from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core import deltas
from engramlab.core.text.tokens import encode_queries
from engramlab.core.training import losses
from engramlab.editing.judge.course import Course, loss_spread, spread_by_length
from engramlab.editing.methods import ft_m
from engramlab.experiments import token_overfitting as overfitting
from engramlab.files import records
from engramlab.measuring.scoring import score
from engramlab.report.page import write_report

LINES = [
    {
        "prompt": f"The capital of {land} is",
        "subject": land,
        "target_new": target,
        "ground_truth": "Paris",
        "rephrase_prompt": f"In {land}, the capital is",
        "locality": {"Forgetfulness": [{"prompt": "The old name of Japan was", "ground_truth": [["Edo"]]}]},
        "portability": {"Reasoning": [{"prompt": f"{land} is ruled from", "ground_truth": [[target]]}]},
    }
    for land, target in (("France", "Washington, D.C."), ("Japan", "Paris"), ("Edo", "Tokyo in 1996"))
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("edits") / "edits.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return str(path)


def config(name: str, edits: str, **more: Any) -> overfitting.Config:
    common: dict[str, Any] = {"part": "all", "known_only": False, "batch": 2, "steps": 6, "learning_rate": 5e-3}
    return overfitting.Config(**{"model": name, "benchmark": edits} | common | more)


def test_every_setting_is_followed_and_judged(model: str, edits: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = overfitting.run(config(model, edits), out)
    names = list(overfitting.SETTINGS)
    assert [row["setting"] for row in summary["rows"] if row["protocol"] == "generated"] == names
    assert {row["setting"] for row in summary["differences"]} == set(names) - {"full"}
    assert all(row["cases"] == 3 and row["failed"] == 0 for row in summary["rows"])
    assert records.read_record(out / "summary.json") == summary
    by_length = [row for row in summary["lengths"] if row["setting"] == "cross-entropy"]
    assert sum(row["edits"] for row in by_length) == 3
    whole = next(row for row in summary["rows"] if row["setting"] == "cross-entropy")["final_loss_spread"]
    several = [row for row in by_length if row["shortest"] > 1]
    assert sum(row["final_loss_spread"] * row["edits"] for row in several) / sum(row["edits"] for row in several) == (
        pytest.approx(whole)
    )
    for name in names:
        course = pq.read_table(out / name.replace(" ", "-") / "course.parquet").to_pylist()
        assert {row["case"] for row in course} == {row["case"] for row in read_rows(out, name)}
        for case in {row["case"] for row in course}:
            of = [row for row in course if row["case"] == case]
            steps = sorted({row["step"] for row in of})
            assert steps == list(range(len(steps)))
            assert {row["step"] for row in of if row["final"]} == {steps[-1]}
        if name in ("cross-entropy", "no clip"):
            assert max(row["step"] for row in course) == 6
    start = [
        {(row["case"], row["token"]): row["logprob"] for row in course_of(out, name) if row["step"] == 0}
        for name in names
    ]
    for other in start[1:]:
        assert other == pytest.approx(start[0], abs=1e-4), "all begin at the unedited model"
    # Again: nothing is done anew; and a setting whose folder is lost is the only one that is.
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/*.parquet")}
    (out / "no-check" / "done.json").unlink()
    assert overfitting.run(config(model, edits), out)["differences"] == summary["differences"]
    changed = {path.parent.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"no-check"}
    page = write_report([out], tmp_path / "page.html").read_text()
    assert "no check" in page


def read_rows(out: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(out / name.replace(" ", "-") / "rows.parquet").to_pylist()


def course_of(out: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(out / name.replace(" ", "-") / "course.parquet").to_pylist()


@pytest.mark.parametrize("kind", ["llama3", "digits"])
@pytest.mark.parametrize("clip", [0.0, 6.0])
def test_the_course_is_what_one_would_measure_by_hand(kind: str, clip: float) -> None:
    """Step k of the course is the state after k steps; its last rows are what the finished edit says."""
    tokenizer = zoo.ZOO[kind](zoo.SENTENCES)
    model = zoo.model("llama", vocabulary=len(tokenizer)).eval()
    cases = [[EDITS[0]], [EDITS[1], Edit(Query("It was", "Edo"), "in 1996")]]
    loss = losses.get("overtone", clip=clip)
    settings = ft_m.Config(steps=5, learning_rate=2e-2, stop_below=0.0)
    followed = Course(tokenizer, loss, 2)
    found = ft_m.edit_each(model, tokenizer, cases, settings, followed.loss, watch=followed.watch)
    followed.finish(model, cases, found)
    rows = followed.rows(["a", "b"])
    assert {(row["case"], row["edit"]) for row in rows} == {("a", 0), ("b", 0), ("b", 1)}
    ends = []
    for number, case in enumerate("ab"):
        last = max(row["step"] for row in rows if row["case"] == case)
        ends.append(last)
        for steps in {0, 2, last} & set(range(last + 1)):
            (alone,) = ft_m.edit_each(model, tokenizer, [cases[number]], replace(settings, steps=steps or 1), loss)
            with deltas.active(model, alone) if steps else torch.no_grad():
                for e, edit in enumerate(cases[number]):
                    of = [r for r in rows if (r["case"], r["edit"], r["step"]) == (case, e, steps)]
                    encoded = encode_queries(tokenizer, [Query(edit.query.prompt, edit.target)])
                    scores = score(model, encoded.sequences, ends=encoded.prompt_ends)
                    own = of[len(of) - len(scores.logprobs) :]  # without a lone space before the answer
                    assert [r["logprob"] for r in own] == pytest.approx(scores.logprobs.tolist(), abs=2e-3)
                    assert [r["rank"] for r in own] == pytest.approx(scores.ranks.tolist(), abs=1)
                    assert "".join(r["text"] for r in of).strip() == edit.target
    if clip:
        assert min(ends) < 5, "a clip this high ends edits early"


def test_the_spread_is_over_the_tokens_of_an_edit() -> None:
    def row(case: str, logprob: float, final: bool = True) -> dict[str, Any]:
        return {"case": case, "edit": 0, "logprob": logprob, "final": final}

    rows = [row("a", -1.0), row("a", -4.0), row("a", -9.0, final=False), row("b", -2.0)]
    assert loss_spread(rows) == {"final_loss_spread": 3.0, "final_loss": pytest.approx(7 / 3)}
    assert loss_spread([]) == {"final_loss_spread": None, "final_loss": None}


def test_the_spread_by_length_is_that_of_the_edits_of_that_length() -> None:
    def rows(case: str, ends: list[float], edit: int = 0) -> list[dict[str, Any]]:
        about = {"case": case, "edit": edit}
        starts = [{**about, "step": 0, "logprob": 3 * end, "final": False} for end in ends]
        return starts + [{**about, "step": 5, "logprob": end, "final": True} for end in ends]

    found = spread_by_length(
        [*rows("a", [-1.0, -3.0]), *rows("b", [-2.0, -6.0]), *rows("c", [-1.0]), *rows("d", [-1.0] * 3)]
    )
    assert [(row["shortest"], row["longest"], row["edits"], row["cases"]) for row in found] == [
        (1, 1, 1, ["c"]),
        (2, 2, 2, ["a", "b"]),
        (3, 3, 1, ["d"]),
    ]
    assert [(row["start_spread"], row["final_loss_spread"]) for row in found] == [(0, 0), (9, 3), (0, 0)]
    assert (found[1]["low"], found[1]["high"], found[1]["final_loss"]) == (2, 4, 3)


def test_settings_are_the_losses_they_say() -> None:
    of = {name: overfitting.loss_of(overfitting.Config(mixing=0.3, clip=0.05), name) for name in overfitting.SETTINGS}
    assert of["cross-entropy"] is losses.cross_entropy
    assert of["full"] == losses.Overtone(0.3, 0.5, 0.05)
    assert of["no clip"] == losses.Overtone(0.3, 0.5, 0.0)
    assert of["no filter"] == losses.Overtone(0.3, math.inf, 0.05)
    assert of["no check"] == losses.Overtone(0.3, 0.5, 0.05, check=False)
    assert of["no mixing"] == losses.Overtone(1.0, 0.5, 0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": ""}, "--model"),
        ({"method": "ft"}, "did you mean"),
        ({"method": "rome"}, "step by step; choose one of: .*ft-m"),
        ({"settings": ()}, "at least one"),
        ({"settings": ("full", "full")}, "twice"),
        ({"mixing": 2.0}, "mixing"),
        ({"steps": 0}, "steps"),
        ({"limit": 0}, "limit"),
        ({"benchmark": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"part": "tune", "limit": 1, "seed": 3}, "part 'tune'"),
        ({"known_only": True}, "writes the old answer of none"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    change: dict[str, Any], words: str, model: str, edits: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        overfitting.run(config(model, edits, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()
