"""Which module may import which, what importing loads, and that types and style are clean."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import photometry_tasks
from tests.support.paths import ROOT

PACKAGE = Path(photometry_tasks.__file__).parent

#: From the lowest to the highest; a module imports only from those below.
ORDER = [
    {"status", "errors", "values", "forgotten", "deaths", "stopping"},
    {"arguments", "files"},
    {"models", "tasoc", "portable"},
    {"constraints", "results", "skipping", "statements", "target_lists"},
    {"todo_file", "mounts", "rebuilding", "transactions", "sqlite_errors", "compiling", "driver"},
    {"connecting", "inspecting", "locking", "result_log", "summary"},
    {"sqlite", "postgresql", "legacy", "transitions", "claims"},
    {"backends", "acceptance", "sharing", "working_copy", "selections"},
    {"sampling", "sending"},
    {"schema", "creation"},
    {"opening", "checking", "overview", "pace"},
    {"copying", "known", "resetting", "export", "report_figures"},
    {"report", "file_list", "server_list"},
    {"lists"},
    {"taskmanager"},
    {"workers", "ingest"},
    {"executors"},
    {"runner"},
    {"__init__", "demo"},
    {"showing", "options"},
    {"list_commands"},
    {"cli"},
]

#: Who else may import these; nobody outside the list.
ALLOWED = {
    # For the types only in all but sqlite, sqlite_errors and connecting.
    "sqlite3": {"sqlite", "sqlite_errors", "connecting", "taskmanager", "sharing", "inspecting"},
    "psycopg": {"driver", "postgresql"},
    "sqlalchemy.dialects": {"compiling", "claims"},
    "alembic": {"schema", "creation"},
    "click": {"cli", "list_commands", "showing", "options"},
    "rich": {"cli", "showing"},
    "pyarrow": {"export"},
    "astropy": {"export"},
    "concurrent": {"runner", "executors", "workers"},
    "multiprocessing": {"workers"},
    "numpy": {"demo"},
    "matplotlib": {"report_figures"},
    "filelock": {"locking"},
    "psutil": {"mounts", "workers"},
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "relative imports hide where they lead"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


MODULES = sorted(PACKAGE.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_go_downwards(path: Path) -> None:
    """A module imports only from the layers below its own."""
    layers = {name: number for number, layer in enumerate(ORDER) for name in layer}
    for imported in imports_of(path):
        package, _, rest = imported.partition(".")
        name = rest.partition(".")[0]
        if package == "photometry_tasks" and name in layers:
            assert layers[name] < layers[path.stem], f"{path.stem} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_who_knows_what(path: Path) -> None:
    """Only the databases know drivers and dialects, only cli the terminal, only runner the executors."""
    for imported in imports_of(path):
        for library, allowed in ALLOWED.items():
            if imported == library or imported.startswith(library + "."):
                assert path.stem in allowed, f"{path.stem} imports {imported}"
    assert "dialect.name" not in path.read_text() or path.stem == "backends"


def test_every_module_has_its_layer() -> None:
    """A new module has to be given its place."""
    assert {path.stem for path in MODULES} == set().union(*ORDER)


def test_importing_loads_little() -> None:
    """`import photometry_tasks` loads neither drivers, nor Alembic, nor the libraries of the command line."""
    script = "import sys, photometry_tasks; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())

    unwanted = {
        "sqlite3",
        "psycopg",
        "alembic",
        "click",
        "rich",
        "numpy",
        "matplotlib",
        "filelock",
        "psutil",
        "multiprocessing",
        "concurrent.futures.process",
    }
    assert not loaded & unwanted


@pytest.mark.parametrize("tool", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test_style_and_types(tool: list[str]) -> None:
    """Types (strict) and style are clean."""
    run = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def lines_of_code(text: str) -> int:
    """Count the lines that are neither blank, nor a comment, nor of a docstring."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(number not in documented and line.strip()[:1] not in ("", "#") for number, line in lines)


def test_the_product_is_small() -> None:
    """No module has more than 400 lines, and all together fewer than 7,500 lines of code."""
    texts = {path.stem: path.read_text() for path in MODULES}
    assert {name for name, text in texts.items() if len(text.splitlines()) > 400} == set()
    assert 1000 < sum(map(lines_of_code, texts.values())) < 7500


def test_the_example_is_the_demo() -> None:
    """What stands in examples/ to be copied is the code that the demo runs."""
    assert (ROOT / "examples" / "aperture_photometry.py").read_text() == (PACKAGE / "demo.py").read_text()
