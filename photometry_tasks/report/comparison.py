"""Compare the results of cameras, hosts, workers and versions with those of similar stars."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row

from photometry_tasks.rules.run_times import Cell
from photometry_tasks.sql.run_times import Sample, is_number
from photometry_tasks.status import FAILED, STATUS, name_status

__all__ = ["Comparison", "Outcome", "compare"]

_RESULTS = {status.name for status in (STATUS.OK, STATUS.WARNING, *FAILED)}
_FAILED = {status.name for status in FAILED}


class Outcome(NamedTuple):
    """How an attempt ended, the name of a status, and where it was made; None stands for what is not known."""

    how: str
    worker: Any = None
    host: str | None = None
    version: str | None = None


class Comparison(NamedTuple):
    """The results of a camera, host, worker or version; repetitions of failed tasks do not count.

    Attributes
    ----------
    results, failed : float
        Numbers of results and of ERROR and ABORT in them. A task of a sample stands for several.
    seconds : float or None
        The median run time of the stored results, seconds; None without a run time.
    factor : float or None
        The median ratio of a run time to the median run time of similar stars: of the same datasource, method and half
        magnitude. If stars differ and nothing else does, it is 1.
    """

    results: float
    failed: float
    seconds: float | None
    factor: float | None


class _Result(NamedTuple):
    weight: float
    has_failed: bool
    seconds: float | None
    ratio: float | None


def compare(
    sample: Sample, whole: Sample, outcomes: Mapping[int, Sequence[Outcome]]
) -> dict[str, dict[Any, Comparison]]:
    """Return the comparisons of a sample's results, by 'camera', 'host', 'worker' and 'version', and by their value.

    Parameters
    ----------
    sample, whole : Sample
        The tasks, and all tasks of the list, which hold the similar stars.
    outcomes : mapping
        The attempts with a result by priority, the last one last; those of older releases are missing. The repetition
        of a failed task counts for its worker only: a host that repeats such tasks meets only stars that fail.
    """
    times: defaultdict[Cell, list[float]] = defaultdict(list)
    for row, cell, _ in whole.iter_cells():
        if _has_time(row):
            times[cell].append(row.elaptime)
    usual = {cell: statistics.median(found) for cell, found in times.items()}
    members: dict[str, defaultdict[Any, list[_Result]]]
    members = {name: defaultdict(list) for name in ("camera", "worker", "host", "version")}
    for row, cell, weight in sample.iter_cells():
        status = name_status(row.status)
        stored = [Outcome(status)] if status in _RESULTS else []
        ended = [outcome for outcome in outcomes.get(row.priority, stored) if outcome.how in _RESULTS]
        for number, outcome in enumerate(ended):
            is_repetition = number > 0 and ended[number - 1].how in _FAILED
            seconds = ratio = None
            if stored and outcome is ended[-1] and _has_time(row):
                # Not all stars of a large list are in the sample of the whole list.
                seconds, ratio = row.elaptime, row.elaptime / usual[cell] if cell in usual else None
            result = _Result(weight, outcome.how in _FAILED, seconds, ratio)
            uncounted = result._replace(weight=0.0) if is_repetition else result
            for name, value in zip(members, (row.camera, *outcome[1:]), strict=True):
                members[name][value].append(result if name == "worker" else uncounted)
    compared = {
        name: {value: _summarize(found[value]) for value in sorted(found, key=str) if value is not None}
        for name, found in members.items()
    }
    for name in ("host", "version"):  # of many, those that fail come first
        compared[name] = dict(sorted(compared[name].items(), key=_find_share, reverse=True))
    return compared


def _find_share(item: tuple[Any, Comparison]) -> float:
    return item[1].failed / (item[1].results or 1.0)


def _has_time(row: Row[Any]) -> bool:
    return is_number(row.elaptime) and row.elaptime > 0


def _summarize(results: list[_Result]) -> Comparison:
    times = [result.seconds for result in results if result.seconds is not None]
    ratios = [result.ratio for result in results if result.ratio is not None]
    return Comparison(
        math.fsum(result.weight for result in results),
        math.fsum(result.weight for result in results if result.has_failed),
        statistics.median(times) if times else None,
        statistics.median(ratios) if ratios else None,
    )
