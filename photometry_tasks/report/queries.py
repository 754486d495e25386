"""Read a TODO-list for its page: counts, the time left, throughput, failures, workers, and a sample of the tasks."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, inspect, literal_column, select

from photometry_tasks.constraints import build_expressions, check_constraints
from photometry_tasks.models import attempts, extra, todolist, workers
from photometry_tasks.progress.status_fields import (
    NO_LIVE_TASKS,
    find_overdue,
    list_running,
    measure_silence,
    read_record,
)
from photometry_tasks.reading.failures import HAS_FAILED, ErrorGroups, group_errors
from photometry_tasks.reading.matches import explain_lack
from photometry_tasks.reading.rows import find_stored
from photometry_tasks.report.comparison import Comparison, Outcome, compare
from photometry_tasks.rules.estimate import PAUSE, build_estimate, find_pace, measure_rate
from photometry_tasks.rules.run_times import Cell
from photometry_tasks.rules.stored_values import show_value
from photometry_tasks.sql import statements
from photometry_tasks.sql.counts import count_by_ccd, count_by_status
from photometry_tasks.sql.run_times import Sample, build_workload, is_number, read_sample
from photometry_tasks.status import FINISHED, STATUS, name_counts, name_status
from photometry_tasks.storage.open import OpenList

N = TypeVar("N", int, float)

__all__ = ["Ccd", "ListPage", "Point", "read_list"]

#: The most tasks whose errors are read, whose positions are drawn, and CCDs, running tasks and workers that are shown.
_FAILURES, _POSITIONS, _CCDS, _RUNNING, _WORKERS = 10_000, 4_000, 400, 20, 20

#: Tasks of a list above which the numbers of a CCD come from a sample: counting them would take a second.
_COUNTED = 500_000

#: The most results that are marked because they are far from those of similar stars, and the least factor.
_OUTLIERS, _FAR = 12, 3.0

_TESS_CCDS = list(product(range(1, 5), repeat=2))

_task, _worker = todolist.c, workers.c
_READ_WORKERS: Select[Any] = select(workers).order_by(_worker.ended.is_not(None), _worker.worker.desc()).limit(_WORKERS)
_READ_OUTCOMES: Select[Any] = (
    select(attempts.c.priority, attempts.c.how, attempts.c.worker, _worker.host, _worker.version)
    .outerjoin(workers, _worker.worker == attempts.c.worker)
    .where(
        attempts.c.priority.in_(bindparam("priorities", expanding=True, literal_execute=True)),
        statements.IS_RESULT,
    )
    .order_by(attempts.c.priority, attempts.c.attempt)
)
_READ_EXTRA: Select[Any] = select(extra.c.priority, extra.c.extra).where(
    extra.c.priority.in_(bindparam("priorities", expanding=True, literal_execute=True))
)


@dataclass(frozen=True)
class Ccd:
    """The tasks of a CCD: all, finished, failed (ERROR or ABORT), and the mean run time of their results, seconds.

    In a sample, a task stands for a number of tasks that is not whole.
    """

    tasks: float
    finished: float
    failed: float
    seconds: float | None

    def shade(self, colour: str, longest: float) -> float:
        """Return the depth of the colour, 0 to 1, for a higher value; `longest` is the longest mean run time."""
        if colour == "seconds":
            return (self.seconds or 0.0) / longest
        return (self.failed / (self.finished or 1)) ** 0.5 if colour == "failed" else self.finished / (self.tasks or 1)


class Point(NamedTuple):
    """A result in a figure.

    Attributes
    ----------
    x, y : float
    source : str
        'ffi', 'tpf' or 'secondary'; on the map the name of the status.
    priority, starid : int
    is_far : bool
        Whether it is far from the results of similar stars.
    """

    x: float
    y: float
    source: str
    priority: int
    starid: Any
    is_far: bool = False


@dataclass(frozen=True)
class ListPage:
    """The content of the page, read in one transaction.

    Attributes
    ----------
    lack : str or None
        Why no task meets the constraints.
    counts : dict
        Numbers of tasks, by the name of the status.
    tasks, finished : int
    is_sample : bool
        Whether the figures show a sample of the tasks.
    ccds : dict
        By camera and by CCD.
    omitted_ccds : int
        CCDs beyond the limit of the page.
    estimate : dict
        See `TodoList.estimate`.
    rate : float or None
        Results per second over the last ten minutes; None if no manager has the list open.
    holder : str or None
        The managers that have the list open.
    silence : float or None
        See `measure_silence`; None if no manager has the list open.
    minutes : sequence of Row
        Rows with `minute` (seconds since 1970), `saved` and `errors`, in chronological order.
    runs : list of list of Row
        The same rows by run.
    by_magnitude : dict
        Numbers of tasks by half magnitude (its lower edge) and by the name of the status.
    run_times, noise, positions : list of Point
        Results by magnitude and run time (s), by magnitude and rms_hour (ppm), and tasks by right ascension and
        declination (degrees).
    failures, warnings : ErrorGroups
    compared : dict
        See `compare`.
    running : list of dict
        See `read_status_fields`.
    queued : int or None
        STARTED tasks that wait for a worker of their run, if known.
    workers : list of dict
        Columns of `photometry_tasks_workers`.
    """

    lack: str | None
    counts: dict[str, int]
    tasks: int
    finished: int
    is_sample: bool
    ccds: dict[Any, dict[Any, Ccd]]
    omitted_ccds: int
    estimate: dict[str, Any]
    rate: float | None
    holder: str | None
    silence: float | None
    minutes: Sequence[Any]
    runs: list[list[Row[Any]]]
    by_magnitude: dict[float, dict[str, float]]
    run_times: list[Point]
    noise: list[Point]
    positions: list[Point]
    failures: ErrorGroups
    warnings: ErrorGroups
    compared: dict[str, dict[Any, Comparison]]
    running: list[dict[str, Any]]
    queued: int | None
    workers: list[dict[str, Any]]

    @property
    def longest(self) -> float:
        """The longest mean run time of a CCD, seconds; 1 if there is none."""
        return max((ccd.seconds or 0.0 for ccds in self.ccds.values() for ccd in ccds.values()), default=0.0) or 1.0


def read_list(opened: OpenList, constraints: Mapping[str, Any]) -> ListPage:
    """Read the content of the page.

    Parameters
    ----------
    opened : OpenList
        If an older release created the list, tables may be missing.
    constraints : mapping
        Arguments of `build_constraints`: the tasks that the page shows. The focal plane shows the others too.
    """
    connection, stored = opened.connection, find_stored(opened)
    conditions = build_expressions(check_constraints(constraints))
    everything = count_by_status(connection)
    counts = count_by_status(connection, conditions, everything=everything)
    named = name_counts(counts)
    sample = read_sample(connection, counts.total(), conditions)
    whole = read_sample(connection, everything.total()) if conditions else sample
    by_ccd: Mapping[tuple[Any, Any], Mapping[str, float]]
    by_ccd = count_by_ccd(connection) if everything.total() <= _COUNTED else _count_by_ccd(whole)
    workload = build_workload(connection, sample, counts)
    record = read_record(connection)
    holder = opened.database.find_holder()
    has_workers = _worker.version in stored
    running, live = [], NO_LIVE_TASKS
    if everything[STATUS.STARTED.value]:
        live = opened.database.find_live_tasks()
        running = list_running(connection, live, workload.run_times, conditions, max(_RUNNING, len(live.tasks)))

    def find_errors(condition: ColumnElement[bool], number: int) -> ErrorGroups:
        if not number:
            return ErrorGroups([], 0)
        found = group_errors(opened, condition, *conditions, limit=_FAILURES)
        return ErrorGroups(found.groups, found.ungrouped + max(0, number - _FAILURES))

    return ListPage(
        lack=explain_lack(connection, constraints) if constraints and not counts else None,
        counts=named,
        tasks=counts.total(),
        finished=_count_finished(named),
        is_sample=not sample.is_whole,
        ccds=_build_focal_plane(by_ccd, whole),
        omitted_ccds=max(0, len(by_ccd) - _CCDS),
        estimate=build_estimate(
            workload,
            find_pace(
                workload,
                record,
                started=everything[STATUS.STARTED.value],
                at_work=live.at_work,
                is_in_use=holder is not None,
            ),
            find_overdue(running),
        ),
        rate=None if holder is None else measure_rate(record),
        holder=holder,
        silence=None if holder is None else measure_silence(record, live),
        minutes=record.minutes,
        runs=_build_runs(record.minutes),
        by_magnitude=_count_by_magnitude(sample),
        run_times=_list_points(sample, "elaptime"),
        noise=_list_points(sample, "rms_hour"),
        positions=_find_positions(opened, sample) if extra.c.extra in stored else [],
        failures=find_errors(HAS_FAILED, named["ERROR"] + named["ABORT"]),
        warnings=find_errors(_task.status == STATUS.WARNING.value, named["WARNING"]),
        compared=compare(sample, whole, _find_outcomes(connection, sample) if has_workers else {}),
        running=running[:_RUNNING],
        queued=None if live.queued is None else max(0, named["STARTED"] - len(running)),
        workers=[dict(row) for row in connection.execute(_READ_WORKERS).mappings()] if has_workers else [],
    )


def _find_outcomes(connection: Connection, sample: Sample) -> dict[int, list[Outcome]]:
    found: defaultdict[int, list[Outcome]] = defaultdict(list)
    for priority, *outcome in connection.execute(_READ_OUTCOMES, {"priorities": [row.priority for row in sample]}):
        found[priority].append(Outcome(*outcome))
    return found


def _count_finished(counts: Mapping[str, N]) -> N | int:
    return sum(counts[status.name] for status in FINISHED)


def _count_by_ccd(sample: Sample) -> dict[tuple[Any, Any], dict[str, float]]:
    """Return the number of tasks by (camera, CCD) and by the name of the status, from a sample."""
    weights: defaultdict[tuple[Any, Any, Any], float] = defaultdict(float)
    for row, _, weight in sample.iter_cells():
        weights[row.camera, row.ccd, row.status] += weight
    found: dict[tuple[Any, Any], dict[str, float]] = {}
    for (camera, ccd, status), number in weights.items():
        place = show_value(_task.camera, camera), show_value(_task.ccd, ccd)
        found.setdefault(place, dict.fromkeys(name_counts({}), 0.0))[name_status(status)] += number
    return found


def _build_focal_plane(
    by_ccd: Mapping[tuple[Any, Any], Mapping[str, float]], sample: Sample
) -> dict[Any, dict[Any, Ccd]]:
    """Group the CCDs by camera. If all CCDs belong to TESS, include the CCDs without a task."""
    seconds: defaultdict[tuple[Any, Any], list[float]] = defaultdict(list)
    for row in sample:
        if is_number(row.elaptime):
            seconds[row.camera, row.ccd].append(row.elaptime)
    found: dict[Any, dict[Any, Ccd]] = {}
    for place in islice(_TESS_CCDS if by_ccd.keys() <= set(_TESS_CCDS) else by_ccd, _CCDS):
        counts, times = by_ccd.get(place, name_counts({})), seconds.get(place)
        failed = counts["ERROR"] + counts["ABORT"]
        mean = math.fsum(times) / len(times) if times else None
        found.setdefault(place[0], {})[place[1]] = Ccd(sum(counts.values()), _count_finished(counts), failed, mean)
    return found


def _build_runs(minutes: Iterable[Any]) -> list[list[Any]]:
    """Divide the minutes into runs. A pause of more than `PAUSE` seconds separates two runs."""
    runs: list[list[Row[Any]]] = []
    for row in minutes:
        if not runs or row.minute - runs[-1][-1].minute > PAUSE:
            runs.append([])
        runs[-1].append(row)
    return runs


def _count_by_magnitude(sample: Sample) -> dict[float, dict[str, float]]:
    weights: defaultdict[tuple[int, Any], float] = defaultdict(float)
    for row, cell, weight in sample.iter_cells():
        if cell.half is not None:
            weights[cell.half, row.status] += weight
    found: dict[float, dict[str, float]] = {}
    for (half, status), number in weights.items():
        found.setdefault(half / 2, dict.fromkeys(name_counts({}), 0.0))[name_status(status)] += number
    return dict(sorted(found.items()))


def _list_points(sample: Sample, column: str) -> list[Point]:
    """Return the positive values of a column by magnitude; values far from the median of their cell are marked."""
    by_cell: defaultdict[Cell, list[tuple[float, Row[Any]]]] = defaultdict(list)
    for row, cell, _ in sample.iter_cells():
        value = getattr(row, column)
        if is_number(value) and value > 0 and cell.half is not None:
            by_cell[cell].append((value, row))
    distances: list[tuple[float, int]] = []
    for values in by_cell.values():
        middle = statistics.median(value for value, _ in values)
        distances += ((abs(math.log(value / middle)), row.priority) for value, row in values)
    far = {priority for distance, priority in sorted(distances, reverse=True)[:_OUTLIERS] if distance > math.log(_FAR)}
    return [
        Point(row.tmag, value, cell.source, row.priority, row.starid, row.priority in far)
        for cell, values in by_cell.items()
        for value, row in values
    ]


def _find_positions(opened: OpenList, sample: Sample) -> list[Point]:
    """Return tasks by right ascension and declination, which results or another program's columns may give."""
    connection = opened.connection
    rows = {row.priority: row for row in sample}
    step = math.ceil(len(rows) / _POSITIONS) or 1
    chosen = list(rows)[::step]
    columns = {str(column["name"]).lower() for column in inspect(connection).get_columns(todolist.name)}
    places: Iterable[tuple[int, Any, Any]]
    if {"ra", "dec"} <= columns:
        named = select(_task.priority, literal_column("ra"), literal_column("dec"))
        among = _task.priority.in_(bindparam("priorities", expanding=True, literal_execute=True))
        places = map(tuple, connection.execute(named.where(among), {"priorities": chosen}))
    else:
        places = (_find_place(*row) for row in connection.execute(_READ_EXTRA, {"priorities": chosen}))
    return [
        Point(ra, dec, name_status(rows[priority].status), priority, rows[priority].starid)
        for priority, ra, dec in places
        if is_number(ra) and is_number(dec) and -90 <= dec <= 90
    ]


def _find_place(priority: int, text: Any) -> tuple[int, Any, Any]:
    try:
        values = {name.lower(): value for name, value in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError):  # another program's
        return priority, None, None
    return priority, values.get("ra"), values.get("dec")
