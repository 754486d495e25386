"""Contract 5: getting, counting and starting tasks."""

import contextlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from photometry_tasks import STATUS, TaskManager, build_constraints
from photometry_tasks.errors import CannotUndoError, TaskFinishedError, TodoError, UnknownTaskError
from photometry_tasks.models import Task
from tests.support.lists import ask, make_file, result_of

pytestmark = pytest.mark.both_databases

KEYS = ["priority", "starid", "method", "sector", "camera", "ccd", "cadence", "datasource", "tmag"]


def test_a_task_is_a_plain_dict(opened: Callable[..., TaskManager]) -> None:
    """A task has exactly the nine keys in their order, with plain values."""
    manager = opened({"starid": 267211065, "method": "halo", "tmag": 2.216, "datasource": "tpf", "cadence": 120})
    for task in (manager.get_task(), manager.get_random_task()):
        assert type(task) is dict
        assert list(task) == KEYS
        assert list(task.values()) == [1, 267211065, "halo", 1, 1, 1, 120, "tpf", 2.216]


def test_the_lowest_priority_comes_first(opened: Callable[..., TaskManager]) -> None:
    """Pending tasks come in the order of priorities; tasks with any status are passed over, UNKNOWN too."""
    manager = opened(*[{"status": status} for status in (0, 1, 3, 5)], {"priority": 9}, {"priority": 7})
    handed_out = []
    while (task := manager.get_task()) is not None:
        handed_out.append(task["priority"])
        manager.start_task(task["priority"])
    assert handed_out == [7, 9]
    assert manager.get_random_task() is None


def test_getting_does_not_reserve(opened: Callable[..., TaskManager]) -> None:
    """Until a task is started, get_task returns it again."""
    manager = opened({}, {})
    assert manager.get_task() == manager.get_task()
    manager.start_task(1)
    task = manager.get_task()
    assert task is not None
    assert task["priority"] == 2


def test_constraints(opened: Callable[..., TaskManager]) -> None:
    """Getting and counting take the arguments of build_constraints, and lists in them."""
    rows = [{"camera": 1 + number % 4, "tmag": float(number)} for number in range(20)]
    manager = opened(*rows, {"datasource": "tpf:101", "tmag": 15.0}, {"starid": 101, "datasource": "tpf", "tmag": 3.0})
    assert manager.get_number_tasks() == 22
    assert manager.get_number_tasks(camera=[2, 3]) == 10
    assert manager.get_number_tasks(datasource="tpf", tmag_max=5) == 2
    assert manager.get_number_tasks(starid=[]) == 0
    assert manager.get_number_tasks(cadence="ffi") == 20
    task = manager.get_task(camera=np.array([3, 4]), tmag_min=5)
    assert task is not None
    assert task["tmag"] == 6.0
    assert manager.get_task(camera=2, tmag_min=18) is None
    for _ in range(20):
        drawn = manager.get_random_task(camera=4)
        assert drawn is not None
        assert drawn["camera"] == 4


@pytest.mark.parametrize("method", ["get_task", "get_random_task", "get_number_tasks"])
@pytest.mark.parametrize("arguments", [{"return_list": True}, {"cameras": 1}])
def test_misspelt_constraints(opened: Callable[..., TaskManager], method: str, arguments: dict[str, Any]) -> None:
    """An unknown constraint is a TypeError."""
    with pytest.raises(TypeError):
        getattr(opened({}), method)(**arguments)


TMAGS = [5.0, 12.0, 5.0, None, 9.0, 12.0, 5.0, 9.0]

operations = st.lists(
    st.tuples(
        st.sampled_from(
            ["start", "save", "skip", "release", "reset", "undo", "cursor", "session", "other", "roll back"]
        ),
        st.integers(1, len(TMAGS)),
    ),
    max_size=25,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=operations, in_memory=st.booleans())
@example(operations=[("skip", 1), ("save", 1)], in_memory=False)
@example(operations=[("skip", 1), ("other", 3)], in_memory=False)
@example(operations=[("start", 1), ("release", 1)], in_memory=True)
@example(operations=[("save", 1), ("save", 2), ("reset", 2), ("undo", 2)], in_memory=True)
@example(operations=[("start", 2), ("start", 3), ("release", 3), ("release", 2)], in_memory=False)
@example(operations=[("save", 1), ("session", 1)], in_memory=True)
def test_the_next_task_whatever_happened(tmp_path: Path, operations: list[tuple[str, int]], in_memory: bool) -> None:
    """After any changes, by any program, the next task is the matching task of lowest priority, as it is now."""
    rows = [{"tmag": tmag, "camera": 1 + number % 2} for number, tmag in enumerate(TMAGS)]
    path = make_file(tmp_path / "todo.sqlite", rows)
    selections: list[dict[str, Any]] = [{}, {"camera": 2}, {"tmag_min": 8}, {"priority": [2, 3, 8], "tmag_max": 10}]
    try:
        with TaskManager(path, load_into_memory=in_memory) as manager:
            for operation, priority in operations:
                reset = "UPDATE todolist SET status = NULL, ccd = 5 - ccd WHERE priority = ?"
                if operation == "start":
                    with contextlib.suppress(TaskFinishedError):
                        manager.start_task(priority)
                elif operation == "save":
                    manager.save_result(result_of({"priority": priority}))
                elif operation == "skip":
                    manager.save_result(result_of({"priority": priority}, skip_targets=range(101, 109)))
                elif operation == "release":
                    manager.release_tasks([priority])
                elif operation == "reset":
                    manager.reset_tasks(priority=priority)
                elif operation == "undo":
                    with contextlib.suppress(CannotUndoError):
                        manager.undo_reset()
                elif operation == "session":
                    manager.session.get_one(Task, priority).status = None
                    manager.session.commit()
                elif operation == "other" and not in_memory:
                    with contextlib.closing(sqlite3.connect(path)) as other:
                        other.execute(reset, [priority])
                        other.commit()
                else:
                    manager.cursor.execute(reset, [priority])
                    (manager.conn.rollback if operation == "roll back" else manager.conn.commit)()
                for constraints in selections:
                    conditions = " AND ".join(["status IS NULL", *build_constraints(**constraints, return_list=True)])
                    sql = f"SELECT {', '.join(KEYS)} FROM todolist WHERE {conditions} ORDER BY priority LIMIT 3"
                    expected = [dict(row) for row in manager.conn.execute(sql).fetchall()]
                    assert manager.get_task(**constraints) == (expected[0] if expected else None)
                    if priority % 2:  # that lets the next call search again
                        assert manager.get_tasks(3, **constraints) == expected
    finally:
        path.unlink()


@pytest.mark.files_only
def test_a_search_goes_on_where_the_last_one_ended(opened: Callable[..., TaskManager]) -> None:
    """A task that was passed over is not read again: SQLite's virtual machine needs no more steps."""
    manager = opened(*[{"camera": 1} for _ in range(20_000)], *[{"camera": 2} for _ in range(50)])
    steps = []
    for _ in range(50):
        counter = []
        manager.conn.set_progress_handler(lambda: counter.append(1), 100)  # noqa: B023 - called in this round only
        task = manager.get_task(camera=2)
        manager.conn.set_progress_handler(None, 0)
        assert task is not None
        manager.start_task(task["priority"])
        steps.append(len(counter))
    assert steps[0] > 500
    assert max(steps[1:]) < 10


@pytest.mark.parametrize("name", ["starid", "priority", "camera", "cadence"])
def test_an_empty_list_matches_nothing(opened: Callable[..., TaskManager], name: str) -> None:
    """An empty list selects no task, also at random; without the list there is a task."""
    manager = opened({}, {})
    for constraints in ({name: []}, {name: (), "tmag_min": 3}):
        assert manager.get_task(**constraints) is None
        assert manager.get_tasks(5, **constraints) == []
        assert manager.get_random_task(**constraints) is None
        assert manager.get_number_tasks(**constraints) == 0
    assert manager.get_task() is not None


def test_a_list_that_is_changed_in_place(opened: Callable[..., TaskManager]) -> None:
    """The content of the list at the time of the call counts."""
    manager = opened(*[{} for _ in range(5)])
    stars = [104]
    assert [task["priority"] for task in manager.get_tasks(9, starid=stars)] == [4]
    stars.append(102)
    assert [task["priority"] for task in manager.get_tasks(9, starid=stars)] == [2, 4]
    stars.clear()
    assert manager.get_task(starid=stars) is None


@pytest.mark.files_only  # on a server each draw is a round trip
def test_random_tasks_are_uniform(opened: Callable[..., TaskManager]) -> None:
    """Only pending tasks are drawn, equally often (chi-squared; one run in a million fails by chance)."""
    gaps = [{"priority": priority, "status": 1 if priority % 3 else None} for priority in (*range(1, 31), 3000)]
    manager = opened(*gaps)
    number = manager.get_number_tasks()
    assert number == 11
    draws = 1100
    drawn = Counter(task["priority"] for _ in range(draws) if (task := manager.get_random_task()))
    assert len(drawn) == number
    assert sum((times - draws / number) ** 2 / (draws / number) for times in drawn.values()) < 46.9


def test_starting(opened: Callable[..., TaskManager]) -> None:
    """start_task sets STARTED; starting a task twice is no error."""
    manager = opened({}, {})
    manager.start_task(np.int64(2))  # type: ignore[arg-type]
    manager.start_task(2)
    assert ask(manager, "SELECT status FROM todolist ORDER BY priority") == [
        (None,),
        (STATUS.STARTED.value,),
    ]


@pytest.mark.parametrize("status", [STATUS.UNKNOWN, STATUS.OK, STATUS.WARNING, STATUS.SKIPPED])
def test_a_finished_task_cannot_be_started(opened: Callable[..., TaskManager], status: STATUS) -> None:
    """Starting a finished task is an error that names its status and changes nothing."""
    manager = opened({"status": status.value})
    with pytest.raises(TaskFinishedError, match=f"Task 1 is finished .status {status.name}") as caught:
        manager.start_task(1)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TodoError)
    assert ask(manager, "SELECT status FROM todolist") == [(status.value,)]


def test_an_unknown_task_cannot_be_started(opened: Callable[..., TaskManager]) -> None:
    """Starting an unknown task is a LookupError, and the manager still works."""
    manager = opened({})
    with pytest.raises(UnknownTaskError, match="Task 77"):
        manager.start_task(77)
    assert issubclass(UnknownTaskError, LookupError)
    manager.start_task(1)


@pytest.mark.parametrize("priority", [None, "1", 1.0, True, [1]])
def test_a_priority_is_an_integer(opened: Callable[..., TaskManager], priority: Any) -> None:
    """A priority that is not an integer is a ValueError that names the argument."""
    with pytest.raises(ValueError, match="taskid"):
        opened({}).start_task(priority)


def test_releasing(opened: Callable[..., TaskManager]) -> None:
    """release_tasks returns started tasks to pending, and ignores finished, skipped and unknown tasks."""
    manager = opened({}, {}, {"status": 1}, {"status": 5})
    manager.start_task(1)
    manager.start_task(2)
    manager.release_tasks([2, 3, 4, 77])
    assert ask(manager, "SELECT status FROM todolist ORDER BY priority") == [(6,), (None,), (1,), (5,)]


@pytest.mark.parametrize(
    ("statuses", "given", "level", "says"),
    [
        ((2, 2, 6, 1), {}, "WARNING", "3 tasks (2 ERROR, 1 STARTED) returned to pending; their results are deleted"),
        ((4, None, 3), {}, "WARNING", "1 task (1 ABORT) returned to pending; their results"),
        ((2, 2), {"cleanup_constraints": {"priority": 2}}, "WARNING", "1 task (1 ERROR) returned"),
        ((6, 6, 5), {}, "INFO", "2 tasks (2 STARTED) returned to pending"),
        ((2, 6, 4), {"reset": False}, None, ""),
        ((2, 6), {"cleanup_constraints": {"priority": 9}}, None, ""),
        ((1, None), {}, None, ""),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_what_opening_says(
    todo: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    statuses: Any,
    given: Any,
    level: str | None,
    says: str,
    in_memory: bool,
) -> None:
    """Opening counts the tasks that it returned to pending; as a warning if results or errors are lost with them."""
    target = todo(*({"status": status} for status in statuses))
    with caplog.at_level(logging.INFO, "photometry_tasks"):
        TaskManager(target, load_into_memory=in_memory, **given).close()
    found = [record for record in caplog.records if "returned to pending" in record.message]
    assert [record.levelname for record in found] == ([] if level is None else [level])
    assert all(f": {says}" in record.message for record in found)
