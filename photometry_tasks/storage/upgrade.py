"""Upgrade the schema of a TODO-list in any database."""

import logging

from sqlalchemy.exc import DatabaseError

from photometry_tasks import schema
from photometry_tasks.errors import CannotUpgradeError, SQLiteError
from photometry_tasks.storage.base import Database

_logger = logging.getLogger("photometry_tasks")


def upgrade_schema(database: Database) -> list[str]:
    """Upgrade a TODO-list to the schema of this release in one transaction, and return a line for each change.

    Raises
    ------
    CannotUpgradeError, NotATodoFileError, UnknownRevisionError
        The list is not changed.
    """
    try:
        with database.begin_upgrade() as connection:
            # Another process may have upgraded the list since the caller checked it.
            changes = schema.find_changes(connection, database.name)
            if changes:
                schema.upgrade(connection, database.name)
    except (DatabaseError, SQLiteError) as error:
        cause = error.__cause__ if isinstance(error, SQLiteError) else error
        remedy = "Look for the cause with `photometry-tasks check`."
        raise CannotUpgradeError(path=database.name, problem=getattr(cause, "orig", cause), remedy=remedy) from error
    for change in changes:
        _logger.info("%s: upgraded: %s", database.name, change)
    return changes
