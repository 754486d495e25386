"""One list and several managers: the owner of a task, and calls whose answer was lost."""

import os
import random
import select
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import (
    ClosedError,
    ListInUseError,
    ServerError,
    ServerUnreachableError,
    TaskOwnedError,
    TodoListNotFoundError,
    UncommittedChangesError,
    UnsupportedOnServerError,
)
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.models import Task
from photometry_tasks.sql import transitions
from photometry_tasks.storage.postgresql import retry, store
from tests.support.lists import ask, empty_list, execute_sql, make_list, query, result_of
from tests.support.processes import running, wait_until
from tests.support.servers import owned_databases

Opened = Callable[..., TaskManager]


@pytest.fixture
def share(server_database: Engine) -> Iterator[Callable[..., Opened]]:
    """Create a list from rows, and return a function that opens a manager of it."""
    with ExitStack() as stack:

        def make(*rows: dict[str, Any]) -> Opened:
            url = empty_list(server_database, list(rows))
            return lambda **given: stack.enter_context(TaskManager(url, **{"reset": False, **given}))

        yield make


def statuses(manager: TaskManager) -> list[Any]:
    return [status for (status,) in ask(manager, "SELECT status FROM todolist ORDER BY priority")]


# --- owners ---


def test_no_two_get_the_same(share: Callable[..., Opened]) -> None:
    """If a manager has claimed a task, another cannot claim, start or release it, or save a result without a token."""
    opened = share({}, {}, {})
    one, other = opened(), opened()
    (task,) = one.claim_tasks(1)
    assert list(task)[-1] == "attempt"
    assert [found["priority"] for found in other.claim_tasks(1)] == [2]
    with pytest.raises(TaskOwnedError, match="Task 1 is running on worker 1 "):
        other.start_task(1)
    with pytest.raises(TaskOwnedError):
        other.start_tasks([3, 1])
    assert other.save_result(result_of({"priority": 1})) is None
    other.release_tasks([1])
    assert statuses(one) == [6, 6, None]
    assert one.save_result(result_of(task)) is STATUS.OK
    one.start_task(3)
    one.start_task(3)
    assert one.save_result(result_of({"priority": 3})) is STATUS.OK


def test_results_without_a_token(share: Callable[..., Opened]) -> None:
    """A result without a token is accepted from the owner, or if no manager owns the task; a second replaces it."""
    opened = share({}, {})
    one, other = opened(), opened()
    assert other.save_result(result_of({"priority": 1})) is STATUS.OK
    assert one.save_result(result_of({"priority": 1}, STATUS.WARNING)) is STATUS.WARNING
    one.start_task(2)
    saved = other.save_results([result_of({"priority": 1}), result_of({"priority": 2})])
    assert saved == [STATUS.OK, None]
    assert statuses(one) == [1, 6]


def test_a_token_counts_once(share: Callable[..., Opened]) -> None:
    """A result with a token is accepted once, from any manager, but not after a release, or with a wrong token."""
    opened = share({}, {}, {})
    one, other = opened(), opened()
    first, second, third = one.claim_tasks(3)
    assert other.save_results([result_of(first), result_of(first, STATUS.ERROR)]) == [STATUS.OK, None]
    assert one.save_result(result_of(first, STATUS.ERROR)) is None
    one.release_tasks([second["priority"]])
    assert one.save_result(result_of(second)) is None
    assert one.save_result(result_of({**third, "attempt": third["attempt"] + 100})) is None
    assert one.save_result(result_of({**third, "attempt": first["attempt"]})) is None
    assert statuses(one) == [1, None, 6]


def test_opening_leaves_what_runs(share: Callable[..., Opened]) -> None:
    """Opening and resetting return failed tasks and tasks without an owner to pending, but no running task."""
    opened = share({}, {"status": 6}, {"status": 2}, {"status": 4}, {"status": 1})
    one = opened()
    one.claim_tasks(1)
    other = opened(reset=True)
    assert statuses(one) == [6, None, None, None, 1]
    assert other.reset_tasks(status=STATUS) == {"OK": 1}
    assert statuses(one) == [6, None, None, None, None]


def test_overwriting_needs_all_to_be_gone(share: Callable[..., Opened]) -> None:
    """A list is not overwritten while another manager has it open."""
    opened = share({}, {"status": 1})
    one = opened()
    one.claim_tasks(1)
    with pytest.raises(ListInUseError, match=r"is in use by worker 1 \(.*last heartbeat \d+ s ago\)"):
        opened(overwrite=True)
    assert statuses(one) == [6, 1]
    one.close()
    assert statuses(opened(overwrite=True)) == [None, None]


def test_closing_gives_back(share: Callable[..., Opened]) -> None:
    """Closing a manager returns its unfinished tasks to pending, and their attempts do not count."""
    opened = share({}, {})
    one = opened()
    one.claim_tasks(2)
    one.close()
    other = opened()
    assert statuses(other) == [None, None]
    assert ask(other, "SELECT how FROM photometry_tasks_attempts") == [("released",)] * 2


def test_a_rival_that_runs_stays_with_its_worker(share: Callable[..., Opened]) -> None:
    """A running task that is skipped, and later no longer skipped, is STARTED again: no other manager gets it."""
    opened = share({"tmag": 5.0}, {"tmag": 9.0})
    one, other = opened(), opened()
    bright, faint = other.claim_tasks(1) + one.claim_tasks(1)
    other.save_result(result_of(bright, skip_targets=[102]))
    assert statuses(one) == [1, 5]
    other.save_result(result_of({"priority": 1}))
    assert statuses(one) == [1, 6]
    assert other.get_task() is None
    assert one.save_result(result_of(faint, STATUS.WARNING)) is STATUS.WARNING


def test_a_status_that_somebody_takes_back(share: Callable[..., Opened]) -> None:
    """A running task that another program sets to pending is not given to a second worker."""
    opened = share({}, {}, {}, {})
    one, other = opened(), opened()
    tasks = one.claim_tasks(3)
    execute_sql(other, "UPDATE todolist SET status = NULL")
    assert [found["priority"] for found in other.claim_tasks(1)] == [4]  # though three pending tasks come before it
    assert one.save_results(map(result_of, tasks)) == [STATUS.OK] * 3


def test_a_pending_task_that_is_locked(share: Callable[..., Opened], server_database: Engine) -> None:
    """A claim skips a locked task, and `has_tasks_elsewhere` is true while it is locked."""
    one = share({"sector": 1}, {"sector": 2})()
    with server_database.connect() as onlooker:
        onlooker.exec_driver_sql("SELECT FROM todolist WHERE sector = 1 FOR UPDATE")
        assert one.claim_tasks(1, sector=1) == []
        assert (one.has_tasks_elsewhere(sector=1), one.has_tasks_elsewhere(sector=3)) == (True, False)
    assert [task["priority"] for task in one.claim_tasks(1, sector=1)] == [1]
    assert not one.has_tasks_elsewhere(sector=1)


@pytest.mark.parametrize("how", ["release", "close", "rescue"])
def test_a_task_that_is_freed_while_it_is_given_back(
    how: str, share: Callable[..., Opened], server_database: Engine
) -> None:
    """A running task whose skip is removed while its worker releases it or is lost, is pending afterwards."""
    opened = share({"tmag": 5.0}, {"tmag": 10.0}, {"tmag": 11.0})
    one, other = opened(), opened()
    (bright,), (faint,) = one.claim_tasks(1), other.claim_tasks(1)
    assert one.save_result(result_of(bright, skip_targets=[faint["starid"]])) is STATUS.OK
    assert statuses(one) == [1, 5, None]
    del bright["attempt"]
    results = [result_of(task, filepath_lightcurve="p") for task in (bright, {**bright, "priority": 3, "starid": 3})]
    ends = {
        "release": lambda: other.release_tasks([2]),
        "close": other.close,
        "rescue": lambda: one.claim_tasks(1, priority=99),
    }
    url = server_database.url.render_as_string(hide_password=False)
    is_given_back = threading.Event()

    def save_again() -> None:
        with TaskManager(url, reset=False) as manager:
            manager.save_results(results)

    with server_database.connect() as onlooker, ThreadPoolExecutor(2) as threads:

        def wait_for(number: int) -> None:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            wait_until(lambda: len(query(url, waiting)) >= number or is_given_back.is_set())

        def let_go() -> None:
            wait_for(2)
            onlooker.rollback()

        onlooker.exec_driver_sql("SELECT FROM todolist WHERE priority = 3 FOR UPDATE")
        saved = threads.submit(save_again)
        wait_for(1)  # it has set the second task to STARTED, and waits for the third
        if how == "rescue":
            execute_sql(one, "UPDATE photometry_tasks_workers SET seen = seen - interval '1 h' WHERE worker = 2")
        waiter = threads.submit(let_go)
        ends[how]()
        is_given_back.set()
        waiter.result()
        saved.result()
    assert statuses(one) == [1, None, 2]  # of two results with one light-curve path, the second is an ERROR


#: What returns task 1 to pending: a manager's call before the claims of another manager, and one after them.
RETURNS: dict[str, tuple[Callable[[TaskManager], Any], Callable[[TaskManager], Any]]] = {
    "a release": (lambda one: one.claim_tasks(1), lambda one: one.release_tasks([1])),
    "a reset": (lambda one: one.save_result(result_of({"priority": 1})), lambda one: one.reset_tasks(priority=1)),
    "a save that no longer covers it": (
        lambda one: one.save_result(result_of({"priority": 2}, skip_targets=[101])),
        lambda one: one.save_result(result_of({"priority": 2})),
    ),
    "plain SQL": (
        lambda one: one.save_result(result_of({"priority": 1})),
        lambda one: execute_sql(one, "UPDATE todolist SET status = NULL WHERE priority = 1"),
    ),
    "closing": (lambda one: one.claim_tasks(1), lambda one: one.close()),
    "an expired lease": (
        lambda one: one.claim_tasks(1),
        lambda one: execute_sql(
            one, "UPDATE photometry_tasks_workers SET seen = seen - interval '1 h' WHERE worker = 1"
        ),
    ),
    "the end of a lock": (
        lambda one: one.session.connection().exec_driver_sql("SELECT FROM todolist WHERE priority = 1 FOR UPDATE"),
        lambda one: one.session.rollback(),
    ),
}


@pytest.mark.parametrize("how", RETURNS)
def test_a_task_that_comes_back(how: str, share: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    """If another manager or program returns a lower task to pending, a claim finds it within a second."""
    clock = [0.0]
    monkeypatch.setattr(store, "monotonic", lambda: clock[0])
    opened = share({"tmag": 9.0}, {"tmag": 5.0}, {}, {}, {}, {})
    other, manager = opened(), opened()
    leave, come_back = RETURNS[how]
    leave(other)
    first = manager.claim_tasks(1)[0]["priority"]
    come_back(other)
    opened()  # an opening rescues tasks too
    assert [task["priority"] for task in manager.claim_tasks(1)] == [first + 1]
    clock[0] = 1.0
    assert [task["priority"] for task in manager.claim_tasks(2)] == [1, first + 2]


@pytest.mark.parametrize("how", list(RETURNS)[:4])
def test_a_task_that_a_manager_returns_itself(
    how: str, share: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a manager or its session returns a lower task to pending, its next claim finds the task."""
    monkeypatch.setattr(store, "monotonic", lambda: 0.0)
    manager = share({"tmag": 9.0}, {"tmag": 5.0}, {}, {}, {}, {})()
    leave, come_back = RETURNS[how]
    leave(manager)
    manager.claim_tasks(1)
    come_back(manager)
    assert [task["priority"] for task in manager.claim_tasks(1)] == [1]


def test_a_task_that_comes_back_at_the_end(share: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    """If no higher task is pending, a claim finds a task that has come back at once."""
    monkeypatch.setattr(store, "monotonic", lambda: 0.0)
    opened = share({}, {}, {})
    other, manager = opened(), opened()
    other.claim_tasks(1)
    manager.claim_tasks(1)
    manager.claim_tasks(1)
    other.release_tasks([1])
    assert [task["priority"] for task in manager.claim_tasks(1)] == [1]


def test_a_batch_with_a_covered_task(share: Callable[..., Opened]) -> None:
    """If a result of a batch cannot be saved like the others, each result still has its own outcome."""
    opened = share({"tmag": 5.0}, {"tmag": 9.0}, {})
    one, other = opened(), opened()
    (bright,), tasks = other.claim_tasks(1), one.claim_tasks(2)
    other.save_result(result_of(bright, skip_targets=[102]))
    assert one.save_results(map(result_of, tasks)) == [STATUS.SKIPPED, STATUS.OK]


# --- the connection ---


def test_the_session_is_shared(share: Callable[..., Opened]) -> None:
    """A method raises while the caller has uncommitted changes, and ends a transaction that the caller only read in."""
    manager = share({}, {})()
    ask(manager, "SELECT 1")
    assert manager.get_number_tasks() == 2
    manager.session.connection().exec_driver_sql("UPDATE todolist SET tmag = 3")
    for call in (manager.get_task, manager.heartbeat, lambda: manager.claim_tasks(1), lambda: manager.summary):
        with pytest.raises(UncommittedChangesError):
            call()
    manager.session.rollback()
    assert manager.claim_tasks(1)[0]["tmag"] == 10.0
    for name in ("conn", "cursor"):
        with pytest.raises(UnsupportedOnServerError, match="Use `session`"):
            getattr(manager, name)
        assert not hasattr(manager, name)


def change_an_object(manager: TaskManager) -> None:
    manager.session.get_one(Task, 1).tmag = 3.0


def fail(manager: TaskManager) -> None:
    with suppress(DBAPIError):
        ask(manager, "SELECT nothing")


def lose_the_connection(manager: TaskManager) -> None:
    with suppress(DBAPIError):
        ask(manager, "SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda manager: manager.session.execute(text("UPDATE todolist SET tmag = 3")), UncommittedChangesError),
        (change_an_object, UncommittedChangesError),
        (fail, UncommittedChangesError),
        (lose_the_connection, ServerError),
    ],
)
def test_the_end_of_a_block(
    server_database: Engine, share: Callable[..., Opened], change: Callable[[TaskManager], None], error: type[Exception]
) -> None:
    """The end of a block rolls back an open transaction of the caller, releases the tasks, closes, and then raises."""
    share({}, {})
    url = server_database.url.render_as_string(hide_password=False)
    with pytest.raises(error), TaskManager(url) as manager:  # noqa: PT012 - the test is about the block itself
        manager.claim_tasks(1)
        change(manager)
    with pytest.raises(ClosedError):
        manager.get_task()
    assert query(url, "SELECT status, tmag FROM todolist") == [(None, 10.0)] * 2
    assert query(url, "SELECT count(*) FROM photometry_tasks_workers WHERE ended IS NULL") == [(0,)]


def test_a_forked_child(share: Callable[..., Opened]) -> None:
    """A forked child cannot use the connection, and its exit does not cut it."""
    manager = share({}, {})()
    ask(manager, "SELECT 1")
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            manager.claim_tasks(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    pid = ask(manager, "SELECT pg_backend_pid()")
    assert [task["priority"] for task in manager.claim_tasks(1)] == [1]
    assert ask(manager, "SELECT pg_backend_pid()") == pid


def test_what_is_no_list(postgresql: Engine, share: Callable[..., Opened]) -> None:
    """A database without a list, and arguments that only files take, are refused, and the error says what to do."""
    with pytest.raises(TodoListNotFoundError, match="photometry-tasks init"):
        TaskManager(postgresql.url.render_as_string(hide_password=False))
    opened = share({"status": 2})
    for wrong in (
        {"load_into_memory": True},
        {"lease": 0},
        {"lease": 1e12},
        {"lease": float("nan")},
        {"max_attempts": 0},
    ):
        ((name, _),) = wrong.items()
        with pytest.raises(ValueError, match=f"{name}="):
            opened(reset=True, **wrong)
    assert statuses(opened()) == [2]
    with pytest.raises(ServerError, match="does_not_exist"):
        opened(reset=True, cleanup_constraints=["does_not_exist = 1"])


def test_a_frozen_server(share: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    """If a server process does not answer, the call is retried on a new connection."""
    monkeypatch.setattr(store, "_SHORTEST_PATIENCE", 1.0)
    opened = share({}, {}, {})
    manager = opened(lease=2.0)
    ((pid,),) = ask(manager, "SELECT pg_backend_pid()")
    manager.heartbeat()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert [task["priority"] for task in manager.claim_tasks(1)] == [1]
    finally:
        os.kill(pid, signal.SIGCONT)
    manager.close()
    other = opened()
    ask(other, f"SELECT pg_terminate_backend({pid}, 10000)")
    # No manager owns the tasks that it claimed after it continued.
    tasks = {task["priority"] for task in other.claim_tasks(3)}
    assert tasks | {1, 2, 3} == {1, 2, 3}
    assert len(tasks) >= 2


def stop_in_a_save(connection: Connection, url: str) -> None:
    """Claim two tasks, and stop within the transaction that saves a result."""
    save_results = transitions.save_results

    def stop(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSTOP)
        return save_results(*given)

    store._SHORTEST_PATIENCE = 0.5
    transitions.save_results = stop
    with TaskManager(url, reset=False, lease=1.0) as manager:
        tasks = manager.claim_tasks(2)
        connection.send([task["priority"] for task in tasks])
        connection.send(manager.save_result(result_of(tasks[0], skip_targets=[103])))


def test_a_worker_that_stops_in_a_transaction(server_database: Engine) -> None:
    """If a worker stops in a transaction, the server rolls it back: its tasks are rescued, its result refused."""
    url = empty_list(server_database, [{"tmag": 5.0}, {}, {"tmag": 9.0}])
    with running(stop_in_a_save, url) as (process, connection), TaskManager(url, reset=False) as manager:
        assert connection.recv() == [1, 2]
        found: set[int] = set()
        begun = time.monotonic()
        while found != {1, 2, 3}:
            assert time.monotonic() - begun < 30
            found |= {task["priority"] for task in manager.claim_tasks(3)}
        os.kill(process.pid or 0, signal.SIGCONT)
        assert connection.recv() is None
        assert statuses(manager) == [6, 6, 6]


def test_a_wait_that_is_given_up(share: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    """If a manager has given up a statement that waits for a lock, the server ends the statement."""
    monkeypatch.setattr(store, "_SHORTEST_PATIENCE", 0.5)
    opened = share({}, {})
    one, other = opened(lease=1.0), opened()
    (task,) = one.claim_tasks(1)
    other.session.connection().exec_driver_sql("SELECT FROM todolist WHERE priority = 1 FOR UPDATE")
    with pytest.raises(ServerUnreachableError, match="has not answered"):
        one.save_result(result_of(task))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    begun = time.monotonic()
    while other.session.connection().exec_driver_sql(waiting).scalar_one():
        assert time.monotonic() - begun < 30
        other.session.connection().exec_driver_sql("SELECT pg_stat_clear_snapshot()")
    other.session.commit()
    assert one.save_result(result_of(task)) is STATUS.OK


@pytest.mark.parametrize("name", ["claim_tasks", "save_result", "release_tasks"])
def test_a_lock_timeout_of_the_server(share: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A call that the server's `lock_timeout` ends is retried for half a lease, however often it is ended."""
    monkeypatch.setattr(retry, "_LONGEST_BACKOFF", 0.01)
    opened = share({})
    manager, other = opened(), opened()
    execute_sql(manager, "SET lock_timeout = '5ms'")
    (task,) = [{"priority": 1}] if name == "claim_tasks" else manager.claim_tasks(1)
    other.session.connection().exec_driver_sql("LOCK TABLE todolist")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 25:
            other.session.rollback()

    monkeypatch.setattr(retry.time, "sleep", pause)
    arguments = {"claim_tasks": 1, "save_result": result_of(task), "release_tasks": [1]}
    try:
        getattr(manager, name)(arguments[name])
    finally:
        other.session.rollback()
    assert len(pauses) == 25
    assert statuses(manager) == [{"claim_tasks": 6, "save_result": 1, "release_tasks": None}[name]]


def test_a_late_result_without_a_token(share: Callable[..., Opened], server_database: Engine) -> None:
    """If another manager has rescued a task, a result without a token from its first owner is refused."""
    opened = share({})
    one, other = opened(), opened()
    one.start_task(1)
    with server_database.begin() as connection:
        connection.exec_driver_sql("UPDATE photometry_tasks_workers SET seen = seen - interval '1 h' WHERE worker = 1")
    (task,) = other.claim_tasks(1)
    assert other.save_result(result_of(task)) is STATUS.OK
    late = result_of({"priority": 1}, STATUS.ERROR)
    assert [one.save_result(late), one.save_result(late)] == [None, None]
    assert one.save_results([late, late]) == [None, None]
    assert statuses(one) == [1]


def test_a_path_that_no_index_holds(share: Callable[..., Opened]) -> None:
    """A result with a light-curve path that is too long for the server is an ERROR; other results are saved."""
    opened = share({}, {}, {}, {})
    one = opened()
    chance = random.Random(1)
    paths = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz/é", k=length)) for length in (2400, 4000, 4000, 10)]
    results = [result_of(task, filepath_lightcurve=path) for task, path in zip(one.claim_tasks(4), paths, strict=True)]
    assert one.save_results(results[:2]) == [STATUS.OK, STATUS.ERROR]
    assert one.save_result(results[2]) is STATUS.ERROR
    assert one.save_result(results[3]) is STATUS.OK
    kept = ask(one, "SELECT lightcurve, errors FROM diagnostics ORDER BY priority")
    assert [path for path, _ in kept] == [paths[0], None, None, paths[3]]
    assert "light-curve path has " in kept[1][1]


# --- answers that are lost ---


class Proxy:
    """A proxy between a manager and the server, which cuts the connection instead of passing an answer on."""

    def __init__(self, engine: Engine) -> None:
        self.directory = tempfile.mkdtemp(prefix="px")
        self._target = f"{engine.url.query['host']}/.s.PGSQL.5432"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.directory}/.s.PGSQL.5432")
        self._listener.listen()
        self.url = engine.url.set(query={"host": self.directory}).render_as_string(hide_password=False)
        self.answers: int | None = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut_after(self, answers: int) -> None:
        """Pass some answers on, and cut the connection at the next answer."""
        self.answers = answers

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    with suppress(ConnectionError):
                        found = ready.recv(1 << 20)
                        if not found:
                            return
                        if ready is server and self.answers is not None:
                            self.answers -= 1
                            if self.answers < 0:
                                self.answers = None
                                return
                        (server if ready is client else client).sendall(found)

    def close(self) -> None:
        self._listener.close()
        shutil.rmtree(self.directory)


@pytest.fixture
def proxy(server_database: Engine) -> Iterator[Proxy]:
    proxy = Proxy(server_database)
    yield proxy
    proxy.close()


ROWS = [{"tmag": 5.0}, {"tmag": 9.0}, {"tmag": 7.0}, {"tmag": 8.0}]


@pytest.mark.sample(7)
@pytest.mark.parametrize("answers", range(15))
def test_an_answer_that_is_lost(server_database: Engine, proxy: Proxy, answers: int) -> None:
    """If the connection is cut after any answer within a call, the changes of the call are made once."""
    url = empty_list(server_database, ROWS)
    with TaskManager(proxy.url, reset=False) as manager:

        def cut(call: Callable[..., Any], *values: Any) -> Any:
            proxy.cut_after(answers)
            answer = call(*values)
            proxy.answers = None
            return answer

        tasks = cut(manager.claim_tasks, 2)
        assert [task["priority"] for task in tasks] == [1, 2]
        assert cut(manager.save_result, result_of(tasks[1], STATUS.WARNING)) is STATUS.WARNING
        assert cut(manager.save_result, result_of(tasks[1], STATUS.ERROR)) is None
        assert cut(manager.save_result, result_of(tasks[0], skip_targets=[103])) is STATUS.OK
        cut(manager.start_task, 4)
        assert cut(manager.save_result, result_of({"priority": 4}, STATUS.ERROR)) is STATUS.ERROR
        assert cut(manager.save_result, result_of({"priority": 3}, errors="not started")) is STATUS.SKIPPED
        assert cut(manager.save_result, result_of({"priority": 4}, errors="a second one")) is STATUS.OK
        cut(lambda: manager.reset_tasks(everything=True))
        assert manager.undo_reset() == {"OK": 2, "WARNING": 1, "SKIPPED": 1}
        cut(lambda: manager.reset_tasks(everything=True))
        assert manager.get_number_tasks() == 4
        tasks = cut(manager.claim_tasks, 4)
        assert cut(manager.save_results, list(map(result_of, tasks))) == [STATUS.OK] * 4
        cut(lambda: manager.reset_tasks(everything=True))
        tasks = cut(manager.claim_tasks, 4)
        cut(manager.release_tasks, [4])
        saved = cut(manager.save_results, [result_of(task, skip_targets=[104]) for task in tasks])
        assert saved == [STATUS.OK, STATUS.SKIPPED, STATUS.OK, None]
        cut(manager.heartbeat)
        assert manager.summary["SKIPPED"] == 2
    assert query(url, "SELECT count(*) FROM photometry_tasks_attempts WHERE ended IS NULL") == [(0,)]
    # If the answer to a claim was lost, its tasks were released and claimed again.
    ends = "SELECT priority, how FROM photometry_tasks_attempts WHERE how <> 'released' ORDER BY attempt"
    first = [(1, "OK"), (2, "WARNING"), (4, "ERROR"), (3, "SKIPPED"), (4, "OK")]
    second = [(priority, "OK") for priority in (1, 2, 3, 4)]
    assert query(url, ends) == [*first, *second, (1, "OK"), (2, "SKIPPED"), (3, "OK")]
    assert query(url, "SELECT how FROM photometry_tasks_attempts WHERE priority = 4 ORDER BY attempt")[-1] == (
        "released",
    )


def test_what_a_call_that_failed_had_done(server_database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a claim or a save failed after its commit, the next call returns its outcome."""
    url = empty_list(server_database, ROWS)
    with TaskManager(url, reset=False) as manager:
        database = manager._store._database  # type: ignore[union-attr]
        run_alone = type(database).run_alone  # type: ignore[union-attr]

        def interrupted(self: Any, *given: Any) -> Any:
            run_alone(self, *given)
            raise KeyboardInterrupt

        def call_again(call: Callable[[], Any]) -> Any:
            with monkeypatch.context() as patch:
                patch.setattr(type(database), "run_alone", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    call()
            return call()

        tasks = call_again(lambda: manager.claim_tasks(2))
        assert [task["priority"] for task in tasks] == [1, 2]
        assert call_again(lambda: manager.save_result(result_of(tasks[0]))) is STATUS.OK
        assert manager.save_result(result_of(tasks[0], STATUS.ERROR)) is None
        assert [task["priority"] for task in manager.claim_tasks(9)] == [3, 4]


def test_a_claim_after_one_that_failed(server_database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a claim that failed, the next claim returns only its own tasks, and the others are pending again."""
    url = empty_list(server_database, [{"camera": 1}, {"camera": 2}, {"camera": 1}, {"camera": 2}])
    with TaskManager(url, reset=False) as manager, TaskManager(url, reset=False) as other:

        def fail(name: str, call: Callable[..., Any], *given: Any, **named: Any) -> None:
            owner = type(manager._store._database)  # type: ignore[union-attr]
            method = getattr(owner, name)

            def interrupted(self: Any, *values: Any) -> Any:
                method(self, *values)
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(owner, name, interrupted)
                with pytest.raises(KeyboardInterrupt):
                    call(*given, **named)

        fail("run_alone", manager.claim_tasks, 2, camera=1)
        fail("_commit", manager.start_task, 4)
        assert statuses(other) == [6, None, 6, 6]
        assert [task["priority"] for task in manager.claim_tasks(1, camera=2)] == [2]
        assert [task["priority"] for task in other.claim_tasks(9)] == [1, 3, 4]


def test_a_worker_that_was_given_up_and_starts_again(share: Callable[..., Opened]) -> None:
    """A worker whose lease had expired gets a new lease from a start or a save, and loses its tasks when it expires."""
    opened = share({}, {}, {}, {})
    one, other = opened(), opened()
    silence = "UPDATE photometry_tasks_workers SET seen = seen - interval '700 s' WHERE worker = 1"
    (task,) = one.claim_tasks(1)
    execute_sql(other, silence)
    assert [found["priority"] for found in other.claim_tasks(1)] == [1]
    one.start_task(2)
    assert other.claim_tasks(9, priority=2) == []
    execute_sql(other, silence)
    assert [found["priority"] for found in other.claim_tasks(9, priority=2)] == [2]
    (task,) = one.claim_tasks(1)
    execute_sql(other, silence)
    assert one.save_result(result_of(task, skip_targets=[9])) is STATUS.OK
    assert [found["priority"] for found in one.claim_tasks(1)] == [4]
    assert other.claim_tasks(9) == []


def test_what_was_done_while_a_reset_waited(share: Callable[..., Opened], server_database: Engine) -> None:
    """A reset that has waited for a lock uses the status at that time."""
    opened = share({"status": 2}, {"status": 2})
    one = opened()
    url = server_database.url.render_as_string(hide_password=False)
    holder = server_database.connect()
    holder.exec_driver_sql("SELECT * FROM todolist WHERE priority = 1 FOR UPDATE")
    waiting: list[Any] = []

    def reset() -> None:
        with TaskManager(url) as third:
            waiting.append(statuses(third))

    thread = threading.Thread(target=reset)
    thread.start()
    waiting_for = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'lists'"
    wait_until(lambda: query(url, waiting_for))
    one.reset_tasks(priority=2)
    (task,) = one.claim_tasks(1)
    assert one.save_result(result_of(task)) is STATUS.OK
    holder.rollback()
    holder.close()
    thread.join()
    assert waiting == [[None, 1]]


def test_a_session_whose_connection_is_lost(share: Callable[..., Opened]) -> None:
    """If the connection of a session is lost, one call raises, since uncommitted changes are lost; later calls work."""
    opened = share({}, {})
    one, other = opened(), opened()
    for sql in ("SELECT 1", "UPDATE todolist SET tmag = 3"):
        one.session.connection().exec_driver_sql(sql)
        ((pid,),) = one.session.connection().exec_driver_sql("SELECT pg_backend_pid()")
        ask(other, f"SELECT pg_terminate_backend({pid}, 10000)")
        with pytest.raises(ServerError):
            one.get_task()
        assert one.get_task() is not None
        one.session.commit()
    assert ask(one, "SELECT DISTINCT tmag FROM todolist") == [(10.0,)]


def test_a_server_that_is_gone(server_database: Engine, tmp_path: Path) -> None:
    """Opening a list on a server that cannot be reached raises at once, with the reason."""
    url = server_database.url.set(query={"host": str(tmp_path)}).render_as_string(hide_password=False)
    with pytest.raises(ServerError, match="No such file or directory"):
        TaskManager(url)


def test_a_server_that_is_full(
    postgresql: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the server refuses more connections, opening a list is retried until it accepts the connection."""
    with owned_databases(postgresql, "guest", "crowded") as url:
        make_list(create_engine(url, poolclass=NullPool), [{}])
        with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ALTER ROLE guest CONNECTION LIMIT 1"))
        first = TaskManager(url)
        with pytest.raises(ServerError, match="too many connections"):
            get_status(url)  # a reader does not retry
        monkeypatch.setattr("time.sleep", lambda _: first.close())
        with TaskManager(url, reset=False) as second:
            assert second.claim_tasks(1)
        assert "too many connections" in caplog.text
