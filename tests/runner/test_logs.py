"""The log of a run: messages and warnings of the function, from every worker, with the star in each line."""

import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from photometry_tasks import TaskManager
from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.runner import run_tasks
from tests.support import functions
from tests.support.lists import many
from tests.support.paths import ROOT

#: The beginning of each line of a log.
HEAD = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) TIC (?P<star>\d+) "

MPI = [str(Path(sys.executable).with_name("mpiexec")), "-n", "2", sys.executable, "-m", "mpi4py.futures"]

#: Options that choose an executor, and the program that runs the command.
EXECUTORS = {
    "ours": ([], [sys.executable]),
    "threads": (["--executor", "concurrent.futures:ThreadPoolExecutor"], [sys.executable]),
    "processes": (["--executor", "concurrent.futures:ProcessPoolExecutor"], [sys.executable]),
    "mpi": (["--executor", "mpi4py.futures:MPIPoolExecutor"], MPI),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("executor", "options", "levels"),
    [
        ("ours", [], {"WARNING"}),
        ("ours", ["-v"], {"INFO", "WARNING"}),
        ("threads", ["--log-level", "debug"], {"DEBUG", "INFO", "WARNING"}),
        *((executor, ["--log-dir", "logs/here"], {"INFO", "WARNING"}) for executor in EXECUTORS),
        ("ours", ["--log-dir", "logs/here", "--log-level", "WARNING"], {"WARNING"}),
    ],
)
def test_every_executor(todo: Callable[..., Path], executor: str, options: list[str], levels: set[str]) -> None:
    """Each line of a message has the star of its task; with a folder, each worker process writes its own file."""
    path = todo(*many(4))
    choice, program = EXECUTORS[executor]
    command = [*program, "-m", "photometry_tasks", "run", str(path), "tests.support.functions:logs", *choice, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "always"}
    run = subprocess.run(
        [*command, "--jobs", "1"], env=environment, capture_output=True, text=True, cwd=path.parent, timeout=60
    )
    assert run.returncode == 0, run.stderr
    files = list(path.parent.glob("logs/here/*-*.log"))
    assert len(files) == ("--log-dir" in options)
    text = files[0].read_text() if files else run.stderr
    found = [match for line in text.splitlines() if (match := re.match(HEAD, line))]
    stars = [int(match["star"]) for match in found]
    assert {match["level"] for match in found} == levels
    assert sorted(set(stars)) == [101, 102, 103, 104]
    for star in set(stars):
        assert f"WARNING TIC {star} py.warnings: RuntimeWarning: overflow {star - 100}\n" in text
        # A thread of the function has its star only where no other task runs in the process.
        assert (f"WARNING TIC {star} pipeline: from a thread\n" in text) == (executor == "ours")
        assert (f"INFO TIC {star} second line \\x1b[31m\n" in text) == ("INFO" in levels)
    assert len([line for line in text.splitlines() if "overflow" in line]) == 4
    assert ("overflow" in run.stderr) == (not files)


def test_threads_leave_nothing(todo: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a run in threads, logging and warnings of the program are as before; a second run appends to the file."""
    before = logging.getLogger().handlers[:], logging.getLogger().level, warnings.showwarning
    with TaskManager(todo(*many(4))) as manager:
        for _ in range(2):
            with warnings.catch_warnings(action="always"):
                how: dict[str, Any] = {"log_dir": tmp_path / "logs", "executor": ThreadPoolExecutor}
                run_tasks(manager, functions.logs, jobs=2, limit=2, **how)
    (log,) = (tmp_path / "logs").iterdir()
    assert log.read_text().count("first line") == 4
    assert (logging.getLogger().handlers[:], logging.getLogger().level, warnings.showwarning) == before
    assert caplog.records


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"log_level": "LOUD"}, "log_level='LOUD': a level of logging is expected"),
        ({"log_level": 1.5}, "log_level=1.5"),
        ({"log_dir": ""}, "log_dir=''"),
        ({"log_dir": "/proc/none"}, "give another directory"),
    ],
)
def test_bad_logs(todo: Callable[..., Path], arguments: Any, says: str) -> None:
    """A level or a folder that cannot be is refused before a task starts."""
    with TaskManager(todo({})) as manager:
        with pytest.raises(InvalidArgumentError, match=says):
            run_tasks(manager, functions.good, jobs=1, **arguments)
        assert manager.get_number_tasks() == 1
