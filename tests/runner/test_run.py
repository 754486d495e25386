"""`run_tasks` with the default pool: results, errors, interruptions, locks of other programs."""

import logging
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import TodoFileInUseError, UnknownTaskError
from photometry_tasks.runner import RunReport, run, run_tasks
from photometry_tasks.runner.functions import check_function
from photometry_tasks.text import count_of
from tests.support import functions as functions
from tests.support.lists import checksum, many, query
from tests.support.paths import ROOT
from tests.support.processes import wait_until, workers_of


@pytest.mark.parametrize("in_memory", [False, True])
def test_all_tasks_are_done(opened: Callable[..., TaskManager], in_memory: bool) -> None:
    """Every task gets one result, with its own values and the times filled in."""
    manager = opened(*many(40), load_into_memory=in_memory)
    report = run_tasks(manager, functions.good, jobs=2)
    assert (report.saved, report.errors) == (40, 0)
    assert 0 < report.manager_time < report.wall_time
    assert manager.summary["OK"] == manager.summary["tasks_run"] == 40
    rows = manager.cursor.execute("SELECT priority, mean_flux, elaptime, worker_wait_time FROM diagnostics").fetchall()
    assert [(row["priority"], row["mean_flux"]) for row in rows] == [(n, float(n)) for n in range(1, 41)]
    assert all(0 <= row["elaptime"] < 60 and 0 <= row["worker_wait_time"] < 60 for row in rows)
    assert len({row["worker_wait_time"] for row in rows}) > 30


def test_the_work_is_shared(opened: Callable[..., TaskManager]) -> None:
    """The tasks run in the requested number of worker processes."""
    manager = opened(*many(60))
    run_tasks(manager, functions.says_its_process, jobs=2)
    processes = {int(row[0]) for row in manager.cursor.execute("SELECT DISTINCT method_used FROM diagnostics")}
    assert 1 <= len(processes) <= 2
    assert os.getpid() not in processes


@pytest.mark.parametrize(("column", "value"), [("starid", b"\5" + bytes(7)), ("tmag", b"\0\0 A"), ("camera", "one")])
def test_a_task_with_a_value_of_another_type(todo: Callable[..., Path], column: str, value: object) -> None:
    """A task whose row holds bytes or a text for a number becomes an ERROR, and the others are run."""
    path = todo(*many(6))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE todolist SET {column} = ? WHERE priority = 3", (value,))
    with TaskManager(path) as manager:
        report = run_tasks(manager, functions.good, jobs=2)
    assert (report.saved, report.errors) == (6, 1)
    assert column in query(path, "SELECT errors FROM diagnostics WHERE priority = 3")[0][0]


def test_something_else_for_a_manager(todo: Callable[..., Path]) -> None:
    """A path in place of the manager is refused by name."""
    path = todo()
    for other in (path, str(path), None):
        with pytest.raises(ValueError, match=r"manager=.*: a TaskManager is expected"):
            run_tasks(other, functions.good)  # type: ignore[arg-type]


def test_an_exception_is_an_error_result(opened: Callable[..., TaskManager]) -> None:
    """If the function raises an exception, its task becomes an ERROR with the traceback; the other tasks continue."""
    manager = opened(*many(9))
    report = run_tasks(manager, functions.every_third_raises, jobs=2)
    assert (report.saved, report.errors) == (9, 3)
    failed = manager.cursor.execute(
        "SELECT priority, errors, elaptime FROM todolist JOIN diagnostics USING (priority) WHERE status = 2"
    ).fetchall()
    assert [row["priority"] for row in failed] == [3, 6, 9]
    for row in failed:
        assert row["errors"].startswith("Traceback")
        assert f"no stamp for TIC {100 + row['priority']}" in row["errors"]
        assert "functions.py" in row["errors"]
        assert row["elaptime"] >= 0


@pytest.mark.parametrize(
    ("function", "texts"),
    [
        (
            functions.rubbish,
            [
                "Invalid result: the function returned 5: a dict with `status`, `method_used` and `details` is",
                "Invalid result: details.stamp=1: a list is expected.",
                "Invalid result: the function returned None: a dict",
                "status='fine': one of UNKNOWN (0), OK (1), ERROR (2), WARNING (3), ABORT (4), SKIPPED (5) is expected",
                "method_used is missing: a text is expected",
            ],
        ),
        (functions.exits, ["SystemExit: enough"] * 5),
        (functions.raises_a_base_exception, ["GeneratorExit", "CancelledError", "KeyboardInterrupt"]),
    ],
)
def test_rubbish_is_an_error_result(
    opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture, function: Any, texts: list[str]
) -> None:
    """A malformed result, SystemExit and other base exceptions become an ERROR with the reason; the first is logged."""
    manager = opened(*many(5))
    report = run_tasks(manager, function, jobs=1)
    assert (report.saved, report.errors) == (5, 5)
    errors = "\n".join(row["errors"] for row in manager.cursor.execute("SELECT errors FROM diagnostics"))
    assert [text for text in texts if text not in errors] == []
    assert "task.py" not in errors  # only frames of the function
    logged = [text for text in caplog.messages if "task 1 has an invalid result, the first one of this run." in text]
    assert len(logged) == (function is functions.rubbish)


def test_neighbours_are_skipped_while_it_runs(opened: Callable[..., TaskManager]) -> None:
    """A neighbour that is skipped in time does not run; tasks in flight keep their results, and the counts add up."""
    manager = opened(*many(400))
    report = run_tasks(manager, functions.covers_the_next_hundred, jobs=2)
    assert manager.get_number_tasks() == 0
    assert manager.summary["OK"] + manager.summary["SKIPPED"] == 400
    # Each result skips 100 tasks, and at most 64 are in flight.
    assert report.saved < 400


def test_covered_tasks_that_wait_for_a_worker(
    opened: Callable[..., TaskManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is covered while it waits for a worker does not run, and does not count towards the limit."""
    monkeypatch.chdir(tmp_path)
    manager = opened(*many(60))

    def let_go(report: RunReport) -> None:
        if report.saved >= 11:
            Path("go").touch()

    report = run_tasks(manager, functions.task_11_covers_19_stars, jobs=1, limit=20, progress=let_go)
    assert report.saved == 20
    # Task 12 runs when task 11 covers it.
    assert set(map(int, Path("begun").read_text().split())) == {*range(1, 13), *range(31, 39)}


def test_fields_that_a_function_may_change(opened: Callable[..., TaskManager]) -> None:
    """The function's own time is saved, and its result is saved for the task that it was given."""
    manager = opened(*many(3))
    run_tasks(manager, functions.another_sector, jobs=1)
    assert manager.summary["OK"] == 3
    rows = manager.cursor.execute("SELECT elaptime FROM diagnostics").fetchall()
    assert [row["elaptime"] for row in rows] == [123.0] * 3


def test_limit_and_constraints(opened: Callable[..., TaskManager]) -> None:
    """At most `limit` tasks run, and only tasks that match the constraints."""
    manager = opened(*[{"camera": 1 + number % 2} for number in range(20)])
    seen: list[int] = []
    report = run_tasks(
        manager, functions.good, jobs=2, limit=7, camera=2, progress=lambda report: seen.append(report.saved)
    )
    assert report.saved == 7
    assert seen == sorted(seen)
    assert seen[-1] == 7
    found = manager.cursor.execute(
        "SELECT camera, count(*) FROM todolist WHERE status IS NOT NULL GROUP BY 1"
    ).fetchall()
    assert [tuple(row) for row in found] == [(2, 7)]


def test_nothing_to_do(opened: Callable[..., TaskManager]) -> None:
    """With no pending task, the run ends at once."""
    report = run_tasks(opened({"status": 1}), functions.good)
    assert (report.saved, report.errors) == (0, 0)


@pytest.mark.parametrize("arguments", [{"jobs": 0}, {"jobs": 1.5}, {"limit": 0}, {"limit": "5"}])
def test_bad_numbers(opened: Callable[..., TaskManager], arguments: dict[str, Any]) -> None:
    """An invalid number of jobs or tasks is a ValueError, before any task starts."""
    manager = opened({})
    with pytest.raises(ValueError, match=next(iter(arguments))):
        run_tasks(manager, functions.good, **arguments)
    assert manager.get_number_tasks() == 1


def local() -> Callable[..., Any]:
    def measure(task: dict[str, Any]) -> dict[str, Any]:
        return task

    return measure


class Measures:
    async def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        return task

    def measure(self, task: dict[str, Any]) -> dict[str, Any]:
        return functions.good(task)


class HoldsALock:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def measure(self, task: dict[str, Any]) -> dict[str, Any]:
        return task


def make_closure() -> Callable[[dict[str, Any]], Any]:
    here = threading.Lock()
    return lambda task: task if here else {}


IMPORT = r"it cannot be sent to them \(TypeError: cannot pickle '_thread.lock' object.*\); define it at the top level"
CALL = r"cannot be called with a task alone \({}\)"

UNFIT: dict[str, tuple[Any, str]] = {
    "a name": ("mypipe:photometry", "a function is expected; import it"),
    "a module": (functions, "a function is expected"),
    "an instance": (object(), "a function is expected"),
    "None": (None, "a function is expected"),
    "a class": (HoldsALock, "a class returns an instance"),
    "a built-in class": (str, "a class returns an instance"),
    "a bound method": (HoldsALock().measure, IMPORT),
    "a closure on a lock": (
        make_closure(),
        r"its variable here cannot be sent to workers .*; create it in the function",
    ),
    "no argument": (functions.takes_nothing, CALL.format("too many positional arguments")),
    "two arguments": (functions.needs_a_configuration, CALL.format("missing a required argument: 'configuration'")),
    "a partial function": (partial(functions.good, {}), CALL.format("too many positional arguments")),
    "a keyword": (functions.takes_a_keyword, "cannot be called with a task alone"),
    "async": (functions.is_async, "async or a generator"),
    "an async partial": (partial(functions.is_async), "async or a generator"),
    "an async instance": (Measures(), "async or a generator"),
    "a generator": (functions.yields, "async or a generator"),
}


@pytest.mark.parametrize(("function", "message"), UNFIT.values(), ids=list(UNFIT))
def test_a_function_that_cannot_work(opened: Callable[..., TaskManager], function: Any, message: str) -> None:
    """A function that workers cannot import or call is refused with the reason, before any task starts."""
    manager = opened({})
    with pytest.raises(ValueError, match=f"^function=.*{message}"):
        run_tasks(manager, function)
    assert manager.get_number_tasks() == 1


@pytest.mark.parametrize(
    "function",
    [Measures().measure, partial(functions.needs_a_configuration, configuration=1), functions.decorated, np.sqrt, dict],
    ids=["a method", "a partial", "decorated", "compiled", "a class"],
)
def test_a_function_of_another_kind(function: Any) -> None:
    """A bound method, a partial, a decorated or a compiled function, and a class of mappings are taken."""
    assert check_function(function) is function


def test_an_unfit_function_on_the_command_line(todo: Callable[..., Path], call: Callable[..., Any]) -> None:
    """`run` refuses such a function before it opens the file, which would return errors to pending."""
    path = todo({"status": 2})
    before = checksum(path)
    run = call("run", path, "tests.support.functions:is_async")
    assert run.returncode == 1
    assert "async or a generator" in run.stderr
    assert checksum(path) == before


def fail(report: RunReport) -> None:
    if report.saved:  # it is also called each second without a result
        raise ZeroDivisionError


def test_a_failing_progress_callback(opened: Callable[..., TaskManager]) -> None:
    """An exception in the callback ends the run; finished results are saved, other tasks are pending."""
    manager = opened(*many(300))
    with pytest.raises(ZeroDivisionError):
        run_tasks(manager, functions.good, jobs=2, progress=fail)
    assert manager.summary["STARTED"] == 0
    assert 1 <= manager.summary["OK"] < 150  # a batch, and the results that finished meanwhile
    assert manager.summary["OK"] + manager.get_number_tasks() == 300


def test_a_result_that_cannot_be_saved(opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture) -> None:
    """If a result cannot be saved, the run ends, and the other finished results are saved."""
    manager = opened(*many(300))

    def delete_one(report: RunReport) -> None:
        deleted = manager.cursor.execute("SELECT count(*) FROM todolist").fetchone()[0] < 300
        if deleted or not 32 < report.saved < 250:
            return
        (first,) = manager.cursor.execute("SELECT min(priority) FROM todolist WHERE status = 6").fetchone()
        manager.cursor.execute("DELETE FROM todolist WHERE priority = ?", (first,))
        manager.conn.commit()

    with pytest.raises(UnknownTaskError):
        run_tasks(manager, functions.good, jobs=2, progress=delete_one)
    assert re.search(r"the finished result of task \d+ could not be saved", caplog.text)
    assert manager.summary["STARTED"] == 0
    assert manager.summary["OK"] > 32
    assert manager.summary["OK"] + manager.get_number_tasks() == 299


def test_a_worker_that_does_not_end(opened: Callable[..., TaskManager]) -> None:
    """A worker that ignores SIGTERM is killed."""
    manager = opened(*many(4))
    with pytest.raises(ZeroDivisionError):
        run_tasks(manager, functions.does_not_end, jobs=1, progress=fail)
    assert multiprocessing.active_children() == []
    assert manager.get_number_tasks() == 3


def test_constraints_that_can_be_read_once(opened: Callable[..., TaskManager]) -> None:
    """A constraint may be a generator: all its tasks run."""
    manager = opened(*many(20))
    report = run_tasks(manager, functions.good, jobs=1, starid=(star for star in range(101, 111)))
    assert report.saved == 10


@pytest.mark.parametrize("limit", [None, 1])
def test_ctrl_c_while_a_result_is_saved(opened: Callable[..., TaskManager], limit: int | None) -> None:
    """Ctrl-C in the progress callback stops the run after it, also after the last result."""
    manager = opened(*many(300))
    after: list[int] = []

    def interrupt(report: RunReport) -> None:
        if not report.saved:
            return
        after.append(report.saved)
        if len(after) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_tasks(manager, functions.good, jobs=2, limit=limit, progress=interrupt)
    assert len(after) >= 2  # called again at the end
    assert manager.summary["STARTED"] == 0
    assert manager.summary["OK"] + manager.get_number_tasks() == 300
    assert manager.summary["OK"] < 150


PROMPT = """
import sys, threading
from functools import partial
from photometry_tasks import TaskManager
from photometry_tasks.runner import run_tasks
def build(status): return lambda task: {"status": status, "method_used": "mine"}
def photometry(task): return build(1)(task)
class Kind:
    def __call__(self, task): return photometry(task)
    measure = __call__
with TaskManager(sys.argv[1]) as tm: run_tasks(tm, FUNCTION, jobs=2, executor=EXECUTOR)
"""
WITHOUT = "import sys; sys.modules['cloudpickle'] = None\n"


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("function", "before", "executor", "says"),
    [
        ("photometry", "", "None", ""),
        ("partial(photometry)", "", "__import__('concurrent.futures').futures.ProcessPoolExecutor", ""),
        ("build(1)", "", "None", ""),
        ("Kind().measure", "", "None", ""),
        ("lambda task, lock=threading.Lock(): photometry(task)", "", "None", "cannot pickle '_thread.lock' object"),
        ("lambda task, data=bytes(2 * 10**6): photometry(task)", "", "None", "have 2 MB, which each task sends"),
        ("photometry", WITHOUT, "None", "pip install 'photometry_tasks[notebook]', or define it at the top level"),
        ("build(1)", WITHOUT, "__import__('concurrent.futures').futures.ThreadPoolExecutor", ""),
    ],
)
def test_a_function_of_the_prompt(
    todo: Callable[..., Path], function: str, before: str, executor: str, says: str
) -> None:
    """A function, a lambda, a closure or a method of a prompt is sent to the workers, or the error says what to do."""
    script = before + PROMPT.replace("FUNCTION", function).replace("EXECUTOR", executor)
    path = todo(*many(4))
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert says in run.stderr
    found = query(path, "SELECT status, method_used FROM todolist LEFT JOIN diagnostics USING (priority)")
    assert found == ([(1, "mine")] if run.returncode == 0 else [(None, None)]) * 4
    assert run.returncode == ("InvalidArgumentError" in run.stderr), run.stderr


def test_in_another_thread(todo: Callable[..., Path]) -> None:
    """A run works in a thread other than the main thread, where signals cannot be watched."""
    path = todo(*many(4))
    reports = []

    def work() -> None:
        with TaskManager(path) as manager:
            reports.append(run_tasks(manager, functions.good, jobs=1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reports[0].saved == 4


def test_the_handler_is_put_back(opened: Callable[..., TaskManager]) -> None:
    """After a run, the handler of Ctrl-C is restored."""
    run_tasks(opened({}), functions.good, jobs=1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_workers_ignore_ctrl_c(opened: Callable[..., TaskManager]) -> None:
    """A worker ignores Ctrl-C, because the parent decides."""
    manager = opened({})
    run_tasks(manager, functions.says_what_ctrl_c_does, jobs=1)
    (row,) = manager.cursor.execute("SELECT method_used FROM diagnostics").fetchall()
    assert row["method_used"] == "['1', '1'], blocked: set()"


@pytest.mark.sample(5)
@pytest.mark.parametrize("moment", ["a worker begins", "one hangs, one waits", "all hang"])
@pytest.mark.parametrize(
    ("whole_group", "in_memory"), [(False, False), (True, True)], ids=["parent, disk", "terminal, memory"]
)
def test_ctrl_c(todo: Callable[..., Path], tmp_path: Path, whole_group: bool, in_memory: bool, moment: str) -> None:
    """Ctrl-C stops a run: results are saved, other tasks pending, no process is left, no traceback is printed."""
    path = todo(*many(30))
    command = [sys.executable, "-m", "photometry_tasks.cli", "run", str(path), "--jobs", "2"]
    command += ["--grace", "0", "tests.support.functions:hangs_from_task_5", *(["--in-memory"] if in_memory else [])]
    command += ["--limit", "5"] if moment == "one hangs, one waits" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    hangs = tmp_path / "hangs"
    wait_until(lambda: workers_of(process.pid) if moment == "a worker begins" else hangs.exists(), process)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    ((saved,),) = query(path, "SELECT count(*) FROM diagnostics")
    assert saved <= 4
    assert saved >= 1 or moment == "a worker begins"
    assert f"Stopped: {count_of(saved, 'result')} saved, unfinished tasks pending." in errors
    found = query(path, "SELECT status, count(*) FROM todolist GROUP BY 1 ORDER BY 1")
    assert found == [(None, 30 - saved), *([(STATUS.OK.value, saved)] if saved else [])]
    (tmp_path / "hangs").unlink(missing_ok=True)
    assert list(tmp_path.iterdir()) == [path]
    assert workers_of(process.pid) == []


# --- another program locks the file ---


class ForeignLock(logging.Handler):
    """A write lock of another program, with an action for the moment at which a run logs that it waits for it."""

    def __init__(self, manager: TaskManager) -> None:
        super().__init__()
        manager.conn.execute("PRAGMA busy_timeout = 10")  # milliseconds; SQLite waits 5 s otherwise
        self._program = sqlite3.connect(manager.todo_file, isolation_level=None, check_same_thread=False)
        self.action: Callable[[], object] = self.end
        self.lines: list[str] = []
        manager.logger.addHandler(self)

    def take(self, *_: Any) -> None:
        self._program.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        self._program.execute("ROLLBACK")

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if "waits for at most" in record.getMessage():
            self.action()


@pytest.fixture
def foreign_lock(opened: Callable[..., TaskManager]) -> Iterator[tuple[TaskManager, ForeignLock]]:
    manager = opened(*many(20))
    lock = ForeignLock(manager)
    yield manager, lock
    manager.logger.removeHandler(lock)
    lock._program.close()


def lock_and_fail(lock: ForeignLock) -> Callable[[RunReport], None]:
    def progress(report: RunReport) -> None:
        if report.saved:
            lock.take()
            raise ZeroDivisionError

    return progress


class LockingExecutor(ThreadPoolExecutor):
    """An executor whose first task takes the lock, so that its result cannot be saved."""

    def __init__(self, lock: ForeignLock) -> None:
        super().__init__(1, initializer=lock.take)


@pytest.mark.parametrize("moment", ["claim", "save", "end"])
def test_a_lock_of_another_program(foreign_lock: tuple[TaskManager, ForeignLock], moment: str) -> None:
    """If another program locks the file, the run waits, keeps its results, and logs the lock and its end once."""
    manager, lock = foreign_lock
    if moment == "claim":
        lock.take()
        run_tasks(manager, functions.good, jobs=1)
    elif moment == "save":
        run_tasks(manager, functions.good, jobs=1, executor=lambda _jobs: LockingExecutor(lock))
    else:
        with pytest.raises(ZeroDivisionError):
            run_tasks(manager, functions.does_not_end, jobs=2, progress=lock_and_fail(lock))
    assert (manager.summary["STARTED"], manager.summary["OK"]) == (0, 1 if moment == "end" else 20)
    assert len(lock.lines) == 2, lock.lines
    assert lock.lines[0].startswith(f"{manager.todo_file} is in use by another manager or program (database is locked)")
    assert lock.lines[1] == f"{manager.todo_file}: the lock has ended, the run goes on"


def test_a_lock_at_a_backup(opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture) -> None:
    """In memory mode, only backups need the file: a run does not wait, and a later backup has all results."""
    manager = opened(*many(20), load_into_memory=True, backup_interval=1)
    with closing(sqlite3.connect(manager.todo_file)) as program:
        program.execute("UPDATE todolist SET tmag = 3")
        run_tasks(manager, functions.good, jobs=1)
    assert "automatic backup failed" in caplog.text
    manager.backup()
    assert query(manager.todo_file, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(1, 20)]


def test_a_lock_that_does_not_end(
    foreign_lock: tuple[TaskManager, ForeignLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has waited long enough ends; each further call waits once, and the lost results are logged."""
    manager, lock = foreign_lock
    lock.action = partial(monkeypatch.setattr, run, "_LONGEST_LOCK", 0.0)
    with pytest.raises(TodoFileInUseError):
        run_tasks(manager, functions.good, jobs=1, executor=lambda _jobs: LockingExecutor(lock))
    assert [line.partition(": ")[2] for line in lock.lines[1:]] == [
        "1 finished result could not be saved",
        "1 task could not be returned to pending",
    ]
    lock.end()
    assert (manager.summary["STARTED"], manager.get_number_tasks()) == (1, 19)


@pytest.mark.parametrize("moment", ["claim", "save"])
def test_a_signal_while_a_run_waits(foreign_lock: tuple[TaskManager, ForeignLock], moment: str) -> None:
    """A first signal ends the wait for a claim, and only a second signal ends the wait for a save."""
    manager, lock = foreign_lock
    lock.action = partial(signal.raise_signal, signal.SIGINT)
    if moment == "claim":
        lock.take()
        with pytest.raises(KeyboardInterrupt):
            run_tasks(manager, functions.good, jobs=1)
        lock.end()
    else:
        lock.action = lambda: [signal.raise_signal(signal.SIGINT), threading.Timer(0.2, lock.end).start()]
        with pytest.raises(KeyboardInterrupt):
            run_tasks(manager, functions.good, jobs=1, executor=lambda _jobs: LockingExecutor(lock))
        assert manager.summary["OK"] == 1
    assert manager.summary["STARTED"] == 0
