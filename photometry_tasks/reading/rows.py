"""Read tasks with their results, in pages: parts in order of priority, each of which begins after the last one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, bindparam, inspect, select
from sqlalchemy.sql import operators
from sqlalchemy.sql.visitors import iterate

from photometry_tasks.errors import UnreadableValueError
from photometry_tasks.models import TABLES, attempts, diagnostics, extra, photometry_skipped, todolist, workers
from photometry_tasks.reading.columns import COLUMNS, EXTRA, STORED
from photometry_tasks.reading.extra import add_types, build_columns, read_extra
from photometry_tasks.rules.stored_values import read_values
from photometry_tasks.sql.execution import iter_batches
from photometry_tasks.sql.statements import RESULTS
from photometry_tasks.status import RELEASED, name_status
from photometry_tasks.storage.open import OpenList

#: Rows of a page: a reader holds its transaction for some tenths of a second. The first rows should come at once.
FIRST_PAGE, PAGE = 500, 10_000

#: Rows by column: the values of each column.
Batch = list[Sequence[Any]]

_task, _skip, _try = todolist.c, photometry_skipped.c, attempts.c
_cover = todolist.alias("cover")


def _among(column: ColumnElement[int], keys: Sequence[int]) -> ColumnElement[bool]:
    """Return whether a priority is one of those of a page; a range, which is faster, may hold some others."""
    if keys[-1] - keys[0] < 2 * len(keys):
        return column.between(keys[0], keys[-1])
    # The integers are written into the SQL: a driver does not accept so many parameters.
    return column.in_(bindparam("priorities", keys, expanding=True, literal_execute=True))


#: The covering tasks of each task, the brightest first.
_SKIPS: Select[Any] = (
    select(_skip.priority, _skip.skipped_by)
    .join(_cover, _cover.c.priority == _skip.skipped_by)
    .order_by(_cover.c.tmag.is_(None), _cover.c.tmag, _cover.c.priority)
)
_ATTEMPTS: Select[Any] = (
    select(_try.priority, _try.worker, _try.how)
    .where(_try.ended.is_not(None), _try.how != RELEASED)
    .order_by(_try.priority, _try.attempt)
)
_VERSIONS: Select[Any] = select(workers.c.worker, workers.c.version)


def find_stored(opened: OpenList) -> set[Column[Any]]:
    """Return the columns of our tables that a list has."""
    if not opened.changes:
        return {column for table in TABLES for column in table.columns}
    layout = inspect(opened.connection).get_multi_columns(filter_names=[table.name for table in TABLES])
    names = {table: {str(column["name"]).lower() for column in columns} for (_, table), columns in layout.items()}
    return {column for table in TABLES for column in table.columns if column.name in names.get(table.name, ())}


def _finds_in_order(condition: ColumnElement[bool]) -> bool:
    """Whether SQLite finds few tasks by this condition, or finds them in order of priority, without reading others."""
    names = {column.name for column in iterate(condition) if isinstance(column, Column) and column.table is todolist}
    is_one_status = names == {"status"} and getattr(condition, "operator", None) in (operators.eq, operators.is_)
    return is_one_status or not names.isdisjoint({"priority", "starid"})


#: Opens a list for one transaction that only reads.
Begin = Callable[[], AbstractContextManager[OpenList]]


def find_own_columns(begin: Begin, conditions: Sequence[ColumnElement[bool]]) -> list[Column[Any]]:
    """Return the columns of the pipeline's own values in tasks that meet conditions, with the types of these values."""
    found: dict[str, set[type]] = {}
    joined = extra.join(todolist, _task.priority == extra.c.priority)
    statement = select(extra.c.priority, extra.c.extra).select_from(joined).where(*conditions)
    statement = _keep_order(statement, conditions).order_by(extra.c.priority).limit(PAGE)
    page, rows = statement, None
    while rows is None or len(rows) == PAGE:
        with begin() as opened:
            if extra.c.extra not in find_stored(opened):
                break
            rows = opened.connection.execute(page).all()
        _explain(opened.name, add_types, found, map(tuple, rows))
        if rows:
            page = statement.where(extra.c.priority > rows[-1].priority)
    return build_columns(found)


class TaskPages:
    """Tasks with their results, read in pages, each of which is a transaction; the first one is read at once.

    A task that changes meanwhile is seen as it is when its page is read.

    Parameters
    ----------
    begin : callable
    conditions : sequence of ColumnElement
        The tasks that are read meet all of them.
    columns : sequence of Column
        Of `COLUMNS`, and of the pipeline's own values.
    """

    def __init__(self, begin: Begin, conditions: Sequence[ColumnElement[bool]], columns: Sequence[Column[Any]]) -> None:
        self._begin = begin
        self._conditions = conditions
        self.columns = columns
        self._first = self._read_page(None, FIRST_PAGE)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the rows of each page by column; the first page is small."""
        (last, batch), size = self._first, FIRST_PAGE
        while last is not None:
            yield batch
            if len(batch[0]) < size:
                return
            size = min(2 * size, PAGE)
            last, batch = self._read_page(last, size)

    def _read_page(self, after: int | None, size: int) -> tuple[int | None, Batch]:
        with self._begin() as opened:
            return read_page(opened, self._conditions, self.columns, after, size)


def _keep_order(statement: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
    if any(map(_finds_in_order, conditions)):
        return statement
    # By an index SQLite would find and sort all tasks again for each page.
    return statement.with_hint(todolist, "NOT INDEXED", "sqlite")


def _explain(name: str, read: Any, *given: Any) -> Any:
    """Return the result of a function; an error names the value that it cannot read."""
    try:
        return read(*given)
    except ValueError as error:
        raise UnreadableValueError(path=name, found=error) from None


def read_page(
    opened: OpenList,
    conditions: Sequence[ColumnElement[bool]],
    columns: Sequence[Column[Any]],
    after: int | None = None,
    size: int = PAGE,
) -> tuple[int | None, Batch]:
    """Read tasks with their results, in order of priority.

    Parameters
    ----------
    opened : OpenList
    conditions : sequence of ColumnElement
    columns : sequence of Column
    after : int, optional
        The last priority of the page before; None for the first page.
    size : int, optional
        The most rows.

    Returns
    -------
    last : int or None
        The last priority of this page; None if no row is left.
    batch : list of sequence
        The values of each of the columns.
    """
    return _Page(opened, conditions, columns).read(after, size)


class _Page:
    """Reads one page within an open transaction."""

    def __init__(
        self, opened: OpenList, conditions: Sequence[ColumnElement[bool]], columns: Sequence[Column[Any]]
    ) -> None:
        self._connection = opened.connection
        self._name = opened.name
        self._conditions = conditions
        self._columns = columns
        self._own = [column.name for column in columns if column.name.startswith(EXTRA)]
        self._stored = find_stored(opened)
        self._chosen = {column.name for column in columns}
        self._statement = self._build_statement()

    def _build_statement(self) -> Select[Any]:
        needed = self._chosen | {"priority"} | ({"status"} if "status_name" in self._chosen else set())
        if "version" in self._chosen:
            needed.add("elaptime")  # a task without a result has no version
        columns = [column for column in STORED if column.name in needed and column in self._stored]
        joined: Any = todolist
        if diagnostics.c.priority in self._stored:
            joined = joined.outerjoin(diagnostics, _task.priority == diagnostics.c.priority)
        if self._own:
            columns.append(extra.c.extra)
            joined = joined.outerjoin(extra, _task.priority == extra.c.priority)
        statement = select(*columns).select_from(joined).where(*self._conditions).order_by(_task.priority)
        return _keep_order(statement, self._conditions)

    def read(self, after: int | None, size: int) -> tuple[int | None, Batch]:
        statement = self._statement if after is None else self._statement.where(_task.priority > after)
        stored = self._read_stored(statement.limit(size))
        keys: Sequence[int] = stored["priority"]
        if not keys:
            return None, [() for _ in self._columns]
        texts = stored.pop("extra", None)
        values: dict[str, Sequence[Any]] = {
            name: _explain(self._name, read_values, COLUMNS[name], found, keys) for name, found in stored.items()
        }
        if texts is not None:
            found = _explain(self._name, read_extra, [name.removeprefix(EXTRA) for name in self._own], texts, keys)
            values.update(zip(self._own, found, strict=True))
        if "status_name" in self._chosen:
            values["status_name"] = list(map(name_status, values["status"]))
        if "skipped_by" in self._chosen and _skip.priority in self._stored:
            values["skipped_by"] = self._read_covers(keys)
        if self._chosen & {"attempts", "version"} and _try.attempt in self._stored:
            values["attempts"], values["version"] = self._read_attempts(keys, values.get("elaptime", keys))
        nothing = [None] * len(keys)
        return keys[-1], [values.get(column.name, nothing) for column in self._columns]

    def _read_stored(self, statement: Select[Any]) -> dict[str, list[Any]]:
        """Return the values of each column of a statement."""
        stored: dict[str, list[Any]] = {column.name: [] for column in statement.selected_columns}
        for rows in iter_batches(self._connection, statement):
            for values, more in zip(stored.values(), zip(*rows, strict=True), strict=True):
                values.extend(more)
        return stored

    def _read_covers(self, keys: Sequence[int]) -> list[int | None]:
        covers: dict[int, int] = {}
        for priority, cover in self._connection.execute(_SKIPS.where(_among(_skip.priority, keys))):
            covers.setdefault(priority, cover)
        return list(map(covers.get, keys))

    def _read_attempts(self, keys: Sequence[int], times: Sequence[Any]) -> tuple[list[int], list[str | None]]:
        versions = dict(map(tuple, self._connection.execute(_VERSIONS)))
        numbers: dict[int, int] = {}
        made_by: dict[int, str | None] = {}
        for priority, worker, how in self._connection.execute(_ATTEMPTS.where(_among(_try.priority, keys))):
            numbers[priority] = numbers.get(priority, 0) + 1
            if how in RESULTS:
                made_by[priority] = versions.get(worker)
        pairs = zip(keys, times, strict=True)
        return [numbers.get(key, 0) for key in keys], [
            None if time is None else made_by.get(key) for key, time in pairs
        ]


def iter_records(columns: Sequence[Column[Any]], batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield rows as dicts."""
    names = [column.name for column in columns]
    for row in zip(*batch, strict=True):
        yield dict(zip(names, row, strict=True))
