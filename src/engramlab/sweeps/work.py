"""Runs the cells of a sweep, tries again what failed, and leaves what was done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramlab.base.interrupts import kept
from engramlab.base.progress import ProgressBar
from engramlab.base.terminal import Console
from engramlab.sweeps.cells import Cell, SweepTask
from engramlab.sweeps.executors import Executor

_POLL = 0.1  # seconds
_INTERRUPTED = 130


@dataclass
class Outcome:
    """How a cell ended: ``error`` is the last line it wrote, empty when it is done; ``tries`` of this call."""

    cell: Cell
    tries: int = 0
    error: str = ""


@dataclass
class _Running:
    outcome: Outcome
    task: SweepTask
    handle: Any


def run(cells: Sequence[Cell], executor: Executor, logs: Path, *, retries: int, console: Console) -> list[Outcome]:
    """Runs every cell that is not finished; one that fails goes to the end of the queue, up to ``retries`` times.

    A cell of several tasks does them in turn; a task that is finished is not repeated. Whatever ends this call (an interrupt,
    say) ends the running tasks too, and all of them can be gone on with.
    """
    outcomes = [Outcome(cell) for cell in cells]
    waiting = deque(one for one in outcomes if not one.cell.finished)
    running: list[_Running] = []
    done = len(cells) - len(waiting)
    said = kept(lambda: f"{done} of {len(cells)} cells are done, and the others' last steps are saved")
    with said, ProgressBar("sweep", len(cells), done=done, console=console) as bar:
        try:
            while waiting or running:
                while waiting and executor.room():
                    one = waiting.popleft()
                    one.tries += 1
                    task = _next(one.cell)
                    assert task is not None
                    running.append(_Running(one, task, executor.start(task, _log(logs, one.cell))))
                for now in list(running):
                    code = executor.ended(now.handle)
                    if code is None:
                        continue
                    running.remove(now)
                    one = now.outcome
                    if code == _INTERRUPTED:  # Ctrl-C reaches the tasks too, and perhaps before this process
                        raise KeyboardInterrupt
                    if not code and now.task.finished:
                        one.error = ""
                        if (task := _next(one.cell)) is not None:
                            running.append(_Running(one, task, executor.start(task, _log(logs, one.cell))))
                            continue
                        done += 1
                        _say(console, f"{one.cell.name}: done")
                        continue
                    one.error = last_line(_log(logs, one.cell)) or f"ended with exit code {code}"
                    again = one.tries <= retries
                    _say(console, f"{one.cell.name}: failed{', will be tried again' if again else ''}: {one.error}")
                    if again:
                        waiting.append(one)
                failed = sum(bool(one.error) for one in outcomes) - sum(bool(one.error) for one in waiting)
                bar.update(done, _note(running, logs, failed))
                if running:
                    time.sleep(_POLL)
        finally:
            executor.stop()
    return outcomes


def _next(cell: Cell) -> SweepTask | None:
    return next((task for task in cell.tasks if not task.finished), None)


def _log(logs: Path, cell: Cell) -> Path:
    return logs / f"{cell.name}.txt"


def _note(running: Sequence[_Running], logs: Path, failed: int) -> str:
    shown = [f"{one.outcome.cell.name} [{_place(last_line(_log(logs, one.outcome.cell)))}]" for one in running]
    return ", ".join([*([f"{failed} failed"] if failed else []), *shown])


def _place(line: str) -> str:
    """Where a task is, from the last line it wrote: `single pretrain: 500/1250` of all that such a line says."""
    return " ".join(line.split()[:3])[:32]


def last_line(log: Path) -> str:
    """The last line of a log that is not blank."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
