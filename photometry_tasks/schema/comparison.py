"""Read the layout of the tables of a database, and compare it with the models, which declare it (`models.py`)."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Index, Table, inspect
from sqlalchemy.exc import SAWarning

from photometry_tasks.sql.functions import is_sqlite


class ColumnLayout(NamedTuple):
    """A column of a table in a database.

    Attributes
    ----------
    type : str
        The declared type; empty on a server, where it is not compared.
    is_required : bool
        Whether it is NOT NULL.
    default : str or None
    key : int
        Position in the primary key, from 1; 0 for other columns.
    is_generated : bool
    """

    type: str
    is_required: bool
    default: str | None
    key: int
    is_generated: bool

    def __str__(self) -> str:
        return self.type + " PRIMARY KEY" * bool(self.key) + " NOT NULL" * self.is_required


class IndexLayout(NamedTuple):
    """An index in a database; None stands for an expression among its columns."""

    columns: tuple[str | None, ...]
    is_unique: bool
    is_partial: bool


class TableLayout(NamedTuple):
    """A table in a database, with names in lower case.

    Attributes
    ----------
    columns, indexes : dict
        By name.
    references : set of tuple
        Foreign keys to todolist: column, referred column, action on update, action on delete. Empty on a server.
    """

    columns: dict[str, ColumnLayout]
    indexes: dict[str, IndexLayout]
    references: set[tuple[str, ...]]


# --- reading ---------------------------------------------------------------------------------------------


def read_layout(connection: Connection, names: Collection[str]) -> dict[str, TableLayout]:
    """Return the layout of the named tables that exist."""
    if is_sqlite(connection.dialect):
        return read_sqlite_layout(connection.exec_driver_sql, names)
    inspector = inspect(connection)
    layout = {}
    for name in names:
        if not inspector.has_table(name):
            continue
        key = inspector.get_pk_constraint(name)["constrained_columns"]
        columns = {
            column["name"]: ColumnLayout(
                "", not column["nullable"], column["default"], _find_place(column["name"], key), "computed" in column
            )
            for column in inspector.get_columns(name)
        }
        with warnings.catch_warnings():
            # Other programs may have indexes on expressions, which SQLAlchemy cannot reflect.
            warnings.simplefilter("ignore", SAWarning)
            found = inspector.get_indexes(name)
        indexes = {
            str(index["name"]): IndexLayout(
                tuple(index["column_names"]),
                bool(index["unique"]),
                bool(index.get("dialect_options", {}).get("postgresql_where")),
            )
            for index in found
        }
        layout[name] = TableLayout(columns, indexes, set())
    return layout


def _find_place(name: str, key: list[str]) -> int:
    return key.index(name) + 1 if name in key else 0


_COLUMNS = """SELECT lower(t.name), lower(c.name), c.type, c."notnull", c.dflt_value, c.pk, c.hidden
FROM sqlite_master AS t, pragma_table_xinfo(t.name) AS c
WHERE t.type = 'table' AND lower(t.name) IN ({names})"""

_INDEXES = """SELECT lower(t.name), lower(i.name), i."unique", i.partial, lower(c.name)
FROM sqlite_master AS t, pragma_index_list(t.name) AS i, pragma_index_info(i.name) AS c
WHERE t.type = 'table' AND lower(t.name) IN ({names}) ORDER BY i.seq, c.seqno"""

_REFERENCES = """SELECT lower(t.name), lower(f."from"), lower(coalesce(f."to", 'priority')), f.on_update, f.on_delete
FROM sqlite_master AS t, pragma_foreign_key_list(t.name) AS f
WHERE t.type = 'table' AND lower(t.name) IN ({names}) AND lower(f."table") = 'todolist'"""


def read_sqlite_layout(execute: Callable[[str], Iterable[Any]], names: Collection[str]) -> dict[str, TableLayout]:
    """Return the layout of the named tables that exist in a SQLite file; the case of names is ignored.

    Parameters
    ----------
    execute : callable
        Runs SQL, and returns rows. Opening a file passes the driver's: SQLAlchemy need not connect.
    names : collection of str
        Names of tables, in lower case.
    """
    quoted = ", ".join(f"'{name}'" for name in names)
    layout: dict[str, TableLayout] = {}
    for table, name, kind, required, default, key, hidden in execute(_COLUMNS.format(names=quoted)):
        columns = layout.setdefault(table, TableLayout({}, {}, set())).columns
        columns[name] = ColumnLayout(
            kind.upper(), bool(required), None if default == "NULL" else default, key, bool(hidden)
        )
    indexes: dict[tuple[str, str, bool, bool], list[str | None]] = {}
    for table, name, unique, partial, column in execute(_INDEXES.format(names=quoted)):
        indexes.setdefault((table, name, bool(unique), bool(partial)), []).append(column)
    for (table, name, is_unique, is_partial), names_of_columns in indexes.items():
        layout[table].indexes[name] = IndexLayout(tuple(names_of_columns), is_unique, is_partial)
    for table, column, *reference in execute(_REFERENCES.format(names=quoted)):
        layout[table].references.add((column, *reference))
    return layout


# --- comparing -------------------------------------------------------------------------------------------


def find_problems(found: TableLayout, table: Table) -> Iterator[str]:
    """Yield a line for each reason why a table cannot be used with its model."""
    for column in table.columns:
        has = found.columns.get(column.name)
        if has is None:
            yield f"{table.name} has no column {column.name}"
        # In older files a key may be NULL: it is accepted.
        elif not (has.is_required or has.key or column.nullable):
            yield f"{table.name}.{column.name} may be NULL"
    key = sorted((column.key, name) for name, column in found.columns.items() if column.key)
    if [name for _, name in key] != [column.name for column in table.primary_key]:
        yield f"the primary key of {table.name} is {', '.join(name for _, name in key) or 'missing'}"
    yield from find_unfilled(found.columns, {column.name for column in table.columns}, table.name)


def find_unfilled(columns: Mapping[str, ColumnLayout], ours: Collection[str], table: str) -> Iterator[str]:
    """Yield a line for each other program's column that needs a value, which our new rows do not give."""
    for name, column in columns.items():
        is_filled = column.key or column.is_generated or not column.is_required or column.default is not None
        if name not in ours and not is_filled:
            yield f"{table}.{name} is NOT NULL and has no default"


def find_lacking_indexes(found: TableLayout, table: Table) -> list[Index]:
    """Return the indexes of a model that its table lacks or that differ there."""
    lacking = []
    for index in table.indexes:
        columns = tuple(column.name for column in index.columns)
        if found.indexes.get(str(index.name)) != IndexLayout(columns, bool(index.unique), "where" in index.info):
            lacking.append(index)
    return sorted(lacking, key=lambda index: str(index.name))
