"""The time that running tasks have after signals."""

import signal
import sys
from types import FrameType
from typing import Any

import pytest

from photometry_tasks.runner.shutdown import Shutdown

GRACE = 3600.0

HANDLER = Shutdown._take.__code__
LINES = sorted({line for _, _, line in HANDLER.co_lines() if line} - {HANDLER.co_firstlineno})


def begin(grace: float, grace_term: float | None = None, stop_after: float | None = None) -> Shutdown:
    shutdown = Shutdown(grace, grace_term)
    shutdown.begin(stop_after, lambda: None)
    return shutdown


@pytest.mark.parametrize(
    ("number", "grace", "grace_term", "left"),
    [
        (signal.SIGTERM, GRACE, None, 20),
        (signal.SIGTERM, 7, None, 7),
        (signal.SIGTERM, 7, GRACE, GRACE),
        (signal.SIGUSR1, GRACE, 7, GRACE),
        (signal.SIGINT, GRACE, None, GRACE),
    ],
)
def test_signals(number: int, grace: float, grace_term: float | None, left: float) -> None:
    """The first signal leaves running tasks the grace, after SIGTERM 20 s by default; the second signal ends it."""
    shutdown = begin(grace, grace_term)
    assert (shutdown.is_requested(), shutdown.get_seconds_left()) == (False, None)
    shutdown._take(number, None)
    assert (shutdown.is_requested(), shutdown.reason) == (True, signal.Signals(number).name)
    assert left - 5 < (shutdown.get_seconds_left() or 0) <= left
    shutdown._take(signal.SIGINT, None)
    assert (shutdown.reason, shutdown.get_seconds_left()) == (signal.Signals(number).name, 0)


@pytest.mark.parametrize(
    ("numbers", "seconds", "is_repeated"),
    [
        ([signal.SIGTERM, signal.SIGTERM], 0.0, False),
        ([signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR1], 0.3, False),
        ([signal.SIGUSR1, signal.SIGUSR1], 2.0, True),
        ([signal.SIGINT, signal.SIGINT], 0.0, True),
        ([signal.SIGUSR1, signal.SIGTERM], 0.0, True),
        ([signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM], 0.0, True),
    ],
)
def test_an_echo(monkeypatch: pytest.MonkeyPatch, numbers: list[int], seconds: float, is_repeated: bool) -> None:
    """A signal that SLURM and the job script both send to the run counts once; Ctrl-C counts each time."""
    shutdown = begin(GRACE)
    for place, number in enumerate(numbers):
        monkeypatch.setattr("time.monotonic", lambda now=place * seconds: now)
        shutdown._take(number, None)
    assert shutdown.is_repeated() == is_repeated


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"line {line - LINES[0]}")
def test_a_signal_in_the_handler_of_another(line: int) -> None:
    """A second signal ends the grace too if it interrupts the handler of the first, at any line."""
    shutdown = begin(GRACE)

    def interrupt(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code is not HANDLER:
            return None
        if event == "line" and frame.f_lineno == line:
            sys.settrace(None)
            shutdown._take(signal.SIGINT, None)
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        shutdown._take(signal.SIGTERM, None)
    finally:
        sys.settrace(before)
    assert shutdown.get_seconds_left() == 0


def test_the_time_limit() -> None:
    """No task starts that would not end before the time limit."""
    shutdown = begin(GRACE, stop_after=60.0)
    assert shutdown.has_time_limit
    assert (shutdown.has_time_for(1.0), shutdown.has_time_for(120.0), shutdown.is_requested()) == (True, False, False)
    assert begin(GRACE).has_time_for(1e9)
    shutdown = begin(GRACE, stop_after=0.0)
    assert (shutdown.is_requested(), shutdown.is_out_of_time, shutdown.reason) == (True, True, "time limit")
