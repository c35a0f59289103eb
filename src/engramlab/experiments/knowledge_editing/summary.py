"""From the rows of a run to its tables. No model code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engramlab.base.rows import PLAIN_LOSS, PROTOCOLS, ROLES
from engramlab.editing.judge.metrics import BY_KIND, difference, metrics
from engramlab.experiments.knowledge_editing.config import Config, folder_of
from engramlab.files import records


def summarise(out: Path, config: Config, units: Sequence[tuple[str, str]], loaded: Any) -> dict[str, Any]:
    """The run's summary: a row a (method, loss, number of edits, protocol), OVERTONE against cross-entropy, what failed."""
    by_unit: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for name, loss in units:
        folder = folder_of(out, (name, loss))
        done = records.read_record(folder / "done.json", ("seconds", "edits", "failed"))
        failed += [{"method": name, "loss": loss, **row} for row in done["failed"]]
        of_counts: dict[int, list[dict[str, Any]]] = {}
        for row in records.read_rows(folder / "rows.parquet", ("edits", "case")):
            of_counts.setdefault(row["edits"], []).append(row)
        by_unit[name, loss] = of_counts
        for count, judged in sorted(of_counts.items()):
            found = metrics(judged)
            about = {
                "method": name,
                "loss": loss,
                "edits": count,
                "cases": found["cases"],
                "failed": len(done["failed"]),
                "seconds_per_edit": round(done["seconds"] / max(1, done["edits"]), 3),
            }
            for protocol in PROTOCOLS:
                kinds = {
                    f"{role}:{kind}": shares[protocol]
                    for role in BY_KIND
                    for kind, shares in found["kinds"][role].items()
                }
                shares = {role: found[protocol][role] for role in (*ROLES, "mean")}
                rows.append({**about, "protocol": protocol, **shares, **kinds})
    return {
        "model": config.model,
        "benchmark": str(config.facts or config.benchmark),
        "setting": config.setting,
        "new_tokens": _new_tokens(out),
        "rows": rows,
        "differences": _differences(by_unit, config.seed),
        "failed": failed,
        "skipped": [{"index": i, "key": key, "reason": reason} for i, key, reason in loaded.skipped],
    }


def _differences(by_unit: dict[tuple[str, str], dict[int, list[dict[str, Any]]]], seed: int) -> list[dict[str, Any]]:
    """Every other loss against cross-entropy, by method and number of edits, with bootstrap intervals over cases."""
    found = []
    for (name, loss), of_counts in by_unit.items():
        plain = by_unit.get((name, PLAIN_LOSS))
        if plain is None or loss == PLAIN_LOSS:
            continue
        for count in sorted(set(of_counts) & set(plain)):
            made = difference(of_counts[count], plain[count], seed=seed)
            for protocol in PROTOCOLS:
                for role, interval in made[protocol].items():
                    if interval is not None:
                        about = {
                            "method": name,
                            "loss": loss,
                            "edits": count,
                            "protocol": protocol,
                            "role": role,
                        }
                        found.append({**about, **interval})
    return found


def _new_tokens(out: Path) -> int | None:
    rows = records.read_rows(out / "before.parquet", ("new_tokens",))
    return rows[0]["new_tokens"] if rows else None
