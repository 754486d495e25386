"""The package as a whole: the modules that an import loads, the places of dialects, the example."""

import ast
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import photometry_tasks
from photometry_tasks.cli.main import main
from tests.support.lists import make_file, many
from tests.support.paths import ROOT

PACKAGE = Path(photometry_tasks.__file__).parent

#: Libraries that take long to load.
HEAVY = {
    "sqlalchemy",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.dialects.postgresql",
    "alembic",
    "sqlite3",
    "psycopg",
    "click",
    "rich",
    "numpy",
    "matplotlib",
    "jinja2",
    "filelock",
    "psutil",
    "multiprocessing",
    "concurrent.futures.process",
}


def run_commands(*commands: str, **variables: str) -> str:
    """Return a program that runs commands one after the other, as `photometry-tasks` does."""
    return f"""
import os, sys
from photometry_tasks.cli.__main__ import main
os.environ.update({variables})
for command in {commands}:
    sys.argv = ["photometry-tasks", *command.split()]
    try:
        main()
    except SystemExit:
        pass
"""


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("script", "needed"),
    [
        ("import photometry_tasks", set()),
        ("from photometry_tasks import STATUS, TaskManager, __version__", set()),
        ("from photometry_tasks import TodoList", {"sqlalchemy", "sqlalchemy.dialects.sqlite"}),
        (
            "from photometry_tasks import TodoList; TodoList('todo.sqlite').counts()",
            {"sqlalchemy", "sqlalchemy.dialects.sqlite", "sqlite3"},
        ),
        ("from photometry_tasks import add_targets", {"sqlalchemy", "sqlalchemy.dialects.sqlite"}),
        ("from photometry_tasks import run_tasks", {"sqlalchemy", "psutil", "multiprocessing"}),
        ("import photometry_tasks.taskmanager, photometry_tasks.cli.__main__", set()),
        ("import photometry_tasks.runner.task, photometry_tasks.runner.pool", {"psutil", "multiprocessing"}),
        ("from photometry_tasks import build_constraints", {"sqlalchemy"}),
        (
            "from photometry_tasks import TaskManager; TaskManager('todo.sqlite').close()",
            {"sqlalchemy", "sqlalchemy.dialects.sqlite", "sqlite3", "filelock", "psutil"},
        ),
        (run_commands("--version", "--help", *(f"{name} --help" for name in main.commands)), {"click"}),
        (
            run_commands(
                "no-such-command",
                "status",
                "run todo.sqlite math:sqrt --jobs 0",
                "run todo.sqlite math:sqrt --tmag-min nan",
                "run todo.sqlite no_such_module:f --camera 1",
                "work todo.sqlite math:sqrt",
                "status todo.sqlite --watch --json",
                "reset todo.sqlite --forget-history",
            ),
            {"click"},
        ),
        (
            run_commands(
                "", _PHOTOMETRY_TASKS_COMPLETE="bash_complete", COMP_WORDS="photometry-tasks re", COMP_CWORD="1"
            ),
            {"click"},
        ),
    ],
)
def test_what_is_loaded(tmp_path: Path, script: str, needed: set[str]) -> None:
    """A program loads exactly the libraries that it needs; the modules of a pipeline and its workers need few."""
    make_file(tmp_path / "todo.sqlite", many(1))
    command = [sys.executable, "-c", f"{script}\nimport sys\nprint(*sys.modules)"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert HEAVY & set(run.stdout.splitlines()[-1].split()) == needed


def test_the_public_names() -> None:
    """All public names can be listed and loaded; any other is an AttributeError."""
    for name in photometry_tasks.__all__:
        assert name in dir(photometry_tasks)
        found = getattr(photometry_tasks, name)
        assert found == version("photometry_tasks") if name == "__version__" else found.__name__ == name
    assert not hasattr(photometry_tasks, "no_such_name")


def test_few_rooms_name_dialects() -> None:
    """Only `storage` and `sql/functions.py` name dialects, and the models, which have options of their databases."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        place = path.relative_to(PACKAGE)
        if place.parts[0] == "storage" or place in (Path("sql/functions.py"), Path("models.py")):
            continue
        assert "dialect.name" not in text, place
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("sqlalchemy.dialects"), place


def test_no_isinstance_on_databases() -> None:
    """Outside `storage`, no `isinstance` names a database or a store: the protocols have methods instead."""
    for path in PACKAGE.rglob("*.py"):
        if "storage" in path.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                assert not {"SQLiteDatabase", "PostgreSQLDatabase", "SQLiteStore", "PostgreSQLStore"} & {
                    name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)
                }, path


def test_few_files_at_the_top() -> None:
    """The package's own folder has at most 12 files: all others are in rooms."""
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 12


def test_the_example_is_the_demo() -> None:
    """The example for users is the code of the demo."""
    assert (ROOT / "examples" / "aperture_photometry.py").read_text() == (PACKAGE / "demo.py").read_text()


def test_without_docstrings() -> None:
    """With -OO, where Python drops docstrings, the message of an error still holds its values."""
    script = "from photometry_tasks.errors import UnknownTaskError as E; print(E(priority=5))"
    run = subprocess.run([sys.executable, "-OO", "-c", script], capture_output=True, text=True)
    assert run.stdout == "priority=5\n"
