"""Create a TODO-file."""

import errno
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from photometry_tasks.files import delete_temporaries, get_mode, get_stat, os_errors, replace_file, resolve
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.dbapi import sqlite_errors
from photometry_tasks.storage.sqlite.lock import TodoLock
from photometry_tasks.storage.sqlite.paths import (
    check_length,
    check_no_leftover_log,
    find_temporaries,
    owner_errors,
)


def create_todo_file(path: Path, fill: Callable[[SQLiteDatabase], object]) -> bool:
    """Create a TODO-file as a whole, unless a file exists there.

    Until the file is complete, it has another name. The lock keeps other managers from creating it at the same time.

    Parameters
    ----------
    path : Path
    fill : callable
        Fills the empty database that is its argument. If it raises, no file is created.

    Returns
    -------
    bool
        False if a file exists there; it is not changed.

    Raises
    ------
    FileNotFoundError
        If the directory does not exist.
    TodoFileInUseError, LeftoverLogError, NotWritableError, DiskFullError, MountWithoutLocksError
        If another manager has the lock, or the file cannot be written.
    """
    if not stat.S_ISDIR(get_mode(path.parent)):
        raise FileNotFoundError(errno.ENOENT, "This directory does not exist; create it first", str(path.parent))
    if get_stat(path):
        return False
    check_length(path, has_temporaries=True)
    with owner_errors(path), closing(TodoLock(path)):
        if get_stat(path):  # another manager created it while this one waited
            return False
        check_no_leftover_log(path)
        delete_temporaries(find_temporaries(path))
        place = resolve(path)
        with os_errors(path), sqlite_errors(path):
            replace_file(place, lambda temporary: _fill(temporary, fill), owner=place)
    return True


def _fill(temporary: Path, fill: Callable[[SQLiteDatabase], object]) -> None:
    with closing(SQLiteDatabase.create(temporary)) as database:
        fill(database)
