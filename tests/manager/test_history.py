"""The history of a list: workers, attempts, kinds of failure, versions and values of the pipeline's own."""

import csv
import json
import math
import os
import socket
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidArgumentError, InvalidResultError, OtherVersionError
from photometry_tasks.export import export_tasks
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.copy import copy_list
from photometry_tasks.maintenance.status import get_attempts, get_status
from tests.support.lists import ask, empty_list, execute_sql, make_file, many, query, result_of
from tests.support.processes import kill, running

pytestmark = pytest.mark.both_databases

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])
ENDS = ("how", "kind", "errors", "version", "counts")


def ends(target: Any, priority: int) -> list[tuple[Any, ...]]:
    """Return how the attempts at a task ended."""
    return [tuple(row[name] for name in ENDS) for row in get_attempts(target, priority)]


def fail(manager: TaskManager, *priorities: int, kind: str | None = None, status: STATUS = STATUS.ERROR) -> None:
    for priority in priorities:
        manager.save_result(result_of({"priority": priority}, status, kind=kind, errors="boom"))


@IN_MEMORY
def test_attempts(todo: Callable[..., Any], in_memory: bool) -> None:
    """Each result is an attempt, claimed, started or neither; a release is one too; numbers only grow."""
    target, begun = todo(*many(8)), datetime.now(UTC)
    with TaskManager(target, load_into_memory=in_memory, version="v1") as manager:
        first, second, third = manager.claim_tasks(3)
        manager.start_tasks([4, 5])
        manager.save_results([result_of(first), result_of(second, STATUS.ERROR, kind="no mask", errors="boom")])
        manager.release_tasks([third["priority"], 5])
        manager.save_result(result_of({"priority": 4}, STATUS.ABORT))
        manager.save_result(result_of({"priority": 6}, STATUS.WARNING, errors="faint", kind="none: not a failure"))
    with TaskManager(target, load_into_memory=in_memory, reset=False, version="v2") as manager:
        manager.save_result(result_of({"priority": 1}))
        assert manager.save_result(result_of(first)) is None  # its attempt ended long ago
    assert ends(target, 1) == [("OK", None, None, "v1", None), ("OK", None, None, "v2", None)]
    assert ends(target, 2) == [("ERROR", "no mask", "boom", "v1", True)]
    assert ends(target, 3) == ends(target, 5) == [("released", None, None, "v1", None)]
    assert ends(target, 4) == [("ABORT", None, None, "v1", True)]
    assert ends(target, 6) == [("WARNING", None, "faint", "v1", None)]
    assert ends(target, 7) == []
    for priority in range(1, 7):
        found = get_attempts(target, priority)
        assert [row["attempt"] for row in found] == sorted(row["attempt"] for row in found)
        for row in found:
            assert (
                begun - timedelta(seconds=2) < row["begun"] <= row["ended"] < datetime.now(UTC) + timedelta(seconds=1)
            )
            assert (row["host"], row["pid"]) == (socket.gethostname(), os.getpid())
    assert get_attempts(target, 1)[0]["attempt"] == first["attempt"]


@IN_MEMORY
def test_workers(todo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    """Each manager is a worker with its version and job, and ends when it is closed."""
    target = todo({})
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    TaskManager(target, load_into_memory=in_memory, version="2.1, config A").close()
    monkeypatch.delenv("SLURM_JOB_ID")
    TaskManager(target, load_into_memory=in_memory).close()
    columns = "worker, host, pid, slurm_jobid, version, begun <= seen, seen <= ended"
    host = socket.gethostname(), os.getpid()
    assert query(target, f"SELECT {columns} FROM photometry_tasks_workers ORDER BY 1") == [
        (1, *host, "4711", "2.1, config A", True, True),
        (2, *host, None, None, True, True),
    ]


@pytest.mark.parametrize("version", ["", 2, b"1"])
def test_invalid_versions(todo: Callable[..., Any], version: Any) -> None:
    """A version is a text that is not empty."""
    with pytest.raises(InvalidArgumentError, match="version="):
        TaskManager(todo({}), version=version)


@IN_MEMORY
def test_the_history_stays(todo: Callable[..., Any], in_memory: bool) -> None:
    """A reset, an opening and `overwrite` delete results, but no attempt; only `forget` does."""
    target = todo(*many(3))
    how = {"load_into_memory": in_memory}
    with TaskManager(target, **how) as manager:
        fail(manager, 1, 2)
        manager.save_result(result_of({"priority": 3}))
        manager.reset_tasks(everything=True)
    with TaskManager(target, **how) as manager:
        fail(manager, 1)
    TaskManager(target, **how).close()
    TaskManager(target, overwrite=True, **how).close()
    assert query(target, "SELECT count(*) FROM diagnostics") == [(0,)]
    assert [len(ends(target, priority)) for priority in (1, 2, 3)] == [2, 1, 1]
    with pytest.raises(InvalidArgumentError, match=r"forget=True: it needs `overwrite=True`"):
        TaskManager(target, forget=True)
    TaskManager(target, overwrite=True, forget=True, **how).close()
    assert query(target, "SELECT count(*) FROM photometry_tasks_attempts") == [(0,)]
    assert query(target, "SELECT count(*) FROM photometry_tasks_workers") == [(1,)]


# --- retries ---------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@IN_MEMORY
@pytest.mark.parametrize(("retries", "expected"), [(None, [6, 6]), (0, [1, 1]), (1, [2, 1]), (2, [2, 2])])
def test_retries(todo: Callable[..., Any], in_memory: bool, retries: int | None, expected: list[int]) -> None:
    """Failed tasks return to pending as often as `retries` says, ABORT too; a reset by hand gives a new chance."""
    target = todo(*many(3))
    runs = 0
    for number in expected:
        for _ in range(6):
            with TaskManager(target, load_into_memory=in_memory, retries=retries) as manager:
                tasks = manager.claim_tasks(9)
                done = {1: STATUS.OK, 2: STATUS.ERROR, 3: STATUS.ABORT}
                manager.save_results([result_of(task, done[task["priority"]]) for task in tasks])
                if 2 in {task["priority"] for task in tasks}:
                    runs += 1
        del number
        with TaskManager(target, reset=False) as manager:
            manager.reset_tasks(status=[STATUS.ERROR, STATUS.ABORT])
    chances = 6 if retries is None else min(6, 1 + retries)
    assert runs == 2 * chances
    assert Counter(row[0] for row in ends(target, 3)) == {"ABORT": 2 * chances}
    assert [row[-1] for row in ends(target, 2)] == [False] * (2 * chances)


def test_what_does_not_count(todo: Callable[..., Any]) -> None:
    """Interrupted, released and lost attempts are no failures; an error without recorded attempts is one failure."""
    target = todo({"status": 2}, {"status": 2}, {}, {})
    with TaskManager(target, retries=0) as manager:
        manager.start_tasks([3, 4])
        manager.release_tasks([3])
        assert (manager.summary["ERROR"], manager.summary["STARTED"]) == (2, 1)
    with TaskManager(target, retries=1) as manager:
        assert (manager.summary["ERROR"], manager.summary["STARTED"], manager.get_number_tasks()) == (0, 0, 4)
    assert get_status(target)["used_up"] == 0


@pytest.mark.parametrize("retries", [-1, 1.5, "2", True])
def test_invalid_retries(todo: Callable[..., Any], retries: Any) -> None:
    """The number of retries is a natural number."""
    with pytest.raises(InvalidArgumentError, match="retries="):
        TaskManager(todo({}), retries=retries)


@IN_MEMORY
def test_failed_tasks_come_last_if_asked(todo: Callable[..., Any], in_memory: bool) -> None:
    """`claim_tasks` separates tasks that have failed since their last reset; `get_task` keeps to priority."""
    target = todo(*many(6))
    with TaskManager(target) as manager:
        fail(manager, 1, 3, 4)
        manager.save_result(result_of({"priority": 2}))
        manager.reset_tasks(priority=4)
    with TaskManager(target, load_into_memory=in_memory) as manager:
        claimed = [
            [task["priority"] for task in manager.claim_tasks(limit, has_failed=has_failed, **constraints)]
            for limit, has_failed, constraints in (
                (1, None, {"priority": [3, 4]}),
                (2, False, {}),
                (9, False, {"camera": 1}),
                (1, True, {}),
                (9, True, {"camera": 2}),
                (9, None, {}),
            )
        ]
        assert claimed == [[3], [4, 5], [6], [1], [], []]
        manager.release_tasks([1, 3, 4, 5])
        task = manager.get_task()
        assert task is not None
        assert task["priority"] == 1
        assert [task["priority"] for task in manager.claim_tasks(9, has_failed=True)] == [1, 3]


@IN_MEMORY
def test_release_failures(todo: Callable[..., Any], in_memory: bool) -> None:
    """Failed tasks return to pending as if they had not been tried, unless another attempt came later."""
    target = todo(*many(4))
    with TaskManager(target, load_into_memory=in_memory) as manager:
        tasks = manager.claim_tasks(3)
        manager.save_results([result_of(task, STATUS.ERROR, kind="k", errors="e") for task in tasks])
        fail(manager, 2)
        failures = {task["priority"]: task["attempt"] for task in tasks} | {4: 1, 99: 1}
        assert manager.release_failures(failures) == 2
        assert manager.get_number_tasks() == 3
        assert manager.summary["ERROR"] == 1
    assert ends(target, 1) == ends(target, 3) == [("released", "k", "e", None, None)]
    assert [row[0] for row in ends(target, 2)] == ["ERROR", "ERROR"]
    assert query(target, "SELECT priority FROM diagnostics") == [(2,)]


# --- kinds and versions ----------------------------------------------------------------------------------


def make_campaign(target: Any) -> None:
    """Results of versions a and b: 1-3 ERRORs of three kinds by a, 4 OK by a, 5 OK by b, 6 ERROR by b, 7 unknown.

    Earlier results of 5 and 6, of other kinds and versions, do not count any more.
    """
    with TaskManager(target, version="a") as manager:
        fail(manager, 1, kind="numpy.linalg.LinAlgError")
        fail(manager, 2, kind="out of memory")
        fail(manager, 3)
        manager.save_result(result_of({"priority": 4}))
        fail(manager, 5, 6, kind="timeout")
    with TaskManager(target, version="b", reset=False) as manager:
        manager.save_result(result_of({"priority": 5}))
        fail(manager, 6, kind="LinAlgError")
    with TaskManager(target, reset=False) as manager:
        manager.save_result(result_of({"priority": 7}))


CHOICES: list[tuple[dict[str, Any], set[int]]] = [
    ({"kind": "out of memory"}, {2}),
    ({"kind": "LinAlgError"}, {1, 6}),
    ({"kind": ["numpy.linalg.LinAlgError", "timeout"]}, {1}),
    ({"kind": "AlgError"}, set()),
    ({"kind": "not given"}, {3}),
    ({"kind": "LinAlgError", "made_by": "a"}, {1}),
    ({"made_by": "b"}, {5, 6}),
    ({"made_by": ["a", "b"], "status": STATUS.OK}, {4, 5}),
    ({"not_made_by": "a"}, {5, 6, 7}),
    ({"not_made_by": ("a", "b")}, {7}),
    ({"not_made_by": "a", "error_like": "boom"}, {6}),
    ({"attempts_min": 2}, {5, 6}),
    ({"attempts_min": 1, "priority": range(3, 9)}, {3, 4, 5, 6, 7}),
]


@pytest.mark.sample(5)
@pytest.mark.parametrize(("choice", "expected"), CHOICES)
def test_choices(todo: Callable[..., Any], tmp_path: Path, choice: dict[str, Any], expected: set[int]) -> None:
    """`reset` and `export` choose results by the kind of their failure, their version and their attempts."""
    target = todo(*many(8))
    make_campaign(target)
    written = export_tasks(target, tmp_path / "chosen.csv", **choice)
    rows = csv.DictReader((tmp_path / "chosen.csv").read_text().splitlines())
    assert {int(row["priority"]) for row in rows} == expected
    assert written == len(expected)
    with TaskManager(target, reset=False) as manager:
        manager.reset_tasks(**choice)
    left = query(target, "SELECT priority FROM diagnostics")
    assert {priority for (priority,) in left} == set(range(1, 8)) - expected


def test_the_status(todo: Callable[..., Any]) -> None:
    """The status counts failed tasks by kind and host, tasks without retries, and the results of each version."""
    target = todo(*many(8))
    make_campaign(target)
    found, host = get_status(target), socket.gethostname()
    assert sorted((row["kind"] or "", row["tasks"], row["hosts"]) for row in found["failures"]) == [
        ("", 1, {host: 1}),
        ("LinAlgError", 1, {host: 1}),
        ("numpy.linalg.LinAlgError", 1, {host: 1}),
        ("out of memory", 1, {host: 1}),
    ]
    counts = {row["version"]: row["results"] for row in found["versions"]}
    assert counts == {None: 1, "a": 4, "b": 2}
    with TaskManager(target, reset=False) as manager:
        fail(manager, 1, 1)
    assert get_status(target)["used_up"] == 1


def test_only_version(todo: Callable[..., Any]) -> None:
    """`only_version` refuses a list with results of another version, or of none, and does not change it."""
    target = todo(*many(8))
    with TaskManager(target, version="b", only_version=True) as manager:
        manager.save_result(result_of({"priority": 1}))
    with TaskManager(target, version="b", only_version=True) as manager:
        assert manager.summary["OK"] == 1
    before = query(target, "SELECT count(*) FROM photometry_tasks_workers")
    with pytest.raises(OtherVersionError, match=r"than 'a': 'b' \(1 result\).*reset .* --not-made-by a"):
        TaskManager(target, version="a", only_version=True)
    assert query(target, "SELECT count(*) FROM photometry_tasks_workers") == before
    with TaskManager(target) as manager:
        manager.save_result(result_of({"priority": 2}))
    with pytest.raises(OtherVersionError, match=r"than 'b': an unknown version \(1 result\)"):
        TaskManager(target, version="b", only_version=True)
    with pytest.raises(InvalidArgumentError, match="only_version=True: it needs `version`"):
        TaskManager(target, only_version=True)


@pytest.mark.parametrize("kind", [7, "x" * 201])
def test_invalid_kinds(opened: Callable[..., TaskManager], kind: Any) -> None:
    """A kind is a short text."""
    with pytest.raises(InvalidResultError, match=r"details\.kind"):
        fail(opened({}), 1, kind=kind)


def test_a_path_that_is_taken(todo: Callable[..., Any]) -> None:
    """A light-curve path that another task has makes an invalid result."""
    target = todo(*many(2))
    with TaskManager(target) as manager:
        for task in manager.claim_tasks(2):
            manager.save_result(result_of(task, filepath_lightcurve="a.fits"))
    assert [row[:2] for row in ends(target, 2)] == [("ERROR", "invalid result")]


# --- values of the pipeline's own ------------------------------------------------------------------------

EXTRA: dict[int, dict[str, Any]] = {
    1: {"n": np.int16(3), "x": np.float32(0.5), "s": "σ\n'", "b": np.bool_(True), "mixed": 1},
    2: {"n": None, "x": 7, "s": np.str_("q"), "b": False, "mixed": "one"},
    3: {"x": math.inf, "n": -(2**63), "mixed": 1.5},
    4: {"x": math.nan},
    5: {},
}


@pytest.mark.sample(3)
@IN_MEMORY
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".ecsv"])
def test_extra(todo: Callable[..., Any], tmp_path: Path, in_memory: bool, suffix: str) -> None:
    """Own values become columns of every export, with the type that holds all values; they go with the result."""
    target = todo(*many(6))
    with TaskManager(target, load_into_memory=in_memory) as manager:
        tasks = {task["priority"]: task for task in manager.claim_tasks(3)}
        manager.save_results([result_of(tasks[priority], extra=EXTRA[priority]) for priority in tasks])
        for priority in (4, 5):
            manager.save_result(result_of({"priority": priority}, extra=EXTRA[priority]))
        stored = dict(ask(manager, "SELECT priority, extra FROM photometry_tasks_extra"))
    assert json.loads(stored[1]) == {"n": 3, "x": 0.5, "s": "σ\n'", "b": True, "mixed": 1}
    assert stored.keys() == {1, 2, 3, 4}
    path = tmp_path / f"all{suffix}"
    assert export_tasks(target, path) == 6
    rows = read_table(path)
    assert [row["extra_n"] for row in rows] == [3, None, -(2**63), None, None, None]
    assert [row["extra_x"] for row in rows] == [0.5, 7.0, math.inf, None, None, None]
    assert [row["extra_b"] for row in rows] == [True, False, None, None, None, None]
    assert [row["extra_mixed"] for row in rows] == ["1", "one", "1.5", None, None, None]
    assert [row["extra_s"] for row in rows[:3]] == ["σ\n'", "q", None]
    export_tasks(target, path, priority=6)
    assert "extra_n" not in read_table(path)[0]
    with TaskManager(target, reset=False) as manager:
        manager.save_result(result_of({"priority": 1}, extra={"new": 1}))
        manager.reset_tasks(priority=2)
    assert dict(query(target, "SELECT priority, extra FROM photometry_tasks_extra WHERE priority < 3")) == {
        1: '{"new": 1}'
    }


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read an export as its users do: with pyarrow, astropy or the csv module."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return [dict(row) for row in pq.read_table(path).to_pylist()]
    if path.suffix == ".ecsv":
        from astropy.table import Table

        table = Table.read(path)
        plain = ({name: row[name] for name in table.colnames} for row in table)
        return [
            {
                name: None if np.ma.is_masked(value) else getattr(value, "item", lambda v=value: v)()
                for name, value in row.items()
            }
            for row in plain
        ]
    types: dict[str, Callable[[str], Any]] = {"extra_n": int, "extra_x": float, "extra_b": lambda text: text == "True"}
    with path.open(newline="") as file:
        return [
            {name: types.get(name, str)(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ([1], "a dict is expected"),
        ({"a": [1]}, r"a=\[1\]: a number, a text, True, False or None is expected"),
        ({"a": {"b": 1}}, "a={'b': 1}: a number"),
        ({"a": np.array([1, 2])}, "a number, a text"),
        ({"a": 2**70}, "at most 64 bits"),
        ({"a": 1j}, "a number, a text"),
        ({"a": b"x"}, "a number, a text"),
        ({"a": np.datetime64("2020-01-01")}, "a number, a text"),
        ({"a b": 1}, "at most 100 letters, digits and underscores"),
        ({"": 1}, "at most 100 letters"),
        ({1: 1}, "at most 100 letters"),
        ({"a": "x" * 65_530}, "at most 65,536 bytes as JSON are expected, not 65,539"),
    ],
)
def test_invalid_extra(opened: Callable[..., TaskManager], extra: Any, problem: str) -> None:
    """Own values that cannot be kept are an error that names them; nothing is saved."""
    manager = opened({})
    with pytest.raises(InvalidResultError, match=rf"details\.extra=.*{problem}"):
        manager.save_result(result_of({"priority": 1}, extra=extra))
    assert manager.get_number_tasks() == 1


def test_unknown_keys(opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture) -> None:
    """A key of the details that is not stored is named once, with a known key that looks like it."""
    manager = opened(*many(3))
    for priority in (1, 2, 3):
        manager.save_result(result_of({"priority": priority}, rms_huor=1, background=2, mean_flux=1.0))
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "details['background'] is not stored; give a value of your own in details['extra'], which is kept",
        "details['rms_huor'] is not stored; is it 'rms_hour'?",
    ]


# --- kills and copies ------------------------------------------------------------------------------------


def start_and_wait(connection: Connection, path: Path, in_memory: bool) -> None:
    manager = TaskManager(path, load_into_memory=in_memory, backup_interval=None, version="killed")
    tasks = manager.claim_tasks(3)
    manager.save_result(result_of(tasks[0], STATUS.ERROR, kind="k", errors="e", extra={"a": 1}))
    manager.save_result(result_of({"priority": 5}))
    connection.send([task["attempt"] for task in tasks])
    connection.recv()


@pytest.mark.sample(4)
@pytest.mark.files_only
@IN_MEMORY
@pytest.mark.parametrize("reader", [False, True])
def test_a_killed_manager(todo: Callable[..., Path], in_memory: bool, reader: bool) -> None:
    """The attempts of acknowledged results survive a kill; tasks that ran on disk are lost attempts."""
    path = todo(*many(6))
    TaskManager(path, load_into_memory=True).close()  # worker 1; the next opening has nothing to write to disk
    with running(start_and_wait, path, in_memory) as (process, connection):
        attempts = connection.recv()
        pid = process.pid
        kill(process)
    if not reader:
        TaskManager(path, reset=False).close()  # the killed manager may be one of several
        TaskManager(path, retries=0).close()
    assert ends(path, 1) == [("ERROR", "k", "e", "killed", True)]
    assert [row["attempt"] for row in get_attempts(path, 1)] == attempts[:1]
    assert ends(path, 5) == [("OK", None, None, "killed", None)]
    if reader:
        return
    assert query(path, "SELECT extra FROM photometry_tasks_extra") == [('{"a": 1}',)]
    (lost,) = get_attempts(path, 2) or [None]
    assert (lost is None) is in_memory  # a start in memory leaves no trace
    if lost is not None:
        assert (lost["how"], lost["kind"], lost["counts"], lost["begun"]) == ("lost", "lost", None, None)
        assert lost["errors"] == f"The manager (worker 2 on {socket.gethostname()}, process {pid}) was killed"
    assert query(path, "SELECT worker, version, ended IS NULL FROM photometry_tasks_workers ORDER BY 1") == [
        (1, None, 0),
        (2, "killed", 0),
        (3, None, 0),
        (4, None, 0),
    ]
    with TaskManager(path) as manager:  # and only once
        assert manager.get_number_tasks() == 5
    assert len(get_attempts(path, 2)) == (not in_memory)
    numbers = [row[0] for row in query(path, "SELECT attempt FROM photometry_tasks_attempts WHERE how <> 'lost'")]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.files_only
def test_copies(tmp_path: Path, server_database: Engine) -> None:
    """A copy to a server and back holds the history and the own values; later attempts have later numbers."""
    path, back = make_file(tmp_path / "todo.sqlite", many(8)), tmp_path / "back.sqlite"
    make_campaign(path)
    with TaskManager(path, reset=False) as manager:
        manager.save_result(result_of({"priority": 8}, extra={"a": 1.5}))
    expected = [get_attempts(path, priority) for priority in range(1, 9)]
    url = empty_list(server_database, [])
    with TaskManager(url):
        pass  # leaves a worker in the empty list
    copy_list(path, url)
    assert [get_attempts(url, priority) for priority in range(1, 9)] == expected
    with TaskManager(url, reset=False, version="c") as manager:
        manager.save_result(result_of({"priority": 4}))
        manager.reset_tasks(priority=7)
        (task,) = manager.claim_tasks(1)
        copy_list(url, back)  # the running task's attempt is left out
    assert [row["version"] for row in get_attempts(back, 4)] == ["a", "c"]
    assert len(get_attempts(back, task["priority"])) == 1
    with TaskManager(back, version="d") as manager:
        manager.save_result(result_of({"priority": 4}))
    found = get_attempts(back, 4)
    assert [row["version"] for row in found] == ["a", "c", "d"]
    assert [row["attempt"] for row in found] == sorted(row["attempt"] for row in found)
    assert query(back, "SELECT extra FROM photometry_tasks_extra") == [('{"a": 1.5}',)]
    assert query(back, "SELECT count(*) FROM photometry_tasks_workers WHERE ended IS NULL") == [(0,)]


def test_values_of_another_type(todo: Callable[..., Any]) -> None:
    """Times and texts that another program stored do not keep the history from being shown."""
    target = todo({})
    with TaskManager(target) as manager:
        manager.save_result(result_of({"priority": 1}))
        if "://" not in str(target):
            execute_sql(manager, "UPDATE photometry_tasks_attempts SET begun = 'once', ended = 1e300")
    (attempt,) = get_attempts(target, 1)
    assert attempt["how"] == "OK"


def delete_as_others_do(path: Path) -> None:
    """Return task 1 to pending with plain SQL, and foreign keys off, which is SQLite's default."""
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("DELETE FROM diagnostics WHERE priority = 1")
        other.execute("DELETE FROM photometry_skipped")
        other.execute("UPDATE todolist SET status = NULL WHERE priority = 1")


@pytest.mark.files_only
@pytest.mark.parametrize("extra", [{"new": 1}, {}])
@pytest.mark.parametrize(
    ("in_memory", "in_a_batch", "overwrite"), [(False, False, False), (True, True, False), (False, True, True)]
)
def test_leftovers(todo: Callable[..., Path], in_memory: bool, extra: Any, in_a_batch: bool, overwrite: bool) -> None:
    """Rows that other programs leave when they delete a result neither keep the next one out nor become part of it."""
    path = todo(*many(4))
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1, "starid": 104}, extra={"old": 1}, skip_targets=[101, 102]))
    delete_as_others_do(path)
    with TaskManager(path, load_into_memory=in_memory, overwrite=overwrite) as manager:
        results = [result_of(task, extra=extra) for task in manager.claim_tasks(2)]
        if in_a_batch:
            manager.save_results(results)
        else:
            for result in results:
                manager.save_result(result)
    stored = query(path, "SELECT priority, extra FROM photometry_tasks_extra ORDER BY 1")
    assert stored == [(result["priority"], '{"new": 1}') for result in results if extra]
    assert stored[:1] == [(1, '{"new": 1}')][: len(extra)]
    assert query(path, "PRAGMA foreign_key_check") == []


@pytest.mark.files_only
def test_numbers_of_attempts(todo: Callable[..., Path]) -> None:
    """A reset ends an attempt at a running task; a lost attempt comes after the others of its worker."""
    path = todo(*many(2))
    with running(start_reset_and_start, path) as (process, connection):
        connection.recv()
        kill(process)
    TaskManager(path).close()
    assert [row["how"] for row in get_attempts(path, 1)] == ["released", "OK", "lost"]


def start_reset_and_start(connection: Connection, path: Path) -> None:
    manager = TaskManager(path)
    manager.start_task(1)
    manager.reset_tasks(everything=True)
    manager.start_task(1)
    manager.save_result(result_of({"priority": 1}))
    manager.reset_tasks(everything=True)
    manager.start_task(1)
    connection.send(None)
    connection.recv()


def test_new_stars(todo: Callable[..., Any]) -> None:
    """A new star does not get the priority, and with it the history, of a deleted one."""
    target = todo(*many(3))
    with TaskManager(target, reset=False) as manager:
        fail(manager, 3)
        execute_sql(manager, "DELETE FROM todolist WHERE priority = 3")
    add_targets(target, [{"starid": 7, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9.0}])
    assert query(target, "SELECT priority FROM todolist WHERE starid = 7") == [(4,)]


def test_kinds_of_one_line(opened: Callable[..., TaskManager]) -> None:
    """A kind is one line; blanks around it and line breaks in it do not matter, and a blank kind is none."""
    manager = opened(*many(3))
    for priority, kind in ((1, " no\n mask\t"), (2, "  "), (3, "no mask")):
        fail(manager, priority, kind=kind)
    assert manager.reset_tasks(kind="no mask") == {"ERROR": 2}
    assert manager.reset_tasks(kind="not given") == {"ERROR": 1}
