"""plan --run RUN ...         which facts of a corpus will be learnt, by a knowledge-acquisition run's measurements

Which facts will be learnt from a corpus, and when, by what a run has measured: --run RUN --corpus TEXT --facts FILE. --out FILE
keeps all of it as JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.cli._help import Option
from engramlab.cli._words import help_of, parse, take

_SHOWN = 20


def main(given: list[str]) -> None:
    """Prints the forecast, and how far off such forecasts were."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from engramlab.acquisition.forecast import PlanOptions
    from engramlab.acquisition.forecast import plan as forecast
    from engramlab.base.terminal import Console
    from engramlab.files.writing import write_json

    given, out = take(given or ["--help"], "--out")
    also = [Option("--out", "FILE", "Keeps everything that was found, as JSON.")]
    made = forecast(parse(PlanOptions, "plan --run RUN", given, description=help_of(__doc__), also=also))
    console = Console()

    def show(title: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        table = Table(*map(str, rows[0]), title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            table.add_row(*(_cell(value) for value in row.values()))
        console.print(table)

    show(f"Facts, by the law of group {made['group']} at depth {made['depth']}", made["facts"][:_SHOWN])
    if len(made["facts"]) > _SHOWN:
        print(f"… and {len(made['facts']) - _SHOWN} more" + ("" if out else " (--out FILE keeps all of them)"))
    print("; ".join(f"{name}: {number}" for name, number in made["verdicts"].items()))
    show("What would change it", made["what_if"])
    for held in dict.fromkeys(row["held"] for row in made["errors"]):
        show(
            f"How far off such forecasts were on {held}, in nats: a query's / the mean curve's",
            [_error(row) for row in made["errors"] if row["held"] == held],
        )
    if not made["errors"]:
        print("Not checked on any other run: give one with --held, such as the same model with another interval.")
    if made["note"]:
        print(made["note"])
    if out:
        write_json(Path(out), made)
        print(out)


def _error(row: dict[str, Any]) -> dict[str, Any]:
    """One line of the errors: what was forecast, and by the planner and each baseline the two errors."""
    ways = [name for name in row if f"{name}: mean curve" in row]
    both = {name: f"{row[name]:.2f} / {row[f'{name}: mean curve']:.2f}" for name in ways}
    return {"group": row["group"], "depth": row["depth"], "states": row["place"], **both}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
