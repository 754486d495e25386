"""Promise 3: one manager per file, across processes and modes; a refused manager names the holder."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from photometry_tasks import TaskManager
from photometry_tasks.cli.main import main
from photometry_tasks.errors import FileChangedError, TodoFileInUseError, WrongThreadError
from photometry_tasks.ingest import add_targets
from photometry_tasks.storage.sqlite import lock
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from tests.support.lists import checksum, make_file, query, result_of
from tests.support.processes import kill, received, running

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])

TARGET = {"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only 0.1 s for a lock; `test_how_long_it_takes` measures the real time."""
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)


def hold(connection: Connection, path: Path, in_memory: bool) -> None:
    with TaskManager(path, load_into_memory=in_memory) as manager:
        manager.save_result(result_of({"priority": 1}))
        connection.send(os.getpid())
        connection.recv()


WAYS: dict[str, Callable[[Path], Any]] = {
    "disk": lambda path: TaskManager(path).close(),
    "memory": lambda path: TaskManager(path, load_into_memory=True).close(),
    "adding": lambda path: add_targets(path, [TARGET]),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("holder", ["disk", "memory", "killed on disk", "killed in memory"])
@pytest.mark.usefixtures("impatient")
def test_two_at_once(todo: Callable[..., Path], holder: str, way: str) -> None:
    """A second manager is refused, names the holder, and changes nothing; a killed holder does not block."""
    path = todo({}, {})
    with running(hold, path, "memory" in holder) as (process, connection):
        pid = connection.recv()
        if "killed" in holder:
            kill(process)
        else:
            with pytest.raises(TodoFileInUseError, match=rf"process {pid} on {socket.gethostname()} since 20\d\d-"):
                WAYS[way](path)
            connection.send("end")
            process.join()
        WAYS[way](path)
    TaskManager(path).close()
    assert query(path, "SELECT status FROM todolist WHERE priority < 3") == [(1,), (None,)]
    assert list(path.parent.iterdir()) == [path]


def test_how_long_it_takes(opened: Callable[..., TaskManager]) -> None:
    """The refusal comes within 5 seconds; the first manager continues."""
    manager = opened({})
    begun = time.monotonic()
    with pytest.raises(TodoFileInUseError, match=f"process {os.getpid()} on"):
        TaskManager(manager.todo_file)
    assert 1 < time.monotonic() - begun < 5
    manager.save_result(result_of({"priority": 1}))


def test_it_waits_for_one_that_ends(todo: Callable[..., Path]) -> None:
    """If a manager is about to close the file, a second manager waits for it."""
    path = todo({})
    with running(hold, path, False) as (_, connection):
        connection.recv()
        connection.send("end")
        TaskManager(path).close()
    assert query(path, "SELECT status FROM todolist") == [(1,)]


@IN_MEMORY
@pytest.mark.usefixtures("impatient")
def test_another_descriptor(opened: Callable[..., TaskManager], in_memory: bool) -> None:
    """Opening and closing the file, the lock and the log in the same process does not release the lock."""
    manager = opened({}, load_into_memory=in_memory)
    for path in Path(manager.todo_file).parent.iterdir():
        path.read_bytes()
    query(manager.todo_file, "SELECT * FROM todolist")
    with pytest.raises(TodoFileInUseError):
        TaskManager(manager.todo_file)


@pytest.mark.usefixtures("impatient")
def test_a_file_that_is_replaced_under_the_lock(opened: Callable[..., TaskManager]) -> None:
    """The lock holds after a backup, which replaces the file, and after another program replaced the file."""
    manager = opened({}, {}, load_into_memory=True)
    manager.backup()
    with pytest.raises(TodoFileInUseError):
        TaskManager(manager.todo_file)
    path = Path(manager.todo_file)
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)
    with pytest.raises(TodoFileInUseError):
        TaskManager(path)
    with pytest.raises(FileChangedError):
        manager.close()


@pytest.mark.usefixtures("impatient")
def test_through_a_symlink(opened: Callable[..., TaskManager], tmp_path: Path) -> None:
    """A link to the file leads to the same lock."""
    manager = opened({})
    link = tmp_path / "link.sqlite"
    link.symlink_to(manager.todo_file)
    with pytest.raises(TodoFileInUseError):
        TaskManager(link)


@pytest.mark.usefixtures("impatient")
def test_commands_are_refused_too(opened: Callable[..., TaskManager]) -> None:
    """`upgrade`, `init` and `run` on a file in use fail and name the holder; `status` and `upgrade --check` work."""
    path = opened({}).todo_file
    listed = Path(path).with_name("list.csv")
    listed.write_text("starid,sector,camera,ccd,tmag\n1,1,1,1,9\n")
    for arguments in (["upgrade", path], ["init", path, str(listed)], ["run", path, "math:sqrt"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert re.search(
            rf"is in use by another manager or program \(process {os.getpid()} on \S+ since .*UTC\)", result.output
        )
    for arguments in (["status", path], ["upgrade", "--check", path]):
        assert CliRunner().invoke(main, arguments).exit_code == 0


def make(connection: Connection, path: Path) -> None:
    connection.recv()
    connection.send(tuple(add_targets(path, [TARGET])))


def test_two_lists_at_once(tmp_path: Path) -> None:
    """If two processes create the same file at once, the first creates it, and the second finds its tasks."""
    path = tmp_path / "todo.sqlite"
    with running(make, path) as (_, first), running(make, path) as (_, second):
        first.send("go")
        second.send("go")
        assert sorted([first.recv(), second.recv()]) == [(0, 1), (1, 0)]
    assert query(path, "SELECT count(*) FROM todolist") == [(1,)]


# --- children ---


def hold_with_children(connection: Connection, path: Path, in_memory: bool) -> None:
    """Open a manager, and start children, by fork and as a program, that survive it."""
    with TaskManager(path, load_into_memory=in_memory) as manager:
        manager.save_result(result_of({"priority": 1}))
        forked = os.fork()
        if not forked:
            signal.pause()
        started = subprocess.Popen(["sleep", "600"], close_fds=False)
        connection.send([forked, started.pid])
        connection.recv()


@IN_MEMORY
@pytest.mark.usefixtures("impatient")
def test_a_dead_holder_whose_children_live(todo: Callable[..., Path], in_memory: bool) -> None:
    """Surviving children of a killed manager, forked or started, do not hold the lock."""
    path = todo({}, {})
    with running(hold_with_children, path, in_memory) as (process, connection):
        children = connection.recv()
        kill(process)
        with TaskManager(path) as manager:
            assert all(Path(f"/proc/{child}").exists() for child in children)
            assert manager.summary["OK"] == 1
        for child in children:
            os.kill(child, signal.SIGKILL)


USES: dict[str, Callable[[TaskManager], Any]] = {
    "get_task": lambda tm: tm.get_task(),
    "save_result": lambda tm: tm.save_result(result_of({"priority": 2})),
    "backup": lambda tm: tm.backup(),
    "close": lambda tm: tm.close(),
    "conn": lambda tm: tm.conn.execute("UPDATE todolist SET tmag = 1"),
    "cursor": lambda tm: tm.cursor.execute("UPDATE todolist SET tmag = 1"),
    "session": lambda tm: tm.session.execute(text("UPDATE todolist SET tmag = 1")),
}


def use_in_a_child(connection: Connection, path: Path, in_memory: bool) -> None:
    with TaskManager(path, load_into_memory=in_memory) as manager:
        manager.save_result(result_of({"priority": 1}))
        child = os.fork()
        if not child:
            for name, use in USES.items():
                try:
                    use(manager)
                except WrongThreadError as error:
                    connection.send((name, str(error)))
            sys.exit()  # through the end of the block, and of the interpreter
        os.waitpid(child, 0)
        connection.send(sorted(beside(path)))


def beside(path: Path) -> list[str]:
    return [other.name for other in path.parent.iterdir() if other != path]


@IN_MEMORY
def test_a_forked_child_never_writes(todo: Callable[..., Path], in_memory: bool) -> None:
    """A forked child cannot use the manager or its connection, and the end of the child changes nothing."""
    path = todo({}, {})
    with running(use_in_a_child, path, in_memory) as (process, connection):
        *refused, left = received(connection)
        process.join()
        assert process.exitcode == 0
    assert [name for name, _ in refused] == list(USES)
    assert all("belongs to another thread or process" in message for _, message in refused)
    kinds = ("lock", "results") if in_memory else ("lock", "shm", "wal")
    assert left == [f"todo.sqlite-{kind}" for kind in kinds]
    assert query(path, "SELECT tmag, status FROM todolist") == [(10.0, 1), (10.0, None)]


@pytest.mark.parametrize("use", USES)
def test_another_thread(opened: Callable[..., TaskManager], use: str) -> None:
    """Every use from another thread raises WrongThreadError, and the manager continues to work."""
    manager = opened({}, {})
    with ThreadPoolExecutor(1) as threads, pytest.raises(WrongThreadError, match="belongs to another thread"):
        threads.submit(USES[use], manager).result()
    assert manager.get_task() is not None


def test_it_is_held_to_the_end(todo: Callable[..., Path]) -> None:
    """A manager that is open at exit holds the lock until it is closed; then the lock file is deleted."""
    path = todo({}, {})
    script = """if True:
        import logging, sys
        from photometry_tasks import TaskManager

        class Probe(logging.Handler):
            def emit(self, record):
                from filelock import FileLock, Timeout  # as late as in the package: the order of exit handlers counts
                if "backed up" in record.getMessage():
                    try:
                        FileLock(sys.argv[1] + "-lock", timeout=0, thread_local=False).acquire()
                    except Timeout:
                        print("held")

        logging.getLogger("photometry_tasks").addHandler(Probe())
        logging.getLogger("photometry_tasks").setLevel("INFO")
        manager = TaskManager(sys.argv[1], load_into_memory=True, cleanup=True)
        manager.start_task(1)
    """
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout == "held\nheld\n"  # at opening, which compacts, and at exit
    assert list(path.parent.iterdir()) == [path]


def test_collected_in_another_thread(todo: Callable[..., Path]) -> None:
    """An unclosed manager is closed in the thread that collects it, and releases the file."""
    path = todo({}, {})
    managers = [TaskManager(path)]
    managers[0].start_task(1)
    with ThreadPoolExecutor(1) as threads, pytest.warns(ResourceWarning, match="was not closed"):
        threads.submit(managers.clear).result()
    assert list(path.parent.iterdir()) == [path]
    TaskManager(path).close()


# --- locks and changes of other programs ---


@pytest.mark.parametrize(
    "script", ["BEGIN EXCLUSIVE", "BEGIN EXCLUSIVE; DELETE FROM todolist", "PRAGMA journal_mode=WAL"]
)
@pytest.mark.parametrize("arguments", [{}, {"overwrite": True}], ids=str)
def test_a_lock_while_the_file_is_copied(
    todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, script: str, arguments: dict[str, Any]
) -> None:
    """In memory mode, opening waits for a lock of another program no longer than on disk, and changes nothing."""
    path = todo({}, {})
    before = checksum(path)
    load = SQLiteDatabase.load_into_memory

    def load_a_locked_file(database: SQLiteDatabase) -> SQLiteDatabase:
        other.executescript(script)
        database.dbapi.execute("PRAGMA busy_timeout = 10")  # milliseconds, instead of 5 s
        return load(database)

    monkeypatch.setattr(SQLiteDatabase, "load_into_memory", load_a_locked_file)
    signal.alarm(20)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        with pytest.raises(TodoFileInUseError, match="database is locked"):
            TaskManager(path, load_into_memory=True, **arguments)
    signal.alarm(0)
    monkeypatch.undo()
    if "WAL" not in script:
        assert checksum(path) == before
    TaskManager(path, load_into_memory=True).close()


def change(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE todolist SET tmag = 3")
        other.commit()


def change_in_wal(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("UPDATE todolist SET tmag = 3")
        other.commit()


def replace(path: Path) -> None:
    copy = make_file(path.with_name("copy"), [{"tmag": 3.0}, {"tmag": 3.0}])
    copy.replace(path)


@pytest.mark.parametrize("interfere", [change, change_in_wal, replace])
def test_a_file_that_somebody_has_changed(todo: Callable[..., Path], interfere: Callable[[Path], None]) -> None:
    """A file that another program changed is not replaced: backup() raises; close() saves a new file and names it."""
    path = todo({}, {})
    path.chmod(0o640)
    manager = TaskManager(path, load_into_memory=True, backup_interval=1)
    manager.save_result(result_of({"priority": 1}, mean_flux=7.0))
    interfere(path)
    content = path.read_bytes()
    with pytest.raises(FileChangedError, match=r"was changed by another program .* Close the manager: it saves"):
        manager.backup()
    manager.save_result(result_of({"priority": 2}, mean_flux=8.0))  # its automatic backup fails
    assert manager.summary["OK"] == 2
    with pytest.raises(FileChangedError, match="The list was saved as") as caught:
        manager.close()
    assert path.read_bytes() == content
    (saved,) = path.parent.glob("todo.saved-*.sqlite")
    assert str(saved) in str(caught.value)
    assert query(saved, "SELECT status, tmag, mean_flux FROM todolist JOIN diagnostics USING (priority)") == [
        (1, 10.0, 7.0),
        (1, 10.0, 8.0),
    ]
    manager.close()
    with TaskManager(path, load_into_memory=True) as manager:
        assert manager.get_number_tasks() == (2 if interfere is replace else 1)
    assert query(path, "SELECT DISTINCT tmag FROM todolist") == [(3.0,)]


def test_a_file_that_is_changed_at_once(opened: Callable[..., TaskManager]) -> None:
    """A change directly after a backup is detected, even if the time and the size of the file stay the same."""
    manager = opened({}, {}, load_into_memory=True)
    manager.backup()
    path = Path(manager.todo_file)
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(FileChangedError):
        manager.close()


def test_a_file_that_was_deleted(todo: Callable[..., Path]) -> None:
    """If another program deleted the file, closing writes it again: no result is lost."""
    path = todo({}, {})
    with TaskManager(path, load_into_memory=True) as manager:
        manager.save_result(result_of({"priority": 1}))
        path.unlink()
    assert query(path, "SELECT status FROM todolist ORDER BY priority") == [(1,), (None,)]
