"""Measure whole lists, compared with plain sqlite3, csv and pyarrow by hand, in turn.

    python -m benchmarks.bulk [load] [export] [look] [--rows 2000000] [--rounds 5]

`load` adds rows from dicts, from a CSV file and from an Arrow table. `export` writes CSV and Parquet. `look` measures
the status and the report; half of the tasks have results, and a tenth of these are ERRORs. If a ratio is over its
ceiling, an exclamation mark follows the ceiling, and the exit code is 1.
"""

import argparse
import csv
import resource
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.campaign import add_history
from benchmarks.lists import INSERT, NAMES, finish_tasks, make_list, rows_of
from benchmarks.measuring import HEAD, Row, compare, time_of
from photometry_tasks.export import export_tasks
from photometry_tasks.ingest import add_target_lists, add_targets
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.reading.columns import STORED
from photometry_tasks.report import build_report

_BATCH = 10_000

#: A target list has no column for the method.
_LISTED = [name for name in NAMES if name != "method"]
_INSERT_LISTED = f"INSERT INTO todolist (priority, {', '.join(_LISTED)}) VALUES ({', '.join('?' * 9)})"

_TASKS = f"SELECT {', '.join(map(str, STORED))} FROM todolist LEFT JOIN diagnostics USING (priority) ORDER BY priority"
_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}

_HALF = "CAST((tmag + 30) * 2 AS INTEGER)"
_ATTEMPTS = "photometry_tasks_attempts JOIN photometry_tasks_workers USING (worker)"
_STATUS = [
    "SELECT camera, ccd, status, count(*) FROM todolist GROUP BY 1, 2, 3",
    f"SELECT kind, host, count(*) FROM {_ATTEMPTS} WHERE counts GROUP BY 1, 2",
    f"SELECT version, count(*) FROM {_ATTEMPTS} GROUP BY 1",
]
_REPORT = [
    _STATUS[0],
    f"SELECT {_HALF}, status, count(*) FROM todolist GROUP BY 1, 2",
    f"SELECT {_HALF}, CAST(log10(elaptime) * 100 AS INTEGER), count(*) "
    "FROM diagnostics JOIN todolist USING (priority) GROUP BY 1, 2",
    "SELECT errors, count(*), min(priority) FROM diagnostics WHERE errors IS NOT NULL GROUP BY 1",
]


class Bench:
    """A folder for lists, and the measured rows."""

    def __init__(self, folder: Path, size: int, rounds: int) -> None:
        self.folder, self.size, self._rounds = folder, size, rounds
        self.rows: list[Row] = []

    def compare(self, case: str, ours: Callable[[Path], object], hand: Callable[[Path], object], most: float) -> None:
        """Measure two functions, whose argument is a path to write to, and keep the row; `most` is the ceiling."""

        def measure(work: Callable[[Path], object]) -> float:
            seconds = time_of(lambda: work(self.folder / "written"))
            for path in self.folder.glob("written*"):
                path.unlink()
            return seconds

        part, _, what = case.partition(": ")
        both = partial(measure, ours), partial(measure, hand)
        self.rows.append(compare(part, what, *both, unit="s", rounds=self._rounds, ceiling=most))


def measure_loading(bench: Bench) -> None:
    """Measure dicts, a CSV file and an Arrow table, compared with executemany and the same indexes."""
    rows = rows_of(bench.size)
    with closing(sqlite3.connect(make_list(bench.folder / "empty", 0))) as connection:
        schema = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]

    def load(path: Path, statement: str, tuples: Iterable[Iterable[Any]]) -> None:
        with closing(sqlite3.connect(path)) as connection:
            for sql in schema:
                if sql.startswith("CREATE TABLE"):
                    connection.execute(sql)
            connection.executemany(statement, ((number, *row) for number, row in enumerate(tuples, start=1)))
            for sql in schema:
                if not sql.startswith("CREATE TABLE"):
                    connection.execute(sql)
            connection.commit()

    def load_csv(path: Path) -> None:
        with listed.open(newline="") as file:
            reader = csv.reader(file)
            next(reader)
            load(path, _INSERT_LISTED, reader)

    def load_arrow(path: Path) -> None:
        batches = (batch.to_pydict().values() for batch in table.to_batches(max_chunksize=_BATCH))
        load(path, _INSERT_LISTED, chain.from_iterable(zip(*columns, strict=True) for columns in batches))

    dicts = [dict(zip(NAMES, row, strict=True)) for row in rows]
    bench.compare("load: dicts", lambda path: add_targets(path, dicts), lambda path: load(path, INSERT, rows), most=1.2)
    table = pa.Table.from_pylist(dicts).select(_LISTED)
    listed = bench.folder / "listed.csv"
    pa.csv.write_csv(table, listed, pa.csv.WriteOptions(quoting_style="none"))
    bench.compare("load: CSV", lambda path: add_target_lists(path, listed), load_csv, most=2.0)
    bench.compare("load: Arrow", lambda path: add_targets(path, table), load_arrow, most=1.1)


def make_campaign(bench: Bench) -> Path:
    """Create a list with results, errors, versions and attempts, unless it exists."""
    path = bench.folder / "todo.sqlite"
    if not path.exists():
        make_list(path, bench.size)
        finish_tasks(path, bench.size // 2)
        add_history(path, bench.size // 20)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE diagnostics SET elaptime = 0.2 + priority % 977 / 20.0")
            errors = "'Traceback' || char(10) || 'ValueError: no stamp for TIC ' || priority"
            failed = "SELECT priority FROM todolist WHERE status = 2"
            connection.execute(f"UPDATE diagnostics SET errors = {errors} WHERE priority IN ({failed})")
    return path


def measure_export(bench: Bench) -> None:
    """Measure CSV and Parquet, compared with a plain cursor into `csv.writer` and into pyarrow."""
    todo = make_campaign(bench)

    def write_csv(path: Path) -> None:
        with closing(sqlite3.connect(todo)) as connection, path.open("w", newline="") as file:
            csv.writer(file).writerows(connection.execute(_TASKS))

    def write_parquet(path: Path) -> None:
        schema = pa.schema([pa.field(column.name, _TYPES[column.type.python_type]) for column in STORED])
        with closing(sqlite3.connect(todo)) as connection, pq.ParquetWriter(path, schema) as writer:
            cursor = connection.execute(_TASKS)
            while rows := cursor.fetchmany(_BATCH):
                arrays = [pa.array(*each) for each in zip(zip(*rows, strict=True), schema.types, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))

    def export(path: Path, suffix: str) -> None:
        export_tasks(todo, path.with_suffix(suffix))

    bench.compare("export: CSV", partial(export, suffix=".csv"), write_csv, most=1.5)
    bench.compare("export: Parquet", partial(export, suffix=".parquet"), write_parquet, most=1.5)


def measure_looking(bench: Bench) -> None:
    """Measure the status and the report, compared with the queries that their numbers need."""
    todo = make_campaign(bench)

    def run(queries: list[str]) -> None:
        with closing(sqlite3.connect(todo)) as connection:
            for sql in queries:
                connection.execute(sql).fetchall()

    bench.compare("look: status", lambda _: get_status(todo), lambda _: run(_STATUS), most=2.0)
    bench.compare("look: report", lambda _: build_report(todo), lambda _: run(_REPORT), most=3.0)


PARTS = {"load": measure_loading, "export": measure_export, "look": measure_looking}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []], help="by default all")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{arguments.rows} rows, medians of {arguments.rounds} rounds\n{HEAD}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.rows, arguments.rounds)
        for part in arguments.parts or PARTS:
            PARTS[part](bench)
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    sys.exit(any(row.ceiling is not None and row.ratio > row.ceiling for row in bench.rows))


if __name__ == "__main__":
    main()
