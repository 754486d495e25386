"""The formats of an export: a writer for each suffix of a file name."""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple
from xml.sax.saxutils import escape

from sqlalchemy import Column

from photometry_tasks.reading.rows import Batch
from photometry_tasks.reading.tables import build_arrow_batch, build_arrow_schema

#: Bytes. A file whose names of columns begin later is not read to its end.
_LONGEST_HEAD = 100_000

#: Batches in a row group of Parquet: a group is compressed as a whole.
_GROUP = 5

#: The columns of a table, whose `info` may hold a unit.
Columns = Sequence[Column[Any]]

#: Yields all rows, each time that it is called.
Read = Callable[[], Iterator[Batch]]

#: Writes all rows into an empty file, which can be emptied again.
Writer = Callable[[BinaryIO, Columns, Read], None]


def _write_csv(file: BinaryIO, columns: Columns, read: Read, head: str | None = None) -> None:
    """Write every text in quotes, and NULL as nothing: readers then distinguish an empty text, and keep line breaks."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    text.write(",".join(column.name for column in columns) + "\n" if head is None else head)
    for batch in read():
        cells = [_format(column, values) for column, values in zip(columns, batch, strict=True)]
        text.write("\n".join(map(",".join, zip(*cells, strict=True))) + "\n")
    text.detach()


def _format(column: Column[Any], values: Sequence[Any]) -> list[str]:
    if _type(column) is str:
        return ["" if text is None else '"' + text.replace('"', '""') + '"' for text in values]
    return ["" if number is None else repr(number) for number in values]


#: Texts that astropy changes in a column of texts: it takes each line for a row, and removes blanks around a value.
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|^\s|\s$|^$")


def _write_ecsv(file: BinaryIO, columns: Columns, read: Read, as_json: Set[str] = frozenset()) -> None:
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

    _write_csv(file, columns, read_encoded, head.getvalue())
    if odd:
        _write_ecsv(_empty(file), columns, read, as_json | odd)


def _empty(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    file.truncate()
    return file


def _write_votable(file: BinaryIO, columns: Columns, read: Read) -> None:
    """Write the frame with astropy, and the rows as XML: astropy would hold all rows in memory at once.

    Source: VOTable 1.4 (https://www.ivoa.net/documents/VOTable). An empty cell is a missing number, or an empty text.
    """
    from astropy.io.votable import tree

    document = tree.VOTableFile(version="1.4")
    resource, table = tree.Resource(), tree.TableElement(document)
    document.resources.append(resource)
    resource.tables.append(table)
    for column in columns:
        field = tree.Field(document, name=column.name, unit=column.info.get("unit"), **_VOTABLE[_type(column)])
        field.description = column.doc
        table.fields.append(field)
    table.create_arrays(1)
    frame = io.BytesIO()
    document.to_xml(frame)
    head, _, rest = frame.getvalue().partition(b"<TR>")
    file.write(head)
    for batch in read():
        cells = [["" if value is None else _escape_xml(str(value)) for value in values] for values in batch]
        rows = ("<TR><TD>" + "</TD><TD>".join(row) + "</TD></TR>" for row in zip(*cells, strict=True))
        file.write("\n".join(rows).encode() + b"\n")
    file.write(rest.partition(b"</TR>")[2])


_VOTABLE: dict[type, dict[str, str]] = {
    bool: {"datatype": "boolean"},
    int: {"datatype": "long"},
    float: {"datatype": "double"},
    str: {"datatype": "unicodeChar", "arraysize": "*"},
}


def _escape_xml(text: str) -> str:
    """Return a text for XML, which has no control characters."""
    return escape(_NOT_XML.sub(lambda match: match[0].encode("unicode_escape").decode(), text))


_NOT_XML = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


def _write_fits(file: BinaryIO, columns: Columns, read: Read, known: Mapping[str, int] = MappingProxyType({})) -> None:
    """Write the header with astropy, and the rows as they are in FITS: astropy would hold all rows in memory at once.

    All texts of a column have one width: if a text is longer than `known`, all is written again.
    Source: FITS 4.0, 7.3 (https://fits.gsfc.nasa.gov).
    """
    import numpy as np
    from astropy.io import fits

    widths = {column.name: known.get(column.name, 1) for column in columns if _type(column) is str}
    parts, types = [], []
    for column in columns:
        form, kind, null = _FITS.get(_type(column)) or (f"{widths[column.name]}A", f"S{widths[column.name]}", None)
        name = _escape_fits(column.name).decode()
        parts.append(fits.Column(name, form, unit=column.info.get("unit"), null=null))
        types.append((column.name, kind))
    table, row, number = fits.BinTableHDU.from_columns(parts, nrows=0), np.dtype(types), 0
    primary = fits.PrimaryHDU()
    primary.header["EXTEND"] = True
    head = primary.header.tostring().encode("ascii")
    file.write(head + table.header.tostring().encode("ascii"))
    longest = dict(widths)
    for batch in read():
        rows = np.zeros(len(batch[0]), row)
        number += len(rows)
        for column, values in zip(columns, batch, strict=True):
            if column.name in widths:
                texts = list(map(_escape_fits, values))
                longest[column.name] = max(longest[column.name], *map(len, texts))
                rows[column.name] = texts
            else:
                null = _FITS[_type(column)][2]
                rows[column.name] = [null if value is None else value for value in values]
        if longest == widths:
            file.write(rows.tobytes())
    if longest != widths:
        _write_fits(_empty(file), columns, read, longest)
        return
    file.write(bytes(-number * row.itemsize % 2880))
    table.header["NAXIS2"] = number
    file.seek(len(head))
    file.write(table.header.tostring().encode("ascii"))


#: The format of a column, the type of its values in a row, and a missing value; FITS has no missing truth value.
_FITS: dict[type, tuple[str, str, Any]] = {
    bool: ("B", "u1", 255),
    int: ("K", ">i8", -(2**63)),
    float: ("D", ">f8", None),  # numpy makes NaN of None
}


def _escape_fits(text: str | None) -> bytes:
    """Return a text in printable ASCII, with escapes."""
    if text is None:
        return b""
    return text.encode("ascii") if text.isascii() and text.isprintable() else text.encode("unicode_escape")


def _write_parquet(file: BinaryIO, columns: Columns, read: Read) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table_schema = build_arrow_schema(columns)
    records = (build_arrow_batch(batch, table_schema) for batch in read())
    with pq.ParquetWriter(file, table_schema, compression="zstd") as writer:
        while group := list(islice(records, _GROUP)):
            writer.write_table(pa.Table.from_batches(group))


def _type(column: Column[Any]) -> type:
    return column.type.python_type


def _read_csv_names(file: BinaryIO) -> list[str]:
    """Return the fields of the first line, or of the first line after the header of ECSV."""
    lines = file.read(_LONGEST_HEAD).decode(errors="replace").splitlines()
    return next((line.split(",") for line in lines if not line.startswith("#")), [])


def _read_parquet_names(file: BinaryIO) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names: list[str] = pq.read_schema(file).names
    except (pa.ArrowException, OSError):  # it is no Parquet, or is damaged
        return []
    return names


def _read_head(pattern: bytes, file: BinaryIO) -> list[str]:
    return [name.decode() for name in re.findall(pattern, file.read(_LONGEST_HEAD))]


class Format(NamedTuple):
    """A format of an export.

    Attributes
    ----------
    write : Writer
    read_names : callable
        Returns the names of the columns of a file, or an empty list if the file has another format.
    is_text : bool
        Whether the format is a text, which can be compressed and printed.
    """

    write: Writer
    read_names: Callable[[BinaryIO], list[str]]
    is_text: bool = False


#: The formats, by the suffix of the file name.
FORMATS = {
    ".csv": Format(_write_csv, _read_csv_names, is_text=True),
    ".ecsv": Format(_write_ecsv, _read_csv_names, is_text=True),
    ".vot": Format(_write_votable, partial(_read_head, rb'<FIELD [^>]*name="([ -~]*?)"'), is_text=True),
    ".fits": Format(_write_fits, partial(_read_head, rb"TTYPE\d+\s*= '([ -~]*?)\s*'")),
    ".parquet": Format(_write_parquet, _read_parquet_names),
}

#: The suffixes that a file name may have, for messages.
SUFFIXES = ", ".join(f"{suffix} or {suffix}.gz" if form.is_text else suffix for suffix, form in FORMATS.items())


def find_format(name: str) -> tuple[Format, bool] | None:
    """Return the format of a file name, and whether the file is compressed; None for another name."""
    name = name.lower()
    form = FORMATS.get(Path(name.removesuffix(".gz")).suffix)
    is_compressed = name.endswith(".gz")
    return None if form is None or (is_compressed and not form.is_text) else (form, is_compressed)
