"""Group the errors of tasks by kind, and by message without its numbers."""

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, null, select

from photometry_tasks.models import attempts, diagnostics, todolist, workers
from photometry_tasks.reading.rows import find_stored
from photometry_tasks.rules.stored_values import read_value, show_value
from photometry_tasks.sql.execution import iter_batches
from photometry_tasks.sql.statements import IS_LAST_RESULT
from photometry_tasks.status import FAILED
from photometry_tasks.storage.open import OpenList
from photometry_tasks.text import find_message, shorten

_MOST_GROUPS, _MOST_CHARACTERS = 20_000, 160
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")

_task, _try = todolist.c, attempts.c

#: Whether a task has failed.
HAS_FAILED: ColumnElement[bool] = _task.status.in_([status.value for status in FAILED])


@dataclass
class ErrorGroup:
    """Tasks whose errors have one kind, and messages that differ only in their numbers.

    Attributes
    ----------
    kind : str or None
        The kind of the failure; None if none was given or recorded.
    message : str
        The last line of the errors; # replaces each number.
    first, last : int
        The lowest and the highest priority.
    starid : int
        The star of the first task.
    count : int
        The number of tasks.
    hosts, ccds : collections.Counter
        The number of these tasks by host ("unknown" for results that no attempt records), and by (camera, CCD).
    text : str
        The whole errors of the first task, shortened if they are very long.
    """

    kind: str | None
    message: str
    first: int
    last: int
    starid: int
    text: str = ""
    count: int = 0
    hosts: Counter[str] = field(default_factory=Counter)
    ccds: Counter[tuple[Any, Any]] = field(default_factory=Counter)


class ErrorGroups(NamedTuple):
    """The groups in descending order of their tasks, and the number of tasks beyond the limit on groups or tasks."""

    groups: list[ErrorGroup]
    ungrouped: int


def group_errors(opened: OpenList, *conditions: ColumnElement[bool], limit: int | None = None) -> ErrorGroups:
    """Group the errors of the tasks that meet conditions.

    Parameters
    ----------
    opened : OpenList
    *conditions : ColumnElement
        For example `HAS_FAILED`.
    limit : int, optional
        The most tasks that are read.
    """
    stored = find_stored(opened)
    joined: Any = todolist
    errors: list[Any] = []
    kind: Any = null()
    host: Any = null()
    if diagnostics.c.errors in stored:
        joined = joined.outerjoin(diagnostics, _task.priority == diagnostics.c.priority)
        errors.append(diagnostics.c.errors)
    if _try.kind in stored:
        joined = joined.outerjoin(attempts, (_try.priority == _task.priority) & IS_LAST_RESULT)
        joined = joined.outerjoin(workers, workers.c.worker == _try.worker)
        errors.append(_try.errors)
        kind, host = _try.kind, workers.c.host
    columns = _task.priority, _task.starid, _task.camera, _task.ccd, kind, host
    found_errors = func.coalesce(*errors, null(), null())
    statement = select(*columns, found_errors).select_from(joined).where(*conditions)
    # The order of an index: of many failures, the first come at once.
    statement = statement.order_by(_task.status, _task.priority)
    groups: dict[tuple[str | None, str], ErrorGroup] = {}
    ungrouped = 0
    for priority, starid, camera, ccd, of_kind, of_host, found in chain.from_iterable(
        iter_batches(opened.connection, statement.limit(limit))
    ):
        text = read_value(diagnostics.c.errors, found) or ""
        key = of_kind, _build_message(text)
        group = groups.get(key)
        if group is None:
            # If every line is different, an unlimited number of groups would fill the memory.
            if len(groups) == _MOST_GROUPS:
                ungrouped += 1
                continue
            group = groups[key] = ErrorGroup(*key, priority, priority, starid, shorten(text))
        if priority < group.first:
            group.first, group.starid, group.text = priority, starid, shorten(text)
        group.last = max(group.last, priority)
        group.count += 1
        group.hosts[of_host or "unknown"] += 1
        group.ccds[show_value(_task.camera, camera), show_value(_task.ccd, ccd)] += 1
    return ErrorGroups(sorted(groups.values(), key=lambda group: group.count, reverse=True), ungrouped)


def _build_message(errors: str) -> str:
    """Return the line of the errors that says what is wrong, shortened and without its numbers."""
    line = find_message(errors)
    message = _NUMBER.sub("#", line[: 5 * _MOST_CHARACTERS]) or "(no text)"
    return message if len(message) <= _MOST_CHARACTERS else message[: _MOST_CHARACTERS - 1] + "…"
