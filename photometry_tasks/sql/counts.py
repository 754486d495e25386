"""Count tasks by status, in the whole list and on each CCD."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection

from photometry_tasks.models import todolist
from photometry_tasks.rules.stored_values import show_value
from photometry_tasks.sql import statements
from photometry_tasks.status import name_counts, name_status


def count_by_status(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]] = (),
    *,
    everything: Counter[int | None] | None = None,
) -> Counter[int | None]:
    """Return the number of tasks with each status, of those that meet the conditions; None stands for pending.

    `everything` are the numbers without conditions, if they are known.
    """
    if everything is None:
        everything = Counter(dict(map(tuple, connection.execute(statements.COUNT_BY_STATUS))))
    if not conditions or not everything:
        return everything
    numbers = connection.execute(statements.build_count_by_status(everything, conditions)).one()
    return +Counter(dict(zip(everything, numbers, strict=True)))


def count_by_ccd(connection: Connection) -> dict[tuple[Any, Any], dict[str, int]]:
    """Return the number of tasks by (camera, CCD), and there by the name of the status.

    A camera or CCD is a text if a file holds a value that is no integer.
    """
    counts: dict[tuple[Any, Any], dict[str, int]] = {}
    for camera, ccd, status, number in connection.execute(statements.COUNT_BY_CCD):
        place = show_value(todolist.c.camera, camera), show_value(todolist.c.ccd, ccd)
        counts.setdefault(place, name_counts({}))[name_status(status)] += number
    return counts
