"""Promises 1 and 2: in every mode, acknowledged results survive a kill at any moment, and the file is undamaged."""

import inspect
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from photometry_tasks import TaskManager
from photometry_tasks.storage.sqlite import opening, paths, result_log, working_copy
from tests.support.lists import make_file, query, result_of
from tests.support.processes import kill, received, running

MODES = {
    "disk": {},
    "disk, full": {"durability": "full"},
    "memory": {"load_into_memory": True, "backup_interval": None},
    "memory, backups": {"load_into_memory": True, "backup_interval": 5},
    "memory, full": {"load_into_memory": True, "backup_interval": 50, "durability": "full"},
}


def measure(connection: Connection, path: Path, mode: str) -> None:
    """Save one result after the other, and send each acknowledged result to the test."""
    with TaskManager(path, **MODES[mode]) as manager:  # type: ignore[arg-type]
        while (task := manager.get_task()) is not None:
            manager.start_task(task["priority"])
            skipped = [task["starid"] + 1] if task["priority"] % 5 == 0 else []
            status = manager.save_result(result_of(task, mean_flux=task["priority"] / 7, skip_targets=skipped))
            connection.send((task["priority"], status.value))


def check(path: Path, acknowledged: dict[int, int], mode: str) -> None:
    """Open the file of a killed manager, and check that it has all acknowledged results, each with one attempt."""
    TaskManager(path, **MODES[mode]).close()  # type: ignore[arg-type]
    rows = query(path, "SELECT t.priority, status, mean_flux FROM todolist AS t JOIN diagnostics USING (priority)")
    stored = {priority: status for priority, status, _ in rows}
    lost = {priority: status for priority, status in acknowledged.items() if stored.get(priority) != status}
    assert lost == {}
    ended = "SELECT priority, count(*) FROM photometry_tasks_attempts WHERE how NOT IN ('lost', 'released') GROUP BY 1"
    assert dict(query(path, ended)) == dict.fromkeys(stored, 1)
    assert query(path, "SELECT count(*) FROM photometry_tasks_workers WHERE ended IS NULL") == [(0,)]
    assert all(flux == priority / 7 for priority, _, flux in rows)
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA foreign_key_check") == []
    assert query(path, "SELECT count(*) FROM todolist WHERE status = 6") == [(0,)]
    skipped = query(path, "SELECT count(*), count(DISTINCT priority) FROM photometry_skipped")
    assert skipped == [query(path, "SELECT count(*), count(*) FROM todolist WHERE status = 5")[0]]
    assert sorted(path.parent.iterdir()) == [path]


def sweep(folder: Path, kills: int, seed: int) -> None:
    """Kill managers at random moments, one after the other on the same file, and check the file after each kill."""
    chance = random.Random(seed)
    modes = itertools.cycle(MODES)
    for number in range(kills):
        if number % 20 == 0:
            path = make_file(folder / f"{number}" / "todo.sqlite", [{"tmag": 5 + n / 1000} for n in range(3000)])
            acknowledged: dict[int, int] = {}
        mode = next(modes)
        with running(measure, path, mode) as (process, connection):
            wanted = chance.randrange(60)
            for priority, status in itertools.islice(received(connection), wanted):
                acknowledged[priority] = status
            moment = time.perf_counter() + chance.random() * 0.02
            while time.perf_counter() < moment:
                pass
            kill(process)
            acknowledged.update(received(connection))
        check(path, acknowledged, chance.choice(list(MODES)))
    assert acknowledged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(0, 400, 20):
        (tmp_path / f"{number}").mkdir()
    return tmp_path


def test_kills(folder: Path) -> None:
    """Of 20 managers, four in each mode, that are killed at random moments, no acknowledged result is lost."""
    sweep(folder, 20, seed=random.randrange(10**6))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_kills(folder: Path, seed: int) -> None:
    """Of 400 killed managers, no acknowledged result is lost."""
    sweep(folder, 100, seed)


# --- at each step ---

STEPS = [inspect.getsourcefile(module) for module in (opening, result_log, paths, working_copy)]


@contextmanager
def dying_at(step: int) -> Iterator[None]:
    """Kill this process before the line with number `step` in the modules that write and replace files."""
    lines = itertools.count()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in STEPS:
            return None
        if event == "line" and next(lines) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def back_up(connection: Connection, path: Path, step: int) -> None:
    with TaskManager(path, load_into_memory=True) as manager:
        for priority in (1, 2):
            manager.save_result(result_of({"priority": priority}, mean_flux=priority / 7))
            connection.send((priority, 1))
        with dying_at(step):
            manager.backup()
            manager.save_result(result_of({"priority": 3}, mean_flux=3 / 7))
            connection.send((3, 1))
    connection.send("closed")


def reopen(connection: Connection, path: Path, step: int, mode: str) -> None:
    with dying_at(step):
        manager = TaskManager(path, **MODES[mode])  # type: ignore[arg-type]
    manager.close()
    connection.send("closed")


def every_step(path: Path, function: Callable[..., None], stride: int, *arguments: Any) -> Iterator[list[Any]]:
    """Kill a process at one step after the other, each time with the same files, until the process ends by itself."""
    before = {other: other.read_bytes() for other in path.parent.iterdir()}
    sent: list[Any] = []
    for step in itertools.count(random.randrange(stride), stride):
        with running(function, path, step, *arguments) as (_, connection):
            sent = list(received(connection))
        yield [answer for answer in sent if answer != "closed"]
        if "closed" in sent:
            assert step > 60
            return
        for other in path.parent.iterdir():
            other.unlink()
        for other, content in before.items():
            other.write_bytes(content)


STRIDE = pytest.mark.parametrize("stride", [40, pytest.param(1, marks=pytest.mark.slow)])


@STRIDE
def test_a_kill_at_each_step_of_a_backup(todo: Callable[..., Path], stride: int) -> None:
    """After a kill before any line of a backup, all acknowledged results are stored, and no leftover file remains."""
    path = todo({}, {}, {}, {})
    for acknowledged in every_step(path, back_up, stride):
        assert len(acknowledged) >= 2
        check(path, dict(acknowledged), random.choice(list(MODES)))


@STRIDE
@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_a_kill_at_each_step_of_an_opening(todo: Callable[..., Path], mode: str, stride: int) -> None:
    """After a kill before any line of an opening that replays a log, its results are stored exactly once."""
    path = todo({}, {}, {}, {})
    with running(back_up, path, 0) as (_, connection):
        acknowledged = dict(received(connection))
    assert path.with_name("todo.sqlite-results").stat().st_size > 0
    for _ in every_step(path, reopen, stride, mode):
        check(path, acknowledged, random.choice(list(MODES)))
