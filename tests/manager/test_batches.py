"""Batches: equal to single results, all or none, in few statements."""

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidResultError, TaskFinishedError, UnknownTaskError
from tests.support.lists import ask, execute_sql, make_file, query, result_of
from tests.support.model import ERROR, OK, SKIPPED, rows_of_a_field, stars

pytestmark = pytest.mark.both_databases

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])

TABLES = (
    "SELECT * FROM todolist ORDER BY priority",
    "SELECT * FROM diagnostics ORDER BY priority",
    "SELECT * FROM photometry_skipped ORDER BY priority, skipped_by",
)


def statuses(manager: TaskManager) -> list[int | None]:
    return [row[0] for row in ask(manager, "SELECT status FROM todolist ORDER BY priority")]


# --- equal to single results ---

RESULTS = st.lists(
    st.tuples(
        st.integers(0, 13),
        st.sampled_from([OK, OK, OK, ERROR, SKIPPED]),
        st.lists(stars, max_size=3),
        st.sampled_from([None, None, "a.fits", "b.fits"]),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_a_field, results=RESULTS, started=st.sets(st.integers(1, 14)), in_memory=st.booleans())
@example(
    rows=[{"starid": star, "datasource": "ffi", "ccd": 1, "tmag": 5.0} for star in (1, 2)],
    results=[(0, OK, [], "a.fits", True), (1, OK, [], "a.fits", True)],
    started={1, 2},
    in_memory=True,
)  # fmt: skip
def test_a_batch_is_as_one_by_one(
    tmp_path: Path, rows: list[dict[str, Any]], results: list[Any], started: set[int], in_memory: bool
) -> None:
    """In random crowded fields, a batch gives the same rows, answers and summary as its results saved one by one."""
    folder = tmp_path / "field"
    folder.mkdir()
    try:
        with ExitStack() as opened:
            managers = [
                opened.enter_context(TaskManager(make_file(folder / name, rows), load_into_memory=in_memory))
                for name in ("singly", "together")
            ]
            chosen = [priority for priority in started if priority <= len(rows)]
            tasks = managers[0].get_tasks(100)
            batch = []
            for number, status, listed, path, is_whole in results:
                task = tasks[number % len(rows)]
                given = task if is_whole else {"priority": task["priority"]}
                details = {} if path is None else {"filepath_lightcurve": path}
                batch.append(result_of(given, status, skip_targets=listed, mean_flux=number / 7, **details))
            assert managers[0].summary == managers[1].summary  # from now on the counts are updated by differences
            for priority in chosen:
                managers[0].start_task(priority)
            managers[1].start_tasks(chosen)
            answers = [[managers[0].save_result(result) for result in batch], managers[1].save_results(batch)]
            assert answers[0] == answers[1]
            assert managers[0].summary == managers[1].summary
            for sql in TABLES:
                assert managers[0].conn.execute(sql).fetchall() == managers[1].conn.execute(sql).fetchall()
        for sql in TABLES:
            assert query(folder / "singly", sql) == query(folder / "together", sql)
    finally:
        shutil.rmtree(folder)


def test_getting_many(opened: Callable[..., TaskManager]) -> None:
    """`get_tasks` returns the tasks that `get_task` would return in turn, at most `limit`, and none twice."""
    manager = opened(*[{"camera": 1 + number % 2} for number in range(20)])
    tasks = manager.get_tasks(7, camera=2)
    assert [task["priority"] for task in tasks] == [2, 4, 6, 8, 10, 12, 14]
    assert manager.get_tasks(7, camera=2) == tasks
    singly = []
    while (task := manager.get_task(camera=2)) is not None:
        singly.append(task)
        manager.start_task(task["priority"])
    assert singly[:7] == tasks
    assert [task["priority"] for task in manager.get_tasks(1000)] == list(range(1, 20, 2))
    assert manager.get_tasks(5, starid=[101, 103, 102]) == [manager.get_task(priority=1), manager.get_task(priority=3)]


@pytest.mark.parametrize("limit", [0, -1, 2.5, None, "3", True])
def test_a_limit_is_a_positive_integer(opened: Callable[..., TaskManager], limit: Any) -> None:
    """A limit that is not a positive integer is a ValueError that names it."""
    with pytest.raises(ValueError, match="limit="):
        opened({}).get_tasks(limit)


@pytest.mark.parametrize("started", [[], [1], [1, 2, 4]], ids=str)
def test_what_a_batch_may_concern(opened: Callable[..., TaskManager], started: list[int]) -> None:
    """In a batch too, unstarted tasks are saved, and rivals that a lost result skipped return to pending."""
    manager = opened({}, {}, {"status": SKIPPED}, {})
    execute_sql(manager, "INSERT INTO photometry_skipped VALUES (3, 1)")
    assert manager.summary["SKIPPED"] == 1
    tasks = manager.get_tasks(3)
    manager.start_tasks(started)
    manager.save_results([result_of(task) for task in tasks])
    assert statuses(manager) == [1, 1, None, 1]
    assert [manager.summary[name] for name in ("OK", "SKIPPED", "STARTED")] == [3, 0, 0]
    assert [task["priority"] for task in manager.get_tasks(9)] == [3]


def test_a_batch_that_was_not_started(opened: Callable[..., TaskManager]) -> None:
    """The counts equal those of the table even if no task of a batch was started."""
    manager = opened({}, {}, {})
    assert manager.summary["numtasks"] == 3
    manager.save_results([result_of(task) for task in manager.get_tasks(2)])
    assert [manager.summary[name] for name in ("OK", "STARTED", "numtasks")] == [2, 0, 3]


TRIGGERS = {
    "on todolist": """CREATE TRIGGER undo AFTER UPDATE OF status ON todolist WHEN new.status = 2
        BEGIN UPDATE todolist SET status = NULL WHERE priority = new.priority - 1; END;""",
    "on diagnostics": """CREATE TABLE latest (method PRIMARY KEY, priority);
        CREATE TRIGGER note AFTER INSERT ON diagnostics
        BEGIN INSERT OR REPLACE INTO latest VALUES (new.method_used, new.priority); END;""",
    "that ignores": """CREATE TRIGGER keep BEFORE UPDATE OF status ON todolist WHEN new.priority = 2 AND new.status = 1
        BEGIN SELECT RAISE(IGNORE); END;""",
}


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_triggers_of_other_programs(tmp_path: Path, trigger: str) -> None:
    """The manager sees changes by triggers of other programs, and they are equal for a batch and for single results."""
    answers = []
    for name in ("singly", "together"):
        path = make_file(tmp_path / name, [{} for _ in range(6)])
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(TRIGGERS[trigger])
        with TaskManager(path) as manager:
            assert manager.summary["numtasks"] == 6
            batch = [result_of(task) for task in manager.get_tasks(4)]
            batch[3]["status"] = ERROR
            manager.start_tasks([1, 2, 3, 4])
            if name == "singly":
                for result in batch:
                    manager.save_result(result)
            else:
                manager.save_results(batch)
            found = statuses(manager)
            assert manager.summary["OK"] == found.count(1)
            expected = [priority for priority, status in enumerate(found, start=1) if status is None]
            assert [task["priority"] for task in manager.get_tasks(9)] == expected
            task = manager.get_task()
            assert task is not None
            assert task["priority"] == expected[0]
            answers.append([manager.conn.execute(sql).fetchall() for sql in TABLES])
            if trigger == "on diagnostics":
                answers[-1].append(manager.conn.execute("SELECT * FROM latest").fetchall())
    assert answers[0] == answers[1]


# --- all or none ---


@pytest.mark.parametrize(
    ("priorities", "error", "message"),
    [
        ([1, 9, 2], UnknownTaskError, "Task 9 does not exist"),
        ([1, 3, 2], TaskFinishedError, r"Task 3 is finished \(status OK\)"),
        ([1, "x"], ValueError, "priorities='x'"),
        (7, ValueError, "priorities=7: a list is expected"),
    ],
)
@IN_MEMORY
def test_starting_all_or_none(
    opened: Callable[..., TaskManager], priorities: Any, error: type[Exception], message: str, in_memory: bool
) -> None:
    """If one task cannot be started, none is, and the error names it."""
    manager = opened({}, {}, {"status": 1}, load_into_memory=in_memory)
    with pytest.raises(error, match=message):
        manager.start_tasks(priorities)
    assert statuses(manager) == [None, None, 1]
    assert manager.summary["STARTED"] == 0
    manager.start_tasks(iter([1, 2, 1]))
    assert manager.summary["STARTED"] == 2


@pytest.mark.parametrize(
    ("offending", "error", "message"),
    [
        ({"priority": 9}, UnknownTaskError, "Task 9 does not exist"),
        ({"time": float("nan")}, InvalidResultError, "Result of task 3: time=nan"),
        ({"status": STATUS.STARTED}, InvalidResultError, "Result of task 3: status="),
    ],
)
@IN_MEMORY
def test_saving_all_or_none(
    todo: Callable[..., Path], offending: dict[str, Any], error: type[Exception], message: str, in_memory: bool
) -> None:
    """If one result cannot be saved, none is, and the error names it; in memory mode none is logged."""
    path = todo({}, {}, {}, {})
    manager = TaskManager(path, load_into_memory=in_memory)
    manager.start_tasks([1, 2, 3])
    batch = [result_of(task) for task in [{"priority": 1}, {"priority": 2}, {"priority": 3}]]
    batch[2] |= offending
    with pytest.raises(error, match=message):
        manager.save_results(batch)
    assert statuses(manager) == [6, 6, 6, None]
    assert (manager.summary["tasks_run"], manager.summary["OK"], manager.summary_counter) == (0, 0, 0)
    if in_memory:
        assert path.with_name("todo.sqlite-results").stat().st_size == 0
    assert manager.save_results(batch[:2]) == [STATUS.OK, STATUS.OK]
    assert manager.save_results([]) == []
    assert manager.summary["tasks_run"] == 2
    manager.close()


@pytest.mark.files_only
def test_backups_and_summaries_count_results(todo: Callable[..., Path], tmp_path: Path) -> None:
    """The intervals count results, not batches."""
    path = todo(*[{}] * 20)
    written = tmp_path / "summary.json"
    with TaskManager(path, summary=written, summary_interval=8, load_into_memory=True, backup_interval=8) as manager:
        manager.save_results(result_of(task) for task in manager.get_tasks(5))
        assert '"tasks_run": 0' in written.read_text()
        manager.save_results(result_of(task) for task in manager.get_tasks(5))
        assert '"tasks_run": 10' in written.read_text()
        assert manager.summary_counter == 0
        assert query(path, "SELECT count(*) FROM todolist WHERE status = 1") == [(10,)]


# --- few statements, and no full scans ---


class Trace:
    """The statements that a manager runs."""

    def __init__(self, manager: TaskManager) -> None:
        self.manager = manager
        self.seen: list[str] = []
        manager.get_task()  # the first call creates SQLAlchemy's connection

    def of(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> list[str]:
        self.seen.clear()
        self.manager.conn.set_trace_callback(self.seen.append)
        try:
            function(*arguments, **named)
        finally:
            self.manager.conn.set_trace_callback(None)
        return [sql for sql in self.seen if not sql.startswith("--")]


@pytest.mark.files_only
@IN_MEMORY
def test_statements_of_each_call(opened: Callable[..., TaskManager], in_memory: bool) -> None:
    """For a list of any length, a call runs few statements, and a batch three for each result and a few more."""
    manager = opened(*[{} for _ in range(600)], load_into_memory=in_memory)
    trace = Trace(manager)
    for _ in range(40):
        task = manager.get_task()
        assert task is not None
        manager.start_task(task["priority"])
        manager.save_result(result_of(task))
    looks = 0 if in_memory else 1  # PRAGMA data_version: no other program sees a copy in memory
    task = manager.get_task() or {}
    manager.get_task()  # it may have searched
    assert len(trace.of(manager.get_task)) == looks
    assert len(trace.of(manager.start_task, task["priority"])) == 3 + looks  # BEGIN, UPDATE, COMMIT
    assert len(trace.of(manager.save_result, result_of(task))) == 5 + looks  # and two INSERTs
    tasks = manager.get_tasks(100)
    assert len(trace.of(manager.get_tasks, 100)) <= 4
    assert len(trace.of(manager.start_tasks, [task["priority"] for task in tasks])) == 100 + 2 + looks
    assert len(trace.of(manager.save_results, list(map(result_of, tasks)))) == 3 * 100 + 4 + looks


CONSTRAINTS: list[dict[str, Any]] = [
    {},
    {"camera": 1, "ccd": 1},
    {"tmag_min": 5},
    {"tmag_min": 5, "tmag_max": 9, "camera": 1},
    {"sector": 1, "cadence": 1800, "datasource": "ffi"},
    {"starid": range(101, 160)},
    {"priority": [3, 5, 400]},
]


def find_scans(manager: TaskManager, statements: Iterable[str]) -> list[str]:
    """Return the statements for which SQLite reads whole tables."""
    scans = []
    for sql in {sql for sql in statements if sql.startswith(("SELECT", "UPDATE", "DELETE", "INSERT"))}:
        for *_, detail in manager.conn.execute(f"EXPLAIN QUERY PLAN {sql}"):
            if detail.startswith("SCAN") and "CONSTANT" not in detail and "(subquery" not in detail:
                scans.append(f"{detail}: {sql}")
    return scans


@pytest.mark.files_only
@pytest.mark.parametrize("analysed", ["never", "all pending", "all done"])
def test_nothing_reads_the_whole_table(todo: Callable[..., Path], analysed: str) -> None:
    """With any statistics in the file, no call in the life of a task scans a table."""
    path = todo(*[{"tmag": number / 40, "camera": 1 + number % 4} for number in range(600)])
    with TaskManager(path) as manager:
        if analysed != "never":
            manager.conn.execute("UPDATE todolist SET status = ?", [None if analysed == "all pending" else 1])
            manager.conn.execute("ANALYZE")
            manager.conn.execute("UPDATE todolist SET status = NULL")
            manager.conn.commit()
    with TaskManager(path) as manager:
        trace = Trace(manager)
        seen: list[str] = []
        for constraints in CONSTRAINTS:
            seen += trace.of(manager.get_task, **constraints)
            seen += trace.of(manager.get_tasks, 10, **constraints)
        seen += trace.of(manager.get_random_task)
        seen += trace.of(manager.start_tasks, [1, 2, 3])
        seen += trace.of(manager.save_results, [result_of(task) for task in manager.get_tasks(3)])
        seen += trace.of(manager.save_result, result_of({"priority": 7}, skip_targets=[108, 109]))
        seen += trace.of(manager.save_result, result_of({"priority": 7}))
        seen += trace.of(manager.release_tasks, [1, 2])
        assert len(seen) > 60
        assert find_scans(manager, seen) == []


@pytest.mark.files_only
def test_opening_reads_no_table(todo: Callable[..., Path]) -> None:
    """Opening a current file checks its schema, resets interrupted tasks, and renews no statistics."""
    path = todo(*[{} for _ in range(50)])
    with TaskManager(path) as manager:
        manager.start_tasks([1, 2])
    with TaskManager(path) as manager:
        assert query(path, "SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'") == [(0,)]
        assert manager.summary["STARTED"] == 0


@pytest.mark.files_only
def test_statistics_of_what_changes_are_not_kept(todo: Callable[..., Path]) -> None:
    """Compacting renews the statistics, but not of the statuses, which change soon."""
    path = todo(*[{} for _ in range(50)])
    TaskManager(path, cleanup=True).close()
    indexes = {name for (name,) in query(path, "SELECT idx FROM sqlite_stat1 WHERE tbl = 'todolist'")}
    assert "unique_target_idx" in indexes
    assert not indexes & {"status_idx", "todolist_pending_idx"}
