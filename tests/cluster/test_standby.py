"""A hot standby, which serves the commands that only read a list."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import ServerError
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.copy import copy_list
from photometry_tasks.maintenance.status import get_status
from tests.support.commands import read_everything
from tests.support.lists import empty_list, make_file, many, query, result_of
from tests.support.servers import Server

pytestmark = pytest.mark.cluster

TARGET = {"starid": 1, "tmag": 5.0, "sector": 1, "camera": 1, "ccd": 1, "datasource": "ffi"}


@pytest.fixture(scope="module")
def standby(server: Server) -> Iterator[str]:
    """Start a hot standby of the server, and return the URL of its copy of the list."""
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    shutil.chown(directory, server.user or -1)
    data = str(directory / "data")
    server.run("pg_basebackup", "-h", str(server.directory), "-U", "postgres", "-D", data, "-R", "-c", "fast")
    server.run("pg_ctl", "-w", "-D", data, "-l", f"{directory}/log", "-o", f"-h '' -k {directory}", "start")
    yield server.engine.url.set(query={"host": str(directory)}).render_as_string(hide_password=False)
    server.run("pg_ctl", "-w", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(directory)


def await_replay(engine: Engine, standby: str) -> None:
    """Wait until the standby has all that is committed on the server."""
    ((now,),) = query(engine.url.render_as_string(hide_password=False), "SELECT pg_current_wal_lsn()")
    end = time.monotonic() + 60
    with psycopg.connect(standby.replace("+psycopg", "")) as connection:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        while connection.execute(f"SELECT pg_last_wal_replay_lsn() < '{now}'").fetchone() == (True,):
            assert time.monotonic() < end


def test_reading(server: Server, standby: str, tmp_path: Path) -> None:
    """Each command that only reads a list says on a standby what it says on the server, while managers work."""
    url = empty_list(server.engine, many(30))
    with TaskManager(url) as manager:
        tasks = manager.claim_tasks(9)
        manager.save_result(result_of(tasks[0], skip_targets=[tasks[1]["starid"], 120]))
        manager.save_results(result_of(task, STATUS.ERROR, errors=["no flux"]) for task in tasks[2:6])
        await_replay(server.engine, standby)
        assert read_everything(standby, tmp_path / "standby") == read_everything(url, tmp_path / "server")
        assert get_status(standby)["holder"] == get_status(url)["holder"]


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_isolation(server: Server, standby: str, level: str) -> None:
    """An isolation level of the database's settings that a standby does not have keeps no command from reading."""
    empty_list(server.engine, many(3))
    with server.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE postgres SET default_transaction_isolation = '{level}'")
    try:
        await_replay(server.engine, standby)
        assert get_status(standby)["numtasks"] == 3
    finally:
        with server.engine.begin() as connection:
            connection.exec_driver_sql("ALTER DATABASE postgres RESET ALL")


def test_writing(server: Server, standby: str, tmp_path: Path) -> None:
    """A call that would write is refused on a standby, and the error names the way out."""
    empty_list(server.engine, [])
    await_replay(server.engine, standby)
    calls = [
        lambda: TaskManager(standby),
        lambda: TaskManager(standby, reset=False),
        lambda: TaskManager(standby, overwrite=True),
        lambda: add_targets(standby, [TARGET]),
        lambda: copy_list(make_file(tmp_path / "todo.sqlite", many(3)), standby),
    ]
    for call in calls:
        with pytest.raises(ServerError, match="use the primary server"):
            call()
