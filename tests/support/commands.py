"""The installed command."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from photometry_tasks import TodoList
from photometry_tasks.models import Base
from photometry_tasks.storage.postgresql.url import hide_password
from tests.support.lists import query

COMMAND = str(Path(sys.executable).with_name("photometry-tasks"))

#: The fixture `call`: it runs the command in an empty directory.
Call = Callable[..., subprocess.CompletedProcess[str]]


def read_everything(url: str, folder: Path) -> dict[str, Any]:
    """Run each command that only reads a list, and return what it says of the list."""
    folder.mkdir()
    found: dict[str, Any] = {}
    for command, *arguments in (
        ["status", "--json"],
        ["status", "--task", "1", "--json"],
        ["errors", "--json"],
        ["errors", "--priority", "1"],
        ["check"],
        ["upgrade", "--check"],
        ["reset", "--status", "ERROR", "--dry-run"],
        ["export", "tasks.csv"],
        ["report", "-o", "report.html"],
        ["copy", "copy.sqlite"],
    ):
        run = subprocess.run([COMMAND, command, url, *arguments], cwd=folder, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found[" ".join([command, *arguments])] = run.stdout.replace(hide_password(url), "URL")
    status = json.loads(found.pop("status --json"))
    tables = {
        f"copy of {name}": query(folder / "copy.sqlite", f"SELECT * FROM {name}") for name in Base.metadata.tables
    }
    with TodoList(url) as todo:
        rows = list(todo.select())
        stars = [todo.star(row["starid"]) for row in rows[:5]]
        reader = {"rows": rows, "stars": stars, "errors": todo.errors(), "left": todo.estimate()["tasks"]}
    return {**found, **tables, **reader, "status": status["status"], "csv": (folder / "tasks.csv").read_text()}
