"""The package as a whole: the modules that an import loads, the places of dialects, the example."""

import ast
import subprocess
import sys
from pathlib import Path

import photometry_tasks
from tests.support.paths import ROOT

PACKAGE = Path(photometry_tasks.__file__).parent


def loaded_by(script: str) -> set[str]:
    """Return the modules that a program has loaded at its end."""
    command = [sys.executable, "-c", f"import sys\n{script}\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


HEAVY = {
    "sqlite3",
    "psycopg",
    "alembic",
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


def test_importing_loads_nothing() -> None:
    """`import photometry_tasks` loads no library, not even SQLAlchemy."""
    assert not loaded_by("import photometry_tasks") & (HEAVY | {"sqlalchemy"})


def test_a_worker_loads_little() -> None:
    """The modules that a worker imports to run a task load no SQLAlchemy, with any executor."""
    loaded = loaded_by(
        "import photometry_tasks.runner.task, photometry_tasks.runner.pool, photometry_tasks.cli.__main__"
    )
    assert not loaded & {"sqlalchemy", "sqlite3", "click", "rich", "numpy"}


def test_a_name_loads_what_it_needs() -> None:
    """The first public name loads SQLAlchemy and the modules of the package, and no other library."""
    loaded = loaded_by("from photometry_tasks import TaskManager, STATUS, build_constraints")
    assert "sqlalchemy.orm" in loaded
    assert not loaded & HEAVY


def test_the_public_names() -> None:
    """All public names can be listed and loaded; any other is an AttributeError."""
    for name in photometry_tasks.__all__:
        assert name in dir(photometry_tasks)
        assert getattr(photometry_tasks, name).__name__ == name
    assert not hasattr(photometry_tasks, "no_such_name")


def test_only_two_rooms_name_dialects() -> None:
    """Only `storage` and `sql/functions.py` name dialects."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        place = path.relative_to(PACKAGE)
        if place.parts[0] == "storage" or place == Path("sql/functions.py"):
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
