"""Promises 1 to 5 hold against other programs, careless calls and Ctrl-C while a manager works."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from photometry_tasks import STATUS, TaskManager, files
from photometry_tasks.cli.main import main
from photometry_tasks.errors import (
    DamagedFileError,
    FileChangedError,
    SQLiteError,
    TodoError,
    UnknownTaskError,
    UnreadRowsError,
)
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.storage.sqlite import database, store
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from tests.support.lists import checksum, make_file, query, result_of
from tests.support.processes import kill, received, running

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])


def statuses(path: Path) -> list[int | None]:
    return [status for (status,) in query(path, "SELECT status FROM todolist ORDER BY priority")]


def save(manager: TaskManager, *priorities: int, **details: Any) -> None:
    for priority in priorities:
        manager.save_result(result_of({"priority": priority}, mean_flux=priority / 7, **details))


# --- the file on disk is replaced, deleted, or its locks are lost ---


def replace(path: Path) -> None:
    make_file(path.with_name("other"), [{"tmag": 3.0}] * 4).replace(path)


def test_a_file_that_is_replaced_on_disk(todo: Callable[..., Path]) -> None:
    """After the file is replaced, saving raises; closing saves the list as a new file, and keeps the replacement."""
    path = todo({}, {}, {}, {})
    manager = TaskManager(path)
    save(manager, 1, 2)
    replace(path)
    other = path.read_bytes()
    with pytest.raises(FileChangedError, match="Close the manager: it saves everything under another name"):
        save(manager, 3)
    assert manager.summary["OK"] == 2
    with pytest.raises(FileChangedError, match="The list was saved as"):
        manager.close()
    assert path.read_bytes() == other
    (saved,) = path.parent.glob("todo.saved-*")
    assert statuses(saved) == [1, 1, None, None]
    assert sorted(path.parent.iterdir()) == sorted([path, saved])
    TaskManager(path).close()
    assert statuses(path) == [None] * 4


def test_a_file_that_is_deleted_on_disk(todo: Callable[..., Path]) -> None:
    """Closing creates the deleted file again, with all accepted results."""
    path = todo({}, {}, {})
    manager = TaskManager(path)
    save(manager, 1, 2)
    path.unlink()
    with pytest.raises(FileChangedError):
        save(manager, 3)
    manager.close()
    assert statuses(path) == [1, 1, None]
    assert list(path.parent.iterdir()) == [path]


def read_and_leave(connection: Connection, path: Path) -> None:
    query(path, "SELECT count(*) FROM todolist")
    connection.send("read")


def save_after_a_copy(connection: Connection, path: Path) -> None:
    manager = TaskManager(path)
    save(manager, *range(1, 11))
    shutil.copyfile(path, path.with_name("copy"))  # closing a descriptor releases SQLite's locks
    with running(read_and_leave, path) as (_, reader):
        reader.recv()
    accepted = list(range(1, 11))
    with suppress(FileChangedError):
        for priority in range(11, 31):
            save(manager, priority)
            accepted.append(priority)
    connection.send(accepted)
    connection.recv()


def test_locks_that_another_descriptor_took_away(todo: Callable[..., Path]) -> None:
    """Accepted results are stored even if a reader deletes the log; the manager then accepts no more results."""
    path = todo(*[{}] * 30)
    with running(save_after_a_copy, path) as (process, connection):
        accepted = connection.recv()
        kill(process)
    TaskManager(path).close()
    assert [priority for priority, status in enumerate(statuses(path), start=1) if status == 1] == accepted


def test_a_change_just_after_the_rename(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch) -> None:
    """A change by another program directly after a backup is detected, and not overwritten."""
    manager = opened({}, {}, load_into_memory=True)
    path = Path(manager.todo_file)

    def change(_directory: Path) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE todolist SET tmag = 77")
            other.commit()
        os.sync()

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_directory", change)  # the first call after the rename
        manager.backup()
    with pytest.raises(FileChangedError):
        manager.backup()
    with pytest.raises(FileChangedError):
        manager.close()
    assert query(path, "SELECT DISTINCT tmag FROM todolist") == [(77.0,)]


def test_a_change_while_it_is_opened(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A change by another program during opening, after the file was read into memory, is not overwritten."""
    path = todo({}, {})
    check_content = SQLiteDatabase.check_content

    def change(database: SQLiteDatabase, **given: bool) -> None:
        check_content(database, **given)
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE todolist SET tmag = 77")
            other.commit()

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteDatabase, "check_content", change)
        with pytest.raises(FileChangedError, match="Open the file again"):
            TaskManager(path, load_into_memory=True)
    TaskManager(path, load_into_memory=True).close()
    assert query(path, "SELECT DISTINCT tmag FROM todolist") == [(77.0,)]


# --- the summary ---


@pytest.mark.parametrize("name", ["todo.sqlite", "todo.sqlite-results", "todo.sqlite-wal", "todo.sqlite-lock", "notes"])
@IN_MEMORY
def test_a_summary_in_the_place_of_something_else(todo: Callable[..., Path], name: str, in_memory: bool) -> None:
    """A summary never overwrites the TODO-file, a file that belongs to it, or a file that is not a summary."""
    path = todo({}, {})
    path.with_name("notes").write_text("mine")
    before = {other: checksum(other) for other in path.parent.iterdir()}
    with pytest.raises(ValueError, match=r"summary=.*give another path"):
        TaskManager(path, summary=path.with_name(name), load_into_memory=in_memory)
    assert {other: checksum(other) for other in path.parent.iterdir()} == before


def test_a_refused_opening_makes_nothing(tmp_path: Path) -> None:
    """If opening is refused, no folder for the summary is created."""
    path = tmp_path / "todo.sqlite"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(TodoError):
        TaskManager(path, summary=tmp_path / "out" / "summary.json")
    assert list(tmp_path.iterdir()) == [path]


# --- damage ---


@pytest.mark.parametrize("arguments", [{"overwrite": True}, {"cleanup": True}], ids=str)
def test_damage_is_found_before_all_is_deleted(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """Before overwriting or compacting, the whole file is checked."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(300)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE todolist SET status = 2")
        connection.execute("CREATE TABLE others AS SELECT priority, 'x' || starid AS text FROM todolist")
        connection.commit()
    data = bytearray(path.read_bytes())
    page = data.rindex(b"x400") // 4096 * 4096
    data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    before = checksum(path)
    with pytest.raises(DamagedFileError):
        TaskManager(path, **arguments)
    assert checksum(path) == before


def test_a_damaged_file_in_wal_mode(tmp_path: Path) -> None:
    """In memory mode, a damaged file in WAL mode is not changed."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(300)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    data = bytearray(path.read_bytes())
    page = data.rindex(b"ffi") // 4096 * 4096
    data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    before = checksum(path)
    with pytest.raises(DamagedFileError):
        TaskManager(path, load_into_memory=True)
    assert checksum(path) == before
    assert list(tmp_path.iterdir()) == [path]


def die_on_disk(connection: Connection, path: Path) -> None:
    manager = TaskManager(path)
    save(manager, 1)
    connection.send("saved")
    connection.recv()


@pytest.mark.parametrize("command", ["upgrade", "init"])
def test_commands_leave_one_file(todo: Callable[..., Path], command: str) -> None:
    """After a manager on disk was killed, a command recovers its write-ahead log, and leaves a single file."""
    path = todo({}, {})
    with running(die_on_disk, path) as (process, connection):
        connection.recv()
        kill(process)
    if command == "upgrade":
        assert CliRunner().invoke(main, ["upgrade", str(path)]).exit_code == 0
    else:
        add_targets(path, [{"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9}])
    assert path.read_bytes()[18:20] == b"\x01\x01"  # no write-ahead log
    assert statuses(path)[:2] == [1, None]
    assert list(path.parent.iterdir()) == [path]


# --- commits that fail, interrupts ---

DEFERRED = """
CREATE TABLE allowed (status INTEGER PRIMARY KEY);
CREATE TABLE seen (status INTEGER REFERENCES allowed(status) DEFERRABLE INITIALLY DEFERRED);
CREATE TRIGGER note_bad AFTER UPDATE OF status ON todolist WHEN new.status = 3
    BEGIN INSERT INTO seen VALUES (3); END;
"""


@IN_MEMORY
def test_a_commit_that_fails(todo: Callable[..., Path], in_memory: bool) -> None:
    """If a rule of another program refuses the commit, it is rolled back and not logged, and the next call works."""
    path = todo({}, {}, {})
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(DEFERRED)
    child = os.fork()
    if not child:
        manager = TaskManager(path, load_into_memory=in_memory)
        save(manager, 1)
        try:
            manager.save_result(result_of({"priority": 2}, STATUS.WARNING))
        except SQLiteError:
            save(manager, 3)
        os._exit(manager.summary["OK"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    TaskManager(path).close()
    assert statuses(path) == [1, None, 1]


def test_an_error_in_an_except_block(opened: Callable[..., TaskManager]) -> None:
    """An error of a call in an `except KeyboardInterrupt` block is raised, not the interrupt."""
    manager = opened({})
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        with pytest.raises(UnknownTaskError):
            manager.start_task(999)
    manager.start_task(1)


# --- cursors of the caller ---


def test_rows_that_were_left_unread(opened: Callable[..., TaskManager]) -> None:
    """If unread rows block saving after another program wrote, the error names them; once read, they do not block."""
    manager = opened(*[{} for _ in range(300)])
    cursor = manager.cursor.execute("SELECT * FROM todolist")
    cursor.fetchone()
    with closing(sqlite3.connect(manager.todo_file)) as other:
        other.execute("UPDATE todolist SET tmag = 3 WHERE priority = 300")
        other.commit()
    with pytest.raises(UnreadRowsError, match="Read these rows to the end"):
        save(manager, 1)
    cursor.fetchall()
    save(manager, 1)


@IN_MEMORY
def test_a_row_factory_of_the_callers(opened: Callable[..., TaskManager], in_memory: bool) -> None:
    """A row factory that the caller sets on the connection does not affect the manager."""
    manager = opened({}, {}, load_into_memory=in_memory)
    manager.conn.row_factory = lambda cursor, row: {column[0]: row[n] for n, column in enumerate(cursor.description)}
    manager.start_task(1)
    save(manager, 1)
    assert manager.get_task() is not None
    manager.backup()
    rows = manager.conn.execute("SELECT status FROM todolist ORDER BY priority").fetchall()
    assert rows == [{"status": 1}, {"status": None}]


def test_why_the_log_stays(opened: Callable[..., TaskManager]) -> None:
    """The warning names the unread rows as the reason, with any row factory on the connection."""
    manager = opened(*[{} for _ in range(300)])
    save(manager, 1)
    manager.conn.row_factory = sqlite3.Row
    unread = manager.conn.cursor()
    unread.execute("SELECT * FROM todolist").fetchone()
    with pytest.warns(UserWarning, match="still reading it"):
        manager.close()


def read_and_wait(connection: Connection, path: Path) -> None:
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM todolist").fetchone()
        connection.send(os.getpid())
        connection.recv()


@pytest.mark.parametrize("reader", ["a program", "a cursor", "none", "in memory"])
def test_a_reader_that_does_not_end(
    opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reader: str
) -> None:
    """If a reader makes the write-ahead log grow, one warning names its size and the reader; then the log shrinks."""
    monkeypatch.setattr(database, "_LONG_LOG", 200_000)
    monkeypatch.setattr(store, "_LOOK", 10)
    manager = opened(*[{}] * 61, load_into_memory=reader == "in memory")
    manager.conn.execute("PRAGMA wal_autocheckpoint = 20")  # pages, instead of 1000
    log = Path(f"{manager.todo_file}-wal")
    with running(read_and_wait, manager.todo_file) as (_, program):
        pid = program.recv()
        if reader in ("a cursor", "none"):
            program.send("end")
            list(received(program))
        cursor = manager.conn.execute("SELECT * FROM todolist")
        if reader != "a cursor":
            cursor.close()
        if reader == "none":
            save(manager, 61, errors=["x" * 1_000_000])  # a long transaction alone makes a long log
            assert log.stat().st_size > 200_000
        save(manager, *range(1, 61))
        warnings = [line for line in caplog.messages if "-wal file has grown" in line]
        if reader in ("none", "in memory"):
            assert not warnings
        else:
            (warning,) = warnings
            reading = f"is still reading it (process {pid if reader == 'a program' else os.getpid()}). Its -wal file"
            assert f"another program or an open cursor {reading} has grown to 0 MB" in warning
    cursor.close()
    save(manager, *range(1, 31))
    assert reader == "in memory" or log.stat().st_size <= 200_000


def write_in_a_child(connection: Connection, path: Path, in_memory: bool) -> None:
    with TaskManager(path, load_into_memory=in_memory) as manager:
        cursor = manager.cursor
        child = os.fork()
        if not child:
            try:
                cursor.execute("UPDATE todolist SET tmag = 1")
                cursor.connection.commit()
            except sqlite3.DatabaseError as error:
                connection.send(str(error))
            os._exit(0)
        os.waitpid(child, 0)
        save(manager, 1)


@IN_MEMORY
def test_a_cursor_that_was_fetched_before_a_fork(todo: Callable[..., Path], in_memory: bool) -> None:
    """A forked child cannot write through a cursor of the parent."""
    path = todo({}, {})
    with running(write_in_a_child, path, in_memory) as (process, connection):
        assert list(received(connection)) == ["not authorized"]
        process.join()
    assert query(path, "SELECT tmag, status FROM todolist") == [(10.0, 1), (10.0, None)]


# --- secrets ---

URLS = [
    "postgresql:/joe:secret@host/db",
    " postgresql+psycopg://joe:secret@host/db",
    "postgresql-psycopg://joe:secret@host/db",
    "host=h password=secret",
]


@pytest.mark.parametrize("url", URLS)
def test_no_password_is_shown(url: str, tmp_path: Path) -> None:
    """A misspelt URL is refused, and no part of it is shown."""
    with pytest.raises(ValueError, match="this is not a path; give a path") as caught:
        TaskManager(url)
    assert "secret" not in str(caught.value)
    listed = tmp_path / "list.csv"
    listed.write_text("starid,sector,camera,ccd,tmag\n1,1,1,1,9\n")
    for arguments in (["status"], ["check"], ["run", "math:sqrt"], ["init", str(listed)], ["upgrade"]):
        command, *others = arguments
        output = CliRunner().invoke(main, [command, url, *others]).output
        assert "secret" not in output
        assert "rror" in output


@pytest.mark.parametrize(
    "url", ["postgresql://joe:secret@127.0.0.1:1/db?password=secret", "postgresql+psycopg://joe:secret@127.0.0.1:x/db"]
)
def test_no_password_of_a_server_is_shown(url: str, tmp_path: Path) -> None:
    """An unreachable server or an invalid URL is named without its password."""
    with pytest.raises((OSError, ValueError)) as caught:
        TaskManager(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    listed = tmp_path / "list.csv"
    listed.write_text("starid,sector,camera,ccd,tmag\n1,1,1,1,9\n")
    others = (["status"], ["check"], ["run", "math:sqrt"], ["work", "math:sqrt"], ["init", str(listed)], ["upgrade"])
    for command, *arguments in others:
        run = CliRunner().invoke(main, [command, url, *arguments])
        assert "secret" not in run.output
        assert run.exit_code != 0


# --- unexpected files ---


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**10)


OTHERS: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "directory": os.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "sparse file": make_sparse,
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe" * 10),
    "nested JSON": lambda path: path.write_text("[" * 10**6),
    "list": lambda path: path.write_text("[1]"),
    "text": lambda path: path.write_text('"status"'),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("suffix", ["-results", "-lock", "-status"])
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_something_else_in_our_places(todo: Callable[..., Path], make: Callable[[Path], Any], suffix: str) -> None:
    """Anything in the place of the lock, the log or the status neither blocks nor takes memory, or is refused."""
    path = todo({})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    make(path.with_name(path.name + suffix))
    signal.alarm(20)
    try:
        for in_memory in (False, True):
            assert get_status(path)["status"]["PENDING"] == 1
            assert CliRunner().invoke(main, ["status", str(path)]).exit_code == 0
            with suppress(TodoError), TaskManager(path, load_into_memory=in_memory):
                assert get_status(path)["holder"] is not None or make is os.mkfifo
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    finally:
        signal.alarm(0)


def change_status(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda status: status.update(changes)


OTHER_STATUSES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a field less": lambda status: status.pop("ccds"),
    "texts for counts": change_status(status={"OK": "many"}),
    "a count less": lambda status: status["status"].pop("PENDING"),
    "no task on a CCD": lambda status: status["ccds"].append(dict.fromkeys(status["ccds"][0], 0)),
    "a list for a CCD": change_status(ccds=[[1, 1]]),
    "a list for a camera": lambda status: status["ccds"][0].update(camera=[1]),
    "a text for a time": change_status(time="now"),
    "a time that is none": change_status(time=float("nan")),
    "a time of no clock": change_status(time=10**400),
    "an endless run": change_status(rate=1e-300),
    "numbers for errors": change_status(last_errors=[{"priority": 1, "starid": 1, "errors": 7}]),
    "a running task without columns": change_status(running=[{}]),
    "a number for a path": change_status(todo_file=1),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("change", OTHER_STATUSES.values(), ids=OTHER_STATUSES)
def test_a_status_of_another_release(todo: Callable[..., Path], change: Callable[[dict[str, Any]], Any]) -> None:
    """A published status with other fields is not shown: the status comes from the file."""
    path = todo({}, {})
    with TaskManager(path, load_into_memory=True) as manager:
        manager._store._status_file._next = 0  # type: ignore[attr-defined]
        manager.start_task(1)
        status = json.loads(path.with_name("todo.sqlite-status").read_text())
        assert get_status(path)["status"]["STARTED"] == 1
        change(status)
        path.with_name("todo.sqlite-status").write_text(json.dumps(status))
        assert get_status(path)["status"]["STARTED"] == 0
        assert CliRunner().invoke(main, ["status", str(path)]).exit_code == 0


def test_temporaries_are_private(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a backup is complete, only its owner may read it; then it has the file's mode and extended attributes."""
    manager = opened({}, load_into_memory=True)
    path = Path(manager.todo_file)
    path.chmod(0o644)
    os.setxattr(path, "user.origin", b"TESS")
    seen = []
    copy_to = type(manager._store._database).copy_to

    def look(database: Any, temporary: Path) -> None:
        copy_to(database, temporary)
        seen.append(temporary.stat().st_mode & 0o777)

    monkeypatch.setattr(type(manager._store._database), "copy_to", look)
    before = os.umask(0)
    try:
        manager.start_task(1)
        manager.backup()
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.getxattr(path, "user.origin") == b"TESS"
