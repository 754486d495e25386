"""A TODO-file in memory mode: the copy, the original file, and the log between two backups."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from photometry_tasks.errors import (
    CLOSING_SAVES,
    BackupError,
    DiskFullError,
    FileChangedError,
    LeftoverLogError,
    TodoFileInUseError,
)
from photometry_tasks.files import get_stat, os_errors, replace_file, resolve
from photometry_tasks.rules.results import Result
from photometry_tasks.sql.transitions import Saved
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.paths import check_length, check_no_leftover_log
from photometry_tasks.storage.sqlite.result_log import Attempt, Logged, ResultLog

_logger = logging.getLogger("photometry_tasks")


class WorkingCopy:
    """A copy in memory of a TODO-file.

    Parameters
    ----------
    path : Path
    file : SQLiteDatabase
        The open file, which `begin` closes.
    is_durable : bool
        Whether each result survives a power cut too.

    Attributes
    ----------
    database : SQLiteDatabase
        The copy.
    """

    def __init__(self, path: Path, file: SQLiteDatabase, *, is_durable: bool) -> None:
        check_length(path, has_temporaries=True)
        self._path = resolve(path)
        self._file = file
        self._states: set[tuple[int, int, int, int, bytes]] = set()
        self._changes = file.get_data_version()
        self._log = ResultLog(self._path, is_durable=is_durable)
        self.database = file.load_into_memory()

    def begin(self, worker: dict[str, Any], *, is_changed: bool) -> None:
        """Begin the log, after writing the changes of opening to disk, which the log does not hold.

        Parameters
        ----------
        worker : dict
            The manager's row of `photometry_tasks_workers`, which the log holds too.
        is_changed : bool
            Whether opening has changed other rows.
        """
        self._log.worker = worker
        # SQLite would apply a leftover write-ahead log or journal to the backup that replaces the file.
        self._file.recover()
        self._states.add(_read_state(self._path))
        if self._file.get_data_version() != self._changes:
            raise FileChangedError(path=self._path, remedy="Open the file again")
        self._file.move_lock_to(self.database)
        if is_changed or not self.database.get_generation():
            self.backup()
        else:
            self._log.begin(self.database.get_generation())

    def record(self, results: list[Result], saved: list[Saved], attempts: list[dict[str, Any]]) -> None:
        """Log results and the attempts that they end, so that they survive the death of the process."""
        self._log.append(list(map(_build_logged, results, saved, attempts)))

    def record_reset(self, priorities: list[int]) -> None:
        """Log that tasks return to pending."""
        self._log.append_reset(priorities)

    @property
    def log_size(self) -> int:
        """The size of the log, bytes."""
        return self._log.size

    def truncate_log(self, size: int) -> None:
        """Remove the results after an offset of the log, in bytes, since they were not accepted."""
        self._log.truncate(size)

    def backup(self) -> None:
        """Replace the file by the copy, at once and as a whole, and empty the log.

        Raises
        ------
        FileChangedError, TodoFileInUseError, LeftoverLogError
            If another program has changed the file, or is changing it.
        BackupError, DiskFullError
            If the file cannot be written.
        """
        with _as_backup_errors(self._path):
            generation = self.database.begin_generation()
            self._log.mark(generation)
            replace_file(self._path, self.database.copy_to, self._check_unchanged, owner=self._path)
            self._log.begin(generation)
        _logger.info("%s: backed up", self._path)

    def finish(self) -> Path | None:
        """Back up for the last time, and delete the log.

        Returns
        -------
        Path or None
            The other file to which the copy was saved, if another program changed the original. The log then stays,
            and the next opening saves the results since the last backup into the changed file.
        """
        try:
            self.backup()
        except (FileChangedError, TodoFileInUseError, LeftoverLogError):
            saved_as = save_beside(self.database, self._path)
            self.close()
            return saved_as
        self._log.remove()
        return None

    def close(self) -> None:
        """Close the log, and keep its file if it holds results."""
        self._log.close()
        if not self._log.has_results():
            self._log.remove()

    def _check_unchanged(self, temporary: Path) -> None:
        check_no_leftover_log(self._path)
        if get_stat(self._path) and _read_state(self._path) not in self._states:
            raise FileChangedError(path=self._path, remedy=CLOSING_SAVES)
        # Once this file is in place, any other state is a change by another program.
        self._states.add(_read_state(temporary))


def _build_logged(result: Result, saved: Saved, attempt: dict[str, Any]) -> Logged:
    own = Attempt(attempt["attempt"], attempt["worker"], attempt["begun"], attempt["ended"])
    return Logged(result, own, saved.target)


def _read_state(path: Path) -> tuple[int, int, int, int, bytes]:
    """Return values of a file that differ after any change by another program."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        counter = file.read(28)[24:]  # the file change counter (https://sqlite.org/fileformat2.html)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, counter


def save_beside(database: SQLiteDatabase, path: Path) -> Path:
    """Write a database to its path, or to a new file in the same directory if the path is taken; return the path."""
    path = resolve(path)
    target = path
    if get_stat(path):
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        target = path.with_name(f"{path.stem}.saved-{now}-{os.urandom(2).hex()}{path.suffix}")
    with _as_backup_errors(path):
        replace_file(target, database.copy_to, like=path, owner=path)
    return target


@contextmanager
def _as_backup_errors(path: Path) -> Iterator[None]:
    try:
        with os_errors(path):
            yield
    except (BackupError, DiskFullError, FileChangedError, TodoFileInUseError, LeftoverLogError):
        raise
    except OSError as error:
        raise BackupError(path=path, found=error.__cause__ or error) from error
