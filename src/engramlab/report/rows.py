"""Read run folders into plain lists of dicts.

A run may be unfinished, so every file may be absent and the last line of a metrics file may be half-written:
`read_run` takes what is there and keeps a note of what it had to skip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.rows import Row


@dataclass(frozen=True)
class RunData:
    """What one run folder holds.

    Attributes:
        rows: final measurements, one a dataset × mode × group × attribute, with `run` (name) and `label` added.
        training: one row a dataset × stage: steps, tokens, loss, seconds.
        curves: rows along training, in step order, with `run`, `dataset`, `label` and `stage` added.
        examples: by dataset label, `entries` (texts) and `answers`.
        notes: what could not be read, one sentence each.
    """

    __repr__ = brief

    path: Path
    name: str
    experiment: str = ""
    config: Row = field(default_factory=dict)
    summary: Row = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    training: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)
    examples: dict[str, Row] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """A run writes its summary last, so the summary is what says that it ended."""
        return bool(self.summary)


def number(value: object) -> float | None:
    """`value` as a finite float, or None when it is missing, not a number, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def label(dataset: object, family: object) -> str:
    """A dataset's name on the page: `multi5` alone is bioS; other families are named, as in `bioR multi5`."""
    return str(dataset) if family in (None, "", "bioS") else f"{family} {dataset}"


def people(group: object, kind: object = None) -> str:
    """How a page names a group of people; ``kind`` is what a row says they are, where not all of a run are alike.

    >>> people("test"), people("test", "minority"), people("celebrities", "celebrities")
    ('P_test', 'P_test (minority)', 'held-out celebrities')
    """
    if group == "celebrities":
        return "held-out celebrities"
    return f"P_{group}" + (f" ({kind})" if kind else "")


def words(name: object) -> str:
    """`birth_date` as a page says it: birth date."""
    return str(name).replace("_", " ")


def distinct(values: Iterable[Any]) -> list[Any]:
    """The values without repetition, in order of first appearance."""
    return list(dict.fromkeys(values))


def read_runs(paths: Sequence[Path]) -> list[RunData]:
    """Read several run folders; names are the folder names, or the whole paths where folder names clash.

    Raises:
        UserError: an empty list, a folder given twice, or a folder that `read_run` refuses.
    """
    folders = [Path(path) for path in paths]
    if not folders:
        raise UserError("no run folder given: expected at least one, such as runs/demo")
    resolved = [folder.resolve() for folder in folders]
    for index, folder in enumerate(resolved):
        if folder in resolved[:index]:
            raise UserError(f"run folder {folders[index]} is given twice: name every run once")
    short = [folder.name for folder in resolved]
    return [
        read_run(folder, name if short.count(name) == 1 else str(folder))
        for folder, name in zip(folders, short, strict=True)
    ]


def read_run(path: Path, name: str = "") -> RunData:
    """Read one run folder, finished or not.

    Raises:
        UserError: the folder does not exist, holds no run, or holds a JSON file that cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise UserError(f"run folder {path} {what}: expected a folder written by `engramlab run … --out {path}`")
    name = name or path.resolve().name
    config, summary = read_object(path / "config.json"), read_object(path / "summary.json")
    metrics = sorted(file for file in path.glob("*/*/metrics.jsonl") if not file.parts[-3].startswith("."))
    if not config and not summary and not metrics:
        inside = sorted(child.parent for child in path.glob("*/config.json"))
        hint = f"; did you mean {inside[0]}?" if inside else ""
        raise UserError(f"{path} holds no run: expected config.json or summary.json in it{hint}")

    notes: list[str] = []
    families = {str(row.get("dataset")): row.get("family") for row in _records(summary, "rows", path / "summary.json")}

    def named(row: Row, dataset: object) -> Row:
        family = row.get("family", families.get(str(dataset), summary.get("family")))
        return {**row, "run": name, "dataset": str(dataset), "label": label(dataset, family)}

    curves: list[Row] = []
    for file in metrics:
        rows, skipped = read_jsonl(file)
        if skipped:
            lines = "1 unreadable line was" if skipped == 1 else f"{skipped} unreadable lines were"
            notes.append(f"{lines} skipped in {file.relative_to(path)} of run {name}.")
        curves += [named({**row, "stage": file.parts[-2]}, file.parts[-3]) for row in in_step_order(rows)]

    examples: dict[str, Row] = {}
    for file in sorted(path.glob("*/examples.json")):
        document = read_object(file)
        answers = _records(document, "answers", file)
        entries = document.get("entries")
        texts = [str(entry) for entry in entries] if isinstance(entries, list) else []
        examples[named({}, file.parts[-2])["label"]] = {"entries": texts, "answers": answers}

    return RunData(
        path=path,
        name=name,
        experiment=str(summary.get("experiment") or config.get("experiment") or ""),
        config=config,
        summary=summary,
        rows=[named(row, row.get("dataset", "")) for row in _records(summary, "rows", path / "summary.json")],
        training=[named(row, row.get("dataset", "")) for row in _records(summary, "training", path / "summary.json")],
        curves=curves,
        examples=examples,
        notes=notes,
    )


def read_object(path: Path) -> Row:
    """The object in a JSON file, {} when the file is absent.

    Raises:
        UserError: it holds no object.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}): run the experiment again to rewrite it") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} must hold a JSON object, not a {type(document).__name__}")
    return document


def read_jsonl(path: Path) -> tuple[list[Row], int]:
    """The objects in a JSON-lines file and how many lines were skipped.

    A last line without its newline is a write cut short and is dropped without being counted.
    """
    lines = path.read_bytes().split(b"\n")
    rows: list[Row] = []
    skipped = 0
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            skipped += index < len(lines) - 1
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            skipped += 1
    return rows, skipped


#: What rows of one step may differ in.
_TOLD_APART = ("corpus", "group", "attribute", "wordings", "text")


def in_step_order(rows: Iterable[Row]) -> list[Row]:
    """Rows by step, without those that have none.

    A resumed run repeats the steps since its last checkpoint: the row written last counts.
    """
    latest: dict[tuple[object, ...], tuple[float, Row]] = {}
    for row in rows:
        step = number(row.get("step"))
        if step is not None:
            key = (step, *(str(row.get(part, "")) for part in _TOLD_APART))
            latest[key] = (step, row)
    return [row for _, row in sorted(latest.values(), key=lambda pair: pair[0])]


def _records(document: Row, key: str, path: Path) -> list[Row]:
    records = document.get(key, [])
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path}: {key!r} must be a list of JSON objects")
    return records


def pretty(document: object) -> str:
    """A JSON value as indented text that keeps every character as it is."""
    return json.dumps(document, indent=2, ensure_ascii=False)
