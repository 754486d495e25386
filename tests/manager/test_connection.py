"""Contract 1: the manager, conn, cursor and session share one connection."""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import UncommittedChangesError
from photometry_tasks.models import Diagnostics, Task
from tests.support.lists import query, result_of

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])

METHODS: dict[str, Callable[[TaskManager], Any]] = {
    "get_task": lambda tm: tm.get_task(),
    "get_random_task": lambda tm: tm.get_random_task(),
    "get_number_tasks": lambda tm: tm.get_number_tasks(),
    "start_task": lambda tm: tm.start_task(1),
    "release_tasks": lambda tm: tm.release_tasks([1]),
    "save_result": lambda tm: tm.save_result(result_of({"priority": 1})),
    "summary": lambda tm: tm.summary,
    "write_summary": lambda tm: tm.write_summary(),
    "backup": lambda tm: tm.backup(),
    "close": lambda tm: tm.close(),
}
CHANGES: dict[str, Callable[[TaskManager], Any]] = {
    "cursor": lambda tm: tm.cursor.execute("UPDATE todolist SET tmag = 1 WHERE priority = 2"),
    "conn": lambda tm: tm.conn.execute("UPDATE todolist SET tmag = 1 WHERE priority = 2"),
    "session": lambda tm: tm.session.execute(update(Task).where(Task.priority == 2).values(tmag=1)),
    "object": lambda tm: setattr(tm.session.get_one(Task, 2), "tmag", 1.0),
}


def tmag_of_2(manager: TaskManager) -> float:
    tmag: float = manager.cursor.execute("SELECT tmag FROM todolist WHERE priority = 2").fetchone()["tmag"]
    return tmag


@IN_MEMORY
def test_one_connection(opened: Callable[..., TaskManager], in_memory: bool) -> None:
    """conn, cursor and session read what the manager wrote, also in memory; rows of the cursor have names."""
    manager = opened({}, load_into_memory=in_memory)
    manager.save_result(result_of({"priority": 1}))
    assert isinstance(manager.conn, sqlite3.Connection)
    assert manager.cursor.connection is manager.conn
    assert manager.conn.row_factory is sqlite3.Row
    for cursor in (manager.cursor, manager.conn, manager.conn.cursor()):
        row = cursor.execute("SELECT * FROM todolist").fetchone()
        assert isinstance(row, sqlite3.Row)
        assert row["status"] == STATUS.OK.value
    assert manager.session.get_one(Task, 1).status == STATUS.OK.value


def refuse(*_: object) -> None:
    raise AssertionError("this row is the manager's")


@pytest.mark.parametrize("factory", [None, sqlite3.Row, lambda _, row: dict(enumerate(row, start=7)), refuse])
@IN_MEMORY
def test_any_row_factory(todo: Callable[..., Path], in_memory: bool, factory: Any) -> None:
    """The manager works with any row factory that its caller sets on the connection."""
    path = todo({"tmag": 8.0}, {}, {}, {})
    with TaskManager(path, load_into_memory=in_memory) as manager:
        manager.conn.row_factory = factory
        manager.save_result(result_of({"priority": 1}, skip_targets=[102]))
        manager.save_results([result_of(task) for task in manager.claim_tasks(1)])
        manager.start_task(4)
        assert manager.get_random_task() is manager.get_task() is None
        assert manager.reset_tasks(status=STATUS.OK) == {"OK": 2, "SKIPPED": 1}
        assert manager.session.get_one(Task, 4).status == 6
        manager.backup()
        assert (manager.summary["STARTED"], manager.get_number_tasks(tmag_max=20)) == (1, 3)
        with closing(sqlite3.connect(path)) as reader:  # closing has to leave the write-ahead log to it
            unread = reader.execute("SELECT * FROM todolist")
            unread.fetchone()
            with nullcontext() if in_memory else pytest.warns(UserWarning, match="still reading"):
                manager.close()
    assert query(path, "SELECT status FROM todolist") == [(None,), (None,), (None,), (6,)]


@IN_MEMORY
def test_committed_changes_are_the_managers_too(opened: Callable[..., TaskManager], in_memory: bool) -> None:
    """The manager sees commits through cursor or session at once."""
    manager = opened({}, {}, {}, load_into_memory=in_memory)
    manager.cursor.execute("UPDATE todolist SET status = 1 WHERE priority = ?", [1])
    manager.conn.commit()
    task = manager.get_task()
    assert task is not None
    assert task["priority"] == 2
    manager.session.get_one(Task, 2).status = STATUS.ABORT.value
    manager.session.commit()
    assert manager.get_number_tasks() == 1
    manager.close()
    assert query(manager.todo_file, "SELECT status FROM todolist ORDER BY priority") == [(1,), (4,), (None,)]


@pytest.mark.sample(5)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", CHANGES)
@IN_MEMORY
def test_uncommitted_changes(opened: Callable[..., TaskManager], method: str, change: str, in_memory: bool) -> None:
    """While changes of the caller are uncommitted, every method raises and leaves them uncommitted."""
    manager = opened({}, {"tmag": 10.0}, load_into_memory=in_memory)
    CHANGES[change](manager)
    with pytest.raises(UncommittedChangesError, match=f"roll back these changes, then call {method} again"):
        METHODS[method](manager)
    if change in ("cursor", "conn"):
        manager.conn.commit()
    else:
        manager.session.commit()
    METHODS[method](manager)
    if method == "close":
        assert query(manager.todo_file, "SELECT tmag FROM todolist WHERE priority = 2") == [(1.0,)]
    else:
        assert tmag_of_2(manager) == 1.0


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("error", [UncommittedChangesError, ZeroDivisionError, KeyboardInterrupt])
@IN_MEMORY
def test_the_end_of_a_block(
    todo: Callable[..., Path], change: str, error: type[BaseException], in_memory: bool
) -> None:
    """The end of a block rolls uncommitted changes back, saves, closes, and then raises; the block's error wins."""
    path = todo({}, {"tmag": 10.0}, {})
    # The test is about the block itself.
    with pytest.raises(error) as caught, TaskManager(path, load_into_memory=in_memory) as manager:  # noqa: PT012
        manager.save_result(result_of({"priority": 1}))
        manager.start_task(3)
        CHANGES[change](manager)
        if error is not UncommittedChangesError:
            raise error
    if error is UncommittedChangesError:
        assert str(caught.value).endswith(
            "They are rolled back, the results are saved, the list is closed. Commit changes within the block."
        )
    assert list(path.parent.iterdir()) == [path]
    assert query(path, "SELECT status, tmag FROM todolist ORDER BY priority") == [(1, 10.0), (None, 10.0), (6, 10.0)]
    with TaskManager(path) as again:
        assert again.summary["OK"] == 1


def close_the_connection(manager: TaskManager) -> None:
    manager.conn.close()


def read_bytes(manager: TaskManager) -> None:
    manager.conn.text_factory = bytes


def forbid_writing(manager: TaskManager) -> None:
    manager.conn.execute("PRAGMA query_only=on")


@pytest.mark.parametrize("spoil", [close_the_connection, read_bytes, forbid_writing])
@IN_MEMORY
def test_the_end_of_a_block_with_a_spoilt_connection(
    todo: Callable[..., Path], spoil: Callable[[TaskManager], None], in_memory: bool
) -> None:
    """Whatever the caller has done to the connection, the file is not locked after the block, and has all results."""
    path = todo({}, {})
    with suppress(Exception), TaskManager(path, load_into_memory=in_memory) as manager:
        manager.save_result(result_of({"priority": 1}))
        spoil(manager)
    TaskManager(path).close()
    assert query(path, "SELECT status FROM todolist ORDER BY priority") == [(1,), (None,)]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_may_be_rolled_back(opened: Callable[..., TaskManager], change: str) -> None:
    """After a rollback by the caller, the manager works, and the changes are gone."""
    manager = opened({}, {"tmag": 10.0})
    CHANGES[change](manager)
    manager.conn.rollback()
    manager.session.rollback()
    assert manager.get_task() is not None
    assert tmag_of_2(manager) == 10.0


def test_a_session_that_only_read_does_not_disturb(opened: Callable[..., TaskManager]) -> None:
    """After reads through the session, the manager works, and the session's objects show its changes."""
    manager = opened({}, {})
    task = manager.session.get_one(Task, 1)
    assert task.status is None
    manager.start_task(1)
    assert task.status == STATUS.STARTED.value
    manager.save_result(result_of({"priority": 1}, mean_flux=5.0))
    joined = select(Task.status, Diagnostics.mean_flux).join(Diagnostics, Task.priority == Diagnostics.priority)
    assert manager.session.execute(joined).all() == [(1, 5.0)]


def test_new_and_deleted_objects_are_changes(opened: Callable[..., TaskManager]) -> None:
    """Added and deleted objects of the session are uncommitted changes too."""
    manager = opened({}, {})
    row = {"priority": 9, "starid": 9, "sector": 1, "camera": 1, "ccd": 1, "cadence": 120, "cbv_area": 110}
    manager.session.add(Task(**row))
    with pytest.raises(UncommittedChangesError):
        manager.get_task()
    manager.session.commit()
    assert manager.get_number_tasks() == 3
    manager.session.delete(manager.session.get_one(Task, 9))
    with pytest.raises(UncommittedChangesError):
        manager.get_task()
    manager.session.commit()
    assert manager.get_number_tasks() == 2


@pytest.mark.parametrize("method", ["start_task", "release_tasks", "save_result"])
@IN_MEMORY
def test_one_method_is_one_transaction(opened: Callable[..., TaskManager], method: str, in_memory: bool) -> None:
    """All reads and writes of a method are between one BEGIN IMMEDIATE and one COMMIT."""
    manager = opened({"tmag": 5.0}, {}, {}, load_into_memory=in_memory)
    manager.save_result(result_of({"priority": 1}, STATUS.ERROR, skip_targets=[102]))
    statements: list[str] = []
    manager.conn.set_trace_callback(statements.append)
    if method == "save_result":
        manager.save_result(result_of({"priority": 1}, skip_targets=[103]))
    elif method == "start_task":
        manager.start_task(3)
    else:
        manager.release_tasks([1])
    manager.conn.set_trace_callback(None)
    assert (statements[0], statements[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    assert sum(statement.startswith(("BEGIN", "COMMIT")) for statement in statements) == 2
    assert len(statements) > 2


def test_locking_mode(opened: Callable[..., TaskManager]) -> None:
    """A pipeline's PRAGMA locking_mode=NORMAL works between calls, and other programs can read then."""
    manager = opened({})
    manager.start_task(1)
    manager.cursor.execute("PRAGMA locking_mode=NORMAL")
    manager.cursor.execute("SELECT count(*) FROM todolist").fetchone()
    assert query(manager.todo_file, "SELECT status FROM todolist") == [(6,)]
    manager.save_result(result_of({"priority": 1}))


def test_other_programs_tables_can_be_made(opened: Callable[..., TaskManager]) -> None:
    """DDL through the cursor works, as TASOC's corrections need."""
    manager = opened({})
    manager.cursor.execute("ALTER TABLE todolist ADD COLUMN corr_status INTEGER DEFAULT NULL")
    manager.cursor.execute("CREATE TABLE diagnostics_corr (priority INTEGER PRIMARY KEY REFERENCES todolist)")
    manager.conn.commit()
    manager.save_result(result_of({"priority": 1}))
    assert manager.get_task() is None


@IN_MEMORY
def test_foreign_keys_hold(opened: Callable[..., TaskManager], in_memory: bool) -> None:
    """Deleting a task through the cursor deletes its diagnostics; a task that skips another cannot be deleted."""
    manager = opened({"tmag": 5.0}, {}, load_into_memory=in_memory)
    manager.save_result(result_of({"priority": 1}, skip_targets=[102]))
    with pytest.raises(sqlite3.IntegrityError):
        manager.cursor.execute("DELETE FROM todolist WHERE priority = 1")
    manager.conn.rollback()
    manager.cursor.execute("DELETE FROM todolist WHERE priority = 2")
    manager.cursor.execute("DELETE FROM todolist WHERE priority = 1")
    manager.conn.commit()
    assert manager.cursor.execute("SELECT count(*) FROM diagnostics").fetchone()[0] == 0


@IN_MEMORY
def test_the_schema_is_not_trusted(todo: Callable[..., Path], in_memory: bool) -> None:
    """Triggers and views of an untrusted file cannot call functions that the program added to the connection."""
    path = todo({}, {})
    with closing(sqlite3.connect(path)) as other:
        other.create_function("steal", 1, lambda secret: secret)
        other.execute("CREATE TRIGGER t AFTER INSERT ON diagnostics BEGIN SELECT steal(new.errors); END")
    stolen: list[object] = []
    with TaskManager(path, load_into_memory=in_memory) as manager:
        manager.conn.create_function("steal", 1, stolen.append)
        with pytest.raises(Exception, match="unsafe use of steal"):
            manager.save_result(result_of({"priority": 1}, errors=["secret"]))
        assert manager.summary["OK"] == 0
    assert stolen == []


def test_a_busy_file(opened: Callable[..., TaskManager]) -> None:
    """While another program holds the write lock, a save fails and changes nothing; later it works."""
    manager = opened({})
    manager.cursor.execute("PRAGMA busy_timeout=1")
    with closing(sqlite3.connect(manager.todo_file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception, match="database is locked"):
            manager.save_result(result_of({"priority": 1}))
        assert not manager.conn.in_transaction
        assert manager.get_task() is not None
    manager.save_result(result_of({"priority": 1}))
    assert manager.summary["OK"] == 1


def test_logger(opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture) -> None:
    """The logger is `photometry_tasks`, has no handlers, and the caller may configure and use it."""
    manager = opened({})
    assert manager.logger is logging.getLogger("photometry_tasks")
    assert manager.logger.handlers == []
    with caplog.at_level(logging.INFO, "photometry_tasks"):
        manager.logger.info("hello")
    assert "hello" in caplog.text


def test_attributes(todo: Callable[..., Path]) -> None:
    """The manager has the attributes that pipelines read."""
    with TaskManager(todo({})) as manager:
        assert manager.summary_file is None
        assert (manager.summary_interval, manager.summary_counter, manager.backup_interval) == (200, 0, 10_000)
        assert (manager.load_into_memory, manager.overwrite) == (False, False)
