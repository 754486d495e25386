"""Where a TODO-list is, and how it is opened: a file, or a list on a server."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement

from photometry_tasks.rules.validation import check_seconds, invalid
from photometry_tasks.storage.backends import find_path
from photometry_tasks.storage.sqlite.opening import open_todo_file
from photometry_tasks.storage.sqlite.paths import check_summary_place, find_todo_file
from photometry_tasks.storage.sqlite.store import FileList

if TYPE_CHECKING:
    from photometry_tasks.storage.postgresql.store import ServerList

__all__ = ["Opening", "check_lease", "open_list"]


#: Seconds. After a lease longer than the list takes nobody would get a dead manager's tasks.
_LONGEST_LEASE = 30 * 86_400


@dataclass(frozen=True)
class Opening:
    """How a list is to be opened: see the parameters of `TaskManager`."""

    cleanup: bool
    overwrite: bool
    reset: bool
    conditions: Sequence[ColumnElement[bool]]
    into_memory: bool
    upgrade: bool
    is_durable: bool
    lease: float
    max_attempts: int


def check_lease(lease: object) -> float:
    """Return a lease in seconds."""
    seconds = check_seconds("lease", lease)
    if not 0 < seconds <= _LONGEST_LEASE:
        raise invalid("lease", lease, "seconds are expected, more than 0 and at most 30 days; 600 is usual")
    return seconds


def open_list(todo: str | os.PathLike[str], summary: Path | None, how: Opening) -> "FileList | ServerList":
    """Open a TODO-list for work.

    Raises
    ------
    TodoError
        If there is none, or it cannot be opened: see `TaskManager`.
    """
    path = find_path(todo)
    if path is None:
        return _open_on_server(str(todo), how)
    path = find_todo_file(path)
    if summary is not None:
        check_summary_place(summary, path)
    database, copy = open_todo_file(
        path,
        into_memory=how.into_memory,
        upgrade=how.upgrade,
        overwrite=how.overwrite,
        reset=how.reset,
        cleanup=how.cleanup,
        conditions=how.conditions,
        is_durable=how.is_durable,
    )
    return FileList(path, database, copy)


def _open_on_server(url: str, how: Opening) -> "ServerList":
    from photometry_tasks.storage.postgresql.store import ServerList  # a tenth of importing the package

    if how.into_memory:
        raise invalid("load_into_memory", True, "a list on a server is worked on there; leave it out")
    opened = ServerList(url, lease=how.lease, max_attempts=how.max_attempts)
    try:
        opened.prepare(reset=how.reset, overwrite=how.overwrite, cleanup=how.cleanup, conditions=how.conditions)
    except BaseException:
        opened.abandon()
        raise
    return opened
