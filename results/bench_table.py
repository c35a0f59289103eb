"""The tables of speed, from what ``bench/run_all.py`` left in bench.json and two benches on a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
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


def gpu_training(file: Path = HERE / "gpu-training.json") -> str:
    """Tokens a second and the share of the chip's peak, plain, compiled and by ``transformers.Trainer``."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    tokens, peak = kept["batch"] * kept["context"], kept["peak_tflops"]
    lines = [
        [
            f"`{row['size']}`, {kept['batch']} × {kept['context']}",
            {"compiled": "engramlab, compiled"}.get(row["side"], row["side"]),
            f"{1e3 * median(row['seconds']):.1f} ms",
            f"{row['tokens_a_second']:,}",
            f"{100 * row['share']:.1f} %",
            f"{80_000 * tokens / row['tokens_a_second'] / 3600:.1f} h",
        ]
        for row in kept["steps"]
    ]
    work = kept["steps"][0]["share"] * peak * 1e12 / kept["steps"][0]["tokens_a_second"]
    heads = ["network, batch", "by", "a step", "tokens a second", f"of {peak:.0f} TFLOP/s", "80,000 steps"]
    note = (
        f"bf16, {work / 1e6:.0f} M operations a token (6 × parameters + 12 × layers × width × context). The last column is the "
        "time of the paper's pretraining at that rate."
    )
    return "\n".join([*table(heads, lines), "", f"{note} {gpu_made(kept)}"])


def gpu_edits(file: Path = HERE / "gpu-large.json") -> str:
    """Edits a second on a network of a real model's shape."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    lines = [
        [
            f"`{row['method']}`",
            f"{row['alone']:.2f} s",
            f"{row['together']:.2f} s",
            f"{1 / row['together']:.2f}",
            f"{row['memory'] / 2**30:.1f} GiB",
        ]
        for row in kept["methods"]
    ]
    heads = ["method", "an edit alone", f"one of {kept['edits']} at once", "edits a second", "at most"]
    note = (
        f"{kept['parameters'] / 1e9:.2f} G random parameters in bf16, default settings; judging by both protocols: "
        f"{kept['queries_a_second']} queries a second."
    )
    return "\n".join([*table(heads, lines), "", f"{note} {gpu_made(kept)}"])


def gpu_made(kept: dict[str, Any]) -> str:
    """Where figures of a GPU come from."""
    versions = kept["versions"]
    return f"{versions['gpu']}, torch {versions['torch']}, at {kept['commit']}: `{kept['command']}`."
