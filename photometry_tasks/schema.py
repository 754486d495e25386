"""Recognise a TODO-file, refuse what it is not, and add what it may lack without harm."""

import warnings

from sqlalchemy import Connection, Index, Table, inspect
from sqlalchemy.engine import Inspector
from sqlalchemy.exc import DatabaseError, OperationalError, SAWarning

from photometry_tasks.errors import NotATodoFileError, OutdatedSchemaError
from photometry_tasks.models import Base

__all__ = ["check_schema", "create_schema", "ensure_complete"]


def create_schema(connection: Connection) -> None:
    """Make the three tables in an empty database."""
    Base.metadata.create_all(connection)


def check_schema(connection: Connection, path: object) -> None:
    """Check that this is a TODO-file of the current schema, without changing a byte.

    Tables of results and indexes may lack: a list that was made but never opened has only `todolist`, and
    every release since 6.0 differs only by an index (`ensure_complete` adds them).

    Raises
    ------
    NotATodoFileError, OutdatedSchemaError
    """
    try:
        inspector = inspect(connection)
        tables = set(inspector.get_table_names())
    except OperationalError:
        raise
    except DatabaseError as error:
        raise NotATodoFileError(path=path, found=error.orig) from None
    if "todolist" not in tables:
        found = f"it has the tables {', '.join(sorted(tables))}" if tables else "it has no tables"
        raise NotATodoFileError(path=path, found=f"{found}, but no todolist")
    lacks = [
        problem
        for table in Base.metadata.sorted_tables
        if table.name in tables
        for problem in _column_problems(inspector, table) + _index_problems(inspector, table)
    ]
    if lacks:
        raise OutdatedSchemaError(path=path, lacks="; ".join(lacks))


def ensure_complete(connection: Connection) -> None:
    """Add the tables of results and the indexes that `check_schema` lets a TODO-file lack."""
    inspector = inspect(connection)
    tables = set(inspector.get_table_names())
    for table in Base.metadata.sorted_tables:
        if table.name not in tables:
            table.create(connection)
            continue
        present = _indexes(inspector, table)
        for index in table.indexes:
            if index.name not in present:
                index.create(connection)


def _column_problems(inspector: Inspector, table: Table) -> list[str]:
    found = {column["name"]: column for column in inspector.get_columns(table.name)}
    problems = []
    for column in table.columns:
        if column.name not in found:
            problems.append(f"no column {table.name}.{column.name}")
        elif found[column.name]["nullable"] and not column.nullable and not column.primary_key:
            problems.append(f"{table.name}.{column.name} may be NULL")
    key = inspector.get_pk_constraint(table.name)["constrained_columns"]
    if key != [column.name for column in table.primary_key]:
        problems.append(f"the primary key of {table.name} is {key}")
    for name, foreign in found.items():
        if name not in table.columns and not foreign["nullable"] and foreign["default"] is None:
            problems.append(f"{table.name}.{name} needs a value that nothing gives")
    return problems


def _index_problems(inspector: Inspector, table: Table) -> list[str]:
    present = _indexes(inspector, table)
    return [
        f"the index {index.name} is on ({', '.join(map(str, present[index.name][0]))})"
        for index in table.indexes
        if index.name in present and present[index.name] != _shape(index)
    ]


def _indexes(inspector: Inspector, table: Table) -> dict[object, tuple[list[str | None], bool]]:
    with warnings.catch_warnings():
        # Other programs may have indexes on expressions, which cannot be reflected and are not our concern.
        warnings.simplefilter("ignore", SAWarning)
        indexes = inspector.get_indexes(table.name)
    return {index["name"]: (index["column_names"], bool(index["unique"])) for index in indexes}


def _shape(index: Index) -> tuple[list[str | None], bool]:
    return [column.name for column in index.columns], index.unique
