"""A TODO-file that is worked on in memory: the copy, the file that it came from, and the log between two backups."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from photometry_tasks.errors import BackupError, FileChangedError, TodoError
from photometry_tasks.result_log import ResultLog, Target
from photometry_tasks.results import Result
from photometry_tasks.sqlite import SQLite
from photometry_tasks.todo_file import check_unused, replace_file

__all__ = ["WorkingCopy"]

_logger = logging.getLogger("photometry_tasks")


class WorkingCopy:
    """A copy in memory of a TODO-file.

    Parameters
    ----------
    path : Path
    file : SQLite
        The open file; it is closed.
    is_durable : bool
        Whether each result is to survive a power cut too.

    Attributes
    ----------
    database : SQLite
        The copy.
    """

    def __init__(self, path: Path, file: SQLite, *, is_durable: bool) -> None:
        self._path = path.resolve()
        # A log that was left beside the file would be laid over what is later put in the file's place.
        file.recover()
        self._states = {_read_state(self._path)}
        self.database = file.load_into_memory()
        self._log = ResultLog(self._path, is_durable=is_durable)

    def begin(self, *, is_changed: bool) -> None:
        """Let results be recorded. What opening has changed is put on disk first: the log holds nothing else."""
        if is_changed or not self.database.generation:
            self.backup()
        else:
            self._log.begin(self.database.generation)

    def record(self, result: Result, target: Target) -> None:
        """Put a result in the log, so that it survives the death of the process."""
        self._log.append(result, target)

    def backup(self) -> None:
        """Replace the file by the copy, at once and as a whole, and empty the log.

        Raises
        ------
        FileChangedError, TodoFileInUseError, LeftoverLogError
            If somebody else has changed the file, or is doing so.
        BackupError
            If it cannot be written.
        """
        with self._explained():
            generation = self.database.begin_generation()
            self._log.mark(generation)
            replace_file(self._path, self.database.copy_to, self._check_unchanged)
            self._states = {_read_state(self._path)}
            self._log.begin(generation)
        _logger.info("%s: backed up", self._path)

    def finish(self) -> Path | None:
        """Back up for the last time, and delete the log.

        Returns
        -------
        Path or None
            If somebody else has changed the file: where the copy was saved instead. The log then stays, so that
            the next opening can bring the results since the last backup into the changed file.
        """
        try:
            self.backup()
        except FileChangedError:
            saved_as = self._save_beside()
            self.close()
            return saved_as
        self._log.remove()
        return None

    def close(self) -> None:
        """Close the log, and leave it where it is."""
        self._log.close()

    def _save_beside(self) -> Path:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        path = self._path.with_name(f"{self._path.stem}.saved-{now}-{os.urandom(2).hex()}{self._path.suffix}")
        with self._explained():
            replace_file(path, self.database.copy_to)
        return path

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TodoError:
            raise
        except OSError as error:
            raise BackupError(path=self._path, found=error) from error

    def _check_unchanged(self, temporary: Path) -> None:
        check_unused(self._path)
        if self._path.exists() and _read_state(self._path) not in self._states:
            remedy = "Closing the manager saves its state under another name"
            raise FileChangedError(path=self._path, remedy=remedy)
        # Should an error come after it has taken the file's place, it is no other program's change.
        self._states.add(_read_state(temporary))


def _read_state(path: Path) -> tuple[int, int, int, int, bytes]:
    """Return what differs after any change of a file by another program."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        counter = file.read(28)[24:]  # of changes (https://sqlite.org/fileformat2.html)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, counter
