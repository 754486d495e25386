"""Read rows of Python and Arrow tables, some at a time, by column."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar, runtime_checkable

from photometry_tasks.errors import InvalidTargetError
from photometry_tasks.ingest.targets import MISSING, USED, Chunk
from photometry_tasks.models import todolist
from photometry_tasks.rules.validation import invalid_argument, show

T = TypeVar("T")

#: Rows in a chunk: they stay in the processor's cache.
SIZE = 1_000


@runtime_checkable
class ArrowTable(Protocol):
    """A table with the Arrow PyCapsule interface, whatever its library."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the table as a stream of Arrow's C interface."""


class Table(Protocol):
    """A table whose columns have names: of astropy, or a structured array of NumPy."""

    def __getitem__(self, name: Any) -> Any:
        """Return a column."""

    def __len__(self) -> int:
        """Return the number of rows."""


def iter_parts(rows: Iterable[T]) -> Iterator[list[T]]:
    """Yield rows some at a time; if reading them raises an error, the rows before it come first."""
    rows = iter(rows)
    fault = None
    while fault is None:
        some: list[T] = []
        try:
            some.extend(islice(rows, SIZE))
        except InvalidTargetError as error:
            fault = error
        if some:
            yield some
        elif fault is None:
            return
    raise fault


def read_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Chunk]:
    """Yield mappings of columns to values, whose values are not checked.

    Raises
    ------
    InvalidTargetError
        If a row is no mapping. The error names its number.
    """
    done = 0
    for some in iter_parts(rows):
        plain: list[Any] = []
        fault = None
        try:
            # dict() also takes a sqlite3.Row, which is not a mapping.
            plain.extend(some if set(map(type, some)) == {dict} else map(dict, some))
        except (TypeError, ValueError):
            problem = f"{show(some[len(plain)])} is not a mapping of columns to values"
            fault = InvalidTargetError(where=_locate(len(plain), done), problem=problem)
        if plain:
            yield Chunk(_build_columns(plain), len(plain), partial(_locate, done=done))
        if fault is not None:
            raise fault
        done += len(some)


def _locate(place: int, done: int) -> str:
    return f"row {done + place + 1}"


def _build_columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return rows by column."""
    names = rows[0].keys()
    if set(map(len, rows)) == {len(names)}:
        try:
            return {name: [row[name] for row in rows] for name in names}
        except KeyError:
            pass
    return {name: [row.get(name, MISSING if name == "tmag" else None) for row in rows] for name in USED}


def find_names(rows: Any) -> list[str] | None:
    """Return the names of a table's columns; None if it is no table of astropy or NumPy."""
    if hasattr(rows, "iterrows") and hasattr(rows, "colnames"):  # a row of astropy has only the names
        return list(rows.colnames)
    names = getattr(getattr(rows, "dtype", None), "names", None)
    return list(names) if names and getattr(rows, "ndim", 0) == 1 else None


def read_table(table: Table, names: list[str]) -> Iterator[Chunk]:
    """Yield the rows of a table, whose values are not checked.

    Raises
    ------
    InvalidTargetError
        If a column has another unit than `todolist`.
    """
    for name in set(USED).intersection(names):
        unit, ours = getattr(table[name], "unit", None), todolist.c[name].info.get("unit")
        if unit and ours and str(unit) != ours:
            raise InvalidTargetError(where="the table", problem=f"column {name} is in {unit}; give it in {ours}")
    for done in range(0, len(table), SIZE):
        some = table[done : done + SIZE]
        columns = {name: _list_values(some[name]) for name in USED if name in names}
        yield Chunk(columns, len(some), partial(_locate, done=done))


def _list_values(column: Any) -> list[Any]:
    """Return the values of a column of astropy or NumPy; None for a masked value."""
    mask = getattr(column, "mask", ())
    values = getattr(column, "value", column)  # without the unit
    values = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values.tolist()]
    masked = mask if len(mask) else [False] * len(values)
    return [None if is_masked else value for value, is_masked in zip(values, masked, strict=True)]


def _with_index(table: Any) -> Any:
    """Return a table whose named indexes, if it is one of pandas, are columns."""
    names = getattr(getattr(table, "index", None), "names", ())
    missing = [name for name in names if name is not None and name not in table.columns]
    return table.reset_index(missing) if missing else table


def read_arrow(table: ArrowTable) -> Iterator[Chunk]:
    """Yield the rows of a table, whose values are not checked.

    Raises
    ------
    InvalidTargetError
        If a column occurs twice, or has a text that is not UTF-8.
    """
    import pyarrow as pa

    try:
        reader = pa.RecordBatchReader.from_stream(_with_index(table))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise invalid_argument("rows", table, f"a table with named columns is expected ({error})") from error
    names = reader.schema.names
    if repeated := [name for name in USED if names.count(name) > 1]:
        raise InvalidTargetError(where="the table", problem=f"column {repeated[0]} occurs twice")
    done = 0
    for batch in reader:
        for start in range(0, batch.num_rows, SIZE):
            some = batch.slice(start, SIZE)
            try:
                columns = {name: some.column(name).to_pylist() for name in USED if name in names}
            except UnicodeDecodeError as error:
                where = f"rows {done + 1} to {done + some.num_rows}"
                raise InvalidTargetError(where=where, problem=f"a text is not UTF-8 ({error})") from None
            yield Chunk(columns, some.num_rows, partial(_locate, done=done))
            done += some.num_rows
