"""What SQLite tells of a file: size, damage, columns and indexes, revisions, orphans, values of another type."""

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, Table

from photometry_tasks.errors import DamagedFileError, NotATodoFileError
from photometry_tasks.rules.validation import show
from photometry_tasks.storage.sqlite.dbapi import sqlite_errors

if TYPE_CHECKING:
    import sqlite3

__all__ = ["check_size", "count_orphans", "find_damage", "find_misfit", "has_layout", "read_revisions"]

#: A row for each column: its table and name, its place in the key, whether a new row has to give it a value, whether it
#: may be NULL; and for each index: its table, name and columns, whether it is unique, and partial.
_LAYOUT = """
WITH ours (name) AS (VALUES {tables})
SELECT lower(t.name), lower(c.name), c.pk, c."notnull" AND NOT c.pk AND c.dflt_value IS NULL, NOT c."notnull"
FROM sqlite_master AS t, pragma_table_info(t.name) AS c
WHERE t.type = 'table' AND lower(t.name) IN (SELECT name FROM ours)
UNION ALL
SELECT lower(t.name), i.name, i."unique", i.partial, (
    SELECT group_concat(lower(name)) FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)
)
FROM sqlite_master AS t, pragma_index_list(t.name) AS i
WHERE t.type = 'table' AND lower(t.name) IN (SELECT name FROM ours)"""


def has_layout(dbapi: "sqlite3.Connection", metadata: MetaData) -> bool:
    """Whether our tables have the columns, keys and indexes of the models, and a new row needs no other values."""
    expected = _build_layout(metadata)
    ours = {row[:2] for row in expected}
    tables = ", ".join(f"('{name}')" for name in metadata.tables)
    found = dbapi.execute(_LAYOUT.format(tables=tables)).fetchall()
    # A key that may be NULL, as in older files, is a key all the same.
    rows = {(*row[:4], row[4] if isinstance(row[4], str) else bool(row[4] or row[2])) for row in found}
    return expected <= rows and all(not row[3] or isinstance(row[4], str) or row[:2] in ours for row in rows)


def read_revisions(dbapi: "sqlite3.Connection", table: str) -> list[str]:
    """Return what a table of revisions holds; nothing if there is none."""
    import sqlite3

    try:
        return [row[0] for row in dbapi.execute(f"SELECT version_num FROM {table}")]  # noqa: S608 - it is ours
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            return []
        raise


def count_orphans(dbapi: "sqlite3.Connection") -> dict[str, int]:
    """Count the rows of each table that refer to what is not there."""
    import sqlite3

    orphans = {}
    sql = "SELECT DISTINCT m.name FROM sqlite_master AS m, pragma_foreign_key_list(m.name) WHERE m.type = 'table'"
    for (table,) in dbapi.execute(sql).fetchall():
        # Where a foreign key leads to no key, it cannot be asked.
        with suppress(sqlite3.OperationalError):
            (orphans[table],) = dbapi.execute("SELECT count(*) FROM pragma_foreign_key_check(?)", (table,)).fetchone()
    return orphans


@cache
def _build_layout(metadata: MetaData) -> set[tuple[Any, ...]]:
    layout: set[tuple[Any, ...]] = set()
    for table in metadata.tables.values():
        key = list(table.primary_key)
        for column in table.columns:
            place = key.index(column) + 1 if column in key else 0
            is_needed = not (column.nullable or place or column.server_default)
            layout.add((table.name, column.name, place, is_needed, bool(column.nullable or place)))
        for index in table.indexes:
            columns = ",".join(column.name for column in index.columns)
            is_partial = index.dialect_options["sqlite"]["where"] is not None
            layout.add((table.name, index.name, bool(index.unique), is_partial, columns))
    return layout


def check_size(dbapi: "sqlite3.Connection", path: Path) -> None:
    """Check that a file has all the pages that its header tells of; SQLite allows for half a page less."""
    if path.stat().st_size == 0:
        raise NotATodoFileError(path=path, found="it is empty (0 bytes)")
    with sqlite_errors(path):
        mode, pages, page_size = (
            dbapi.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "page_count", "page_size")
        )
    size = path.stat().st_size
    # The log of a file in WAL mode may hold pages that the file has not got yet.
    if mode != "wal" and size < pages * page_size:
        raise DamagedFileError(path=path, found=f"it ends after {size} of {pages * page_size} bytes")


def find_damage(dbapi: "sqlite3.Connection", pragma: str) -> list[str]:
    """Say what SQLite finds wrong: with `integrity_check` in all, with `quick_check` in all but what indexes hold."""
    lines = [line for row in dbapi.execute(f"PRAGMA {pragma}") for line in row[0].splitlines()]
    return [] if lines == ["ok"] else [line for line in lines if not line.startswith("***")]


def find_misfit(table: Table, rows: Iterable[tuple[Any, ...]]) -> str | None:
    """Say which value, of a file where any column may hold anything, has no place in a column of its type."""
    for row in rows:
        for column, value in zip(table.columns, row, strict=True):
            kind = column.type.python_type
            fits = isinstance(value, int | float if kind is float else kind)
            if value is not None and (not fits or (isinstance(value, str) and "\x00" in value)):
                return f"{table.name}.{column.name} is {show(value)} in the row that begins with {show(row[0])}"
    return None
