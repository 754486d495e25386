"""The fields of `status --json`: counts, rate, running tasks and last errors."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Row, inspect, select

from photometry_tasks.models import diagnostics, progress, todolist, workers
from photometry_tasks.rules.estimate import NO_RECORD, Record, build_estimate, find_pace, is_overdue, measure_rate
from photometry_tasks.rules.run_times import RunTimes, find_cell
from photometry_tasks.rules.stored_values import is_foreign, show_value
from photometry_tasks.sql import statements
from photometry_tasks.sql.counts import count_by_ccd, count_by_status
from photometry_tasks.sql.history import count_failures, count_used_up, count_versions
from photometry_tasks.sql.run_times import read_workload
from photometry_tasks.status import RETRIES, name_counts
from photometry_tasks.text import shorten

#: The most running tasks and errors that are listed, and running tasks that are ordered by their time.
_LISTED, _ORDERED = 10, 1000

#: The columns whose values are listed.
_COLUMNS = {**todolist.columns, "errors": diagnostics.c.errors}


#: Seconds without a result that are said.
_SILENCE = 120.0

#: Seconds that a manager that has not left may have been there after its last heartbeat.
_HEARTBEAT = 60.0

_MANAGERS = select(workers.c.begun, workers.c.seen, workers.c.ended)


class LiveTask(NamedTuple):
    """A task that a manager has started: the seconds since then, and its worker."""

    seconds: float
    worker: str | None


class LiveTasks(NamedTuple):
    """The tasks that managers run, the longest of them, by priority.

    `queued` is the number of started tasks that wait for a worker of their run; None if it is not known.
    """

    tasks: Mapping[int, LiveTask] = MappingProxyType({})
    queued: int | None = None

    @property
    def at_work(self) -> int | None:
        """The number of tasks that workers run; None if it is not known which tasks wait."""
        return None if self.queued is None else len(self.tasks)


#: What is known without a manager.
NO_LIVE_TASKS = LiveTasks()


def read_status_fields(
    connection: Connection, path: object, live: LiveTasks = NO_LIVE_TASKS, *, is_in_use: bool = True
) -> dict[str, Any]:
    """Read the status of a TODO-list.

    Parameters
    ----------
    connection : sqlalchemy.Connection
    path : object
        The path or the name of the list.
    live : LiveTasks, optional
    is_in_use : bool, optional
        Whether a manager has the list open.

    Returns
    -------
    dict
        todo_file; time (seconds since 1970, by the clock of the database); numtasks; status and ccds (counts by
        the name of the status); rate (results per second, over the last ten minutes) and mean_elaptime
        (seconds), None if nothing was saved; silence (see `measure_silence`); running (STARTED tasks, the
        longest first, each with seconds since it started, worker, and expected, the seconds that 95 % of
        similar tasks do not exceed; None if not known) and last_errors (lists of dicts); queued (number of
        STARTED tasks that wait for a worker of their run, None if not known); estimate (see
        `TodoList.estimate`); failures (see `count_failures`); used_up (number of failed tasks that `run` does
        not retry any more); versions (number of results by the version of the pipeline; empty if no version was
        given). A file of an older release holds no times: its errors come in order of priority, the last first.
    """
    counts = count_by_status(connection)
    by_status = name_counts(counts)
    workload, record = read_workload(connection, counts=counts), read_record(connection)
    running = list_running(connection, live, workload.run_times)
    at_once = find_pace(workload, record, started=by_status["STARTED"], at_work=live.at_work, is_in_use=is_in_use)
    ccds = [{"camera": camera, "ccd": ccd, **counts} for (camera, ccd), counts in count_by_ccd(connection).items()]
    errors: list[Any] = []
    if inspect(connection).has_table(diagnostics.name):
        errors = list(
            connection.execute(statements.build_failed_tasks(_LISTED, _last(row.last_error for row in record.minutes)))
        )
    saved = sum(row.saved for row in record.minutes)
    versions = count_versions(connection)
    if versions.keys() <= {None}:
        versions.clear()
    return {
        "todo_file": str(path),
        "time": record.now,
        "numtasks": sum(by_status.values()),
        "status": by_status,
        "ccds": ccds,
        "rate": measure_rate(record),
        "silence": measure_silence(record, live),
        "mean_elaptime": sum(row.elaptime for row in record.minutes) / saved if saved else None,
        "running": running,
        "queued": live.queued,
        "estimate": build_estimate(workload, at_once, find_overdue(running)),
        "failures": count_failures(connection),
        "used_up": count_used_up(connection, RETRIES),
        "versions": [{"version": version, "results": number} for version, number in versions.items()],
        "last_errors": [{**shown, "errors": shorten(shown["errors"] or "")} for shown in map(_show_row, errors)],
    }


def read_record(connection: Connection) -> Record:
    """Return when results came; incomplete rows and values of a wrong type are left out."""
    now: float = connection.execute(statements.TIME).scalar_one()
    if not inspect(connection).has_table(progress.name):
        return NO_RECORD._replace(now=now)
    rows = connection.execute(statements.PROGRESS)
    minutes = [row for row in rows if not any(map(_is_wrong, progress.columns, row))]
    managers = []
    if inspect(connection).has_table(workers.name):
        managers = [
            (row.begun.timestamp(), row.ended.timestamp() if row.ended else row.seen.timestamp() + _HEARTBEAT)
            for row in connection.execute(_MANAGERS)
            if all(isinstance(time, datetime | None) for time in row) and row.begun and row.seen
        ]
    return Record(minutes, managers, now)


def _is_wrong(column: Column[Any], value: object) -> bool:
    return is_foreign(column, value) or (value is None and not column.nullable)


def _show_row(row: Row[Any]) -> dict[str, Any]:
    return {name: show_value(_COLUMNS[name], value) for name, value in row._mapping.items()}


def list_running(
    connection: Connection,
    live: LiveTasks,
    run_times: RunTimes,
    conditions: Sequence[ColumnElement[bool]] = (),
    limit: int = _LISTED,
) -> list[dict[str, Any]]:
    """Return the STARTED tasks that have run longest, at most `limit`: see `read_status_fields`."""
    tasks = live.tasks
    longest = sorted(tasks, key=lambda priority: -tasks[priority].seconds)[:_ORDERED]
    running = connection.execute(statements.build_running_tasks(limit, longest).where(*conditions))
    return [
        _show_running(row, tasks.get(row.priority), run_times)
        for row in running
        if live.queued is None or row.priority in tasks
    ]


def find_overdue(running: Iterable[Mapping[str, Any]]) -> list[float]:
    """Return the seconds that running tasks have taken that take much longer than similar ones."""
    return [row["seconds"] for row in running if is_overdue(row["seconds"], row["expected"])]


def measure_silence(record: Record, live: LiveTasks) -> float | None:
    """Return the seconds for which tasks have run and no result came; None if they are fewer than `_SILENCE`.

    If it is not known for how long tasks have run, these are the seconds since a manager last opened the list.
    """
    if live.tasks:
        begun = [record.now - max(task.seconds for task in live.tasks.values())]
    else:
        begun = [start for start, _ in record.managers]
    since = max((*begun, *(row.minute + 60 for row in record.minutes[-1:])), default=math.inf)
    silence = record.now - since
    return silence if silence >= _SILENCE else None


def _show_running(row: Row[Any], live: LiveTask | None, run_times: RunTimes) -> dict[str, Any]:
    seconds, worker = live or (None, None)
    expected = run_times.get_quantile(find_cell(row.datasource, row.method, row.tmag))
    return {**_show_row(row), "seconds": seconds, "worker": worker, "expected": expected}


def _last(priorities: Iterable[int | None]) -> list[int]:
    """Return the priorities of the tasks that failed last, the latest first."""
    found = dict.fromkeys(priority for priority in reversed(list(priorities)) if priority is not None)
    return list(found)[:_LISTED]
