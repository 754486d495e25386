"""The executors that the guide names: 300 tasks, of which one kills its worker, in a run that is stopped once."""

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.lists import make_file, many, query
from tests.support.paths import ROOT
from tests.support.processes import running_command, wait_until

pytestmark = pytest.mark.cluster

#: The executors of the guide's table, with the packages that their factories import.
NAMED = re.findall(r"^\| \S+ \| `(\S+:\S+)` \|", (ROOT / "docs" / "hpc.md").read_text(), flags=re.MULTILINE)
NEEDS = {"executors:dask": "distributed", "ray_executor:RayExecutor": "ray"}
TASKS = 300


@pytest.mark.parametrize("executor", NAMED)
def test_300_tasks_with_a_death_and_a_stop(tmp_path: Path, request: pytest.FixtureRequest, executor: str) -> None:
    """A stopped run has saved each task that had begun, and a second run the rest; a fatal task is an ERROR."""
    module, _, factory = executor.partition(":")
    package = NEEDS.get(executor, factory if module == "executors" else module)
    if find_spec(package.partition(".")[0]) is None:
        pytest.skip(f"the package {package} is not installed")
    environment = request.getfixturevalue("cluster").environment if package == "dask_jobqueue" else os.environ
    path = make_file(tmp_path / "todo.sqlite", many(TASKS))
    begun = tmp_path / "begun"
    settings = {
        **environment,
        "BEGUN": str(begun),
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}",
    }
    command = [sys.executable, "-m", "photometry_tasks.cli", "run", str(path), "--jobs", "2", "--executor", executor]
    command.append("tests.support.functions:task_5_dies_anywhere")
    how = {"cwd": tmp_path, "env": settings, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with running_command(command, **how) as process:
        wait_until(lambda: begun.exists() and len(begun.read_text().splitlines()) >= TASKS // 3, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "photometry_tasks/" not in errors  # no traceback
    saved = {n for (n,) in query(path, "SELECT priority FROM diagnostics")}
    # Some executors notice a death after seconds; after a signal, such a task is pending.
    assert saved | {5} == set(map(int, begun.read_text().split()))
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL")[0][0] > 0
    run = subprocess.run(command, cwd=tmp_path, env=settings, stderr=subprocess.PIPE, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    failed = {n for (n,) in query(path, "SELECT priority FROM todolist WHERE status = 2")}
    assert 5 in failed
    assert len(failed) == 1 or package.startswith("d")  # Dask also blames tasks that were on a dying worker each time
    assert query(path, "SELECT count(*) FROM todolist WHERE status = 1") == [(TASKS - len(failed),)]
