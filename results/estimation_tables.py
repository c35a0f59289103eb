"""The tables of docs/estimation.md: audits of countries and PopQA, and many-shot estimation.

They are drawn from the runs under ``results/`` whose names begin as below, however many there are; without any, a line says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kept import ABSENT, HERE, Kept, kept, made_by, share, table

CLASSES = ("extractable", "prompt-dependent", "latent", "recognised", "unknown")
NOT_YET = ABSENT


def of(prefix: str) -> list[Kept]:
    """The kept runs of a table; a folder without its summary is none."""
    if not any((path / "summary.json").exists() for path in HERE.glob(f"{prefix}*")):
        return []
    return kept(prefix)


def model(summary: dict[str, Any]) -> str:
    return Path(str(summary["model"])).name.removesuffix(".gguf")


def ranged(row: dict[str, Any], name: str, bounds: str | None = None) -> str:
    """A share with its 95 % interval."""
    bounds = f"{name}_" if bounds is None else bounds
    if row.get(name) is None:
        return "–"
    return f"{share(row[name])} [{100 * row[bounds + 'low']:.0f}, {100 * row[bounds + 'high']:.0f}]"


def classes(prefix: str = "audit-countries") -> str:
    """Facts by class, relation and model, with what chance gives beside."""
    found = of(prefix)
    lines = [
        [
            model(summary),
            row["relation"].replace("_", " "),
            f"{row['facts'] - row['guessable']:,} of {row['facts']:,}",
            *(f"{row[name]:,}" for name in CLASSES),
            ranged(row, "at_least_latent"),
            ranged(row, "at_least_recognised"),
            "–" if (value := row.get("at_least_recognised_corrected")) is None else share(value),
        ]
        for summary, _ in found
        for row in summary["rows"]
    ]
    heads = ["model", "relation", "not guessable", *CLASSES, "at least latent", "at least recognised", "corrected"]
    note = (
        "Facts that the commonest object or the model's favourite would get are left out; 95 % bootstrap over subjects; "
        "corrected: what chance gives is taken off."
    )
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"]) if found else NOT_YET


def ways(prefix: str = "audit-countries") -> str:
    """Do the ways find the same facts?"""
    found = of(prefix)
    lines = [
        [
            model(summary),
            row["ways"],
            *(f"{row[name]:,}" for name in ("facts", "one", "other", "both")),
            "–" if row.get("agree") is None else share(row["agree"]),
        ]
        for summary, _ in found
        for row in summary.get("agreement", ())
    ]
    heads = ["model", "ways", "facts", "found by the first", "by the second", "by both", "both of either"]
    return "\n".join([*table(heads, lines), "", made_by(found)]) if lines else NOT_YET


def lists(prefix: str = "estimation-countries") -> str:
    """Right object first, over the number of facts shown, against wordings."""
    found = of(prefix)
    counts = sorted({row["shown"] for summary, _ in found for row in summary["rows"] if row["way"] == "list"})
    lines = []
    for summary, _ in found:
        for relation in dict.fromkeys(row["relation"] for row in summary["rows"]):
            rows = [row for row in summary["rows"] if row["relation"] == relation]
            at = {row["shown"]: row for row in rows if row["way"] == "list" and not row.get("control")}
            said = [row for row in rows if row["way"] == "wording"]
            curve = [ranged(at[n], "accuracy", "") if n in at else "–" for n in counts]
            best = ", ".join(share(row["accuracy"]) for row in said) or "–"
            lines.append([model(summary), relation.replace("_", " "), *curve, best, share(rows[0]["chance"])])
    heads = ["model", "relation", *(f"n = {n}" for n in counts), "three wordings", "chance"]
    note = "Right object first among the options; 95 % bootstrap over subjects; means over lists drawn."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"]) if found else NOT_YET


def controls(prefix: str = "estimation-countries") -> str:
    """Facts put out of force in the longest list."""
    found = of(prefix)
    kinds = dict.fromkeys(
        (row["control"], row["place"]) for summary, _ in found for row in summary["rows"] if row.get("control")
    )
    lines = []
    for summary, _ in found:
        for relation in dict.fromkeys(row["relation"] for row in summary["rows"]):
            rows = [row for row in summary["rows"] if row["relation"] == relation and row["way"] == "list"]
            spoilt = {(row["control"], row["place"]): row for row in rows if row.get("control")}
            if not spoilt:
                continue
            shown = next(iter(spoilt.values()))["shown"]
            plain = next((row for row in rows if row["shown"] == shown and not row.get("control")), {})
            cells = [ranged(spoilt[kind], "accuracy", "") if kind in spoilt else "–" for kind in kinds]
            named = [model(summary), relation.replace("_", " "), str(shown)]
            lines.append([*named, ranged(plain, "accuracy", ""), *cells])
    heads = ["model", "relation", "facts shown", "none put in", *(f"{control}, {place}" for control, place in kinds)]
    return "\n".join([*table(heads, lines), "", made_by(found)]) if lines else NOT_YET


def popularity(prefix: str = "audit-popqa") -> str:
    """What is known of PopQA's facts, by tenths of popularity."""
    found = of(prefix)
    lines = [
        [
            model(summary),
            str(row["group"]),
            f"{row['facts']:,}",
            f"{row['least']:,.0f} to {row['most']:,.0f}",
            ranged(row, "at_least_prompt-dependent"),
            ranged(row, "at_least_latent"),
            ranged(row, "at_least_recognised"),
        ]
        for summary, _ in found
        for row in summary.get("popularity", ())
    ]
    heads = ["model", "tenth", "facts", "monthly views", "written", "at least latent", "at least recognised"]
    note = "Facts that cannot be guessed, from the least popular subjects to the most; 95 % bootstrap over facts."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"]) if lines else NOT_YET
