"""A pending task drawn at random, each as likely as the others, without reading the table."""

import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement

from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.statements import build_task

#: Priorities that are drawn before the matching tasks are counted instead. With one pending task in a hundred, two
#: out of three searches end before.
_TRIES = 100


def draw_task(transaction: Transaction, conditions: Sequence[ColumnElement[bool]]) -> dict[str, Any] | None:
    """Return a pending task that matches the conditions; None if there is none.

    Notes
    -----
    A priority is drawn from the range of all priorities until it is one of such a task (rejection sampling): all are
    equally likely. Where few of the tasks are, they are counted, and the number of one of them is drawn.
    """
    lowest, highest = transaction.fetch_one(statements.PRIORITY_RANGE, {}) or (None, None)
    if lowest is None:
        return None
    if not conditions:
        for _ in range(_TRIES):
            row = transaction.fetch_one(statements.PENDING_TASK, {"task": random.randint(lowest, highest)})  # noqa: S311 - a draw, no secret
            if row is not None:
                return build_task(row)
    execute = transaction.connection.execute
    while number := execute(statements.build_count_pending(conditions)).scalar_one():
        chosen = execute(statements.build_numbered_task(conditions), {"number": random.randrange(number)}).first()  # noqa: S311
        if chosen is not None:  # another program may have changed the table in between
            return build_task(chosen)
    return None
