"""The commands with a URL instead of a path."""

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
from photometry_tasks.cli.main import main
from tests.support.lists import query, result_of
from tests.support.target_lists import MIT

GOOD = "tests.support.functions:good"


@pytest.fixture
def url(postgresql: Engine) -> Any:
    """Create an empty database."""
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS commands WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE commands"))
    return postgresql.url.set(database="commands").render_as_string(hide_password=False)


@pytest.fixture
def output_of(url: str) -> Callable[..., str]:
    """Run a command on the list, and return its output."""

    def run(command: str, *arguments: object, code: int = 0) -> str:
        outcome = CliRunner().invoke(main, [command, url, *map(str, arguments)])
        assert outcome.exit_code == code, outcome.output
        return outcome.output

    return run


def test_from_a_list_to_results(output_of: Callable[..., str], url: str, tmp_path: Path) -> None:
    """A list on a server is created, run, shown, exported and reset like a file."""
    listed = tmp_path / "all_targets_S001_v1.csv"
    listed.write_text(MIT)
    assert "has no TODO-list" in output_of("status", code=1)
    assert "already listed. Run pending tasks with `photometry-tasks work 'postgresql" in output_of("init", listed)
    assert "0 tasks added" in output_of("init", listed)
    output_of("init", listed, "--datasource", "tpf")
    assert "is up to date: revision" in output_of("upgrade", "--check")
    ((number,),) = query(url, "SELECT count(*) FROM todolist")
    assert query(url, "SELECT reltuples FROM pg_class WHERE relname = 'todolist'") == [(number,)]
    assert "1 result (0 errors)" in output_of("run", GOOD, "--jobs", "1", "--limit", "1")
    assert f"{number - 1} results (0 errors)" in output_of("work", GOOD, "--jobs", "1")
    found = json.loads(output_of("status", "--json"))
    assert (found["status"]["OK"], found["holder"], found["numtasks"]) == (number, None, number)
    with TaskManager(url, reset=False) as manager:
        assert json.loads(output_of("status", "--json"))["holder"].startswith("1 manager (")
        manager.save_result(result_of({"priority": 1}, STATUS.ERROR, errors="naïve \\ 100% error"))
    assert "naïve \\ 100% error" in output_of("status")
    shown = output_of("status", "--task", "1")
    assert "Attempts at task 1" in shown
    assert "OK" in shown
    attempts = json.loads(output_of("status", "--task", "1", "--json"))
    assert [(attempt["priority"], attempt["how"]) for attempt in attempts] == [(1, "OK"), (1, "ERROR")]
    assert "Task 99 does not exist" in output_of("status", "--task", "99", code=1)
    assert f"priority={2**63}" in output_of("status", "--task", 2**63, code=1)
    assert "0 faults found" in output_of("check")
    assert f"{number} tasks written" in output_of("export", tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["2"] + ["1"] * (number - 1)
    output_of("report", "-o", tmp_path / "report.html")
    assert "error" in (tmp_path / "report.html").read_text()
    assert "1 task (1 ERROR) would return to pending" in output_of("reset", "--status", "ERROR", "--dry-run")
    assert query(url, "SELECT count(*) FROM diagnostics") == [(number,)]
    assert "1 task (1 ERROR) returned to pending" in output_of("reset", "--error-like", "100%")
    assert f"{number} tasks, {number - 1} results" in output_of("copy", tmp_path / "copy.sqlite")
    assert query(tmp_path / "copy.sqlite", "SELECT count(*) FROM diagnostics") == [(number - 1,)]
    assert "it holds" in output_of("copy", tmp_path / "copy.sqlite", code=1)
    # A running task of a copied list has no owner: `work` runs it.
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("UPDATE todolist SET status = 6 WHERE priority = 1"))
    assert "1 result (0 errors)" in output_of("work", GOOD, "--jobs", "1")


def test_a_list_of_an_older_release(output_of: Callable[..., str], url: str, tmp_path: Path) -> None:
    """A list on a server is upgraded by `upgrade` only; until then other commands name that command."""
    listed = tmp_path / "list.csv"
    listed.write_text(MIT)
    output_of("init", listed, "--sector", "1")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE photometry_tasks_version SET version_num = '0004'"))
        connection.execute(
            text("DROP TABLE photometry_tasks_attempts, photometry_tasks_workers, photometry_tasks_extra")
        )
    for command in (["run", GOOD], ["work", GOOD], ["init", listed], ["export", tmp_path / "x.csv"]):
        assert "photometry-tasks upgrade" in output_of(*command, code=1)
    assert "PENDING" in output_of("status")
    assert "revision 0006" in output_of("upgrade")
    assert "result" in output_of("work", GOOD, "--jobs", "1")
