"""A benchmark's records as they lie in a file or on the hub; what they mean is the formats' business."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError

_HUB = re.compile(r"hub:(?P<name>[^/:]+/[^/:]+)(?::(?P<part>.+))?")

#: An object with one of these keys is a record itself, whatever lists are in it; another may be a wrapper around a list.
_OF_A_RECORD = {"prompt", "edit", "requested_rewrite", "src"}


@dataclass(frozen=True)
class Raw:
    """One record: `value` is an object, or anything else if the file is wrong there.

    `place` helps to find it ("line 7", or "" where its index is all there is); `broken` says why it could not be read.
    """

    value: object
    place: str = ""
    broken: str = ""


def read(source: str | Path) -> list[Raw]:
    """The records of a file (JSON, JSON lines, CSV, TSV) or of a data set on the hub (``hub:owner/name[:file or split]``).

    Raises UserError where there is no such file, it is none of these, or the hub cannot be reached.
    """
    if isinstance(source, str) and source.startswith("hub:"):
        return _read_hub(source)
    path = Path(source)
    reader = _READERS.get(path.suffix.lower())
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it ({', '.join(_READERS)})")
    if reader is None:
        raise UserError(
            f"{path}: cannot read a benchmark that ends in {path.suffix!r}; use one of {', '.join(_READERS)}"
        )
    text = _text(path)
    if text.startswith("version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the data it stands for; fetch that with `git lfs pull`")
    return reader(path, text)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _read_json(path: Path, text: str) -> list[Raw]:
    try:
        value = _parse(text)
    except ValueError as error:
        lines = _read_lines(path, text)  # JSON lines under the wrong name are common
        if len(lines) < 2 or any(line.broken for line in lines[:2]):
            raise UserError(f"{path}: not JSON ({error}); write a list of records, or one record a line") from None
        return lines
    if isinstance(value, list):
        return [Raw(one) for one in value]
    if not isinstance(value, dict) or _OF_A_RECORD & value.keys():
        return [Raw(value)]
    lists = [key for key, one in value.items() if _is_table(one)]
    if len(lists) > 1:
        raise UserError(
            f"{path}: several lists of records ({', '.join(lists)}); write the one to use to a file of its own"
        )
    return [Raw(one) for one in value[lists[0]]] if lists else [Raw(value)]


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _read_lines(path: Path, text: str) -> list[Raw]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append(Raw(_parse(line), f"line {number}"))
            except ValueError as error:
                found.append(Raw(None, f"line {number}", f"not JSON ({error}); write one object a line"))
    return found


def _read_csv(path: Path, text: str, delimiter: str = ",") -> list[Raw]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    found: list[Raw] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if not all(header):
            raise UserError(
                f"{path}, line 1: column {header.index('') + 1} has no name; the first line names the columns"
            )
        if twice := next((name for name in header if header.count(name) > 1), None):
            raise UserError(f"{path}, line 1: two columns are called {twice!r}")
        line = reader.line_num + 1  # a record can take several lines: name the one it starts on
        for row in reader:
            if row:
                wrong = f"{len(row)} cells, but {len(header)} columns; quote cells that hold the separator"
                record = {name: cell if cell.strip() else None for name, cell in zip(header, row, strict=False)}
                found.append(Raw(record, f"line {line}", wrong if len(row) != len(header) else ""))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    return found


def _read_hub(source: str) -> list[Raw]:
    match = _HUB.fullmatch(source)
    if match is None:
        raise UserError(f"{source!r}: write hub:owner/name, hub:owner/name:split or hub:owner/name:folder/file.json")
    name, part = match["name"], match["part"]
    from engramlab.core.models import hub_answers

    # Without a network only what an earlier call has left on this machine counts; asking anyway would take a minute.
    offline = not hub_answers()
    try:
        if part and Path(part).suffix.lower() in _READERS:
            from huggingface_hub import hf_hub_download

            return read(Path(hf_hub_download(name, part, repo_type="dataset", local_files_only=offline)))
        import datasets

        config = datasets.DownloadConfig(local_files_only=offline)
        found = datasets.load_dataset(name, split=part, download_config=config)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{source}: needs the package {error.name}: pip install 'engramlab[hub]'") from None
    except Exception as error:  # whatever the hub's libraries raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        why = "the hub cannot be reached" if offline else "could not be fetched"
        raise UserError(f"{source}: {why} ({first}); download the file and give its path instead") from None
    if isinstance(found, dict):
        if len(found) > 1:
            raise UserError(
                f"{source}: has the splits {', '.join(found)}; add one, as in hub:{name}:{next(iter(found))}"
            )
        (found,) = found.values()
    return list(_rows(found))


def _rows(table: Iterable[object]) -> Iterator[Raw]:
    for row in table:
        yield Raw(dict(row) if isinstance(row, dict) else row)


_READERS: dict[str, Callable[[Path, str], list[Raw]]] = {
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".csv": _read_csv,
    ".tsv": lambda path, text: _read_csv(path, text, "\t"),
}
