"""Promise 5: full disks, size limits, and directories and mounts without write permission lose no accepted result."""

import ctypes
import errno
import functools
import itertools
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from sqlalchemy.exc import DBAPIError

from photometry_tasks import TaskManager
from photometry_tasks.cli.main import main
from photometry_tasks.errors import (
    BackupError,
    DamagedFileError,
    DiskError,
    DiskFullError,
    ForeignFileError,
    MountWithoutLocksError,
    NotWritableError,
    PathTooLongError,
    SQLiteError,
    TodoError,
    TooManyFilesError,
)
from photometry_tasks.files import replace_file
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.copy import copy_list
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.dbapi import sqlite_errors
from photometry_tasks.storage.sqlite.lock import find_mount
from tests.support.lists import checksum, make_file, query, result_of
from tests.support.processes import kill, running

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

NOBODY = 65534


def rows(number: int) -> list[dict[str, Any]]:
    return [{"tmag": float(n)} for n in range(number)]


def stored(path: Path) -> list[int]:
    return [priority for (priority,) in query(path, "SELECT priority FROM todolist WHERE status = 1 ORDER BY 1")]


def leftovers(path: Path) -> list[str]:
    """Return the unexpected files in the directory of a file that a manager has open."""
    expected = {path.name + suffix for suffix in ("", "-lock", "-results", "-status", "-wal", "-shm")}
    return sorted({other.name for other in path.parent.iterdir()} - expected)


# --- full disk ---


Mount = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def own_mounts() -> Callable[..., object]:
    """Return `run` in a private mount namespace (unshare(2)): all mounts end with this process, even after a kill."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(0x00020000):  # CLONE_NEWNS
        pytest.skip(f"mounting file systems is not permitted here: {os.strerror(ctypes.get_errno())}")
    run = functools.partial(subprocess.run, check=True)
    run(["mount", "--make-rprivate", "/"])
    return run


@pytest.fixture
def mount(own_mounts: Callable[..., object], tmp_path: Path) -> Iterator[Mount]:
    """Return a function that mounts a new file system of a kind, with options."""
    mounted: list[Path] = []

    def mount_one(kind: str, options: str) -> Path:
        folder = tmp_path / kind
        folder.mkdir()
        own_mounts(["mount", "-t", kind, "-o", options, kind, str(folder)])
        mounted.append(folder)
        return folder

    yield mount_one
    for folder in mounted:
        own_mounts(["umount", "--lazy", str(folder)])


@pytest.fixture
def small_disk(mount: Mount) -> Path:
    return mount("tmpfs", "size=2m")


def fill_up(folder: Path) -> Path:
    """Fill a small file system to the last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return filler


def save_until_full(manager: TaskManager) -> list[int]:
    """Save results until the manager refuses a result; return the priorities of the accepted results."""
    accepted: list[int] = []
    # Any of the calls may raise the error.
    with pytest.raises(DiskFullError, match=r"disk is full.* Free some space, then call again") as caught:  # noqa: PT012
        while (task := manager.get_task()) is not None:
            manager.save_result(result_of(task, errors=["x" * 2000]))
            accepted.append(task["priority"])
    assert caught.value.errno == errno.ENOSPC
    return accepted


@pytest.mark.parametrize("durability", ["normal", "full"])
@IN_MEMORY
def test_a_full_disk(small_disk: Path, in_memory: bool, durability: Any) -> None:
    """Accepted results are kept, and a refused result changes nothing; with free space, the manager continues."""
    path = make_file(small_disk / "todo.sqlite", rows(100))
    manager = TaskManager(path, load_into_memory=in_memory, backup_interval=None, durability=durability)
    manager.save_result(result_of({"priority": 1}))
    filler = fill_up(small_disk)
    accepted = [1, *save_until_full(manager)]
    assert len(accepted) < 90
    refused = manager.get_task()
    assert refused is not None
    assert refused["priority"] == accepted[-1] + 1
    assert manager.summary["OK"] == len(accepted)
    with pytest.raises(DiskFullError):
        manager.save_result(result_of(refused, errors=["x" * 2000]))
    if in_memory:
        with pytest.raises(DiskFullError):
            manager.backup()
        with pytest.raises(DiskFullError):
            manager.close()
    filler.unlink()
    assert leftovers(path) == []
    manager.save_result(result_of(refused))
    manager.close()
    assert stored(path) == [*accepted, refused["priority"]]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert list(small_disk.iterdir()) == [path]


@IN_MEMORY
def test_a_kill_on_a_full_disk(small_disk: Path, in_memory: bool) -> None:
    """A manager that dies on a full disk loses no accepted result."""
    path = make_file(small_disk / "todo.sqlite", rows(100))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        manager = TaskManager(path, load_into_memory=in_memory, backup_interval=None)
        manager.save_result(result_of({"priority": 1}))
        fill_up(small_disk)
        os.write(writing, b" ".join(str(number).encode() for number in [1, *save_until_full(manager)]))
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        accepted = [int(number) for number in answer.read().split()]
    assert accepted[0] == 1
    (small_disk / "filler").unlink()
    TaskManager(path).close()
    assert stored(path) == accepted


@IN_MEMORY
def test_opening_on_a_full_disk(small_disk: Path, in_memory: bool) -> None:
    """If the disk is too full for opening, an error says so, and the file is not changed."""
    path = make_file(small_disk / "todo.sqlite", rows(1000))
    filler = fill_up(small_disk)
    before = checksum(path)
    with pytest.raises(TodoError, match=r"disk is full|No space left"):
        TaskManager(path, overwrite=True, load_into_memory=in_memory)
    with pytest.raises(TodoError, match="disk is full"):
        add_targets(small_disk / "new.sqlite", [{"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9}])
    assert checksum(path) == before
    filler.unlink()
    TaskManager(path, load_into_memory=in_memory).close()
    assert list(small_disk.iterdir()) == [path]


def test_a_full_disk_for_temporary_files(small_disk: Path, tmp_path: Path) -> None:
    """If the disk for temporary files is too full to sort targets, an error names their place, and no file is made."""
    fill_up(small_disk)
    script = (
        "import sys; from photometry_tasks.ingest import add_targets\n"
        "row = {'sector': 1, 'camera': 1, 'ccd': 1, 'tmag': 9.0}\n"
        "add_targets(sys.argv[1], ({**row, 'starid': number} for number in range(1, 100_000)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "new.sqlite")]
    environment = {**os.environ, "SQLITE_TMPDIR": str(small_disk)}  # which SQLite reads once
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "DiskFullError" in run.stderr
    assert "SQLite needs space in SQLITE_TMPDIR" in run.stderr
    assert [path for path in tmp_path.iterdir() if path != small_disk] == []


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes; Python ignores the signal, so this raises like a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@IN_MEMORY
def test_a_limit_on_the_size(todo: Callable[..., Path], in_memory: bool) -> None:
    """If a limit on file sizes is reached, a result is refused; without the limit, the manager continues."""
    path = todo(*rows(100))
    manager = TaskManager(path, load_into_memory=in_memory, backup_interval=None)
    with limited(120_000):
        accepted = save_until_full(manager)
        assert 1 < len(accepted) < 90
        refused = manager.get_task()
        assert refused is not None
        with pytest.raises(DiskFullError):
            manager.save_result(result_of(refused, errors=["x" * 2000]))
        assert manager.summary["OK"] == len(accepted)
    manager.save_result(result_of(refused))
    manager.close()
    assert stored(path) == [*accepted, refused["priority"]]
    assert list(path.parent.iterdir()) == [path]


def test_backups_under_a_limit(todo: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """A failed backup is retried at the next interval; meanwhile, results are accepted and logged."""
    path = todo(*rows(300))
    with TaskManager(path, load_into_memory=True, backup_interval=10) as manager:
        with limited(30_000):
            for priority in range(1, 26):
                manager.save_result(result_of({"priority": priority}))
            assert caplog.text.count("backup failed") == 2
            with pytest.raises(DiskFullError, match="a limit on file sizes is reached"):
                manager.backup()
        assert stored(path) == []
        assert leftovers(path) == []
        for priority in range(26, 36):
            manager.save_result(result_of({"priority": priority}))
        assert stored(path) == list(range(1, 36))


# --- no permission ---


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Become a user without root's rights, in a directory of that user."""
    folder = Path(tempfile.mkdtemp(prefix="nobody-"))
    shutil.chown(folder, NOBODY, NOBODY)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(0)
        os.setegid(0)
        shutil.rmtree(folder)


def as_root(change: Callable[[], None]) -> None:
    os.seteuid(0)
    change()
    os.seteuid(NOBODY)


@AS_ROOT
@pytest.mark.parametrize("read_only", ["file", "directory"])
@IN_MEMORY
def test_a_read_only_file_or_directory(as_nobody: Path, read_only: str, in_memory: bool) -> None:
    """Opening refuses a read-only file or directory, before any work, with an error that names it."""
    path = make_file(as_nobody / "todo.sqlite", rows(3))
    place = path if read_only == "file" else as_nobody
    place.chmod(place.stat().st_mode & ~0o222)
    before = checksum(path)
    with pytest.raises(NotWritableError, match=rf"todo.sqlite cannot be opened \({place} is read-only\)"):
        TaskManager(path, load_into_memory=in_memory)
    with pytest.raises(PermissionError):
        add_targets(path, [])
    assert checksum(path) == before
    assert list(as_nobody.iterdir()) == [path]
    assert CliRunner().invoke(main, ["status", str(path), "--json"]).exit_code == 0


@AS_ROOT
@IN_MEMORY
def test_a_directory_made_read_only_in_mid_run(as_nobody: Path, in_memory: bool) -> None:
    """Saving works; backup and closing raise or warn with the reason; with permission again, all results are stored."""
    path = make_file(as_nobody / "todo.sqlite", rows(5))
    manager = TaskManager(path, load_into_memory=in_memory)
    manager.save_result(result_of({"priority": 1}))
    as_nobody.chmod(0o555)
    manager.save_result(result_of({"priority": 2}))
    if in_memory:
        with pytest.raises(BackupError, match="Permission denied"):
            manager.backup()
        with pytest.raises(BackupError, match="Permission denied"):
            manager.close()
        manager.save_result(result_of({"priority": 3}))
        as_nobody.chmod(0o755)
        manager.close()
    else:
        with pytest.warns(UserWarning, match="-wal file stays"):
            manager.close()
        as_nobody.chmod(0o755)
        with TaskManager(path) as manager:
            manager.save_result(result_of({"priority": 3}))
    assert stored(path) == [1, 2, 3]
    assert list(as_nobody.iterdir()) == [path]


@AS_ROOT
def test_a_rename_that_fails(as_nobody: Path) -> None:
    """In a sticky directory another user's file cannot be replaced: a backup fails; a later one has all results."""
    path = make_file(as_nobody / "todo.sqlite", rows(3))
    with TaskManager(path, load_into_memory=True) as manager:
        as_root(lambda: (os.chown(path, 0, 0), os.chown(as_nobody, 0, 0), as_nobody.chmod(0o1777), path.chmod(0o666)))  # type: ignore[arg-type,return-value]
        manager.save_result(result_of({"priority": 1}))
        with pytest.raises(BackupError, match="Operation not permitted"):
            manager.backup()
        assert leftovers(path) == []
        as_root(lambda: as_nobody.chmod(0o777))
        manager.save_result(result_of({"priority": 2}))
        manager.backup()
        assert stored(path) == [1, 2]


@AS_ROOT
def test_owner_and_group(tmp_path: Path) -> None:
    """A backup by root keeps the owner and the group of the file."""
    path = make_file(tmp_path / "todo.sqlite", rows(3))
    os.chown(path, NOBODY, 1234)
    path.chmod(0o664)
    with TaskManager(path, load_into_memory=True) as manager:
        manager.save_result(result_of({"priority": 1}))
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777) == (NOBODY, 1234, 0o664)


@AS_ROOT
def test_an_owner_that_cannot_be_kept(as_nobody: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the system does not permit keeping the owner, the mode is kept, and a warning is logged."""
    path = make_file(as_nobody / "todo.sqlite", rows(3))
    path.chmod(0o666)
    as_root(lambda: os.chown(path, 0, 0))
    with TaskManager(path, load_into_memory=True) as manager:
        manager.save_result(result_of({"priority": 1}))
    assert "owner or group could not be kept" in caplog.text
    assert path.stat().st_mode & 0o7777 == 0o666
    assert stored(path) == [1]


@AS_ROOT
def test_the_group_can_go_on(todo: Callable[..., Path]) -> None:
    """All files of a TODO-file have its group: another member of the group may have to recover them."""
    path = todo(*rows(3))
    path.chmod(0o660)
    os.chown(path, -1, NOBODY)
    manager = TaskManager(path, load_into_memory=True)
    manager.save_result(result_of({"priority": 1}))
    assert {(other.stat().st_gid, other.stat().st_mode & 0o777) for other in path.parent.iterdir()} == {(NOBODY, 0o660)}
    manager.close()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666])
@IN_MEMORY
def test_modes_and_umask(todo: Callable[..., Path], mode: int, in_memory: bool) -> None:
    """With any umask, the file keeps its mode, and the files that belong to it have the same mode."""
    path = todo(*rows(3))
    path.chmod(mode)
    before = os.umask(0o077)
    try:
        with TaskManager(path, load_into_memory=in_memory) as manager:
            manager.save_result(result_of({"priority": 1}))
            manager.backup()
            modes = {other.name: other.stat().st_mode & 0o777 for other in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {mode}
    assert path.stat().st_mode & 0o777 == mode
    assert stored(path) == [1]


# --- other limits of the system, and reads that fail ---


def save_one(path: Path, **arguments: Any) -> None:
    with TaskManager(path, **arguments) as manager:
        manager.save_result(result_of({"priority": 1}))


TARGET = {"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9}

USES: dict[str, Callable[[Path], object]] = {
    "on disk": save_one,
    "in memory": lambda path: save_one(path, load_into_memory=True),
    "overwriting": lambda path: save_one(path, overwrite=True),
    "adding": lambda path: add_targets(path, [TARGET]),
    "creating": lambda path: add_targets(path.with_name("new.sqlite"), [TARGET]),
    "copying": lambda path: copy_list(path, path.with_name("copy.sqlite")),
    "status": get_status,
}


@contextmanager
def free_descriptors(number: int) -> Iterator[None]:
    """Let this process open only a number of further files."""
    following = os.dup(0)
    os.close(following)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (following + number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.filterwarnings("ignore:.*-wal file stays")
@pytest.mark.parametrize("use", USES)
def test_too_many_open_files(tmp_path: Path, use: str) -> None:
    """However few files a process may still open, the error names this limit, and not the permissions."""
    (tmp_path / "first").mkdir()
    USES[use](make_file(tmp_path / "first" / "todo.sqlite", rows(3)))  # imports its modules
    refusals: list[str] = []
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        path = make_file(tmp_path / str(number) / "todo.sqlite", rows(3))
        try:
            with free_descriptors(number):
                USES[use](path)
        except (TooManyFilesError, BackupError) as error:
            refusals.append(str(error))
        else:
            break
    assert 1 <= len(refusals) <= 8
    assert all("Too many open files" in text for text in refusals)


def build_path(folder: Path, length: int) -> Path:
    """Return the path of a file whose path has a number of bytes."""
    while (missing := length - len(str(folder / "todo.sqlite"))) > 1:
        folder /= "x" * min(200, missing - 1)
    return folder / "todo.sqlite"


#: Bytes of a path that SQLite opens, and with which it opens temporary files in the same directory.
LONGEST, LONGEST_WITH_TEMPORARIES = 504, 454


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("length", [LONGEST_WITH_TEMPORARIES, LONGEST, LONGEST + 1, 600])
def test_a_long_path(tmp_path: Path, use: str, length: int) -> None:
    """A path that is too long for SQLite is refused with this reason, before any work; any other works."""
    path = build_path(tmp_path, length)
    path.parent.mkdir(parents=True)
    make_file(tmp_path / "todo.sqlite", rows(3)).rename(path)
    has_temporaries = use in ("in memory", "creating", "copying")
    if length <= (LONGEST_WITH_TEMPORARIES if has_temporaries else LONGEST):
        USES[use](path)
    else:
        before = checksum(path)
        with pytest.raises(PathTooLongError, match="SQLite opens at most 504 bytes, and it needs"):
            USES[use](path)
        assert checksum(path) == before
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("use", ["on disk", "in memory", "adding", "status"])
@pytest.mark.parametrize("name", ["n" * 255, "n" * 256, "n" * 5000, "n/" * 3000])
def test_a_long_name(tmp_path: Path, use: str, name: str) -> None:
    """A name that is too long for the system, or has no room for a suffix, is refused with this reason."""
    path = tmp_path / name
    if len(name) == 255:
        make_file(tmp_path / "todo.sqlite", rows(3)).rename(path)
        if use == "status":
            return  # reading needs no suffix
    with pytest.raises(PathTooLongError):
        USES[use](path)


@pytest.mark.parametrize(("is_lasting", "kind"), [(False, DiskError), (True, DamagedFileError)])
def test_a_failed_read_is_no_damage(todo: Callable[..., Path], is_lasting: bool, kind: type[TodoError]) -> None:
    """SQLite reports a failed read as damage; if the file turns out to be undamaged, the error says "call again"."""
    path = todo(*rows(3))
    content = path.read_bytes()

    def read_damaged() -> None:
        with sqlite_errors(path), closing(sqlite3.connect(path)) as connection:
            path.write_bytes(content[:4096] + bytes(len(content) - 4096))
            try:
                connection.execute("SELECT * FROM todolist").fetchall()
            finally:
                if not is_lasting:
                    path.write_bytes(content)

    with pytest.raises(kind, match=r"undamaged copy|a read failed.*Call again"):
        read_damaged()


# --- shared directories ---

#: A user who has a name, and works neither for us nor for the owner of the list.
OTHER = 1


def share(folder: Path) -> None:
    os.chown(folder, 0, 0)
    folder.chmod(0o1777)


def put(path: Path, mode: int) -> None:
    """Put a file of another user into a directory."""
    path.write_bytes(b"something")
    os.chown(path, OTHER, OTHER)
    path.chmod(mode)


@AS_ROOT
@pytest.mark.parametrize(
    ("suffix", "mode", "user"),
    [
        *itertools.product(["-results", "-wal", "-journal", "-status"], [0o600, 0o666], ["owner", "root"]),
        ("-lock", 0o600, "owner"),
    ],
)
@IN_MEMORY
def test_a_file_that_another_user_has_put_there(
    as_nobody: Path, suffix: str, mode: int, user: str, in_memory: bool
) -> None:
    """In a shared directory, the error names another user's file and its owner, and nothing is changed."""
    path = make_file(as_nobody / "todo.sqlite", rows(3))
    place = path.with_name(path.name + suffix)
    as_root(lambda: (share(as_nobody), put(place, mode)))  # type: ignore[arg-type,return-value]
    before = checksum(path)
    os.seteuid(0 if user == "root" else NOBODY)
    with pytest.raises(
        ForeignFileError, match=rf"{place.name} in its directory belongs to the user daemon\. Ask daemon"
    ):
        TaskManager(path, load_into_memory=in_memory)
    with pytest.raises(ForeignFileError):
        add_targets(path, [])
    if suffix in ("-wal", "-journal"):
        assert "belongs to the user daemon" in CliRunner().invoke(main, ["check", str(path)]).output
    os.seteuid(0)
    assert checksum(path) == before
    assert place.read_bytes() == b"something"
    place.unlink()
    TaskManager(path, load_into_memory=in_memory).close()


@AS_ROOT
@IN_MEMORY
def test_members_of_a_group_continue(as_nobody: Path, in_memory: bool) -> None:
    """If other users may write the list, files that a killed manager of another user left are read and deleted."""
    path = make_file(as_nobody / "todo.sqlite", rows(3))
    path.chmod(0o666)
    as_nobody.chmod(0o777)
    child = os.fork()
    if not child:
        os.seteuid(0)
        os.setgid(OTHER)
        os.setuid(OTHER)
        manager = TaskManager(path, load_into_memory=in_memory)
        manager.save_result(result_of({"priority": 1}))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    TaskManager(path).close()
    assert stored(path) == [1]


@pytest.mark.parametrize("kind", ["a symlink", "a hard link", "a file", "nothing"])
@pytest.mark.parametrize("moment", ["O_EXCL", "fsync"])
@pytest.mark.parametrize("method", ["backup", "write_summary"])
def test_a_temporary_file_that_another_user_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, moment: str, kind: str
) -> None:
    """The file in its place keeps its mode, owner, time and content; the call raises, and the old file stays."""
    folder = tmp_path / "shared"
    folder.mkdir()
    path = make_file(folder / "todo.sqlite", rows(3))
    path.chmod(0o606)
    secret = make_file(tmp_path / "secret", rows(9))
    secret.chmod(0o600)
    open_file, sync = os.open, os.fsync

    def swap() -> None:
        for temporary in folder.glob(".photometry_tasks-*"):
            temporary.rename(folder / "taken")
            if kind == "a symlink":
                temporary.symlink_to(secret)
            elif kind == "a hard link":
                temporary.hardlink_to(secret)
            elif kind == "a file":
                temporary.write_text("something")

    def open_and_swap(place: Any, flags: int, *given: Any) -> int:
        descriptor = open_file(place, flags, *given)
        if moment == "O_EXCL" and flags & os.O_EXCL:
            swap()
        return descriptor

    def sync_and_swap(descriptor: int) -> None:
        sync(descriptor)
        if moment == "fsync":
            swap()

    with TaskManager(path, load_into_memory=True, summary=folder / "summary.json") as manager:
        manager.save_result(result_of({"priority": 1}))
        (folder / "summary.json").chmod(0o606)
        before = [checksum(other) for other in (path, folder / "summary.json", secret)]
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", open_and_swap)
            patch.setattr(os, "fsync", sync_and_swap)
            with pytest.raises(OSError, match=r"replaced it|No such file|unable to open|not a database"):
                getattr(manager, method)()
        assert [checksum(other) for other in (path, folder / "summary.json", secret)] == before
        assert secret.stat().st_uid == os.geteuid()
    assert stored(path) == [1]


# --- file systems ---


def read_at_once(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=0)) as reader:
        reader.execute("SELECT * FROM todolist").fetchall()


@IN_MEMORY
def test_a_file_system_that_may_be_shared(mount: Mount, in_memory: bool) -> None:
    """If the kind of file system may be shared, a manager uses no shared memory, and keeps readers out."""
    folder = mount("ramfs", "mode=755")
    path = make_file(folder / "todo.sqlite", rows(3))
    assert (find_mount(path).kind, find_mount(path).is_local) == ("ramfs", False)
    manager = TaskManager(path, load_into_memory=in_memory)
    manager.save_result(result_of({"priority": 1}))
    if not in_memory:
        assert not path.with_name("todo.sqlite-shm").exists()
        assert manager.cursor.execute("PRAGMA locking_mode=NORMAL").fetchone()[0] == "exclusive"
        manager.save_result(result_of({"priority": 2}))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            read_at_once(path)
    manager.close()
    assert stored(path) == ([1] if in_memory else [1, 2])
    assert query(path, "PRAGMA journal_mode") == [("delete",)]
    # The lock file stays: another node might see its deletion too late.
    assert sorted(other.name for other in folder.iterdir()) == [path.name, f"{path.name}-lock"]


def test_a_kill_where_the_file_system_may_be_shared(mount: Mount) -> None:
    """Without shared memory too, the next opening recovers the accepted results of a killed manager."""
    folder = mount("ramfs", "mode=755")
    path = make_file(folder / "todo.sqlite", rows(3))
    child = os.fork()
    if not child:
        manager = TaskManager(path)
        manager.save_result(result_of({"priority": 1}))
        os._exit(0)
    os.waitpid(child, 0)
    assert path.with_name("todo.sqlite-wal").stat().st_size > 0
    TaskManager(path).close()
    assert stored(path) == [1]


#: Lines of `/proc/mounts` on clusters; each stands for a mount on the test's folder.
MOUNTS = {
    "ext4": ("ext4 rw,relatime,nolock", True, True),
    "xfs": ("xfs rw,relatime,attr2,inode64", True, True),
    "tmpfs": ("tmpfs rw,size=1g", True, True),
    "overlay": ("overlay rw,lowerdir=/a,upperdir=/b,workdir=/c", True, True),
    "NFS 4": ("nfs4 rw,relatime,vers=4.2,hard,proto=tcp,local_lock=none,addr=10.0.0.1", False, True),
    "NFS 3": ("nfs rw,vers=3,hard,proto=tcp,mountproto=udp,local_lock=none,addr=10.0.0.1", False, True),
    "NFS nolock": ("nfs rw,vers=3,hard,nolock,proto=tcp,local_lock=all,addr=10.0.0.1", False, False),
    "NFS local flock": ("nfs rw,vers=3,local_lock=flock", False, False),
    "NFS local POSIX": ("nfs rw,vers=3,local_lock=posix", False, False),
    "Lustre": ("lustre rw,checksum,flock,user_xattr,lruresize,lazystatfs", False, True),
    "Lustre localflock": ("lustre rw,checksum,localflock,user_xattr", False, False),
    "Lustre noflock": ("lustre rw,checksum,noflock,user_xattr", False, False),
    "GPFS": ("gpfs rw,relatime", False, True),
    "CephFS": ("ceph rw,relatime,name=tess,secret=<hidden>,acl", False, True),
    "BeeGFS": ("beegfs rw,relatime,cfgFile=/etc/beegfs/beegfs-client.conf", False, True),
    "SMB": ("cifs rw,relatime,vers=3.1.1,nobrl", False, False),
    "sshfs": ("fuse.sshfs rw,nosuid,nodev,user_id=1000", False, False),
    "9p": ("9p rw,sync,dirsync,access=client,trans=virtio", False, True),
}


@pytest.fixture
def mount_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes psutil read a given mount table instead of the system's."""

    def write(lines: str) -> None:
        (tmp_path / "proc" / "self").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc" / "self" / "mounts").write_text(lines)
        (tmp_path / "proc" / "filesystems").touch()  # older releases read it too
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))

    return write


@pytest.mark.parametrize("name", MOUNTS)
@IN_MEMORY
def test_mounts(todo: Callable[..., Path], mount_table: Callable[[str], None], name: str, in_memory: bool) -> None:
    """The kind of mount decides how the file is locked; a mount without locks is refused, and its options are named."""
    path = todo(*rows(3))
    mount, is_local, has_locks = MOUNTS[name]
    kind, options = mount.split()
    others = f"/dev/vda / ext4 rw 0 0\nproc {path.parent}/proc proc rw 0 0\n"
    mount_table(others + f"server:/x {path.parent} {kind} {options} 0 0\n")
    assert find_mount(path) == (str(path.parent), kind, options)
    if not has_locks:
        before = checksum(path)
        with pytest.raises(MountWithoutLocksError) as caught:
            TaskManager(path, load_into_memory=in_memory)
        assert f"is on the mount {path.parent} ({kind}, options {options})" in str(caught.value)
        assert checksum(path) == before
        return
    with TaskManager(path, load_into_memory=in_memory) as manager:
        manager.save_result(result_of({"priority": 1}))
        if not in_memory:
            assert path.with_name("todo.sqlite-shm").exists() is is_local
    assert stored(path) == [1]


def test_which_mount(mount_table: Callable[[str], None], tmp_path: Path) -> None:
    """The longest mount point on the path counts; of two equal mount points the last counts; links are followed."""
    (tmp_path / "a b" / "c").mkdir(parents=True)
    (tmp_path / "a b2").mkdir()
    (tmp_path / "link").symlink_to("a b/c")
    place = str(tmp_path / "a b").replace(" ", r"\040")
    mount_table(f"x {place}/c nfs rw 0 0\nx / ext4 rw 0 0\nx {place} autofs rw 0 0\nx {place} xfs rw 0 0\n")
    found = {name: find_mount(tmp_path / name).kind for name in ("a b/todo", "a b/c/todo", "a b2/todo", "link/todo")}
    assert found == {"a b/todo": "xfs", "a b/c/todo": "nfs", "a b2/todo": "ext4", "link/todo": "nfs"}


def test_an_unlisted_mount(todo: Callable[..., Path], mount_table: Callable[[str], None]) -> None:
    """If the system lists no mounts, the file is treated as on a shared file system."""
    path = todo(*rows(3))
    mount_table("")
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}))
        assert not path.with_name("todo.sqlite-shm").exists()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            read_at_once(path)


# --- errors of SQLite, and errors after a commit ---


CODES = {name: getattr(sqlite3, name) for name in dir(sqlite3) if name.startswith("SQLITE_") and name.isupper()}


@pytest.mark.parametrize("kind", [sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InterfaceError])
def test_every_code_has_an_error(tmp_path: Path, kind: type[sqlite3.Error]) -> None:
    """Each error of the driver, with any code or none, raised by the driver or by SQLAlchemy, is a TodoError."""
    for code in (None, *CODES.values()):
        error = kind("refused")
        if code is not None:
            error.sqlite_errorcode = code
        for raised in (error, DBAPIError("SELECT 1", {}, error)):
            with pytest.raises(TodoError), sqlite_errors(tmp_path):
                raise raised


def forbid(manager: TaskManager) -> None:
    manager.conn.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)


def interrupt(manager: TaskManager) -> None:
    manager.conn.set_progress_handler(lambda: 1, 1)


def rename_a_column(manager: TaskManager) -> None:
    manager.conn.execute("ALTER TABLE diagnostics RENAME COLUMN variance TO var")


def refuse_by_trigger(manager: TaskManager) -> None:
    manager.conn.execute("CREATE TRIGGER no BEFORE INSERT ON diagnostics BEGIN SELECT raise(ABORT, 'not today'); END")


@pytest.mark.parametrize("obstruct", [forbid, interrupt, rename_a_column, refuse_by_trigger])
@IN_MEMORY
def test_errors_of_sqlite(todo: Callable[..., Path], obstruct: Callable[[TaskManager], None], in_memory: bool) -> None:
    """Whatever SQLite refuses raises an SQLiteError that names the file, and nothing is saved."""
    path = todo(*rows(3))
    manager = TaskManager(path, load_into_memory=in_memory)
    manager.save_result(result_of({"priority": 1}))
    obstruct(manager)
    with pytest.raises(SQLiteError, match=f"{path}: SQLite refuses the call"):
        manager.save_result(result_of({"priority": 2}))
    manager.conn.set_authorizer(None)
    manager.conn.set_progress_handler(None, 1)
    manager.close()
    assert stored(path) == [1]


PLACES: dict[str, Callable[[TaskManager], Any]] = {
    "write_summary": lambda manager: manager,
    "backup": lambda manager: manager._store,
    "update": lambda manager: manager._store._cache,
    "count": lambda manager: manager._throughput,
    "write_if_due": lambda manager: manager._throughput,
    "publish_status": lambda manager: manager._store,
}


@pytest.mark.parametrize(
    "error",
    [MemoryError(), sqlite3.OperationalError("locking protocol"), RuntimeError("callback"), KeyboardInterrupt()],
    ids=repr,
)
@IN_MEMORY
def test_an_error_after_the_commit(
    todo: Callable[..., Path],
    error: BaseException,
    in_memory: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When a result is stored, no error but an interrupt escapes, also if a handler of the log fails: it is logged."""

    def fail(*_: object) -> None:
        raise error

    path = todo(*rows(20))
    arguments: dict[str, Any] = {"summary_interval": 1, "backup_interval": 1, "load_into_memory": in_memory}
    handler = logging.Handler()
    with TaskManager(path, summary=path.with_name("summary.json"), **arguments) as manager:
        for priority, (name, find) in enumerate(PLACES.items(), start=1):
            with monkeypatch.context() as patch:
                patch.setattr(find(manager), name, fail)
                patch.setattr(handler, "emit", fail)
                for number in (priority, priority + 10):
                    escapes = isinstance(error, KeyboardInterrupt) and (in_memory or name != "backup")
                    with pytest.raises(KeyboardInterrupt) if escapes else nullcontext():
                        manager.save_result(result_of({"priority": number}))
                    manager.logger.addHandler(handler)
                manager.logger.removeHandler(handler)
    assert stored(path) == [*range(1, 7), *range(11, 17)]
    assert ("automatic backup failed" in caplog.text) == (in_memory and isinstance(error, Exception))


# --- temporary files ---


def back_up(connection: Connection, path: Path) -> None:
    """Save a result, and wait for a message of the test in the midst of a backup."""
    copy_to = SQLiteDatabase.copy_to

    def wait(database: SQLiteDatabase, temporary: Path) -> None:
        copy_to(database, temporary)
        connection.send("copied")
        connection.recv()

    with TaskManager(path, load_into_memory=True) as manager:
        manager.save_result(result_of({"priority": 1}))
        SQLiteDatabase.copy_to = wait  # type: ignore[method-assign]
        manager.backup()
        SQLiteDatabase.copy_to = copy_to  # type: ignore[method-assign]
    connection.send("closed")


def rename_file(path: Path) -> Path:
    for other in sorted(path.parent.glob("todo*")):
        other.rename(path.with_name(other.name.replace("todo", "a 'b\"\n#%[1]*")))
    return path.with_name("a 'b\"\n#%[1]*.sqlite")


def bind(path: Path) -> Path:
    folder = path.parent.with_name("mounted")
    folder.mkdir()
    subprocess.run(["mount", "--bind", path.parent, folder], check=True)
    return folder / path.name


#: Functions that return another path of a file, or of its copy.
OTHERS: dict[str, Callable[[Path], Path]] = {
    "the same path": lambda path: path,
    "a renamed file": rename_file,
    "a renamed directory": lambda path: path.parent.rename(path.parent.with_name("renamed")) / path.name,
    "a copied directory": lambda path: Path(shutil.copytree(path.parent, path.parent.with_name("copy"))) / path.name,
    "a linked directory": lambda path: link(path.parent.with_name("link"), path.parent) / path.name,
    "a linked file": lambda path: link(path.parent.with_name("todo"), path),
    "another mount": bind,
    "another list": lambda path: make_file(path.with_name("second.sqlite"), rows(3)),
}


def link(place: Path, target: Path) -> Path:
    place.symlink_to(target)
    return place


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", OTHERS)
def test_the_temporary_file_of_a_killed_backup(tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    """The next opening of a list in the directory deletes it, whatever path the list had before."""
    if name == "another mount":
        request.getfixturevalue("own_mounts")
    folder = tmp_path / "lists"
    folder.mkdir()
    path = make_file(folder / "todo.sqlite", rows(3))
    with running(back_up, path) as (_, connection):
        assert connection.recv() == "copied"
    other = OTHERS[name](path)
    assert len(list(other.resolve().parent.glob(".photometry_tasks-*"))) == 1
    assert "leftover file .photometry_tasks-" in CliRunner().invoke(main, ["check", str(other)]).output
    TaskManager(other).close()
    assert list(other.resolve().parent.glob(".photometry_tasks-*")) == []
    if name != "another list":
        assert stored(other) == [1]
    if name == "another mount":
        subprocess.run(["umount", "--lazy", str(other.parent)], check=True)


def write_slowly(connection: Connection, path: Path, place: Path) -> None:
    """Replace a file, and wait for a message in the midst of it."""

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        connection.send(path.name)
        connection.recv()

    replace_file(place, write)
    connection.send("written")


@pytest.mark.parametrize("sweep", ["the same output", "an opening", "add_targets"])
def test_the_temporary_file_of_a_killed_output(tmp_path: Path, sweep: str) -> None:
    """The next output of this name, or the next opening of a list there, deletes it; that of a living writer stays."""
    path = make_file(tmp_path / "todo.sqlite", rows(3))
    place = tmp_path / "out.csv"

    def sweep_once() -> None:
        if sweep == "the same output":
            replace_file(place, "another")
        elif sweep == "an opening":
            TaskManager(path).close()
        else:
            add_targets(path, [])

    with running(write_slowly, path, place) as (process, connection):
        connection.recv()
        sweep_once()
        assert len(list(tmp_path.glob(".photometry_tasks-output-*"))) == 1
        kill(process)
        sweep_once()
        assert list(tmp_path.glob(".photometry_tasks-*")) == []


def test_the_temporary_file_of_another_manager(tmp_path: Path) -> None:
    """While a manager writes a backup, the opening of another list in its directory leaves its temporary file."""
    path, other = (make_file(tmp_path / f"{name}.sqlite", rows(3)) for name in ("one", "other"))
    with running(back_up, path) as (_, connection):
        assert connection.recv() == "copied"
        for in_memory in (False, True):
            TaskManager(other, load_into_memory=in_memory).close()
        connection.send("continue")
        assert connection.recv() == "closed"
    assert stored(path) == [1]
    assert sorted(tmp_path.iterdir()) == [path, other]
