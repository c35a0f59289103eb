"""Rows become tables."""

from __future__ import annotations

import sys

import pytest

from engramlab.base.errors import UserError
from engramlab.base.rows import PROTOCOLS, Rows, protocol_of

ROWS = Rows([{"a": 1, "b": "x"}, {"a": 2, "c": [0.5, 1.0]}])


def test_every_name_of_any_row_is_a_column() -> None:
    table = ROWS.to_arrow()
    assert table.column_names == ["a", "b", "c"]
    assert table.to_pylist() == [{"a": 1, "b": "x", "c": None}, {"a": 2, "b": None, "c": [0.5, 1.0]}]
    assert Rows().to_arrow().num_rows == 0


def test_a_column_of_two_kinds_is_named() -> None:
    with pytest.raises(UserError, match="'a'"):
        Rows([{"a": 1}, {"a": "x"}]).to_arrow()


def test_pandas_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        ROWS.to_pandas()
    monkeypatch.undo()
    pytest.importorskip("pandas")
    assert list(ROWS.to_pandas().columns) == ["a", "b", "c"]


def test_one_spelling_of_protocols_and_old_rows_are_read() -> None:
    assert protocol_of({"protocol": "teacher-forced"}) == protocol_of({"protocol": "teacher_forced"}) == PROTOCOLS[0]
    assert protocol_of({"protocol": "guessed"}) is protocol_of({}) is None
