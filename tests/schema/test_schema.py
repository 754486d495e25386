"""Contract 2: the tables of a new file."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect

from photometry_tasks import TaskManager
from photometry_tasks.models import Base
from photometry_tasks.storage.sqlite.introspection import has_current_schema
from tests.support.lists import query

TODOLIST = [
    ("priority", "INTEGER", 1, None, 1),
    ("starid", "INTEGER", 1, None, 0),
    ("sector", "INTEGER", 1, None, 0),
    ("datasource", "TEXT", 1, "'ffi'", 0),
    ("camera", "INTEGER", 1, None, 0),
    ("ccd", "INTEGER", 1, None, 0),
    ("cadence", "INTEGER", 1, None, 0),
    ("method", "TEXT", 0, None, 0),
    ("tmag", "REAL", 0, None, 0),
    ("status", "INTEGER", 0, None, 0),
    ("cbv_area", "INTEGER", 1, None, 0),
]
DIAGNOSTICS = [
    "priority",
    "lightcurve",
    "method_used",
    "elaptime",
    "worker_wait_time",
    "mean_flux",
    "variance",
    "variability",
    "rms_hour",
    "ptp",
    "pos_row",
    "pos_column",
    "contamination",
    "mask_size",
    "edge_flux",
    "stamp_width",
    "stamp_height",
    "stamp_resizes",
    "errors",
]


def columns(path: Path, table: str) -> list[tuple[object, ...]]:
    return [row[1:] for row in query(path, f"PRAGMA table_info({table})")]


def test_todolist_has_the_columns_of_the_contract(todo: Callable[..., Path]) -> None:
    """A new file's todolist has the names, types, defaults and key that other programs read."""
    path = todo()
    assert columns(path, "todolist") == TODOLIST


def test_priority_is_the_row_id(todo: Callable[..., Path]) -> None:
    """The key is SQLite's row id: a look-up by priority reads no index."""
    assert query(todo({"priority": 17}), "SELECT rowid, priority FROM todolist") == [(17, 17)]


def test_diagnostics_has_the_columns_of_the_contract(todo: Callable[..., Path]) -> None:
    """Diagnostics has its columns in TASOC's order, and only three require a value."""
    found = columns(todo(), "diagnostics")
    assert [column[0] for column in found] == DIAGNOSTICS
    assert [column[0] for column in found if column[2]] == ["priority", "method_used", "elaptime"]


def test_skips_have_no_key(todo: Callable[..., Path]) -> None:
    """photometry_skipped has two columns, both NOT NULL, and no primary key."""
    expected = [("priority", "INTEGER", 1, None, 0), ("skipped_by", "INTEGER", 1, None, 0)]
    assert columns(todo(), "photometry_skipped") == expected


def test_indexes(todo: Callable[..., Path]) -> None:
    """The indexes have the names, columns and uniqueness of the contract."""
    path = todo()
    sql = (
        'SELECT m.name, i.name, i."unique", (SELECT group_concat(name) FROM pragma_index_info(i.name)) '
        "FROM sqlite_master m, pragma_index_list(m.name) i WHERE m.type = 'table' ORDER BY 1, 2"
    )
    assert query(path, sql) == [
        ("diagnostics", "diagnostics_lightcurve_idx", 1, "lightcurve"),
        ("photometry_skipped", "photometry_skipped_priority_idx", 0, "priority"),
        ("photometry_skipped", "photometry_skipped_skipped_by_idx", 0, "skipped_by"),
        ("photometry_tasks_attempts", "photometry_tasks_attempts_kind_idx", 0, "kind,worker"),
        ("photometry_tasks_attempts", "photometry_tasks_attempts_live_idx", 1, "priority"),
        ("photometry_tasks_attempts", "sqlite_autoindex_photometry_tasks_attempts_1", 1, "priority,attempt"),
        ("photometry_tasks_own_skips", "photometry_tasks_own_skips_skipped_by_idx", 0, "skipped_by"),
        ("photometry_tasks_version", "sqlite_autoindex_photometry_tasks_version_1", 1, "version_num"),
        ("photometry_tasks_workers", "photometry_tasks_workers_live_idx", 0, "worker"),
        ("todolist", "starid_idx", 0, "starid"),
        ("todolist", "status_idx", 0, "status"),
        ("todolist", "todolist_datasource_idx", 0, "datasource"),
        ("todolist", "todolist_pending_idx", 0, "priority"),
        ("todolist", "unique_target_idx", 1, "starid,datasource,sector,camera,ccd,cadence"),
    ]


def test_foreign_keys(todo: Callable[..., Path]) -> None:
    """Deleting a task deletes its rows too; a task that skips another cannot be deleted."""
    path = todo()
    sql = 'SELECT "from", "table", "to", on_update, on_delete FROM pragma_foreign_key_list({!r}) ORDER BY 1'
    assert query(path, sql.format("diagnostics")) == [("priority", "todolist", "priority", "CASCADE", "CASCADE")]
    assert query(path, sql.format("photometry_skipped")) == [
        ("priority", "todolist", "priority", "CASCADE", "CASCADE"),
        ("skipped_by", "todolist", "priority", "CASCADE", "RESTRICT"),
    ]


def test_postgresql_has_wide_types(postgresql: Engine) -> None:
    """On PostgreSQL integers are BIGINT and reals DOUBLE PRECISION, in the same tables."""
    Base.metadata.create_all(postgresql)
    try:
        inspector = inspect(postgresql)
        types = {str(column["type"]) for name in Base.metadata.tables for column in inspector.get_columns(name)}
        assert types == {"BIGINT", "BOOLEAN", "BYTEA", "DOUBLE PRECISION", "TEXT", "TIMESTAMP"}
    finally:
        Base.metadata.drop_all(postgresql)


# --- files of other programs ---


def make_tasoc_list(path: Path) -> Path:
    """Create a file as TASOC's preparation does: only todolist, with its indexes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """CREATE TABLE todolist (
                priority INTEGER PRIMARY KEY ASC NOT NULL, starid INTEGER NOT NULL, sector INTEGER NOT NULL,
                datasource TEXT NOT NULL DEFAULT 'ffi', camera INTEGER NOT NULL, ccd INTEGER NOT NULL,
                cadence INTEGER NOT NULL, method TEXT DEFAULT NULL, tmag REAL,
                status INTEGER DEFAULT NULL, cbv_area INTEGER NOT NULL);
            CREATE UNIQUE INDEX unique_target_idx ON todolist (starid, datasource, sector, camera, ccd, cadence);
            CREATE INDEX status_idx ON todolist (status);
            CREATE INDEX starid_idx ON todolist (starid);
            INSERT INTO todolist VALUES (1, 267211065, 1, 'tpf', 3, 2, 120, NULL, 2.216, NULL, 321);"""
        )
    return path


def test_a_list_that_was_never_opened_works(tmp_path: Path) -> None:
    """If a list has only todolist, the first opening adds the tables of results."""
    path = make_tasoc_list(tmp_path / "todo.sqlite")
    with TaskManager(path) as manager:
        task = manager.get_task()
        assert task is not None
        manager.save_result({**task, "status": 1, "method_used": "halo", "time": 1})
    assert query(path, "SELECT priority, method_used FROM diagnostics") == [(1, "halo")]
    names = {row[0] for row in query(path, "SELECT name FROM sqlite_master")}
    assert {"todolist_datasource_idx", "photometry_skipped"} <= names


def test_what_other_programs_added_stays(tmp_path: Path) -> None:
    """Columns, indexes on expressions and tables of other programs are kept and cause no errors."""
    path = make_tasoc_list(tmp_path / "todo.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """ALTER TABLE todolist ADD COLUMN corr_status INTEGER DEFAULT NULL;
            CREATE INDEX corr_status_idx ON todolist (corr_status);
            CREATE INDEX magnitude_class ON todolist (round(tmag));
            CREATE TABLE corr_settings (corrector TEXT);
            UPDATE todolist SET corr_status = 6;
            INSERT INTO corr_settings VALUES ('ensemble');"""
        )
    with TaskManager(path, overwrite=True) as manager:
        task = manager.get_task()
        assert task is not None
        assert "corr_status" not in task
    assert query(path, "SELECT corr_status FROM todolist") == [(6,)]
    assert query(path, "SELECT corrector FROM corr_settings") == [("ensemble",)]
    names = {row[0] for row in query(path, "SELECT name FROM sqlite_master")}
    assert {"corr_status_idx", "magnitude_class"} <= names


@pytest.mark.parametrize("table", list(Base.metadata.tables))
def test_each_table_is_looked_at(todo: Callable[..., Path], table: str) -> None:
    """The fast check of a file's schema includes each table of the models."""
    with closing(sqlite3.connect(todo())) as connection:
        assert has_current_schema(connection)
        connection.execute(f"ALTER TABLE {table} RENAME TO something_else")
        assert not has_current_schema(connection)
