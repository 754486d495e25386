"""The model of run times, the estimate of the time left, and the plan of a run."""

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import forecasts
from photometry_tasks.rules.estimate import (
    Record,
    Workload,
    build_estimate,
    build_plan,
    find_pace,
    measure_pace,
    measure_rate,
    take_first,
)
from photometry_tasks.rules.run_times import Cell, RunTimes, find_cell


def learn(times: dict[float, list[float]], datasource: str = "ffi", method: str | None = None) -> RunTimes:
    """Return a model of run times (seconds) by magnitude."""
    run_times = RunTimes()
    for tmag, seconds in times.items():
        for each in seconds:
            run_times.add(find_cell(datasource, method, tmag), each)
    return run_times


def build_workload(run_times: RunTimes, *waiting: dict[Cell, float], **others: Any) -> Workload:
    defaults = {"running": {}, "measured": 1, "covered": 0, "seconds": 3600.0}
    return Workload(
        run_times, list(waiting), [10 * number for number in range(1, len(waiting) + 1)], **defaults | others
    )


FAINT, BRIGHT = find_cell("ffi", None, 12.0), find_cell("ffi", None, 6.0)


@pytest.mark.parametrize(
    ("task", "cell"),
    [
        (("ffi", None, 10.0), ("ffi", None, 20)),
        (("ffi", "halo", 10.49), ("ffi", "halo", 20)),
        (("tpf", None, -1.46), ("tpf", None, -3)),
        (("tpf:123", None, None), ("secondary", None, None)),
        (("ffi", b"x", "bright"), ("ffi", None, None)),
        (("ffi", None, math.inf), ("ffi", None, None)),
        (("ffi", None, -99.0), ("ffi", None, None)),
    ],
)
def test_cells(task: Any, cell: Any) -> None:
    """A cell is a datasource, a method and a half magnitude; values of another type are no values."""
    assert find_cell(*task) == cell


def test_quantiles() -> None:
    """A quantile is that of the results of the same half magnitude."""
    run_times = learn({6.1: list(range(100, 200)), 12.1: list(range(1, 101))})
    assert run_times.get_quantile(BRIGHT, 0.5) == pytest.approx(150, rel=0.1)
    assert run_times.get_quantile(FAINT, 0.5) == pytest.approx(50, rel=0.1)
    assert run_times.get_quantile(FAINT, 0.95) == pytest.approx(95, rel=0.1)


def test_few_results_borrow() -> None:
    """A half magnitude without results lies between its neighbours; one far away is uncertain."""
    run_times = learn({6.1: [100.0] * 50, 8.1: [25.0] * 50})
    between, far = find_cell("ffi", None, 7.1), find_cell("ffi", None, 15.0)
    assert run_times.get_quantile(between, 0.5) == pytest.approx(50, rel=0.2)
    draws = run_times.draw([{BRIGHT: 100}, {between: 100}, {far: 100}], 200, random.Random(1))
    widths = [math.log(max(sums) / min(sums)) for sums in zip(*draws, strict=True)]
    assert widths[0] < widths[1] < widths[2] / 5


@pytest.mark.parametrize(("datasource", "method"), [("ffi", "halo"), ("tpf", None), ("tpf:7", "psf")])
def test_other_kinds(datasource: str, method: str | None) -> None:
    """A kind of tasks without results takes the run times of its datasource, or of all, but is less certain."""
    run_times = learn({10.0: [60.0] * 100})
    own, other = find_cell("ffi", None, 10.0), find_cell(datasource, method, 10.0)
    assert run_times.get_quantile(other, 0.5) == run_times.get_quantile(own, 0.5)
    draws = run_times.draw([{own: 50}, {other: 50}], 200, random.Random(1))
    of_own, of_other = (sorted(sums) for sums in zip(*draws, strict=True))
    assert of_other[160] / of_other[40] > 1.5 > 1.1 > of_own[160] / of_own[40]


def test_it_learns_on() -> None:
    """The latest 500 results of a cell count."""
    run_times = learn({12.1: [1.0] * 500})
    assert run_times.get_quantile(FAINT, 0.5) == pytest.approx(1.0, rel=0.05)
    for _ in range(500):
        run_times.add(FAINT, 100.0)
    assert run_times.get_quantile(FAINT, 0.5) == pytest.approx(100.0, rel=0.05)
    assert len(run_times) == 1000


@pytest.mark.parametrize("times", [[0.0] * 20, [1e-300], [1e9] * 3, [1e-9, 1e8] * 20, [math.inf, -5.0, math.nan]])
def test_odd_run_times(times: list[float]) -> None:
    """Any run times give finite forecasts; numbers that are no run times are left out."""
    run_times = learn({12.1: times, 3.0: times})
    found = build_estimate(build_workload(run_times, {FAINT: 10, BRIGHT: 1}), 2)
    assert all(found[name] is None or math.isfinite(found[name]) for name in found)
    assert (found["cpu_hours"] is None) == (len(run_times) == 0)
    build_plan(build_workload(run_times, {FAINT: 10}), 2, 1)


@pytest.mark.parametrize("runs", [100, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["synthetic", pytest.param("recorded", marks=pytest.mark.slow)])
def test_the_interval_is_right(kind: str, runs: int) -> None:
    """The true end lies within the 80 % interval in 70 to 90 % of runs."""
    chance = random.Random(7)
    recorded = forecasts.record(1000, chance) if kind == "recorded" else None
    within = 0
    for _ in range(runs):
        stars = forecasts.make_list(recorded, chance, longest=800)
        true, found = forecasts.forecast(stars, chance.choice([2, 8]), chance.uniform(0.1, 0.9))
        within += found["hours_low"] <= true <= found["hours_high"]
    assert 0.7 <= within / runs <= 0.9


def test_a_list_in_order_of_brightness() -> None:
    """After the bright half, whose tasks take less and less time, the faint tasks are not taken for bright ones."""
    stars = [(4 + 8 * number / 1000, 100 * 0.7 ** (8 * number / 1000)) for number in range(1000)]
    true, found = forecasts.forecast(stars, 2, 0.5)
    assert found["hours_low"] <= true <= found["hours_high"]
    assert found["hours_high"] < found["cpu_hours_done"] / 2 / 2  # half of the time of the first half


def test_covered_stars() -> None:
    """Of the pending tasks, brighter stars will cover as many as so far."""
    run_times = learn({12.1: [60.0] * 100})
    alone = build_estimate(build_workload(run_times, {FAINT: 1000}), 4)
    covered = build_estimate(build_workload(run_times, {FAINT: 1000}, measured=300, covered=100), 4)
    assert covered["tasks"] == alone["tasks"] == 1000
    assert covered["cpu_hours"] == pytest.approx(0.75 * alone["cpu_hours"], rel=0.05)


def test_running_tasks() -> None:
    """A running task is half done."""
    run_times = learn({12.1: [3600.0] * 1000})
    found = build_estimate(build_workload(run_times, running={FAINT: 4}), 4)
    assert found["tasks"] == 4
    assert found["cpu_hours"] == pytest.approx(2, rel=0.2)
    assert found["hours_high"] <= 1.2


def test_a_task_that_hangs() -> None:
    """The rest of a task that takes much longer than similar ones is unknown: the limits are far apart."""
    workload = build_workload(learn({12.1: [10.0] * 100}), running={FAINT: 1})
    found, usual = build_estimate(workload, 1, overdue=[3600.0]), build_estimate(workload, 1)
    assert usual["hours_high"] < 0.01
    assert 0.05 < found["hours_low"] < 0.2
    assert 5 < found["hours_high"] < 20
    assert found["cpu_hours_high"] > 5


def test_the_end() -> None:
    """At the end, workers wait for the last task: 3 tasks of an hour take an hour, with however many workers."""
    run_times = learn({12.1: [3600.0] * 1000})
    for at_once in (3, 64):
        found = build_estimate(build_workload(run_times, {FAINT: 3}), at_once)
        assert 0.8 < found["hours_low"] < 1.05 < found["hours_high"] < 2


def test_what_is_not_known() -> None:
    """Without run times nothing is known; without a number of workers, only the sum of the run times."""
    found = build_estimate(build_workload(RunTimes(), {FAINT: 2}), 2)
    names = ("cpu_hours", "cpu_hours_low", "cpu_hours_high", "hours_low", "hours_high")
    assert (found["tasks"], *map(found.get, names)) == (2, *[None] * 5)
    found = build_estimate(build_workload(learn({12.1: [3600.0] * 20}), {FAINT: 2}), None)
    assert found["cpu_hours"] == pytest.approx(2, rel=0.2)
    assert (found["hours_low"], found["hours_high"], found["jobs"]) == (None, None, None)
    found = build_estimate(build_workload(RunTimes()), None)
    assert [found[name] for name in names] == [0.0] * 5
    plan = build_plan(build_workload(RunTimes(), {FAINT: 2}), 2, 1)
    assert (plan["tasks"], plan["done_low"], plan["done_high"], plan["priority_high"]) == (2, None, None, None)


def test_plan() -> None:
    """A plan goes in order of the list: here first faint tasks of an hour, then bright tasks of ten hours."""
    run_times = learn({12.1: [3600.0] * 1000, 6.1: [36000.0] * 1000})
    workload = build_workload(run_times, {FAINT: 10}, {BRIGHT: 10}, {FAINT: 10})
    found = build_plan(workload, 2, 32)
    assert (found["tasks"], found["jobs"], found["hours"]) == (30, 2, 32)
    # 64 h: 10 faint tasks, and about 5 of the bright ones.
    assert 12 <= found["done_low"] <= 15 <= found["done_high"] <= 17
    assert 10 < found["priority_low"] <= 15 <= found["priority_high"] < 20
    assert [(row["tmag"], row["tasks"]) for row in found["magnitudes"]] == [(6, 10), (12, 20)]
    assert found["magnitudes"][1] == {"tmag": 12, "tasks": 20, "done_low": 10, "done_high": 10}
    assert build_plan(workload, 100, 1e6)["done_low"] == 30
    assert build_plan(workload, 1, 1e-3)["done_high"] == 0
    assert build_plan(build_workload(run_times), 1, 1)["done_high"] == 0


@pytest.mark.parametrize(
    ("is_in_use", "seconds", "at_work", "at_once"),
    [
        (True, 3600.0, None, 7.0),
        (True, 3600.0, 2, 2.0),
        (False, 3600.0, None, 4.0),
        (True, 0.5, None, 4.0),
        (True, 0.5, 5, 5.0),
        (True, 0.5, 1, 4.0),
    ],
    ids=["running", "queued", "interrupted", "short tasks", "short and queued tasks", "between two short tasks"],
)
def test_tasks_at_once(is_in_use: bool, seconds: float, at_work: int | None, at_once: float) -> None:
    """As many tasks run at once as are running; short tasks may wait for a worker, and interrupted tasks do not run."""
    workload = build_workload(RunTimes(), running={FAINT: 7}, seconds=seconds)
    record = record_of((0, 5, 240.0), managers=[(0.0, 60.0)])
    assert find_pace(workload, record, started=7, at_work=at_work, is_in_use=is_in_use) == at_once


def record_of(*minutes: tuple[int, int, float], managers: list[tuple[float, float]], now: float = math.inf) -> Record:
    rows = [SimpleNamespace(minute=minute, saved=saved, elaptime=elaptime) for minute, saved, elaptime in minutes]
    return Record(rows, managers, now)


LONG = (0.0, 1e5)


def test_the_first_tasks() -> None:
    """The first tasks of a list are the running ones and those of its first parts, the last of these in part."""
    workload = build_workload(learn({12.1: [60.0]}), {BRIGHT: 10}, {FAINT: 10}, {BRIGHT: 5}, running={FAINT: 2})
    assert take_first(workload, 17).waiting == [{BRIGHT: 10}, {FAINT: 5}, {}]
    assert take_first(workload, 1).waiting == [{}, {}, {}]
    assert take_first(workload, 1000).waiting == workload.waiting


@pytest.mark.parametrize(
    ("minutes", "managers", "now", "at_once"),
    [
        ([], [], 0.0, None),
        ([(0, 5, 240.0)], [(0.0, 60.0)], 1e9, 4.0),
        ([(0, 5, 0.0)], [(0.0, 60.0)], 1e9, None),
        ([(0, 100, 54.0)], [(0.0, 27.0)], 1e9, 2.0),  # a run of 27 s
        ([(0, 50, 30.0)], [LONG], 15.0, 2.0),  # the minute has just begun
        ([(0, 100, 960.0), (7200, 10, 60.0), (7260, 10, 120.0)], [LONG], 1e9, 1.5),  # an earlier run does not count
        ([(0, 100, 120.0), (660, 10, 6.0)], [(0.0, 60.0), (660.0, 663.0)], 1e9, 2.0),  # a pause between two managers
        ([(0, 100, 120.0), (60, 100, 120.0)], [(0.0, 120.0), (30.0, 90.0)], 1e9, 2.0),  # two managers at once
        ([(0, 100, 120.0), (600, 100, 120.0)], [], 1e9, 2.0),  # no manager is known
        ([(0, 100, 120.0), (60, 100, 120.0)], [(3600.0, 3720.0), (50.0, 10.0)], 1e9, 2.0),  # nor a right time
        ([(3600, 100, 120.0), (3660, 100, 120.0)], [(3600.0, 3720.0)], 10.0, 2.0),  # a clock ahead
        ([(60 * n, 400, 480.0 if n < 50 else 120.0) for n in range(100)], [LONG], 1e9, 2.0),  # the last ten minutes
        ([(3540, 8, 8 * 3540.0)], [LONG], 3600.0, 7.86),  # eight tasks of an hour, which all end in a minute
        (
            [(60 * n, 300 * (n % 60 == 59), 1.08e6 * (n % 60 == 59)) for n in range(600)],
            [LONG],
            1e9,
            358.0,
        ),  # all at once
    ],
)
def test_pace(
    minutes: list[tuple[int, int, float]], managers: list[tuple[float, float]], now: float, at_once: float | None
) -> None:
    """As many tasks run at once as the results of the last minutes of the last run took time."""
    found = measure_pace(record_of(*minutes, managers=managers, now=now))
    assert found == (at_once and pytest.approx(at_once, rel=0.05))


@pytest.mark.parametrize(
    ("minutes", "managers", "now", "rate"),
    [
        ([], [LONG], 600.0, None),
        ([(0, 30, 1.0)], [(0.0, 15.0)], 15.0, 2.0),
        ([(0, 600, 1.0), (540, 30, 1.0)], [(0.0, 60.0), (540.0, 600.0)], 555.0, 630 / 75),  # a pause
        ([(60 * n, 60, 1.0) for n in range(100)], [LONG], 6000.0, 0.9),  # 9 whole minutes of the last 10
        ([(0, 600, 1.0)], [LONG], 500.0, None),  # none for a while
        ([(900, 600, 1.0)], [LONG], 600.0, None),  # another clock
    ],
)
def test_rate(
    minutes: list[tuple[int, int, float]], managers: list[tuple[float, float]], now: float, rate: float | None
) -> None:
    """The rate is that of the last ten minutes in which a manager had the list open."""
    found = measure_rate(record_of(*minutes, managers=managers, now=now))
    assert found == (rate and pytest.approx(rate))
