"""The documentation builds without warnings, and its blocks run unchanged."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.support.lists import empty_list, make_file, many, query
from tests.support.paths import ROOT
from tests.support.processes import running_command, wait_until
from tests.support.target_lists import MIT

DOCS = ROOT / "docs"
SLURM = ROOT / "examples" / "slurm"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
#: The language of blocks that need a cluster or take long: they are only shown.
SHOWN = "console"


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_it_builds(tmp_path: Path) -> None:
    """Sphinx builds all pages, with the docstrings of the code, without a warning."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    pages = {path.stem for path in tmp_path.glob("*.html")}
    assert {path.stem for path in DOCS.glob("*.md")} <= pages
    api, commands = ((tmp_path / f"{name}.html").read_text() for name in ("api", "cli"))
    for name in ("save_results", "reset_tasks", "get_random_task", "session", "run_tasks", "TodoFileInUseError"):
        assert name in api
    for name in ("--task-timeout", "--error-like", "--watch", "upgrade", "Example: photometry-tasks"):
        assert name in commands


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks(tmp_path: Path, page: str) -> None:
    """The blocks of a page run in order in one directory, and print the text blocks that follow them."""
    printed = ""
    (tmp_path / "targets.csv").write_text(MIT + "8196107,3,4,10.42,311.3757,-38.1012\n")
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text())
    assert {language for language, _ in blocks} <= {"sh", "python", "text", SHOWN}
    for number, (language, text) in enumerate(blocks):
        if language == "text":
            assert printed == text
        if language in ("text", SHOWN):
            continue
        if language == "python":
            (tmp_path / f"block_{number}.py").write_text(text)
            command = [sys.executable, f"block_{number}.py"]
        else:
            command = ["bash", "-euc", text]
        run = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert run.returncode == 0, f"{text}\n{run.stderr}"
        printed = run.stdout
    if page == "tutorial":
        # Every star has a result, except the star that a brighter star covers. The export has a line for each result.
        found = query(tmp_path / "todo.sqlite", "SELECT status, count(*) FROM todolist GROUP BY 1")
        assert found == [(1, 5), (5, 1)]
        assert len((tmp_path / "results.csv").read_text().splitlines()) == 6
        assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_links() -> None:
    """Each link from a page into the checkout leads to a file that exists."""
    for path in DOCS.glob("*.md"):
        text = path.read_text()
        for target in [*re.findall(r"\]\(([^)#]+)[^)]*\)", text), *re.findall(r"{literalinclude} (\S+)", text)]:
            assert target.startswith("https://") or (DOCS / target).exists(), f"{path.name}: {target}"


def test_every_script_is_named() -> None:
    """The guide names all scripts for SLURM, and no script that does not exist."""
    named = set(re.findall(r"`(\w+\.(?:sh|py))`", (DOCS / "hpc.md").read_text()))
    scripts = {path.name for path in SLURM.iterdir() if path.is_file()}
    assert scripts <= named <= scripts | {path.name for path in SLURM.parent.glob("*.py")}


@contextmanager
def script(
    name: str, folder: Path, *options: str, function: str = "good", programs: str = "", **variables: str
) -> Iterator[Any]:
    """Run a job script as SLURM would, with replacements for srun, squeue and scontrol, and for photometry-tasks."""
    (folder / "bin").mkdir()
    lines = {"squeue": 'echo "4711 $(($(date +%s) + 3600))"', "scontrol": 'echo "scontrol $*"'}
    if programs:
        lines["photometry-tasks"] = f'{programs}\nexec {sys.executable} -m photometry_tasks.cli "$@"'
    for program, line in lines.items():
        (folder / "bin" / program).write_text(f"#!/bin/sh\n{line}\n")
        (folder / "bin" / program).chmod(0o755)
    (folder / "dask_client.py").write_text((SLURM / "dask_client.py").read_text())
    settings = {**environment(), "SLURM_JOB_ID": "4711", **variables}
    settings["PATH"] = f"{folder / 'bin'}:{settings['PATH']}"
    command = ["bash", str(SLURM / name), "todo.sqlite", f"tests.support.functions:{function}", *options]
    with (
        (folder / "log").open("w") as log,
        running_command(command, cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a script that ends may leave its run


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("one_node.sh", {}),
        ("mpi.sh", {"SLURM_NTASKS": "3", "LAUNCH": "mpiexec -n 3"}),
        ("dask.sh", {"SLURM_NTASKS": "1", "LAUNCH": ""}),
        ("chain.sh", {}),
    ],
)
def test_the_scripts(tmp_path: Path, name: str, variables: dict[str, str]) -> None:
    """Each script runs a list to its end, with mpiexec or nothing instead of srun, and leaves no file behind."""
    path = make_file(tmp_path / "todo.sqlite", many(30))
    with script(name, tmp_path, **variables) as run:
        run.wait(120)
    log = (tmp_path / "log").read_text()
    assert run.returncode == 0, log
    assert "scontrol" not in log
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(0,)]
    left = {"todo.sqlite", "bin", "log", "dask_client.py", "__pycache__"}
    assert {other.name for other in tmp_path.iterdir()} <= left


@pytest.mark.slow
def test_the_array(tmp_path: Path, server_database: Engine) -> None:
    """Two jobs of the array together run a list on a server to its end."""
    url = empty_list(server_database, many(30))
    command = ["bash", str(SLURM / "array.sh"), url, "tests.support.functions:good", "--jobs", "1"]
    jobs = [subprocess.Popen(command, cwd=tmp_path, env=environment()) for _ in range(2)]
    assert [job.wait(120) for job in jobs] == [0, 0]
    assert query(url, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(1, 30)]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "goes_on"), [(["--limit", "3"], True), (["--stop-after", "0"], False)])
def test_the_chain(tmp_path: Path, options: list[str], goes_on: bool) -> None:
    """If tasks are pending, the job returns to the queue, unless it has finished no task."""
    make_file(tmp_path / "todo.sqlite", many(5))
    with script("chain.sh", tmp_path, *options) as run:
        run.wait(60)
    log = (tmp_path / "log").read_text()
    assert run.returncode == (0 if goes_on else 1), log
    assert ("scontrol requeue 4711" in log) == goes_on
    assert ("No task was finished" in log) == (not goes_on)


def test_a_chain_that_cannot_count(tmp_path: Path) -> None:
    """If the count of the tasks fails after the run, the script fails, and does not say that no task is pending."""
    path = make_file(tmp_path / "todo.sqlite", many(3))
    fails = "if test $1 = status -a -e begun; then exit 5; fi"
    with script("chain.sh", tmp_path, function="leaves_a_line", programs=fails) as run:
        run.wait(60)
    log = (tmp_path / "log").read_text()
    assert run.returncode == 1, log
    assert "No task is pending" not in log
    assert query(path, "SELECT count(*) FROM diagnostics") == [(3,)]


@pytest.mark.parametrize(
    ("name", "number", "variables"),
    [
        ("chain.sh", signal.SIGTERM, {}),
        ("mpi.sh", signal.SIGUSR1, {"SLURM_NTASKS": "3", "LAUNCH": "mpiexec -n 3"}),
    ],
)
def test_a_signal_to_the_script(tmp_path: Path, name: str, number: int, variables: dict[str, str]) -> None:
    """A signal to the script alone stops the run in an orderly way, and the script has the exit code of the run."""
    path = make_file(tmp_path / "todo.sqlite", many(30))
    begun, log = tmp_path / "begun", tmp_path / "log"
    with script(name, tmp_path, "--limit", "4", function="waits_from_task_3", **variables) as run:

        def wait_for(file: Path, *words: str) -> None:
            wait_until(lambda: file.exists() and set(words) <= set(file.read_text().split()), run)

        wait_for(begun, "3", "4")
        run.send_signal(number)
        wait_for(log, "stopping")
        (tmp_path / "go").touch()
        run.wait(60)
    assert run.returncode == 128 + number
    assert "scontrol" not in log.read_text()
    assert query(path, "SELECT status, count(*) FROM todolist GROUP BY 1 ORDER BY 1") == [(None, 26), (1, 4)]
