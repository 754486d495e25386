"""Estimate the time that the rest of a list takes, from plain means of run times. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["RunTimes", "build_estimate"]


class RunTimes(NamedTuple):
    """The number of results of similar tasks, with the sum of their run times and of the squares of these, seconds."""

    number: int
    total: float
    squares: float


#: Similar tasks: a number of the half magnitude (None without a magnitude), and a kind of datasource.
_Group = tuple[int | None, str]


def build_estimate(
    run_times: Mapping[_Group, RunTimes], left: Mapping[_Group, int], at_once: float | None
) -> dict[str, Any]:
    """Return the time that tasks still take, as `TodoList.estimate` describes it.

    A task takes the mean time of the results of its half magnitude and datasource; without such a result, the mean time
    of its datasource, or of all results. The limits are two standard deviations of the sum away from it.

    Parameters
    ----------
    run_times : mapping
    left : mapping
        The number of tasks that are left, by group.
    at_once : float or None
        How many tasks run at once.
    """
    tasks = sum(left.values())
    if not run_times or not tasks:
        seconds = None if tasks else 0.0
        hours = None if seconds is None else 0.0
        return {"tasks": tasks, "cpu_hours": seconds, "hours_low": hours, "hours_high": hours}
    seconds = variance = 0.0
    for group, number in left.items():
        alike = run_times.get(group)
        of_source = _add(times for (_, source), times in run_times.items() if source == group[1])
        times = alike or (of_source if of_source.number else _add(run_times.values()))
        mean = times.total / times.number
        scatter = max(0.0, times.squares / times.number - mean**2)
        seconds += number * mean
        # The mean itself is as uncertain as its number of results is small.
        variance += scatter * (number + number**2 / times.number)
    spread = 2 * math.sqrt(variance)
    limits = max(0.0, seconds - spread), seconds + spread
    low, high = (limit / at_once / 3600 if at_once else None for limit in limits)
    return {"tasks": tasks, "cpu_hours": seconds / 3600, "hours_low": low, "hours_high": high}


def _add(groups: Iterable[RunTimes]) -> RunTimes:
    return RunTimes(*map(sum, zip(*groups, strict=True))) if (groups := list(groups)) else RunTimes(0, 0.0, 0.0)
