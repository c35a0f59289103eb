"""Ctrl-C and SIGTERM: what is under way is finished and saved, and the user is told where the same command goes on."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end. The message says what is saved; empty where nothing was under way.

    Attributes:
        code: what a command leaves with: 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, said: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(said)
        self.number = number

    @property
    def code(self) -> int:
        return 128 + self.number


class Request:
    """Has a signal asked to end? It is true then."""

    number = 0

    def __bool__(self) -> bool:
        return bool(self.number)

    def interrupt(self, said: str) -> Interrupted:
        """The error to leave with once everything is saved."""
        return Interrupted(said, self.number or signal.SIGINT)


def _end(number: int, frame: Any) -> None:
    raise Interrupted("", number)


@contextlib.contextmanager
def _handled(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[None]:
    """Inside the block these signals go to ``handler``, unless the program around has handlers of its own or ignores them."""
    ours = signal.default_int_handler, signal.SIG_DFL, _end
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: found for number in numbers if (found := signal.getsignal(number)) in ours}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Inside the block SIGTERM raises ``Interrupted``, as SIGINT raises KeyboardInterrupt."""
    with _handled(_end, signal.SIGTERM):
        yield


#: Seconds after which whoever asked is told that what is under way goes on to its end.
PATIENCE = 2.0


@contextlib.contextmanager
def heeded(under_way: str = "step") -> Iterator[Request]:
    """Inside the block the first SIGINT or SIGTERM is only noted, for the block to save and to leave; a second one of the same
    kind ends it at once. Where the block takes its time to leave, that is said on the error output.

    Args:
        under_way: what the block does not leave in its midst.
    """
    asked, told = Request(), threading.Event()

    def tell() -> None:
        if not told.wait(PATIENCE):
            how = "Ctrl-C" if asked.number == signal.SIGINT else "SIGTERM"
            text = f"ends behind the {under_way} that is under way; a second {how} ends it at once, to be done again"
            sys.stderr.write(f"\nengramlab: {text}\n")  # in one piece, between the bar's
            sys.stderr.flush()

    def note(number: int, frame: Any) -> None:
        if asked.number == number:
            raise Interrupted("", number)
        if not asked:
            asked.number = number
            threading.Thread(target=tell, daemon=True).start()

    try:
        with _handled(note, signal.SIGINT, signal.SIGTERM):
            yield asked
    finally:
        told.set()


@contextlib.contextmanager
def kept(done: Callable[[], str]) -> Iterator[None]:
    """For work in independent units, of which each is kept once it is done: an interrupt says how many are."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if str(stop):
            raise
        raise Interrupted(done(), getattr(stop, "number", signal.SIGINT)) from stop
