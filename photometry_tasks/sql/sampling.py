"""Draw a pending task at random, with equal probability, without reading the whole table."""

import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement

from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.statements import build_task

#: Number of draws before the matching tasks are counted instead. If 1 % of the tasks are pending, two out of three
#: searches need no count.
_TRIES = 100


def draw_task(transaction: Transaction, conditions: Sequence[ColumnElement[bool]]) -> dict[str, Any] | None:
    """Return a random pending task that matches the conditions, or None.

    Notes
    -----
    Without conditions, priorities are drawn from the range of all priorities until a pending task has the drawn
    priority (rejection sampling). Every pending task is equally likely. If all draws fail, or with conditions, the
    matching tasks are counted, and the number of a task is drawn.
    """
    lowest, highest = transaction.fetch_one(statements.PRIORITY_RANGE, {}) or (None, None)
    if lowest is None:
        return None
    if not conditions and lowest <= highest:  # not in a damaged file
        for _ in range(_TRIES):
            row = transaction.fetch_one(statements.PENDING_TASK, {"task": random.randint(lowest, highest)})  # noqa: S311 - no secret
            if row is not None:
                return build_task(row)
    execute = transaction.connection.execute
    for _ in range(_TRIES):
        if not (number := execute(statements.build_count_pending(conditions)).scalar_one()):
            break
        chosen = execute(statements.build_numbered_task(conditions), {"number": random.randrange(number)}).first()  # noqa: S311
        if chosen is not None:  # None if another program changed the table since the count, or in a damaged file
            return build_task(chosen)
    return None
