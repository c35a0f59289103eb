"""Progress of long work: a live bar in a terminal, a line now and then in a log file; both fit the width."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from rich.progress import Progress as RichProgress
from rich.progress import ProgressColumn
from rich.text import Text

from engramlab.base.terminal import Console, visible

SECONDS_BETWEEN_LINES = 30.0
FIRST_LINE = 5.0  # seconds until the first one
_BAR, _NARROW = 24, 8  # characters of the bar, and the fewest

#: Called with (how much is done, how much there is).
Progress = Callable[[int, int], None]
#: Called with (what is being done, how much of it is done, how much there is).
NamedProgress = Callable[[str, int, int], None]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_live: list[ProgressBar] = []  # a terminal shows one at a time: the innermost


class Whole:
    """How long a run of several stages has left, of which `ProgressBar` shows one at a time.

    Put on a console as ``console.whole``, it is said beside every bar on that console.

    Args:
        stages: by the label of its bar, how much work a stage is, in any unit, in the order of the run.
    """

    def __init__(self, stages: Mapping[str, float]) -> None:
        self._work, self._before, self._all = dict(stages), {}, 0.0
        for label, work in stages.items():
            self._before[label] = self._all
            self._all += work
        self._began: tuple[float, float] | None = None  # when, and with how much done

    def left(self, label: str, share: float, now: float) -> float | None:
        """Seconds until the end, as far as the speed so far tells; None before that, and where there is no other stage.

        Args:
            share: of the stage that is done.
            now: seconds of a clock.
        """
        if label not in self._work or len(self._work) < 2:
            return None
        done = self._before[label] + share * self._work[label]
        if self._began is None:
            self._began = now, done
        began, first = self._began
        return (self._all - done) * (now - began) / (done - first) if done > first and now > began else None


class ProgressBar:
    """A progress bar as a context manager.

    Args:
        label: what is being done.
        total: how many units there are; None where nobody knows, which shows how long it has taken.
        done: units done before (a resumed run).
        enabled: False prints nothing (other processes of a launch, tests).
        about: a line said above it, for work that needs a word of explanation.
        after: seconds until anything is shown, for what is mostly quick.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        *,
        done: int = 0,
        enabled: bool = True,
        console: Any = None,
        about: str = "",
        after: float = 0.0,
    ) -> None:
        self.console = console or Console(file=sys.stderr)  # as it is now: what it shows may silence others meanwhile
        self.label, self.total, self.done, self.enabled = label, total, done, enabled
        self.about, self.after, self.note = about, after, ""
        self.started = time.monotonic()
        self.first = done
        self._last_line = self.started - SECONDS_BETWEEN_LINES + FIRST_LINE
        self._bar: RichProgress | None = None
        self._shown, self._lock, self._timer = False, threading.RLock(), threading.Timer(after, self._show)

    def __enter__(self) -> ProgressBar:
        self._seconds_left()  # the whole run's clock begins here
        if self.enabled and self.after:
            self._timer.daemon = True
            self._timer.start()
        elif self.enabled:
            self._show()
        return self

    def _show(self) -> None:
        with self._lock:
            if self._timer.finished.is_set():
                return
            self._shown = True
            if self.about:
                self._print(self.about)
            if self.console.is_terminal:
                if _live:
                    _live[-1]._hide()
                _live.append(self)
                self._unhide()
            elif self.total is None:
                self._print(f"{self.label} ...")

    def _unhide(self) -> None:
        self._bar = RichProgress(_Line(self), console=self.console, transient=True)
        self._bar.add_task("")
        self._bar.start()

    def _hide(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, done: int, note: str = "") -> None:
        """``done`` units are finished; ``note`` is shown beside the bar, as far as there is room (parts by two spaces)."""
        self.done, self.note = done, note
        now = time.monotonic()
        if self.enabled and not self.console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._print(self.line())

    def to(self, done: int, total: int) -> None:
        """``done`` of ``total`` units are finished, for work that learns how much there is on its way."""
        self.total = total
        self.update(done)

    def _seconds_left(self) -> tuple[float | None, float | None]:
        """Of this work, and of the whole run."""
        now, whole = time.monotonic(), getattr(self.console, "whole", None)
        new, share = self.done - self.first, self.done / self.total if self.total else 0.0
        mine = (now - self.started) / new * (self.total - self.done) if self.total and new > 0 else None
        return mine if self.total and self.done < self.total else None, whole and whole.left(self.label, share, now)

    def line(self, bar: bool = False) -> str:
        """How far it is, in one line of the console's width: what matters least is left out first."""
        width, label = self.console.width - 1, visible(self.label)
        mine, whole = self._seconds_left()
        times = [clock(time.monotonic() - self.started)]
        times += [f"{clock(mine)} left"] if mine is not None else []
        times += [f"run {clock(whole)} left"] if whole is not None else []
        counts = f"{self.done:,}/{self.total:,}" if self.total is not None else ""
        notes = [part for part in visible(self.note).split("  ") if part]
        drawn = _NARROW + 2 if bar and self.total is not None else 0
        while True:
            said = "  ".join(filter(None, [counts, *notes, ", ".join(times)]))
            room = width - len(said) - 2 - drawn
            if len(label) <= room or not (notes or times):
                break
            if notes:
                notes.pop()
            elif len(times) > 1 or room < len(label[:16]):
                times.pop(0)
            else:
                break
        label = label if len(label) <= room else label[: max(0, room - 1)] + "…"
        if not drawn:
            return (f"{label}: {said}" if self.total is not None else f"{label} ... {said}")[:width]
        length = min(_BAR, room + drawn - len(label) - 2)
        full = round(length * min(1.0, self.done / self.total)) if self.total else length
        full_of, empty = "━─" if self.console.encoding.startswith("utf") else "#-"
        return f"{label}  {full_of * full}{empty * (length - full)}  {said}"

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if not self._shown:
                return
        if kind is None and self.done:
            self.total = self.done if self.total is not None else None  # it ends at its end, however much it was
        if self in _live:
            self._hide()
            _live.remove(self)
            if self.total is not None:
                self._print(self.line(bar=True))
            if _live:
                _live[-1]._unhide()
        elif kind is None and time.monotonic() - self.started > FIRST_LINE:
            self._print(f"{self.line()}; done" if self.total is not None else self.line())


@contextlib.contextmanager
def progress_bars(console: Console | None = None) -> Iterator[NamedProgress]:
    """Progress bars, one after another, for something that says what it does and how far it is."""
    with contextlib.ExitStack() as stack:
        shown: ProgressBar | None = None

        def report(what: str, done: int, total: int) -> None:
            nonlocal shown
            if shown is None or shown.label != what:
                stack.close()
                shown = stack.enter_context(ProgressBar(what, total, console=console))
            shown.to(done, total)

        yield report


def announced(what: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """A function whose first argument is a name says what it does with it, where that takes more than a second."""

    def decorated(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(function)
        def said(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            named = [*args, *kwargs.values()][0]
            with ProgressBar(f"{what} {named}", None, after=1.0):
                return function(*args, **kwargs)

        return said

    return decorated


class _Line(ProgressColumn):
    """A whole bar as one column."""

    def __init__(self, bar: ProgressBar) -> None:
        super().__init__()
        self._of = bar

    def render(self, task: Any) -> Text:
        return Text(self._of.line(bar=True), no_wrap=True)


def clock(seconds: float) -> str:
    """0:07, 12:31, 1:02:03; from four days on, days."""
    whole = round(seconds)
    if whole >= 4 * 86_400:
        return f"{whole / 86_400:,.0f} days"
    minutes, hours = f"{whole // 60 % 60:02d}:{whole % 60:02d}", whole // 3600
    return f"{hours}:{minutes}" if hours else minutes.removeprefix("0")


def size(number: float) -> str:
    """Bytes as people say them.

    >>> size(1_250_000_000), size(512)
    ('1.25 GB', '512 B')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"
