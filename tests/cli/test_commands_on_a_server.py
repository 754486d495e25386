"""The commands with a URL in place of a path."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.cli import main
from tests.support.lists import query, result_of
from tests.support.target_lists import MIT

GOOD = "tests.support.functions:good"


@pytest.fixture
def url(postgresql: Engine) -> Any:
    """Make an empty database."""
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS commands WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE commands"))
    return postgresql.url.set(database="commands").render_as_string(hide_password=False)


@pytest.fixture
def tell(url: str) -> Callable[..., str]:
    """Run a command on the list, and return what it prints."""

    def run(command: str, *arguments: object, code: int = 0) -> str:
        outcome = CliRunner().invoke(main, [command, url, *map(str, arguments)])
        assert outcome.exit_code == code, outcome.output
        return outcome.output

    return run


def test_from_a_list_to_results(tell: Callable[..., str], url: str, tmp_path: Path) -> None:
    """A list is made, worked on, looked at and written out, as it is with a file."""
    listed = tmp_path / "all_targets_S001_v1.csv"
    listed.write_text(MIT)
    assert "There is no TODO-list" in tell("status", code=1)
    assert "tasks added" in tell("init", listed)
    assert "0 tasks added" in tell("init", listed)
    tell("init", listed, "--datasource", "tpf")
    assert "is up to date: revision" in tell("upgrade", "--check")
    ((number,),) = query(url, "SELECT count(*) FROM todolist")
    assert query(url, "SELECT reltuples FROM pg_class WHERE relname = 'todolist'") == [(number,)]
    assert "1 results" in tell("run", GOOD, "--jobs", "1", "--limit", "1")
    assert f"{number - 1} results (0 errors)" in tell("work", GOOD, "--jobs", "1")
    found = json.loads(tell("status", "--json"))
    assert (found["status"]["OK"], found["holder"], found["numtasks"]) == (number, None, number)
    with TaskManager(url, reset=False) as manager:
        assert json.loads(tell("status", "--json"))["holder"].startswith("1 managers (")
        manager.save_result(result_of({"priority": 1}, STATUS.ERROR, errors="naïve \\ 100% error"))
    assert "naïve \\ 100% error" in tell("status")
    shown = tell("status", "--task", "1")
    assert "Attempts at task 1" in shown
    assert "OK" in shown
    (attempt,) = json.loads(tell("status", "--task", "1", "--json"))
    assert (attempt["priority"], attempt["how"]) == (1, "OK")
    assert "There is no task with priority 99" in tell("status", "--task", "99", code=1)
    assert f"priority={2**63}" in tell("status", "--task", 2**63, code=1)
    assert "faults found: 0" in tell("check")
    assert f"{number} tasks written" in tell("export", tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["2"] + ["1"] * (number - 1)
    tell("report", "-o", tmp_path / "report.html")
    assert "error" in (tmp_path / "report.html").read_text()
    assert "1 tasks (1 ERROR) would go back" in tell("reset", "--status", "ERROR", "--dry-run")
    assert query(url, "SELECT count(*) FROM diagnostics") == [(number,)]
    assert "1 tasks (1 ERROR) are pending again" in tell("reset", "--error-like", "100%")
    assert f"{number} tasks, {number - 1} results" in tell("copy", tmp_path / "copy.sqlite")
    assert query(tmp_path / "copy.sqlite", "SELECT count(*) FROM diagnostics") == [(number - 1,)]
    assert "it holds" in tell("copy", tmp_path / "copy.sqlite", code=1)
    # What a copied list says is running is nobody's: no worker takes it, this command returns it.
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("UPDATE todolist SET status = 6 WHERE priority = 1"))
    assert "0 results" in tell("work", GOOD, "--jobs", "1")
    assert "1 tasks (1 STARTED) are pending again" in tell("reset", "--status", "STARTED")
    assert "1 results (0 errors)" in tell("work", GOOD, "--jobs", "1")


def test_a_list_of_an_older_release(tell: Callable[..., str], url: str, tmp_path: Path) -> None:
    """A server's list is upgraded by command only; until then the others say so."""
    listed = tmp_path / "list.csv"
    listed.write_text(MIT)
    tell("init", listed, "--sector", "1")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE photometry_tasks_version SET version_num = '0004'"))
        connection.execute(text("DROP TABLE photometry_tasks_attempts, photometry_tasks_workers"))
    for command in (["run", GOOD], ["work", GOOD], ["init", listed], ["export", tmp_path / "x.csv"]):
        assert "photometry-tasks upgrade" in tell(*command, code=1)
    assert "PENDING" in tell("status")
    assert "revision 0005" in tell("upgrade")
    assert "results" in tell("work", GOOD, "--jobs", "1")
