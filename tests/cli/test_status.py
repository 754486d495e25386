"""The status of a TODO-list, while it is in use and afterwards."""

import io
import itertools
import json
import math
import os
import pty
import re
import signal
import sqlite3
import struct
import time
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.cli import display
from photometry_tasks.export import export_tasks
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.progress import status_fields, throughput
from photometry_tasks.progress.status_fields import LiveTask, LiveTasks, read_status_fields
from photometry_tasks.report import build_report
from photometry_tasks.rules.estimate import Record
from photometry_tasks.storage.sqlite import lock, status_file
from photometry_tasks.storage.sqlite.lock import Mount
from tests.support.commands import COMMAND, Call
from tests.support.lists import checksum, make_file, many, query, result_of
from tests.support.processes import ignore_signals, kill, received, running, running_command


def work(connection: Connection, path: Path, in_memory: bool) -> None:
    """Save 12 results, every fourth an ERROR, start two more tasks, and wait."""
    # As if each save happened long after the previous one.
    throughput._INTERVAL = status_file._INTERVAL = 0.0
    status_file._SHARE = 0
    with TaskManager(path, load_into_memory=in_memory, backup_interval=None) as manager:
        for priority in range(1, 13):
            manager.start_task(priority)
            status = STATUS.ERROR if priority % 4 == 0 else STATUS.OK
            errors = [f"Traceback\n[red]no stamp for TIC {priority}"] if status is STATUS.ERROR else []
            manager.save_result({**result_of({"priority": priority}, status, errors=errors), "time": 0.5})
        manager.start_tasks([13, 14])
        connection.send("ready")
        connection.recv()
    connection.send("closed")


@pytest.mark.parametrize("in_memory", [False, True], ids=["disk", "memory"])
def test_while_a_run_goes_on(todo: Callable[..., Path], call: Call, in_memory: bool) -> None:
    """Counts, rate, mean time, errors, running tasks and holder come from the file on disk, or from the status file."""
    path = todo(*({"tmag": float(number), "camera": 1 + number % 4} for number in range(30)))
    with running(work, path, in_memory) as (process, connection):
        assert connection.recv() == "ready"
        found = get_status(path)
        holder = f"process {process.pid} on "
        assert [row["seconds"] >= 0 for row in found["running"]] == [True, True]
        assert [row["expected"] for row in found["running"]] == pytest.approx([0.5, 0.5], rel=0.1)
        shown = call("status", path)
        assert json.loads(call("status", path, "--json").stdout)["status"] == found["status"]
        connection.send("close")
        assert connection.recv() == "closed"
        process.join()
    counts = {name: number for name, number in found["status"].items() if number}
    assert counts == {"PENDING": 16, "OK": 9, "ERROR": 3, "STARTED": 2}
    assert found["numtasks"] == 30 == sum(sum(v for k, v in c.items() if k.isupper()) for c in found["ccds"])
    assert holder in found["holder"]
    assert found["mean_elaptime"] == 0.5
    assert 0 < found["rate"] <= 12
    assert [row["priority"] for row in found["running"]] == [13, 14]
    assert [row["priority"] for row in found["last_errors"]] == [12, 8, 4]
    assert (found["age"] is not None) == in_memory
    assert not found["has_log"]
    assert shown.returncode == 0, shown.stderr
    for text in (
        "In use by process",
        "Results over the last 10 minutes: ",
        "18 tasks left: ",
        "Started tasks: 2",
        "95 % take at most",
        "[red]no stamp for TIC 12",
        "0.5 s",
    ):
        assert text in shown.stdout
    assert ("Published by a manager" in shown.stdout) == in_memory
    assert list(path.parent.iterdir()) == [path]
    after = get_status(path)
    assert (after["holder"], after["age"], after["status"]["OK"]) == (None, None, 9)
    assert sum(row[0] for row in query(path, "SELECT saved FROM photometry_tasks_progress")) == 12
    assert query(path, "SELECT sum(errors), sum(elaptime) FROM photometry_tasks_progress") == [(3, 6.0)]


@pytest.mark.both_databases
def test_results_before_a_hang(todo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """If all tasks hang after the first results, a heartbeat writes when these came."""
    target = todo(*many(5))
    with TaskManager(target) as manager:
        manager.save_results([result_of(task) for task in manager.claim_tasks(2)])
        assert get_status(target)["rate"] is None
        monkeypatch.setattr(throughput, "_INTERVAL", 0.0)
        manager.heartbeat()
        assert get_status(target)["rate"] > 0


@pytest.mark.both_databases
def test_silence(todo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """While tasks run and no result comes, the status says for how long, and names the longest task."""
    target = todo(*many(5))
    with TaskManager(target) as manager:
        manager.save_results([result_of(task) for task in manager.claim_tasks(2)])
        manager.claim_tasks(2)
        assert get_status(target)["silence"] is None
        monkeypatch.setattr(status_fields, "_SILENCE", -60.0)  # as if no result had come for two minutes
        found = get_status(target)
        console = Console(width=200, height=60, file=io.StringIO())
        console.print(display.build_view({**found, "silence": 600.0}, console))
        assert re.search(r"No result for 10 min; longest: TIC 10[34]", console.file.getvalue())  # type: ignore[attr-defined]
        assert found["silence"] is not None
    assert get_status(target)["silence"] is None


@pytest.mark.parametrize(
    ("minutes", "managers", "running", "silence"),
    [
        ([0], [0.0], [500.0], 500.0),  # it began after the last result
        ([0], [0.0], [5000.0, 3.0], 940.0),
        ([900], [0.0], [5000.0], None),
        ([0], [0.0, 990.0], [5000.0], 940.0),  # another manager has just come
        ([0], [0.0], [3.0], None),
        ([], [0.0], [], 1000.0),  # a first task
        ([0], [990.0], [], None),
        ([], [], [], None),
    ],
)
def test_how_long_no_result_came(
    minutes: list[int], managers: list[float], running: list[float], silence: float | None
) -> None:
    """The silence begins with the last result, or with the longest running task if that is later."""
    record = Record(
        [SimpleNamespace(minute=minute) for minute in minutes], [(begun, 2000.0) for begun in managers], 1000.0
    )
    live = LiveTasks({number: LiveTask(seconds, None) for number, seconds in enumerate(running)})
    assert status_fields.measure_silence(record, live) == silence


def test_on_a_network_file_system(todo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """If a manager on disk locks readers out, they read the published status, with its age."""
    monkeypatch.setattr(lock, "find_mount", lambda _: Mount("/", "nfs4", "rw"))
    monkeypatch.setattr(status_file, "_INTERVAL", 0.0)
    monkeypatch.setattr(status_file, "_SHARE", 0)
    path = todo(*many(5))
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}))
        found = get_status(path)
        assert found["status"]["OK"] == 1
        assert 0 <= found["age"] < 60
        with monkeypatch.context() as patch:
            patch.setattr(status_file.time, "time", lambda: found["time"] - 3600)  # the clock of the manager is ahead
            assert get_status(path)["age"] == 0
    assert get_status(path)["age"] is None


def test_publishing_takes_little(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is published at most every 10 s, and takes at most a hundredth of the time."""
    times: list[float] = []
    real = status_file.read_status_fields

    def slow(*arguments: Any) -> Any:
        times.append(now[0])
        now[0] += 0.5
        return real(*arguments)

    now = [1000.0]
    monkeypatch.setattr(status_file, "read_status_fields", slow)
    monkeypatch.setattr(status_file.time, "monotonic", lambda: now[0])
    manager = opened(*many(100), load_into_memory=True)
    for priority in range(1, 101):
        now[0] += 1.0
        manager.save_result(result_of({"priority": priority}))
    assert times[0] == 1010.0
    assert [round(later - before) for before, later in itertools.pairwise(times)] == [50]


@pytest.mark.sample(2)
@pytest.mark.parametrize("in_memory", [False, True], ids=["disk", "memory"])
def test_after_a_kill(todo: Callable[..., Path], call: Call, in_memory: bool) -> None:
    """After a kill, the list has no holder, and the status counts results in a log, and says where they are."""
    path = todo(*many(30))
    with running(work, path, in_memory) as (process, connection):
        assert connection.recv() == "ready"
        kill(process)
        assert list(received(connection)) == []
    found = get_status(path)
    assert (found["holder"], found["rate"]) == (None, None)
    assert found["has_log"] == in_memory
    assert (found["status"]["OK"], found["status"]["ERROR"]) == (9, 3)
    shown = call("status", path).stdout
    assert ("The log of a killed manager holds results that the file lacks" in shown) == in_memory
    assert ("2 tasks interrupted; the next run will run them again." in shown) != in_memory
    assert ("Interrupted tasks: 2" in shown) != in_memory
    with TaskManager(path) as manager:
        assert manager.summary["OK"] == 9
    assert list(path.parent.iterdir()) == [path]


def test_looking_locks_nothing(todo: Callable[..., Path], tmp_path: Path) -> None:
    """Reading the status changes and locks nothing."""
    path = todo(*many(5))
    before = checksum(path)
    assert get_status(path)["numtasks"] == 5
    (tmp_path / "todo.sqlite-lock").write_text("process 1 on nowhere\n")  # of a killed manager
    assert get_status(path)["holder"] is None
    assert checksum(path) == before
    with TaskManager(path) as manager:
        assert get_status(path)["holder"] is not None
        assert manager.get_number_tasks() == 5


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"camera": 7, "ccd": 9, "status": 1}],
        [{"status": 6, "tmag": None}],
        [{"status": 2}],
        [{"status": 42}],
    ],
    ids=["empty", "another mission", "running", "an ERROR without diagnostics", "a foreign status"],
)
def test_odd_lists(todo: Callable[..., Path], call: Call, rows: Any) -> None:
    """The status of any list can be shown."""
    shown = call("status", todo(*rows))
    assert shown.returncode == 0, shown.stderr
    assert "Not in use." in shown.stdout


def test_share_is_not_rounded_up(todo: Callable[..., Path], call: Call) -> None:
    """The share of a CCD is 100 % only when its last task is finished."""
    assert "99.9 % of 2000" in call("status", todo({}, *({"status": 1} for _ in range(1999)))).stdout


def test_errors_that_are_no_text(todo: Callable[..., Path], call: Call) -> None:
    """Bytes that are not UTF-8, which another program may write, are shown escaped."""
    path = todo({"status": 2})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO diagnostics (priority, method_used, elaptime, errors)"
            " VALUES (1, 'x', 1, CAST(x'626164ff' AS TEXT))"
        )
    assert r"bad\xff" in call("status", path).stdout


@pytest.mark.sample(7)
@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("camera", (2).to_bytes(8, "little"), 2),
        ("ccd", b"\2", "b'\\x02'"),
        ("camera", "one", "'one'"),
        ("sector", 0.5, "0.5"),
        ("tmag", struct.pack("<f", 8.5), 8.5),
        ("tmag", math.inf, "inf"),
        ("tmag", "bright", "'bright'"),
        ("datasource", b"tp\xff", r"tp\xff"),
        ("errors", b"b\xffm", r"b\xffm"),
        ("errors", b"\0\0\0\0", "\0\0\0\0"),
    ],
)
def test_values_of_another_type(todo: Callable[..., Path], call: Call, column: str, value: Any, shown: Any) -> None:
    """Values of a wrong type, which another program may store, are shown, in strict JSON too; the report is written."""
    path = todo({"status": 6}, {"status": 2})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (2, 'x', 1)")
        table = "diagnostics" if column == "errors" else "todolist"
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
    found = json.loads(call("status", path, "--json").stdout, parse_constant=pytest.fail)
    place = "last_errors" if column == "errors" else "ccds" if column in ("camera", "ccd") else "running"
    assert found[place][0][column] == shown
    run = call("status", path)
    assert (run.returncode, run.stderr) == (0, "")
    assert "Tasks" in build_report(path)


@pytest.mark.parametrize(
    "values", ["'many', 0, 1.0, NULL", "1, 0.5, 1.0, NULL", "1, 0, x'00', NULL", "1, 0, 1.0, 'x'", "NULL, 0, 1.0, NULL"]
)
def test_progress_of_another_type(todo: Callable[..., Path], values: str) -> None:
    """Minutes without a number, or with a value of another type, are left out of the rate and of the report."""
    path = todo({})
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}))
    strict, loose = "'saved INTEGER NOT NULL'", "'saved INTEGER'"
    for sql in (
        f"PRAGMA writable_schema=1; UPDATE sqlite_master SET sql = replace(sql, {strict}, {loose})",
        f"INSERT INTO photometry_tasks_progress VALUES (60, {values})",
        f"PRAGMA writable_schema=1; UPDATE sqlite_master SET sql = replace(sql, {loose}, {strict})",
    ):
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(sql)
    assert get_status(path)["mean_elaptime"] == 1.5
    assert "Results saved: 1, with ERROR:\n0" in build_report(path)


@pytest.mark.sample(3)
@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_another_encoding(tmp_path: Path, call: Call, encoding: str, in_memory: bool) -> None:
    """A file of another encoding of SQLite shows the same texts, in `status`, in the report and in an export."""
    path = tmp_path / "todo.sqlite"
    with closing(sqlite3.connect(make_file(tmp_path / "usual.sqlite", [{}, {}]))) as usual:
        dump = "\n".join(usual.iterdump())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.executescript(dump)
    assert query(path, "PRAGMA encoding") == [(encoding,)]
    with TaskManager(path, load_into_memory=in_memory) as manager:
        manager.save_result(result_of({"priority": 1}, STATUS.ERROR, errors=["kein σ 🌟"]))
        shown = read_status_fields(manager.session.connection(), path)
    for found in (shown, get_status(path)):
        assert [row["errors"] for row in found["last_errors"]] == ["kein σ 🌟"]
    assert "kein σ 🌟" in call("status", path).stdout
    assert "kein σ 🌟" in build_report(path)
    export_tasks(path, tmp_path / "out.csv")
    assert '"kein σ 🌟"' in (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert call("check", path).returncode == 0


def test_the_progress_is_no_result(todo: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """If the throughput cannot be written, results are saved nevertheless, and the manager closes."""
    path = todo(*many(20))
    with pytest.MonkeyPatch.context() as patch, TaskManager(path) as manager:
        patch.setattr(throughput, "_INTERVAL", 0.0)
        manager.cursor.execute("DROP TABLE photometry_tasks_progress")
        manager.conn.commit()
        for priority in range(1, 4):
            manager.save_result(result_of({"priority": priority}))
        assert manager.summary["OK"] == 3
    assert "could not be written" in caplog.text
    assert query(path, "SELECT count(*) FROM todolist WHERE status = 1") == [(3,)]
    with TaskManager(path) as manager:  # opening creates the table again
        manager.save_result(result_of({"priority": 4}))
    assert query(path, "SELECT saved FROM photometry_tasks_progress") == [(1,)]


def test_watch(todo: Callable[..., Path]) -> None:
    """`--watch` updates the status until Ctrl-C, also if its parent ignored it."""
    path = todo(*many(5))
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50"}
    command = [COMMAND, "status", str(path), "--watch"]
    how = {"stdout": theirs, "stderr": theirs, "env": environment, "preexec_fn": ignore_signals}
    with running_command(command, **how) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"PENDING") < 2:
            seen += os.read(ours, 65536)
        with TaskManager(path) as manager:
            manager.save_result(result_of({"priority": 1}))
            while b"In use by" not in seen:
                seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # EIO: the command has closed the terminal; unread output would block the command
            while chunk := os.read(ours, 65536):
                seen += chunk
        process.wait(60)
        os.close(ours)
    assert process.returncode == 130
    assert b"Traceback" not in seen


def test_json_and_watch(todo: Callable[..., Path], call: Call) -> None:
    """--json and --watch exclude each other."""
    run = call("status", todo({}), "--json", "--watch")
    assert run.returncode == 2
    assert "--watch cannot be combined with --json" in run.stderr


def test_lines_where_no_terminal_is(todo: Callable[..., Path], call: Call) -> None:
    """Without a terminal, progress is a line at the start and every half minute, without control characters."""
    run = call("run", todo(*many(5)), "tests.support.functions:good", "--jobs", "1")
    assert re.fullmatch(r"Measuring: 0/5 tasks, time left: unknown\n", run.stderr)


def test_the_rate(opened: Callable[..., TaskManager]) -> None:
    """The rate covers the last ten minutes, while a manager has the list open; the mean run time covers all results."""
    manager, now = opened(*many(5)), int(time.time())
    insert = "INSERT INTO photometry_tasks_progress VALUES (?, ?, ?, ?, ?)"
    # Another run ended two hours ago.
    rows = [(now - 7200, 1000, 0, 4000.0, None), (now - 300, 50, 0, 100.0, None), (now - 100, 50, 1, 100.0, 3)]
    manager.cursor.executemany(insert, rows)
    manager.cursor.execute("UPDATE photometry_tasks_workers SET begun = ?", (now - 300,))
    manager.conn.commit()
    found = get_status(manager.todo_file)
    assert found["rate"] == pytest.approx(100 / 300, rel=0.1)
    assert found["mean_elaptime"] == pytest.approx(4200 / 1100)
    # Other results are from a node whose clock is ahead.
    manager.cursor.executemany(insert, [(now - 700, 20, 0, 1.0, None), (now + 3600, 90, 0, 1.0, None)])
    manager.cursor.execute("UPDATE photometry_tasks_workers SET begun = ?", (now - 700,))
    manager.conn.commit()
    # The run lasted all of the ten minutes.
    assert get_status(manager.todo_file)["rate"] == pytest.approx(100 / 600)
    manager.cursor.execute("DELETE FROM photometry_tasks_progress WHERE minute < ?", (now + 3600,))
    manager.conn.commit()
    assert get_status(manager.todo_file)["rate"] is None
    manager.cursor.executemany(insert, rows)
    manager.conn.commit()
    manager.close()
    assert get_status(manager.todo_file)["rate"] is None


@pytest.mark.parametrize("value", [None, "many", b"\x0c\0\0\0\0\0\0\0", 1.5])
def test_a_value_of_another_program(todo: Callable[..., Path], value: object) -> None:
    """A row of the table of progress that holds no numbers is left out of the status and of the report."""
    path, minute = todo(*many(5)), int(time.time()) - 300
    names = ["minute", "saved", "errors", "elaptime", "last_error"]
    broken = {name: value for name in names if (name, value) not in {("elaptime", 1.5), ("last_error", None)}}
    rows = [dict(zip(names, (minute, 10, 0, 30.0, 3), strict=True))]
    rows += [{**rows[0], "minute": minute + 60 + number, name: value} for number, name in enumerate(broken) if number]
    read = "SELECT sql FROM sqlite_schema WHERE name = 'photometry_tasks_progress'"
    ((sql,),) = query(path, read)
    for rule in (sql.replace("NOT NULL", ""), sql):
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA writable_schema=ON")
            if rule == sql:
                values = "(:minute, :saved, :errors, :elaptime, :last_error)"
                other.executemany(f"INSERT INTO photometry_tasks_progress VALUES {values}", rows)
            other.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'photometry_tasks_progress'", (rule,))
            other.commit()
    assert len(query(path, "SELECT * FROM photometry_tasks_progress")) == len(rows) > 3
    assert get_status(path)["mean_elaptime"] == 3.0
    assert "Results saved: 10" in build_report(path)


def test_minutes(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch) -> None:
    """A row begins with the manager, and another after each minute; after a break, a minute before a result."""
    now, set_back = 10_000.0, 0.0
    monkeypatch.setattr(throughput.time, "monotonic", lambda: now)
    manager = opened(*many(20))
    # The clock of the database, from which SQLite calculates the Julian day.
    manager.conn.create_function("julianday", 1, lambda _: (now - set_back) / 86_400 + 2_440_587.5)
    # No result came for a while before 10,300; later the clock is set back by an hour.
    moments = [10_005, 10_011, 10_030, 10_062, 10_070, 10_075, 10_300, 10_311, 10_322, 10_362, 10_373, 10_384]
    for priority, moment in enumerate(moments, start=1):
        now, set_back = float(moment), 3600.0 if moment > 10_362 else 0.0
        manager.save_result(result_of({"priority": priority}))
    manager.close()
    rows = query(manager.todo_file, "SELECT minute, saved FROM photometry_tasks_progress ORDER BY minute")
    assert [(round(minute, -1), saved) for minute, saved in rows] == [
        (6760, 2),
        (10_000, 4),
        (10_060, 2),
        (10_240, 1),
        (10_300, 3),
    ]
