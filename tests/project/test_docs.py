"""The documentation builds without warnings, and its blocks run unchanged."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.lists import empty_list, make_file, many, query
from tests.support.paths import ROOT
from tests.support.target_lists import MIT

DOCS = ROOT / "docs"
SLURM = ROOT / "examples" / "slurm"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
#: The language of blocks that need a cluster or take long: they are only shown.
SHOWN = "console"


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


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
    """The guide names all scripts for SLURM, and no other scripts."""
    named = set(re.findall(r"`(\w+\.(?:sh|py))`", (DOCS / "hpc.md").read_text()))
    assert named == {path.name for path in SLURM.iterdir() if path.is_file()}


def run_script(name: str, folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a job script as SLURM would, with replacements for srun and sbatch."""
    sbatch = folder / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text('#!/bin/sh\necho "sbatch $*"\n')
    sbatch.chmod(0o755)
    (folder / "dask_client.py").write_text((SLURM / "dask_client.py").read_text())
    settings = {**environment(), "SLURM_JOB_ID": "4711", **variables}
    settings["PATH"] = f"{sbatch.parent}:{settings['PATH']}"
    command = ["bash", str(SLURM / name), "todo.sqlite", "tests.support.functions:good", *options]
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("one_node.sh", {"SLURM_CPUS_PER_TASK": "2"}),
        ("mpi.sh", {"SLURM_NTASKS": "3", "LAUNCH": "mpiexec -n 3"}),
        ("dask.sh", {"SLURM_NTASKS": "1", "LAUNCH": ""}),
        ("chain.sh", {"SLURM_CPUS_PER_TASK": "2"}),
    ],
)
def test_the_scripts(tmp_path: Path, name: str, variables: dict[str, str]) -> None:
    """Each script runs a list to its end, with mpiexec or nothing instead of srun, and leaves no file behind."""
    path = make_file(tmp_path / "todo.sqlite", many(30))
    run = run_script(name, tmp_path, **variables)
    assert run.returncode == 0, run.stderr
    assert "sbatch" not in run.stdout
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(0,)]
    assert {other.name for other in tmp_path.iterdir()} <= {"todo.sqlite", "bin", "dask_client.py", "__pycache__"}


def test_the_array(tmp_path: Path, server_database: Engine) -> None:
    """Two jobs of the array together run a list on a server to its end."""
    url = empty_list(server_database, many(30))
    settings = {**environment(), "SLURM_CPUS_PER_TASK": "1"}
    command = ["bash", str(SLURM / "array.sh"), url, "tests.support.functions:good"]
    jobs = [subprocess.Popen(command, cwd=tmp_path, env=settings) for _ in range(2)]
    assert [job.wait(120) for job in jobs] == [0, 0]
    assert query(url, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(1, 30)]


@pytest.mark.parametrize(("options", "goes_on"), [(["--limit", "3"], True), (["--stop-after", "0"], False)])
def test_the_chain(tmp_path: Path, options: list[str], goes_on: bool) -> None:
    """If tasks are pending, the job submits itself again with the same arguments, unless it has finished no task."""
    make_file(tmp_path / "todo.sqlite", many(5))
    run = run_script("chain.sh", tmp_path, *options)
    assert run.returncode == (0 if goes_on else 1), run.stderr
    again = f"sbatch --dependency=afterany:4711 {SLURM / 'chain.sh'} todo.sqlite tests.support.functions:good"
    assert (f"{again} {' '.join(options)}" in run.stdout) == goes_on
    assert ("No task was finished" in run.stderr) == (not goes_on)
