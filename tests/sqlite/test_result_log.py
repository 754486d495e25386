"""Promise 1 in memory mode: the log between two backups, and its replay at the next opening."""

import gzip
import itertools
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import TodoError, UnsavedResultsError
from photometry_tasks.export import export_tasks
from photometry_tasks.progress.status_fields import read_record
from photometry_tasks.rules.estimate import measure_rate
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import begin_reading
from photometry_tasks.storage.sqlite import result_log
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.opening import open_todo_file_with_log
from photometry_tasks.storage.sqlite.result_log import ResultLog
from tests.support.lists import checksum, make_file, query, result_of
from tests.support.paths import ROOT
from tests.support.processes import kill, received, run_command, running

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])

#: Values of every kind that a column takes and that JSON could change.
DETAILS: list[dict[str, Any]] = [
    {"mean_flux": 0.1, "variance": 1e308, "ptp": float("-inf"), "rms_hour": 5e-324, "edge_flux": np.float32(0.1)},
    {"mean_flux": float("nan"), "mask_size": 2**62, "stamp": (1, 12, 3, 17), "pos_centroid": (1.5, float("inf"))},
    {"errors": ["quo'te", 'dou"ble', "new\nline", "NUL\0", "\ud800", "☆ \x85 \u2028"]},
    {"filepath_lightcurve": "/a/b c/☆'.fits", "skip_targets": [105]},
]


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-results")


def frame(entry: object) -> bytes:
    """Return the frame of an entry, or of the bytes of an entry, as any release may write it."""
    body = entry if isinstance(entry, bytes) else msgspec.msgpack.encode(entry)
    return result_log._HEAD.pack(result_log._MARK, len(body), zlib.crc32(body)) + body + b"\n"


def frames_of(path: Path) -> list[bytes]:
    """Return the entries of a log."""
    return [body for _, body in result_log.ResultLog(path)._frames() if body is not None]


def save(manager: TaskManager, *priorities: int, **details: Any) -> None:
    for priority in priorities:
        manager.save_result(result_of({"priority": priority}, **details))


def save_and_wait(connection: Connection, path: Path, priorities: list[int]) -> None:
    manager = TaskManager(path, load_into_memory=True)
    for number, priority in enumerate(priorities):
        save(manager, priority, **DETAILS[number % 4])
        connection.send(priority)
    connection.recv()


def die_with(path: Path, *priorities: int) -> Path:
    """Let a manager in memory accept results, kill it, and return the path."""
    with running(save_and_wait, path, list(priorities)) as (process, connection):
        for _ in priorities:
            connection.recv()
        kill(process)
    return path


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of two tasks, whose manager in memory was killed after the result of the first one."""
    return die_with(make_file(tmp_path_factory.mktemp("killed") / "todo.sqlite", [{}, {}]), 1)


@pytest.fixture
def dead(killed: Path, tmp_path: Path) -> Path:
    """A copy of this list and of its log."""
    for path in killed.parent.iterdir():
        shutil.copy2(path, tmp_path)
    return tmp_path / killed.name


def state(path: Path) -> list[list[tuple[Any, ...]]]:
    """Return the content of the three tables."""
    return [
        query(path, "SELECT priority, status FROM todolist ORDER BY 1"),
        query(path, "SELECT *, typeof(mean_flux), typeof(mask_size) FROM diagnostics ORDER BY 1"),
        query(path, "SELECT * FROM photometry_skipped ORDER BY 1, 2"),
    ]


@IN_MEMORY
def test_the_next_opening_takes_the_results(
    todo: Callable[..., Path], tmp_path: Path, in_memory: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """After a kill, the next opening in any mode saves the same rows as closing would, and logs their number."""
    rows = [{"tmag": 5.0 + number} for number in range(6)]
    (tmp_path / "other").mkdir()
    closed = make_file(tmp_path / "other" / "todo.sqlite", rows)
    with TaskManager(closed, load_into_memory=True) as manager:
        for number, priority in enumerate((1, 2, 3, 4, 2)):
            save(manager, priority, **DETAILS[number % 4])
    path = die_with(todo(*rows), 1, 2, 3, 4, 2)
    assert state(path)[0] == [(priority, None) for priority in range(1, 7)]
    with TaskManager(path, load_into_memory=in_memory) as manager:
        assert "saved 5 results that a killed manager had logged" in caplog.text
        assert (manager.summary["OK"], manager.summary["SKIPPED"]) == (4, 1)
    assert state(path) == state(closed)
    caplog.clear()
    TaskManager(path, load_into_memory=in_memory).close()
    assert "a killed manager had logged" not in caplog.text
    assert state(path) == state(closed)


def back_up_on_demand(connection: Connection, path: Path) -> None:
    with TaskManager(path, load_into_memory=True, backup_interval=None) as manager:
        for priority in (1, 3, 5):
            save(manager, priority)
            connection.send("saved")
            connection.recv()
            manager.backup()
            save(manager, priority + 1)


def test_backups_while_a_reader_compares(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that meets a log in the midst of one backup, and checks it in the midst of the next, reads it again."""
    path = todo(*[{}] * 6)
    log, find_start, open_read_only = ResultLog(path), ResultLog.find_start, SQLiteDatabase.open_read_only
    calls = Counter[str]()

    def find_start_in_torn_log(log: ResultLog, generation: int) -> int | None:
        calls["find"] += 1
        return None if calls["find"] == 1 else find_start(log, generation)

    def open_before_a_backup(path: Path) -> SQLiteDatabase:
        file = open_read_only(path)
        calls["open"] += 1
        if calls["open"] == 2:
            generation = file.get_generation()
            monkeypatch.setattr(file, "get_generation", lambda: generation)
            connection.send("back up")
            assert connection.recv() == "saved"
        return file

    with running(back_up_on_demand, path) as (_, connection):
        assert connection.recv() == "saved"
        monkeypatch.setattr(ResultLog, "find_start", find_start_in_torn_log)
        monkeypatch.setattr(SQLiteDatabase, "open_read_only", open_before_a_backup)
        with closing(open_todo_file_with_log(path, log)) as database:
            done = database.cursor.run_sql("SELECT count(*) FROM todolist WHERE status = 1").fetchone()
        assert done == (3,)


SEEN = "SELECT seen FROM photometry_tasks_workers WHERE worker = 1"
LAST = "SELECT max(ended) FROM photometry_tasks_attempts"


@pytest.mark.parametrize("is_killed", [False, True], ids=["running", "killed"])
def test_the_throughput_of_logged_results(todo: Callable[..., Path], is_killed: bool) -> None:
    """The minutes in which logged results were saved are known while the run goes on, and after a kill."""
    path = todo(*[{}] * 6)
    before = int(time.time())
    with running(die_later, path) as (process, connection):
        assert connection.recv() == "saved"
        if is_killed:
            kill(process)
            TaskManager(path, reset=False).close()
        with begin_reading(parse_location(path)) as opened:
            record = read_record(opened.connection)
            seen, last = (opened.connection.execute(sa.text(sql)).scalar_one() for sql in (SEEN, LAST))
        assert seen == last
        sums = [sum(getattr(row, name) for row in record.minutes) for name in ("saved", "errors", "elaptime")]
        assert sums == [4, 1, 8.0]
        assert all(before - 60 <= row.minute <= time.time() for row in record.minutes)
        assert record.minutes[-1].last_error == 4
        assert measure_rate(record) > 0


def die_later(connection: Connection, path: Path) -> None:
    with TaskManager(path, load_into_memory=True, backup_interval=None) as manager:
        for priority in (1, 2, 3, 4):
            status = STATUS.ERROR if priority == 4 else STATUS.OK
            manager.save_result({**result_of({"priority": priority}, status), "time": 2.0})
        connection.send("saved")
        connection.recv()


RESETS: dict[str, Callable[[TaskManager], Any]] = {
    "a result": lambda tm: tm.reset_tasks(priority=2),
    "all": lambda tm: tm.reset_tasks(status=STATUS),
    "a chain of skips": lambda tm: (save(tm, 3, skip_targets=[104]), tm.reset_tasks(priority=3)),
    "then a result": lambda tm: (tm.reset_tasks(priority=[1, 2]), save(tm, 1, mean_flux=9.0)),
    "a result of the last backup": lambda tm: (tm.backup(), tm.reset_tasks(priority=1)),
    "started tasks": lambda tm: (tm.start_task(3), tm.reset_tasks(status=STATUS.STARTED)),
    "a reset that fails": lambda tm: reset_without_success(tm),
    "opening": lambda tm: save_an_error_and_reopen(tm),
    "overwriting": lambda tm: reopen(tm, overwrite=True),
}


REFUSES = """
CREATE TABLE allowed (status INTEGER PRIMARY KEY);
CREATE TABLE seen (status INTEGER REFERENCES allowed(status) DEFERRABLE INITIALLY DEFERRED);
CREATE TRIGGER refuse AFTER UPDATE OF status ON todolist WHEN new.status IS NULL BEGIN INSERT INTO seen VALUES (3); END;
"""


def reset_without_success(manager: TaskManager) -> None:
    """Call `reset_tasks`, whose commit a rule of another program refuses."""
    manager.conn.executescript(REFUSES)
    with pytest.raises(TodoError):
        manager.reset_tasks(status=STATUS)


def reopen(manager: TaskManager, **arguments: Any) -> None:
    manager.close()
    REOPENED.append(TaskManager(manager.todo_file, load_into_memory=True, **arguments))


def save_an_error_and_reopen(manager: TaskManager) -> None:
    manager.save_result(result_of({"priority": 4}, STATUS.ERROR, errors=["cosmic"]))
    reopen(manager)


REOPENED: list[TaskManager] = []


def reset_and_wait(connection: Connection, path: Path, name: str, durability: Any) -> None:
    manager = TaskManager(path, load_into_memory=True, durability=durability)
    save(manager, 1, 2, mean_flux=1.0)
    RESETS[name](manager)
    connection.send("done")
    connection.recv()


@pytest.mark.sample(3)
@pytest.mark.parametrize(("name", "durability"), [*zip(RESETS, itertools.cycle(["normal", "full"]), strict=False)])
def test_a_reset_survives_a_kill(todo: Callable[..., Path], tmp_path: Path, name: str, durability: str) -> None:
    """After a kill, the tasks that `reset_tasks` or opening has returned to pending are pending, and no others."""
    rows = [{"tmag": 5.0 + number} for number in range(6)]
    (tmp_path / "other").mkdir()
    closed = make_file(tmp_path / "other" / "todo.sqlite", rows)
    REOPENED[:] = [TaskManager(closed, load_into_memory=True)]
    save(REOPENED[0], 1, 2, mean_flux=1.0)
    RESETS[name](REOPENED[0])
    REOPENED[-1].close()
    path = todo(*rows)
    with running(reset_and_wait, path, name, durability) as (process, connection):
        assert connection.recv() == "done"
        kill(process)
    with TaskManager(path, load_into_memory=durability == "full"):
        assert state(path) == state(closed)
    assert state(path) == state(closed)
    assert list(path.parent.glob("todo.sqlite*")) == [path]


@IN_MEMORY
def test_a_log_that_is_there_again(todo: Callable[..., Path], in_memory: bool) -> None:
    """A log that was already replayed changes nothing: the file has another generation than the log."""
    path = die_with(todo({}, {}, {}), 1, 2)
    log = log_of(path).read_bytes()
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}, STATUS.WARNING))
    before = state(path)
    log_of(path).write_bytes(log)
    TaskManager(path, load_into_memory=in_memory).close()
    assert state(path) == before
    (kept,) = path.parent.glob("*-kept-*")
    assert kept.read_bytes() == log


@IN_MEMORY
def test_a_log_of_another_file(todo: Callable[..., Path], in_memory: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The log of a replaced file is kept under another name, which is logged, and not replayed into the new file."""
    path = die_with(todo({}, {}), 1, 2)
    log = log_of(path).read_bytes()
    path.unlink()
    make_file(path, [{"starid": 7}, {"starid": 8}])
    TaskManager(path, load_into_memory=in_memory).close()
    assert state(path) == [[(1, None), (2, None)], [], []]
    (kept,) = path.parent.glob("*-kept-*")
    assert kept.read_bytes() == log
    assert f"belongs to another file; it is kept as {kept}" in caplog.text
    assert sorted(path.parent.iterdir()) == sorted([path, kept])


def test_a_copy_from_before_the_run(todo: Callable[..., Path]) -> None:
    """An older copy of the file has another generation than the log: the log is not replayed, but kept."""
    path = todo({}, {}, {})
    with TaskManager(path, load_into_memory=True) as manager:
        save(manager, 1)
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    with TaskManager(path) as manager:
        save(manager, 3)
    die_with(path, 2)
    copy.replace(path)
    TaskManager(path).close()
    assert state(path)[0] == [(1, 1), (2, None), (3, None)]
    assert list(path.parent.glob("*-kept-*"))


@IN_MEMORY
def test_a_target_that_is_another(todo: Callable[..., Path], in_memory: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A result whose task has another target now is not replayed; the other results are, and the log is kept."""
    path = die_with(todo({}, {}, {}), 1, 2, 3)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE todolist SET starid = 999 WHERE priority = 2")
        connection.execute("DELETE FROM todolist WHERE priority = 3")
        connection.commit()
    TaskManager(path, load_into_memory=in_memory).close()
    assert state(path)[0] == [(1, 1), (2, None)]
    assert "cannot replay 2 logged results (damaged, or without a matching task);" in caplog.text
    assert len(list(path.parent.glob("*-kept-*"))) == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("lost", [1, 2, 40, 100])
@IN_MEMORY
def test_a_torn_last_frame(todo: Callable[..., Path], lost: int, in_memory: bool) -> None:
    """A last frame that is torn at any point is ignored, and the next result overwrites it."""
    path = die_with(todo({}, {}, {}), 1, 2)
    size = log_of(path).stat().st_size
    os.truncate(log_of(path), size - lost)
    if in_memory:
        os.truncate(log_of(path), size)  # a file system may leave zeros
    with TaskManager(path, load_into_memory=in_memory) as manager:
        assert manager.summary["OK"] == 1
        save(manager, 3)
    assert state(path)[0] == [(1, 1), (2, None), (3, 1)]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.sample(3)
@pytest.mark.parametrize("place", [1, 5, 9, 50, -1])
@pytest.mark.parametrize("is_inserted", [False, True])
def test_a_damaged_frame(
    todo: Callable[..., Path], place: int, is_inserted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A frame with a damaged mark, length, checksum, entry or end is not replayed; others are; the log is kept."""
    path = die_with(todo({}, {}, {}), 1, 2, 3)
    frames = list(map(frame, frames_of(path)))
    assert b"".join(frames) == log_of(path).read_bytes()
    place %= len(frames[2])
    frames[2] = frames[2][:place] + b"#" + frames[2][place + (not is_inserted) :]
    log_of(path).write_bytes(b"".join(frames))
    TaskManager(path).close()
    assert state(path)[0] == [(1, 1), (2, None), (3, 1)]
    assert "cannot replay 1 logged result" in caplog.text
    assert len(list(path.parent.glob("*-kept-*"))) == 1


#: What a power cut may leave of a first frame.
TORN = [
    b"",
    b"\xc1",
    frame({"generation": 1})[:7],
    frame({"generation": 1})[:-1],
    frame({})[:13] + b"\0" * 9,
    b"\0" * 50,
]


@pytest.mark.parametrize(
    "content",
    [
        *TORN,
        *(
            b"\n",
            b"00000000 gASVCg==\n",  # of an older release
            b"nonsense\n" * 3,
            bytes(range(256)),
            b"x",
            gzip.compress(b"results", mtime=0),
            b"{}",
        ),
    ],
)
@IN_MEMORY
def test_nonsense_in_place_of_a_log(
    todo: Callable[..., Path], content: bytes, in_memory: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With nonsense in place of the log, opening works and keeps it aside: it may be of another release."""
    path = todo({}, {})
    log_of(path).write_bytes(content)
    with TaskManager(path, load_into_memory=in_memory) as manager:
        save(manager, 1)
    assert state(path)[0] == [(1, 1), (2, None)]
    is_torn = content in TORN
    kept = list(path.parent.glob("*-kept-*"))
    assert [aside.read_bytes() for aside in kept] == ([] if is_torn else [content])
    assert sorted(path.parent.iterdir()) == sorted([path, *kept])
    assert ("is kept as" in caplog.text) != is_torn


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.replace(b"\n", b"\r\n"),
        lambda log: log.upper(),
        lambda _log: b"".join(frame({"rows": n}) for n in range(3)),
        lambda log: log + frame({"undo": [1]}),
        lambda log: log + frame({"reset": {"priority": 1}}),
        lambda log: log + frame({"results": {}}),
        lambda _log: b"0123abcd gASVCgAAAAAAAAB9lC4=\n",
    ],
)
def test_a_log_of_another_release(dead: Path, change: Callable[[bytes], bytes]) -> None:
    """Frames that cannot be read are never deleted without a copy, and readers do not pass over them in silence."""
    path = dead
    log_of(path).write_bytes(change(log_of(path).read_bytes()))
    content = log_of(path).read_bytes()
    with pytest.raises(UnsavedResultsError):
        export_tasks(path, path.with_name("out.csv"))
    TaskManager(path).close()
    (kept,) = path.parent.glob("*-kept-*")
    assert kept.read_bytes().startswith(content)


def rewrite_log(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the last record of a log."""
    *others, last = map(msgspec.msgpack.decode, frames_of(path))
    change(last["results"][-1])
    log_of(path).write_bytes(b"".join(map(frame, [*others, last])))


OTHER_RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"no {name}": lambda record, name=name: record.pop(name) for name in ("result", "target", "attempt")},  # type: ignore[misc]  # mypy does not see the default
    "a list for a result": lambda record: record.update(result=[1]),
    "an attempt with a value less": lambda record: record["attempt"].pop("worker"),
    "an attempt that begins with a text": lambda record: record["attempt"].update(begun="1"),
    "a column of the target less": lambda record: record["target"].pop("ccd"),
    "another target": lambda record: record["target"].update(ccd=[1]),
    "no run time": lambda record: record["result"].pop("time"),
    "another status": lambda record: record["result"].update(status=77),
    "a running task": lambda record: record["result"].update(status=STATUS.STARTED.value),
    "a list for a status": lambda record: record["result"].update(status=[1]),
    "a text among the stars": lambda record: record["result"]["details"].update(skip_targets=["7"]),
    "a star beyond 64 bits": lambda record: record["result"]["details"].update(skip_targets=[2**63]),
    "a count beyond 64 bits": lambda record: record["result"]["details"].update(mask_size=2**63),
    "a priority beyond 64 bits": lambda record: record["result"].update(priority=2**64 - 1),
    "an infinite run time": lambda record: record["result"].update(time=float("inf")),
    "a text for a list of errors": lambda record: record["result"]["details"].update(errors="boom"),
    "a text for a flux": lambda record: record["result"]["details"].update(mean_flux="bright"),
    "a number for a path": lambda record: record["result"]["details"].update(filepath_lightcurve=7),
    "a fraction for a count": lambda record: record["result"]["details"].update(mask_size=1.5),
    "a text for a magnitude": lambda record: record["result"].update(tmag="bright"),
    "a list for own values": lambda record: record["result"]["details"].update(extra=[1]),
    "a list among own values": lambda record: record["result"]["details"].update(extra={"a": [1]}),
}


@pytest.mark.parametrize("change", OTHER_RECORDS.values(), ids=OTHER_RECORDS)
@IN_MEMORY
def test_a_record_with_other_fields(dead: Path, in_memory: bool, change: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A record with unexpected fields is logged, and its log is kept; the file opens."""
    rewrite_log(dead, change)
    TaskManager(dead, load_into_memory=in_memory).close()
    assert state(dead) == [[(1, None), (2, None)], [], []]
    assert len(list(dead.parent.glob("*-kept-*"))) == 1
    assert "the log is kept as" in caplog.text


def test_what_an_upgrade_would_save(dead: Path) -> None:
    """`upgrade --check` says that a killed manager's results would be saved, and changes nothing."""
    before = checksum(dead), checksum(log_of(dead))
    for code, text in ((1, "the results that a killed manager logged are saved"), (1, "would be upgraded")):
        asked = run_command(dead.parent, "upgrade", str(dead), "--check")
        assert (asked.returncode, text in asked.stdout) == (code, True)
    assert (checksum(dead), checksum(log_of(dead))) == before
    run_command(dead.parent, "upgrade", str(dead))
    assert run_command(dead.parent, "upgrade", str(dead), "--check").returncode == 0
    assert state(dead)[0] == [(1, 1), (2, None)]


@pytest.mark.parametrize("results", [3, None, "text", [3], {}])
def test_results_of_another_type(dead: Path, results: Any) -> None:
    """An entry whose results are no list of records keeps the file from nothing: its log is kept aside."""
    log_of(dead).write_bytes(frame(frames_of(dead)[0]) + frame({"results": results}))
    TaskManager(dead).close()
    assert state(dead) == [[(1, None), (2, None)], [], []]
    assert len(list(dead.parent.glob("*-kept-*"))) == 1


RESULTS = b"\x81\xa7results"

BOMBS = {
    "a list that is not there": frame(RESULTS + b"\xdd\xff\xff\xff\xff"),
    "a mapping that is not there": frame(b"\xdf\xff\xff\xff\xff"),
    "a text that is not there": frame(b"\x81\xdb\xff\xff\xff\xff"),
    "bytes that are not there": frame(RESULTS + b"\xc6\xff\xff\xff\xff"),
    "lists in lists": frame(RESULTS + b"\x91" * 500_000),
    "lists in a status": frame(RESULTS + b"\x91\x81\xa6result\x81\xa6status" + b"\x91" * 500_000 + b"\xc0"),
    "keys in keys": frame(RESULTS + b"\x91\x81\xa6result\x81\xa6status" + b"\x81\x91" * 500_000 + b"\xc0"),
    "an extension": frame(RESULTS + b"\xc9\xff\xff\xff\xff\x01"),
    "a reset of no priority": frame({"reset": [2**63]}),
    "an entry of 30 MB": frame({"reset": [], "rows": "x" * 30_000_000}),
    "30 MB of nothing": b"0" * 30_000_000,
    "marks": result_log._MARK * 100_000,
}


@pytest.mark.parametrize("line", BOMBS.values(), ids=BOMBS)
@IN_MEMORY
def test_a_frame_that_takes_more_than_its_length(dead: Path, in_memory: bool, line: bytes) -> None:
    """A frame that would take much memory or crash the process is not replayed; the log is kept, and the file opens."""
    with log_of(dead).open("ab") as log:
        log.write(line + frame({}))
    log_size = log_of(dead).stat().st_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    TaskManager(dead, load_into_memory=in_memory).close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert state(dead)[0] == [(1, 1), (2, None)]
    (kept,) = dead.parent.glob("*-kept-*")
    assert kept.stat().st_size >= log_size


def test_results_that_are_too_long_for_a_frame(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of one call take several frames if need be; a single result that is too long is refused."""
    path = todo(*[{} for _ in range(30)])
    monkeypatch.setattr(result_log, "_LONGEST", 3000)
    child = os.fork()
    if not child:
        manager = TaskManager(path, load_into_memory=True)
        manager.save_results([result_of({"priority": priority}, errors=["x" * 700]) for priority in range(1, 21)])
        with pytest.raises(ValueError, match=r"Result of task 21: size=0 MB: the log .* shorten its texts"):
            manager.save_result(result_of({"priority": 21}, errors=["x" * 3000]))
        save(manager, 22)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert max(map(len, frames_of(path))) < 3000
    TaskManager(path).close()
    assert [priority for priority, status in state(path)[0] if status == 1] == [*range(1, 21), 22]
    assert list(path.parent.iterdir()) == [path]


@IN_MEMORY
def test_a_record_of_another_release(todo: Callable[..., Path], in_memory: bool) -> None:
    """A record whose release had other columns, in another order, is replayed; a missing value is NULL."""

    def change(record: dict[str, Any]) -> None:
        details = record["result"]["details"]
        del details["edge_flux"]
        record["result"]["details"] = {"of_a_later_release": 1, **dict(reversed(list(details.items())))}

    path = die_with(todo({}), 1)
    rewrite_log(path, change)
    TaskManager(path, load_into_memory=in_memory).close()
    columns = "method_used, elaptime, variance, ptp, edge_flux"
    assert query(path, f"SELECT {columns} FROM diagnostics") == [("aperture", 1.5, 1e308, float("-inf"), None)]
    assert list(path.parent.iterdir()) == [path]


def test_what_opening_changed_is_on_disk_first(todo: Callable[..., Path]) -> None:
    """After overwriting in memory, a result and a kill, the file has this result and no old results."""
    path = todo({}, {}, {})
    with TaskManager(path) as manager:
        save(manager, 1, 2)
    with running(overwrite_and_wait, path) as (process, connection):
        connection.recv()
        kill(process)
    TaskManager(path, load_into_memory=True).close()
    assert state(path)[0] == [(1, None), (2, None), (3, 1)]


def overwrite_and_wait(connection: Connection, path: Path) -> None:
    manager = TaskManager(path, load_into_memory=True, overwrite=True)
    save(manager, 3)
    connection.send("saved")
    connection.recv()


def test_the_log_holds_what_the_file_lacks(opened: Callable[..., TaskManager]) -> None:
    """The log is one frame longer after each result, and empty after each backup; its first is the generation."""
    manager = opened({}, {}, {}, load_into_memory=True, backup_interval=None)
    log = log_of(Path(manager.todo_file))
    assert log.stat().st_size == 0
    save(manager, 1)
    assert len(frames_of(Path(manager.todo_file))) == 2
    save(manager, 2)
    assert len(frames_of(Path(manager.todo_file))) == 3
    manager.backup()
    assert log.stat().st_size == 0
    save(manager, 3)
    assert len(frames_of(Path(manager.todo_file))) == 2


def test_what_the_caller_writes_is_not_in_the_log(todo: Callable[..., Path]) -> None:
    """Changes through `conn` and started tasks are not logged: they are lost with the process."""
    path = todo({}, {})
    with running(change_and_wait, path) as (process, connection):
        assert next(received(connection)) == "changed"
        kill(process)
    TaskManager(path, cleanup_constraints=["0"]).close()
    assert query(path, "SELECT tmag, status FROM todolist") == [(10.0, 1), (10.0, None)]


def change_and_wait(connection: Connection, path: Path) -> None:
    manager = TaskManager(path, load_into_memory=True)
    manager.cursor.execute("UPDATE todolist SET tmag = 3")
    manager.conn.commit()
    manager.start_task(2)
    save(manager, 1)
    connection.send("changed")
    connection.recv()


_SAVE_20 = """
import os, sys
from photometry_tasks import TaskManager
from tests.support.lists import result_of
manager = TaskManager(sys.argv[1], load_into_memory=sys.argv[2] == "memory", durability=sys.argv[3])
manager.save_result(result_of({"priority": 1}))  # the first result begins the log
os.unlink(sys.argv[1] + "-first")
for priority in range(2, 22):
    manager.save_result(result_of({"priority": priority}))
os.unlink(sys.argv[1] + "-last")
manager.close()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which counts system calls, is not installed")
@pytest.mark.parametrize("durability", ["normal", "full"])
@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_what_is_synced(todo: Callable[..., Path], tmp_path: Path, durability: str, mode: str) -> None:
    """With durability 'full' each of 20 saves waits for the disk once, in both modes; with 'normal' none does."""
    path = todo(*[{} for _ in range(30)])
    for name in ("first", "last"):
        path.with_name(f"{path.name}-{name}").touch()
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=fsync,fdatasync,unlink,unlinkat", "-o", str(trace)]
    command += [sys.executable, "-c", _SAVE_20, str(path), mode, durability]
    subprocess.run(command, check=True, cwd=ROOT)
    calls = trace.read_text()
    during = calls[calls.index(f"{path.name}-first") : calls.index(f"{path.name}-last")]
    assert during.count("sync(") == (20 if durability == "full" else 0)


def test_durability_is_normal_or_full(todo: Callable[..., Path]) -> None:
    """Any other durability raises a ValueError that names the argument."""
    with pytest.raises(ValueError, match="durability='fast': 'normal' or 'full' is expected"):
        TaskManager(todo({}), durability="fast")  # type: ignore[arg-type]


def test_a_symlink_at_the_logs_place(todo: Callable[..., Path], tmp_path: Path) -> None:
    """A manager does not write through a symlink in the place of the log."""
    path = todo({})
    victim = tmp_path / "victim"
    victim.write_text("mine")
    log_of(path).symlink_to(victim)
    with TaskManager(path, load_into_memory=True) as manager:
        save(manager, 1)
        assert not log_of(path).is_symlink()
    assert victim.read_text() == "mine"


def test_messages_reach_the_user_without_set_up(todo: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """A replay is logged as a warning, which Python shows even without any set-up of logging."""
    path = die_with(todo({}), 1)
    TaskManager(path).close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
