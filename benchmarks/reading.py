"""Measure what a reader costs a run, and what reading costs beside a plain cursor.

    python -m benchmarks.reading [beside | rows ...] [--minutes 10] [--seconds 60] [--rows 2000000] [--rounds 5]

`beside` runs tasks that wait, in disk mode, in memory mode and on a server. In every second minute another process
reads the counts, a page of tasks and the errors once a second. The ratio is the results per second with the reader,
divided by those without it in the minute before or after.

`rows` compares `select` and `to_arrow` with a plain cursor of sqlite3 that reads the same columns.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.bulk import Bench, make_campaign
from benchmarks.lists import DETAILS, make_list
from benchmarks.measuring import HEAD
from benchmarks.server import make_list as make_server_list
from benchmarks.server import serving
from photometry_tasks import STATUS, TaskManager, TodoList, run_tasks
from photometry_tasks.reading.columns import STORED
from photometry_tasks.runner import RunReport

#: Workers, and the seconds that each of their tasks waits.
_JOBS, _WAIT = 8, 0.1

#: Seconds between two polls, and rows of a page.
_POLL, _PAGE = 1.0, 1000

_SQL = f"SELECT {', '.join(map(str, STORED))} FROM todolist LEFT JOIN diagnostics USING (priority) ORDER BY priority"
_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_NAMES = [column.name for column in STORED]


def wait(task: dict[str, Any]) -> dict[str, Any]:
    """Wait, and return a result; every hundredth task fails."""
    time.sleep(_WAIT)
    if task["priority"] % 100 == 0:
        raise ValueError(f"no stamp for TIC {task['starid']}")
    return {"status": STATUS.OK, "method_used": "aperture", "details": DETAILS}


def run(target: str, in_memory: bool, stop: Event) -> None:
    """Run tasks until the event is set."""

    def interrupt(_: RunReport) -> None:
        if stop.is_set():
            os.kill(os.getpid(), signal.SIGTERM)  # a shell lets its jobs in the background ignore SIGINT

    with TaskManager(target, load_into_memory=in_memory, summary_interval=None) as manager, suppress(SystemExit):
        run_tasks(manager, wait, jobs=_JOBS, max_errors_in_a_row=0, progress=interrupt)


def poll(target: str, connection: Any, stop: Event) -> None:
    """Read once a second until the event is set, and send the seconds of each poll."""
    durations: list[float] = []
    with TodoList(target) as todo:
        while not stop.wait(max(0.0, _POLL - sum(durations[-1:]))):
            begun = time.perf_counter()
            todo.counts()
            list(islice(todo.select(status=STATUS.OK), _PAGE))
            todo.errors()
            durations.append(time.perf_counter() - begun)
    connection.send(durations)


@contextmanager
def running(function: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run a function in a process until the end of the block; its last argument is the event that stops it."""
    stop = multiprocessing.Event()
    process = multiprocessing.Process(target=function, args=(*arguments, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()


def measure_beside(target: str, in_memory: bool, minutes: int, seconds: float) -> Iterator[str]:
    """Yield a line with the ratios of paired minutes."""
    log = Path(f"{target}-wal")
    rates: dict[bool, list[float]] = {False: [], True: []}
    durations: list[float] = []
    longest_log = 0
    with TodoList(target) as todo, running(run, target, in_memory):

        def count() -> tuple[int, float]:
            counts, now = todo.counts(), time.perf_counter()
            return sum(counts.values()) - counts["PENDING"] - counts["STARTED"], now

        while count()[0] < _JOBS * 10:
            time.sleep(0.1)
        for number in range(2 * minutes):
            has_reader = number % 4 in (1, 2)  # in turn the first and the second of a pair
            ours, theirs = multiprocessing.Pipe()
            with running(poll, target, theirs) if has_reader else nullcontext():
                done, begun = count()
                end = begun + seconds
                while (left := end - time.perf_counter()) > 0:
                    time.sleep(min(left, 1.0))
                    longest_log = max(longest_log, log.stat().st_size if log.exists() else 0)
                done_then, ended = count()
            if has_reader:
                durations += ours.recv()
            rates[has_reader].append((done_then - done) / (ended - begun))
    ratios = [with_it / without for with_it, without in zip(rates[True], rates[False], strict=True)]
    noise = [a / b for a, b in zip(rates[False][1:], rates[False], strict=False)]
    yield (
        f"results/s with {statistics.median(rates[True]):.1f}, without {statistics.median(rates[False]):.1f}; "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
        + (f", between minutes without a reader {min(noise):.3f}–{max(noise):.3f}" if noise else "")
    )
    yield (
        f"a poll takes {1000 * statistics.median(durations):.0f} ms (at most {1000 * max(durations):.0f} ms, "
        f"{len(durations)} polls); largest write-ahead log {longest_log / 1e6:.1f} MB"
    )


def beside(folder: Path, rows: int, minutes: int, seconds: float) -> None:
    """Print the ratios for each mode."""
    number = min(rows, int(2.5 * minutes * seconds * _JOBS / _WAIT) + 1000)
    for name, in_memory in (("on disk", False), ("in memory", True)):
        path = make_list(folder / f"{name}.sqlite", number)
        for line in measure_beside(str(path), in_memory, minutes, seconds):
            print(f"{name:10} {line}", flush=True)
    with serving() as url:
        make_server_list(url, number)
        for line in measure_beside(url, False, minutes, seconds):
            print(f"{'server':10} {line}", flush=True)


def read_rows(folder: Path, rows: int, rounds: int) -> None:
    """Print the times of `select` and `to_arrow`, and of a plain cursor."""
    bench = Bench(folder, rows, rounds)
    path = make_campaign(bench)
    todo = TodoList(path)

    def fetch(_: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            for row in connection.execute(_SQL):
                dict(row)

    def fetch_arrow(_: Path) -> pa.Table:
        schema = pa.schema([pa.field(column.name, _TYPES[column.type.python_type]) for column in STORED])
        batches = []
        with closing(sqlite3.connect(path)) as connection:
            cursor = connection.execute(_SQL)
            while found := cursor.fetchmany(10_000):
                arrays = [pa.array(*each) for each in zip(zip(*found, strict=True), schema.types, strict=True)]
                batches.append(pa.record_batch(arrays, schema=schema))
        return pa.Table.from_batches(batches)

    def select(_: Path, columns: Any) -> None:
        for _row in todo.select(columns=columns):
            pass

    print(HEAD)
    bench.compare("read: select, stored columns", partial(select, columns=_NAMES), fetch, most=1.5)
    bench.compare("read: select, all columns", partial(select, columns=None), fetch, most=2.5)
    bench.compare("read: to_arrow, stored columns", lambda _: todo.to_arrow(columns=_NAMES), fetch_arrow, most=2)
    bench.compare("read: to_arrow, all columns", lambda _: todo.to_arrow(), fetch_arrow, most=2.5)
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=["beside", "rows", []], help="by default both")
    parser.add_argument("--minutes", type=int, default=10, help="pairs of minutes in each mode")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of such a minute")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    parts = given.parts or ["beside", "rows"]
    with tempfile.TemporaryDirectory() as folder:
        if "beside" in parts:
            beside(Path(folder), given.rows, given.minutes, given.seconds)
        if "rows" in parts:
            read_rows(Path(folder), given.rows, given.rounds)


if __name__ == "__main__":
    main()
