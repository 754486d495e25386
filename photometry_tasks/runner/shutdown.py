"""When a run is to stop: signals, and the time that a batch system gives it."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, Self

#: Seconds before a batch system's own limit at which all should be on disk.
_RESERVE = 30.0

#: How many run times tell how long the next task may take, and which share of them it is not to exceed.
_SEEN, _SHARE = 200, 0.95


class Shutdown:
    """Watches for Ctrl-C, SIGTERM and SIGUSR1, as a batch system sends them, and for the end of the time.

    The first signal asks that nothing more is handed out, and gives what runs some time; a second one takes it away.
    A signal that the program has taken care of itself, or that is ignored, is left alone; so are all in a thread that
    is not the main one. They are put back at the end.

    Parameters
    ----------
    grace : float
        Seconds that what runs may go on after a signal.
    stop_after : float or None
        Seconds from now after which all should have ended.
    wake_up : callable
        Called when a signal has come.
    """

    def __init__(self, grace: float, stop_after: float | None, wake_up: Callable[[], None]) -> None:
        self._grace = grace
        self._deadline = None if stop_after is None else time.monotonic() + stop_after
        self._wake_up = wake_up
        self._signal: int | None = None
        self._ends_at: float | None = None
        self._is_out_of_time = False
        self._seen: deque[float] = deque(maxlen=_SEEN)
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            defaults = {
                signal.SIGINT: signal.default_int_handler,
                signal.SIGTERM: signal.SIG_DFL,
                signal.SIGUSR1: signal.SIG_DFL,
            }
            for number, default in defaults.items():
                if signal.getsignal(number) is default:
                    self._handlers[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None and self._signal is not None:
            self._raise()

    def _take(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        self._ends_at = now + self._grace if self._signal is None else now
        self._signal = self._signal or number
        self._wake_up()

    def _raise(self) -> NoReturn:
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self._signal or 0))

    def add_run_time(self, elaptime: float) -> None:
        """Take into account how long a task took, seconds."""
        self._seen.append(elaptime)

    def is_requested(self) -> bool:
        """Whether nothing more is to be handed out: a signal came, or the next task would hardly end in time."""
        if self._deadline is not None and not self._is_out_of_time:
            next_time = sorted(self._seen)[int(_SHARE * len(self._seen))] if self._seen else 0.0
            self._is_out_of_time = time.monotonic() + next_time >= self._deadline
        return self._signal is not None or self._is_out_of_time

    @property
    def reason(self) -> str:
        """Why nothing more is to be handed out."""
        return "The time is over" if self._signal is None else signal.Signals(self._signal).name

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time was over before all tasks were handed out."""
        return self._is_out_of_time

    def get_seconds_left(self) -> float | None:
        """Return how long what runs may still go on; None: to its end."""
        ends = [end for end in (self._ends_at, self._deadline) if end is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None


def find_time_limit(stop_after: float | None) -> float | None:
    """Return after how many seconds to stop: as was asked for, or half a minute before SLURM ends the job."""
    limits = [] if stop_after is None else [stop_after]
    with suppress(KeyError, ValueError):
        # Whole seconds since 1970, as srun and sbatch set it (https://slurm.schedmd.com/sbatch.html).
        limits.append(max(0.0, int(os.environ["SLURM_JOB_END_TIME"]) - time.time() - _RESERVE))
    return min(limits, default=None)
