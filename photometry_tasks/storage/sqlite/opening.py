"""Open a TODO-file for work: check and upgrade it, put back what a killed manager left, reset what was cut short."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from sqlalchemy import ColumnElement
from sqlalchemy.exc import DatabaseError

from photometry_tasks import schema
from photometry_tasks.errors import CannotUpgradeError, OutdatedSchemaError
from photometry_tasks.sql import statements, transitions
from photometry_tasks.storage.postgresql.database import PostgreSQL
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.result_log import ResultLog
from photometry_tasks.storage.sqlite.working_copy import WorkingCopy, save_beside

__all__ = ["open_todo_file", "put_on_disk", "upgrade_schema", "upgrade_todo_file"]

_logger = logging.getLogger("photometry_tasks")


def open_todo_file(
    path: Path,
    *,
    into_memory: bool,
    upgrade: bool,
    overwrite: bool,
    reset: bool,
    cleanup: bool,
    conditions: Sequence[ColumnElement[bool]],
    is_durable: bool,
) -> tuple[SQLite, WorkingCopy | None]:
    """Open a TODO-file of any release, or a copy of it in memory, and return what was cut short to pending.

    Parameters
    ----------
    into_memory : bool
        Work on a copy.
    upgrade : bool
        Whether a file with an older schema is upgraded or refused.
    overwrite : bool
        Return all tasks to pending, and delete all results.
    reset : bool
        Whether anything returns to pending.
    cleanup : bool
        Compact the file.
    conditions : sequence
        Which of the tasks that were cut short or went wrong return to pending.
    is_durable : bool
        Whether each result is to survive a power cut too.

    Returns
    -------
    SQLite
        The database: the file, or the copy in memory.
    WorkingCopy or None
        What belongs to the copy.

    Raises
    ------
    TodoError
        If it is no TODO-file, is damaged, somebody else's at the moment, or has a schema that is not known or
        cannot be upgraded. It is not changed then.
    """
    with ExitStack() as opened:
        database, copy = SQLite.open(path), None
        opened.callback(database.close)
        changes: list[str] = []
        if not schema.is_current(database):
            with database.begin(writes=False) as connection:
                changes = schema.find_changes(connection, path)
        if changes and not upgrade:
            raise OutdatedSchemaError(path=path, change=changes[0])
        if into_memory:
            copy = WorkingCopy(path, database, is_durable=is_durable)
            database = copy.database
            opened.callback(database.close)
            opened.callback(copy.close)
        if into_memory or overwrite or cleanup:
            database.check_content()
        if changes:
            upgrade_schema(database)
        is_replayed = _replay_log(path, database, in_memory=into_memory)
        number = 0
        is_interrupted = conditions or database.statements.one(statements.HAS_INTERRUPTED_TASKS, {}) == (1,)
        if overwrite or (reset and is_interrupted):
            with database.transaction(writes=True) as transaction:
                if overwrite:
                    transitions.reset_all_tasks(transaction)
                number = transitions.reset_interrupted_tasks(transaction, conditions)
                if copy is None:
                    database.begin_generation()
        if copy is None:
            # Only now: until here a file that turns out to be damaged is as it was.
            database.prepare_for_work(is_durable=is_durable)
        if cleanup or overwrite:
            database.compact()
        if copy is not None:
            copy.begin(is_changed=bool(changes) or is_replayed or overwrite or cleanup or number > 0)
        opened.pop_all()
    _logger.info("%s: %d tasks that were cut short or went wrong are pending again", path, number)
    return database, copy


def put_on_disk(path: Path, database: SQLite, copy: WorkingCopy | None) -> Path | None:
    """Put on disk what is not, for the last time.

    Returns
    -------
    Path or None
        If the file at `path` is another one by now, or was changed by somebody else: what all was saved as instead.
    """
    if copy is not None:
        return copy.finish()
    if not database.is_replaced():
        return None
    saved_as = save_beside(database, path)
    return None if saved_as == path.resolve() else saved_as


def upgrade_todo_file(path: Path) -> list[str]:
    """Bring a TODO-file to the schema of this release, and take in what a killed manager left beside it.

    Returns
    -------
    list of str
        What that changed.
    """
    with closing(SQLite.open(path)) as database:
        changes = upgrade_schema(database)
        if _replay_log(path, database, in_memory=False):
            changes.append("results of a killed manager are taken from its log")
        database.recover()
    return changes


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
    with database.transaction(writes=True) as transaction:
        for logged in log.results(start):
            if logged is not None and transaction.attempt(partial(transitions.replay_result, transaction, *logged)):
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
