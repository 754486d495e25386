"""A new column of diagnostics needs changes in three places: the model, a revision, and the source of its value."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from sqlalchemy import Engine

from photometry_tasks import TaskManager
from tests.support.lists import make_file, query, result_of
from tests.support.paths import ROOT
from tests.support.processes import kill, running
from tests.support.servers import owned_databases

REVISION = '''"""A column of diagnostics."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    found = {{column["name"] for column in sa.inspect(op.get_bind()).get_columns("diagnostics")}}
    if "snr" not in found:
        op.add_column("diagnostics", sa.Column("snr", sa.Double))
        op.add_column("diagnostics", sa.Column("grade", sa.Text, nullable=False, server_default="A"))


def downgrade() -> None:
    op.drop_column("diagnostics", "grade")
    op.drop_column("diagnostics", "snr")
'''

#: The last column of diagnostics in the model.
LAST = '    errors: Mapped[str | None] = mapped_column(doc="Errors and warnings of the result, one a line")\n'

COLUMNS = """    snr: Mapped[float | None]
    grade: Mapped[str] = mapped_column(server_default=sa.text("'A'"))
"""

#: Saves results one by one and together, with and without a value for the new column.
SCRIPT = """
import sys
from photometry_tasks import TaskManager
with TaskManager(sys.argv[1], load_into_memory=sys.argv[2:] == ["memory"]) as manager:
    tasks = manager.claim_tasks(4)
    details = [{"snr": 0.5, "errors": ["one", "two"]}, {}, {"snr": 7}, {"mean_flux": 2.0, "errors": "three"}]
    results = [
        {**task, "status": 1, "method_used": "psf", "time": 1.5, "details": each}
        for task, each in zip(tasks, details)
    ]
    manager.save_result(results[0])
    manager.save_results(results[1:])
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package with two new columns of diagnostics, after the errors; one needs a value."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("photometry_tasks", "migrations"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    shutil.copy(ROOT / "alembic.ini", copy)
    head = max(path.name for path in (copy / "migrations/versions").glob("0*.py"))[:4]
    (copy / "migrations/versions/9999_snr.py").write_text(REVISION.format(head=head))
    edit(copy / "photometry_tasks/models.py", LAST, COLUMNS)
    results = copy / "photometry_tasks/rules/results.py"
    edit(results, "    mean_flux: float | None = None\n", "    snr: float | None = None\n")
    edit(results, '    row["method_used"] = result.method_used\n', '    row["grade"] = "B"\n')
    return copy


def edit(path: Path, behind: str, added: str) -> None:
    text = path.read_text()
    assert behind in text
    path.write_text(text.replace(behind, behind + added, 1))


def save_in(checkout: Path, target: str | Path, *mode: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(target), *mode], cwd=checkout, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


FOUND = [(0.5, "B", None, "one\ntwo"), (None, "B", None, None), (7.0, "B", None, None), (None, "B", 2.0, "three")]
QUERY = "SELECT snr, grade, mean_flux, errors FROM diagnostics ORDER BY priority"


@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_on_a_file(checkout: Path, tmp_path: Path, mode: str) -> None:
    """A file is upgraded, and each value is in its own column."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(4)])
    save_in(checkout, path, mode)
    assert query(path, QUERY) == FOUND


@pytest.mark.slow
def test_on_a_server(checkout: Path, postgresql: Engine, tmp_path: Path) -> None:
    """On a server too, each value is in its own column."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(4)])
    with owned_databases(postgresql, "columnist", "columns") as url:
        command = [sys.executable, "-m", "photometry_tasks.cli"]
        for arguments in (["upgrade", str(path)], ["copy", str(path), url]):
            subprocess.run([*command, *arguments], cwd=checkout, check=True, capture_output=True)
        save_in(checkout, url)
        assert query(url, QUERY) == FOUND


def save_in_memory(connection: Connection, path: Path) -> None:
    manager = TaskManager(path, load_into_memory=True)
    manager.save_result(result_of({"priority": 2}, mean_flux=5.0))
    connection.send("saved")
    connection.recv()


def test_a_log_of_the_release_before(checkout: Path, tmp_path: Path) -> None:
    """A log that the release before has left is replayed: its results give the row that they give now."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(4)])
    with running(save_in_memory, path) as (process, connection):
        assert connection.recv() == "saved"
        kill(process)
    command = [sys.executable, "-m", "photometry_tasks.cli", "upgrade", str(path)]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    assert query(path, QUERY) == [(None, "B", 5.0, None)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_revision_that_was_lost(checkout: Path, tmp_path: Path) -> None:
    """A file that has the columns, but lost its revision, is upgraded again."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(4)])
    save_in(checkout, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM photometry_tasks_version")
    command = [sys.executable, "-m", "photometry_tasks.cli", "upgrade", str(path)]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    assert query(path, QUERY) == FOUND
    assert query(path, "SELECT version_num FROM photometry_tasks_version") == [("9999",)]


def test_a_source_that_was_forgotten(tmp_path: Path) -> None:
    """A column without a source ends the import with its name, before any result is lost."""
    shutil.copytree(
        ROOT / "photometry_tasks", tmp_path / "photometry_tasks", ignore=shutil.ignore_patterns("__pycache__")
    )
    edit(tmp_path / "photometry_tasks/models.py", LAST, COLUMNS)
    command = [sys.executable, "-c", "import photometry_tasks.sql.statements"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "diagnostics.grade has no source: rules/results.py must give its value" in run.stderr
