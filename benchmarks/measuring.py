"""Times and ratios of two ways to get the same result, in turn, so that the noise of the machine cancels."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.limit import Limit
from benchmarks.lists import result_of
from photometry_tasks import TaskManager
from photometry_tasks.constraints import Constraints

_NONE: Constraints = {}


@dataclass
class Row:
    """A line of the table: the case, both medians, and the ratio of each round."""

    part: str
    what: str
    unit: str
    ours: float
    limit: float
    ratios: list[float]
    ceiling: float | None

    @property
    def ratio(self) -> float:
        """The median of the ratios of all rounds."""
        return statistics.median(self.ratios)

    def show(self) -> str:
        """Return the row as a line of text."""
        spread = f"{min(self.ratios):.2f}–{max(self.ratios):.2f}"
        ceiling = "" if self.ceiling is None else f"{self.ceiling:5.3g}{' ' if self.ratio <= self.ceiling else ' !'}"
        numbers = f"{self.ours:10.4g} {self.limit:10.4g} {self.unit:3} {self.ratio:6.2f} {spread:>13} {ceiling}"
        return f"{self.part:12} {self.what:52} {numbers}"

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON."""
        return {**asdict(self), "ratio": self.ratio}


HEAD = f"{'part':12} {'case':52} {'measured':>10} {'baseline':>10} {'':3} {'ratio':>6} {'spread':>13} {'at most':>7}"

_UNITS = {"µs": 1e6, "ms": 1e3, "s": 1.0}


def compare(
    part: str,
    what: str,
    ours: Callable[[], float],
    limit: Callable[[], float],
    *,
    unit: str = "µs",
    rounds: int = 7,
    ceiling: float | None = None,
) -> Row:
    """Measure two functions in turn; each returns its time in seconds."""
    pairs = []
    for number in range(rounds):
        # In turn, so that cold caches do not always affect the same function.
        if number % 2:
            theirs = limit()
            pairs.append((ours(), theirs))
        else:
            pairs.append((ours(), limit()))
    return build_row(part, what, pairs, unit=unit, ceiling=ceiling)


def build_row(
    part: str, what: str, pairs: list[tuple[float, float]], *, unit: str = "µs", ceiling: float | None = None
) -> Row:
    """Return a row of pairs of times, in seconds, and print it."""
    scale = _UNITS[unit]
    median_of_ours, median_of_limit = (statistics.median(times) * scale for times in zip(*pairs, strict=True))
    row = Row(part, what, unit, median_of_ours, median_of_limit, [a / b for a, b in pairs], ceiling)
    print(row.show(), flush=True)
    return row


def time_of(function: Callable[[], object]) -> float:
    """Return the duration of a call, in seconds."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def run_singly(manager: TaskManager | Limit, number: int, constraints: Constraints = _NONE) -> float:
    """Get, start and save tasks one by one; return the seconds per task."""
    seconds, clock = 0.0, time.perf_counter
    for _ in range(number):
        begun = clock()
        task = manager.get_task(**constraints) or {}
        manager.start_task(task["priority"])
        seconds += clock() - begun
        result = result_of(task)
        begun = clock()
        manager.save_result(result)
        seconds += clock() - begun
    return seconds / number


def run_in_batches(manager: TaskManager | Limit, sizes: Sequence[int]) -> float:
    """Get, start and save tasks in batches of these sizes; return the seconds per task."""
    seconds, clock = 0.0, time.perf_counter
    for size in sizes:
        begun = clock()
        tasks = manager.get_tasks(size)
        manager.start_tasks([task["priority"] for task in tasks])
        seconds += clock() - begun
        results = [result_of(task) for task in tasks]
        begun = clock()
        manager.save_results(results)
        seconds += clock() - begun
    return seconds / sum(sizes)
