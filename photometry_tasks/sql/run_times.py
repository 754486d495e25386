"""Read a sample of tasks with their results, and from it the run times of a list and the tasks that are left."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, inspect, null, select

from photometry_tasks.models import attempts, diagnostics, todolist
from photometry_tasks.rules.estimate import Workload
from photometry_tasks.rules.run_times import Cell, RunTimes, find_cell
from photometry_tasks.sql import statements
from photometry_tasks.sql.counts import count_by_status
from photometry_tasks.status import STATUS

#: The most tasks that are all read; of a longer list, the number of its parts and the tasks that are read of each.
_WHOLE, _PARTS, _TASKS = 16_384, 128, 64

#: Results of the sample below which the history is asked too: it keeps the run times of tasks that were reset.
_FEW = 30

_task, _result, _try = todolist.c, diagnostics.c, attempts.c
_PAST_TIMES: Select[Any] = (
    select(_try.priority, _try.begun, _try.ended)
    .where(_try.priority.between(bindparam("first"), bindparam("last")), _try.begun.is_not(None), statements.IS_RESULT)
    .order_by(_try.priority, _try.attempt)
)


@dataclass(frozen=True)
class Part:
    """The sampled tasks of a part of a list.

    Attributes
    ----------
    rows : sequence of Row
        priority, starid, camera, ccd, datasource, method, tmag, status, and elaptime and rms_hour of the result.
    cells : list of Cell
        The cell of each row.
    weight : float
        How many tasks of the list each row stands for.
    last : int
        The last priority of the part.
    """

    rows: Sequence[Row[Any]]
    cells: list[Cell]
    weight: float
    last: int


@dataclass(frozen=True)
class Sample:
    """Tasks from all parts of a list, with their results; all tasks of a list that is not large."""

    parts: list[Part]

    def __iter__(self) -> Iterator[Row[Any]]:
        """Iterate over all rows."""
        return (row for part in self.parts for row in part.rows)

    def iter_cells(self) -> Iterator[tuple[Row[Any], Cell, float]]:
        """Iterate over all rows, each with its cell and its weight."""
        for part in self.parts:
            for row, cell in zip(part.rows, part.cells, strict=True):
                yield row, cell, part.weight

    @property
    def is_whole(self) -> bool:
        """Whether it holds all tasks."""
        return all(part.weight == 1 for part in self.parts)


def read_sample(connection: Connection, tasks: int, conditions: Sequence[ColumnElement[bool]] = ()) -> Sample:
    """Return a sample of the tasks that meet conditions: all, or of a large list some of each part.

    Parameters
    ----------
    connection : Connection
        In a transaction; the list may be of an older release.
    tasks : int
        The number of tasks that meet the conditions.
    conditions : sequence of ColumnElement
    """
    lowest, highest = connection.execute(statements.PRIORITY_RANGE).one()
    if not tasks or not isinstance(lowest, int) or not isinstance(highest, int):  # a text in a damaged file
        return Sample([])
    read = _build_reading(connection)
    if tasks <= _WHOLE or conditions:
        # Conditions may hold a subquery, which each statement would run again: one statement reads all parts.
        step = _choose_step(tasks)
        sampled = [_task.priority % step == 0] if step > 1 else []  # first: the conditions are tested on fewer rows
        rows = connection.execute(read.where(*sampled, *conditions)).all()
        size = math.ceil(len(rows) / _PARTS) or 1
        parts = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        weight = 1.0 if step == 1 else tasks / (len(rows) or 1)
        return Sample([_build_part(part, weight, part[-1].priority) for part in parts])
    # Some pages of the table are read, not all.
    edges = [lowest + (highest + 1 - lowest) * number // _PARTS for number in range(_PARTS + 1)]
    read = read.where(_task.priority.between(bindparam("first"), bindparam("last"))).limit(_TASKS)
    found = []
    for first, end in pairwise(edges):
        rows = connection.execute(read, {"first": first, "last": end - 1}).all()
        if len(rows) == _TASKS:
            # The rest of the part is as the tasks that were read.
            found.append(_build_part(rows, (end - first) / (rows[-1].priority + 1 - first), end - 1))
        elif rows:
            found.append(_build_part(rows, 1.0, rows[-1].priority))
    return Sample(found)


def _build_reading(connection: Connection) -> Select[Any]:
    joined: Any = todolist
    result: list[ColumnElement[Any]] = [null().label("elaptime"), null().label("rms_hour")]
    if inspect(connection).has_table(diagnostics.name):
        joined = todolist.outerjoin(diagnostics, _result.priority == _task.priority)
        result = [_result.elaptime, _result.rms_hour]
    columns = _task.priority, _task.starid, _task.camera, _task.ccd, _task.datasource, _task.method, _task.tmag
    return select(*columns, _task.status, *result).select_from(joined).order_by(_task.priority)


def _choose_step(tasks: int) -> int:
    """Return a step of priorities that samples so many tasks; it has no small factor, as a pattern of a list may."""
    if tasks <= _WHOLE:
        return 1
    least = tasks // (_PARTS * _TASKS)
    return next(step for step in count(least) if math.gcd(step, 30030) == 1)


def _build_part(rows: Sequence[Row[Any]], weight: float, last: int) -> Part:
    return Part(rows, [find_cell(row.datasource, row.method, row.tmag) for row in rows], weight, last)


def read_workload(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]] = (),
    *,
    counts: Counter[int | None] | None = None,
) -> Workload:
    """Return the run times of the tasks that meet conditions, and those that are left; `counts` are by status."""
    counts = count_by_status(connection, conditions) if counts is None else counts
    return build_workload(connection, read_sample(connection, counts.total(), conditions), counts)


def build_workload(connection: Connection, sample: Sample, counts: Counter[int | None]) -> Workload:
    """Return the run times of a sample, and the tasks that are left.

    Parameters
    ----------
    connection : Connection
        To ask the history, if the sample has few results.
    sample : Sample
    counts : Counter
        The number of the tasks from which the sample was taken, by status.
    """
    run_times = RunTimes()
    waiting: list[dict[Cell, float]] = []
    running: dict[Cell, float] = defaultdict(float)
    untimed: dict[int, Cell] = {}
    known: set[int] = set()
    measured = covered = seconds = 0.0
    for part in sample.parts:
        left: dict[Cell, float] = defaultdict(float)
        for row, cell in zip(part.rows, part.cells, strict=True):
            if is_number(row.elaptime):
                run_times.add(cell, row.elaptime)
                known.add(row.priority)
                measured, seconds = measured + part.weight, seconds + part.weight * row.elaptime
            elif row.status == STATUS.SKIPPED.value:
                covered += part.weight
            if row.status is None or row.status == STATUS.STARTED.value:
                (left if row.status is None else running)[cell] += part.weight
                untimed[row.priority] = cell
        waiting.append(left)
    if len(run_times) < _FEW and inspect(connection).has_table(attempts.name):
        for part in sample.parts:
            given = {"first": part.rows[0].priority, "last": part.rows[-1].priority}
            for priority, begun, ended in connection.execute(_PAST_TIMES, given):
                if priority in untimed:
                    run_times.add(untimed[priority], (ended - begun).total_seconds())
    _scale(waiting, counts[None])
    _scale([running], counts[STATUS.STARTED.value])
    if len(run_times) < _FEW:
        # The tasks may be a part of the list: the results of the others tell more than none.
        for row, cell, _ in read_sample(connection, _WHOLE + 1).iter_cells():
            if row.priority not in known and is_number(row.elaptime):
                run_times.add(cell, row.elaptime)
    lasts = [part.last for part in sample.parts]
    return Workload(run_times, waiting, lasts, running, round(measured), round(covered), seconds)


def is_number(value: object) -> bool:
    """Whether a stored value is a finite number; other programs may have stored anything."""
    return isinstance(value, float | int) and math.isfinite(value)


def _scale(parts: list[dict[Cell, float]], number: int) -> None:
    """Let numbers of tasks, which come from a sample, have a sum that is known."""
    total = math.fsum(tasks for part in parts for tasks in part.values())
    for part in parts:
        for cell in part:
            part[cell] *= number / total
