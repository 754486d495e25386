"""Contract 7: the brightest star in an aperture covers the others."""

import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import TaskCoveredError
from tests.support.lists import ask, execute_sql, fill, make_file, result_of
from tests.support.model import ABORT, ERROR, FIELD, OK, SKIPPED, STARTED, Model, rows_of_a_field, stars

pytestmark = pytest.mark.both_databases


def state(manager: TaskManager) -> tuple[dict[int, int | None], list[tuple[int, int]], set[int]]:
    """Return statuses, skips and the tasks with diagnostics, as plain SQL reads them."""
    statuses = dict(ask(manager, "SELECT priority, status FROM todolist"))
    skips = ask(manager, "SELECT priority, skipped_by FROM photometry_skipped ORDER BY 1, 2")
    return statuses, skips, {row[0] for row in ask(manager, "SELECT priority FROM diagnostics")}


def ffi(tmag: float | None, **row: Any) -> dict[str, Any]:
    return {"tmag": tmag, **row}


def tpf(starid: int, tmag: float | None = 10.0, **row: Any) -> dict[str, Any]:
    return {"starid": starid, "datasource": "tpf", "tmag": tmag, **row}


def secondary(starid: int, primary: int, tmag: float | None = 12.0, **row: Any) -> dict[str, Any]:
    return {"starid": starid, "datasource": f"tpf:{primary}", "tmag": tmag, **row}


# The rows (by default the stars are 101, 102, ... by priority), the result of the first task, and the expected statuses
# other than pending, skips and errors.
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[int, int], list[tuple[int, int]], str | None]] = {
    "no list": ([ffi(5), ffi(9)], {}, {1: OK}, [], None),
    "empty list": ([ffi(5), ffi(9)], {"skip_targets": []}, {1: OK}, [], None),
    "stars that are not listed": ([ffi(5), ffi(9)], {"skip_targets": [7, 8]}, {1: OK}, [], None),
    "brighter than its rival": ([ffi(5), ffi(9)], {"skip_targets": [102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
    "brighter than all": (
        [ffi(5), ffi(9), ffi(7), ffi(1)],
        {"skip_targets": {102, 103}},
        {1: OK, 2: SKIPPED, 3: SKIPPED},
        [(2, 1), (3, 1)],
        None,
    ),
    "fainter than one": ([ffi(5), ffi(9), ffi(4)], {"skip_targets": [102, 103]}, {1: SKIPPED}, [(1, 3)], None),
    "the brightest of several": (
        [ffi(5), ffi(3), ffi(2), ffi(4)],
        {"skip_targets": [102, 103, 104]},
        {1: SKIPPED},
        [(1, 3)],
        None,
    ),
    "equal, and first": ([ffi(5), ffi(5)], {"skip_targets": [102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
    "equal, and last": (
        [ffi(5, priority=2), ffi(5, priority=1)],
        {"skip_targets": [102]},
        {2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "equal rivals, both brighter": (
        [ffi(5), ffi(3, priority=8), ffi(3, priority=7)],
        {"skip_targets": [102, 103]},
        {1: SKIPPED},
        [(1, 7)],
        None,
    ),
    "itself in its list": ([ffi(5), ffi(9)], {"skip_targets": [101]}, {1: OK}, [], None),
    "itself and a rival": ([ffi(5), ffi(9)], {"skip_targets": [101, 102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
    "the same rival twice": ([ffi(5), ffi(9)], {"skip_targets": [102, 102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
    "a rival without a magnitude": ([ffi(20), ffi(None)], {"skip_targets": [102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
    "without a magnitude itself": ([ffi(None), ffi(20)], {"skip_targets": [102]}, {1: SKIPPED}, [(1, 2)], None),
    "both without a magnitude": ([ffi(None), ffi(None)], {"skip_targets": [102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
    "negative magnitudes": ([ffi(-0.5), ffi(0)], {"skip_targets": [102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
    "an ERROR covers no other": (
        [ffi(5), ffi(9)],
        {"status": STATUS.ERROR, "skip_targets": [102]},
        {1: ERROR},
        [],
        None,
    ),
    "an ABORT covers no other": (
        [ffi(5), ffi(9, status=OK)],
        {"status": STATUS.ABORT, "skip_targets": [102]},
        {1: ABORT, 2: OK},
        [],
        None,
    ),
    "a result with the status SKIPPED covers no other": (
        [ffi(5), ffi(9)],
        {"status": STATUS.SKIPPED, "skip_targets": [102]},
        {1: SKIPPED},
        [],
        None,
    ),
    "an ERROR next to a brighter star": (
        [ffi(5), ffi(4)],
        {"status": STATUS.ERROR, "skip_targets": [102]},
        {1: SKIPPED},
        [(1, 2)],
        None,
    ),
    "another sector": ([ffi(5), ffi(9, sector=2)], {"skip_targets": [102]}, {1: OK}, [], None),
    "another camera": ([ffi(5), ffi(9, camera=2)], {"skip_targets": [102]}, {1: OK}, [], None),
    "another CCD": ([ffi(5), ffi(9, ccd=2)], {"skip_targets": [102]}, {1: OK}, [], None),
    "another cadence": ([ffi(5), ffi(9, cadence=600)], {"skip_targets": [102]}, {1: OK}, [], None),
    "another datasource": ([ffi(5), tpf(102)], {"skip_targets": [102]}, {1: OK}, [], None),
    "FFI tasks and the same star's TPF": (
        [ffi(5), tpf(102, 1.0), ffi(9, starid=102)],
        {"skip_targets": [102]},
        {1: OK, 3: SKIPPED},
        [(3, 1)],
        None,
    ),
    "primary against primary": (
        [tpf(101, 5), tpf(102, 9)],
        {"skip_targets": [102]},
        {1: OK, 2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "primary against its own secondary": (
        [tpf(101, 9), secondary(102, 101, 12)],
        {"skip_targets": [102]},
        {1: OK, 2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "primary against its own brighter secondary": (
        [tpf(101, 9), secondary(102, 101, 8)],
        {"skip_targets": [102]},
        {1: SKIPPED},
        [(1, 2)],
        None,
    ),
    "primary against another star's secondary": (
        [tpf(101, 9), secondary(102, 555, 12)],
        {"skip_targets": [102]},
        {1: OK},
        [],
        None,
    ),
    "primary against the same star twice": (
        [tpf(101, 9), secondary(102, 101, 12), tpf(102, 12.0)],
        {"skip_targets": [102]},
        {1: OK, 2: SKIPPED, 3: SKIPPED},
        [(2, 1), (3, 1)],
        None,
    ),
    "secondary whose primary is in the list": (
        [secondary(101, 555, 1.0), tpf(555, 9.0), tpf(102, 0.5)],
        {"skip_targets": [555, 102]},
        {1: SKIPPED},
        [(1, 2)],
        None,
    ),
    "an ERROR whose primary is in the list": (
        [secondary(101, 555), tpf(555)],
        {"status": STATUS.ERROR, "skip_targets": [555], "errors": ["boom"]},
        {1: SKIPPED},
        [(1, 2)],
        "boom",
    ),
    "secondary whose primary has no task": (
        [secondary(101, 555), ffi(1, starid=555)],
        {"skip_targets": [555], "errors": "boom"},
        {1: SKIPPED},
        [],
        "boom\nTargetNotFoundError: Could not find primary TPF target (TIC 555)",
    ),
    "secondary whose primary is in another sector": (
        [secondary(101, 555), tpf(555, sector=2)],
        {"skip_targets": [555]},
        {1: SKIPPED},
        [],
        "TargetNotFoundError: Could not find primary TPF target (TIC 555)",
    ),
    "secondary against secondaries of the same file": (
        [secondary(101, 555, 8.0), secondary(102, 555, 12), secondary(103, 666, 1), tpf(555, 2.0)],
        {"skip_targets": [102, 103]},
        {1: OK, 2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "secondary against a primary that is not its own": (
        [secondary(101, 555, 12.0), tpf(102, 1)],
        {"skip_targets": [102]},
        {1: OK},
        [],
        None,
    ),
    "a secondary's own star in its list": (
        [secondary(101, 101, 12.0), tpf(101, 1)],
        {"skip_targets": [101]},
        {1: OK},
        [],
        None,
    ),
    "the table's magnitude counts": (
        [ffi(5), ffi(9)],
        {"tmag": 9.5, "skip_targets": [102]},
        {1: OK, 2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "the result's sector and CCD count": (
        [ffi(5), ffi(9), ffi(9, sector=2, ccd=3, starid=102)],
        {"sector": 2, "ccd": 3, "skip_targets": [102]},
        {1: OK, 3: SKIPPED},
        [(3, 1)],
        None,
    ),
    "the result's camera and cadence count": (
        [ffi(5), ffi(9, camera=4, cadence=200)],
        {"camera": 4, "cadence": 200, "skip_targets": [102]},
        {1: OK, 2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "the result's datasource counts": (
        [ffi(5), tpf(102, 9)],
        {"datasource": "tpf", "skip_targets": [102]},
        {1: OK, 2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "the result's star counts": (
        [tpf(101, 5), secondary(102, 777, 9)],
        {"starid": 777, "skip_targets": [102, 101]},
        {1: OK, 2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "missing values of the result come from the table": (
        [ffi(5, sector=3, camera=2, ccd=4, cadence=20), ffi(9, sector=3, camera=2, ccd=4, cadence=20)],
        {"sector": None, "camera": None, "ccd": None, "cadence": None, "datasource": None, "starid": None, "tmag": None}
        | {"skip_targets": [102]},
        {1: OK, 2: SKIPPED},
        [(2, 1)],
        None,
    ),
    "a finished rival": ([ffi(5), ffi(9, status=OK)], {"skip_targets": [102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
    "a running rival": ([ffi(5), ffi(9, status=STARTED)], {"skip_targets": [102]}, {1: OK, 2: SKIPPED}, [(2, 1)], None),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize(("rows", "change", "statuses", "skips", "errors"), CASES.values(), ids=list(CASES))
def test_the_rule(
    opened: Callable[..., TaskManager],
    rows: list[dict[str, Any]],
    change: dict[str, Any],
    statuses: dict[int, int],
    skips: list[tuple[int, int]],
    errors: str | None,
) -> None:
    """Each branch of the rule gives the expected statuses, skips and errors."""
    manager = opened(*rows, cleanup_constraints={"priority": []})  # running tasks are not reset
    details = {name: change[name] for name in ("skip_targets", "errors") if name in change}
    task = {name: value for name, value in change.items() if name not in details}
    priority = fill(rows)[0]["priority"]
    manager.save_result({**result_of({"priority": priority}, **details), **task})
    found, found_skips, _ = state(manager)
    assert {priority: status for priority, status in found.items() if status is not None} == statuses
    assert found_skips == skips
    (stored,) = ask(manager, f"SELECT errors FROM diagnostics WHERE priority = {priority}")
    assert stored == (errors,)


# --- over several results ---


def save(manager: TaskManager, priority: int, status: STATUS = STATUS.OK, **details: Any) -> None:
    manager.save_result(result_of({"priority": priority}, status, **details))


def test_two_equal_rivals_do_not_skip_each_other(opened: Callable[..., TaskManager]) -> None:
    """Of two tasks of equal magnitude that list each other, exactly one is SKIPPED, in either order."""
    for order in ([1, 2], [2, 1]):
        manager = opened_again(opened, ffi(7), ffi(7))
        for priority in order:
            save(manager, priority, skip_targets=[101, 102])
        assert state(manager)[:2] == ({1: OK, 2: SKIPPED}, [(2, 1)])


def opened_again(opened: Callable[..., TaskManager], *rows: dict[str, Any]) -> TaskManager:
    """Open a new file of these rows, and delete the previous file."""
    for manager in getattr(opened_again, "managers", []):
        manager.close()
        Path(manager.todo_file).unlink(missing_ok=True)
    opened_again.managers = [opened(*rows)]  # type: ignore[attr-defined]
    manager: TaskManager = opened_again.managers[0]  # type: ignore[attr-defined]
    return manager


@pytest.mark.sample(3)
@pytest.mark.parametrize("listed", [None, [101], [103], [101, 103]])
@pytest.mark.parametrize("status", [STATUS.OK, STATUS.WARNING, STATUS.ERROR, STATUS.SKIPPED])
@pytest.mark.parametrize("saves", [1, 2])
def test_a_running_rival_stays_covered(
    opened: Callable[..., TaskManager], status: STATUS, listed: list[int] | None, saves: int
) -> None:
    """The result of a covered task skips no other task, but its diagnostics are stored."""
    manager = opened(ffi(5), ffi(9), ffi(12))
    manager.start_task(2)
    save(manager, 1, skip_targets=[102])
    assert state(manager) == ({1: OK, 2: SKIPPED, 3: None}, [(2, 1)], {1})
    for _ in range(saves):
        save(manager, 2, status, skip_targets=listed)
        assert state(manager) == ({1: OK, 2: SKIPPED, 3: None}, [(2, 1)], {1, 2})


def test_a_covered_task_that_runs(opened: Callable[..., TaskManager]) -> None:
    """When no task covers it any more, it is STARTED until its result or a release comes, and pending after that."""
    manager = opened(*[ffi(5)] * 2, *[ffi(9)] * 5)
    manager.start_tasks([3, 4])
    claimed = manager.claim_tasks(2, priority=[5, 6])
    save(manager, 1, skip_targets=[103, 104, 105, 106, 107])
    assert manager.save_result(result_of(claimed[0])) is STATUS.SKIPPED
    manager.release_tasks([4])
    save(manager, 1)
    assert state(manager)[0] == {1: OK, 2: None, 3: STARTED, 4: None, 5: None, 6: STARTED, 7: None}
    assert manager.summary["STARTED"] == 2
    assert [task["priority"] for task in manager.get_tasks(9)] == [2, 4, 5, 7]
    assert manager.save_result(result_of(claimed[1])) is STATUS.OK


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
def test_the_order_of_the_results(opened: Callable[..., TaskManager], order: tuple[int, ...]) -> None:
    """Of three stars in a row, the second is covered by the first, and covers the third no more."""
    manager = opened(ffi(5), ffi(6), ffi(7))
    listed = {1: [102], 2: [101, 103], 3: [102]}
    manager.start_tasks([1, 2, 3])
    for priority in order:
        save(manager, priority, skip_targets=listed[priority] if priority != 3 else None)
    while (task := manager.get_task()) is not None:
        manager.save_result(result_of(task, skip_targets=listed[task["priority"]] if task["priority"] != 3 else None))
    assert state(manager)[:2] == ({1: OK, 2: SKIPPED, 3: OK}, [(2, 1)])


def test_its_own_verdict_stays(opened: Callable[..., TaskManager]) -> None:
    """A task whose own result says that a brighter star covers it stays SKIPPED, whatever happens to that star."""
    manager = opened(ffi(5), ffi(9), ffi(4), secondary(104, 105), tpf(105))
    save(manager, 2, skip_targets=[101])
    save(manager, 4, skip_targets=[105])
    for change in (
        lambda: save(manager, 1),
        lambda: save(manager, 1, STATUS.ERROR, skip_targets=[102]),
        lambda: manager.reset_tasks(priority=[1, 5]),
        lambda: save(manager, 3, skip_targets=[101]),
        lambda: save(manager, 5, skip_targets=[]),
    ):
        change()
        statuses, skips, results = state(manager)
        assert (statuses[2], statuses[4]) == (SKIPPED, SKIPPED)
        assert {(2, 1), (4, 5)} <= set(skips)
        assert results >= {2, 4}
    manager.reset_tasks(priority=[2, 4])
    assert state(manager)[0] | {3: OK, 5: OK} == {1: SKIPPED, 2: None, 3: OK, 4: None, 5: OK}


def test_a_chosen_task_that_is_covered(opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture) -> None:
    """A reset deletes its diagnostics, leaves it SKIPPED and says so, unless all that cover it are chosen too."""
    manager = opened(ffi(5), ffi(6), ffi(9))
    for priority, listed in ((3, []), (1, [103]), (2, [103])):
        save(manager, priority, skip_targets=listed)
    assert state(manager) == ({1: OK, 2: OK, 3: SKIPPED}, [(3, 1), (3, 2)], {1, 2, 3})
    assert manager.reset_tasks(priority=[1, 3]) == {"OK": 1}
    assert state(manager) == ({1: None, 2: OK, 3: SKIPPED}, [(3, 2)], {2})
    assert "1 task still SKIPPED, covered by tasks that were not chosen" in caplog.text
    assert manager.reset_tasks(priority=[2, 3]) == {"OK": 1, "SKIPPED": 1}
    assert state(manager) == ({1: None, 2: None, 3: None}, [], set())


def test_a_finished_rival_keeps_its_diagnostics(opened: Callable[..., TaskManager]) -> None:
    """A rival that was OK becomes SKIPPED and keeps its row of diagnostics."""
    manager = opened(ffi(5), ffi(9))
    save(manager, 2, mean_flux=3.0)
    save(manager, 1, skip_targets=[102])
    assert state(manager) == ({1: OK, 2: SKIPPED}, [(2, 1)], {1, 2})


def test_a_second_result_undoes_what_the_first_had_skipped(opened: Callable[..., TaskManager]) -> None:
    """Rivals return to pending unless the second result skips them too; no row is written twice."""
    manager = opened(ffi(5), ffi(9), ffi(8))
    save(manager, 1, skip_targets=[102, 103])
    save(manager, 1, skip_targets=[103])
    assert state(manager) == ({1: OK, 2: None, 3: SKIPPED}, [(3, 1)], {1})
    save(manager, 1, skip_targets=[103])
    assert state(manager) == ({1: OK, 2: None, 3: SKIPPED}, [(3, 1)], {1})


def test_what_another_task_skips_stays_skipped(opened: Callable[..., TaskManager]) -> None:
    """A task that two other tasks cover returns to pending only when neither covers it."""
    manager = opened(ffi(5), ffi(6), ffi(9))
    save(manager, 1, skip_targets=[103])
    save(manager, 2, skip_targets=[103])
    save(manager, 1)
    assert state(manager)[:2] == ({1: OK, 2: OK, 3: SKIPPED}, [(3, 2)])
    save(manager, 2)
    assert state(manager)[:2] == ({1: OK, 2: OK, 3: None}, [])


def test_a_chain_goes_back_to_the_end(opened: Callable[..., TaskManager]) -> None:
    """A task that becomes SKIPPED covers no other, and the tasks that it covered return to pending, without results."""
    manager = opened(ffi(1), ffi(2), ffi(3), ffi(4))
    save(manager, 3, skip_targets=[104])
    save(manager, 2, skip_targets=[103])
    assert state(manager) == ({1: None, 2: OK, 3: SKIPPED, 4: None}, [(3, 2)], {2, 3})
    save(manager, 1, skip_targets=[102])
    assert state(manager) == ({1: OK, 2: SKIPPED, 3: None, 4: None}, [(2, 1)], {1, 2})
    save(manager, 1)
    assert state(manager) == ({1: OK, 2: None, 3: None, 4: None}, [], {1})


@pytest.mark.parametrize("in_memory", [False, True])
def test_opening_returns_an_errors_rivals_to_pending(todo: Callable[..., Path], in_memory: bool) -> None:
    """If opening returns an ERROR to pending, the tasks that it skipped return too."""
    target = todo(ffi(5), ffi(9), ffi(3), ffi(9))
    with TaskManager(target) as manager:
        save(manager, 1, STATUS.ERROR, skip_targets=[102])
        save(manager, 3, skip_targets=[104])
    with TaskManager(target, load_into_memory=in_memory) as again:
        assert again.get_number_tasks() == 2
        if in_memory:
            again.backup()
        assert state(again) == ({1: None, 2: None, 3: OK, 4: SKIPPED}, [(4, 3)], {3})


def test_many_tasks_go_back_at_once(todo: Callable[..., Path]) -> None:
    """One opening returns 5,000 errors, each with a rival, to pending."""
    number = 5_000
    rows = [ffi(5, status=ERROR) for _ in range(number)] + [ffi(9, status=SKIPPED) for _ in range(number)]
    target = todo(*rows)
    skips = ", ".join(str((number + rival, rival)) for rival in range(1, number + 1))
    with TaskManager(target, reset=False) as manager:
        execute_sql(manager, f"INSERT INTO photometry_skipped VALUES {skips}")
    with TaskManager(target) as again:
        assert again.get_number_tasks() == 2 * number


def test_older_files_with_doubled_rows_and_circles(opened: Callable[..., TaskManager]) -> None:
    """Duplicate skips, and two tasks that skip each other, both from TASOC, are resolved."""
    manager = opened(ffi(5, status=SKIPPED), ffi(5, status=SKIPPED), ffi(9, status=SKIPPED))
    execute_sql(
        manager, *(f"INSERT INTO photometry_skipped VALUES {skip}" for skip in [(1, 2), (1, 2), (2, 1), (3, 1), (3, 1)])
    )
    rows = "INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (1, 'aperture', 1), (2, 'aperture', 1)"
    execute_sql(manager, rows)
    save(manager, 1)
    assert state(manager) == ({1: OK, 2: None, 3: None}, [], {1})


def test_a_stale_row_of_an_older_file(opened: Callable[..., TaskManager]) -> None:
    """A skip that TASOC left for a finished task does not change that task."""
    manager = opened(ffi(5), ffi(9))
    save(manager, 1)
    save(manager, 2)
    execute_sql(manager, "INSERT INTO photometry_skipped VALUES (2, 1)")
    save(manager, 1)
    assert state(manager) == ({1: OK, 2: OK}, [], {1, 2})


@pytest.mark.parametrize("status", [None, STARTED, SKIPPED, ERROR, ABORT])
def test_a_skip_by_a_task_that_covers_none(opened: Callable[..., TaskManager], status: int | None) -> None:
    """A pending task that TASOC left with a skip is not SKIPPED by a task without a result, or with one that failed."""
    manager = opened(ffi(5, status=status), ffi(9), reset=False)
    execute_sql(manager, "INSERT INTO photometry_skipped VALUES (2, 1)")
    save(manager, 2)
    assert state(manager) == ({1: status, 2: OK}, [], {2})


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
def test_no_number_for_a_magnitude(opened: Callable[..., TaskManager], order: tuple[int, ...]) -> None:
    """A star whose magnitude SQL has set to NaN is the faintest, in whatever order the results come."""
    manager = opened(ffi(5), ffi(6), ffi(9))
    execute_sql(manager, "UPDATE todolist SET tmag = 'NaN' WHERE priority = 2")
    for priority in order:
        save(manager, priority, skip_targets=[101, 102, 103])
    assert state(manager)[0] == {1: OK, 2: SKIPPED, 3: SKIPPED}


def test_a_covered_task_is_not_started(opened: Callable[..., TaskManager]) -> None:
    """The error of a covered task names the task that covers it; a reset of that task frees both."""
    manager = opened(ffi(5), ffi(9))
    save(manager, 1, skip_targets=[102])
    with pytest.raises(TaskCoveredError, match=r"because task 1 covers its star.*reset_tasks\(priority=1\)"):
        manager.start_tasks([2])
    manager.reset_tasks(priority=1)
    manager.start_tasks([2])


def test_a_reset_of_a_finished_task_with_a_cover(opened: Callable[..., TaskManager]) -> None:
    """A task that TASOC left finished although another task covers it becomes SKIPPED with its reset."""
    manager = opened(ffi(5), ffi(9))
    save(manager, 1)
    save(manager, 2)
    execute_sql(manager, "INSERT INTO photometry_skipped VALUES (2, 1)")
    manager.reset_tasks(priority=2)
    assert state(manager) == ({1: OK, 2: SKIPPED}, [(2, 1)], {1})


@pytest.mark.parametrize("listed", [[], [102]])
def test_an_error_that_tasoc_reset(opened: Callable[..., TaskManager], listed: list[int]) -> None:
    """If TASOC reset an ERROR and left its rival SKIPPED, the rival returns to pending with the next result."""
    manager = opened(ffi(8), ffi(5, status=SKIPPED))
    execute_sql(manager, "INSERT INTO photometry_skipped VALUES (2, 1)")
    assert manager.get_task(tmag_max=6) is None
    save(manager, 1, skip_targets=listed)
    assert state(manager) == (({1: SKIPPED, 2: None}, [(1, 2)], {1}) if listed else ({1: OK, 2: None}, [], {1}))
    task = manager.get_task(tmag_max=6)
    assert task is not None
    assert task["priority"] == 2


# --- as a property: against the rule in plain Python ---


results = st.lists(
    st.tuples(
        st.integers(0, 13), st.sampled_from([OK, OK, ERROR, SKIPPED]), st.lists(stars, max_size=5), st.booleans()
    ),
    max_size=14,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_a_field, results=results, reopens=st.booleans())
def test_the_rule_as_a_property(
    tmp_path: Path, rows: list[dict[str, Any]], results: list[tuple[int, int, list[int], bool]], reopens: bool
) -> None:
    """In random crowded fields, after any results, the file agrees with the rule in plain Python."""
    directory = tmp_path / "field"
    directory.mkdir()
    try:
        model = Model(rows)
        with TaskManager(make_file(directory / "todo.sqlite", rows)) as manager:
            for number, status, listed, is_started in results:
                priority = 1 + number % len(rows)
                if is_started and model.status[priority] in (None, STARTED):
                    manager.start_task(priority)
                    model.start(priority)
                manager.save_result(result_of({"priority": priority}, status, skip_targets=listed))
                model.save(priority, status, listed)
                assert state(manager) == (model.status, sorted(model.skips), model.diagnostics)
            if reopens:
                manager.close()
                model.open()
                with TaskManager(directory) as again:
                    assert state(again) == (model.status, sorted(model.skips), model.diagnostics)
    finally:
        shutil.rmtree(directory)


def tasoc_tables(rows: list[dict[str, Any]], listed: list[set[int]]) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """Return statuses and skips as TASOC's class writes them: each result changes its rivals at once."""
    tasks = fill(rows)
    statuses: dict[int, int] = {}
    skips = set()
    for task, stars_in_aperture in zip(tasks, listed, strict=True):
        priority, source = task["priority"], task["datasource"]
        if priority in statuses:
            continue
        same = [t for t in tasks if all(t[name] == task[name] for name in FIELD)]
        others = [t for t in same if t["starid"] in stars_in_aperture - {task["starid"]}]
        primary = [t for t in others if f"tpf:{t['starid']}" == source and t["datasource"] == "tpf"]
        is_secondary = source in {f"tpf:{star}" for star in stars_in_aperture - {task["starid"]}}
        sources = {source, f"tpf:{task['starid']}"} if source == "tpf" else {source}
        rivals = [t for t in others if t["datasource"] in sources]
        is_brightest = all(priority < t["priority"] for t in rivals)
        statuses[priority] = OK if is_brightest and not is_secondary else SKIPPED
        if is_secondary:
            skips |= {(priority, t["priority"]) for t in primary}
        elif is_brightest:
            statuses |= {t["priority"]: SKIPPED for t in rivals}
            skips |= {(t["priority"], priority) for t in rivals}
        else:
            skips.add((priority, min(t["priority"] for t in rivals)))
    return statuses, sorted(skips)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_a_field, listed=st.lists(st.sets(stars, max_size=4), min_size=14, max_size=14))
def test_in_order_of_brightness(tmp_path: Path, rows: list[dict[str, Any]], listed: list[set[int]]) -> None:
    """One worker, on a list sorted by magnitude, writes the tables that TASOC's class writes."""
    rows = [{**row, "tmag": float(number)} for number, row in enumerate(rows)]
    directory = tmp_path / "field"
    directory.mkdir()
    try:
        with TaskManager(make_file(directory / "todo.sqlite", rows)) as manager:
            while task := manager.get_task():
                manager.start_task(task["priority"])
                manager.save_result(result_of(task, skip_targets=sorted(listed[task["priority"] - 1])))
            statuses, skips, _ = state(manager)
        assert (statuses, skips) == tasoc_tables(rows, listed[: len(rows)])
    finally:
        shutil.rmtree(directory)
