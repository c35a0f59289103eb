"""What a notebook shows of results: one line, or a table."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from engramlab.base.arrays import brief
from engramlab.base.rows import Rows, Summary
from engramlab.core.deltas import LowRank, WeightDelta


def test_arrays_and_long_lists_are_named_by_their_sizes() -> None:
    @dataclass(frozen=True)
    class Made:
        a: Any
        b: Any
        c: Any
        d: Any
        e: Any

        __repr__ = brief

    said = repr(
        Made(np.zeros((2, 3), np.float32), torch.zeros(4, dtype=torch.bfloat16), [1] * 900, "x\n" * 50, (1, "two"))
    )
    assert "Made(a=float32[2, 3], b=bfloat16[4], c=<list of 900>, d=" in said
    assert said.endswith("e=(1, 'two'))")
    assert "\n" not in said


def test_a_delta_is_one_short_line() -> None:
    changes = {f"layers.{i}.down": LowRank(torch.ones(900, 1), torch.ones(1, 900)) for i in range(40)}
    said = repr(WeightDelta("fingerprint", changes))
    assert said.startswith("WeightDelta(model='fingerprint', ")
    assert len(said) < 200


@pytest.mark.parametrize(
    "where",
    ["measuring.scoring.Scores", "core.text.tokens.Sequences", "core.text.tokens.EncodedQueries", "core.deltas.Dense",
     "core.deltas.stack.Installed", "editing.changing.Changed", "editing.methods.grace.GraceDelta",
     "editing.methods.wise.WiseDelta", "editing.judge.evaluation.Before", "acquisition.curves.Curves"],
)  # fmt: skip
def test_what_holds_arrays_has_a_repr_of_one_line(where: str) -> None:
    module, _, name = where.rpartition(".")
    assert getattr(importlib.import_module(f"engramlab.{module}"), name).__repr__ is brief


def test_rows_are_a_table_in_a_notebook() -> None:
    rows = Rows({"attribute": f"<b>{i}</b>", "share": i / 3, "none": None} for i in range(25))
    assert repr(rows) == "Rows(25 rows: attribute, share, none)"
    html = rows._repr_html_()
    assert html.count("<tr>") == 21
    assert "&lt;b&gt;1&lt;/b&gt;" in html
    assert "<td>0.3333</td><td></td>" in html
    assert "and 5 more rows" in html
    found = Summary({"experiment": "x", "rows": list(rows), "seconds": 1.0})
    assert repr(found) == "Summary(x: 25 rows, experiment, rows, seconds)"
    assert isinstance(found["rows"], Rows)
    assert html in found._repr_html_()
