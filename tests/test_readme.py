"""Every block of the README runs, as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .conftest import query
from .test_target_lists import MIT

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
PYTHON = [text for language, text in BLOCKS if language == "python"]
START, COMMANDS, TEST = SHELL


def environment_without_ours() -> dict[str, str]:
    """Return an environment in which this test run's own virtual environment is not active."""
    hidden = {"VIRTUAL_ENV", "PYTHONPATH"}
    return {name: value for name, value in os.environ.items() if name not in hidden and "PYTEST" not in name}


def test_no_other_blocks() -> None:
    """Each block is in a language that one of these tests runs."""
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


def test_the_first_command(tmp_path: Path) -> None:
    """In a fresh copy with a fresh virtual environment the first command sets up and measures the invented sector."""
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=ignored)
    environment = environment_without_ours()
    run = subprocess.run(["bash", "-euc", START], cwd=checkout, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    path = run.stdout.splitlines()[-1].removeprefix("The results are in ")
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(0,)]


def test_the_commands(tmp_path: Path) -> None:
    """The commands for one's own targets run on a list of the name that the README gives."""
    (tmp_path / "all_targets_S001_v1.csv").write_text(MIT)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-euc", COMMANDS], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert query(tmp_path / "todo.sqlite", "SELECT status, count(*) FROM todolist GROUP BY 1") == [(None, 2), (1, 2)]


def test_the_programs(tmp_path: Path) -> None:
    """The programs run one after the other, and print what they found."""
    printed = [
        subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for text in PYTHON
    ]
    assert printed == ["1 of 1\n", "8195886 17200.0\n", ""]


def test_the_links() -> None:
    """What the README links to is there."""
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
