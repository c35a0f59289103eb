"""From the rows of a run to its tables. No model code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engramlab.base import bootstrap
from engramlab.base.rows import BEHIND, OVERRULED, PLAIN_LOSS, PROTOCOLS, ROLES, TAUGHT, Row
from engramlab.editing.judge import rivals
from engramlab.editing.judge.metrics import BY_KIND, difference, metrics, right, unedited
from engramlab.experiments.knowledge_editing.config import Config, folder_of
from engramlab.files import records


def summarise(out: Path, config: Config, units: Sequence[tuple[str, str]], loaded: Any) -> dict[str, Any]:
    """The run's summary: a row a (method, loss, number of edits, protocol), OVERTONE against cross-entropy, what failed."""
    by_unit: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    likelihood: list[Row] = []
    quality: list[Row] = []
    ages: list[Row] = []
    tasks: list[Row] = []
    damage: list[Row] = []
    asked = records.read_record(out / "asked.json", ("nats",)) if config.setting == "turns" else {}
    before = records.read_record(out / "tasks.json", ()) if config.lm_eval else {}
    for name, loss in units:
        folder = folder_of(out, (name, loss))
        done = records.read_record(folder / "done.json", ("seconds", "edits", "failed"))
        failed += [{"method": name, "loss": loss, **row} for row in done["failed"]]
        tasks += [
            {"method": name, "loss": loss, "before": before.get(row["task"]), **row} for row in done.get("tasks", ())
        ]
        of_counts: dict[int, list[dict[str, Any]]] = {}
        for row in records.read_rows(folder / "rows.parquet", ("edits", "case")):
            of_counts.setdefault(row["edits"], []).append(row)
        if config.setting == "turns":
            unit: Row = {"method": name, "loss": loss}
            ages += [unit | row for count, judged in sorted(of_counts.items()) for row in by_age(judged, count)]
            damage += [unit | lost(row, done, of_counts[row["edits"]], asked["nats"]) for row in done["damage"]]
            of_counts = {n: [row for row in judged if row["part"] == "edited"] for n, judged in of_counts.items()}
        by_unit[name, loss] = of_counts
        for count, every in sorted(of_counts.items()):
            judged = [row for row in every if row["role"] != OVERRULED]  # nobody shall say it any more
            found, was = metrics(judged), metrics(unedited(judged))
            about = {
                "method": name,
                "loss": loss,
                "edits": count,
                "cases": found["cases"],
                "failed": len(done["failed"]),
                "seconds_per_edit": round(done["seconds"] / max(1, done["edits"]), 3),
            }
            if config.setting == "continual":
                about["overruled"] = len({row["case"] for row in every} - {row["case"] for row in judged})
            for protocol in PROTOCOLS:
                kinds = {
                    f"{role}:{kind}": shares[protocol]
                    for role in BY_KIND
                    for kind, shares in found["kinds"][role].items()
                }
                shares = {role: found[protocol][role] for role in (*ROLES, "mean")}
                shares["portability_by_kind"] = found["portability_by_kind"][protocol]
                shares |= {f"{role}_unedited": was[protocol][role] for role in TAUGHT}
                rows.append({**about, "protocol": protocol, **shares, **found["beyond"], **kinds})
            quality.append({"method": name, "loss": loss, "edits": count, **_quality(found, judged, config.seed)})
            if (liked := rivals.likelihood(judged, config.seed)) is not None:
                likelihood.append({"method": name, "loss": loss, "edits": count, "protocol": "likelihood", **liked})
    turns = (
        {"turn": config.turn, "order_seed": config.order_seed, "ages": ages, "damage": damage}
        if config.setting == "turns"
        else {}
    )
    return {
        "model": config.model,
        "benchmark": str(config.facts or config.benchmark),
        "setting": config.setting,
        "new_tokens": _new_tokens(out),
        "rows": rows,
        **turns,
        "likelihood": likelihood,
        "quality": quality,
        "tasks": tasks,
        "differences": _differences(by_unit, config.seed),
        "failed": failed,
        "oddities": [{"text": text} for text in loaded.oddities],
        "skipped": [{"index": i, "key": key, "reason": reason} for i, key, reason in loaded.skipped],
    }


def _quality(found: Row, judged: Sequence[Row], seed: int) -> Row:
    """What is no share of a role: ``es``, ``bp`` and ``eq`` (``metrics.edit_quality``); ``behind``, the share of edits that
    hold behind texts nobody has seen, over cases, with its 95 % interval and the same before; of methods that read notes
    ``recalled_in`` and ``recalled_out``, how often one was read before questions in and out of scope; of questions with options
    ``options``, how many, and the share whose answer is the likeliest, by its sum or mean, before and after."""
    row: Row = dict(found["edit_quality"] or {})
    if (recall := found["recall"]) is not None:
        inside = [recall[role] for role in ("reliability", "generality") if recall[role] is not None]
        row |= {"recalled_in": _mean(inside), "recalled_out": recall["locality"]}
    row |= behind(judged, seed)
    chosen = rivals.choices(judged)
    if chosen["questions"]:
        row["options"] = chosen["questions"]
        row |= {f"{by}_{when}": share for by in ("sum", "mean") for when, share in chosen[by].items()}
    return row


def behind(judged: Sequence[Row], seed: int) -> Row:
    """How often the new answer is given to an edit's prompt behind other texts, written freely; nothing where none was asked.

    Contextual reliability (arXiv 2401.07544; its texts are not known, ours are the embedded page's sentences).
    """
    now: dict[str, list[float]] = {}
    was: list[bool] = []
    for row in judged:
        if row["role"] == BEHIND and row["generated"] is not None:
            now.setdefault(row["case"], []).append(row["generated"])
            was.append(right(row, "before"))
    if not now:
        return {}
    return {"behind_before": sum(was) / len(was)} | bootstrap.mean(
        "behind", [sum(v) / len(v) for v in now.values()], seed
    )


def by_age(judged: Sequence[Row], count: int) -> list[Row]:
    """A row a tenth of age, role and protocol: shares after ``count`` edits over the cases that still hold, and beside them
    those of the unedited model on the same questions."""
    found = []
    edited = [row for row in judged if row["part"] == "edited"]
    for age in sorted({row["age"] for row in edited}):
        of_age = [row for row in edited if row["age"] == age]
        numbers, was = metrics(of_age), metrics(unedited(of_age))
        for role in ("reliability", "generality"):
            about = {"edits": count, "age": age, "role": role, "cases": numbers["counts"][role]["cases"]}
            found += [{**about, "protocol": p, "share": numbers[p][role], "unedited": was[p][role]} for p in PROTOCOLS]
    return found


def lost(row: Row, done: Row, judged: Sequence[Row], nats: float | None) -> Row:
    """What became of the model after some edits: as measured then, and from the rows of what is not to be right any more."""
    twins, old = ([one for one in judged if one["part"] == part] for part in ("twin", "overwritten"))
    after = row["nats"]
    return {
        "edits": row["edits"],
        "seconds_per_edit": row["seconds"] / row["edits"],
        "statistics_seconds": done.get("statistics_seconds"),
        "nats_before": nats,
        "nats_more": None if after is None or nats is None else after - nats,
        "norm": row["norm"],
        **{f"{what}_{when}": row[when][what] for when in ("before", "after") for what in row[when]},
        **{f"facts_{name}": value for name, value in row.get("facts", {}).items()},
        **row.get("stops", {}),
        **row.get("fluent", {}),
        **{name: row.get(name) for name in ("device", "peak_memory")},
        "twins": len(twins),
        "twins_same": _mean([one["same"] for one in twins]),
        "twins_right_before": _mean([one["right_before"] for one in twins]),
        "twins_right": _mean([one["generated"] for one in twins if one["generated"] is not None]),
        **_asides(judged),
        "overwritten": len(old),
        "overwritten_old": _mean([one["generated"] for one in old if one["generated"] is not None]),
        "overwritten_newest": _mean([one["newest"] for one in old if one["newest"] is not None]),
    }


def _asides(judged: Sequence[Row]) -> Row:
    """Shares of edits whose new answer is still given where the prompt is negated, and whose subject is where it is turned
    round, before and after; nothing where that was not asked."""
    found: Row = {}
    for role in ("negated", "reversed"):
        of = [one for one in judged if one["role"] == role]
        if of:
            found[role] = _mean([one["generated"] for one in of if one["generated"] is not None])
            found |= {f"{role}_before": _mean([one["right_before"] for one in of]), f"{role}_asked": len(of)}
    return found


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


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
