"""The tables of what becomes of facts: half-lives, what an edit reached, wordings at edit time; and of the arms of teaching."""

from __future__ import annotations

from typing import Any

from estimation_tables import of
from kept import ABSENT, Kept, interval, made_by, share, table

HALF, NAME, WORDINGS = "lifecycle-half-life", "lifecycle-name", "lifecycle-wordings"


def half_lives() -> str:
    found = of(HALF)
    return _half_lives(found) if found else ABSENT


def matched() -> str:
    found = of(HALF)
    return _matched(found) if found else ABSENT


def name() -> str:
    found = of(NAME)
    return _name(found) if found else ABSENT


def wordings() -> str:
    found = of(WORDINGS)
    return _wordings(found) if found else ABSENT


def teaching() -> str:
    """The arms of every run kept under ``teaching-``."""
    found = of("teaching-")
    if not found:
        return ABSENT
    lines = []
    for summary, config in found:
        rows = summary["rows"]
        for arm in dict.fromkeys(row["arm"] for row in rows):
            cells = [
                _taught(rows, arm, group, part) for group in ("unasked", "asked") for part in ("held-out", "trained")
            ]
            drift = next((r["nats"] for r in summary["drift"] if (r["arm"], r["text"]) == (arm, "replayed kind")), None)
            lines.append(
                [
                    str(config["config"]["model"]).rpartition("/")[2],
                    arm,
                    *cells,
                    "–" if drift is None else f"{drift:+.3f}",
                ]
            )
    heads = [
        "model",
        "arm",
        "never asked, held-out wordings",
        "never asked, trained",
        "asked, held-out",
        "asked, trained",
        "drift",
    ]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def _taught(rows: list[dict[str, Any]], arm: str, group: str, part: str) -> str:
    wanted = (arm, group, part, "any")
    row = next((r for r in rows if (r["arm"], r["group"], r["wordings"], r["kind"]) == wanted), None)
    return "–" if row is None else f"{share(row['share'])} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"


def _half_lives(found: list[Kept]) -> str:
    lines = []
    for summary, _ in found:
        for row in summary["half_life"]:
            last = [r for r in summary["courses"] if (r["arm"], r["training"]) == (row["arm"], row["training"])][-1]
            lines.append(
                [
                    row["arm"],
                    row["training"],
                    f"{row['written']} of {row['facts']}",
                    str(row["left_out"]),
                    _half(row, last["steps"]),
                    interval(last, "retention"),
                    interval(last, "survival"),
                    interval(last, "margin"),
                ]
            )
    heads = [
        "arm",
        "trained",
        "written",
        "left out",
        "half-life, steps",
        "retention at the end",
        "survive",
        "margin kept",
    ]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def _half(row: dict[str, Any], steps: int) -> str:
    if row["half"] is None:
        return f"over {steps}" if row["censored"] else "–"
    high = f"over {steps}" if row["half_high"] is None else f"{row['half_high']:.0f}"
    return f"{row['half']:.0f} [{row['half_low']:.0f}, {high}]"


def _matched(found: list[Kept]) -> str:
    lines = [
        [row["arm"], row["other"], row["training"], str(row["pairs"]), str(row["unmatched"]), _signed(row)]
        for summary, _ in found
        for row in summary["matched"]
    ]
    return "\n".join(table(["arm", "against", "trained", "pairs", "unmatched", "retention more"], lines))


def _signed(row: dict[str, Any]) -> str:
    return "–" if row["difference"] is None else f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _name(found: list[Kept]) -> str:
    lines = []
    for summary, _ in found:
        last = max(row["layer"] for row in summary["name"])
        edits = {row["method"]: row for row in summary["name_edits"]}
        for row in summary["name"]:
            if row["layer"] == last:
                made = edits[row["method"]]
                lines.append(
                    [
                        row["method"],
                        f"{share(made['written'])}, {share(made['written_held'])}" if made["edits"] else "–",
                        row["place"],
                        str(row["subjects"]),
                        *(interval(row, what) for what in ("new", "old", "random")),
                        "–" if row["beside"] is None else share(row["beside"]),
                    ]
                )
    heads = [
        "method",
        "written, in other words",
        "read at",
        "subjects",
        "new",
        "old",
        "a third object",
        "others as before",
    ]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def _wordings(found: list[Kept]) -> str:
    lines = []
    for summary, _ in found:
        for row in summary["wordings"]:
            if row["protocol"] == "generated":
                old = "–" if row["old"] is None else f"{row['old']:.2f} (was {row['old_before']:.2f})"
                lines.append(
                    [
                        row["method"],
                        row["kind"],
                        str(row["wordings"]),
                        *(interval(row, role) for role in ("reliability", "generality", "portability", "locality")),
                        old,
                    ]
                )
    heads = ["method", "rows", "wordings", "reliability", "generality", "portability", "locality", "old object's K"]
    return "\n".join([*table(heads, lines), "", made_by(found)])
