"""The progress of a run: its running and queued tasks, and time limits from the run times of similar tasks."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from photometry_tasks import TaskManager
from photometry_tasks.cli import display
from photometry_tasks.cli.display import Bar
from photometry_tasks.cli.run import _describe_running
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.runner import run, run_tasks
from photometry_tasks.runner.run import RunningTask, RunReport
from photometry_tasks.storage.sqlite import status_file
from tests.support import functions
from tests.support.lists import many, result_of
from tests.support.processes import spawn_pool

#: Magnitudes of tasks that take 10 minutes, and of tasks that take no time.
SLOW, FAST = 5.0, 12.0


def open_with_history(opened: Callable[..., TaskManager], *tmags: float) -> TaskManager:
    """Return a manager of pending tasks of these magnitudes, after 40 results each of slow and fast tasks."""
    manager = opened(*({"tmag": SLOW if n % 2 else FAST} for n in range(80)), *({"tmag": tmag} for tmag in tmags))
    tasks = manager.claim_tasks(80)
    manager.save_results([{**result_of(task), "time": 600.0 if task["tmag"] == SLOW else 0.01} for task in tasks])
    return manager


def test_tasks_that_would_not_end_are_passed_over(
    opened: Callable[..., TaskManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the time limit, slow tasks are passed over for fast ones, in order; they stay pending, and never start."""
    monkeypatch.chdir(tmp_path)
    manager = open_with_history(opened, SLOW, FAST, SLOW, FAST, FAST, SLOW, FAST)
    report = run_tasks(manager, functions.leaves_a_line, jobs=1, stop_after=300.0)
    assert report.is_out_of_time
    assert Path("begun").read_text().split() == ["82", "84", "85", "87"]
    assert [task["priority"] for task in manager.get_tasks(9)] == [81, 83, 86]
    assert run_tasks(manager, functions.good, jobs=1, stop_after=3000.0).saved == 3


def test_a_limit_of_tasks_counts_those_that_run(opened: Callable[..., TaskManager]) -> None:
    """A task that is passed over does not count for `limit`."""
    manager = open_with_history(opened, SLOW, FAST, FAST, FAST)
    assert run_tasks(manager, functions.good, jobs=1, stop_after=300.0, limit=2).saved == 2
    assert [task["priority"] for task in manager.get_tasks(9)] == [81, 84]


def test_when_nothing_fits(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends after some tasks in a row that would not end in time, without looking at all others."""
    monkeypatch.setattr(run, "_MOST_PASSED_OVER", 5)
    manager = open_with_history(opened, *[SLOW] * 20, FAST)
    report = run_tasks(manager, functions.good, jobs=1, stop_after=300.0)
    assert (report.saved, report.is_out_of_time) == (0, True)
    assert manager.get_number_tasks() == 21


def test_automatic_time_limit(
    opened: Callable[..., TaskManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that hangs is killed after ten times the run time of similar tasks; a slow star has more time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_LEAST_TIMEOUT", 1.5)
    manager = open_with_history(opened, FAST, FAST)
    report = run_tasks(manager, functions.hangs_from_task_5, jobs=2, task_timeout="auto")
    assert report.kinds == {"timeout": 2}
    found = manager.session.connection().exec_driver_sql("SELECT errors FROM diagnostics WHERE priority = 81")
    assert "its time limit of 1.5 s (task_timeout)" in found.scalar_one()


def test_an_automatic_limit_for_a_task_that_began_early(
    opened: Callable[..., TaskManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that hangs from the beginning on is killed when there are enough results of other tasks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_LEAST_TIMEOUT", 1.5)
    manager = opened(*({"tmag": FAST} for _ in range(40)))
    report = run_tasks(manager, functions.hangs_in_a_program, jobs=2, task_timeout="auto")
    assert (report.saved, report.kinds) == (40, {"timeout": 1})


def test_no_automatic_limit_before_results(
    opened: Callable[..., TaskManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 30 results, no task has an automatic limit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_LEAST_TIMEOUT", 0.0)
    monkeypatch.setattr(run, "_TIMES_LONGER", 1e-9)
    manager = opened(*many(60))

    def run_some(function: Callable[..., Any], limit: int) -> dict[str, int]:
        return run_tasks(manager, function, jobs=1, task_timeout="auto", limit=limit).kinds

    assert run_some(functions.good, 29) == {}
    assert run_some(functions.takes_half_a_second, 1) == {}
    assert run_some(functions.takes_half_a_second, 1) == {"timeout": 1}


@pytest.mark.sample(2)
@pytest.mark.parametrize("executor", [None, "pool"])
def test_running_and_queued(
    opened: Callable[..., TaskManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str | None
) -> None:
    """While tasks hang, the report says which run and for how long, how many wait, and since when no result came."""
    monkeypatch.chdir(tmp_path)
    manager = opened(*({"tmag": 10.0} for _ in range(30)))
    reports: list[tuple[list[RunningTask], int, float, int]] = []

    def look(report: RunReport) -> None:
        reports.append((report.running, report.queued, report.silence, manager.summary["STARTED"]))
        if report.saved == 4 and report.silence > 2 and min(task.seconds for task in report.running) > 1:
            raise RuntimeError("seen")

    how: dict[str, Any] = {} if executor is None else {"executor": spawn_pool}
    with pytest.raises(RuntimeError, match="seen"):
        run_tasks(manager, functions.hangs_from_task_5, jobs=2, progress=look, **how)
    running, queued, silence, started = reports[-1]
    assert {task.starid for task in running} == {105, 106}
    assert queued == started - 2
    assert all(task.seconds < 60 and task.expected is not None for task in running)
    assert (running[0].pid is None) == (executor is not None)
    assert silence > 2


@pytest.mark.sample(2)
@pytest.mark.parametrize("in_memory", [False, True], ids=["disk", "memory"])
def test_the_status_of_queued_tasks(
    opened: Callable[..., TaskManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    """The status of a file has the tasks that workers run, with their times, and how many others wait."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_FILE_HEARTBEAT", 0.0)
    monkeypatch.setattr(status_file, "_INTERVAL", 0.0)
    monkeypatch.setattr(status_file, "_SHARE", 0)
    manager = opened(*({"tmag": 10.0} for _ in range(30)), load_into_memory=in_memory)
    found: dict[str, Any] = {}

    def look(report: RunReport) -> None:
        if report.saved == 4 and report.silence > 2:
            found.update(get_status(manager.todo_file))
            raise RuntimeError("seen")

    with pytest.raises(RuntimeError, match="seen"):
        run_tasks(manager, functions.hangs_from_task_5, jobs=2, progress=look)
    assert {row["starid"] for row in found["running"]} == {105, 106}
    assert all(0 < row["seconds"] < 60 and row["worker"].startswith("process ") for row in found["running"])
    assert found["queued"] == found["status"]["STARTED"] - 2 > 0
    console = Console(width=200, height=60, file=io.StringIO())
    console.print(display.build_view(found, console))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"Started tasks: {found['queued'] + 2}, {found['queued']} of which wait for a worker\n" in text
    manager.release_tasks(range(1, 31))
    manager.claim_tasks(3)
    assert get_status(manager.todo_file)["queued"] is None


@pytest.mark.parametrize(
    ("running", "silence", "says"),
    [
        ([], 100.0, ""),
        ([RunningTask(5, 105, 3.0, 2.0, 77)], 3.0, ""),
        (
            [RunningTask(5, 105, 300.0, 20.0, 77), RunningTask(6, 106, 3.0, 20.0, 78)],
            120.0,
            "No result for 2 min; 2 running, 7 queued; longest: TIC 105, 5 min (process 77), while 95 % of similar "
            "tasks take at most 20 s.",
        ),
        ([RunningTask(5, 105, 300.0, None, None)], 120.0, "No result for 2 min; 1 running, 7 queued; longest: TIC 105"),
        ([RunningTask(5, 105, 300.0, 20.0, 77)], 1.0, "Slow: TIC 105, 5 min (process 77), while"),
        ([RunningTask(5, 105, 300.0, 200.0, 77)], 1.0, ""),
    ],
)
def test_what_it_says(running: list[RunningTask], silence: float, says: str) -> None:
    """A silence, and a task that takes much longer than similar ones, are said."""
    said = _describe_running(RunReport(running=running, queued=7, silence=silence))
    assert said.startswith(says)
    assert bool(said) == bool(says)


def test_a_rate_only_while_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is that of the last minute, and ends with the results; slow tasks have a rate per hour."""
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    bar = Bar("tasks", is_drawn=False)
    for done in range(301):
        now = done / 10
        rate = bar._measure_rate(now, done)
    assert rate == pytest.approx(10)
    for now, expected in ((34.0, 10.0), (36.0, None), (600.0, None)):
        assert bar._measure_rate(now, 300) == (expected and pytest.approx(expected))
    for done in range(301, 401):
        now = 600.0 + 20 * (done - 300)
        rate = bar._measure_rate(now, done)
    assert display._format_rate(rate) == "3/min"
    assert bar._measure_rate(now + 50, 400) == rate
    assert bar._measure_rate(now + 70, 400) is None
    assert display._format_rate(1 / 7200) == "0.5/h"
    assert display._format_rate(None) == ""
