"""Open a TODO-file for work: check and upgrade it, put back what a killed manager left, reset what was cut short."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement
from sqlalchemy.exc import DatabaseError

from photometry_tasks import schema, transitions
from photometry_tasks.errors import CannotUpgradeError, OutdatedSchemaError
from photometry_tasks.postgresql import PostgreSQL
from photometry_tasks.result_log import ResultLog
from photometry_tasks.sqlite import SQLite
from photometry_tasks.status import RESET_AT_OPENING
from photometry_tasks.working_copy import WorkingCopy

__all__ = ["OpenFile", "open_todo_file", "prepare_for_work", "upgrade_schema"]

_logger = logging.getLogger("photometry_tasks")


@dataclass
class OpenFile:
    """A TODO-file with the schema of this release and all results, whose lock we hold.

    Attributes
    ----------
    path : Path
    database : SQLite
        The file, or the copy in memory.
    copy : WorkingCopy or None
        What belongs to the copy.
    is_durable : bool
        Whether each result is to survive a power cut too.
    is_changed : bool
        Whether the database is no longer what was found.
    """

    path: Path
    database: SQLite
    copy: WorkingCopy | None
    is_durable: bool
    is_changed: bool = False

    def close(self) -> None:
        """Give it up; a log stays for the next opening."""
        if self.copy is not None:
            self.copy.close()
        self.database.close()


def open_todo_file(path: Path, *, into_memory: bool, upgrade: bool, is_durable: bool) -> OpenFile:
    """Open a TODO-file of any release, or a copy of it in memory.

    Parameters
    ----------
    into_memory : bool
        Work on a copy; the file stays as it is until `prepare_for_work`.
    upgrade : bool
        Whether a file with an older schema is upgraded or refused.
    is_durable : bool
        Whether each result is to survive a power cut too.

    Raises
    ------
    TodoError
        If it is no TODO-file, is damaged, somebody else's at the moment, or has a schema that is not known or
        cannot be upgraded. It is not changed then.
    """
    database, copy = SQLite.open(path), None
    try:
        with database.begin(writes=False) as connection:
            changes = schema.find_changes(connection, path)
        if changes and not upgrade:
            raise OutdatedSchemaError(path=path, change=changes[0])  # noqa: TRY301 - the file has to be closed
        if into_memory:
            copy = WorkingCopy(path, database, is_durable=is_durable)
            database = copy.database
            database.check_content()
        if changes:
            upgrade_schema(database)
        is_replayed = _replay_log(path, database, in_memory=into_memory)
    except BaseException:
        database.close()
        raise
    return OpenFile(path, database, copy, is_durable, bool(changes) or is_replayed)


def upgrade_schema(database: SQLite | PostgreSQL) -> list[str]:
    """Bring a TODO-list to the schema of this release in one transaction, and say what that changed."""
    try:
        with database.begin_upgrade() as connection:
            # Somebody else may have done it since it was looked at.
            changes = schema.find_changes(connection, database.name)
            if changes:
                schema.upgrade(connection, database.name)
    except DatabaseError as error:
        remedy = "`photometry-tasks check` may say more."
        raise CannotUpgradeError(path=database.name, problem=error.orig, remedy=remedy) from error
    for change in changes:
        _logger.info("%s: upgraded: %s", database.name, change)
    return changes


def _replay_log(path: Path, database: SQLite, *, in_memory: bool) -> bool:
    """Put back the results that a manager in memory had accepted when it was killed; return whether there were any.

    On disk the log is deleted; in memory it stays until the next backup.
    """
    log = ResultLog(path)
    start = log.find_start(database.generation)
    if start is None:
        if log.has_results():
            _logger.warning("%s: the log beside it is of another file; it is kept as %s", path, log.keep_aside())
        log.remove()
        return False
    number = lost = 0
    with database.begin(writes=True) as connection:
        for logged in log.results(start):
            if logged is not None and transitions.replay_result(connection, *logged):
                number += 1
            else:
                lost += 1
        if lost:
            message = "%s: logged results that are damaged or of no task of it: %d; the log is kept as %s"
            _logger.warning(message, path, lost, log.keep_aside())
        if not in_memory:
            # Whoever finds the log and this generation has all that is in it.
            log.mark(database.begin_generation())
    if number:
        _logger.warning("%s: results of a killed manager that were taken from its log: %d", path, number)
    if in_memory:
        log.close()
    else:
        log.remove()
    return number > 0


def prepare_for_work(
    file: OpenFile, *, overwrite: bool, cleanup: bool, conditions: Sequence[ColumnElement[bool]]
) -> None:
    """Return what was cut short or went wrong to pending, and let results be saved.

    Parameters
    ----------
    overwrite : bool
        Return all tasks to pending, and delete all results.
    cleanup : bool
        Compact the file.
    conditions : sequence
        Which of the tasks that were cut short return to pending.
    """
    database = file.database
    with database.begin(writes=True) as connection:
        if overwrite:
            transitions.reset_all_tasks(connection)
        number = transitions.reset_tasks_with_status(connection, RESET_AT_OPENING, conditions)
        if file.copy is None:
            database.begin_generation()  # a log that was made before is of another state
    _logger.info("%s: %d tasks that were cut short or went wrong are pending again", file.path, number)
    if file.copy is None:
        # Only now: until here a file that turns out to be damaged is as it was.
        database.prepare_for_work(is_durable=file.is_durable)
    if cleanup or overwrite:
        database.compact()
    if file.copy is not None:
        file.copy.begin(is_changed=file.is_changed or overwrite or cleanup or number > 0)
