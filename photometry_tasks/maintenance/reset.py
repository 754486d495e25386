"""The preview of a reset: the number of tasks that it would return to pending. Only reads."""

import os
from collections import Counter
from typing import Any, NamedTuple

from sqlalchemy import Select, inspect

from photometry_tasks.models import own_skips
from photometry_tasks.rules.skipping import find_freed
from photometry_tasks.sql import statements
from photometry_tasks.sql.functions import is_server
from photometry_tasks.sql.skips import find_contradictions
from photometry_tasks.sql.transitions import Reset
from photometry_tasks.status import RESET_AT_OPENING
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import begin_reading

#: The statuses of tasks that opening returns to pending too.
_UNFINISHED = {status.value for status in RESET_AT_OPENING}

#: Rows in memory at a time.
_BATCH = 10_000


def count_uncovered(todo: str | os.PathLike[str] | Location) -> int:
    """Return the number of SKIPPED tasks that no task covers."""
    with begin_reading(parse_location(todo)) as opened:
        return len(find_contradictions(opened.connection).uncovered)


class Preview(NamedTuple):
    """The expected effect of a reset.

    Attributes
    ----------
    reset : Reset
    finished : int
        The number of chosen tasks that neither failed nor run: their results would be deleted.
    """

    reset: Reset
    finished: int


def count_reset(todo: str | os.PathLike[str] | Location, chosen: Select[Any]) -> Preview:
    """Return what a reset would do.

    Parameters
    ----------
    todo : str or os.PathLike
        The TODO-list. Most files of older releases have the necessary columns.
    chosen : sqlalchemy.Select
        Selects the priorities of the chosen tasks. Tasks that only the chosen tasks cover are counted too.

    Returns
    -------
    Preview

    Raises
    ------
    OutdatedSchemaError
        If an older file lacks a necessary column.
    """
    with begin_reading(parse_location(todo)) as opened:
        connection = opened.connection
        has_own_skips = inspect(connection).has_table(own_skips.name)
        is_shared = is_server(connection.dialect)
        statement = statements.build_skip_chains(chosen, is_shared=is_shared, has_own_skips=has_own_skips)
        statuses: dict[int, int | None] = {}
        first: set[int] = set()
        covers: dict[int, set[int]] = {}
        for row in connection.execution_options(yield_per=_BATCH).execute(statement):
            statuses[row.priority] = row.status
            if row.is_chosen:
                first.add(row.priority)
            if row.skipped_by is not None and not (row.is_chosen and (row.is_own or row.is_void)):
                # A skip that its own result states stays with any other reset: as if the task covered itself.
                cover = row.priority if row.is_own else row.skipped_by
                covers.setdefault(row.priority, set()).add(cover)
    returned, covered = find_freed(first, covers)
    finished = sum(statuses[priority] not in _UNFINISHED for priority in first)
    return Preview(Reset(Counter(statuses[priority] for priority in returned), len(covered)), finished)
