"""How a TODO-list stands, for those who look at it: read from the list, or published where that cannot be read."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect

from photometry_tasks import schema
from photometry_tasks.errors import OutdatedSchemaError, TodoError, UnknownTaskError
from photometry_tasks.files import os_errors, replace_file
from photometry_tasks.rules.validation import check_integer, invalid
from photometry_tasks.sql import statements
from photometry_tasks.sql.counts import count_by_ccd, count_by_status, name_counts
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.storage.backends import find_path, open_database
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.lock import find_holder
from photometry_tasks.storage.sqlite.paths import find_todo_file
from photometry_tasks.storage.sqlite.result_log import ResultLog

__all__ = ["Publisher", "get_overview", "read_history", "read_overview"]

_logger = logging.getLogger("photometry_tasks")

#: Seconds over which the rate is taken.
_LATELY = 600

#: Seconds without a result that end a run.
_PAUSE = 1800

#: Running tasks and errors that are listed.
_LISTED = 10

#: Seconds between two publications, or this many times what one takes, if that is more.
_INTERVAL, _SHARE = 10.0, 100


def read_overview(connection: Connection, path: object) -> dict[str, Any]:
    """Read how a TODO-list stands, which has a path or a name.

    Returns
    -------
    dict
        todo_file; time (seconds since 1970); numtasks; status and ccds (counts by the name of the status); rate
        (results a second, over the last ten minutes) and mean_elaptime (seconds), None if nothing was saved; running
        and last_errors (lists of dicts). A file of an older release holds no times: then errors come by priority.
    """
    now = time.time()
    by_status = name_counts(count_by_status(connection))
    ccds = [{"camera": camera, "ccd": ccd, **counts} for (camera, ccd), counts in count_by_ccd(connection).items()]
    tables = set(inspect(connection).get_table_names())
    minutes: list[Any] = []
    if "photometry_tasks_progress" in tables:
        minutes = list(connection.execute(statements.PROGRESS, {"since": 0}))
    lately = [row for row in minutes if row.minute > now - _LATELY]
    errors: list[Any] = []
    if "diagnostics" in tables:
        errors = list(connection.execute(statements.failed_tasks(_LISTED, _last(row.last_error for row in minutes))))
    running = connection.execute(statements.running_tasks(_LISTED))
    saved = sum(row.saved for row in minutes)
    return {
        "todo_file": str(path),
        "time": now,
        "numtasks": sum(by_status.values()),
        "status": by_status,
        "ccds": ccds,
        "rate": sum(row.saved for row in lately) / _measure_time(minutes, now) if lately else None,
        "mean_elaptime": sum(row.elaptime for row in minutes) / saved if saved else None,
        "running": [dict(row._mapping) for row in running],
        "last_errors": [{**row._mapping, "errors": (row.errors or b"").decode(errors="replace")} for row in errors],
    }


def _measure_time(minutes: Sequence[Any], now: float) -> float:
    """Return over how many seconds a run was going lately: ten minutes, unless it began in them."""
    was_going = any(now - _LATELY - _PAUSE < row.minute <= now - _LATELY for row in minutes)
    begun = next(row.minute for row in minutes if row.minute > now - _LATELY)
    return _LATELY if was_going else max(1.0, now - begun)


def _last(priorities: Iterable[int | None]) -> list[int]:
    """Return the last tasks that failed, the last one first."""
    found = dict.fromkeys(priority for priority in reversed(list(priorities)) if priority is not None)
    return list(found)[:_LISTED]


def get_overview(todo: str | os.PathLike[str]) -> dict[str, Any]:
    """Look how a TODO-list stands, which may be in use; it is not changed.

    Returns
    -------
    dict
        As `read_overview`, and besides: holder (who works on it, or None); age (seconds since a run published this;
        None where it was read from the list itself); has_log (whether a killed manager left results that are not
        counted).
    """
    path = find_path(todo)
    if path is None:
        return _read_server(str(todo))
    path = find_todo_file(path)
    holder = find_holder(path)
    published = Publisher.read(path)
    if published is None or holder is None:
        try:
            found = _read_file(path)
        except TodoError:
            if published is None:
                raise
            found = published
    else:
        found = published
    age = time.time() - found["time"] if found is published else None
    has_log = holder is None and found is not published and ResultLog(path).has_results()
    return {**found, "holder": holder, "age": age, "has_log": has_log}


def _read_file(path: Path) -> dict[str, Any]:
    with closing(SQLite.open_to_read(path)) as database, database.begin(writes=False) as connection:
        schema.find_changes(connection, path)  # an older file has all that is counted
        return read_overview(connection, path)


def _read_server(url: str) -> dict[str, Any]:
    from photometry_tasks.storage.postgresql import claim_statements

    with closing(open_database(url, to_read=True)) as database, database.begin(writes=False) as connection:
        has_workers = not schema.find_changes(connection, database.name)
        found = read_overview(connection, database.name)
        hosts = (
            Counter(row.host for row in connection.execute(claim_statements.OTHERS, {"worker": 0}))
            if has_workers
            else {}
        )
    named = [f"{host}: {number}" for host, number in sorted(hosts.items())]
    shown = ", ".join(named[:_LISTED]) + ", …" * (len(named) > _LISTED)
    holder = f"{sum(hosts.values())} managers ({shown})" if hosts else None
    return {**found, "holder": holder, "age": None, "has_log": False}


def read_history(todo: str | os.PathLike[str], priority: int) -> list[dict[str, Any]]:
    """Read the attempts at a task of a list on a server, the first one first.

    Raises
    ------
    InvalidArgumentError
        If the priority is not an integer of 64 bits, or if it is a file, which keeps no attempts.
    UnknownTaskError
    """
    from photometry_tasks.storage.postgresql import claim_statements

    priority = check_integer("priority", priority)
    if find_path(todo) is not None:
        raise invalid("todo", str(todo), "a file keeps no attempts at a task, only a list on a server does")
    with closing(open_database(todo, to_read=True)) as database, database.begin(writes=False) as connection:
        if changes := schema.find_changes(connection, database.name):
            raise OutdatedSchemaError(path=database.name, change=changes[0])
        if connection.execute(statements.STATUS_OF_TASK, {"task": priority}).first() is None:
            raise UnknownTaskError(priority=priority)
        return [dict(row._mapping) for row in connection.execute(claim_statements.history(priority))]


class Publisher:
    """Writes beside a TODO-file how it stands, while others cannot see that in the file itself.

    That is so in memory mode, and on a network file system, where a manager on disk keeps readers out.
    """

    def __init__(self, path: Path, *, is_needed: bool, can_be_read: bool) -> None:
        self._path = path
        self._is_needed = is_needed
        # Where the file can be read, it tells at first.
        self._next = time.monotonic() + (_INTERVAL if can_be_read else 0.0)
        self.remove()  # a killed manager's

    def publish_if_due(self, read: Callable[[str, Callable[[Transaction], Any]], Any]) -> None:
        """Write now and then how it stands, as a transaction sees it; if that fails it is tried again later."""
        now = time.monotonic()
        if not self._is_needed or now < self._next:
            return
        self._next = now + _INTERVAL
        place = _place(self._path)
        try:
            text = json.dumps(read("publish", lambda transaction: read_overview(transaction.connection, self._path)))
            with os_errors(place):
                replace_file(place, lambda temporary: _write(temporary, text), like=self._path, owner=self._path)
        except OSError:
            _logger.exception("How it stands could not be written beside the TODO-file; it is tried again later")
        self._next = max(self._next, now + _SHARE * (time.monotonic() - now))

    def remove(self) -> None:
        """Take it away: the file itself can be read."""
        _place(self._path).unlink(missing_ok=True)

    @staticmethod
    def read(path: Path) -> dict[str, Any] | None:
        """Return what was published, or None."""
        try:
            found: dict[str, Any] = json.loads(_place(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found


def _place(path: Path) -> Path:
    path = path.resolve()
    return path.with_name(f"{path.name}-status")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
