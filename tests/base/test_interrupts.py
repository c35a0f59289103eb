"""Ctrl-C and SIGTERM: noted while something is under way, at once otherwise, and never against a program's own handlers."""

import os
import signal
import threading
import time

import pytest

from engramlab.base import interrupts
from engramlab.base.interrupts import Interrupted, heeded, kept, terminable


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request):
    """With the handlers that a new process has."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield request.param
    for n, handler in before.items():
        signal.signal(n, handler)


def test_the_first_is_noted_and_the_second_of_its_kind_ends(number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as ended, heeded() as asked:
        assert not asked
        os.kill(os.getpid(), number)
        assert asked
        os.kill(os.getpid(), signal.SIGTERM if number == signal.SIGINT else signal.SIGINT)  # a sweep's, behind Ctrl-C's
        error = asked.interrupt("step 3 is saved")
        assert (str(error), error.code) == ("step 3 is saved", 128 + number)
        os.kill(os.getpid(), number)
    assert (str(ended.value), ended.value.code) == ("", 128 + number)
    assert signal.getsignal(number) == before


def test_who_has_to_wait_is_told_what_for(number, monkeypatch, capfd):
    monkeypatch.setattr(interrupts, "PATIENCE", 0.05)
    with heeded("turn"):
        os.kill(os.getpid(), number)
        for _ in range(400):
            time.sleep(0.05)
            if said := capfd.readouterr().err:
                break
    how = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert said == (
        f"\nengramlab: ends behind the turn that is under way; a second {how} ends it at once, to be done again\n"
    )
    monkeypatch.setattr(interrupts, "PATIENCE", 0.5)
    with heeded("turn"):
        os.kill(os.getpid(), number)
    time.sleep(0.6)
    assert not capfd.readouterr().err


def test_what_ends_a_command_and_what_is_kept(number):
    with pytest.raises(KeyboardInterrupt) as ended, terminable(), kept(lambda: "2 of 3 cells are done"):
        os.kill(os.getpid(), number)
    assert (str(ended.value), ended.value.code) == ("2 of 3 cells are done", 128 + number)
    with pytest.raises(KeyboardInterrupt, match="step 3"), kept(lambda: "2 of 3"):  # whoever is closer knows better
        raise Interrupted("step 3 is saved")


def test_handlers_of_the_program_around_stay(number):
    seen = []
    signal.signal(number, lambda n, frame: seen.append(n))
    with heeded() as asked:
        os.kill(os.getpid(), number)
    assert seen == [number]
    assert not asked
    inside = threading.Thread(target=lambda: heeded().__enter__())  # signals are the main thread's
    inside.start()
    inside.join()
