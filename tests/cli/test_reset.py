"""Resetting chosen tasks to pending."""

import os
import pty
import subprocess
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from photometry_tasks import STATUS, TaskManager
from tests.support.commands import COMMAND, Call
from tests.support.lists import ask, checksum, query, result_of
from tests.support.model import OK, SKIPPED
from tests.support.old_files import make_old_file
from tests.support.processes import kill, running, running_command

pytestmark = pytest.mark.both_databases


def fill(manager: TaskManager) -> None:
    """Save results: 1 and 2 OK, 3 and 4 ERROR, 5 WARNING and covers 6, which is SKIPPED; 7 is STARTED, 8 pending."""
    for priority in (1, 2):
        manager.save_result(result_of({"priority": priority}))
    manager.save_result(result_of({"priority": 3}, STATUS.ERROR, errors=["no stamp", "50% of it"]))
    manager.save_result(result_of({"priority": 4}, STATUS.ERROR, errors="too faint"))
    manager.save_result(result_of({"priority": 5, "starid": 105, "tmag": 4.0}, STATUS.WARNING, skip_targets=[106]))
    manager.start_task(7)


ROWS = [{"tmag": float(number), "camera": camera} for number, camera in enumerate((1, 2, 1, 2, 1, 1, 1, 2))]


def statuses(path: str | Path) -> list[int | None]:
    return [status for (status,) in query(path, "SELECT status FROM todolist ORDER BY priority")]


def state(path: str | Path) -> Any:
    """Return everything that must stay equal in an unchanged list: a whole file, or the rows on a server."""
    if "://" not in str(path):
        return checksum(Path(path)), list(Path(path).parent.iterdir())
    tables = ("todolist", "diagnostics", "photometry_skipped")
    return [query(path, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("choice", "counts", "back"),
    [
        ({"status": STATUS.ERROR}, {"ERROR": 2}, {3, 4}),
        ({"status": [STATUS.ERROR, 1]}, {"OK": 2, "ERROR": 2}, {1, 2, 3, 4}),
        ({"status": STATUS.WARNING}, {"WARNING": 1, "SKIPPED": 1}, {5, 6}),
        ({"error_like": "no stamp"}, {"ERROR": 1}, {3}),
        ({"error_like": "0% of"}, {"ERROR": 1}, {3}),
        ({"error_like": "0_ of"}, {}, set()),
        ({"camera": 1}, {"OK": 1, "ERROR": 1, "WARNING": 1, "SKIPPED": 1, "STARTED": 1}, {1, 3, 5, 6, 7}),
        ({"camera": 1, "status": ["FAILED"]}, ValueError, set()),
        ({"status": STATUS.ERROR, "camera": 2}, {"ERROR": 1}, {4}),
        ({"error_like": ""}, ValueError, set()),
        ({"status": 9}, ValueError, set()),
        ({"status": STATUS}, {"OK": 2, "ERROR": 2, "WARNING": 1, "SKIPPED": 1, "STARTED": 1}, set(range(1, 8))),
        ({"status": []}, {}, set()),
        ({"camera": []}, {}, set()),
        ({}, ValueError, set()),
        ({"status": None, "error_like": None}, ValueError, set()),
        ({"camera": None, "tmag_max": None}, ValueError, set()),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_reset_tasks(todo: Callable[..., Any], in_memory: bool, choice: Any, counts: Any, back: set[int]) -> None:
    """Chosen tasks, and tasks that only they skipped, return to pending without results, and are counted."""
    target = todo(*ROWS)
    manager = TaskManager(target, load_into_memory=in_memory)
    fill(manager)
    before = [status for (status,) in ask(manager, "SELECT status FROM todolist ORDER BY priority")]
    if "://" in str(target):  # a running task stays with its manager until that closes
        back = back - {7}
        counts = {name: number for name, number in counts.items() if name != "STARTED"} if back else counts
        before[6] = None
    if counts is ValueError:
        with pytest.raises(ValueError, match=r"(status|error_like)=|^No tasks are chosen.*everything=True"):
            manager.reset_tasks(**choice)
    else:
        assert manager.reset_tasks(**choice) == counts
    manager.close()
    after = statuses(target)
    assert after == [None if number in back else status for number, status in enumerate(before, start=1)]
    kept = query(target, "SELECT priority FROM diagnostics")
    assert {priority for (priority,) in kept} == {1, 2, 3, 4, 5} - back
    assert manager.summary["numtasks"] - sum(manager.summary[status.name] for status in STATUS) == after.count(None)


def test_they_are_handed_out_again(opened: Callable[..., TaskManager]) -> None:
    """A reset task is the next one, even after later tasks were returned."""
    manager = opened(*ROWS)
    fill(manager)
    task = manager.get_task(camera=1)
    assert task is None
    manager.reset_tasks(status=STATUS.OK)
    task = manager.get_task()
    assert task is not None
    assert task["priority"] == 1


def make(todo: Callable[..., Path]) -> Path:
    path = todo(*ROWS)
    with TaskManager(path) as manager:
        fill(manager)
    return path


def test_the_command(todo: Callable[..., Path], call: Call) -> None:
    """Without a terminal the command resets the chosen tasks only, not even tasks that opening would reset."""
    path = make(todo)
    run = call("reset", path, "--status", "warning", "--camera", "1", "--yes")
    assert run.returncode == 0, run.stderr
    assert "2 tasks (1 WARNING, 1 SKIPPED) returned to pending; `photometry-tasks undo " in run.stdout
    is_on_server = "://" in str(path)  # there closing releases unfinished tasks
    assert statuses(path) == [1, 1, 2, 2, None, None, None if is_on_server else 6, None]


def test_a_dry_run(todo: Callable[..., Path], call: Call) -> None:
    """A dry run prints the counts, and does not change the list."""
    path = make(todo)
    before = state(path)
    run = call("reset", path, "--status", "WARNING,ERROR", "--dry-run")
    counts = "4 tasks (2 ERROR, 1 WARNING, 1 SKIPPED)"
    assert run.stdout == f"{counts} would return to pending. Leave --dry-run out to reset them.\n"
    assert state(path) == before


def test_a_covered_task(todo: Callable[..., Path], call: Call) -> None:
    """A covered task alone loses its result and stays SKIPPED; the command says why."""
    path = todo({"tmag": 5.0}, {"tmag": 9.0})
    with TaskManager(path) as manager:
        manager.start_tasks([1, 2])
        for priority, listed in ((1, [102]), (2, [])):
            manager.save_result(result_of({"priority": priority}, skip_targets=listed))
    for options, verb, left in ((["--dry-run"], "would", [(1,), (2,)]), (["--yes"], "will", [(1,)])):
        run = call("reset", path, "--priority", "2", *options)
        assert f"1 chosen task {verb} lose the result and stay SKIPPED: a task that is not chosen covers" in run.stdout
        assert query(path, "SELECT priority FROM diagnostics ORDER BY 1") == left
    assert query(path, "SELECT status FROM todolist ORDER BY priority") == [(OK,), (SKIPPED,)]


def test_a_dry_run_on_an_older_file(tmp_path: Path, call: Call) -> None:
    """In a file of an older release the counts are as after an upgrade, and the file is not changed."""
    path = make_old_file(tmp_path / "todo.sqlite", "4.4")
    before = checksum(path)
    ((number, skipped),) = query(path, "SELECT sum(status = 1), sum(status = 5) FROM todolist")
    counted = call("reset", path, "--status", "OK", "--dry-run").stdout
    assert counted.startswith(f"{number + skipped} tasks ({number} OK, {skipped} SKIPPED) would return")
    assert checksum(path) == before


@pytest.mark.files_only
@pytest.mark.parametrize(
    "command", [["reset", "--status", "OK"], ["reset", "--everything", "--forget-history"], ["undo"]]
)
def test_a_refusal_on_an_older_file(tmp_path: Path, call: Call, command: list[str]) -> None:
    """A command that is refused does not upgrade an older file either."""
    path = make_old_file(tmp_path / "todo.sqlite", "5.0")
    before = checksum(path)
    assert call(command[0], path, *command[1:]).returncode in (1, 2)
    assert checksum(path) == before


def save_in_memory(connection: Connection, path: Path) -> None:
    manager = TaskManager(path, load_into_memory=True, backup_interval=None)
    for priority in (1, 2, 3):
        manager.save_result(result_of({"priority": priority}, STATUS.WARNING))
    connection.send("saved")
    connection.recv()


@pytest.mark.files_only
def test_results_in_a_log(todo: Callable[..., Path], call: Call) -> None:
    """Results that a killed manager logged are saved before tasks are chosen; a dry run counts them too."""
    path = todo(*ROWS)
    with running(save_in_memory, path) as (process, connection):
        assert connection.recv() == "saved"
        kill(process)
    before = checksum(path)
    run = call("reset", path, "--status", "WARNING", "--camera", "1", "--dry-run")
    assert "2 tasks (2 WARNING) would return to pending" in run.stdout
    assert checksum(path) == before
    run = call("reset", path, "--status", "WARNING", "--camera", "1", "--yes")
    assert "2 tasks (2 WARNING) returned to pending" in run.stdout
    assert statuses(path) == [None, 3, None, None, None, None, None, None]


@pytest.mark.files_only
def test_a_file_in_use(todo: Callable[..., Path], call: Call) -> None:
    """A file in use is refused before its tasks are counted."""
    path = make(todo)
    with TaskManager(path):
        run = call("reset", path, "--status", "OK", "--yes")
    assert run.returncode == 1
    assert run.stdout == ""
    assert "in use by another manager" in run.stderr


@pytest.mark.sample(3)
@pytest.mark.parametrize(("answer", "is_done"), [("n", False), ("y", True)])
def test_it_asks(todo: Callable[..., Path], answer: str, is_done: bool) -> None:
    """In a terminal the command asks before it deletes finished results, and resets only if the answer is yes."""
    path = make(todo)
    ours, theirs = pty.openpty()
    command = [COMMAND, "reset", str(path), "--priority", "2", "--priority", "4"]
    how = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with running_command(command, **how) as run:
        os.write(ours, f"{answer}\n".encode())
        output, _ = run.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "2 tasks (1 OK, 1 ERROR) will return to pending." in output
    assert "This deletes 1 finished result. Continue?" in output
    assert run.returncode == (0 if is_done else 1)
    assert statuses(path)[3] == (None if is_done else 2)


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "No tasks are chosen. Give --status"),
        (["--status", "ERROR,BAD"], "'BAD' is not one of UNKNOWN, OK"),
        (["--status", "PENDING"], "'PENDING' is not one of"),
        (["--tmag-min", "nan"], "tmag-min=nan"),
        (["--kind", ""], "kind=''"),
        (["--attempts-min", "0"], "0 is not in the range x>=1"),
        (["--everything", "--camera", "1"], "--everything chooses every task; leave it out"),
        (["--forget-history"], "give --everything too"),
        (["--status", "OK"], "This deletes 2 finished results; give --yes"),
        (["--everything"], "This deletes 4 finished results; give --yes"),
        (["--everything", "--forget-history"], "This deletes 4 finished results and the history; give --yes"),
    ],
)
def test_wrong_options(todo: Callable[..., Path], call: Call, options: list[str], says: str) -> None:
    """Invalid options are an error in one line, and the list is not changed."""
    path = make(todo)
    before = state(path)
    run = call("reset", path, *options)
    assert run.returncode in (1, 2)
    assert says in run.stderr
    assert state(path) == before
