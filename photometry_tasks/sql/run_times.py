"""Read the run times of a list, and the tasks that are left: of a large list, a sample from all of its parts."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, inspect, null, select

from photometry_tasks.models import attempts, diagnostics, todolist
from photometry_tasks.rules.estimate import Workload
from photometry_tasks.rules.run_times import Cell, RunTimes, find_cell
from photometry_tasks.sql import statements
from photometry_tasks.status import FINISHED, STATUS, name_status

#: Parts of a large list, and the tasks that are read of each.
_PARTS, _TASKS = 128, 256

#: Results of the sample below which the history is asked too: it keeps the run times of tasks that were reset.
_FEW = 30

_task, _try = todolist.c, attempts.c
_FINISHED = {status.name for status in FINISHED}
_PAST_TIMES: Select[Any] = (
    select(_try.priority, _try.begun, _try.ended)
    .where(_try.priority.between(bindparam("first"), bindparam("last")), _try.begun.is_not(None), statements.IS_RESULT)
    .order_by(_try.priority, _try.attempt)
)


def read_workload(
    connection: Connection, counts: Counter[int | None], conditions: Iterable[ColumnElement[bool]] = ()
) -> Workload:
    """Return the run times of a list, and the tasks that are left.

    Parameters
    ----------
    connection : Connection
        In a transaction; the list may be of an older release.
    counts : Counter
        The number of the tasks that meet the conditions, by status.
    conditions : iterable of ColumnElement
    """
    tables = inspect(connection)
    has_results, has_history = (tables.has_table(table.name) for table in (diagnostics, attempts))
    joined: Any = todolist
    elaptime: ColumnElement[Any] = null()
    if has_results:
        joined = todolist.outerjoin(diagnostics, diagnostics.c.priority == _task.priority)
        elaptime = diagnostics.c.elaptime
    read = (
        select(_task.priority, _task.datasource, _task.method, _task.tmag, _task.status, elaptime)
        .select_from(joined)
        .where(_task.priority.between(bindparam("first"), bindparam("last")), *conditions)
        .order_by(_task.priority)
        .limit(bindparam("limit"))
    )
    run_times = RunTimes()
    waiting: list[dict[Cell, float]] = []
    running: dict[Cell, float] = defaultdict(float)
    lasts: list[int] = []
    parts: list[dict[str, int]] = []
    cells: dict[int, Cell] = {}
    measured, covered, seconds = 0.0, 0.0, 0.0
    for part in _divide(connection, counts.total()):
        rows = connection.execute(read, part).all()
        if not rows:
            continue
        # The rest of the part is as the tasks that were read.
        weight = 1.0
        if len(rows) == part["limit"]:
            weight = (part["last"] - part["first"] + 1) / (rows[-1].priority - part["first"] + 1)
        left: dict[Cell, float] = defaultdict(float)
        for priority, datasource, method, tmag, status, time in rows:
            cell = find_cell(datasource, method, tmag)
            name = name_status(status)
            if isinstance(time, float | int) and math.isfinite(time):
                run_times.add(cell, time)
                measured, seconds = measured + weight, seconds + weight * time
            elif name == STATUS.SKIPPED.name:
                covered += weight
            if status is None:
                left[cell] += weight
                cells[priority] = cell
            elif name == STATUS.STARTED.name:
                running[cell] += weight
                cells[priority] = cell
        waiting.append(left)
        lasts.append(rows[-1].priority if weight == 1.0 else part["last"])
        parts.append({"first": rows[0].priority, "last": rows[-1].priority})
    if has_history and len(run_times) < _FEW:
        for part in parts:
            for priority, begun, ended in connection.execute(_PAST_TIMES, part):
                if priority in cells:
                    run_times.add(cells[priority], (ended - begun).total_seconds())
    _scale(waiting, counts[None])
    _scale([running], counts[STATUS.STARTED.value])
    return Workload(run_times, waiting, lasts, running, round(measured), round(covered), seconds)


def _divide(connection: Connection, tasks: int) -> list[dict[str, int]]:
    """Return the parts of a list, each with its first and last priority and the number of tasks to read."""
    lowest, highest = connection.execute(statements.PRIORITY_RANGE).one()
    if not tasks or lowest is None:
        return []
    is_small = tasks <= _PARTS * _TASKS
    edges = [lowest + (highest + 1 - lowest) * number // _PARTS for number in range(_PARTS + 1)]
    return [
        {"first": first, "last": end - 1, "limit": tasks + 1 if is_small else _TASKS}
        for first, end in pairwise(edges)
        if end > first
    ]


def _scale(parts: list[dict[Cell, float]], number: int) -> None:
    """Let numbers of tasks, which come from a sample, have a sum that is known."""
    total = math.fsum(tasks for part in parts for tasks in part.values())
    for part in parts:
        for cell in part:
            part[cell] *= number / total
