"""Read a TODO-list for its report: counts by magnitude, run times, errors by kind, progress."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, select

from photometry_tasks.models import diagnostics, todolist
from photometry_tasks.progress.status_fields import read_minutes
from photometry_tasks.reading.failures import HAS_ERRORS, ErrorGroups, group_errors
from photometry_tasks.reading.rows import find_stored
from photometry_tasks.rules.estimate import PAUSE
from photometry_tasks.sql.counts import count_by_ccd, count_by_status
from photometry_tasks.sql.execution import iter_batches
from photometry_tasks.sql.magnitudes import BRIGHTEST, HALF, IS_IN_RANGE
from photometry_tasks.status import FINISHED, STATUS, name_counts
from photometry_tasks.storage.open import OpenList

__all__ = ["LONGEST", "SHORTEST", "STEPS", "Snapshot", "read_snapshot"]

#: Limits of the figures. Without limits, a single outlier would compress all other values into a line.
SHORTEST, LONGEST = 1e-4, 1_000_000

#: Steps of run time in a decade. A step spans 2.3 %, which is the precision of the median.
STEPS = 100

_MOST_CCDS = 400

_TESS_CCDS = list(product(range(1, 5), repeat=2))

# --- statements ------------------------------------------------------------------------------------------

_task, _result = todolist.c, diagnostics.c

_NO_MAGNITUDE, _OUT_OF_RANGE = -1, -2
_bin = case((IS_IN_RANGE, HALF), (_task.tmag.is_(None), _NO_MAGNITUDE), else_=_OUT_OF_RANGE).label("half")
_COUNT_BY_MAGNITUDE: Select[Any] = select(_bin, _task.status, func.count().label("tasks")).group_by(_bin, _task.status)

_results = diagnostics.join(todolist, _result.priority == _task.priority)
_COUNT_RESULTS: Select[Any] = select(func.count()).select_from(_results)
_RUN_TIMES: Select[Any] = (
    select(HALF.label("half"), _result.elaptime)
    .select_from(_results)
    .where(and_(IS_IN_RANGE, _result.elaptime.between(SHORTEST, LONGEST)))
)

# --- values ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Completion:
    """Numbers of tasks: all tasks, finished tasks, tasks with ERROR."""

    tasks: int
    finished: int
    failed: int


@dataclass(frozen=True)
class FocalPlane:
    """The completion of each CCD."""

    cameras: dict[int, dict[int, Completion]]  # by camera and by CCD
    omitted: int  # CCDs beyond the limit of the page


@dataclass(frozen=True)
class MagnitudeCounts:
    """Numbers of tasks by magnitude."""

    by_lower_edge: dict[float, dict[str, int]]  # by half magnitude and by the name of the status
    without_magnitude: int
    out_of_range: int  # the magnitude is outside BRIGHTEST to FAINTEST


@dataclass(frozen=True)
class Snapshot:
    """The content of a TODO-list in one transaction.

    Attributes
    ----------
    by_status : dict
        Numbers of tasks, by the name of the status.
    completion : Completion
    focal_plane : FocalPlane
    by_magnitude : MagnitudeCounts
    results : int
    run_times : dict
        Numbers of results, by the lower edge of the half magnitude and by step of run time.
        The lower edge of a step is 10**(step / `STEPS`) seconds.
    medians : dict
        Median run times in seconds, by the lower edge of the half magnitude.
    errors : ErrorGroups
    minutes : list of Row
        Rows with `minute` (seconds since 1970), `saved` and `errors`, in chronological order.
    runs : list of list of Row
        The same rows by run.
    """

    by_status: dict[str, int]
    completion: Completion
    focal_plane: FocalPlane
    by_magnitude: MagnitudeCounts
    results: int
    run_times: dict[float, Counter[int]]
    medians: dict[float, float]
    errors: ErrorGroups
    minutes: list[Row[Any]]
    runs: list[list[Row[Any]]]


# --- reading ---------------------------------------------------------------------------------------------


def read_snapshot(opened: OpenList) -> Snapshot:
    """Read the content of the report.

    Parameters
    ----------
    opened : OpenList
        If an older release created the list, tables may be missing.

    Returns
    -------
    Snapshot
    """
    connection = opened.connection
    has_results = _result.errors in find_stored(opened)
    by_status = name_counts(count_by_status(connection))
    run_times = _count_run_times(connection) if has_results else {}
    minutes = read_minutes(connection)
    return Snapshot(
        by_status=by_status,
        completion=_build_completion(by_status),
        focal_plane=_build_focal_plane(count_by_ccd(connection)),
        by_magnitude=_count_by_magnitude(connection),
        results=connection.execute(_COUNT_RESULTS).scalar_one() if has_results else 0,
        run_times=run_times,
        medians={edge: _build_median(counts) for edge, counts in run_times.items()},
        errors=group_errors(opened, HAS_ERRORS) if has_results else ErrorGroups([], 0),
        minutes=minutes,
        runs=_build_runs(minutes),
    )


def _count_by_magnitude(connection: Connection) -> MagnitudeCounts:
    counts: dict[int, dict[int | None, int]] = {}
    for row in connection.execute(_COUNT_BY_MAGNITUDE):
        counts.setdefault(row.half, {})[row.status] = row.tasks
    without_magnitude, out_of_range = counts.pop(_NO_MAGNITUDE, {}), counts.pop(_OUT_OF_RANGE, {})
    return MagnitudeCounts(
        by_lower_edge={BRIGHTEST + half / 2: name_counts(by_status) for half, by_status in sorted(counts.items())},
        without_magnitude=sum(without_magnitude.values()),
        out_of_range=sum(out_of_range.values()),
    )


def _count_run_times(connection: Connection) -> dict[float, Counter[int]]:
    cells: Counter[tuple[int, int]] = Counter()
    for rows in iter_batches(connection, _RUN_TIMES):
        halves, times = zip(*rows, strict=True)
        cells.update(zip(halves, [math.floor(math.log10(time) * STEPS) for time in times], strict=True))
    counts: dict[float, Counter[int]] = {}
    for (half, step), number in sorted(cells.items()):
        counts.setdefault(BRIGHTEST + half / 2, Counter())[step] = number
    return counts


# --- grouping --------------------------------------------------------------------------------------------


def _build_completion(counts: Mapping[str, int]) -> Completion:
    return Completion(
        tasks=sum(counts.values()),
        finished=sum(counts.get(status.name, 0) for status in FINISHED),
        failed=counts.get(STATUS.ERROR.name, 0),
    )


def _build_focal_plane(by_ccd: Mapping[tuple[int, int], Mapping[str, int]]) -> FocalPlane:
    """Group the CCDs by camera. If all CCDs belong to TESS, include the CCDs without a task."""
    ccds = _TESS_CCDS if by_ccd.keys() <= set(_TESS_CCDS) else list(by_ccd)
    cameras: dict[int, dict[int, Completion]] = {}
    for camera, ccd in ccds[:_MOST_CCDS]:
        cameras.setdefault(camera, {})[ccd] = _build_completion(by_ccd.get((camera, ccd), {}))
    return FocalPlane(cameras=cameras, omitted=max(0, len(ccds) - _MOST_CCDS))


def _build_median(counts: Counter[int]) -> float:
    """Return the median run time in seconds. If two results are in the middle, the shorter run time is the median."""
    steps = sorted(counts)
    middle = bisect_left(list(accumulate(counts[step] for step in steps)), (counts.total() + 1) // 2)
    return 10 ** ((steps[middle] + 0.5) / STEPS)


def _build_runs(minutes: Iterable[Row[Any]]) -> list[list[Row[Any]]]:
    """Divide the minutes into runs. A pause of more than `PAUSE` seconds separates two runs."""
    runs: list[list[Row[Any]]] = []
    for row in minutes:
        if not runs or row.minute - runs[-1][-1].minute > PAUSE:
            runs.append([])
        runs[-1].append(row)
    return runs
