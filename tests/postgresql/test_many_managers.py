"""Contract 12.7: many workers on one server, which are killed or stopped, and lose their connections."""

import os
import random
import signal
import subprocess
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.cli.main import main
from photometry_tasks.ingest import add_target_lists
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.storage.postgresql import database
from tests.support.commands import COMMAND
from tests.support.lists import empty_list, query, result_of
from tests.support.managers import Disturbance, check_each_once, run_workers
from tests.support.paths import ROOT
from tests.support.processes import received, running, running_command, wait_until
from tests.support.servers import Server

BATCHES = pytest.mark.parametrize("batch", [1, 50])
NUMBERS = pytest.mark.parametrize("number", [120, pytest.param(20_000, marks=pytest.mark.slow)])


@BATCHES
@NUMBERS
def test_each_task_once(server: Server, number: int, batch: int) -> None:
    """If eight workers claim and save, each task is claimed once, and has one accepted result."""
    url = empty_list(server.engine, [{} for _ in range(number)])
    outcomes = run_workers(url, [batch], lambda: False)
    check_each_once(url, number, outcomes)
    assert query(url, "SELECT count(*) FROM photometry_tasks_attempts") == [(number,)]
    workers = query(url, "SELECT count(DISTINCT worker) FROM photometry_tasks_attempts")
    assert workers > [(1,)] or batch > 1  # the first worker may get all six batches


@pytest.mark.sample(3)
@BATCHES
@NUMBERS
def test_connections_that_are_cut(server: Server, number: int, batch: int) -> None:
    """While the server cuts connections 175 times, no result is lost or accepted twice."""
    number *= 1 if batch == 1 or number > 120 else 10
    url = empty_list(server.engine, [{} for _ in range(number)])
    cut: list[int] = []

    def act() -> None:
        sql = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'photometry_tasks' AND datname = current_database() ORDER BY random() LIMIT 5"
        )
        cut.append(len(query(url, sql)))

    outcomes = run_workers(url, [batch], Disturbance(url, number, 60, act))
    check_each_once(url, number, outcomes)
    assert sum(cut) >= (175 if number == 20_000 else 1)


@pytest.mark.sample(3)
@BATCHES
@NUMBERS
def test_a_server_that_crashes(server: Server, number: int, batch: int) -> None:
    """While the server crashes five times, no result is lost or accepted twice."""
    number *= 1 if batch == 1 or number > 120 else 10
    url = empty_list(server.engine, [{} for _ in range(number)])
    times: list[None] = []

    def act() -> None:
        server.restart()
        times.append(None)

    outcomes = run_workers(url, [batch], Disturbance(url, number, 5, act))
    check_each_once(url, number, outcomes)
    assert len(times) >= (5 if number == 20_000 else 1)


# --- transactions of other programs ---


def test_a_prepared_transaction(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` names a prepared transaction, which has no session."""
    url = empty_list(server.engine, [{}])
    monkeypatch.setattr(database, "_LONG_TRANSACTION", 0.0)
    plain = url.replace("+psycopg", "", 1)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_prepared_transactions = 1")
    server.restart()
    with psycopg.connect(plain, autocommit=True) as connection:
        for sql in ("BEGIN", "UPDATE todolist SET tmag = 3", "PREPARE TRANSACTION 'of the DBA'"):
            connection.execute(sql)
        found = get_status(url)["oldest_transaction"]
        shown = CliRunner().invoke(main, ["status", url], env={"COLUMNS": "200"}).output
        connection.execute("ROLLBACK PREPARED 'of the DBA'")
    assert get_status(url)["oldest_transaction"] is None
    assert (found["pid"], found["application_name"]) == (None, "prepared transaction of the DBA")
    assert "Oldest open transaction: prepared transaction of the DBA, for 0:00:0" in shown


# --- a crowded field ---


def work_in_a_crowd(connection: Connection, url: str, batch: int, seed: int) -> None:
    """Claim tasks and save results whose apertures hold the next stars, so that neighbours cover each other at once."""
    chance = random.Random(seed)
    with TaskManager(url, reset=False, summary_interval=None) as manager:
        connection.send(None)
        while tasks := manager.claim_tasks(batch):
            chance.shuffle(tasks)
            results = []
            for task in tasks:
                star = task["starid"]
                listed = [star + step for step in (-2, -1, 0, 1, 2)] if chance.random() < 0.7 else []
                results.append(result_of(task, chance.choice([STATUS.OK, STATUS.ERROR]), skip_targets=listed))
            manager.save_results(results)
            if chance.random() < 0.2:  # again, which returns the skipped tasks to pending
                manager.save_results([{**result, "attempt": None} for result in results])
    connection.send("done")


@pytest.mark.sample(2)
@pytest.mark.parametrize("batch", [1, 10])
def test_a_crowded_field(server: Server, batch: int) -> None:
    """If eight workers save results with common neighbours at once, the list is as after saves in some order."""
    chance = random.Random(batch)
    number = 240
    rows = [
        {"priority": p, "starid": 1000 + s, "tmag": chance.choice([5.0, 6.0, 7.0, None])}
        for p, s in enumerate(chance.sample(range(number), number), start=1)
    ]
    url = empty_list(server.engine, rows)
    with ExitStack() as stack:
        connections = [stack.enter_context(running(work_in_a_crowd, url, batch, seed))[1] for seed in range(8)]
        answers = [list(received(connection)) for connection in connections]
    assert answers == [[None, "done"]] * 8
    skips = query(url, "SELECT priority, skipped_by FROM photometry_skipped")
    assert len(set(skips)) == len(skips)
    status = dict(query(url, "SELECT priority, status FROM todolist"))
    brightness = {row["priority"]: (row["tmag"] is None, row["tmag"] or 0.0, row["priority"]) for row in rows}
    assert all(status[rival] == STATUS.SKIPPED.value and brightness[by] < brightness[rival] for rival, by in skips)
    assert {rival for rival, _ in skips} == {p for p, value in status.items() if value == STATUS.SKIPPED.value}
    assert query(url, "SELECT count(*) FROM photometry_tasks_attempts WHERE ended IS NULL") == [(0,)]
    assert STATUS.STARTED.value not in status.values()
    measured = {priority for (priority,) in query(url, "SELECT priority FROM diagnostics")}
    assert {p for p, value in status.items() if value in (STATUS.OK.value, STATUS.ERROR.value)} <= measured
    assert not {p for p, value in status.items() if value is None} & measured
    assert skips


# --- workers that die or sleep ---


def hold(connection: Connection, url: str, lease: float) -> None:
    """Claim three tasks, and save their results when the test sends a message."""
    with TaskManager(url, reset=False, lease=lease) as manager:
        tasks = manager.claim_tasks(3)
        connection.send([task["priority"] for task in tasks])
        connection.recv()
        connection.send(manager.save_results([result_of(task) for task in tasks]))
        connection.send([task["priority"] for task in manager.claim_tasks(3)])
        connection.recv()


def pass_time(engine: Engine, worker: int, seconds: float) -> None:
    """Set a worker's last heartbeat back by some seconds."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE photometry_tasks_workers SET seen = seen - interval '{seconds} s' WHERE worker = {worker}"
        )


def test_a_worker_that_is_killed(server: Server) -> None:
    """After the lease of a killed worker has expired, and not before, the next claim gets its tasks first."""
    url = empty_list(server.engine, [{} for _ in range(6)])
    with ExitStack() as stack:
        process, connection = stack.enter_context(running(hold, url, 100.0))
        assert connection.recv() == [1, 2, 3]
        manager = stack.enter_context(TaskManager(url, reset=False))
        process.kill()
        pass_time(server.engine, 1, 90)
        assert [task["priority"] for task in manager.claim_tasks(1)] == [4]
        pass_time(server.engine, 1, 20)
        assert [task["priority"] for task in manager.claim_tasks(2)] == [1, 2]
        assert query(url, "SELECT priority, how FROM photometry_tasks_attempts WHERE worker = 1 ORDER BY 1") == [
            (1, "lost"),
            (2, "lost"),
            (3, "lost"),
        ]


def test_a_worker_that_slept(server: Server) -> None:
    """If the tasks of a stopped worker were rescued, its late results are refused, and it continues."""
    url = empty_list(server.engine, [{} for _ in range(9)])
    with ExitStack() as stack:
        process, connection = stack.enter_context(running(hold, url, 100.0))
        assert connection.recv() == [1, 2, 3]
        manager = stack.enter_context(TaskManager(url, reset=False))
        os.kill(process.pid or 0, signal.SIGSTOP)
        pass_time(server.engine, 1, 101)
        tasks = manager.claim_tasks(2)
        assert [task["priority"] for task in tasks] == [1, 2]
        assert manager.save_result(result_of(tasks[0])) is STATUS.OK
        os.kill(process.pid or 0, signal.SIGCONT)
        connection.send(None)
        assert connection.recv() == [None, None, None]
        assert connection.recv() == [3, 4, 5]
        assert manager.save_result(result_of(tasks[1])) is STATUS.OK
        assert query(url, "SELECT count(*) FROM diagnostics") == [(2,)]
        connection.send(None)


def test_a_worker_that_slept_and_nobody_minded(server: Server) -> None:
    """If no manager has rescued its tasks, the results of a worker whose lease has expired are accepted."""
    url = empty_list(server.engine, [{}, {}, {}])
    with running(hold, url, 1.0) as (_, connection):
        assert connection.recv() == [1, 2, 3]
        pass_time(server.engine, 1, 100)
        connection.send(None)
        assert connection.recv() == [STATUS.OK] * 3
        connection.send(None)


def test_a_heartbeat_keeps_the_tasks(server: Server) -> None:
    """A worker that sends heartbeats keeps its tasks, for any run time."""
    url = empty_list(server.engine, [{}, {}])
    with TaskManager(url, lease=100) as one, TaskManager(url, reset=False) as other:
        assert [task["priority"] for task in one.claim_tasks(1)] == [1]
        for _ in range(3):
            pass_time(server.engine, 1, 90)
            one.heartbeat()
        other.claim_tasks(1)
        assert other.claim_tasks(1) == []
        pass_time(server.engine, 1, 101)
        assert [task["priority"] for task in other.claim_tasks(1)] == [1]


def test_a_task_whose_workers_die(server: Server) -> None:
    """After three lost workers in a row, a task is an ERROR with the reason; released attempts do not count."""
    url = empty_list(server.engine, [{}])
    with ExitStack() as stack, TaskManager(url, reset=False) as last:
        for number in (2, 3, 4):
            manager = stack.enter_context(TaskManager(url, reset=False))
            assert manager.claim_tasks(1)
            manager.release_tasks([1])
            assert manager.claim_tasks(1)
            pass_time(server.engine, number, 700)
            if number < 4:
                assert last.get_task() is not None
        assert last.claim_tasks(1) == []
        assert last.summary["ERROR"] == 1
        ((text,),) = query(url, "SELECT errors FROM diagnostics")
        assert "Worker 4 (" in text
        assert "3 attempts in a row" in text
        ends = query(url, "SELECT how FROM photometry_tasks_attempts ORDER BY attempt")
        assert ends == [("released",), ("lost",), ("released",), ("lost",), ("released",), ("given up",)]
    with TaskManager(url) as again:  # opening returns the ERROR to pending, with three new attempts
        assert again.claim_tasks(1)
        pass_time(server.engine, again._store.worker, 700)  # type: ignore[union-attr]
        with TaskManager(url, reset=False) as other:
            assert other.claim_tasks(1)


def test_work(server: Server) -> None:
    """Four `work` processes, one of them killed and one stopped, finish a list."""
    run_work(empty_list(server.engine, [{} for _ in range(120)]), 120)


@pytest.mark.slow
def test_work_on_a_real_sector(server: Server, target_lists: dict[int, Path]) -> None:
    """Four `work` processes, one of them killed and one stopped, finish a real sector."""
    url = empty_list(server.engine, [])
    added, _ = add_target_lists(url, [target_lists[1]])
    run_work(url, added)


def run_work(url: str, number: int) -> None:
    command = [COMMAND, "work", url, "tests.support.functions:takes_ten_milliseconds", "--jobs", "1", "--lease", "3"]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running_command(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)) for _ in range(4)
        ]
        holding = "SELECT pid FROM photometry_tasks_attempts JOIN photometry_tasks_workers USING (worker) WHERE {}"
        victims: set[int] = set()

        def has_each_a_task() -> bool:
            victims.update(pid for (pid,) in query(url, holding.format("true")))
            return len(victims) == 4

        wait_until(has_each_a_task, *processes)
        processes[0].kill()
        live = f"how IS NULL AND pid = {processes[1].pid}"
        processes[1].send_signal(signal.SIGSTOP)

        def is_stopped_within_a_task() -> bool:
            if query(url, holding.format(live)):
                return True
            processes[1].send_signal(signal.SIGCONT)
            processes[1].send_signal(signal.SIGSTOP)
            return False

        wait_until(is_stopped_within_a_task, processes[1])
        outputs = [process.communicate(timeout=600)[0] for process in processes[2:]]
        assert [process.returncode for process in processes[2:]] == [0, 0]
        assert all("0 tasks pending." in output for output in outputs)
        assert query(url, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(1, number)]
        processes[1].send_signal(signal.SIGCONT)
        output = processes[1].communicate(timeout=60)[0]
        assert "refused, because other managers have the tasks" in output
        assert processes[1].returncode == 0
    accepted = "SELECT count(*), count(DISTINCT priority) FROM photometry_tasks_attempts WHERE how = 'OK'"
    assert query(url, accepted) == [(number, number)]
    assert query(url, "SELECT count(*) FROM diagnostics") == [(number,)]
