"""Putting back what the last reset by hand deleted."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import CannotUndoError
from photometry_tasks.storage.sqlite import result_log
from tests.support.commands import Call
from tests.support.lists import ask, empty_list, execute_sql, make_file, many, query, result_of
from tests.support.model import rows_of_a_field, stars
from tests.support.processes import kill, running

pytestmark = pytest.mark.both_databases

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])

TABLES = (
    "todolist",
    "diagnostics",
    "photometry_skipped",
    "photometry_tasks_own_skips",
    "photometry_tasks_extra",
    "photometry_tasks_attempts",
)


def state(manager: TaskManager) -> list[Any]:
    """Return all rows that a reset changes."""
    rows = [sorted(ask(manager, f"SELECT * FROM {table}"), key=repr) for table in TABLES]
    manager.session.rollback()
    return rows


def fill(manager: TaskManager) -> None:
    """Save results of every kind: 1 covers 2 and 3, 4 says that 5 is brighter, 6 and 7 failed, 8 has own values."""
    for priority, status, details in (
        (2, STATUS.OK, {"filepath_lightcurve": "two.fits", "mean_flux": float("inf")}),
        (1, STATUS.OK, {"skip_targets": [102, 103]}),
        (4, STATUS.WARNING, {"skip_targets": [105], "errors": "naïve \\x00 'quoted'\nlines"}),
        (6, STATUS.ERROR, {"kind": "k", "errors": "boom"}),
        (7, STATUS.ABORT, {}),
        (8, STATUS.OK, {"extra": {"a": 1}}),
    ):
        row = {"priority": priority, "starid": 100 + priority}
        manager.save_result(result_of(row, status, **details))


ROWS = [{"tmag": tmag} for tmag in (5.0, 8.0, 9.0, 11.0, 10.0, 12.0, 13.0, 14.0, 15.0)]


@pytest.mark.sample(5)
@IN_MEMORY
@pytest.mark.parametrize(
    "choice", [{"everything": True}, {"priority": [1, 4]}, {"status": STATUS.SKIPPED}, {"kind": "k"}]
)
def test_undo(todo: Callable[..., Any], in_memory: bool, choice: dict[str, Any]) -> None:
    """Undo puts back statuses, diagnostics, skips, own values and the failures that count, after a reopening too."""
    target = todo(*ROWS)
    with TaskManager(target) as manager:
        fill(manager)
        before, counts = state(manager), dict(manager.summary)
    with TaskManager(target, reset=False, load_into_memory=in_memory) as manager:
        returned = manager.reset_tasks(**choice)
        assert (state(manager) != before) is bool(returned or choice == {"status": STATUS.SKIPPED})
    with TaskManager(target, reset=False, load_into_memory=in_memory) as manager:
        restored = manager.undo_reset()
        assert sum(restored.values()) == sum(returned.values())
        assert state(manager) == before
        names = [status.name for status in STATUS]
        assert [manager.summary[name] for name in names] == [counts[name] for name in names]
        with pytest.raises(CannotUndoError, match="no reset is kept, or it was undone already"):
            manager.undo_reset()
    with TaskManager(target, reset=False) as manager:
        assert state(manager) == before


@pytest.mark.files_only
def test_columns_of_others(todo: Callable[..., Path]) -> None:
    """The columns that other programs added come back with their values, of any type."""
    path = todo(*many(2))
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}))
        execute_sql(
            manager,
            'ALTER TABLE diagnostics ADD COLUMN "Their column" BLOB',
            "ALTER TABLE diagnostics ADD COLUMN corr REAL DEFAULT 4",
            "UPDATE diagnostics SET \"Their column\" = x'00ff', corr = 0.1",
        )
        before = state(manager)
        manager.reset_tasks(everything=True)
        manager.undo_reset()
        assert state(manager) == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("a INTEGER GENERATED ALWAYS AS (priority * 2) STORED", None),
        ("a BIGINT GENERATED ALWAYS AS IDENTITY", None),
        ("a JSONB", '\'{"b": [1, {"c": null}]}\''),
        ("a JSON", "'[1, {}]'"),
        ("a TIMESTAMPTZ", "'infinity'"),
        ("a NUMERIC[]", "'{1.50, NULL}'"),
        ("a BYTEA", "'\\x00ff'"),
        ('"Odd : name%" TEXT', "'naïve'"),
    ],
)
def test_columns_of_others_on_a_server(server_database: Engine, column: str, value: str | None) -> None:
    """Columns of every type come back; a generated column is made anew."""
    url = empty_list(server_database, ROWS)
    name = column.rpartition('"')[0] + '"' if '"' in column else "a"
    with TaskManager(url) as manager:
        fill(manager)
        execute_sql(manager, f"ALTER TABLE diagnostics ADD COLUMN {column}".replace("%", "%%"))
        try:
            if value is not None:
                execute_sql(manager, f"UPDATE diagnostics SET {name} = {value}".replace("%", "%%"))
            shown = "SELECT CAST(d AS TEXT) FROM diagnostics AS d ORDER BY priority"
            before = query(url, shown)
            manager.reset_tasks(everything=True)
            manager.undo_reset()
            after = query(url, shown)
            assert after == before if "IDENTITY" not in column else len(after) == len(before)
        finally:
            execute_sql(manager, f"ALTER TABLE diagnostics DROP COLUMN {name}".replace("%", "%%"))


@pytest.mark.files_only
@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("ALTER TABLE diagnostics ADD COLUMN twice AS (elaptime * 2)", "SELECT 1", None),
        ("ALTER TABLE diagnostics ADD COLUMN corr", "ALTER TABLE diagnostics DROP COLUMN corr", "diagnostics.corr was"),
        ("UPDATE diagnostics SET errors = CAST(x'e9' AS TEXT)", "SELECT 1", "diagnostics held a value that could not"),
        ("SELECT 1", "DELETE FROM todolist WHERE priority = 7", "task 7 was deleted since"),
    ],
)
def test_odd_columns_of_others(todo: Callable[..., Path], before: str, after: str, problem: str | None) -> None:
    """A generated column is made anew; a column, a text or a task that cannot be put back is named."""
    path = todo(*ROWS)
    with TaskManager(path) as manager:
        fill(manager)
        execute_sql(manager, before)
        assert sum(manager.reset_tasks(everything=True).values()) == 7
        execute_sql(manager, after)
        if problem is None:
            assert sum(manager.undo_reset().values()) == 7
        else:
            with pytest.raises(CannotUndoError, match=problem):
                manager.undo_reset()


def save(manager: TaskManager) -> None:
    manager.save_result(result_of({"priority": 9}))


CHANGES: dict[str, tuple[Callable[[TaskManager], Any], str]] = {
    "a result of another task": (save, r"1 result saved since \(the latest: priority 9\)"),
    "a second result": (lambda manager: manager.save_result(result_of({"priority": 1})), "1 result saved since"),
    "a claim": (lambda manager: manager.claim_tasks(1), "task 1 has changed since, and is STARTED now"),
    "plain SQL": (
        lambda manager: execute_sql(manager, "UPDATE todolist SET status = 4 WHERE priority = 6"),
        "task 6 has changed since, and is ABORT now",
    ),
    "a reset of nothing": (lambda manager: manager.reset_tasks(priority=9), ""),
}


@IN_MEMORY
@pytest.mark.parametrize(("change", "problem"), CHANGES.values(), ids=CHANGES)
def test_changes_since(todo: Callable[..., Any], in_memory: bool, change: Any, problem: str) -> None:
    """If a result was saved or a task changed since, nothing is put back, and the error says why."""
    target = todo(*ROWS)
    with TaskManager(target, load_into_memory=in_memory) as manager:
        fill(manager)
        manager.reset_tasks(everything=True)
        change(manager)
        after = state(manager)
        if problem:
            with pytest.raises(CannotUndoError, match=problem):
                manager.undo_reset()
            assert state(manager) == after
        else:
            assert sum(manager.undo_reset().values()) == 7
        manager.reset_tasks(everything=True)  # the next call works


def test_overwrite_keeps_nothing(todo: Callable[..., Any]) -> None:
    """After `overwrite` there is nothing to put back; opening keeps what the last reset deleted."""
    target = todo(*ROWS)
    with TaskManager(target) as manager:
        fill(manager)
        manager.reset_tasks(priority=8)
    with TaskManager(target) as manager:  # returns 6 and 7, which the reset left alone
        assert manager.undo_reset() == {"OK": 1}
        manager.reset_tasks(priority=8)
    with TaskManager(target, overwrite=True) as manager, pytest.raises(CannotUndoError, match="no reset is kept"):
        manager.undo_reset()


def test_a_release_is_no_change(todo: Callable[..., Any]) -> None:
    """A task that was only claimed and released since is as the reset left it."""
    target = todo(*ROWS)
    with TaskManager(target) as manager:
        fill(manager)
        manager.reset_tasks(priority=8)
        (task,) = manager.claim_tasks(1, priority=8)
        manager.release_tasks([task["priority"]])
        assert manager.undo_reset() == {"OK": 1}


FIELDS = {
    "rows": rows_of_a_field,
    "results": st.lists(
        st.tuples(st.integers(0, 13), st.sampled_from([*STATUS]), st.lists(stars, max_size=5)), max_size=12
    ),
    "chosen": st.sets(st.integers(1, 14), min_size=1, max_size=4),
}


@pytest.mark.files_only
@settings(max_examples=15)
@given(**FIELDS)
def test_any_field(tmp_path_factory: pytest.TempPathFactory, rows: Any, results: Any, chosen: set[int]) -> None:
    """Undo puts back the skips of any field with their cascades."""
    path = make_file(tmp_path_factory.mktemp("field") / "todo.sqlite", rows)
    with TaskManager(path) as manager:
        for place, status, listed in results:
            if place < len(rows) and status is not STATUS.STARTED:
                manager.save_result(result_of({"priority": place + 1}, status, skip_targets=listed))
        before = state(manager)
        if manager.reset_tasks(priority=sorted(chosen)) or state(manager) != before:
            manager.undo_reset()
        assert state(manager) == before


def reset_and_wait(connection: Connection, path: Path, chunk: int) -> None:
    result_log._CHUNK = chunk
    manager = TaskManager(path, load_into_memory=True, backup_interval=None, reset=False)
    manager.reset_tasks(everything=True)
    connection.send(None)
    connection.recv()


@pytest.mark.files_only
@pytest.mark.parametrize("chunk", [100_000, 2])
def test_a_reset_that_was_logged(todo: Callable[..., Path], chunk: int) -> None:
    """A reset in memory mode can be undone after a kill too, also if its log takes several lines."""
    path = todo(*ROWS)
    with TaskManager(path) as manager:
        fill(manager)
        before = state(manager)
    with running(reset_and_wait, path, chunk) as (process, connection):
        connection.recv()
        kill(process)
    with TaskManager(path, reset=False) as manager:
        assert manager.get_number_tasks() == len(ROWS)
        manager.undo_reset()
        assert state(manager) == before


def test_on_a_server_beside_others(server_database: Engine) -> None:
    """A task that another manager runs by now is not put back."""
    url = empty_list(server_database, ROWS)
    with TaskManager(url) as ours, TaskManager(url, reset=False) as other:
        fill(ours)
        ours.reset_tasks(priority=8)
        assert other.claim_tasks(1, priority=8)
        with pytest.raises(CannotUndoError, match="task 8 has changed since, and is STARTED now"):
            ours.undo_reset()


def test_the_command(todo: Callable[..., Any], call: Call) -> None:
    """`undo` puts the results back, without resetting others, and says so."""
    target = todo(*ROWS)
    with TaskManager(target) as manager:
        fill(manager)
    before = query(target, "SELECT * FROM diagnostics ORDER BY priority")
    assert call("reset", target, "--status", "OK,ERROR", "--yes").returncode == 0
    assert len(query(target, "SELECT * FROM diagnostics")) < len(before)
    undone = call("undo", target)
    assert "restored, as before the last reset." in undone.stdout
    assert query(target, "SELECT * FROM diagnostics ORDER BY priority") == before
    again = call("undo", target)
    assert (again.returncode, again.stdout) == (1, "")
    assert "the last reset cannot be undone: no reset is kept" in again.stderr
