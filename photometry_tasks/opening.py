"""Open a TODO-file for work: check it, bring it to the schema of this release, copy it into memory."""

import logging
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from photometry_tasks import schema
from photometry_tasks.backends import PostgreSQL, SQLite
from photometry_tasks.errors import CannotUpgradeError, OutdatedSchemaError

__all__ = ["open_todo_file", "upgrade_schema"]

_logger = logging.getLogger("photometry_tasks")


def open_todo_file(path: Path, *, into_memory: bool, upgrade: bool) -> SQLite:
    """Open a TODO-file of any release, or a copy of it in memory.

    Parameters
    ----------
    into_memory : bool
        Work on a copy; the file is closed, and stays as it is.
    upgrade : bool
        Whether a file with an older schema is upgraded or refused.

    Raises
    ------
    TodoError
        If it is no TODO-file, is damaged, or has a schema that is not known or cannot be upgraded. It is not
        changed then.
    """
    database = SQLite.open(path)
    try:
        with database.begin(writes=False) as connection:
            changes = schema.find_changes(connection, path)
        if changes and not upgrade:
            raise OutdatedSchemaError(path=path, change=changes[0])  # noqa: TRY301 - the file has to be closed
        if into_memory:
            database = database.load_into_memory()
            database.check_content()
        if changes:
            upgrade_schema(database)
    except BaseException:
        database.close()
        raise
    return database


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
