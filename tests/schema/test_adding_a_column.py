"""A new column of diagnostics needs changes in three places: the model, a revision, and the source of its value."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.lists import make_file, query
from tests.support.paths import ROOT
from tests.support.servers import owned_databases

REVISION = '''"""A column of diagnostics."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    op.add_column("diagnostics", sa.Column("snr", sa.Double))


def downgrade() -> None:
    op.drop_column("diagnostics", "snr")
'''

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
    """Return a copy of the package with a new column of diagnostics, after the errors."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("photometry_tasks", "migrations"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    shutil.copy(ROOT / "alembic.ini", copy)
    head = max(path.name for path in (copy / "migrations/versions").glob("0*.py"))[:4]
    (copy / "migrations/versions/9999_snr.py").write_text(REVISION.format(head=head))
    edit(copy / "photometry_tasks/models.py", "    errors: Mapped[str | None]\n", "    snr: Mapped[float | None]\n")
    edit(copy / "photometry_tasks/rules/results.py", '_STATISTICS = ("mean_flux", ', '"snr", ')
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


FOUND = [(0.5, None, "one\ntwo"), (None, None, None), (7.0, None, None), (None, 2.0, "three")]
QUERY = "SELECT snr, mean_flux, errors FROM diagnostics ORDER BY priority"


@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_on_a_file(checkout: Path, tmp_path: Path, mode: str) -> None:
    """A file is upgraded, and each value is in its own column."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(4)])
    save_in(checkout, path, mode)
    assert query(path, QUERY) == FOUND


def test_on_a_server(checkout: Path, postgresql: Engine, tmp_path: Path) -> None:
    """On a server too, each value is in its own column."""
    path = make_file(tmp_path / "todo.sqlite", [{} for _ in range(4)])
    with owned_databases(postgresql, "columnist", "columns") as url:
        command = [sys.executable, "-m", "photometry_tasks.cli"]
        for arguments in (["upgrade", str(path)], ["copy", str(path), url]):
            subprocess.run([*command, *arguments], cwd=checkout, check=True, capture_output=True)
        save_in(checkout, url)
        assert query(url, QUERY) == FOUND
