"""The status of a TODO-list, and the attempts at a task. Only reads."""

import os
from contextlib import ExitStack, closing, suppress
from typing import Any

from photometry_tasks.errors import TodoError, UnknownTaskError, UnsavedResultsError
from photometry_tasks.progress.status_fields import read_status_fields
from photometry_tasks.rules.validation import check_integer
from photometry_tasks.sql import statements
from photometry_tasks.sql.history import get_attempts as get_attempts_of_task
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import begin_reading, open_read_only


def get_status(todo: str | os.PathLike[str] | Location) -> dict[str, Any]:
    """Return the status of a TODO-list, which may be in use; it is not changed.

    Returns
    -------
    dict
        As `read_status_fields`, but the rate is None if no manager has the list open; and: holder (the managers that
        have the list open, or None); age (seconds since a manager published this status; None if it was read from the
        list itself); has_log (whether a killed manager logged results that the file lacks; they are counted if the log
        can be read); oldest_transaction (on a server, the transaction of another program that makes claims slower: pid,
        application_name, age in seconds; or None).
    """
    location = parse_location(todo)
    published = location.read_published_status()
    if published is None:
        return _read_list(location)
    if published["holder"] is None:  # its manager was killed
        with suppress(TodoError):
            return _read_list(location)
        published["rate"] = published["silence"] = None
    return {**published, "oldest_transaction": None}


def _read_list(location: Location) -> dict[str, Any]:
    with ExitStack() as opened:
        try:
            database = opened.enter_context(begin_reading(location)).database
        except UnsavedResultsError:
            database = opened.enter_context(closing(open_read_only(location)))
            opened.enter_context(database.begin(writes=False))
        holder = database.find_holder()
        has_log = holder is None and database.find_result_log() is not None
        fields = read_status_fields(
            database.connection, database.name, database.find_live_tasks(), is_in_use=holder is not None
        )
        if holder is None:
            fields["rate"] = fields["silence"] = None  # that of a run that has ended
        oldest = database.find_oldest_transaction()
    return {**fields, "holder": holder, "age": None, "has_log": has_log, "oldest_transaction": oldest}


def get_attempts(todo: str | os.PathLike[str] | Location, priority: int) -> list[dict[str, Any]]:
    """Return the attempts at a task, from the first to the last.

    Raises
    ------
    InvalidArgumentError
        If the priority is not an integer of 64 bits.
    UnknownTaskError, OutdatedSchemaError
    """
    priority = check_integer("priority", priority)
    with begin_reading(parse_location(todo)) as opened:
        opened.check_current()
        attempts = get_attempts_of_task(opened.connection, priority)
        if opened.connection.execute(statements.STATUS_OF_TASK, {"task": priority}).first() is None:
            raise UnknownTaskError(priority=priority)
        return attempts
