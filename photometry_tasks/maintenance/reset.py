"""Tasks that are to be done again: which they are, and how many go back to pending with them."""

import os
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any

from sqlalchemy import Select

from photometry_tasks import schema
from photometry_tasks.constraints import build_expressions, check_constraints
from photometry_tasks.rules import validation
from photometry_tasks.sql import statements
from photometry_tasks.sql.counts import name_counts
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.transitions import reset_selected_tasks
from photometry_tasks.storage.backends import find_path
from photometry_tasks.storage.postgresql.database import PostgreSQL
from photometry_tasks.storage.sqlite.database import SQLite
from photometry_tasks.storage.sqlite.opening import upgrade_schema
from photometry_tasks.storage.sqlite.paths import find_todo_file

__all__ = ["build_choice", "count_chosen", "reset_chosen"]


def build_choice(status: Any, error_like: str | None, constraints: Mapping[str, Any]) -> Select[Any]:
    """Select the priorities of tasks by what was asked for: see `TaskManager.reset_tasks`."""
    text = None if error_like is None else validation.check_text("error_like", error_like)
    conditions = build_expressions(check_constraints(constraints))
    return statements.chosen_tasks(validation.check_statuses(status), text, conditions)


def reset_chosen(transaction: Transaction, chosen: Select[Any]) -> dict[str, int]:
    """Return tasks to pending, with those that only they had skipped; say how many, by the name of their status."""
    reset_selected_tasks(transaction, chosen)
    counts = name_counts({status: -number for status, number in transaction.moved.items()})
    return {name: number for name, number in counts.items() if number > 0}


def count_chosen(todo: str | os.PathLike[str], chosen: Select[Any]) -> dict[str, int]:
    """Say what `reset_chosen` would do to a TODO-list: it does it to a copy in memory, or takes it back."""
    path = find_path(todo)
    if path is None:
        with closing(PostgreSQL(str(todo))) as server:
            server.check_list()
            return server.try_out(partial(reset_chosen, chosen=chosen))
    path = find_todo_file(path)
    with closing(SQLite.open_to_read(path)) as file, closing(file.load_into_memory()) as copy:
        if not schema.is_current(copy):
            upgrade_schema(copy)
        with copy.transaction(writes=True) as transaction:
            return reset_chosen(transaction, chosen)
