"""Measuring a model in training at every step: all queries in one pass, kept token by token, safe against a crash.

    asked = encode_queries(tokenizer, queries)         # once
    kept = Measurements(folder / "measured")
    kept.rewind(step)                                  # of the checkpoint that training goes on from, -1 for none
    for step in train(state, stream):
        kept.add(step.number, measure(model, asked))
        if checkpoint_is_due:
            kept.flush()                               # first this, then the checkpoint
            checkpoints.save(...)
    kept.finish()
    steps, logprobs = read_measurements(folder / "measured")

**Files.** A Parquet file can be read only once its footer is written, so nothing is appended to one. What was measured since
the last checkpoint is one small file, written whole before the checkpoint is; a killed run drops the files behind its
checkpoint and measures those steps again. At the end the files become one, with one row group a measured step.

The released code of arXiv 2406.11813 pads every batch, takes logits at every position and makes three passes per query; here
rows are sorted by length, beginnings that queries share are read once, and logits are taken at target positions only.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.text.tokens import EncodedQueries
from engramlab.files.writing import clear, replacing
from engramlab.measuring.scoring import score

WHOLE = "measured.parquet"


def measure(model: nn.Module, asked: EncodedQueries, budget: int = 4_096) -> np.ndarray:
    """Natural log-probabilities of all target tokens: float32 ``[asked.offsets[-1]]``. The model keeps its mode.

    Args:
        budget: most padded tokens a forward pass. The more, the more lengths meet in one batch: the 1,800 queries of FICTIONAL
            KNOWLEDGE (48,800 tokens) are 53,300 tokens of forward work with 4,096 and 70,100 with 16,384.
    """
    return score(model, asked.sequences, budget=budget).logprobs


class Measurements:
    """What was measured, step by step, in a folder of Parquet files.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._steps: list[int] = []
        self._rows: list[np.ndarray] = []

    def rewind(self, step: int) -> None:
        """Forgets what was measured behind ``step``: a run that goes on from there will measure it again."""
        self._steps, self._rows = [], []
        if not self.folder.exists():
            return
        clear(*self.folder.glob("*.partial"))
        whole = self.folder / WHOLE
        if whole.exists():  # the run was killed after `finish`, when this file had all there is
            clear(*_parts(self.folder))
            steps, _ = _read(whole)
            os.replace(whole, _part(self.folder, int(steps[0]), int(steps[-1])))
        for path in _parts(self.folder):
            first, last = _range(path)
            if first > step:
                path.unlink()
            elif last > step:
                steps, rows = _read(path)
                keep = steps <= step
                path.unlink()
                self._write_part(steps[keep].tolist(), list(rows[keep]))

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
            pq.ParquetWriter(partial, pq.read_schema(parts[0]), compression="zstd") as writer,
        ):
            for path in parts:
                writer.write_table(pq.read_table(path), row_group_size=1)
        clear(*parts)

    def _write_part(self, steps: list[int], rows: list[np.ndarray]) -> None:
        path = _part(self.folder, steps[0], steps[-1])
        width = len(rows[0])
        values = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(rows), pa.float32()), width)
        table = pa.table({"step": pa.array(steps, pa.int64()), "logprobs": values})
        with replacing(path) as partial:
            pq.write_table(table, partial, row_group_size=1, compression="zstd")


def read_measurements(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Everything measured so far: steps int64 ``[S]``, rising, and log-probabilities float32 ``[S, total]``.

    Raises:
        UserError: nothing was measured there, or a file is damaged.
    """
    folder = Path(folder)
    whole = folder / WHOLE
    paths = [*([whole] if whole.exists() else []), *_parts(folder)]
    if not paths:
        raise UserError(f"{folder}: holds no measurements; run the experiment first")
    found: dict[int, np.ndarray] = {}
    for path in paths:
        steps, rows = _read(path)
        found.update(zip(steps.tolist(), rows, strict=True))
    order = sorted(found)
    return np.array(order, np.int64), np.stack([found[step] for step in order])


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _part(folder: Path, first: int, last: int) -> Path:
    return folder / f"part-{first:09d}-{last:09d}.parquet"


def _range(path: Path) -> tuple[int, int]:
    _, first, last = path.stem.split("-")
    return int(first), int(last)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: is damaged ({error}); remove the run's folder to start over") from None
    column = table.column("logprobs").combine_chunks()
    width = column.type.list_size
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return table.column("step").to_numpy(), values
