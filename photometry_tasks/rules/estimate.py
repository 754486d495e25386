"""Estimate the time that the rest of a list takes, and plan how far a job of some hours comes. Pure."""

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from photometry_tasks.rules.run_times import Cell, RunTimes

__all__ = [
    "ESTIMATES",
    "NO_RECORD",
    "PAUSE",
    "Record",
    "Workload",
    "build_estimate",
    "build_plan",
    "find_pace",
    "is_overdue",
    "measure_pace",
    "measure_rate",
    "take_first",
]

#: The names of the estimated times, which may be None.
ESTIMATES = ("cpu_hours", "cpu_hours_low", "cpu_hours_high", "hours_low", "hours_high")

#: Number of draws, and the shares of them that lie below the two limits: between the limits are 80 %.
_DRAWS, _LOW, _HIGH = 200, 0.1, 0.9

#: A running task is overdue if it takes so many times as long as 95 % of similar tasks, and at least so many seconds.
_OVERDUE, _OVERDUE_SECONDS = 3.0, 30.0

#: The most tasks that are drawn one by one, to see which of the last ones ends last.
_LAST = 100

#: Seconds, results and mean run times, over which the number of tasks that run at once is measured.
_LATELY, _LEAST, _RUN_TIMES = 600, 300, 5

#: Seconds. A longer pause without a result ends a run.
PAUSE = 1800


class Record(NamedTuple):
    """When results came, and when managers had the list open, in seconds since 1970 by the clock of the database.

    Attributes
    ----------
    minutes : sequence of Row
        Rows of `photometry_tasks_progress`, in chronological order.
    managers : sequence of (float, float)
        When each manager opened the list, and when it left or was last there.
    now : float
    """

    minutes: Sequence[Any]
    managers: Sequence[tuple[float, float]]
    now: float


#: The record of a list whose results have no times.
NO_RECORD = Record((), (), 0.0)


@dataclass(frozen=True)
class Workload:
    """The tasks of a list, measured and left.

    Attributes
    ----------
    run_times : RunTimes
    waiting : list of dict
        The number of pending tasks by cell, in consecutive parts of the list.
    lasts : list of int
        The last priority of each of these parts.
    running : dict
        The number of STARTED tasks by cell.
    measured, covered : int
        Numbers of finished tasks that were run, and that were skipped without a run.
    seconds : float
        Sum of the run times of all results.
    """

    run_times: RunTimes
    waiting: list[dict[Cell, float]]
    lasts: list[int]
    running: dict[Cell, float]
    measured: int
    covered: int
    seconds: float


def measure_rate(record: Record) -> float | None:
    """Return the results per second over the last ten minutes; None if there are none, or none came for a while."""
    # A minute after now is of a node whose clock is ahead.
    lately = [row for row in record.minutes if record.now - _LATELY < row.minute <= record.now]
    saved = sum(row.saved for row in lately)
    if not saved:
        return None
    rate: float = saved / _measure_open_time(record, record.now - _LATELY, record.now)
    # A minute is written until it ends; a pause of three usual ones is none.
    return rate if record.now - lately[-1].minute <= 2 * 60 + 3 / rate else None


def measure_pace(record: Record) -> float | None:
    """Return how many tasks ran at once when the last results were saved; None without a record of their times."""
    saved, elaptime, begun = 0, 0.0, math.inf
    for row in reversed(record.minutes):
        if begun - row.minute > PAUSE and saved:
            break  # an earlier run
        saved, elaptime, begun = saved + row.saved, elaptime + row.elaptime, row.minute
        # Some results are of tasks that began earlier, and some tasks have no result yet: over long times both are few.
        if saved >= _LEAST and record.minutes[-1].minute - begun >= max(_LATELY, _RUN_TIMES * elaptime / saved):
            break
    else:
        if saved:  # the tasks with the first results began before
            starts = (start for start, end in record.managers if start - 2 <= begun <= end)
            begun = max(begun - elaptime / saved, min(starts, default=begun))
    if not saved or not elaptime > 0:
        return None
    last = record.minutes[-1].minute
    # A minute after now is of a node whose clock is ahead.
    ended = last + 60 if last >= record.now else min(last + 60, record.now)
    at_once: float = elaptime / _measure_open_time(record, begun, ended)
    return at_once


def _measure_open_time(record: Record, begun: float, ended: float) -> float:
    """Return the seconds between two times in which a manager had the list open; if none is known, results came."""
    minutes = ((row.minute, row.minute + 60) for row in record.minutes)
    return max(1.0, _measure_union(record.managers, begun, ended) or _measure_union(minutes, begun, ended))


def _measure_union(times: Iterable[tuple[float, float]], begun: float, ended: float) -> float:
    total, until = 0.0, begun
    for start, end in sorted(times):
        total += max(0.0, min(end, ended) - max(start, until))
        until = max(until, end)
    return total


def find_pace(
    workload: Workload, record: Record, *, started: int, at_work: int | None, is_in_use: bool
) -> float | None:
    """Return how many tasks run at once: the running tasks; without them, those when the last results were saved.

    Parameters
    ----------
    workload : Workload
    record : Record
    started : int
        The number of STARTED tasks of the list.
    at_work : int or None
        The number of tasks that workers run; None if it is not known which STARTED tasks wait for a worker.
    is_in_use : bool
        Whether the STARTED tasks run, and were not interrupted.
    """
    if is_in_use and started:
        # A run starts tasks of less than a second ahead: they wait for a worker.
        if workload.seconds >= workload.measured:
            return float(started if at_work is None else max(at_work, 1))
        if at_work:
            return max(at_work, measure_pace(record) or 0.0)
    return measure_pace(record)


def take_first(workload: Workload, tasks: float) -> Workload:
    """Return a workload with so many of the tasks that are left: the running tasks, and the first in the list."""
    left = max(0.0, tasks - math.fsum(workload.running.values()))
    waiting = []
    for part in workload.waiting:
        number = math.fsum(part.values())
        share = min(1.0, left / number) if number else 0.0
        waiting.append({cell: share * each for cell, each in part.items()} if share else {})
        left -= share * number
    return replace(workload, waiting=waiting)


def is_overdue(seconds: float | None, expected: float | None) -> bool:
    """Whether a task takes much longer than similar ones; False if one of its times is unknown."""
    return seconds is not None and expected is not None and seconds >= max(_OVERDUE_SECONDS, _OVERDUE * expected)


def build_estimate(workload: Workload, at_once: float | None, overdue: Sequence[float] = ()) -> dict[str, Any]:
    """Return the time that tasks still take, as `TodoList.estimate` describes it.

    Parameters
    ----------
    workload : Workload
    at_once : float or None
        How many tasks run at once.
    overdue : sequence of float, optional
        Seconds that running tasks have taken so far, if they take much longer than similar ones.
    """
    waiting: dict[Cell, float] = defaultdict(float)
    for part in workload.waiting:
        for cell, tasks_of_cell in part.items():
            waiting[cell] += tasks_of_cell
    tasks = round(math.fsum((*waiting.values(), *workload.running.values())))
    found = {"tasks": tasks, "cpu_hours_done": workload.seconds / 3600, "jobs": at_once}
    if not tasks:
        return found | dict.fromkeys(ESTIMATES, 0.0)
    chance = random.Random(1)  # noqa: S311 - equal lists have equal estimates
    number = min(at_once or 1.0, tasks)
    at_end = max(1, min(round(number), _LAST))
    last = next((cells for cells in reversed(workload.waiting) if cells), workload.running)
    run_times, still_running = workload.run_times, math.fsum(workload.running.values())
    # Of the tasks that have started, the longest still run: the results are too short, and the running tasks too long.
    variance = run_times.get_variance(workload.running)
    bias = len(run_times) / max(len(run_times) - still_running * variance, len(run_times) / 2, 1)
    scatters = [math.log1p(run_times.get_variance({cell: 1})) for cell in last]
    seconds, times = [], []
    earliest = 0.0 if tasks > number or still_running else 1.0  # otherwise all tasks start now
    groups = [waiting, workload.running, *({cell: tasks_of_cell} for cell, tasks_of_cell in last.items())]
    for rest, begun, *sums in run_times.draw(groups, _DRAWS, chance):
        # A running task is half done on average.
        seconds.append(bias * (rest * _draw_share(workload, chance) + begun * (1 + variance) / 2))
        # When no task is left to start, some workers wait for the last one. A long task is more likely to run then.
        means = [each / tasks_of_cell for each, tasks_of_cell in zip(sums, last.values(), strict=True)]
        ends = [
            bias * mean * chance.lognormvariate(scatter / 2, math.sqrt(scatter)) * chance.uniform(earliest, 1.0)
            for mean, scatter in chance.choices(list(zip(means, scatters, strict=True)), sums, k=at_end)
        ]
        times.append(seconds[-1] / number + max(ends) - math.fsum(ends) / len(ends))
        # Of a task that hangs, only its time is known: it is as likely to take as long again as not.
        rest_of_overdue = [each * (chance.paretovariate(1.0) - 1) for each in overdue]
        seconds[-1] += math.fsum(rest_of_overdue)
        times[-1] = max(times[-1], *rest_of_overdue, 0.0)
    if not seconds:
        return found | dict.fromkeys(ESTIMATES)
    limits = [*_find_limits(seconds), *(_find_limits(times) if at_once else (None, None))]
    hours = [statistics.median(seconds), *limits]
    return found | {name: each and each / 3600 for name, each in zip(ESTIMATES, hours, strict=True)}


def build_plan(workload: Workload, jobs: float, hours: float) -> dict[str, Any]:
    """Return which tasks will be done in some hours, as `TodoList.plan` describes it.

    Parameters
    ----------
    workload : Workload
    jobs, hours : float
    """
    parts = [workload.running, *workload.waiting]
    tasks = round(math.fsum(number for part in parts for number in part.values()))
    chance = random.Random(1)  # noqa: S311 - equal lists have equal plans
    places = []
    for sums in workload.run_times.draw(parts, _DRAWS, chance) if tasks else ():
        share = _draw_share(workload, chance)
        # A task that cannot end in time does not start: on average, each worker is idle for half a task.
        left = jobs * (hours * 3600 - math.fsum(sums) / (2 * tasks))
        place = 0.0
        for seconds in sums:
            if seconds * share >= left:
                place += max(0.0, left) / (seconds * share) if seconds else 0.0
                break
            left, place = left - seconds * share, place + 1
        places.append(place)
    if not tasks:
        places = [float(len(parts))]
    low, high = _find_limits(places) if places else (None, None)
    total = _count_by_magnitude(parts, float(len(parts)))
    numbers = {
        name: None if place is None else _count_by_magnitude(parts, place)
        for name, place in (("done_low", low), ("done_high", high))
    }
    magnitudes = [
        {"tmag": tmag, "tasks": round(total[tmag])}
        | {name: None if found is None else round(found[tmag]) for name, found in numbers.items()}
        for tmag in sorted(total, key=lambda tmag: (tmag is None, tmag))
    ]
    return {
        "jobs": jobs,
        "hours": hours,
        "tasks": tasks,
        **{name: None if found is None else round(math.fsum(found.values())) for name, found in numbers.items()},
        "priority_low": None if low is None else _find_priority(workload.lasts, low - 1),
        "priority_high": None if high is None else _find_priority(workload.lasts, high - 1),
        "magnitudes": magnitudes,
    }


def _count_by_magnitude(parts: Sequence[dict[Cell, float]], place: float) -> dict[int | None, float]:
    """Return the number of tasks by whole magnitude in the parts before a place, which may divide a part."""
    found: dict[int | None, float] = defaultdict(float)
    for number, part in enumerate(parts):
        for cell, tasks in part.items():
            found[None if cell.half is None else cell.half // 2] += tasks * min(max(place - number, 0.0), 1.0)
    return found


def _draw_share(workload: Workload, chance: random.Random) -> float:
    """Return a possible share of the pending tasks that will be run: brighter stars will cover the others."""
    if not workload.covered:
        return 1.0
    return chance.betavariate(workload.measured + 1, workload.covered)


def _find_limits(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[int(_LOW * len(ordered))], ordered[int(_HIGH * len(ordered))]


def _find_priority(lasts: Sequence[int], place: float) -> int | None:
    """Return the priority at a place between the parts; None before the first task."""
    if place <= 0 or not lasts:
        return None
    number = min(int(place), len(lasts) - 1)
    before = lasts[number - 1] if number else lasts[0]
    return round(before + (lasts[number] - before) * min(place - number, 1.0))
