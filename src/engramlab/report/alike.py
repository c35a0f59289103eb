"""Which runs may be averaged, what the others differ in, and the few facts that stand at the top of a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engramlab.report.parts.blocks import Table
from engramlab.report.parts.words import count
from engramlab.report.rows import RunData, distinct, number

_NO_MATTER = ("seed", "checkpoint_minutes")  # options that do not make runs unlike
_MOST = 40  # options listed


class Nouns(NamedTuple):
    """What a page calls those whom a model is asked about, and the texts it reads."""

    subjects: str
    texts: str


def nouns(runs: Sequence[RunData]) -> Nouns:
    """People and biographies where all texts are bioS's; else neutral words."""
    own = any(options(run).get(key) is not None for run in runs for key in ("facts", "corpus"))
    bios = all(number(options(run).get("people")) is not None for run in runs)
    return Nouns("people", "biographies") if bios and not own else Nouns("subjects", "texts")


def options(run: RunData) -> dict[str, Any]:
    """The resolved options of a run, of a sweep those of its cells too; none where its folder keeps none."""
    found = run.config.get("config")
    found = dict(found) if isinstance(found, Mapping) else {}
    each = found.get("options")
    return {**each, **found} if isinstance(each, Mapping) else found


def series(runs: Sequence[RunData]) -> dict[str, str]:
    """By run, the name of those it may be averaged with: "" where that is all of them.

    Runs are averaged where they differ in seed alone: same experiment, options and inputs, and no two of the same seed.
    """
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        same = {key: value for key, value in _settings(run) if key not in _NO_MATTER}
        groups.setdefault(repr(sorted(same.items())) if options(run) else run.name, []).append(run)
    found = {}
    for members in groups.values():
        seeds = [repr(options(run).get("seed")) for run in members]
        together = len(set(seeds)) == len(members)
        name = ", ".join(run.name for run in members)
        found.update({run.name: name if together else run.name for run in members})
    return dict.fromkeys(found, "") if len(set(found.values())) == 1 else found


def differences(runs: Sequence[RunData]) -> list[Table]:
    """A table of the options in which runs differ, a column a run; none where there is nothing to say."""
    if len(runs) < 2:
        return []
    each = [dict(_settings(run)) for run in runs]
    keys = [
        key for key in distinct(key for one in each for key in one) if len({repr(one.get(key)) for one in each}) > 1
    ]
    if not keys:
        return []
    rows = [[key, *(_said(one.get(key, "–")) for one in each)] for key in keys[:_MOST]]
    more = f" The first {_MOST} of {len(keys)}." if len(keys) > _MOST else ""
    caption = f"What these runs differ in. Only runs that differ in seed alone are averaged.{more}"
    return [Table(["option", *(run.name for run in runs)], rows, caption)]


def _settings(run: RunData) -> Iterator[tuple[str, Any]]:
    yield from _flat(options(run), "")
    yield from _flat(run.config.get("inputs"), "inputs.")


def _flat(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if isinstance(each, Mapping):
                yield from _flat(each, f"{where}{key}.")
            else:
                yield f"{where}{key}", each


def strip(run: RunData) -> list[tuple[str, str]]:
    """What was asked of what: model, data, size, seed, date, commit; whatever is not recorded is left out."""
    chosen = options(run)
    facts = {
        "model": _model(chosen, run),
        "data": _data(chosen, run),
        "n": _size(chosen, run),
        "seed": run.summary.get("seed", chosen.get("seed")),
        "date": str(run.config.get("created") or "")[:10],
        "commit": str(run.config.get("commit") or "")[:12],
    }
    return [(name, _said(value)) for name, value in facts.items() if value not in (None, "", [])]


def _model(chosen: Mapping[str, Any], run: RunData) -> Any:
    model = chosen.get("model", run.summary.get("model", chosen.get("sizes", chosen.get("size"))))
    if not isinstance(model, Mapping):
        return [Path(str(one)).name for one in model] if isinstance(model, list) else model
    about = [model.get("name"), model.get("family"), "masked" if model.get("objective") == "masked" else None]
    return " ".join(str(part) for part in about if part)


def _data(chosen: Mapping[str, Any], run: RunData) -> Any:
    for key in ("facts", "corpus", "inject", "benchmark"):
        if isinstance(found := chosen.get(key), str) and found:
            return Path(found).name
    if (
        run.experiment == "hidden-state-probing"
    ):  # what is probed brings its texts: options about texts say nothing of it
        return distinct(str(row.get("dataset")) for row in run.rows)
    return "bioS, made-up people" if "people" in chosen and "fiction" not in chosen else None


def _size(chosen: Mapping[str, Any], run: RunData) -> str | None:
    people = number(chosen.get("people"))
    if people is not None and not chosen.get("facts") and run.experiment != "hidden-state-probing":
        return f"{count(people)} people"
    for key, word in (
        ("cases", "cases"),
        ("passages", "passages"),
        ("examples", "held out"),
        ("questions", "questions"),
    ):
        found = [n for row in run.rows if (n := number(row.get(key))) is not None]
        if found:
            return f"{count(max(found))} {word}"
    return None


def _said(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else text[:199] + "…"
