"""Every block of the README runs unchanged, and the built packages are complete."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from photometry_tasks.schema import HEAD, REVISIONS
from tests.support import old_files
from tests.support.lists import query
from tests.support.paths import ROOT
from tests.support.target_lists import MIT

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
PYTHON = [text for language, text in BLOCKS if language == "python"]
START, COMMANDS, UPGRADE, TEST = SHELL


def environment_without_ours() -> dict[str, str]:
    """Return an environment in which this test run's own virtual environment is not active."""
    hidden = {"VIRTUAL_ENV", "PYTHONPATH"}
    return {name: value for name, value in os.environ.items() if name not in hidden and "PYTEST" not in name}


def test_reliability_names_tests_that_exist() -> None:
    """Each test that docs/reliability.md names exists."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for file, names in re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", text):
        assert file in files
        assert not names or f"def {names}(" in files[file], names


def test_no_other_blocks() -> None:
    """Each block has a language that these tests run."""
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the first command in a new copy of the checkout; return its virtual environment and its output."""
    checkout = tmp_path_factory.mktemp("fresh") / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=ignored)
    environment = environment_without_ours()
    run = subprocess.run(["bash", "-euc", START], cwd=checkout, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    # The next tests use only the installed package.
    virtual = checkout.parent / ".venv"
    (checkout / ".venv").rename(virtual)
    shutil.rmtree(checkout)
    return virtual, run.stdout


@pytest.mark.slow
def test_the_first_command(installed: tuple[Path, str]) -> None:
    """In a new copy with a new virtual environment, the first command creates and measures the invented sector."""
    path = installed[1].splitlines()[-1].removeprefix("The results are in ").partition(". ")[0]
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(0,)]


@pytest.mark.slow
def test_upgrading_without_a_checkout(installed: tuple[Path, str], tmp_path: Path) -> None:
    """From the installed wheel alone, the upgrade command, opening, and Alembic's own commands work."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    python = installed[0] / "bin" / "python"
    for name, module in (("photometry-tasks", "photometry_tasks.cli"), ("alembic", "alembic.config")):
        # The paths in the scripts of the environment are wrong, since it was moved.
        (binaries / name).write_text(f'#!/bin/sh\nexec "{python}" -m {module} "$@"\n')
        (binaries / name).chmod(0o755)
    environment = environment_without_ours()
    environment["PATH"] = f"{binaries}:{python.parent}:{environment['PATH']}"
    old_files.make_old_file(tmp_path / "todo.sqlite", "3.0")
    run = subprocess.run(["bash", "-euc", UPGRADE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == f"{HEAD} (head)"
    path = old_files.make_old_file(tmp_path / "another.sqlite", "4.4")
    script = "import sys, photometry_tasks as p; print(p.__file__); p.TaskManager(sys.argv[1]).close()"
    run = subprocess.run([python, "-c", script, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert str(installed[0]) in run.stdout
    assert query(path, "SELECT * FROM photometry_tasks_version") == [(HEAD,)]


def test_the_sdist_builds_the_same_wheel(tmp_path: Path) -> None:
    """The wheel from the sdist holds the same files as the wheel from the checkout, with the migrations."""

    def build(source: Path, kind: str, folder: Path) -> Path:
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
        subprocess.run(command, cwd=source, capture_output=True, check=True)
        (built,) = folder.iterdir()
        return built

    def read(wheel: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    (tmp_path / "unpacked").mkdir()
    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    subprocess.run(["tar", "-xzf", str(sdist)], cwd=tmp_path / "unpacked", check=True)
    (source,) = (tmp_path / "unpacked").iterdir()
    wheel = read(build(ROOT, "wheel", tmp_path / "wheel"))
    assert read(build(source, "wheel", tmp_path / "again")) == wheel
    assert {"photometry_tasks/alembic.ini", "photometry_tasks/migrations/env.py", "photometry_tasks/py.typed"} <= {
        *wheel
    }
    assert sum(name.startswith("photometry_tasks/migrations/versions/") for name in wheel) == len(REVISIONS)
    assert not [name for name in wheel if "__pycache__" in name]


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    """The commands for a user's own targets run on a list with the name that the README gives."""
    (tmp_path / "all_targets_S001_v1.csv").write_text(MIT)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-euc", COMMANDS], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert query(tmp_path / "todo.sqlite", "SELECT status, count(*) FROM todolist GROUP BY 1") == [(None, 2), (1, 2)]


def test_the_programs(tmp_path: Path) -> None:
    """The programs run one after the other, and print the expected lines."""
    printed = [
        subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for text in PYTHON
    ]
    assert printed == ["1 of 1\n", "8195886 17200.0\n", ""]


def test_the_links() -> None:
    """Each link of the README leads to a file that exists."""
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("https://") or (ROOT / target).exists()


def test_ci_runs_the_test_command() -> None:
    """CI runs the README's own test command, not a copy of it."""
    assert TEST.rstrip().endswith("-m pytest")
    script = (ROOT / ".ci" / "run").read_text()
    extraction = next(line for line in script.splitlines() if line.startswith("command="))
    found = subprocess.run(
        ["bash", "-euc", extraction + '\nprintf "%s\\n" "$command"'], cwd=ROOT, capture_output=True, text=True
    )
    assert found.stdout == TEST
