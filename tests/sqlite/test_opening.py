"""Contracts 4 and 9: opening, in memory and on disk; backup; closing."""

import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from photometry_tasks import STATUS, TaskManager, build_constraints
from photometry_tasks.errors import (
    BackupError,
    ClosedError,
    DiskFullError,
    FileChangedError,
    TodoFileInUseError,
    WrongThreadError,
)
from photometry_tasks.models import Task
from photometry_tasks.storage.sqlite import database
from tests.support.lists import make_file, query, result_of

UNFINISHED = [
    {"status": None},
    {"status": STATUS.STARTED.value, "camera": 1},
    {"status": STATUS.ERROR.value, "camera": 2},
    {"status": STATUS.ABORT.value, "camera": 3},
    {"status": STATUS.OK.value},
    {"status": STATUS.WARNING.value},
    {"status": STATUS.SKIPPED.value},
    {"status": STATUS.UNKNOWN.value},
]


#: The other files of a TODO-file while a manager works on it in memory.
WORKING = ["todo.sqlite-lock", "todo.sqlite-results"]


def beside(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.iterdir() if other != path)


def statuses(path: Path) -> list[int | None]:
    return [status for (status,) in query(path, "SELECT status FROM todolist ORDER BY priority")]


def add_diagnostics(path: Path, *priorities: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        rows = [(priority, "aperture", 1.0) for priority in priorities]
        connection.executemany("INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (?, ?, ?)", rows)
        connection.commit()


# --- finding the file ---


def test_a_directory_stands_for_the_file_in_it(todo: Callable[..., Path], tmp_path: Path) -> None:
    """A directory stands for the `todo.sqlite` in it; `todo_file` is the absolute path."""
    path = todo({})
    with TaskManager(tmp_path) as manager:
        assert manager.todo_file == str(path)


def test_a_path_may_be_relative(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path stays valid when the program changes its directory."""
    path = todo({})
    monkeypatch.chdir(path.parent)
    with TaskManager("todo.sqlite", load_into_memory=True) as manager:
        monkeypatch.chdir("/")
        manager.start_task(1)
    assert statuses(path) == [STATUS.STARTED.value]


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(
    "name", ["to do.sqlite", "a#b", "a?mode=memory", "100%41.sqlite", "naïve ★.sqlite", "a'b\"c", "[a-z]*", "x" * 240]
)
def test_odd_characters_in_paths(tmp_path: Path, name: str, in_memory: bool) -> None:
    """A path with special characters of URLs or shells opens exactly that file."""
    path = make_file(tmp_path / "plain.sqlite", [{}]).rename(tmp_path / name)
    with TaskManager(path, load_into_memory=in_memory, summary=tmp_path / f"{name}.json") as manager:
        manager.save_result(result_of({"priority": 1}))
        manager.backup()
        assert (tmp_path / f"{name}-lock").exists()
        assert (tmp_path / f"{name}-results").exists() is in_memory
    assert statuses(path) == [STATUS.OK.value]
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / f"{name}.json"])


def test_a_path_with_two_slashes(todo: Callable[..., Path]) -> None:
    """A path may begin with two slashes, which would begin a host in a URL."""
    with TaskManager("/" + str(todo({}))) as manager:
        assert manager.get_task() is not None


def test_a_missing_file(tmp_path: Path) -> None:
    """A missing file raises a FileNotFoundError with the command that creates a file, and is not created."""
    with pytest.raises(FileNotFoundError, match="photometry-tasks init"):
        TaskManager(tmp_path / "todo.sqlite")
    with pytest.raises(FileNotFoundError):
        TaskManager(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- resets at opening ---


@pytest.mark.parametrize("in_memory", [False, True])
def test_what_was_cut_short_is_pending_again(todo: Callable[..., Path], in_memory: bool) -> None:
    """STARTED, ABORT and ERROR return to pending without diagnostics; other tasks keep status and diagnostics."""
    path = todo(*UNFINISHED)
    add_diagnostics(path, 2, 3, 4, 5, 6, 7, 8)
    TaskManager(path, load_into_memory=in_memory).close()
    assert statuses(path) == [None, None, None, None, 1, 3, 5, 0]
    assert query(path, "SELECT priority FROM diagnostics") == [(5,), (6,), (7,), (8,)]


@pytest.mark.parametrize(
    "chosen",
    [
        {"camera": 2},
        {"camera": [2], "tmag_max": 10},
        ["camera = 2"],
        ["todolist.camera = 2 OR 1 = 0", "tmag > 5"],
        build_constraints(camera=2),
        [Task.camera == 2],
        ["camera IN (2) AND datasource <> 'tpf:2'"],
    ],
)
def test_cleanup_constraints(todo: Callable[..., Path], chosen: Any) -> None:
    """Only tasks that match the constraints return to pending; constraints are arguments, texts or expressions."""
    path = todo(*UNFINISHED)
    add_diagnostics(path, 2, 3, 4)
    TaskManager(path, cleanup_constraints=chosen).close()
    assert statuses(path) == [None, 6, None, 4, 1, 3, 5, 0]
    assert query(path, "SELECT priority FROM diagnostics") == [(2,), (4,)]


def test_a_text_stands_in_parentheses(todo: Callable[..., Path]) -> None:
    """An OR in a condition does not affect other conditions."""
    path = todo(*UNFINISHED)
    TaskManager(path, cleanup_constraints=["camera = 2 OR camera = 3", "camera = 3"]).close()
    assert statuses(path) == [None, 6, 2, None, 1, 3, 5, 0]


@pytest.mark.parametrize("chosen", ["camera = 2", 5, [5], {1, 2}, [None]])
def test_other_cleanup_constraints_are_refused(todo: Callable[..., Path], chosen: Any) -> None:
    """Any value but a dict or a list of conditions raises a ValueError, and changes nothing."""
    path = todo(*UNFINISHED)
    with pytest.raises(ValueError, match=r"^cleanup_constraints should be dict or list$"):
        TaskManager(path, cleanup_constraints=chosen)
    assert statuses(path) == [None, 6, 2, 4, 1, 3, 5, 0]


@pytest.mark.parametrize("chosen", [{"cameras": 1}, {"return_list": True}])
def test_a_misspelt_cleanup_constraint_is_a_type_error(todo: Callable[..., Path], chosen: Any) -> None:
    """The keys of a dict are arguments of build_constraints."""
    with pytest.raises(TypeError):
        TaskManager(todo({}), cleanup_constraints=chosen)


def test_a_bad_text_changes_nothing(todo: Callable[..., Path]) -> None:
    """A condition that is not SQL raises an error; the file is unchanged, and opens again."""
    path = todo(*UNFINISHED)
    with pytest.raises(Exception, match="no such column"):
        TaskManager(path, cleanup_constraints=["kamera = 2"], overwrite=True)
    assert statuses(path) == [None, 6, 2, 4, 1, 3, 5, 0]
    assert list(path.parent.iterdir()) == [path]
    assert query(path, "PRAGMA journal_mode") == [("delete",)]
    TaskManager(path).close()


@pytest.mark.parametrize("in_memory", [False, True])
def test_overwrite(todo: Callable[..., Path], in_memory: bool) -> None:
    """All statuses are NULL and all results are deleted, with any `cleanup_constraints`."""
    path = todo(*UNFINISHED)
    add_diagnostics(path, 1, 5)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO photometry_skipped VALUES (7, 5)")
        connection.commit()
    manager = TaskManager(path, overwrite=True, cleanup_constraints={"camera": 2}, load_into_memory=in_memory)
    assert manager.overwrite
    manager.close()
    assert statuses(path) == [None] * 8
    assert query(path, "SELECT count(*) FROM diagnostics UNION ALL SELECT count(*) FROM photometry_skipped") == [
        (0,),
        (0,),
    ]


def test_cleanup_compacts(todo: Callable[..., Path]) -> None:
    """Only `cleanup=True` removes free pages and renews the statistics."""
    path = todo(*[{} for _ in range(500)])
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE other (x); DROP TABLE IF EXISTS sqlite_stat1;")
        connection.executemany("INSERT INTO other VALUES (?)", [("x" * 1000,) for _ in range(500)])
        connection.execute("DROP TABLE other")
        connection.commit()
    size = path.stat().st_size
    TaskManager(path).close()
    assert path.stat().st_size >= size
    TaskManager(path, cleanup=True).close()
    assert path.stat().st_size < size / 2
    assert query(path, "SELECT stat FROM sqlite_stat1 WHERE idx = 'starid_idx'") == [("500 1",)]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_summary_that_cannot_be_written(todo: Callable[..., Path], tmp_path: Path, in_memory: bool) -> None:
    """If the summary cannot be written, opening fails before it resets a task."""
    path = todo({"status": 1})
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        TaskManager(path, overwrite=True, summary=tmp_path / "file" / "summary.json", load_into_memory=in_memory)
    assert statuses(path) == [1]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_file_that_is_locked(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    """A file that another program is writing raises TodoFileInUseError, not an error about its kind."""
    path = todo({})
    connect = database.connect
    monkeypatch.setattr(database, "connect", lambda *given: without_waiting(connect(*given)))
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TodoFileInUseError, match="database is locked"):
            TaskManager(path, load_into_memory=in_memory)
    TaskManager(path, load_into_memory=in_memory).close()


def test_a_reader_in_a_transaction(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another program is reading in a transaction is refused as in use, and opens afterwards."""
    path = todo({})
    connect = database.connect
    monkeypatch.setattr(database, "connect", lambda *given: without_waiting(connect(*given)))
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM todolist").fetchall()
        with pytest.raises(TodoFileInUseError, match="Close it there, then try again"):
            TaskManager(path)
    TaskManager(path).close()


def without_waiting(dbapi: sqlite3.Connection) -> sqlite3.Connection:
    dbapi.execute("PRAGMA busy_timeout=1")
    return dbapi


# --- arguments ---


@pytest.mark.parametrize("argument", ["backup_interval", "summary_interval"])
@pytest.mark.parametrize("value", [0, -1, "many", [], float("nan"), float("inf"), 0.5])
def test_intervals_are_positive(todo: Callable[..., Path], argument: str, value: Any) -> None:
    """An interval that int() does not turn into a positive integer raises a ValueError that names the argument."""
    with pytest.raises(ValueError, match=argument):
        TaskManager(todo({}), **{argument: value})


@pytest.mark.parametrize(("value", "interval"), [(None, None), (7, 7), ("7", 7), (7.9, 7)])
def test_intervals_are_integers(opened: Callable[..., TaskManager], value: Any, interval: int | None) -> None:
    """An interval is converted with int(); None stays None."""
    manager = opened({}, backup_interval=value, summary_interval=value)
    assert manager.backup_interval == interval
    assert manager.summary_interval == interval


def test_arguments_may_be_positional(todo: Callable[..., Path], tmp_path: Path) -> None:
    """The positional arguments are in TASOC's order."""
    with TaskManager(todo({}), True, False, {"camera": 1}, tmp_path / "s.json", 10, True, 20) as manager:
        assert manager.summary_file == str(tmp_path / "s.json")
        assert (manager.summary_interval, manager.load_into_memory, manager.backup_interval) == (10, True, 20)
        assert manager.summary_counter == 0


# --- memory and backup ---


def test_memory_mode_leaves_the_file_alone_until_the_backup(todo: Callable[..., Path]) -> None:
    """In memory mode the file on disk keeps its state of opening until backup(), and then has the whole new state."""
    path = todo(*UNFINISHED)
    with TaskManager(path, load_into_memory=True, overwrite=True) as manager:
        assert statuses(path) == [None] * 8
        before = path.read_bytes()
        manager.start_task(2)
        assert path.read_bytes() == before
        manager.backup()
        assert statuses(path) == [None, 6, None, None, None, None, None, None]
        manager.start_task(3)
        assert statuses(path)[2] is None
    assert statuses(path)[:3] == [None, 6, 6]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_automatic_backup(opened: Callable[..., TaskManager]) -> None:
    """After each `backup_interval` results, the state in memory is on disk."""
    manager = opened(*[{} for _ in range(7)], load_into_memory=True, backup_interval=3)
    on_disk = []
    for _ in range(7):
        task = manager.get_task()
        assert task is not None
        manager.save_result(result_of(task))
        on_disk.append(query(manager.todo_file, "SELECT count(*) FROM diagnostics")[0][0])
    assert on_disk == [0, 0, 3, 3, 3, 6, 6]


def read_by_cursor(manager: TaskManager) -> AbstractContextManager[object]:
    return nullcontext(manager.cursor.execute("SELECT * FROM todolist").fetchone())


def read_by_session(manager: TaskManager) -> AbstractContextManager[object]:
    return nullcontext(manager.session.get_one(Task, 2))


def read_elsewhere(manager: TaskManager) -> AbstractContextManager[object]:
    reader = sqlite3.connect(manager.todo_file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM todolist").fetchone()
    return closing(reader)


@pytest.mark.parametrize("durability", ["normal", "full"])
@pytest.mark.parametrize(
    ("read", "is_complete"),
    [(nullcontext, True), (read_by_session, True), (read_by_cursor, False), (read_elsewhere, False)],
)
def test_backup_on_disk(
    opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture, durability: str, read: Any, is_complete: bool
) -> None:
    """On disk, a copy of the file alone has every result after backup(); an open read does not make backup() fail."""
    manager = opened({}, {}, durability=durability)
    path = Path(manager.todo_file)
    copy = path.with_name("copy.sqlite")
    inode = path.stat().st_ino
    manager.cursor.execute("PRAGMA busy_timeout=1")
    with read(manager):
        manager.save_result(result_of({"priority": 1}))
        shutil.copy(path, copy)
        assert statuses(copy) == [None, None]
        manager.backup()
        shutil.copy(path, copy)
        assert statuses(copy) == [1 if is_complete else None, None]
        assert ("stay in its -wal file" in caplog.text) is not is_complete
    manager.cursor.fetchall()
    manager.save_result(result_of({"priority": 2}))
    manager.backup()
    shutil.copy(path, copy)
    assert statuses(copy) == [1, 1]
    assert path.stat().st_ino == inode


def test_backup_is_atomic(opened: Callable[..., TaskManager]) -> None:
    """A reader that has the file open during a backup still reads the complete old file."""
    manager = opened({}, load_into_memory=True)
    manager.start_task(1)
    with Path(manager.todo_file).open("rb") as reader:
        before = Path(manager.todo_file).read_bytes()
        manager.backup()
        assert reader.read() == before
    assert Path(manager.todo_file).read_bytes() != before


def test_backup_keeps_mode_and_symlink(todo: Callable[..., Path], tmp_path: Path) -> None:
    """A backup follows a symlink, keeps the mode of the file, and leaves no other file."""
    path = todo({})
    path.chmod(0o664)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.sqlite"
    link.symlink_to("../todo.sqlite")
    with TaskManager(link, load_into_memory=True) as manager:
        manager.start_task(1)
    assert link.is_symlink()
    assert statuses(path) == [6]
    assert path.stat().st_mode & 0o777 == 0o664
    assert sorted(tmp_path.rglob("*")) == [link.parent, link, path]


def test_a_failed_backup_leaves_the_old_file(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """If the rename fails, the error is raised, only the old file stays, and the next backup works."""
    path = todo({})
    manager = TaskManager(path, load_into_memory=True)
    manager.start_task(1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
        with pytest.raises(BackupError, match="the disk is gone"):
            manager.close()
    assert statuses(path) == [None]
    assert beside(path) == WORKING
    manager.close()
    assert statuses(path) == [6]
    assert list(path.parent.iterdir()) == [path]


def test_a_file_left_in_wal_mode(todo: Callable[..., Path]) -> None:
    """The write-ahead log of a killed program is read in both modes, and closing leaves a single file."""
    path = todo({}, {})
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode=WAL');"
        "c.execute('UPDATE todolist SET status = 1 WHERE priority = 1'); c.commit(); os._exit(0)"
    )
    for in_memory in (True, False):
        subprocess.run([sys.executable, "-c", script, str(path)], check=True)
        assert path.with_name("todo.sqlite-wal").stat().st_size > 0
        with TaskManager(path, load_into_memory=in_memory) as manager:
            assert manager.summary["OK"] == 1
            manager.start_task(2)
        assert statuses(path) == [1, 6]
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
        assert list(path.parent.iterdir()) == [path]
        assert query(path, "PRAGMA journal_mode") == [("delete",)]


def test_memory_mode_after_a_reader_kept_the_log(todo: Callable[..., Path]) -> None:
    """A write-ahead log that a reader kept is applied before the copy, and never to a later backup."""
    path = todo({}, {})
    manager = TaskManager(path)
    manager.start_task(1)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT * FROM todolist").fetchall()
        with pytest.warns(UserWarning, match="still reading it"):
            manager.close()
        with pytest.raises(TodoFileInUseError, match="Close it there, then try again"):
            TaskManager(path, load_into_memory=True)
    with TaskManager(path, load_into_memory=True, cleanup_constraints=["0"]) as again:
        again.start_task(2)
    assert statuses(path) == [6, 6]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert list(path.parent.iterdir()) == [path]


def test_no_backup_over_a_file_that_somebody_writes(todo: Callable[..., Path]) -> None:
    """During another program's unfinished change a backup is refused; after the change it works."""
    path = todo({}, {})
    manager = TaskManager(path, load_into_memory=True)
    manager.start_task(1)
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE todolist SET tmag = 3")
        with pytest.raises(TodoFileInUseError, match=r"todo\.sqlite-journal exists"):
            manager.backup()
        other.rollback()
    manager.close()
    assert statuses(path) == [6, None]


def test_closing_while_somebody_writes(todo: Callable[..., Path]) -> None:
    """If another program writes the file at closing, the list is saved as a new file with the same mode."""
    path = todo({}, {})
    path.chmod(0o600)
    manager = TaskManager(path, load_into_memory=True)
    manager.start_task(1)
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE todolist SET tmag = 3")
        with pytest.raises(FileChangedError, match=r"The list was saved as \S+todo\.saved-"):
            manager.close()
        other.commit()
    (saved,) = path.parent.glob("todo.saved-*")
    assert statuses(saved) == [6, None]
    assert saved.stat().st_mode & 0o777 == 0o600
    assert statuses(path) == [None, None]


def test_a_failed_automatic_backup(opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture) -> None:
    """If an automatic backup fails, the result is saved nevertheless, the failure is logged, and the next one works."""
    manager = opened({}, {}, load_into_memory=True, backup_interval=1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))  # Python ignores the signal, so it is an error
    try:
        manager.save_result(result_of({"priority": 1}))
        with pytest.raises(DiskFullError, match="Free some space, then call again"):
            manager.backup()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    path = Path(manager.todo_file)
    assert "backup failed" in caplog.text
    assert manager.summary["OK"] == 1
    assert statuses(path) == [None, None]
    assert beside(path) == WORKING
    manager.save_result(result_of({"priority": 2}))
    assert statuses(path) == [1, 1]


def test_a_copy_that_lacks_rows(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy with other row counts does not replace the file."""
    manager = opened({}, {}, load_into_memory=True)
    manager.save_result(result_of({"priority": 1}))
    path = Path(manager.todo_file)
    before = path.read_bytes()
    count = database.count_rows
    with monkeypatch.context() as patch:
        # As after an interrupted copy.
        patch.setattr(database, "count_rows", lambda dbapi: count(dbapi) | {"x": dbapi is manager.conn})
        with pytest.raises(BackupError, match="the row counts differ"):
            manager.backup()
    assert path.read_bytes() == before
    assert beside(path) == WORKING


_BACK_UP = """
import sys
from photometry_tasks import TaskManager
with TaskManager(sys.argv[1], load_into_memory=True, cleanup=True) as manager:
    pass
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which records system calls, is not installed")
def test_a_backup_is_synced(todo: Callable[..., Path], tmp_path: Path) -> None:
    """The new file is synced before it replaces the old file, and its directory is synced afterwards."""
    path, trace = todo({}), tmp_path / "trace"
    command = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,rename", "-o", str(trace), sys.executable]
    subprocess.run([*command, "-c", _BACK_UP, str(path)], check=True)
    calls = [re.sub(r"^\d+ +|[0-9a-f]{8}-[0-9a-f]{16}", "", line) for line in trace.read_text().splitlines()]
    place = next(number for number, call in enumerate(calls) if call.startswith("rename("))
    assert re.match(rf"fdatasync\(\d+<{path}-results>\)", calls[place - 2])
    assert re.match(rf"fsync\(\d+<{tmp_path}/\.photometry_tasks-\.tmp>\)", calls[place - 1])
    assert re.match(rf"fsync\(\d+<{tmp_path}>\)", calls[place + 1])


# --- closing ---


def test_a_closed_file_is_one_file(todo: Callable[..., Path]) -> None:
    """After closing, the file has no log, and is in rollback journal mode."""
    path = todo({})
    with TaskManager(path) as manager:
        manager.start_task(1)
        assert len(list(path.parent.iterdir())) > 1
    assert list(path.parent.iterdir()) == [path]
    assert query(path, "PRAGMA journal_mode") == [("delete",)]


def test_a_reader_at_closing(todo: Callable[..., Path]) -> None:
    """If another program still reads, closing writes all changes to the file and warns; the next opening cleans up."""
    path = todo({})
    manager = TaskManager(path)
    manager.start_task(1)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT status FROM todolist").fetchall() == [(6,)]
        with pytest.warns(UserWarning, match="still reading it"):
            manager.close()
        copy = path.with_name("copy.sqlite")
        copy.write_bytes(path.read_bytes())
        copy.with_name("copy.sqlite-wal").unlink(missing_ok=True)
        assert statuses(copy) == [6]
        copy.unlink()
    TaskManager(path).close()
    assert list(path.parent.iterdir()) == [path]


def test_others_read_while_the_manager_works(opened: Callable[..., TaskManager]) -> None:
    """While a manager works, plain SQLite can read the file and sees every change."""
    manager = opened({}, {})
    with closing(sqlite3.connect(manager.todo_file)) as reader:
        for priority in (1, 2):
            manager.start_task(priority)
            assert reader.execute("SELECT count(*) FROM todolist WHERE status = 6").fetchone() == (priority,)


def test_rows_left_in_the_cursor(todo: Callable[..., Path]) -> None:
    """Unread rows of the manager's cursor do not keep the closed file from being a single file."""
    path = todo({}, {}, {})
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}))
        assert manager.cursor.execute("SELECT * FROM todolist").fetchone()["priority"] == 1
    assert list(path.parent.iterdir()) == [path]
    assert query(path, "PRAGMA journal_mode") == [("delete",)]


def test_a_warning_that_is_an_error(todo: Callable[..., Path]) -> None:
    """If the warning about a reader is turned into an error, the connection is closed nevertheless."""
    path = todo({})
    manager = TaskManager(path)
    connection = manager.conn
    manager.start_task(1)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT * FROM todolist").fetchall()
        with pytest.raises(UserWarning):
            manager.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


@pytest.mark.sample(2)
@pytest.mark.parametrize("in_memory", [False, True])
def test_an_unclosed_manager_whose_warning_is_an_error(todo: Callable[..., Path], in_memory: bool) -> None:
    """With -W error, an unclosed manager is closed before the warning: no change is lost."""
    path = todo({}, {})
    script = (
        "import sys; from photometry_tasks import TaskManager\n"
        f"first = TaskManager(sys.argv[1], load_into_memory={in_memory}); first.start_task(1); del first\n"
        f"last = TaskManager(sys.argv[1], cleanup_constraints=['0'], load_into_memory={in_memory}); last.start_task(2)"
    )
    run = subprocess.run([sys.executable, "-Werror", "-c", script, str(path)], capture_output=True, text=True)
    assert "could not be" not in run.stderr
    assert statuses(path) == [6, 6]
    assert list(path.parent.iterdir()) == [path]


def test_close_may_be_called_twice(todo: Callable[..., Path]) -> None:
    """A second close() does nothing; methods then raise ClosedError."""
    manager = TaskManager(todo({}))
    manager.close()
    manager.close()
    with pytest.raises(ClosedError, match="is closed"):
        manager.get_task()
    with pytest.raises(ClosedError):
        _ = manager.session
    assert manager.summary["numtasks"] == 1


@pytest.mark.parametrize("in_memory", [False, True])
def test_an_unclosed_manager_is_closed(todo: Callable[..., Path], in_memory: bool) -> None:
    """An unclosed manager is closed with a ResourceWarning when it is collected."""
    path = todo({})
    manager = TaskManager(path, load_into_memory=in_memory)
    manager.start_task(1)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del manager
    assert statuses(path) == [6]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.sample(2)
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_manager_that_is_open_at_exit_is_closed(todo: Callable[..., Path], in_memory: bool) -> None:
    """At the exit of the interpreter, an open manager is closed with a ResourceWarning."""
    path = todo({})
    script = (
        "import sys; from photometry_tasks import TaskManager\n"
        f"class Pipeline: tm = TaskManager(sys.argv[1], load_into_memory={in_memory})\n"
        "Pipeline.tm.start_task(1)"
    )
    run = subprocess.run([sys.executable, "-Walways", "-c", script, str(path)], capture_output=True, text=True)
    assert run.returncode == 0
    assert "ResourceWarning" in run.stderr
    assert statuses(path) == [6]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.sample(3)
@pytest.mark.parametrize("locking_mode", ["NORMAL", "EXCLUSIVE"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_forked_child_closes_nothing(todo: Callable[..., Path], in_memory: bool, locking_mode: str) -> None:
    """A forked child may end in any way: the parent keeps the file and continues to work."""
    path = todo({}, {})
    script = f"""
import os, sys
from photometry_tasks import TaskManager
tm = TaskManager(sys.argv[1], load_into_memory={in_memory})
tm.cursor.execute("PRAGMA locking_mode={locking_mode}")
tm.start_task(1)
child = os.fork()
if not child:
    try:
        tm.start_task(2)
    except RuntimeError as error:
        print(error)
    del tm
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(os.path.exists(sys.argv[1] + "-wal"), tm.summary["STARTED"])
tm.close()
"""
    run = subprocess.run([sys.executable, "-Walways", "-c", script, str(path)], capture_output=True, text=True)
    assert run.stderr == ""
    assert "belongs to another thread or process" in run.stdout
    assert run.stdout.endswith(f"{not in_memory} 1\n")
    assert statuses(path) == [6, None]


@pytest.mark.sample(2)
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_child_that_leaves_the_block(todo: Callable[..., Path], in_memory: bool) -> None:
    """A child that is forked inside the block does not close the parent's manager when it leaves the block."""
    path = todo({}, {})
    script = f"""
import os, sys
from photometry_tasks import TaskManager
with TaskManager(sys.argv[1], load_into_memory={in_memory}) as tm:
    child = os.fork()
    if not child:
        sys.exit(3)
    tm.start_task(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    tm.start_task(2)
"""
    run = subprocess.run([sys.executable, "-Walways", "-c", script, str(path)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert statuses(path) == [6, 6]
    assert list(path.parent.iterdir()) == [path]


def test_another_thread(opened: Callable[..., TaskManager]) -> None:
    """A call from another thread raises WrongThreadError, and the manager continues to work."""
    manager = opened({})
    caught: list[BaseException] = []

    def call() -> None:
        try:
            manager.get_task()
        except WrongThreadError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert manager.get_task() is not None


def test_opening_and_closing_warns_of_nothing(todo: Callable[..., Path]) -> None:
    """A closed manager leaves no open connection."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with TaskManager(todo({})) as manager:
            manager.session.get(Task, 1)
        del manager
    assert caught == []
