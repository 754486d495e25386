"""The history of a campaign: the managers that had a list open, and the attempts at its tasks.

Each function runs in a transaction of its caller, and never commits.
"""

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, inspect, select

from photometry_tasks.models import diagnostics, extra
from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.transitions import Saved


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


def end_killed_workers(transaction: Transaction, conditions: Sequence[ColumnElement[bool]]) -> None:
    """End the workers of a file that were killed, and record the attempts at STARTED tasks that return as lost.

    A file has one manager at a time: other workers that have not ended are dead.
    """
    killed = transaction.fetch_one(statements.UNENDED_WORKER, {})
    if killed is None:
        return
    worker, host, pid, seen = killed
    lost = {
        "number": first_attempt(worker + 1) - 1,
        "worker": worker,
        "now": seen,
        "text": f"The manager (worker {worker} on {host}, process {pid}) was killed",
    }
    transaction.connection.execute(statements.build_lost_attempts(conditions), lost)
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


def count_used_up(connection: Connection, retries: int) -> int:
    """Return the number of failed tasks that have no retries left."""
    if not inspect(connection).has_table(extra.name):
        return 0
    number: int = connection.execute(statements.build_used_up(retries)).scalar_one()
    return number


def count_versions(connection: Connection) -> dict[str | None, int]:
    """Return the number of results by the version of the pipeline that made them; None if it is not known."""
    tables = inspect(connection)
    if not tables.has_table(diagnostics.name):
        return {}
    # The tables of an older schema hold no versions.
    if not tables.has_table(extra.name) or not connection.execute(statements.HAS_VERSIONS).scalar_one():
        number = connection.execute(select(func.count()).select_from(diagnostics)).scalar_one()
        return {None: number} if number else {}
    return dict(map(tuple, connection.execute(statements.COUNT_VERSIONS)))


def count_failures(connection: Connection) -> list[dict[str, Any]]:
    """Return the kinds of the failures of failed tasks, the commonest first.

    Returns
    -------
    list of dict
        kind (None if none was given or recorded), tasks (their number), and hosts (the number on each host).
    """
    if not inspect(connection).has_table(extra.name):
        return []
    found: dict[str | None, dict[str, int]] = {}
    for kind, host, number in connection.execute(statements.COUNT_FAILURES):
        found.setdefault(kind, {})[host or "unknown"] = number
    kinds = [{"kind": kind, "tasks": sum(hosts.values()), "hosts": hosts} for kind, hosts in found.items()]
    return sorted(kinds, key=lambda row: -row["tasks"])


def get_attempts(connection: Connection, priority: int) -> list[dict[str, Any]]:
    """Return the attempts at a task, from the first to the last."""
    return [dict(row) for row in connection.execute(statements.ATTEMPTS_OF_TASK, {"task": priority}).mappings()]
