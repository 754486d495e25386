"""The status of a TODO-list, and the attempts at a task. Only reads."""

import os
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from photometry_tasks import schema
from photometry_tasks.errors import TodoError, UnknownTaskError
from photometry_tasks.progress.overview import read_overview
from photometry_tasks.rules.validation import check_integer, invalid_argument
from photometry_tasks.sql import statements
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import open_read_only
from photometry_tasks.storage.sqlite.lock import find_holder
from photometry_tasks.storage.sqlite.status_file import read_status_file
from photometry_tasks.text import count_of, list_first

#: The most hosts that are listed.
_LISTED = 10


def get_overview(todo: str | os.PathLike[str] | Location) -> dict[str, Any]:
    """Return the status of a TODO-list, which may be in use; it is not changed.

    Returns
    -------
    dict
        As `read_overview`, and: holder (the managers that have the list open, or None); age (seconds since a manager
        published this status; None if it was read from the list itself); has_log (whether a killed manager logged
        results that are not counted).
    """
    location = parse_location(todo)
    path = location.find_file()
    if path is None:
        return _read_server(location)
    holder = find_holder(path)
    published = read_status_file(path)
    if published is not None and holder is not None:
        return {**published, "holder": holder, "age": time.time() - published["time"], "has_log": False}
    try:
        found, log = _read_file(location)
    except TodoError:
        if published is None:
            raise
        return {**published, "holder": holder, "age": time.time() - published["time"], "has_log": False}
    return {**found, "holder": holder, "age": None, "has_log": holder is None and log is not None}


def _read_file(location: Location) -> tuple[dict[str, Any], Path | None]:
    with closing(open_read_only(location)) as database, database.begin(writes=False) as connection:
        schema.find_changes(connection, database.name)  # refuses a database without a TODO-list
        return read_overview(connection, database.name), database.find_result_log()


def _read_server(location: Location) -> dict[str, Any]:
    from photometry_tasks.storage.postgresql import claim_statements

    with closing(open_read_only(location)) as database, database.begin(writes=False) as connection:
        has_workers = not schema.find_changes(connection, database.name)
        found = read_overview(connection, database.name)
        hosts: Counter[str] = Counter()
        if has_workers:
            hosts.update(row.host for row in connection.execute(claim_statements.OTHERS, {"worker": 0}))
    named = [f"{host}: {number}" for host, number in sorted(hosts.items())]
    holder = f"{count_of(hosts.total(), 'manager')} ({list_first(named, _LISTED)})" if hosts else None
    return {**found, "holder": holder, "age": None, "has_log": False}


def get_history(todo: str | os.PathLike[str] | Location, priority: int) -> list[dict[str, Any]]:
    """Return the attempts at a task of a list on a server, from the first to the last.

    Raises
    ------
    InvalidArgumentError
        If the priority is not an integer of 64 bits, or the list is a file, which does not store attempts.
    UnknownTaskError, OutdatedSchemaError
    """
    from photometry_tasks.storage.postgresql import claim_statements

    priority = check_integer("priority", priority)
    location = parse_location(todo)
    if location.path is not None:
        raise invalid_argument(
            "todo", location.name, "a file does not store attempts; give the URL of a list on a server"
        )
    with closing(open_read_only(location)) as database, database.begin(writes=False) as connection:
        schema.check_current(connection, database.name)
        if connection.execute(statements.STATUS_OF_TASK, {"task": priority}).first() is None:
            raise UnknownTaskError(priority=priority)
        history = connection.execute(claim_statements.build_history(priority))
        return [dict(row) for row in history.mappings()]
