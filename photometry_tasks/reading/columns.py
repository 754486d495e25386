"""The columns of a task with its result, each with its type, unit and description."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Column, Integer, Text

from photometry_tasks.models import diagnostics, todolist
from photometry_tasks.rules.validation import as_items, check_text, invalid_argument
from photometry_tasks.text import list_first

#: The beginning of the names of columns with the pipeline's own values.
EXTRA = "extra_"

#: All columns of todolist, and the other columns of diagnostics.
STORED: tuple[Column[Any], ...] = (*todolist.columns, *(c for c in diagnostics.columns if c.name != "priority"))

#: What other tables say of a task.
_DERIVED = (
    Column("status_name", Text(), doc="Name of the status; PENDING while the task has none"),
    Column("skipped_by", Integer(), doc="Priority of the brightest task that covers this one"),
    Column("attempts", Integer(), doc="Number of attempts that ended; one that was released does not count"),
    Column("version", Text(), doc="Version of the pipeline that made the result"),
)

#: The columns that every list has for a reader, by name; those that its schema lacks hold no values.
COLUMNS: dict[str, Column[Any]] = {column.name: column for column in (*STORED, *_DERIVED)}


def check_columns(columns: object) -> list[str] | None:
    """Return names of columns as a list; None stands for all.

    Raises
    ------
    InvalidArgumentError
        If a name is neither a column nor begins as the pipeline's own values do.
    """
    if columns is None:
        return None
    try:
        names = [columns] if isinstance(columns, str) else as_items(columns)
    except ValueError:
        names = [columns]
    if not names:
        raise invalid_argument("columns", columns, "one name or several are expected; leave it out for all columns")
    for name in names:
        if check_text("columns", name) not in COLUMNS and not name.startswith(EXTRA):
            raise _unknown_column(name, COLUMNS)
    return list(dict.fromkeys(names))


def choose_columns(names: Sequence[str] | None, own: Sequence[Column[Any]]) -> list[Column[Any]]:
    """Return the columns with these names, or all.

    Parameters
    ----------
    names : sequence of str or None
        Checked names.
    own : sequence of Column
        The columns of the pipeline's own values.

    Raises
    ------
    InvalidArgumentError
        If the list has no own value of a name.
    """
    found = COLUMNS | {column.name: column for column in own}
    for name in names or ():
        if name not in found:
            raise _unknown_column(name, found)
    return [found[name] for name in (found if names is None else names)]


def _unknown_column(name: str, known: Iterable[str]) -> Exception:
    near = get_close_matches(name, known, n=1)
    remedy = f"is it {near[0]!r}?" if near else f"use one of {list_first(known, 100)}"
    return invalid_argument("columns", name, f"there is no such column; {remedy}")
