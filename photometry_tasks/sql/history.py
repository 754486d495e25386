"""The history of a campaign: the managers that had a list open, and the attempts at its tasks.

Each function runs in a transaction of its caller, and never commits.
"""

import os
import socket
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection

from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.transitions import Saved

#: How an attempt without a result ended; LOST is the kind of such a failure too.
LOST, RELEASED, GIVEN_UP = "lost", "released", "given up"


def describe_worker(version: str | None) -> dict[str, Any]:
    """Return this process as a worker: columns of `photometry_tasks_workers`."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_jobid": os.environ.get("SLURM_JOB_ID") or None,
        "version": version,
    }


def register_worker(transaction: Transaction, version: str | None, now: float) -> dict[str, Any]:
    """Add this process to the workers of a file, and return its row."""
    (last,) = transaction.fetch_one(statements.LAST_WORKER, {}) or (0,)
    row = {**describe_worker(version), "worker": last + 1, "lease": None, "begun": now, "seen": now, "ended": None}
    transaction.execute(statements.INSERT_WORKER, row)
    return row


def end_killed_workers(transaction: Transaction) -> None:
    """End the workers of a file that were killed, and record the attempts at their STARTED tasks as lost.

    A file has one manager at a time: other workers that have not ended are dead.
    """
    killed = transaction.fetch_one(statements.UNENDED_WORKER, {})
    if killed is None:
        return
    worker, host, pid, seen = killed
    lost = {
        "number": first_attempt(worker),
        "worker": worker,
        "now": seen,
        "text": f"The manager (worker {worker} on {host}, process {pid}) was killed",
    }
    transaction.execute(statements.RECORD_LOST_TASKS, lost)
    transaction.execute(statements.END_KILLED_WORKERS, {})


def first_attempt(worker: int) -> int:
    """Return the number below all attempts of a worker of a file: no later worker uses a number again."""
    return worker << 32


def build_end(saved: Saved) -> dict[str, Any]:
    """Return how a result ends its attempt, by column."""
    return {"how": saved.status.name, "errors": saved.errors, "kind": saved.kind, "counts": saved.counts}


def insert_attempts(transaction: Transaction, attempts: Collection[Mapping[str, Any]]) -> None:
    """Add attempts that have ended."""
    plain = [attempt for attempt in attempts if attempt["counts"] is None and attempt["errors"] is None]
    transaction.executemany(statements.INSERT_SUCCESS, plain)
    if len(plain) < len(attempts):
        others = (attempt for attempt in attempts if attempt["counts"] is not None or attempt["errors"] is not None)
        transaction.executemany(statements.INSERT_ATTEMPT, others)


def get_attempts(connection: Connection, priority: int) -> list[dict[str, Any]]:
    """Return the attempts at a task, from the first to the last."""
    return [dict(row) for row in connection.execute(statements.ATTEMPTS_OF_TASK, {"task": priority}).mappings()]
