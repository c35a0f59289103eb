"""The commands about acquisition: ``engramlab plan``, ``engramlab corpus check`` and ``engramlab corpus passages``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.cli.options import parse, take, wants_help

_SHOWN = 20


def check(given: list[str]) -> None:
    """``engramlab corpus check FILE``: what is wrong with passages and their queries."""
    if not given or wants_help(given):
        print("usage: engramlab corpus check FILE [--all]\n")
        print("Lists the defects of passages and their queries (passages.jsonl, or the format of FICTIONAL KNOWLEDGE):")
        print("text behind a target, targets that stand in their own prompt, paraphrases that lost the fact, and more.")
        print(f"Shows the first {_SHOWN} of each kind, or --all. Nothing is changed.")
        return
    from engramlab.reading import read_passages
    from engramlab.reading.defects import KINDS, count, defects

    everything = "--all" in given
    files = [word for word in given if word != "--all"]
    if len(files) != 1 or files[0].startswith("-"):
        raise UserError(f"engramlab corpus check takes one file and --all, not {' '.join(given)}")
    records = read_passages(files[0])
    found = defects(records)
    queries = sum(len(record.queries) for record in records)
    print(f"{files[0]}: {len(records)} passages, {queries} queries, {len(found)} defects")
    for kind, about in KINDS.items():
        of_kind = [defect for defect in found if defect.kind == kind]
        if not of_kind:
            continue
        by_depth = {depth: n for (name, depth), n in count(of_kind).items() if depth and name == kind}
        shares = f" ({', '.join(f'{depth} {n}' for depth, n in by_depth.items())})" if by_depth else ""
        print(f"\n{kind}: {len(of_kind)}{shares}: {about}")
        for defect in of_kind if everything else of_kind[:_SHOWN]:
            print(f"  {defect}")
        if len(of_kind) > _SHOWN and not everything:
            print(f"  … and {len(of_kind) - _SHOWN} more (--all)")


def write(config: Any, out: Path) -> None:
    """``engramlab corpus passages --model MODEL --out DIR``: says how much of what the model wrote could be used."""
    from engramlab.writing.passages import FILE, write_passages

    about = write_passages(config, out)
    rates = ", ".join(f"{stage} {rate:.0%}" for stage, rate in about["acceptance_rate"].items())
    print(f"{about['passages']} of {config.passages} passages came out whole; answers accepted: {rates}")
    print((out / FILE).resolve())


def plan(given: list[str]) -> None:
    """``engramlab plan --run RUN --corpus TEXT --facts FILE``: which facts will be learnt, and when."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from engramlab.experiments.knowledge_acquisition.planning import PlanOptions
    from engramlab.experiments.knowledge_acquisition.planning import plan as forecast
    from engramlab.files.writing import write_json

    help_asked = wants_help(given) or not given
    given, out = take(given, "--out", None)
    options = parse(PlanOptions, "plan", given or ["--help"])
    if help_asked:
        return
    made = forecast(options)
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


COMMANDS = {"plan": plan}
