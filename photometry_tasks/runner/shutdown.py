"""When a run stops: signals, and time limits of the caller or the batch system."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn, Self

_logger = logging.getLogger("photometry_tasks")

#: Seconds before the batch system's time limit at which a run ends, so that everything is on disk in time.
_RESERVE = 30.0

#: Longest grace after SIGTERM by default, seconds: SLURM kills the job 30 s after SIGTERM.
_GRACE_TERM = 20.0

#: Seconds in which a signal that comes again counts once: SLURM may send it to the run and to the script, which passes
#: it on.
_ECHO = 1.0

#: Longest wait for an answer of the batch system, seconds.
_PATIENCE = 10.0

#: Most characters of an answer without an end.
_LONGEST = 200


class Shutdown:
    """Watches for Ctrl-C, for SIGTERM and SIGUSR1 of a batch system, and for the time limit.

    Until `begin`, a signal raises an exception at once. Then, after the first signal no new task starts, and running
    tasks may continue for `grace` seconds; a second signal ends that time. A signal is not watched if the program has
    its own handler for it, or ignores it, or if the run is not in the main thread. The handlers are restored at the
    end.

    Parameters
    ----------
    grace : float
        Seconds that running tasks may continue after a signal.
    grace_term : float or None
        The same after SIGTERM; by default `grace`, but at most 20 s.
    """

    def __init__(self, grace: float, grace_term: float | None) -> None:
        self._grace = grace
        self._grace_term = min(grace, _GRACE_TERM) if grace_term is None else grace_term
        self._deadline: float | None = None
        self._wake_up: Callable[[], None] = self._raise
        # Numbers and times of the signals: one append, because a second signal can interrupt the handler of the first.
        self._signals: list[tuple[int, float]] = []
        self._is_out_of_time = False
        self._handlers: dict[int, Any] = {}
        defaults = {
            signal.SIGINT: signal.default_int_handler,
            signal.SIGTERM: signal.SIG_DFL,
            signal.SIGUSR1: signal.SIG_DFL,
        }
        self._watched = [number for number, default in defaults.items() if signal.getsignal(number) is default]

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._watched:
                self._handlers[number] = signal.signal(number, self._take)
        return self

    def begin(self, stop_after: float | None, wake_up: Callable[[], None]) -> None:
        """Let running tasks continue after a signal, from now on, and call `wake_up` at each signal.

        Parameters
        ----------
        stop_after : float or None
            Seconds from now after which the run should have ended.
        wake_up : callable
        """
        self._deadline = None if stop_after is None else time.monotonic() + stop_after
        self._wake_up = wake_up
        for number in self._handlers:
            signal.signal(number, self._take)  # again: Ray and dask-jobqueue set handlers that end the program

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None and self._signals:
            self._raise()

    def _take(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if number == signal.SIGINT or all(other != number or now - then > _ECHO for other, then in self._signals):
            self._signals.append((number, now))
        self._wake_up()

    def _raise(self) -> NoReturn:
        number, _ = self._signals[0]
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    @property
    def has_time_limit(self) -> bool:
        """Whether the run has to end at a certain time."""
        return self._deadline is not None

    def has_time_for(self, seconds: float) -> bool:
        """Whether a task with this run time would end before the time limit."""
        return self._deadline is None or time.monotonic() + seconds < self._deadline

    def is_requested(self) -> bool:
        """Whether no new task may start: after a signal, or at the time limit."""
        self._is_out_of_time |= not self.has_time_for(0.0)
        return bool(self._signals) or self._is_out_of_time

    def is_repeated(self) -> bool:
        """Whether a second signal came: the run must end at once."""
        return len(self._signals) > 1

    @property
    def reason(self) -> str:
        """Why no new task may start: the name of the signal, or "time limit"."""
        return signal.Signals(self._signals[0][0]).name if self._signals else "time limit"

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time limit was reached before all tasks had started."""
        return self._is_out_of_time

    def get_seconds_left(self) -> float | None:
        """Return the seconds that running tasks may still continue; None: no limit."""
        ends = [] if self._deadline is None else [self._deadline]
        if self._signals:
            number, begun = self._signals[0]
            ends.append(begun + (self._grace_term if number == signal.SIGTERM else self._grace))
        if self.is_repeated():
            ends.append(self._signals[1][1])
        return max(0.0, min(ends) - time.monotonic()) if ends else None


def find_time_limit(stop_after: float | None) -> float | None:
    """Return the seconds after which to stop: `stop_after`, or 30 s before SLURM ends the job if that is earlier."""
    limits = [] if stop_after is None else [stop_after]
    with suppress(OverflowError):  # a number of hundreds of digits
        if (end := _find_job_end()) is not None:
            limits.append(max(0.0, end - time.time() - _RESERVE))
    return min(limits, default=None)


def _find_job_end() -> int | None:
    """Return the time at which SLURM ends this job, in seconds since 1970; None: not in a job, or not known."""
    with suppress(KeyError, ValueError):
        # Set by SLURM after 22.05; a time in the past is that of an earlier job, which exported it to this one.
        if (end := int(os.environ["SLURM_JOB_END_TIME"])) > time.time():
            return end
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    # Without the user's own choice of rows and columns, and with times in seconds since 1970.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    environment["SLURM_TIME_FORMAT"] = "%s"
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%A %e"]
    try:
        # The shell of the job finds `squeue` in the same way.
        answer = subprocess.run(  # noqa: S603
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
        # The id of an array also finds its other elements.
        end = int(dict(map(str.split, answer.stdout.splitlines()))[job])
        ends = datetime.fromtimestamp(end).astimezone().isoformat(" ")
    except (OSError, subprocess.TimeoutExpired) as error:
        found = str(error)
    except (ValueError, KeyError, OverflowError):
        found = " ".join((answer.stderr or answer.stdout).split())[:_LONGEST] or "no answer"
    else:
        if end > time.time():
            _logger.warning("SLURM ends job %s at %s; the run ends %.0f s earlier", job, ends, _RESERVE)
            return end
        found = f"an end in the past, {ends}"
    message = "`squeue` did not say when SLURM ends job %s (%s); give the run a time limit (--stop-after)"
    _logger.warning(message, job, found)
    return None
