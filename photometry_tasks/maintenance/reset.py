"""The preview of a reset: how many tasks would go back to pending, without changing anything."""

import os
from contextlib import closing
from typing import Any

from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError

from photometry_tasks import schema
from photometry_tasks.errors import OutdatedSchemaError
from photometry_tasks.sql import statements
from photometry_tasks.sql.counts import name_counts
from photometry_tasks.sql.functions import is_server
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import open_read_only


def count_reset(todo: str | os.PathLike[str] | Location, chosen: Select[Any]) -> dict[str, int]:
    """Return how many tasks a reset would return to pending, by the name of their status.

    Parameters
    ----------
    todo : str or os.PathLike
        The TODO-list; most files of older releases have all that is asked for.
    chosen : sqlalchemy.Select
        Selects the priorities of the chosen tasks; those that only these skip are counted too.

    Raises
    ------
    OutdatedSchemaError
    """
    with closing(open_read_only(parse_location(todo))) as database, database.begin(writes=False) as connection:
        changes = schema.find_changes(connection, database.name)
        statement = statements.build_count_reset(chosen, is_shared=is_server(connection.dialect))
        try:
            counts = dict(map(tuple, connection.execute(statement)))
        except DBAPIError as error:
            if not changes:
                raise
            # An older file may lack a column or table that was asked for.
            raise OutdatedSchemaError(path=database.name, change=changes[0]) from error
        return {name: number for name, number in name_counts(counts).items() if number}
