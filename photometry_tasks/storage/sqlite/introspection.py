"""Queries about a SQLite file: its size, revision and schema, and the numbers of its rows and orphans."""

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from photometry_tasks import schema
from photometry_tasks.errors import DamagedFileError, NotATodoFileError
from photometry_tasks.models import TABLES
from photometry_tasks.schema.comparison import read_sqlite_layout
from photometry_tasks.storage.sqlite.dbapi import sqlite_errors, tuple_cursor

if TYPE_CHECKING:
    import sqlite3


def has_current_schema(dbapi: "sqlite3.Connection") -> bool:
    """Whether a file has the schema of this release, as nearly all have; if not, `schema.find_changes` says why.

    The driver alone runs the queries: connecting SQLAlchemy would take as long as all other steps of opening.
    """
    with closing(tuple_cursor(dbapi)) as cursor:
        if _read_revisions(cursor) != [schema.HEAD]:
            return False
        return schema.is_current(read_sqlite_layout(cursor.execute, [table.name for table in TABLES]))


def _read_revisions(cursor: "sqlite3.Cursor") -> list[str]:
    import sqlite3

    sql = f"SELECT version_num FROM {schema.VERSION_TABLE}"  # noqa: S608 - a constant name
    try:
        return [revision for (revision,) in cursor.execute(sql)]
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            return []
        raise


def check_size(dbapi: "sqlite3.Connection", path: Path) -> None:
    """Check that a file has all pages that its header declares; SQLite accepts a file that is half a page short.

    Raises
    ------
    NotATodoFileError, DamagedFileError
    """
    if path.stat().st_size == 0:
        raise NotATodoFileError(path=path, found="it is empty (0 kB)")
    with sqlite_errors(path):
        mode, pages, page_size = (
            dbapi.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "page_count", "page_size")
        )
    size = path.stat().st_size
    # The log of a file in WAL mode may hold pages that the file lacks.
    if mode != "wal" and size < pages * page_size:
        raise DamagedFileError(path=path, found=f"it ends after {size / 1000:.3f} of {pages * page_size / 1000:.3f} kB")


def count_orphans(dbapi: "sqlite3.Connection") -> dict[str, int]:
    """Count the orphans of each table: the rows that refer to a missing row."""
    import sqlite3

    orphans = {}
    sql = "SELECT DISTINCT m.name FROM sqlite_master AS m, pragma_foreign_key_list(m.name) WHERE m.type = 'table'"
    check = "SELECT count(*) FROM pragma_foreign_key_check(?)"
    with closing(tuple_cursor(dbapi)) as cursor:
        for (table,) in cursor.execute(sql).fetchall():
            # SQLite cannot check a foreign key whose target is not a key.
            with suppress(sqlite3.OperationalError):
                (orphans[table],) = cursor.execute(check, (table,)).fetchone()
    return orphans


def count_rows(dbapi: "sqlite3.Connection") -> dict[str, int]:
    """Count the rows of each table, including other programs'; a virtual table keeps its rows in other tables."""
    counts = {}
    with closing(tuple_cursor(dbapi)) as cursor:
        for (name,) in cursor.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        ).fetchall():
            quoted = name.replace('"', '""')
            (counts[name],) = cursor.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()  # noqa: S608 - quoted
    return counts
