"""Eight managers that work through a list on a server while a test disturbs them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from multiprocessing.connection import Connection, wait

import psycopg

from photometry_tasks import STATUS, TaskManager
from tests.support.lists import query, result_of
from tests.support.processes import received, running

Accepted = list[tuple[int, int, STATUS | None]]


def work(connection: Connection, url: str, batch: int) -> None:
    """Claim tasks and save results until no task is left, and send the accepted results."""
    found: Accepted = []
    with TaskManager(url, reset=False, summary_interval=None) as manager:
        connection.send(None)
        connection.recv()
        while tasks := manager.claim_tasks(batch):
            results = [result_of(task) for task in tasks]
            saved = manager.save_results(results) if batch > 1 else [manager.save_result(results[0])]
            found += [(t["priority"], t["attempt"], status) for t, status in zip(tasks, saved, strict=True)]
    connection.send(found)


def run_workers(url: str, batches: Sequence[int], disturb: Callable[[], bool]) -> Accepted:
    """Run eight workers to the end while `disturb` is called, and return the outcomes that they received.

    The sizes of the batches go to the workers in turn.
    """
    with ExitStack() as stack:
        connections = [stack.enter_context(running(work, url, batch))[1] for batch in islice(cycle(batches), 8)]
        for connection in connections:
            assert connection.recv() is None
        for connection in connections:
            connection.send("all are there")
        while disturb() and not wait(connections, timeout=0):
            pass
        found = [list(received(connection)) for connection in connections]
    assert all(found), "a worker has failed"
    return [entry for (entries,) in found for entry in entries]


def check_each_once(url: str, number: int, outcomes: Accepted) -> None:
    """Check that each task has one accepted result, whose outcome a worker received, and no live attempt."""
    accepted = sorted(priority for priority, _, status in outcomes if status is not None)
    assert accepted == list(range(1, number + 1))
    assert query(url, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(1, number)]
    assert query(url, "SELECT count(*) FROM diagnostics") == [(number,)]
    attempts = "SELECT how, count(*), count(DISTINCT priority) FROM photometry_tasks_attempts GROUP BY 1"
    ended = {how: counts for how, *counts in query(url, attempts)}
    assert ended.pop("OK") == [number, number]
    assert set(ended) <= {"lost", "released"}
    stored = "SELECT priority, attempt FROM photometry_tasks_attempts WHERE how = 'OK'"
    saved = {(priority, attempt) for priority, attempt, status in outcomes if status is not None}
    assert saved == set(query(url, stored))


class Disturbance:
    """An action that is repeated `times` times, evenly over a run."""

    def __init__(self, url: str, number: int, times: int, act: Callable[[], object]) -> None:
        self._url = url.replace("+psycopg", "", 1)
        self._marks = [number * (k + 1) // (times + 2) for k in range(times)]
        self._act = act
        self.times = times

    def __call__(self) -> bool:
        with psycopg.connect(self._url, autocommit=True, application_name="test") as connection:
            sql = "SELECT count(*) FROM todolist WHERE status IS NOT NULL"
            while self._marks:
                ((done,),) = connection.execute(sql).fetchall()
                if done >= self._marks[0]:
                    self._marks.pop(0)
                    self._act()
                    return bool(self._marks)
        return False
