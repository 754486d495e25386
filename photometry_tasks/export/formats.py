"""Results out: tasks with what is kept of them, as CSV, Parquet or ECSV."""

import csv
import io
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Unpack

from sqlalchemy import Column, Float, Integer, Select, or_, select

from photometry_tasks import schema
from photometry_tasks.constraints import Constraints, build_expressions, check_constraints
from photometry_tasks.models import diagnostics, todolist
from photometry_tasks.rules.validation import invalid
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import open_read_only

__all__ = ["export_tasks"]

#: Rows that are in memory at once.
_BATCH = 10_000

#: All of todolist, and what diagnostics has besides.
_COLUMNS: tuple[Column[Any], ...] = (*todolist.columns, *(c for c in diagnostics.columns if c.name != "priority"))

_UNITS = {
    "cadence": "s",
    "tmag": "mag",
    "elaptime": "s",
    "worker_wait_time": "s",
    "mean_flux": "electron / s",
    "edge_flux": "electron / s",
    "pos_row": "pix",
    "pos_column": "pix",
    "mask_size": "pix",
    "stamp_width": "pix",
    "stamp_height": "pix",
}

Row = Sequence[Any]
_Writing = AbstractContextManager[Callable[[Sequence[Row]], None]]


def export_tasks(
    todo: str | os.PathLike[str] | Location,
    target: Path,
    *,
    status: Collection[int | None] | None = None,
    **constraints: Unpack[Constraints],
) -> int:
    """Write tasks with their diagnostics to a file, in order of priority; whoever reads it sees it complete.

    Parameters
    ----------
    todo : str or os.PathLike
        The TODO-file, or the URL of a list on a server, which may be in use.
    target : Path
        A file whose name ends with .csv, .parquet (needs the extra `parquet`) or .ecsv (`ecsv`). It is replaced.
    status : collection of int or None, optional
        Values of `STATUS`; None for pending tasks. By default all.
    **constraints
        Arguments of `build_constraints`.

    Returns
    -------
    int
        Tasks written. One without a result has empty diagnostics.

    Raises
    ------
    InvalidArgumentError
        If the name ends otherwise, or is that of the TODO-file.
    OutdatedSchemaError
        If the file is of an older release.
    """
    write = _WRITERS.get(target.suffix.lower())
    if write is None:
        raise invalid("target", str(target), f"a name that ends with {', '.join(_WRITERS)} is expected")
    location = parse_location(todo)
    statement = _build_select(status, build_expressions(check_constraints(constraints)))
    number = 0

    def fill(temporary: Path) -> None:
        nonlocal number
        with write(temporary) as write_rows:
            result = connection.execution_options(yield_per=_BATCH).execute(statement)
            for rows in result.partitions():
                write_rows(rows)
                number += len(rows)

    with closing(open_read_only(location)) as database, database.begin(writes=False) as connection:
        schema.check_current(connection, database.name)
        location.write_output(target, fill)
    return number


def _build_select(status: Collection[int | None] | None, conditions: Sequence[Any]) -> Select[Any]:
    joined = todolist.outerjoin(diagnostics, todolist.c.priority == diagnostics.c.priority)
    statement = select(*_COLUMNS).select_from(joined).where(*conditions).order_by(todolist.c.priority)
    if status is None:
        return statement
    chosen = todolist.c.status.in_([value for value in status if value is not None])
    return statement.where(or_(chosen, todolist.c.status.is_(None)) if None in status else chosen)


@contextmanager
def _write_csv(path: Path, head: str | None = None) -> Iterator[Callable[[Sequence[Row]], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if head is None:
            writer.writerow(column.name for column in _COLUMNS)
        else:
            file.write(head)
        yield writer.writerows


@contextmanager
def _write_ecsv(path: Path) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Write the head by astropy, which would have all rows in memory at once, and the rows as the format has them.

    Source: the Enhanced Character-Separated Values format 1.0 (https://github.com/astropy/astropy-APEs, APE 6).
    """
    from astropy.table import Column as TableColumn
    from astropy.table import Table

    table = Table([TableColumn(name=c.name, dtype=_type(c), unit=_UNITS.get(c.name)) for c in _COLUMNS])
    head = io.StringIO()
    table.write(head, format="ascii.ecsv", delimiter=",")
    with _write_csv(path, head.getvalue()) as write_rows:
        # Its readers take a row for a line.
        yield lambda rows: write_rows([_on_one_line(row) for row in rows])


def _on_one_line(row: Row) -> list[Any]:
    return [value.replace("\r", "\\r").replace("\n", "\\n") if isinstance(value, str) else value for value in row]


@contextmanager
def _write_parquet(path: Path) -> Iterator[Callable[[Sequence[Row]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    table_schema = pa.schema([pa.field(c.name, types[_type(c)], metadata=_unit(c)) for c in _COLUMNS])
    with pq.ParquetWriter(path, table_schema, compression="zstd") as writer:

        def write_rows(rows: Sequence[Row]) -> None:
            columns = zip(zip(*rows, strict=True), table_schema.types, strict=True)
            arrays = [pa.array(values, kind) for values, kind in columns]
            writer.write_batch(pa.record_batch(arrays, schema=table_schema))

        yield write_rows


def _unit(column: Column[Any]) -> dict[str, str] | None:
    return {"unit": _UNITS[column.name]} if column.name in _UNITS else None


def _type(column: Column[Any]) -> type:
    return int if isinstance(column.type, Integer) else float if isinstance(column.type, Float) else str


_WRITERS: dict[str, Callable[[Path], _Writing]] = {".csv": _write_csv, ".parquet": _write_parquet, ".ecsv": _write_ecsv}
