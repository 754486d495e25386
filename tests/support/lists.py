"""TODO-lists of a few rows, in files and on a server, and queries of them."""

import hashlib
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, insert, text

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.models import Base, todolist
from photometry_tasks.schema import create_schema

Rows = list[dict[str, Any]]


def fill(rows: Rows) -> Rows:
    """Complete rows of `todolist`: priorities from 1, distinct stars, one CCD."""
    defaults = {"sector": 1, "datasource": "ffi", "camera": 1, "ccd": 1, "cadence": 1800, "method": None, "tmag": 10.0}
    return [
        {"priority": number, "starid": 100 + number, "status": None, "cbv_area": 110, **defaults, **row}
        for number, row in enumerate(rows, start=1)
    ]


@cache
def _read_empty_file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "todo.sqlite")
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            create_schema(connection)
        engine.dispose()
        return path.read_bytes()


def make_file(path: Path, rows: Rows) -> Path:
    """Create a file from the bytes of an empty one, which is faster than creating its tables again."""
    path.write_bytes(_read_empty_file())
    if rows:
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            connection.execute(insert(todolist), fill(rows))
        engine.dispose()
    return path


def make_list(engine: Engine, rows: Rows) -> str:
    """Create a list on a server, replacing an existing list, and return its URL."""
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        create_schema(connection)
        if rows:
            connection.execute(insert(todolist), fill(rows))
    return engine.url.render_as_string(hide_password=False)


def empty_list(engine: Engine, rows: Rows) -> str:
    """Replace the rows of an existing list, which is faster than creating it again."""
    names = ", ".join(Base.metadata.tables)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
        if rows:
            connection.execute(insert(todolist), fill(rows))
    return engine.url.render_as_string(hide_password=False)


def query(target: str | Path, sql: str) -> list[tuple[Any, ...]]:
    """Query a list as any other program would: with the driver and plain SQL."""
    if "://" in str(target):
        with psycopg.connect(str(target).replace("+psycopg", "", 1)) as server:
            return server.execute(sql).fetchall()
    with closing(sqlite3.connect(target)) as connection:
        return connection.execute(sql).fetchall()


def ask(manager: TaskManager, sql: str) -> list[tuple[Any, ...]]:
    """Query a list through a manager's session, which both databases have."""
    return [tuple(row) for row in manager.session.connection().exec_driver_sql(sql)]


def execute_sql(manager: TaskManager, *statements: str) -> None:
    """Change a list through a manager's session, as its callers may."""
    for sql in statements:
        manager.session.connection().exec_driver_sql(sql)
    manager.session.commit()


def checksum(path: Path) -> tuple[str, int, int]:
    """Return the values that an unchanged file keeps: a checksum of its content, its mode and its time."""
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode, path.stat().st_mtime_ns


def result_of(task: dict[str, Any], status: Any = STATUS.OK, **details: Any) -> dict[str, Any]:
    """Return the result of a task, in the form that a pipeline returns."""
    return {**task, "status": status, "method_used": "aperture", "time": 1.5, "details": details}


def many(number: int) -> list[dict[str, Any]]:
    return [{"tmag": float(priority)} for priority in range(number)]
