"""The formats of an export: a writer for each suffix of a file name."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Float, Integer

Row = Sequence[Any]

#: The columns of a table, whose `info` may hold a unit.
Columns = Sequence[Column[Any]]

#: Opens a file for rows with these columns, and returns a function that writes a batch of rows.
Writer = Callable[[Path, Columns], AbstractContextManager[Callable[[Sequence[Row]], None]]]


@contextmanager
def _write_csv(path: Path, columns: Columns, head: str | None = None) -> Iterator[Callable[[Sequence[Row]], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if head is None:
            writer.writerow(column.name for column in columns)
        else:
            file.write(head)
        yield writer.writerows


@contextmanager
def _write_ecsv(path: Path, columns: Columns) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Write the header with astropy, and the rows as CSV: astropy would hold all rows in memory at once.

    Source: the Enhanced Character-Separated Values format 1.0 (https://github.com/astropy/astropy-APEs, APE 6).
    """
    from astropy.table import Column as TableColumn
    from astropy.table import Table

    table = Table([TableColumn(name=c.name, dtype=_type(c), unit=c.info.get("unit")) for c in columns])
    head = io.StringIO()
    table.write(head, format="ascii.ecsv", delimiter=",")
    with _write_csv(path, columns, head.getvalue()) as write_rows:
        # Readers of ECSV take each line for a row.
        yield lambda rows: write_rows([_on_one_line(row) for row in rows])


def _on_one_line(row: Row) -> list[Any]:
    return [value.replace("\r", "\\r").replace("\n", "\\n") if isinstance(value, str) else value for value in row]


@contextmanager
def _write_parquet(path: Path, columns: Columns) -> Iterator[Callable[[Sequence[Row]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    table_schema = pa.schema([pa.field(c.name, types[_type(c)], metadata=_unit(c)) for c in columns])
    with pq.ParquetWriter(path, table_schema, compression="zstd") as writer:

        def write_rows(rows: Sequence[Row]) -> None:
            values_of_columns = zip(zip(*rows, strict=True), table_schema.types, strict=True)
            arrays = [pa.array(values, kind) for values, kind in values_of_columns]
            writer.write_batch(pa.record_batch(arrays, schema=table_schema))

        yield write_rows


def _unit(column: Column[Any]) -> dict[str, str] | None:
    return {"unit": column.info["unit"]} if "unit" in column.info else None


def _type(column: Column[Any]) -> type:
    return int if isinstance(column.type, Integer) else float if isinstance(column.type, Float) else str


#: The writers, by the suffix of the file name.
WRITERS: dict[str, Writer] = {".csv": _write_csv, ".parquet": _write_parquet, ".ecsv": _write_ecsv}
