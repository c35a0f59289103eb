"""The README's tables about editing."""

from __future__ import annotations

import re
from typing import Any

from kept import Kept, kept, made_by, percent, table

METHODS = ("ft-l", "ft-m", "lora", "melo", "wise", "grace", "rome", "memit", "alphaedit", "ike")
#: FT-M and ROME in Llama2-7b-chat, teacher-forced: success / portability / locality, KnowEdit (arXiv 2401.01286).
PUBLISHED = {
    ("wiki_recent", "ft-m"): "100 / 65.4 / 64.3",
    ("wiki_recent", "rome"): "97.2 / 55.3 / 54.8",
    ("ZsRE", "ft-m"): "100 / 60.3 / 89.8",
    ("ZsRE", "rome"): "96.8 / 52.6 / 53.7",
    ("wiki_counterfact", "ft-m"): "100 / 74.4 / 76.8",
    ("wiki_counterfact", "rome"): "98.6 / 55.9 / 52.0",
}
ROLES = ("reliability", "generality", "portability", "locality")
SHORT = {"reliability": "Rel.", "generality": "Gen.", "portability": "Por.", "locality": "Loc.", "mean": "mean"}


def place(row: dict[str, Any]) -> tuple[int, str]:
    """Where a method stands in a table; those of no fixed place behind the others, by name."""
    method = row["method"]
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def published(benchmark: str, row: dict[str, Any]) -> str:
    """The paper's figures beside a single edit's with cross-entropy; "" where it has none."""
    if row["edits"] != 1 or row["loss"] != "cross-entropy":
        return ""
    return next(
        (said for (name, method), said in PUBLISHED.items() if benchmark.startswith(name) and row["method"] == method),
        "",
    )


def gain(found: list[Kept], row: dict[str, Any], role: str) -> str:
    """A row's difference to cross-entropy in percentage points, with its interval; nothing for cross-entropy itself."""
    for summary, _ in found:
        for d in summary["differences"]:
            if all(d[key] == row[key] for key in ("method", "loss", "edits", "protocol")) and d["role"] == role:
                low, high = 100 * d["low"], 100 * d["high"]
                return f"{100 * d['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return ""


def unedited(rows: list[dict[str, Any]]) -> list[str]:
    """What the unedited model answers right, in the place of the roles and their mean; nothing where no run noted it."""
    known = sorted((r for r in rows if r.get("reliability_unedited") is not None), key=lambda r: -r["cases"])
    return [percent(known[0].get(f"{role}_unedited")) for role in ROLES[:3]] + ["–", "–"] if known else []


def beside(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Fluency before and after, and portability over kinds; nothing where no run of the table measured them."""
    if not any(one.get("fluency") is not None for one in rows):
        return []
    before, after = row.get("fluency_before"), row.get("fluency")
    moved = "–" if before is None or after is None else f"{100 * before:.0f} → {100 * after:.0f}"
    return [moved, percent(row.get("portability_by_kind"))]


def editing(protocol: str, prefix: str) -> str:
    """Methods x losses of all kept single-edit runs, with each loss's difference to cross-entropy; before them the unedited
    model, as a run noted it that knew of it (the others are older)."""
    found, control = kept(prefix), kept("editing-control-")
    rows, noted = (
        [r for summary, _ in some for r in summary["rows"] if r["protocol"] == protocol and r["edits"] == 1]
        for some in (found, control)
    )
    rows.sort(key=place)
    lines = [
        [row["method"], row["loss"], str(row["cases"])]
        + [percent(row[role]) for role in (*ROLES, "mean")]
        + [gain(found, row, role) for role in ("portability", "locality")]
        + beside(row, rows)
        for row in rows
    ]
    if before := unedited(noted):
        lines.insert(0, ["unedited", "–", str(noted[0]["cases"]), *before, *[""] * (len(lines[0]) - 8)])
    heads = ["method", "loss", "cases", *(SHORT[role] for role in (*ROLES, "mean")), "Por. − CE", "Loc. − CE"]
    heads += ["fluency", "Por. over kinds"] if beside({}, rows) else []
    note = f"Per cent, {protocol}; intervals are 95 % bootstrap over cases."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found + control)}"])


def continual(protocol: str, counts: tuple[int, ...] = (1, 10, 100)) -> str:
    """Methods x losses of all kept continual runs, judged again after so many edits."""
    found = kept("editing-continual-")
    rows = [r for summary, _ in found for r in summary["rows"] if r["protocol"] == protocol]
    units = dict.fromkeys((r["method"], r["loss"]) for r in sorted(rows, key=place))
    lines = []
    ends = [r for r in rows if r["edits"] == counts[-1]]
    nothing: list[list[str]] = [unedited([r for r in rows if r["edits"] == n]) for n in counts]
    if all(nothing):
        lines.append(
            ["unedited", "–", *map(" / ".join, zip(*nothing, strict=True)), "", "", *[""] * len(beside({}, ends))]
        )
    for method, loss in units:
        at = {r["edits"]: r for r in rows if (r["method"], r["loss"]) == (method, loss)}
        shares = [" / ".join(percent(at[n][role]) if n in at else "–" for n in counts) for role in (*ROLES, "mean")]
        last = at.get(counts[-1])
        gains = [gain(found, last, role) if last else "" for role in ("portability", "locality")]
        lines.append([method, loss, *shares, *gains, *beside(last or {}, ends)])
    after = " / ".join(map(str, counts))
    heads = ["method", "loss", *(SHORT[role] for role in (*ROLES, "mean"))]
    heads += [f"{SHORT[role]} − CE after {counts[-1]}" for role in ("portability", "locality")]
    heads += [f"{name} after {counts[-1]}" for name in ("fluency", "Por. over kinds")] if beside({}, ends) else []
    note = f"Per cent, {protocol}, after {after} edits in a row on one model, every edit so far judged again."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def sweep() -> str:
    """Each loss setting tried on the tuning split, by method."""
    found = kept("editing-sweep-")
    rows = [r for summary, _ in found for r in summary["rows"] if r["protocol"] == "teacher-forced" and r["edits"] == 1]
    rows.sort(key=place)
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


def overtone(protocol: str) -> str:
    """OVERTONE against cross-entropy over real benchmarks, models and methods, edits alone or in a row."""
    found = kept("overtone-")
    lines = []
    every = [row for summary, _ in found for row in summary["rows"] if row["protocol"] == protocol]
    theirs = protocol == "teacher-forced"
    for summary, config in found:
        of = [_name(config, "model").partition("-")[0], _name(config, "benchmark").partition(".")[0]]
        for row in summary["rows"]:
            if row["protocol"] == protocol:
                shares = [percent(row.get(role)) for role in ROLES]
                gains = [gain([(summary, config)], row, role) for role in ("generality", "portability", "locality")]
                line = [*of, row["method"], row["loss"], str(row["edits"]), str(row["cases"]), *shares, *gains]
                lines.append([*line, *beside(row, every), *[published(of[1], row)] * theirs])
    heads = ["model", "benchmark", "method", "loss", "edits", "cases", *(SHORT[role] for role in ROLES)]
    heads += [f"{SHORT[role]} − CE" for role in ("generality", "portability", "locality")]
    heads += ["fluency", "Por. over kinds"] if beside({}, every) else []
    heads += ["Rel. / Por. / Loc. of Llama2-7b-chat (arXiv 2401.01286)"] * theirs
    note = f"Per cent, {protocol}; intervals are 95 % bootstrap over cases."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def _name(config: dict[str, Any], option: str) -> str:
    return str(config["config"][option]).rpartition("/")[2]


def overfitting() -> str:
    """How far the tokens of a target end apart, by its length, over real benchmarks and models."""
    found = kept("overfitting-")
    lines = []
    for summary, config in found:
        model, file = _name(config, "model"), _name(config, "benchmark")
        at = {(row["setting"], row["shortest"]): row for row in summary["lengths"]}
        for (setting, shortest), row in at.items():
            full = at.get(("full", shortest))
            if setting == "cross-entropy" and full is not None:
                longest = row["longest"]
                apart = row["to_full"] or {}
                lines.append(
                    [
                        model.partition("-")[0],
                        file.partition(".")[0],
                        str(shortest) if shortest == longest else f"{shortest} to {longest}",
                        str(row["edits"]),
                        *(
                            f"{one['final_loss_spread']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
                            for one in (row, full)
                        ),
                        _points(apart),
                    ]
                )
    heads = ["model", "benchmark", "target tokens", "edits", "apart under cross-entropy", "under OVERTONE"]
    note = "Nats between the best and the worst learnt token of a target after the last step, with 95 % intervals over edits."
    return "\n".join([*table([*heads, "portability, CE − OVERTONE"], lines), "", f"{note} {made_by(found)}"])


def _points(row: dict[str, Any]) -> str:
    """A difference of shares in points, with its interval."""
    if row.get("difference") is None:
        return "–"
    return f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def _set(command: str, method: str) -> str:
    """The method's settings that a command names, as words."""
    found = re.findall(rf"--hyper\.{re.escape(method)}\.([a-z-]+)[ =](\S+)", command)
    return "".join(f", {name.replace('-', ' ')} {value}" for name, value in found)


def lifelong() -> str:
    """Hundreds of edits in turns: what the oldest and the newest tenth still say, beside the unedited model, and damage."""
    found = kept("lifelong-")
    lines: list[list[str]] = []
    untouched: list[list[str]] = []
    for summary, config in found:
        edited, seed = summary["benchmark"].rpartition("/")[2].partition(".")[0], str(config["config"]["seed"])
        for count in dict.fromkeys(row["edits"] for row in summary["rows"]):
            here = [row for row in summary["rows"] if row["edits"] == count]
            forced, free = (
                unedited([row for row in here if row["protocol"] == name]) for name in ("teacher-forced", "generated")
            )
            line = [
                edited,
                seed,
                "unedited",
                str(count),
                *free[:2],
                *forced[:1],
                "–",
                "–",
                "100.0",
                "100.0",
                "+0.00",
                "–",
            ]
            if free and line not in untouched:
                untouched.append(line)
        units = dict.fromkeys((row["method"], row["loss"]) for row in summary["rows"])
        for method, loss in units:
            of = [row for row in summary["ages"] if (row["method"], row["loss"]) == (method, loss)]
            for hurt in summary["damage"]:
                if (hurt["method"], hurt["loss"]) != (method, loss):
                    continue
                count = hurt["edits"]
                whole = {
                    row["protocol"]: row
                    for row in summary["rows"]
                    if (row["method"], row["loss"], row["edits"]) == (method, loss, count)
                }
                cells = [percent(whole["generated"].get(role)) for role in ("reliability", "generality")]
                cells.append(percent(whole["teacher-forced"].get("reliability")))
                for protocol in ("generated", "teacher-forced"):
                    rows = [
                        row
                        for row in of
                        if (row["edits"], row["protocol"], row["role"]) == (count, protocol, "reliability")
                    ]
                    new, old = (min(rows, key=_age), max(rows, key=_age)) if rows else ({}, {})
                    cells.append(" / ".join(percent(row.get("share")) for row in (new, old)))
                more = hurt["nats_more"]
                lines.append(
                    [
                        edited,
                        seed,
                        method + _set(config["command"], method) + _ordered(config["config"]),
                        str(count),
                        *cells,
                        percent(whole["generated"].get("locality:known facts")),
                        percent(hurt["twins_same"]),
                        "–" if more is None else f"{more:+.2f}",
                        f"{1 / max(hurt['seconds_per_edit'], 1e-9):.2g}",
                    ]
                )
    heads = ["edits of", "seed", "method", "edits", "written", "in other wordings", "teacher-forced"]
    heads += ["written, newest / oldest tenth", "teacher-forced, likewise"]
    heads += ["known facts", "untouched answers", "nats more", "edits a second"]
    note = (
        "Per cent of the edits that still hold; *known facts*: answers about countries, right before, that are as before; "
        "*untouched answers*: answers about never-edited twins that are; *nats more*: how much less likely a token of unseen "
        "text is. *unedited*: what the model itself says to the same questions before any edit."
    )
    return "\n".join([*table(heads, untouched + lines), "", f"{note} {made_by(found)}"])


def _ordered(config: dict[str, Any]) -> str:
    """Where the edits were made in another order than they come in; runs of older versions never were."""
    seed = config.get("order_seed")
    return "" if seed is None else f", order {seed}"


def _age(row: dict[str, Any]) -> int:
    return int(row["age"])
