"""Promise 5: whatever exception interrupts a call, at whatever line, the next call works, and no result is lost."""

import gc
import itertools
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import state_changes

import photometry_tasks
from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidResultError
from photometry_tasks.models import Task
from tests.support.lists import query, result_of
from tests.support.paths import ROOT

IN_MEMORY = pytest.mark.parametrize("in_memory", [False, True])

#: The code that is interrupted, without a file that has lines between which no signal can arrive.
PACKAGES = tuple(str(Path(str(module.__file__)).parent) for module in (photometry_tasks, sqlalchemy))
SAFE = state_changes.__file__


class TimeOutError(Exception):
    """An exception that a caller's signal handler raises."""


def write_through_session(manager: TaskManager) -> None:
    try:
        manager.session.execute(update(Task).where(Task.priority == 3).values(tmag=7.5))
        manager.session.commit()
    except BaseException:
        with suppress(SQLAlchemyError):  # if the commit was complete
            manager.session.rollback()
        raise


CALLS: dict[str, Callable[[TaskManager], Any]] = {
    "get_task": lambda tm: tm.get_task(starid=[101, 103, 104]),
    "get_tasks": lambda tm: tm.get_tasks(2, camera=1),
    "get_random_task": lambda tm: tm.get_random_task(starid=[101, 103, 104]),
    "get_number_tasks": lambda tm: tm.get_number_tasks(camera=1),
    "claim_tasks": lambda tm: tm.claim_tasks(2),
    "start_tasks": lambda tm: tm.start_tasks([2, 3]),
    "release_tasks": lambda tm: tm.release_tasks([1]),
    "save_result": lambda tm: tm.save_result(result_of({"priority": 1}, skip_targets=[102])),
    "save_results": lambda tm: tm.save_results([result_of({"priority": 1}), result_of({"priority": 2})]),
    "reset_tasks": lambda tm: tm.reset_tasks(status=STATUS.STARTED),
    "summary": lambda tm: tm.summary,
    "write_summary": lambda tm: tm.write_summary(),
    "backup": lambda tm: tm.backup(),
    "reading through session": lambda tm: tm.session.execute(select(Task)).all(),
    "writing through session": write_through_session,
}

#: What the caller's session holds when the call begins.
HELD: list[Callable[[TaskManager], Any]] = [
    lambda _tm: None,
    lambda tm: tm.session.execute(select(Task)).fetchone(),
    lambda tm: tm.session.scalars(select(Task)).all(),
]

KINDS = [KeyboardInterrupt, TimeOutError]
CASES = list(itertools.product(HELD, KINDS))


def interrupt(call: Callable[[], Any], step: int, error: BaseException) -> tuple[BaseException | None, str | None, int]:
    """Raise an error before a line of a call, whose lines in the package and in SQLAlchemy are counted from 0.

    Returns
    -------
    tuple
        The exception of the call, the interrupted line, and the number of lines that were run.
    """
    number, place, escaped, report = 0, None, None, sys.unraisablehook

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal number, place
        if not frame.f_code.co_filename.startswith(PACKAGES) or frame.f_code.co_filename == SAFE:
            return None
        if event == "line":
            number += 1
            if number > step and place is None:
                place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise error
        return trace

    def ignore(unraisable: Any) -> None:
        nonlocal escaped
        escaped = unraisable.exc_value  # Python ignores exceptions in finalizers

    gc.disable()  # no finalizer of another test shall be interrupted
    sys.unraisablehook = ignore
    sys.settrace(trace)
    try:
        # In a generator: otherwise Python may keep an exception as handled, if another one was raised in its handler.
        next(call() for _ in range(1))
    except BaseException as found:
        escaped = found
    finally:
        sys.settrace(None)
        sys.unraisablehook = report
        gc.enable()
    return escaped, place, number


def choose_steps(call: Callable[[], Any], stride: int | None) -> list[int]:
    """Return a few lines of a call, or with a stride each so many'th, from a random one on."""
    chance = random.Random(1)
    _, _, number = interrupt(call, sys.maxsize, TimeOutError())
    if stride is None:
        return [chance.randrange(number) for _ in range(2)]
    return list(range(chance.randrange(stride), number, stride))


def check_exception(found: BaseException | None, error: BaseException, place: str | None) -> None:
    """Check that an interrupted call raised the exception that interrupted it, or was complete."""
    if isinstance(found, InvalidResultError):
        assert repr(error) in str(found)  # the conversion of a value may raise any exception
    elif found is None:
        assert place is None or isinstance(error, Exception), f"Ctrl-C was lost at {place}"
    else:
        assert found is error, place


def check_manager(manager: TaskManager) -> None:
    """Check that calls work, that the counts are the table's, and that the accepted results are in the table."""
    assert manager.save_result(result_of({"priority": 9})) is STATUS.OK
    rows = manager.session.execute(select(Task.priority, Task.status).order_by(Task.priority))
    statuses = {row.priority: row.status for row in rows}
    pending = [priority for priority, status in statuses.items() if status is None]
    assert [task["priority"] for task in manager.get_tasks(99)] == pending
    task = manager.get_task(starid=[101, 103, 104])
    assert (task and task["priority"]) == next((p for p in pending if p in (1, 3, 4)), None)
    counts = {status.name: list(statuses.values()).count(status.value) for status in STATUS}
    assert {name: manager.summary[name] for name in counts} == counts
    check_results(statuses)


def check_results(statuses: dict[int, int | None]) -> None:
    assert (statuses[9], statuses[12]) == (STATUS.OK.value, STATUS.WARNING.value)


@pytest.mark.both_databases
@IN_MEMORY
@pytest.mark.parametrize("stride", [None, pytest.param(23, marks=pytest.mark.slow)])
def test_an_exception_before_any_line(
    todo: Callable[..., Any], tmp_path: Path, in_memory: bool, stride: int | None
) -> None:
    """After an exception before any line of a call, this exception escapes, and the next calls work."""
    target = todo(*[{"tmag": float(n)} for n in range(12)])
    with TaskManager(target, load_into_memory=in_memory, durability="full", summary=tmp_path / "summary") as manager:
        manager.save_result(result_of({"priority": 12}, STATUS.WARNING))
        cases = itertools.cycle(CASES)
        for name in CALLS:
            call = partial(CALLS[name], manager)
            for step in choose_steps(call, stride):
                hold, kind = next(cases)
                manager.release_tasks(range(1, 12))
                manager.reset_tasks(priority=range(1, 12))
                manager.start_task(1)
                held = hold(manager)
                error = kind()
                found, place, _ = interrupt(call, step, error)
                if "session" not in name:  # SQLAlchemy decides what its own methods raise
                    check_exception(found, error, place)
                check_manager(manager)
                del held
                if isinstance(target, Path) and not in_memory:
                    assert tuple(manager.conn.execute("PRAGMA synchronous").fetchone()) == (2,)  # FULL
    check_results(dict(query(target, "SELECT priority, status FROM todolist")))


# At the end of a `with` block Python may raise before it closes the file: its finalizer closes it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
@IN_MEMORY
@pytest.mark.parametrize("stride", [None, pytest.param(5, marks=pytest.mark.slow)])
def test_an_exception_in_opening_or_closing(todo: Callable[..., Path], in_memory: bool, stride: int | None) -> None:
    """After an exception at any line of opening, the file can be opened; of closing, it can be closed."""
    path = todo(*[{} for _ in range(12)])

    def start() -> TaskManager:
        return TaskManager(path, load_into_memory=in_memory, summary=path.with_name("summary"))

    with start() as manager:
        manager.save_result(result_of({"priority": 12}, STATUS.WARNING))
    for step, kind in zip(choose_steps(lambda: start().close(), stride), itertools.cycle(KINDS)):
        error, opened = kind(), []
        found, place, _ = interrupt(lambda: opened.append(start()), step, error)  # noqa: B023 - called at once
        check_exception(found, error, place)
        del found, error
        gc.collect()  # the frames of the exception hold what opening took
        manager = opened[0] if opened else start()
        assert manager.save_result(result_of({"priority": 9})) is STATUS.OK
        list(map(manager.session.refresh, manager.session.scalars(select(Task))))
        error = kind()
        found, place, _ = interrupt(manager.close, step, error)
        check_exception(found, error, place)
        manager.close()
        check_results(dict(query(path, "SELECT priority, status FROM todolist")))
        left = {other.name for other in path.parent.iterdir()} - {path.name, "summary"}
        assert all(name.startswith(".photometry_tasks-") for name in left), place  # the next opening deletes these
        with start() as manager:
            manager.reset_tasks(priority=9)
        assert {other.name for other in path.parent.iterdir()} == {path.name, "summary"}


SIGNALS = """
import random, signal, sys, time
from sqlalchemy import select
from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidResultError
from photometry_tasks.models import Task
from tests.support.lists import result_of

class TimeOutError(Exception):
    pass

def interrupt(*_):
    raise chance.choice([KeyboardInterrupt, TimeOutError])

target, in_memory, seed, number = sys.argv[1:]
signal.signal(signal.SIGALRM, interrupt)
chance = random.Random(int(seed))
accepted, interrupted = [], 0

def do_three(first):
    for priority in range(first, first + 3):
        manager.get_task(camera=1, tmag_max=90)
        manager.save_result(result_of({"priority": priority}, skip_targets=[1]))
        accepted.append(priority)
        manager.get_number_tasks()

with TaskManager(target, load_into_memory=in_memory == "True") as manager:
    times = []
    for first in (1, 4, 7, 10, 13):
        begun = time.perf_counter()
        do_three(first)
        times.append(time.perf_counter() - begun)
    usual = min(times)  # the others had to wait for the machine
    for first in range(16, int(number), 3):
        held = manager.session.execute(select(Task.priority)).fetchone() if first % 2 else None
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 1.5 * usual))
            do_three(first)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except (KeyboardInterrupt, TimeOutError, InvalidResultError) as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if isinstance(error, InvalidResultError) and "TimeOutError" not in str(error):
                raise
            interrupted += 1
    assert manager.summary["OK"] >= len(accepted)
print(interrupted, *accepted)
"""


@pytest.mark.both_databases
@IN_MEMORY
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_an_exception_at_any_moment(todo: Callable[..., Any], in_memory: bool, seed: int) -> None:
    """A manager that signals interrupt at random moments continues, and its accepted results are stored."""
    target = todo(*[{} for _ in range(602)])
    number = "300" if isinstance(target, Path) else "200"
    command = [sys.executable, "-c", SIGNALS, str(target), str(in_memory), str(seed), number]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr  # Python itself reports an exception that it ignores
    interrupted, *accepted = map(int, run.stdout.split())
    assert interrupted > 10
    assert len(accepted) > 15  # some after an interruption too
    stored = dict(query(target, "SELECT priority, status FROM todolist"))
    assert {stored[priority] for priority in accepted} == {STATUS.OK.value}
