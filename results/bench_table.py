"""The table of speed, from what ``bench/run_all.py`` left in bench.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kept import HERE, table


def reached(row: dict[str, Any]) -> str:
    """Which part of what a row's arithmetic allows is there; rows of before say the bound in words alone."""
    said = re.search(r"at most ([\d.]+)x$", row["why"])
    bound = row.get("bound") or (float(said[1]) if said else None)
    return f", of which {row['ratio'] / bound:.0%} is reached" if bound else ""


def bench(file: Path = HERE / "bench.json") -> str:
    """All rows, and the arithmetic of those that fall short of their aim; a line without figures where none are kept."""
    if not file.exists():
        return "Not measured with this version: `make bench`."
    kept = json.loads(file.read_text(encoding="utf-8"))
    lines, notes = [], []
    for one in kept["benches"]:
        for row in one["rows"]:
            aim = "" if row["aim"] is None else f"{row['aim']:.3g}×"
            lines.append(
                [row["what"], row["ours"], row["beside"], f"{row['ratio']:.1f}×", aim, f"`bench/{one['script']}`"]
            )
            if row["aim"] is not None and row["ratio"] < row["aim"]:
                why = (
                    f"{row['why']}{reached(row)}"
                    if row["why"]
                    else f"{row['ratio']:.2f}× of {row['aim']:.3g}×, no cause known"
                )
                notes.append(f"- {row['what']}: {why}")
        if one["problem"]:
            lines.append([f"({one['problem']})", "", "", "", "", f"`bench/{one['script']}`"])
    took = sum(one["seconds"] for one in kept["benches"]) / 60
    commits = ", ".join(sorted({one["commit"] for one in kept["benches"]}))
    made = (
        f"Measured at {commits} with {kept['threads']} thread on {kept['cores']} cores, torch {kept.get('torch', '?')}, "
        f"in {took:.0f} minutes: `make bench`."
    )
    heads = ["what", "ours", "beside", "ratio", "aim", "script"]
    return "\n".join([*table(heads, lines), "", made, *(["", "Short of their aim:", "", *notes] if notes else [])])
