"""``--reading.drift control``: every gain of curves drawn by hand, on a stream that lifts all of them by 1/16 nat a step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engramlab.acquisition.curves import CurveOptions, read_curves
from engramlab.acquisition.laws import law_of, validate
from engramlab.acquisition.measuring import Measurements
from engramlab.acquisition.schedule import Group
from engramlab.base.errors import UserError
from engramlab.experiments import knowledge_acquisition as acquisition
from engramlab.experiments.knowledge_acquisition.config import check
from engramlab.experiments.knowledge_acquisition.summary import _add_control_errors, summarise

TOTAL, WINDOW, DRIFT, AT = 80, 20, 1 / 16, (0, 40)
KEPT, TAKEN = (CurveOptions(window=WINDOW, bootstrap=20, drift=drift) for drift in ("kept", "control"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight passages met twice, each time gaining 1 nat that stays; two never met, one of which stands 1/4 nat higher
    and the other as much lower at one state behind either encounter. All of it is exact in float32."""
    states = np.arange(TOTAL + 1)
    stream = -6 + DRIFT * states
    met = stream + sum(1.0 * (states > step) for step in AT)
    bump = 0.25 * np.isin(states, [step + 5 for step in AT])
    curves = [met] * 8 + [stream + bump, stream - bump]
    queries = [
        {"passage": f"p{i}", "group": "duplicate" if i < 8 else "never", "depth": "semantic", "start": 0}
        | {"prompt": "The", "target": "town", "injections": list(AT) if i < 8 else []}
        for i in range(10)
    ]
    kept = Measurements(tmp_path / "tiny" / "injection" / "measured")
    for step in states:
        kept.add(int(step), np.array([curve[step] for curve in curves], np.float32))
    kept.finish()
    about = {"offsets": list(range(11)), "queries": queries}
    (tmp_path / "tiny" / "injection" / "queries.json").write_text(json.dumps(about))
    return tmp_path


def rows_of(folder: Path, reading: CurveOptions) -> dict[str, dict[str, Any]]:
    config = replace(acquisition.PRESETS["tiny"], interval=(40,), times=2, batch=(8,), reading=reading)
    (part,) = config.parts()
    groups = (
        Group("duplicate", "duplicate", tuple(range(8)), interval=40, times=2),
        Group("never", "never", (8, 9), interval=40, times=2),
    )
    trained = {"dataset": "tiny", "stage": "injection", "steps": TOTAL, "optimizer": "warmed", "seconds": 1.0}
    part = replace(part, name="tiny", after=TOTAL - 80)
    summary = summarise(folder, config, [part], [trained], {"tiny": groups}, {"tiny": reading})
    return {row["group"]: row for row in summary["rows"]}


def test_the_drift_is_taken_off_every_gain_once(folder: Path) -> None:
    rows = rows_of(folder, TAKEN)
    met, never = rows["duplicate"], rows["never"]
    assert met["effectivity"] == pytest.approx(1.0, abs=1e-5)
    # A maximum over 20 states: 0.25 by chance in the passage that stands higher once, nothing in the one that stands lower.
    assert never["effectivity"] == pytest.approx((0.25 + 0.0) / 2, abs=1e-5)
    assert met["effectivity_net"] == pytest.approx(1.0 - 0.125, abs=1e-5)
    assert met["final_gain"] == pytest.approx(2.0, abs=1e-5)
    assert never["final_gain"] == pytest.approx(0.0, abs=1e-5)
    assert met["gained"] == pytest.approx(2.0, abs=1e-5)
    assert (met["before"], met["after"]) == (pytest.approx(-6.0), pytest.approx(-6 + 80 * DRIFT + 2))
    assert met["decay_constant"] is None or met["decay_constant"] == pytest.approx(0.0, abs=1e-5)


def test_as_the_paper_reads_curves_the_drift_is_in_every_gain(folder: Path) -> None:
    rows = rows_of(folder, KEPT)
    met, never = rows["duplicate"], rows["never"]
    assert met["effectivity"] == pytest.approx(1.0 + WINDOW * DRIFT, abs=1e-5)
    assert never["effectivity"] == pytest.approx(WINDOW * DRIFT, abs=1e-5)
    assert met["effectivity_net"] == pytest.approx(1.0, abs=1e-5)
    assert (met["final_gain"], never["final_gain"]) == (pytest.approx(2.0 + 80 * DRIFT), pytest.approx(80 * DRIFT))


def test_laws_are_read_without_the_drift_and_forecasts_judged_so(folder: Path) -> None:
    curves = read_curves(folder / "tiny" / "injection", TAKEN)
    found = law_of(curves, "duplicate", "semantic", TAKEN)
    assert found is not None
    assert (found.law.first, found.law.change) == (pytest.approx(1.0, abs=1e-5), pytest.approx(0.0, abs=1e-5))
    assert found.law.decay_constant == pytest.approx(0.0, abs=1e-5)
    assert (found.law.peak, found.before) == (1, pytest.approx(-6.0))
    rows = validate({("duplicate", "semantic"): found}, curves, TAKEN)
    assert {row["place"]: row["planner"] for row in rows} == pytest.approx({"end": 0.0, "along": 0.0}, abs=1e-4)
    raw = law_of(curves, "duplicate", "semantic", KEPT)
    assert raw is not None
    # Its maxima lie at the windows' ends: 1 nat of the passage and 20 steps of the stream.
    assert (raw.law.peak, raw.law.effectivity(0.0)) == (WINDOW, pytest.approx(1.0 + WINDOW * DRIFT, abs=1e-4))


def test_without_a_control_there_is_no_drift_to_take_off() -> None:
    config = replace(acquisition.PRESETS["claims"], inject="passages.jsonl", control=0)
    with pytest.raises(
        UserError, match=r"^reading\.drift: control needs passages that are never injected; give --control"
    ):
        check(config)


def test_how_far_the_control_may_be_off_is_told_as_a_part_of_the_gain() -> None:
    rows: list[dict[str, Any]] = [
        {"group": "never", "depth": "semantic", "passages": 4},
        {"group": "duplicate", "depth": "semantic", "passages": 8, "gained": 2.0},
        {"group": "once", "depth": "semantic", "passages": 8, "gained": None},
    ]
    _add_control_errors(rows, {"semantic": {10: 0.9, 40: 0.6}})
    # The standard error of a mean of four passages is half of how they differ, here by 0.6 nats a decade; of a gain of 2 nats.
    assert rows[1]["decay_control_stderr"] == pytest.approx(0.6 / 2 / 2.0)
    assert all("decay_control_stderr" not in row for row in (rows[0], rows[2]))
