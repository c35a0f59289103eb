"""The README's tables about editing."""

from __future__ import annotations

from typing import Any

from kept import Kept, kept, made_by, percent, table

METHODS = ("ft-l", "ft-m", "lora", "melo", "wise", "grace", "rome", "memit", "alphaedit", "ike")
ROLES = ("reliability", "generality", "portability", "locality")
SHORT = {"reliability": "Rel.", "generality": "Gen.", "portability": "Por.", "locality": "Loc.", "mean": "mean"}


def gain(found: list[Kept], row: dict[str, Any], role: str) -> str:
    """A row's difference to cross-entropy in percentage points, with its interval; nothing for cross-entropy itself."""
    for summary, _ in found:
        for d in summary["differences"]:
            if all(d[key] == row[key] for key in ("method", "loss", "edits", "protocol")) and d["role"] == role:
                low, high = 100 * d["low"], 100 * d["high"]
                return f"{100 * d['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return ""


def beside(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Fluency before and after, and portability over kinds; nothing where no run of the table measured them."""
    if not any(one.get("fluency") is not None for one in rows):
        return []
    before, after = row.get("fluency_before"), row.get("fluency")
    moved = "–" if before is None or after is None else f"{100 * before:.0f} → {100 * after:.0f}"
    return [moved, percent(row.get("portability_by_kind"))]


def editing(protocol: str, prefix: str) -> str:
    """Methods x losses of all kept single-edit runs, with each loss's difference to cross-entropy."""
    found = kept(prefix)
    rows = [r for summary, _ in found for r in summary["rows"] if r["protocol"] == protocol and r["edits"] == 1]
    rows.sort(key=lambda r: METHODS.index(r["method"]))
    lines = [
        [row["method"], row["loss"], str(row["cases"])]
        + [percent(row[role]) for role in (*ROLES, "mean")]
        + [gain(found, row, role) for role in ("portability", "locality")]
        + beside(row, rows)
        for row in rows
    ]
    heads = ["method", "loss", "cases", *(SHORT[role] for role in (*ROLES, "mean")), "Por. − CE", "Loc. − CE"]
    heads += ["fluency", "Por. over kinds"] if beside({}, rows) else []
    note = f"Per cent, {protocol}; intervals are 95 % bootstrap over cases."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def continual(protocol: str, counts: tuple[int, ...] = (1, 10, 100)) -> str:
    """Methods x losses of all kept continual runs, judged again after so many edits."""
    found = kept("editing-continual-")
    rows = [r for summary, _ in found for r in summary["rows"] if r["protocol"] == protocol]
    units = dict.fromkeys((r["method"], r["loss"]) for r in sorted(rows, key=lambda r: METHODS.index(r["method"])))
    lines = []
    for method, loss in units:
        at = {r["edits"]: r for r in rows if (r["method"], r["loss"]) == (method, loss)}
        shares = [" / ".join(percent(at[n][role]) if n in at else "–" for n in counts) for role in (*ROLES, "mean")]
        last = at.get(counts[-1])
        gains = [gain(found, last, role) if last else "" for role in ("portability", "locality")]
        lines.append([method, loss, *shares, *gains])
    after = " / ".join(map(str, counts))
    heads = ["method", "loss", *(SHORT[role] for role in (*ROLES, "mean"))]
    heads += [f"{SHORT[role]} − CE after {counts[-1]}" for role in ("portability", "locality")]
    note = f"Per cent, {protocol}, after {after} edits in a row on one model, every edit so far judged again."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def sweep() -> str:
    """Each loss setting tried on the tuning split, by method."""
    found = kept("editing-sweep-")
    rows = [r for summary, _ in found for r in summary["rows"] if r["protocol"] == "teacher-forced" and r["edits"] == 1]
    rows.sort(key=lambda r: METHODS.index(r["method"]))
    lines = [[r["method"], r["loss"], *(percent(r[role]) for role in (*ROLES, "mean"))] for r in rows]
    heads = ["method", "loss", *(SHORT[role] for role in (*ROLES, "mean"))]
    cases = " or ".join(map(str, sorted({r["cases"] for r in rows})))
    note = f"Per cent, teacher-forced, {cases} cases of the tuning split, which no other table uses."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def ablation() -> str:
    """OVERTONE with one part out of force at a time, by method."""
    found = kept("editing-ablation-")
    lines = []
    for summary, _ in found:
        for row in summary["rows"]:
            if row["protocol"] == "teacher-forced":
                shares = [percent(row[role]) for role in (*ROLES, "mean")]
                lines.append([row["method"], row["setting"], *shares, f"{row['final_loss_spread']:.3f}"])
    heads = ["method", "setting", *(SHORT[role] for role in (*ROLES, "mean")), "spread"]
    cases = " or ".join(sorted({str(row["cases"]) for summary, _ in found for row in summary["rows"]}))
    note = (
        f"Per cent, teacher-forced, {cases} cases; *spread*: largest minus smallest final loss (nats) among an edit's target "
        "tokens."
    )
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])
