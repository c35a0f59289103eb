"""Measuring a model in training at every step: all queries in one pass, kept token by token, safe against a crash.

    asked = encode_queries(tokenizer, queries)         # once
    kept = Measurements(folder / "measured")
    kept.rewind(step)                                  # of the checkpoint that training goes on from, -1 for none
    for step in train(state, stream):
        kept.add(step.number, measure(model, asked))
        if checkpoint_is_due:
            kept.flush()                               # first this, then the checkpoint: Stage(before=kept.flush)
            checkpoints.save(...)
    kept.finish()
    steps, logprobs = read_measurements(folder / "measured")

**Files.** A Parquet file can be read only once its footer is written, so nothing is appended to one. What was measured since
the last checkpoint is one small file, written whole before the checkpoint is; a killed run drops the files behind its
checkpoint and measures those steps again. At the end the files become one, with one row group a measured step. A new file is
whole before an older one that it takes over from goes, so that two may hold the same steps, and each row has its own digest.

The released code of arXiv 2406.11813 pads every batch, takes logits at every position and makes three passes per query; here
rows are sorted by length, beginnings that queries share are read once, and logits are taken at target positions only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.text.tokens import EncodedQueries
from engramlab.files import records
from engramlab.files.writing import clear, replacing
from engramlab.measuring.scoring import score

WHOLE = "measured.parquet"


def measure(model: nn.Module, asked: EncodedQueries, budget: int = 4_096) -> np.ndarray:
    """Natural log-probabilities of all target tokens: float32 ``[asked.offsets[-1]]``. See ``observe``."""
    return observe(model, asked, budget)[0]


def observe(
    model: nn.Module, asked: EncodedQueries, budget: int = 4_096, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Natural log-probabilities of all target tokens, float32 ``[asked.offsets[-1]]``, and which targets greedy decoding would
    write, float32 ``[queries]`` of 0 and 1. The model keeps its mode.

    Args:
        budget: most padded tokens a forward pass. The more, the more lengths meet in one batch: the 1,800 queries of FICTIONAL
            KNOWLEDGE (48,800 tokens) are 53,300 tokens of forward work with 4,096 and 70,100 with 16,384.
        rows: the queries to ask, rising; all when None. The others' values are NaN: not measured.
    """
    if rows is None:
        scores = score(model, asked.sequences, budget=budget)
        return scores.logprobs, scores.exact().astype(np.float32)
    logprobs, written = (
        np.full(asked.offsets[-1], np.nan, np.float32),
        np.full(len(asked.sequences), np.nan, np.float32),
    )
    if len(rows):
        scores = score(model, asked.sequences.take(rows), budget=budget)
        counts = np.diff(asked.offsets)[rows]
        into = np.arange(int(counts.sum())) + np.repeat(asked.offsets[rows] - scores.offsets[:-1], counts)
        logprobs[into], written[rows] = scores.logprobs, scores.exact()
    return logprobs, written


class Measurements:
    """What was measured, step by step, in a folder of Parquet files.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._steps: list[int] = []
        self._rows: list[np.ndarray] = []

    def rewind(self, step: int, expected: Iterable[int] = ()) -> None:
        """Forgets what was measured behind ``step``: a run that goes on from there will measure it again.

        Args:
            expected: steps up to there that must have been measured.

        Raises:
            UserError: one of them was not, or a file is not what was written.
        """
        self._steps, self._rows = [], []
        found: set[int] = set()
        for path in _files(self.folder):
            if path.name != WHOLE and int(path.name.split("-")[1]) > step:
                clear(path)
                continue
            steps, rows = _read(path)
            keep = steps <= step
            found.update(steps[keep].tolist())
            if (
                not keep.all() or path.name == WHOLE
            ):  # the one file of a run that was killed before its record was written
                if keep.any():
                    self._write_part(steps[keep].tolist(), list(rows[keep]))
                clear(path)
        _check(self.folder, found, expected)

    def add(self, step: int, logprobs: np.ndarray) -> None:
        """Keeps a measurement, float32 ``[total]``, until the next ``flush``."""
        self._steps.append(step)
        self._rows.append(np.asarray(logprobs, np.float32))

    def flush(self) -> None:
        """Writes what was added since the last flush, whole or not at all. Raises UserError if it cannot be written."""
        if self._steps:
            self._write_part(self._steps, self._rows)
            self._steps, self._rows = [], []

    def finish(self) -> None:
        """Flushes, and makes one file of all: ``measured.parquet``, one row group a step."""
        self.flush()
        parts = _parts(self.folder)
        if not parts:
            return
        with (
            replacing(self.folder / WHOLE) as partial,
            pq.ParquetWriter(partial, _table(*_read(parts[0])).schema, compression="zstd") as writer,
        ):
            last = -1
            for path in parts:
                steps, rows = _read(path)
                new = steps > last
                if new.any():
                    writer.write_table(_table(steps[new], rows[new]), row_group_size=1)
                    last = int(steps[-1])
        clear(*parts)

    def _write_part(self, steps: Sequence[int], rows: Sequence[np.ndarray]) -> None:
        path = _part(self.folder, steps[0], steps[-1])
        with replacing(path) as partial:
            pq.write_table(_table(np.array(steps), np.stack(rows)), partial, row_group_size=1, compression="zstd")


def read_measurements(folder: Path, expected: Iterable[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Everything measured so far: steps int64 ``[S]``, rising, and log-probabilities float32 ``[S, total]``.

    Args:
        expected: the steps there must be.

    Raises:
        UserError: nothing was measured there, a file is not what was written, or steps are missing.
    """
    folder = Path(folder)
    found: dict[int, np.ndarray] = {}
    for path in _files(folder):
        steps, rows = _read(path)
        found.update(zip(steps.tolist(), rows, strict=True))
    if expected is not None:
        _check(folder, found, expected)
    if not found:
        raise UserError(f"{folder}: holds no measurements; run the experiment first")
    order = sorted(found)
    return np.array(order, np.int64), np.stack([found[step] for step in order])


def _check(folder: Path, found: Iterable[int], expected: Iterable[int]) -> None:
    if lacking := sorted(set(expected) - set(found)):
        shown = ", ".join(map(str, lacking[:5])) + (", …" if len(lacking) > 5 else "")
        raise UserError(f"{folder} lacks what was measured at step {shown}; {_again(folder)}")


def _again(folder: Path) -> str:
    return f"remove {folder.parent} to do that part again"


def _files(folder: Path) -> list[Path]:
    whole = folder / WHOLE
    return [*([whole] if whole.exists() else []), *_parts(folder)]


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _part(folder: Path, first: int, last: int) -> Path:
    return folder / f"part-{first:09d}-{last:09d}.parquet"


def _table(steps: np.ndarray, rows: np.ndarray) -> pa.Table:
    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel(), pa.float32()), rows.shape[1])
    digests = pa.array([_digest(int(step), row) for step, row in zip(steps, rows, strict=True)], pa.string())
    return pa.table({"step": pa.array(steps, pa.int64()), "logprobs": values, records.DIGEST: digests})


def _digest(step: int, row: np.ndarray) -> str:
    return hashlib.sha256(b"%d " % step + row.astype("<f4").tobytes()).hexdigest()


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        table = pq.read_table(path)
        column = table.column("logprobs").combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
        steps = np.array(table.column("step").to_pylist(), np.int64)
        written = table.column(records.DIGEST).to_pylist() if records.DIGEST in table.column_names else None
    except Exception:  # whatever a decoder says of bytes that are none of its own
        raise records.damaged(path, "it cannot be read as Parquet", _again(path.parent)) from None
    if len(steps) != len(values) or not len(steps):
        raise records.damaged(path, "it holds no measurements", _again(path.parent))
    if written is not None and written != [_digest(int(step), row) for step, row in zip(steps, values, strict=True)]:
        raise records.damaged(path, "it is not what was written", _again(path.parent))
    return steps, values
