"""Progress of long work: a live bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from engramlab.base.terminal import Console

SECONDS_BETWEEN_LINES = 30.0

#: Called with (how much is done, how much there is).
Progress = Callable[[int, int], None]
#: Called with (what is being done, how much of it is done, how much there is).
NamedProgress = Callable[[str, int, int], None]


class ProgressBar:
    """A progress bar as a context manager.

    Args:
        label: what is being done.
        total: how many units there are.
        done: units done before (a resumed run).
        enabled: False prints nothing (other processes of a launch, tests).
    """

    def __init__(
        self, label: str, total: int, *, done: int = 0, enabled: bool = True, console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True)
        self.label, self.total, self.done, self.enabled = label, total, done, enabled
        self.started = time.monotonic()
        self.first = done
        self._last_line = self.started
        self._bar: RichProgress | None = None

    def __enter__(self) -> ProgressBar:
        if self.enabled and self.console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bar.start()
            # markup is off for labels, which may come from a user's file
            self._task = self._bar.add_task(
                self.label.replace("[", "\\["), total=self.total, completed=self.done, note=""
            )
        return self

    def update(self, done: int, note: str = "") -> None:
        """``done`` units are finished; ``note`` is shown beside the bar."""
        self.done = done
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif (now := time.monotonic()) - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._line(note)

    def to(self, done: int, total: int) -> None:
        """``done`` of ``total`` units are finished, for work that learns how much there is on its way."""
        self.total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)
        self.update(done)

    def _line(self, note: str) -> None:
        elapsed = time.monotonic() - self.started
        new = self.done - self.first
        left = f", {elapsed / new * (self.total - self.done):.0f} s left" if new > 0 and self.done < self.total else ""
        self.console.print(
            f"{self.label}: {self.done}/{self.total} {note} ({elapsed:.0f} s{left})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.enabled and kind is None and time.monotonic() - self.started > 5:
            self._line("done")
