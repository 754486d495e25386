"""Measure how long it takes to read a large list, and its page.

    python -m benchmarks.reading [rows | page ...] [--rows 2000000] [--rounds 5]

`rows` compares `select` and `to_arrow` with a plain cursor of sqlite3 that reads the same columns.

`page` reads and renders the page of the list, of all tasks, of a camera and of the bright stars.
"""

import argparse
import resource
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.bulk import Bench, make_campaign
from benchmarks.measuring import HEAD
from photometry_tasks import TodoList
from photometry_tasks.reading.columns import STORED
from photometry_tasks.report.page import render_list
from photometry_tasks.report.queries import read_list
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import begin_reading

_SQL = f"SELECT {', '.join(map(str, STORED))} FROM todolist LEFT JOIN diagnostics USING (priority) ORDER BY priority"
_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_NAMES = [column.name for column in STORED]


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


def read_page(folder: Path, rows: int, rounds: int) -> None:
    """Print how long the queries and the page take."""
    location = parse_location(make_campaign(Bench(folder, rows, 1)))
    for constraints in ({}, {"camera": [2]}, {"tmag_max": 10.0}):
        times: dict[str, list[float]] = {"queries": [], "page": []}
        for _ in range(rounds):
            with begin_reading(location) as opened:
                begun = time.perf_counter()
                read_list(opened, constraints)
                between = time.perf_counter()
                size = len(render_list(opened, constraints).encode())
                times["queries"].append(between - begun)
                times["page"].append(time.perf_counter() - between)
        shown = ", ".join(f"{name} {statistics.median(each):.2f} s" for name, each in times.items())
        print(f"{rows:,} tasks, {constraints or 'no filter'}: {shown}, {size / 1e3:.0f} kB", flush=True)


_PARTS = {"rows": read_rows, "page": read_page}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*_PARTS, []], help="by default both")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for part in given.parts or _PARTS:
            _PARTS[part](Path(folder), given.rows, given.rounds)


if __name__ == "__main__":
    main()
