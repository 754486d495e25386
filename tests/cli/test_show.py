"""`errors` and `show`: the failures of a list, and the tasks of one star."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from photometry_tasks import STATUS, TaskManager
from tests.support import old_files
from tests.support.commands import Call
from tests.support.lists import many


@pytest.fixture
def measured(todo: Callable[..., Any]) -> Any:
    """Return a list with two failures of one kind, one of another, a result that covers a star, and a pending task."""
    path = todo(*({"tmag": float(number), "camera": 2 if number == 4 else 1} for number in range(1, 7)))
    results: dict[int, dict[str, Any]] = {
        1: {"skip_targets": [105], "mean_flux": 17e3, "extra": {"chi2": 3.5}},
        2: {"errors": ["Traceback\n[red]ValueError: no stamp for TIC 102"], "kind": "ValueError"},
        3: {"errors": ["Traceback\n[red]ValueError: no stamp for TIC 103"], "kind": "ValueError"},
        4: {"errors": ["the sky is too bright"]},
    }
    with TaskManager(path, version="v1") as manager:
        for task in manager.claim_tasks(4):
            details = results[task["priority"]]
            status = STATUS.ERROR if "errors" in details else STATUS.OK
            manager.save_result({**task, "status": status, "method_used": "a", "time": 1.0, "details": details})
    return path


def join_blanks(text: str) -> str:
    """Return a text without its line breaks and the padding of its tables."""
    return " ".join(text.split())


@pytest.mark.sample(3)
@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            [],
            (
                " 2 ValueError [red]ValueError: no stamp for TIC # ",
                " 1 not given the sky",
                "2 (TIC 102)",
            ),
        ),
        (["--camera", "2"], (" 1 not given the sky is too bright",)),
        (["--camera", "3"], ("No failure. No task has camera 3; the list has 1–2.",)),
        (
            ["--priority", "2", "--priority", "1"],
            (
                "Task 1, TIC 101, OK: no errors\n\n",
                "Task 2, TIC 102, ERROR (ValueError):\nTraceback\n[red]ValueError: no stamp for TIC 102\n",
            ),
        ),
        (["--starid", "104"], ("Task 4, TIC 104, ERROR:\nthe sky is too bright",)),
        (["--starid", "5"], ("Error: No task has starid 5; the list has 101–106.",)),
        (["--starid", "106"], ("Task 6, TIC 106, PENDING: no errors",)),
    ],
)
def test_errors(measured: Any, call: Call, arguments: list[str], says: tuple[str, ...]) -> None:
    """Errors are grouped by kind and message; a task that is named has its whole error."""
    run = call("errors", measured, *arguments)
    assert [text for text in says if join_blanks(text) not in join_blanks(run.stdout + run.stderr)] == []
    assert run.returncode == (arguments[-1:] == ["5"])


def test_as_json(measured: Path, call: Call) -> None:
    """With --json, both commands print everything for a program."""
    first, second = json.loads(call("errors", measured, "--json").stdout)
    assert {"kind": "ValueError", "count": 2, "first": 2, "last": 3, "starid": 102}.items() <= first.items()
    assert second["message"] == "the sky is too bright"
    (task,) = json.loads(call("errors", measured, "--starid", "102", "--json").stdout)
    assert task["errors"].startswith("Traceback\n")
    (star,) = json.loads(call("show", measured, "101", "--json").stdout)
    assert (star["covers"][0]["priority"], star["result"]["extra"]) == (5, {"chi2": 3.5})
    assert star["attempts"][0]["version"] == "v1"


@pytest.mark.sample(3)
@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("star", "says"),
    [
        (
            "101",
            (
                "Task 1: TIC 101, tmag 1.0, sector 1, camera 1, CCD 1, ffi, OK\nCovers task 5 (TIC 105)\n",
                *("mean_flux 17000 electron / s", "version v1", "extra_chi2 3.5"),
                *("Attempts at task 1, times in UTC\n1: 20", ", OK, worker 1 on ", ", version 'v1'"),
            ),
        ),
        ("102", ("[red]ValueError: no stamp for TIC 102", "ERROR (ValueError), worker 1 on ")),
        ("105", (", ffi, SKIPPED\nCovered by task 1 (TIC 101)\nTask 5 has no attempts yet.",)),
        ("106", ("PENDING", "Task 6 has no attempts yet.")),
        ("99", ("TIC=99: the list lacks this star; the nearest that it has: TIC 101.",)),
        ("1000", ("TIC=1000: the list lacks this star; the nearest that it has: TIC 106.",)),
        ("x", ("'x' is not a valid integer",)),
    ],
)
def test_a_star(measured: Any, call: Call, star: str, says: tuple[str, ...]) -> None:
    """`show` prints the tasks of a star with results, covers and attempts; an unknown star is told the nearest ones."""
    run = call("show", measured, star)
    assert [text for text in says if join_blanks(text) not in join_blanks(run.stdout + run.stderr)] == []
    assert run.returncode == {"99": 1, "1000": 1, "x": 2}.get(star, 0)


def test_other_lists(todo: Callable[..., Path], call: Call, tmp_path: Path) -> None:
    """Both commands read an empty list, a list without failures, and an old file."""
    empty = call("show", todo(), "5")
    assert (empty.returncode, "TIC=5: the list has no tasks." in empty.stderr) == (1, True)
    assert call("errors", todo(*many(2))).stdout == "No task has failed.\n"
    old = old_files.make_old_file(tmp_path / "old.sqlite", "3.0")
    for run in (call("errors", old), call("errors", old, "--priority", "1")):
        assert run.returncode == 0, run.stderr
