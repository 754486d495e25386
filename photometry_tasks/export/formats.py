"""The formats of an export: a writer for each suffix of a file name."""

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Column

from photometry_tasks.reading.rows import Batch
from photometry_tasks.reading.tables import build_arrow_batch, build_arrow_schema

#: Bytes. A file whose names of columns begin later is not read to its end.
_LONGEST_HEAD = 100_000

#: Batches in a row group of Parquet: a group is compressed as a whole.
_GROUP = 10

#: The columns of a table, whose `info` may hold a unit.
Columns = Sequence[Column[Any]]

#: Yields all rows, each time that it is called.
Read = Callable[[], Iterator[Batch]]

#: Writes all rows into an empty file.
Writer = Callable[[Path, Columns, Read], None]


def _write_csv(path: Path, columns: Columns, read: Read, head: str | None = None) -> None:
    """Write every text in quotes, and NULL as nothing: readers then distinguish an empty text, and keep line breaks."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(column.name for column in columns) + "\n" if head is None else head)
        for batch in read():
            cells = [_format(column, values) for column, values in zip(columns, batch, strict=True)]
            file.write("\n".join(map(",".join, zip(*cells, strict=True))) + "\n")


def _format(column: Column[Any], values: Sequence[Any]) -> list[str]:
    if _type(column) is str:
        return ["" if text is None else '"' + text.replace('"', '""') + '"' for text in values]
    return ["" if number is None else repr(number) for number in values]


#: Texts that astropy changes in a column of texts: it takes each line for a row, and removes blanks around a value.
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|^\s|\s$|^$")


def _write_ecsv(path: Path, columns: Columns, read: Read, as_json: Set[str] = frozenset()) -> None:
    """Write the header with astropy, and the rows as CSV: astropy would hold all rows in memory at once.

    A column with a text that astropy would change is written as JSON: astropy reads its texts as objects.
    Source: the Enhanced Character-Separated Values format 1.0 (https://github.com/astropy/astropy-APEs, APE 6).
    """
    from astropy.table import Column as TableColumn
    from astropy.table import Table

    kinds = [object if column.name in as_json else _type(column) for column in columns]
    named = zip(columns, kinds, strict=True)
    table = Table([TableColumn(name=c.name, dtype=t, unit=c.info.get("unit"), description=c.doc) for c, t in named])
    head = io.StringIO()
    table.write(head, format="ascii.ecsv", delimiter=",")
    odd: set[str] = set()

    def read_encoded() -> Iterator[Batch]:
        for batch in read():
            encoded = []
            for column, kind, values in zip(columns, kinds, batch, strict=True):
                if kind is object:
                    values = [None if text is None else json.dumps(text) for text in values]
                elif kind is str and any(text is not None and _ODD.search(text) for text in values):
                    odd.add(column.name)
                encoded.append(values)
            yield encoded

    _write_csv(path, columns, read_encoded, head.getvalue())
    if odd:
        _write_ecsv(path, columns, read, as_json | odd)


def _write_parquet(path: Path, columns: Columns, read: Read) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table_schema = build_arrow_schema(columns)
    records = (build_arrow_batch(batch, table_schema) for batch in read())
    with pq.ParquetWriter(path, table_schema, compression="zstd") as writer:
        while group := list(islice(records, _GROUP)):
            writer.write_table(pa.Table.from_batches(group))


def _type(column: Column[Any]) -> type:
    return column.type.python_type


def _read_csv_names(path: Path) -> list[str]:
    """Return the fields of the first line, or of the first line after the header of ECSV."""
    with path.open("rb") as file:
        lines = file.read(_LONGEST_HEAD).decode(errors="replace").splitlines()
    return next((line.split(",") for line in lines if not line.startswith("#")), [])


def _read_parquet_names(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names: list[str] = pq.read_schema(path).names
    except (pa.ArrowException, OSError):  # it is no Parquet, or is damaged
        return []
    return names


class Format(NamedTuple):
    """A format of an export.

    Attributes
    ----------
    write : Writer
    read_names : callable
        Returns the names of the columns of a file, or an empty list if the file has another format.
    """

    write: Writer
    read_names: Callable[[Path], list[str]]


#: The formats, by the suffix of the file name.
FORMATS = {
    ".csv": Format(_write_csv, _read_csv_names),
    ".parquet": Format(_write_parquet, _read_parquet_names),
    ".ecsv": Format(_write_ecsv, _read_csv_names),
}
