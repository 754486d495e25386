"""`estimate` and `plan`: how long the rest takes, and how far a run comes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from photometry_tasks import TaskManager
from tests.support.commands import Call
from tests.support.lists import result_of


@pytest.fixture
def begun(todo: Callable[..., Any]) -> Any:
    """Return a list with 40 results of 10 minutes each, and 60 pending tasks."""
    path = todo(*({"tmag": n / 10} for n in range(100)))
    with TaskManager(path) as manager:
        manager.save_results(
            [{**result_of(task), "time": 600.0 + task["priority"]} for task in manager.claim_tasks(40)]
        )
    return path


@pytest.mark.sample(3)
@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["estimate"], ["60 tasks left: ", " of run time, after 6.9 h for the results so far.", "tasks at once, this"]),
        (["estimate", "--jobs", "3"], ["With 3 tasks at once, this takes ", " h to ", "In 4 of 5 cases"]),
        (["estimate", "--priority", "1"], ["No task is left. 1 matching task: 1 OK."]),
        (["plan", "--jobs", "2", "--hours", "0.5"], ["magnitude", "4–5", "of 60 tasks, up to priority 4", "left"]),
        (
            ["plan", "--jobs", "2", "--hours", "1000"],
            ["for 60 of 60 tasks, up to priority 100; 0 will"],
        ),
    ],
)
def test_what_it_says(begun: Any, call: Call, arguments: list[str], says: list[str]) -> None:
    """Both commands say what is left, in readable units, with limits."""
    run = call(arguments[0], begun, *arguments[1:])
    assert (run.returncode, run.stderr) == (0, "")
    for text in says:
        assert text in run.stdout
    found = json.loads(call(arguments[0], begun, *arguments[1:], "--json").stdout)
    assert found["tasks"] == (0 if "--priority" in arguments else 60)


def test_before_any_result(todo: Callable[..., Any], call: Call) -> None:
    """Without results, the commands name the command that measures some."""
    path = todo({}, {})
    for arguments in (["estimate", path], ["plan", path, "--jobs", "2", "--hours", "1"]):
        run = call(*arguments)
        assert run.returncode == 0, run.stderr
        assert "2 tasks left. No result has a run time yet; measure some with `photometry-tasks run" in run.stdout
