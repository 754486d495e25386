"""The complete content of a file: its rows, and its schema."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.lists import Rows, query


def read_rows(path: Path) -> dict[str, Rows]:
    """Return all rows of all tables, in order, by column name."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        tables = [row["name"] for row in connection.execute(names)]
        return {
            table: sorted(
                (dict(row) for row in connection.execute(f"SELECT * FROM {table}")), key=lambda row: repr(row)
            )
            for table in tables
        }


def describe(path: Path) -> dict[str, object]:
    """Return the names, types, defaults and keys of columns, the foreign keys, and the indexes."""
    found: dict[str, object] = {}
    for table in (
        "todolist",
        "diagnostics",
        "photometry_skipped",
        "photometry_tasks_version",
        "photometry_tasks_progress",
    ):
        columns = query(path, f'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info({table!r})')
        found[table] = {row[0]: (*row[1:3], row[3] if row[3] != "NULL" else None, row[4]) for row in columns}
        keys = query(
            path, f'SELECT "from", "table", "to", on_update, on_delete FROM pragma_foreign_key_list({table!r})'
        )
        found[f"{table}: foreign keys"] = sorted(keys)
        found[f"{table}: indexes"] = {
            name: (unique, origin, partial, query(path, f"SELECT name FROM pragma_index_info({name!r})"))
            for _, name, unique, origin, partial in query(path, f"PRAGMA index_list({table})")
        }
    return found
