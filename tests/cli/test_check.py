"""`photometry-tasks check` and `upgrade`: their output and exit codes."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.cli.main import main
from photometry_tasks.schema import HEAD, REVISIONS
from tests.support import old_files
from tests.support.lists import execute_sql, make_file, query, result_of


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


@pytest.fixture
def done(todo: Callable[..., Path]) -> Path:
    """Create a file with results, a skipped task and a pending task."""
    path = todo({"tmag": 8}, {"tmag": 9}, {"tmag": 10}, {})
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}, skip_targets=[102], filepath_lightcurve="lc/1.fits"))
        manager.save_result(result_of({"priority": 3}, STATUS.WARNING, filepath_lightcurve="lc/3.fits"))
    return path


def test_a_sound_file(done: Path) -> None:
    """A sound file has no faults, and the check does not change it."""
    before = done.read_bytes(), done.stat().st_mtime_ns
    result = run("check", done)
    assert (result.exit_code, result.output) == (0, f"{done}: 0 faults found.\n")
    assert (done.read_bytes(), done.stat().st_mtime_ns) == before
    assert list(done.parent.iterdir()) == [done]


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("DELETE FROM diagnostics WHERE priority = 3", "finished tasks without diagnostics: 3\n"),
        ("UPDATE todolist SET status = NULL", "pending tasks with diagnostics: 1, 3\n"),
        ("UPDATE todolist SET status = 6 WHERE priority IN (1, 4)", "started tasks with diagnostics: 1\n"),
        ("UPDATE todolist SET status = 17 WHERE priority > 1", "tasks with a status that does not exist: 2, 3, 4\n"),
        ("DELETE FROM todolist WHERE priority = 3", "diagnostics: 1 row with a reference to a missing row\n"),
        ("DELETE FROM todolist WHERE priority = 1", "photometry_skipped: 1 row with a reference to a missing row\n"),
        (
            "DROP INDEX unique_target_idx; UPDATE todolist SET starid = 104 WHERE priority = 3",
            "has an older schema (among others: index unique_target_idx is created)",
        ),
        (
            "PRAGMA writable_schema=1; UPDATE sqlite_master SET sql = replace(sql, 'UNIQUE ', '') "
            "WHERE name = 'diagnostics_lightcurve_idx'; PRAGMA writable_schema=0; VACUUM; PRAGMA writable_schema=1; "
            "UPDATE diagnostics SET lightcurve = 'lc/1.fits'; UPDATE sqlite_master SET "
            "sql = replace(sql, 'CREATE INDEX', 'CREATE UNIQUE INDEX') WHERE name = 'diagnostics_lightcurve_idx'",
            "tasks with the light-curve path of another task: 1\n",
        ),
        (
            "PRAGMA writable_schema=1; UPDATE sqlite_master SET sql = replace(sql, '(status)', '(camera)') "
            "WHERE name = 'status_idx'; PRAGMA writable_schema=0",
            "SQLite reports: row 2 missing from index status_idx\n",
        ),
        (
            "UPDATE diagnostics SET mask_size = x'0700000000000000', errors = x'41', elaptime = 'long'",
            "diagnostics.elaptime: 2 values of a wrong type, with priority 1, 3\n"
            "diagnostics.mask_size: 2 values of a wrong type, with priority 1, 3\n"
            "diagnostics.errors: 2 values of a wrong type, with priority 1, 3\n",
        ),
        ("UPDATE todolist SET cadence = 1.5 WHERE priority = 4", "todolist.cadence: 1 value of a wrong type, with"),
        ("UPDATE diagnostics SET errors = CAST(x'c3' AS TEXT)", "diagnostics.errors: 2 values of a wrong type"),
        (
            "INSERT INTO photometry_tasks_progress VALUES (60, x'01', 0, 0, NULL)",
            "photometry_tasks_progress.saved: 1 value of a wrong type, with minute 60\n",
        ),
    ],
)
def test_faults(done: Path, sql: str, fault: str) -> None:
    """Each contradiction is found and named, and the exit code is 1."""
    change(done, sql)
    result = run("check", done)
    assert fault in result.output
    assert result.exit_code == 1


#: A chain, an ERROR that covers, and a finished task that is covered, as TASOC leaves them; own verdicts.
SKIPS_OF_TASOC = """
    INSERT INTO photometry_skipped VALUES (2, 1), (3, 2), (5, 4), (6, 4), (6, 7), (7, 1), (8, 9), (10, 1),
        (12, 4), (13, 12);
    UPDATE todolist SET status = 5 WHERE priority IN (2, 3, 5, 6, 8, 11, 12, 13);
    UPDATE todolist SET status = 2 WHERE priority = 4;
    UPDATE todolist SET status = 1 WHERE priority IN (1, 7);
    INSERT INTO diagnostics (priority, method_used, elaptime)
        VALUES (1, 'halo', 1), (2, 'halo', 1), (4, 'halo', 1), (7, 'halo', 1), (8, 'halo', 1), (11, 'halo', 1),
        (13, 'halo', 1)
"""


@pytest.mark.both_databases
def test_notes(todo: Callable[..., Any]) -> None:
    """States of TASOC that the rule would not give are notes; `reset-uncovered` returns the uncovered tasks."""
    target = todo(*[{"tmag": float(n)} for n in range(1, 14)])
    with TaskManager(target) as manager:
        execute_sql(manager, *SKIPS_OF_TASOC.split(";"))
    TaskManager(target, reset=False).close()
    output = run("check", target)
    assert "Note: ERROR and ABORT tasks that keep 3 stars from being measured: 4;" in output.output
    assert "Note: SKIPPED tasks that no task covers: 3, 5, 6, 12; " in output.output
    assert "Note: tasks that another task covers, but that are not SKIPPED: 7, 10; " in output.output
    assert output.exit_code == 0
    before = query(target, "SELECT * FROM todolist ORDER BY priority")
    assert "4 SKIPPED tasks would return to pending." in run("reset-uncovered", target, "--dry-run").output
    assert query(target, "SELECT * FROM todolist ORDER BY priority") == before
    assert "4 SKIPPED tasks returned to pending." in run("reset-uncovered", target).output
    statuses = dict(query(target, "SELECT priority, status FROM todolist"))
    returned = dict.fromkeys((3, 5, 6, 12))
    assert statuses == {1: 1, 2: 5, 4: 2, 7: 1, 8: 5, 9: None, 10: None, 11: 5, 13: 5, **returned}
    skips = query(target, "SELECT * FROM photometry_skipped ORDER BY 1, 2")
    assert skips == [(2, 1), (7, 1), (8, 9), (10, 1), (13, 12)]
    assert "SKIPPED tasks that no task" not in run("check", target).output
    assert "0 SKIPPED tasks returned" in run("reset-uncovered", target).output


@pytest.mark.both_databases
def test_a_star_that_two_failed_tasks_cover(todo: Callable[..., Any]) -> None:
    """A star that an ERROR and an ABORT keep from being measured is counted once."""
    target = todo(*[{"tmag": float(n)} for n in range(1, 4)])
    skips = "INSERT INTO photometry_skipped VALUES (3, 1), (3, 2); UPDATE todolist SET status = 5 WHERE priority = 3"
    with TaskManager(target) as manager:
        execute_sql(manager, *skips.split(";"))
        execute_sql(manager, *(f"UPDATE todolist SET status = {2 * n} WHERE priority = {n}" for n in (1, 2)))
    assert "ERROR and ABORT tasks that keep 1 star from being measured: 1, 2; a reset" in run("check", target).output


@pytest.mark.both_databases
def test_codes_in_place_of_magnitudes(todo: Callable[..., Any]) -> None:
    """Magnitudes that no star has are a note with its remedy; an unknown magnitude and the limits are not."""
    target = todo(*[{"tmag": tmag} for tmag in (-99, -10.01, -10, None, 30, 30.01)])
    output = run("check", target).output
    assert "Note: tasks with a code in place of the magnitude, outside -10 to 30: 1, 2, 6; store NULL" in output
    assert "0 faults found" in output


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.both_databases
def test_faults_of_a_list_in_use(todo: Callable[..., Any], in_memory: bool) -> None:
    """Tasks that a program has set to pending by SQL, without their results, are named while a manager has the list."""
    target = todo({"tmag": 8}, {"tmag": 9}, {}, {})
    with TaskManager(target, load_into_memory=in_memory) as manager:
        manager.save_result(result_of({"priority": 1}, skip_targets=[102]))
        manager.save_result(result_of({"priority": 3}))
        execute_sql(manager, "UPDATE todolist SET status = NULL WHERE priority <= 2")
        manager.backup()
        output = run("check", target).output
    assert "pending tasks with diagnostics: 1\n" in output
    assert "started tasks" not in output


def test_many_faults_are_shown_in_part(tmp_path: Path) -> None:
    """Of many tasks with a fault, the first five are listed."""
    path = make_file(tmp_path / "todo.sqlite", [{"status": 1}] * 9)
    assert "finished tasks without diagnostics: 1, 2, 3, 4, 5, …\n" in run("check", path).output


def test_leftovers(done: Path) -> None:
    """Leftover files of a killed writer are named."""
    temporary = ".photometry_tasks-01234567-0123456789abcdef.tmp"
    done.with_name(temporary).touch()
    with closing(sqlite3.connect(done)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("UPDATE todolist SET camera = 2")
        connection.commit()
        output = run("check", done).output
    assert "leftover file todo.sqlite-wal: another program" in output
    assert f"leftover file {temporary}: another program" in output


def test_a_file_whose_writer_was_killed(tmp_path: Path) -> None:
    """A file with an interrupted transaction is not read; the error names the command that rolls it back."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "6.3", 1000)
    copy = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN")
        connection.execute("UPDATE todolist SET camera = 9, tmag = 3.25")
        # As after a kill: the half-written file, and the journal.
        copy.write_bytes(path.read_bytes())
        copy.with_name("copy.sqlite-journal").write_bytes(path.with_name("todo.sqlite-journal").read_bytes())
        connection.execute("ROLLBACK")
    for command in ("check", "status"):
        result = run(command, copy)
        assert result.exit_code == 1
        assert f"Roll the interrupted write back with `photometry-tasks upgrade {copy}`" in result.output
    assert run("upgrade", copy).exit_code == 0
    assert run("check", copy).exit_code == 0
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM todolist WHERE camera = 9").fetchone() == (0,)


def test_an_older_file(tmp_path: Path) -> None:
    """An older file is a fault, and so is any reason against its upgrade; `status` shows the file nevertheless."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "3.0")
    result = run("check", path)
    assert "has an older schema" in result.output
    assert result.exit_code == 1
    change(path, "UPDATE todolist SET sector = 99 WHERE priority = 1")
    assert "todolist.cadence has no value for priority 1," in run("check", path).output
    change(path, "UPDATE todolist SET sector = 1 WHERE priority = 1")
    before = path.read_bytes()
    assert '"numtasks": 60' in run("status", path, "--json").output
    assert path.read_bytes() == before


def test_upgrade(tmp_path: Path) -> None:
    """`upgrade --check` lists the changes, with exit code 1 if there are any; `upgrade` makes them, once."""
    path = old_files.make_old_file(tmp_path / "to do.sqlite", "5.0")
    before = path.read_bytes()
    asked = run("upgrade", path, "--check")
    assert asked.exit_code == 1
    lines = asked.output.splitlines()
    assert lines[:4] == [
        "todolist.cadence is added",
        "index todolist_datasource_idx is created",
        "index unique_target_idx is created",
        "revision 0001: Schema of TASOC release 6.3",
    ]
    assert [line.partition(":")[0] for line in lines[3:-1]] == [f"revision {name}" for name in REVISIONS]
    next_step = f" Upgrade it with `photometry-tasks upgrade '{path}'`."
    assert lines[-1] == f"{path} would be upgraded to revision {HEAD}.{next_step}"
    assert path.read_bytes() == before
    upgraded = run("upgrade", path)
    assert upgraded.exit_code == 0
    assert upgraded.output == asked.output.replace("would be upgraded", "is upgraded").replace(next_step, "")
    for arguments in ((path, "--check"), (path,)):
        again = run("upgrade", *arguments)
        assert (again.exit_code, again.output) == (0, f"{path} is up to date: revision {HEAD}.\n")


def test_upgrade_of_nothing(tmp_path: Path) -> None:
    """A path without a file is an error, and no file is created."""
    assert run("upgrade", tmp_path / "todo.sqlite").exit_code == 1
    assert list(tmp_path.iterdir()) == []
