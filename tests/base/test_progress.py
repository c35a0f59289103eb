"""Progress: what a bar says, how wide it is, and how long a whole run has left."""

from __future__ import annotations

import contextlib
import io
import threading

import pytest

from engramlab.base import progress
from engramlab.base.progress import ProgressBar, Whole, announced, clock
from engramlab.base.terminal import Console


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def console(terminal: bool = False, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


def said(on: Console) -> str:
    found: str = on.file.getvalue()  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("label", ["sweep", "multi2+permute+fullname=multi5+CEL finetune-12", "\x1b[2J" * 30])
def test_a_line_fits(monkeypatch: pytest.MonkeyPatch, terminal: bool, width: int, label: str) -> None:
    now, on = Clock(monkeypatch), console(terminal, width)
    on.whole = Whole({label: 1.0, "another": 9.0})
    bar = ProgressBar(label, 80_000, console=on, enabled=False)
    with bar:
        for done in (0, 1, 79_999):
            now.now += 40_000
            bar.update(done, "loss 12.345  123,456 tokens/s")
            line = bar.line(bar=terminal)
            assert len(line) < width
            assert f"{done:,}/80,000" in line
            assert "\x1b" not in line


def test_a_bar_ends_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        now, on = Clock(monkeypatch), console(terminal)
        with ProgressBar("which it knows", 530, console=on) as bar:
            now.now += 10
            bar.update(64)
        assert "64/64" in said(on).splitlines()[-1]
        on = console(terminal)
        with pytest.raises(KeyboardInterrupt), ProgressBar("cut short", 530, console=on) as bar:
            bar.update(64)
            raise KeyboardInterrupt
        assert "64/64" not in said(on)


def test_a_log_file_gets_lines_now_and_then_and_no_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    now, on = Clock(monkeypatch), console()
    with ProgressBar("training", 100, console=on, about="It is done once.") as bar:
        for step in range(1, 101):
            now.now += 1
            bar.update(step, "loss 1.0")
    lines = said(on).splitlines()
    assert lines[0] == "It is done once."
    assert lines[1] == "training: 6/100  loss 1.0  0:06, 1:34 left"
    assert 4 <= len(lines) <= 6
    assert lines[-1].endswith("done")
    assert "\x1b" not in said(on)


def test_what_takes_unknown_time_says_so_at_once_unless_it_is_mostly_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    now, on = Clock(monkeypatch), console()
    with ProgressBar("loading M", None, console=on):
        assert said(on) == "loading M ...\n"
        now.now += 70
    assert said(on).splitlines()[1:] == ["loading M ... 1:10"]
    quick = console()
    with ProgressBar("loading M", None, console=quick, after=3600):
        pass
    assert said(quick) == ""


def test_loading_is_announced_though_others_are_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", heard)
    shown = threading.Event()
    monkeypatch.setattr(ProgressBar, "_print", lambda self, text: (self.console.print(text), shown.set()))

    @announced("loading")
    def load(name: str) -> str:
        with contextlib.redirect_stderr(io.StringIO()):
            assert shown.wait(60)
        return name.upper()

    assert load("model") == "MODEL"
    assert heard.getvalue() == "loading model ...\n"


def test_one_bar_at_a_time_in_a_terminal() -> None:
    outer, inner = console(terminal=True), console(terminal=True)
    with ProgressBar("outer", 2, console=outer) as one:
        with ProgressBar("inner", 1, console=inner) as two:
            assert progress._live == [one, two]
            assert one._bar is None
            two.update(1)
        assert one._bar is not None
        one.update(2)
    assert progress._live == []
    assert "2/2" in said(outer).splitlines()[-1]


def test_how_long_a_whole_run_has_left() -> None:
    whole = Whole({"pretrain": 600, "finetune": 200, "other": 200})
    assert whole.left("pretrain", 0.0, 100.0) is None
    assert whole.left("pretrain", 0.5, 130.0) == pytest.approx(70)  # 300 of 1000 in 30 s
    assert whole.left("answers before", 0.5, 140.0) is None
    assert whole.left("other", 0.5, 190.0) == pytest.approx(10)
    assert Whole({"pretrain": 1}).left("pretrain", 0.5, 2.0) is None
    resumed = Whole({"pretrain": 600, "finetune": 400})
    assert resumed.left("finetune", 0.5, 10.0) is None
    assert resumed.left("finetune", 0.75, 20.0) == pytest.approx(10)


def test_clock() -> None:
    assert [clock(s) for s in (7, 751, 3723, 360_000)] == ["0:07", "12:31", "1:02:03", "4 days"]
