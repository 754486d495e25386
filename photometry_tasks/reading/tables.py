"""Build tables of astropy, pandas and Arrow, with the units and descriptions of the columns."""

from collections.abc import Sequence
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column

from photometry_tasks.errors import LibraryMissingError
from photometry_tasks.reading.columns import EXTRA
from photometry_tasks.reading.extra import fit_values, retype
from photometry_tasks.reading.rows import Batch, TaskPages

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from astropy.table import Table

#: The types of pandas that hold a missing value, and keep integers integers.
_PANDAS = {bool: "boolean", int: "Int64", float: "Float64", str: "string"}

#: The value under the mask of a missing value.
_FILL: dict[type, Any] = {bool: False, int: 0, float: float("nan"), str: ""}


def load_library(name: str, extra: str) -> Any:
    """Import a library that an extra installs.

    Raises
    ------
    LibraryMissingError
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise LibraryMissingError(name=name.partition(".")[0], found=error, extra=extra) from error


def build_arrow_schema(columns: Sequence[Column[Any]]) -> "pa.Schema":
    """Return the schema of an Arrow table; the metadata of each field holds its unit and description."""
    pa = load_library("pyarrow", "parquet")
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    return pa.schema([pa.field(c.name, types[c.type.python_type], metadata=_describe(c)) for c in columns])


def build_arrow_batch(batch: Batch, table_schema: "pa.Schema") -> "pa.RecordBatch":
    """Return rows as a record batch of Arrow."""
    pa = load_library("pyarrow", "parquet")
    arrays = [pa.array(values, kind) for values, kind in zip(batch, table_schema.types, strict=True)]
    return pa.record_batch(arrays, schema=table_schema)


def build_arrow_table(pages: TaskPages) -> "pa.Table":
    """Return rows as a table of Arrow."""
    pa = load_library("pyarrow", "parquet")
    columns, batches = _read_all(pages)
    table_schema = build_arrow_schema(columns)
    records = [build_arrow_batch(batch, table_schema) for batch in batches]
    return pa.Table.from_batches(records, schema=table_schema)


def build_astropy_table(pages: TaskPages) -> "Table":
    """Return rows as a table of astropy; a missing value is masked."""
    table = load_library("astropy.table", "astropy")
    return table.Table([_build_astropy_column(table, column, values) for column, values in _join(pages)])


def _build_astropy_column(table: Any, column: Column[Any], values: Sequence[Any]) -> Any:
    kind = column.type.python_type
    filled = [_FILL[kind] if value is None else value for value in values]
    named = {"name": column.name, "unit": column.info.get("unit"), "description": column.doc}
    dtype: Any = "int64" if kind is int else kind
    if len(values) and None not in values:
        return table.Column(filled, dtype=dtype, **named)
    return table.MaskedColumn(filled, mask=[value is None for value in values], dtype=dtype, **named)


def build_pandas_frame(pages: TaskPages) -> "pd.DataFrame":
    """Return rows as a frame of pandas; its `attrs` hold the units and descriptions."""
    pd = load_library("pandas", "pandas")
    joined = _join(pages)
    frame = pd.DataFrame(
        {column.name: pd.array(values, dtype=_PANDAS[column.type.python_type]) for column, values in joined}
    )
    frame.attrs = {column.name: _describe(column) for column, _ in joined}
    return frame


def _read_all(pages: TaskPages) -> tuple[list[Column[Any]], list[Batch]]:
    """Return the columns and all rows; the pipeline's own values have the types that all of them have."""
    columns, batches = list(pages.columns), list(pages)
    for place, column in enumerate(columns):
        if column.name.startswith(EXTRA):
            columns[place] = retype(column, chain.from_iterable(batch[place] for batch in batches))
            for batch in batches:
                batch[place] = fit_values(columns[place], batch[place])
    return columns, batches


def _join(pages: TaskPages) -> list[tuple[Column[Any], list[Any]]]:
    """Return each column with all of its values."""
    columns, batches = _read_all(pages)
    return [(column, list(chain.from_iterable(batch[k] for batch in batches))) for k, column in enumerate(columns)]


def _describe(column: Column[Any]) -> dict[str, str]:
    """Return the unit and the description of a column, as far as it has them."""
    described = {"unit": column.info.get("unit"), "description": column.doc}
    return {name: text for name, text in described.items() if text is not None}
