"""The documentation: it builds without warnings, and what it shows runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import make_file, query
from .test_running import ROOT, many

DOCS = ROOT / "docs"
SLURM = ROOT / "examples" / "slurm"
#: Pages whose blocks are a user's; what is measured for minutes, the other pages tell how to measure.
PAGES = ("tutorial", "tasoc", "hpc")
BLOCK = re.compile(r"^```(\S+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_it_builds(tmp_path: Path) -> None:
    """Sphinx makes all pages of the docs and of the code's docstrings without a warning."""
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
    """The blocks of a page run one after the other in one directory, and print what stands below them."""
    printed = ""
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text())
    assert {language for language, _ in blocks} <= {"sh", "python", "text"}
    for number, (language, text) in enumerate(blocks):
        if language == "text":
            assert printed == text
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
        # Every star has a result, but for the one that a brighter star covers; the export has what it says.
        found = query(tmp_path / "todo.sqlite", "SELECT status, count(*) FROM todolist GROUP BY 1")
        assert found == [(1, 5), (5, 1)]
        assert len((tmp_path / "results.csv").read_text().splitlines()) == 6
        assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_links() -> None:
    """What the pages link to in the checkout is there."""
    for path in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            assert target.startswith("https://") or (DOCS / target).exists(), f"{path.name}: {target}"


def test_every_script_is_told_of() -> None:
    """The guide names each of the scripts for SLURM, and no others."""
    named = set(re.findall(r"`(\w+\.(?:sh|py))`", (DOCS / "hpc.md").read_text()))
    assert named == {path.name for path in SLURM.iterdir() if path.is_file()}


def run_script(name: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a job script as SLURM would, with another launcher in the place of srun."""
    settings = {"FUNCTION": "tests.photometry_functions:good", "LAUNCH": "", **variables}
    script = str(SLURM / name)
    return subprocess.run(
        ["bash", script], cwd=folder, env={**environment(), **settings}, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("one_node.sh", {"SLURM_CPUS_PER_TASK": "2"}),
        ("mpi.sh", {"SLURM_NTASKS": "3", "LAUNCH": "mpiexec -n 3"}),
        ("dask.sh", {"SLURM_NTASKS": "1", "SCRIPT": str(SLURM / "dask_run.py")}),
        ("chain.sh", {"SUBMIT": "false"}),
    ],
)
def test_the_scripts(tmp_path: Path, name: str, variables: dict[str, str]) -> None:
    """Each script runs a list to its end, with mpiexec or nothing in the place of srun, and leaves nothing behind."""
    path = make_file(tmp_path / "todo.sqlite", many(30))
    run = run_script(name, tmp_path, **variables)
    assert run.returncode == 0, run.stderr
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(0,)]
    assert {other.name for other in tmp_path.iterdir()} <= {"todo.sqlite", "summary.json"}


def test_the_chain_goes_on(tmp_path: Path) -> None:
    """When its time is over and tasks are pending, the job submits itself again."""
    make_file(tmp_path / "todo.sqlite", many(5))
    run = run_script("chain.sh", tmp_path, SUBMIT="echo submitted", SLURM_JOB_END_TIME="1")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"submitted {SLURM / 'chain.sh'}"
