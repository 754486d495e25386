"""The baselines: plain sqlite3 by hand, without checks and without skips."""

import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from benchmarks.lists import INSERT_RESULT, row_of
from photometry_tasks import STATUS

_NEXT = (
    "SELECT priority, starid, method, sector, camera, ccd, cadence, datasource, tmag FROM todolist "
    "INDEXED BY todolist_pending_idx WHERE status IS NULL ORDER BY priority LIMIT ?"
)
_COLUMNS = ("priority", "starid", "method", "sector", "camera", "ccd", "cadence", "datasource", "tmag")
_START = "UPDATE todolist SET status = 6 WHERE priority = ?"
_SAVE = "UPDATE todolist SET status = ? WHERE priority = ?"
_ATTEMPT = (
    "INSERT INTO photometry_tasks_attempts (priority, attempt, worker, begun, ended, how) VALUES (?, ?, 1, ?, ?, ?)"
)

#: Bytes of the log for a result in memory.
_LOGGED = b"x" * 480


class Limit:
    """The same durable work with only the necessary statements, on the same file with the same indexes."""

    def __init__(self, path: Path, *, in_memory: bool, durability: str = "normal") -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._log: Any = None
        self._attempt = 0
        if in_memory:
            memory = sqlite3.connect(":memory:", isolation_level=None)
            self._connection.backup(memory)
            self._connection.close()
            self._connection = memory
            self._log = tempfile.TemporaryFile(dir=path.parent, buffering=0)  # noqa: SIM115 - `close` closes it
        else:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(f"PRAGMA synchronous={durability}")

    def get_task(self, **_: object) -> dict[str, Any] | None:
        """Return the next task; constraints are ignored."""
        row = self._connection.execute(_NEXT, (1,)).fetchone()
        return None if row is None else dict(zip(_COLUMNS, row, strict=True))

    def start_task(self, priority: int) -> None:
        """Mark a task as STARTED."""
        self._connection.execute(_START, (priority,))

    def save_result(self, result: dict[str, Any]) -> None:
        """Save a result."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(_SAVE, (result["status"].value, result["priority"]))
        self._connection.execute(INSERT_RESULT, row_of(result))
        self._connection.execute(_ATTEMPT, self._build_attempt(result))
        self._append(1)
        self._connection.execute("COMMIT")

    def _build_attempt(self, result: dict[str, Any]) -> tuple[Any, ...]:
        self._attempt += 1
        now = time.time()
        return result["priority"], self._attempt, now, now, result["status"].name

    def _append(self, number: int) -> None:
        if self._log is not None:
            os.write(self._log.fileno(), _LOGGED * number)

    def get_tasks(self, limit: int) -> list[dict[str, Any]]:
        """Return the next tasks."""
        return [dict(zip(_COLUMNS, row, strict=True)) for row in self._connection.execute(_NEXT, (limit,))]

    def start_tasks(self, priorities: list[int]) -> None:
        """Mark tasks as STARTED."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_START, [(priority,) for priority in priorities])
        self._connection.execute("COMMIT")

    def save_results(self, results: list[dict[str, Any]]) -> None:
        """Save results."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_SAVE, [(result["status"].value, result["priority"]) for result in results])
        self._connection.executemany(INSERT_RESULT, map(row_of, results))
        self._connection.executemany(_ATTEMPT, map(self._build_attempt, results))
        self._append(len(results))
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection, and delete the log."""
        self._connection.close()
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_NEXT_OF_ALL = (
    "SELECT priority, starid, method, sector, camera, ccd, cadence, datasource, tmag FROM todolist "
    "LEFT JOIN diagnostics USING (priority) WHERE status IS NULL ORDER BY priority LIMIT 1"
)


class Unlogged(Limit):
    """The statements of TASOC's class: a result in memory is lost if the process dies, and no attempt is kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, in_memory=True)
        self._connection.row_factory = sqlite3.Row
        self._counts = dict.fromkeys((*STATUS, "tasks_run", "mean_elaptime"), 0.0)

    def get_task(self, **_: object) -> dict[str, Any] | None:
        """Return the next task; constraints are ignored."""
        row = self._connection.execute(_NEXT_OF_ALL).fetchone()
        return None if row is None else dict(row)

    def start_task(self, priority: int) -> None:
        """Mark a task as STARTED, and count it."""
        self._connection.execute("BEGIN")
        self._connection.execute(_SAVE, (STATUS.STARTED.value, priority))
        self._counts[STATUS.STARTED] += 1
        self._connection.execute("COMMIT")

    def save_result(self, result: dict[str, Any]) -> None:
        """Save a result, and count it."""
        self._connection.execute("BEGIN")
        self._connection.execute(_SAVE, (result["status"].value, result["priority"]))
        self._connection.execute(INSERT_RESULT, row_of(result))
        self._counts["tasks_run"] += 1
        self._counts[STATUS.STARTED] -= 1
        self._counts[result["status"]] += 1
        self._counts["mean_elaptime"] = 0.1 * result["time"] + 0.9 * self._counts["mean_elaptime"]
        self._connection.execute("COMMIT")
