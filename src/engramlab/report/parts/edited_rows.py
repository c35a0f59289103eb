"""The rows of editing runs, by how edits were made, method, loss and protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engramlab.base.rows import NO_LOSS, PLAIN_LOSS, protocol_of
from engramlab.report.parts.figures import PALETTE
from engramlab.report.parts.judged import rows_at
from engramlab.report.rows import Row, RunData, distinct, number

_SETTINGS = {
    "single": "Each edit by itself",
    "continual": "One edit after another",
    "batch": "All edits at once",
    "turns": "Edits in turns",
}


class Regime(NamedTuple):
    """What one table is about: how edits were made, and how many of them the model held when it was asked."""

    setting: str
    edits: int

    def __str__(self) -> str:
        start = _SETTINGS.get(self.setting, self.setting)
        return start if self.setting == "single" else f"{start}, T = {self.edits:,}"


class Unit(NamedTuple):
    """A method under a loss, in a run."""

    run: str
    method: str
    loss: str


class EditingRows:
    """The summary rows of several runs, by unit, regime and protocol."""

    def __init__(self, runs: Sequence[RunData]) -> None:
        self.rows: dict[tuple[Unit, Regime, str], Row] = {}
        self.differences: dict[tuple[str, str, str, Regime, str, str], Row] = {}
        for run in runs:
            for row in run.rows:
                if name := protocol_of(row):
                    unit = Unit(run.name, str(row.get("method")), str(row.get("loss") or NO_LOSS))
                    self.rows[unit, _regime(run, row), name] = row
            for row in rows_at(run, "differences"):
                loss = str(row.get("loss") or "overtone")
                key = (run.name, str(row.get("method")), loss, _regime(run, row))
                self.differences[(*key, str(protocol_of(row)), str(row.get("role")))] = {**row, "regime": key[3]}
        self.units: list[Unit] = distinct(unit for unit, _, _ in self.rows)
        self.regimes: list[Regime] = sorted(distinct(regime for _, regime, _ in self.rows))
        losses = distinct(unit.loss for unit in self.units)
        self.losses = sorted((loss for loss in losses if loss != NO_LOSS), key=lambda loss: loss != PLAIN_LOSS)
        methods = distinct(unit.method for unit in self.units)
        self.colours = {method: PALETTE[i % len(PALETTE)] for i, method in enumerate(methods)}

    def value(self, unit: Unit, regime: Regime, protocol: str, column: str) -> float | None:
        return number(self.rows.get((unit, regime, protocol), {}).get(column))

    def of(self, run: str, regime: Regime, protocol: str) -> list[Row]:
        """A run's rows there, of all its methods."""
        return [row for (unit, *where), row in self.rows.items() if (unit.run, *where) == (run, regime, protocol)]

    def at(self, regime: Regime) -> list[Unit]:
        """The units measured there."""
        return distinct(unit for unit, where, _ in self.rows if where == regime)


def _regime(run: RunData, row: Row) -> Regime:
    edits = number(row.get("edits"))
    return Regime(str(row.get("setting") or run.summary.get("setting") or "single"), int(edits or 1))
