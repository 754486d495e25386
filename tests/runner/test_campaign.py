"""Campaigns of several runs: retries, the brake, kinds of failure, versions and undo, with real workers."""

import csv
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidArgumentError, TooManyErrorsError
from photometry_tasks.export import export_tasks
from photometry_tasks.maintenance.status import get_attempts, get_status
from photometry_tasks.runner import run_tasks
from tests.support import campaigns
from tests.support.commands import Call
from tests.support.lists import empty_list, many, query
from tests.support.paths import ROOT

pytestmark = pytest.mark.both_databases


def run(target: Any, function: Any, version: str) -> Counter[str | None]:
    with TaskManager(target, version=version, retries=1) as manager:
        return run_tasks(manager, function, jobs=2, task_timeout=1.5).kinds


@pytest.mark.sample(2)
def test_a_campaign(todo: Callable[..., Any], tmp_path: Path) -> None:
    """Three runs with one retry, a reset of what version 2 mends, an undo, and an export: every count is explained."""
    target = todo(*many(800))
    once = {
        "ValueError": len(campaigns.PERMANENT),
        f"{campaigns.__name__}.NoMaskError": len(campaigns.HEALS),
        "signal SIGKILL": len(campaigns.DIES),
        "timeout": len(campaigns.HANGS),
    }
    assert run(target, campaigns.version1, "v1") == once
    assert run(target, campaigns.version1, "v1") == once  # the retry
    assert run(target, campaigns.version1, "v1") == {}  # nothing is left to retry
    failed = sum(once.values())
    found = get_status(target)["status"]
    assert (found["OK"], found["ERROR"], found["ABORT"]) == (800 - failed - 2, failed, 2)
    with TaskManager(target, retries=1, version="v2", reset=False) as manager:
        assert manager.reset_tasks(kind="NoMaskError", not_made_by="v2") == {"ERROR": len(campaigns.HEALS)}
        assert manager.undo_reset() == {"ERROR": len(campaigns.HEALS)}
        assert manager.reset_tasks(kind="NoMaskError", not_made_by="v2") == {"ERROR": len(campaigns.HEALS)}
    assert run(target, campaigns.version2, "v2") == {}
    found = get_status(target)
    left = failed - len(campaigns.HEALS)
    assert (found["status"]["OK"], found["status"]["ERROR"]) == (800 - left - 2, left)
    assert {row["version"]: row["results"] for row in found["versions"]} == {
        "v1": 800 - len(campaigns.HEALS),
        "v2": len(campaigns.HEALS),
    }
    path = tmp_path / "all.csv"
    assert export_tasks(target, path, made_by="v2") == len(campaigns.HEALS)
    assert {row["extra_version"] for row in csv.DictReader(path.read_text().splitlines())} == {"2"}
    hows = Counter(query(target, "SELECT how, count(*) FROM photometry_tasks_attempts GROUP BY how"))
    assert hows == {("OK", 800 - failed - 2 + len(campaigns.HEALS)): 1, ("ERROR", 2 * failed): 1, ("ABORT", 4): 1}
    (memory,) = {row["peak_memory"] is not None for row in get_attempts(target, 1)}
    assert memory
    assert get_attempts(target, campaigns.HANGS[0])[0]["peak_memory"] is None  # its process was killed


BRAKES: dict[str, tuple[Any, str, str, bool]] = {
    "an import": (campaigns.always_fails, "ModuleNotFoundError", "No module named", False),
    "errors that are returned": (campaigns.returns_errors, "a kind that is not given", "here", True),
    "a path for all": (campaigns.same_path, "invalid result", "another task has the light-curve path", False),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize(("function", "kind", "error", "in_memory"), BRAKES.values(), ids=BRAKES)
def test_the_brake(todo: Callable[..., Any], in_memory: bool, function: Any, kind: str, error: str) -> None:
    """If tasks in a row fail in the same way, the run ends, and they are pending without a counted failure."""
    target = todo(*many(100))
    with TaskManager(target, load_into_memory=in_memory) as manager:
        with pytest.raises(TooManyErrorsError, match=rf"failed in the same way on .* \({kind}\).*{error}"):
            run_tasks(manager, function, jobs=2, max_errors_in_a_row=20)
        assert (manager.summary["ERROR"], manager.summary["STARTED"]) == (0, 0)
        assert manager.get_number_tasks() == 100 - (function is campaigns.same_path)
    hows = dict(
        query(target, "SELECT how, count(*) FROM photometry_tasks_attempts WHERE kind IS NOT NULL GROUP BY how")
    )
    assert hows.keys() <= {"released"}
    assert query(target, "SELECT count(*) FROM photometry_tasks_attempts WHERE counts") in ([(0,)], [])
    with TaskManager(target, retries=0) as manager:
        assert run_tasks(manager, campaigns.good, jobs=1).errors == 0
        assert manager.summary["OK"] == 100


@pytest.mark.files_only
def test_what_sets_the_brake_back(todo: Callable[..., Any]) -> None:
    """Failures of other kinds, results, and tasks that had failed before do not stop a run; 0 never does."""
    target = todo(*many(60))
    run = partial(run_tasks, jobs=1, executor=ThreadPoolExecutor)
    with TaskManager(target) as manager:
        report = run(manager, campaigns.fails_in_turn, max_errors_in_a_row=2)
        assert report.kinds == {"ValueError": 30, "KeyError": 30}
    with TaskManager(target) as manager:
        # All tasks had failed before.
        assert run(manager, campaigns.always_fails, max_errors_in_a_row=5).errors == 60
        manager.reset_tasks(everything=True)
        assert run(manager, campaigns.always_fails, max_errors_in_a_row=0).errors == 60
        manager.reset_tasks(everything=True)
        with pytest.raises(TooManyErrorsError, match="OSError"):
            run(manager, campaigns.fails_from_task_3, max_errors_in_a_row=5)
        assert manager.summary["OK"] == 2
        with pytest.raises(InvalidArgumentError, match="max_errors_in_a_row=-1"):
            run_tasks(manager, campaigns.good, max_errors_in_a_row=-1)


def test_failed_tasks_come_last(todo: Callable[..., Any]) -> None:
    """A run first runs the tasks that have not failed since their last reset by hand."""
    target = todo(*many(12))
    with TaskManager(target) as manager:
        for task in manager.claim_tasks(4):
            manager.save_result({**task, "status": STATUS.ERROR, "method_used": "x", "time": 1.0})
        manager.reset_tasks(priority=3)
    with TaskManager(target) as manager:
        run_tasks(manager, campaigns.good, jobs=1, executor=ThreadPoolExecutor)
    ended = query(target, "SELECT priority FROM photometry_tasks_attempts WHERE how = 'OK' ORDER BY attempt")
    order = [priority for (priority,) in ended]
    assert order[-3:] == [1, 2, 4]
    assert order[:-3] == [3, *range(5, 13)]


def test_the_commands(todo: Callable[..., Any], call: Call) -> None:
    """`run` and `work` have exit codes for the brake and for `--fail`, and name kinds, retries and the next command."""
    target = todo(*many(150))
    command, name = ("work" if "://" in str(target) else "run"), campaigns.__name__
    braked = call(command, target, f"{name}:always_fails", "--jobs", "2")
    assert braked.returncode == 3
    assert "--max-errors-in-a-row 0" in braked.stderr
    assert "Traceback" not in braked.stderr
    released = "SELECT DISTINCT kind FROM photometry_tasks_attempts WHERE how = 'released' AND kind IS NOT NULL"
    assert query(target, released) == [("ModuleNotFoundError",)]
    options = ["--jobs", "1", "--max-errors-in-a-row", "0", "--retries", "0"]
    failed = call(command, target, f"{name}:fails_in_turn", *options, "--fail", "--pipeline-version", "v1")
    assert failed.returncode == 4
    assert re.search("Errors: 75 [KV]\\w+, 75 [KV]\\w+. Show them with `photometry-tasks errors", failed.stdout)
    assert "150 failed tasks have no retries left (--retries 0)." in failed.stdout
    idle = call(command, target, f"{name}:good", *options)
    assert (idle.returncode, "0 results" in idle.stdout) == (0, True)
    other = call(command, target, f"{name}:good", "--only-version", "--pipeline-version", "v2")
    assert (other.returncode, "other versions of the pipeline than 'v2': 'v1' (150 results)" in other.stderr) == (
        1,
        True,
    )
    healed = call(
        command, target, f"{name}:good", "--jobs", "1", "--retries", "1", "--pipeline-version", "v2", "--fail"
    )
    assert (healed.returncode, "150 results (0 errors)" in healed.stdout) == (0, True)
    shown = call("status", target).stdout
    assert "'v2'" in shown
    attempts = call("status", target, "--task", "1").stdout
    assert [line[:3] for line in attempts.splitlines() if line[:2] in ("1:", "2:", "3:")] == ["1: ", "2: ", "3: "]
    for word in ("released", "ERROR (KeyError)", "version 'v1'", "OK"):
        assert word in " ".join(attempts.split())


@pytest.mark.slow
def test_one_bad_node(server_database: Engine) -> None:
    """On a shared list, a node that only fails stops itself, and another node finishes the list."""
    url = empty_list(server_database, many(120))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    work = [sys.executable, "-m", "photometry_tasks.cli", "work", url, "--jobs", "1", "--max-errors-in-a-row", "30"]
    for function, code in (("always_fails", 3), ("good", 0)):
        node = subprocess.run(
            [*work[:5], f"{campaigns.__name__}:{function}", *work[5:]], env=environment, cwd=ROOT, timeout=120
        )
        assert node.returncode == code
    assert query(url, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(1, 120)]
    assert query(url, "SELECT count(*) FROM photometry_tasks_attempts WHERE counts") == [(0,)]
