"""plan --run RUN ...         which facts of a corpus will be learnt, by a knowledge-acquisition run's measurements

Which facts will be learnt from a corpus, and when, by what a run has measured: --run RUN --corpus TEXT --facts FILE. --out FILE
keeps all of it as JSON.

With --popularity (plan --popularity --help) it shows who is learnt by how often a corpus states them, and what deduplication
does; --out FOLDER then keeps it, with a page.
"""

from __future__ import annotations

import math
from typing import Any

from engramlab.cli._help import Option
from engramlab.cli._words import help_of, parse, take
from engramlab.files.locks import place

_SHOWN = 20
_FACTS = ("fact", "count", "interval", "verdict", "learnt_at", "tokens", "keeps")
#: What the columns are called here, with their units.
_HEADS = {
    "count": "times stated",
    "interval": "steps from one to the next",
    "verdict": "learnt?",
    "learnt_at": "after steps",
    "tokens": "after tokens",
    "keeps": "keeps (nats)",
    "case": "if",
    "threshold_steps": "most steps between two statements",
}


def main(given: list[str]) -> None:
    """Prints the forecast, and how far off such forecasts were."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from engramlab.acquisition.forecast import PlanOptions
    from engramlab.acquisition.forecast import plan as forecast
    from engramlab.base.terminal import Console
    from engramlab.files.writing import write_json

    if "--popularity" in given:
        _popularity([word for word in given if word != "--popularity"])
        return
    given, out = take(given or ["--help"], "--out")
    where = place(out, folder=False) if out else None
    also = [Option("--out", "FILE", "Keeps everything that was found, as JSON.")]
    made = forecast(parse(PlanOptions, "plan --run RUN", given, description=help_of(__doc__), also=also))
    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    def show(title: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name, value in rows[0].items():
            number = isinstance(value, int | float) or name in ("learnt_at", "tokens")
            table.add_column(_HEADS.get(name, name), justify="right" if number else "left")
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row.values()))
        console.print(table)

    said = {"paraphrase": "said in other words each time", "duplicate": "said in the same words each time"}
    title = f"Facts, {said.get(made['group'], made['group'])}, known at depth {made['depth']}"
    show(title, [{name: row[name] for name in _FACTS} for row in made["facts"][:_SHOWN]])
    if len(made["facts"]) > _SHOWN:
        say(f"… and {len(made['facts']) - _SHOWN} more" + ("" if out else " (--out FILE keeps all of them)"))
    learnt, late, never = (made["verdicts"][name] for name in ("learnt", "too late", "never"))
    say(
        f"Of {len(made['facts'])} facts {learnt} will be learnt in {made['training_tokens']:,.0f} tokens of training, {late} "
        f"would be in a longer one, and {never} never: what one statement adds is lost again before the next."
    )
    show("What would change it", made["what_if"])
    for held in dict.fromkeys(row["held"] for row in made["errors"]):
        show(
            f"How far off such forecasts were on {held}, in nats: a query's / the mean curve's",
            [_error(row) for row in made["errors"] if row["held"] == held],
        )
    if not made["errors"]:
        say("Not checked on any other run: give one with --held, such as the same model with another interval.")
    if made["note"]:
        say(made["note"])
    if where:
        write_json(where, made)
        print(out)


def _popularity(given: list[str]) -> None:
    """Simulates who is learnt, prints the shares, and keeps all of it in a folder with its page."""
    from engramlab.acquisition.popularity import PopularityOptions, popularity
    from engramlab.base.terminal import Console
    from engramlab.experiments.knowledge_acquisition.summary import finite
    from engramlab.files import records
    from engramlab.files.runs import RunFolder
    from engramlab.report import print_summary, write_report

    given, out = take(given or ["--help"], "--out")
    also = [Option("--out", "FOLDER", "Keeps what was found, with a page.")]
    options = parse(PopularityOptions, "plan --popularity --run RUN", given, description=help_of(__doc__), also=also)
    folder = RunFolder(place(out), "knowledge-popularity", options) if out else None
    summary = {"experiment": "knowledge-popularity", "seed": options.seed, **finite(popularity(options))}
    print_summary(summary, Console())
    if folder:
        folder.open()
        records.write_record(folder.folder / "summary.json", summary)
        folder.close()
        print(write_report([folder.folder], folder.folder / "report.html"))


def _error(row: dict[str, Any]) -> dict[str, Any]:
    """One line of the errors: what was forecast, and by the planner and each baseline the two errors."""
    ways = [name for name in row if f"{name}: mean curve" in row]
    both = {name: f"{row[name]:.2f} / {row[f'{name}: mean curve']:.2f}" for name in ways}
    return {"group": row["group"], "depth": row["depth"], "states": row["place"], **both}


def _cell(value: Any) -> str:
    if value is None or value == math.inf:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
