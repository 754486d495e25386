"""Read tasks with their results, in pages: parts in order of priority, each of which begins after the last one."""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, bindparam, inspect, select
from sqlalchemy.exc import DBAPIError

from photometry_tasks import schema
from photometry_tasks.errors import OutdatedSchemaError, UnreadableValueError
from photometry_tasks.models import TABLES, attempts, diagnostics, extra, photometry_skipped, todolist, workers
from photometry_tasks.reading.columns import COLUMNS, EXTRA, STORED, choose_columns
from photometry_tasks.reading.extra import find_extra_columns, read_extra
from photometry_tasks.rules.stored_values import read_values
from photometry_tasks.sql.statements import RESULTS
from photometry_tasks.status import RELEASED, name_status

#: Rows of a page: a reader holds its transaction for some hundredths of a second.
PAGE = 5000

#: Rows by column: the values of each column.
Batch = list[Sequence[Any]]

_task, _skip, _try = todolist.c, photometry_skipped.c, attempts.c
_cover = todolist.alias("cover")


def _among(column: ColumnElement[Any]) -> ColumnElement[bool]:
    # The integers are written into the SQL: a driver does not accept so many parameters.
    return column.in_(bindparam("priorities", expanding=True, literal_execute=True))


#: The covering tasks of each task, the brightest first.
_SKIPS: Select[Any] = (
    select(_skip.priority, _skip.skipped_by)
    .join(_cover, _cover.c.priority == _skip.skipped_by)
    .where(_among(_skip.priority))
    .order_by(_cover.c.tmag.is_(None), _cover.c.tmag, _cover.c.priority)
)
_ATTEMPTS: Select[Any] = (
    select(_try.priority, _try.worker, _try.how)
    .where(_among(_try.priority), _try.ended.is_not(None), _try.how != RELEASED)
    .order_by(_try.priority, _try.attempt)
)
_VERSIONS: Select[Any] = select(workers.c.worker, workers.c.version)


def find_stored(connection: Connection, changes: Collection[str]) -> set[Column[Any]]:
    """Return the columns of our tables that a list has.

    Parameters
    ----------
    connection : Connection
    changes : collection of str
        What an upgrade would change: see `schema.find_changes`.
    """
    if not changes:
        return {column for table in TABLES for column in table.columns}
    layout = inspect(connection).get_multi_columns(filter_names=[table.name for table in TABLES])
    names = {table: {str(column["name"]).lower() for column in columns} for (_, table), columns in layout.items()}
    return {column for table in TABLES for column in table.columns if column.name in names.get(table.name, ())}


class TaskReader:
    """Reads tasks with their results within an open transaction.

    Parameters
    ----------
    connection : Connection
    name : str
        The name of the list in errors.
    conditions : sequence of ColumnElement
        The tasks that are read meet all of them.
    names : sequence of str or None
        Checked names of columns; None stands for all.
    own : dict, optional
        Columns of the pipeline's own values, by the name of the value; by default those of the chosen tasks.

    Attributes
    ----------
    columns : list of Column
    own : dict
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        conditions: Sequence[ColumnElement[bool]],
        names: Sequence[str] | None,
        own: dict[str, Column[Any]] | None = None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._conditions = conditions
        self._changes = schema.find_changes(connection, name)
        self._stored = find_stored(connection, self._changes)
        if own is None:
            needs_own = names is None or any(given.startswith(EXTRA) for given in names)
            has_own = needs_own and extra.c.extra in self._stored
            own = self._explain(find_extra_columns, connection, conditions) if has_own else {}
        self.own = own
        self.columns = choose_columns(names, own)
        self._chosen = {column.name for column in self.columns}
        self._statement = self._build_statement()

    def _build_statement(self) -> Select[Any]:
        needed = self._chosen | {"priority"} | ({"status"} if "status_name" in self._chosen else set())
        if "version" in self._chosen:
            needed.add("elaptime")  # a task without a result has no version
        columns = [column for column in STORED if column.name in needed and column in self._stored]
        joined: Any = todolist
        if diagnostics.c.priority in self._stored:
            joined = joined.outerjoin(diagnostics, _task.priority == diagnostics.c.priority)
        if any(column.name in self._chosen for column in self.own.values()):
            columns.append(extra.c.extra)
            joined = joined.outerjoin(extra, _task.priority == extra.c.priority)
        return select(*columns).select_from(joined).where(*self._conditions).order_by(_task.priority)

    def has(self, column: Column[Any]) -> bool:
        """Whether the list has a column of our tables."""
        return column in self._stored

    def read_page(self, after: int | None, size: int = PAGE) -> tuple[int | None, Batch]:
        """Read the next rows.

        Parameters
        ----------
        after : int or None
            The last priority of the page before; None for the first page.
        size : int, optional

        Returns
        -------
        last : int or None
            The last priority of this page; None if no row is left.
        batch : list of sequence
            The values of each of `columns`.
        """
        statement = self._statement if after is None else self._statement.where(_task.priority > after)
        rows = self._explain(lambda: self._connection.execute(statement.limit(size)).all())
        if not rows:
            return None, [() for _ in self.columns]
        stored = dict(zip(self._statement.selected_columns.keys(), zip(*rows, strict=True), strict=True))
        keys: Sequence[int] = stored["priority"]
        texts = stored.pop("extra", None)
        values: dict[str, Sequence[Any]] = {
            name: self._explain(read_values, COLUMNS[name], found, keys) for name, found in stored.items()
        }
        if texts is not None:
            found = self._explain(read_extra, self.own, texts, keys)
            values.update(zip((column.name for column in self.own.values()), found, strict=True))
        if "status_name" in self._chosen:
            values["status_name"] = list(map(name_status, values["status"]))
        if "skipped_by" in self._chosen and _skip.priority in self._stored:
            values["skipped_by"] = self._read_covers(keys)
        if self._chosen & {"attempts", "version"} and _try.attempt in self._stored:
            values["attempts"], values["version"] = self._read_attempts(keys, values.get("elaptime", keys))
        nothing = [None] * len(keys)
        return keys[-1], [values.get(column.name, nothing) for column in self.columns]

    def _read_covers(self, keys: Sequence[int]) -> list[int | None]:
        covers: dict[int, int] = {}
        for priority, cover in self._connection.execute(_SKIPS, {"priorities": keys}):
            covers.setdefault(priority, cover)
        return list(map(covers.get, keys))

    def _read_attempts(self, keys: Sequence[int], times: Sequence[Any]) -> tuple[list[int], list[str | None]]:
        versions = dict(map(tuple, self._connection.execute(_VERSIONS)))
        found: dict[int, tuple[int, str | None]] = {}
        rows = self._connection.execute(_ATTEMPTS, {"priorities": keys})
        for priority, group in groupby(rows, key=itemgetter(0)):
            tries = list(group)
            worker = next((row.worker for row in reversed(tries) if row.how in RESULTS), None)
            found[priority] = len(tries), versions.get(worker)
        numbers, made_by = zip(*(found.get(key, (0, None)) for key in keys), strict=True)
        has_result = (time is not None for time in times)
        return list(numbers), [text if has else None for text, has in zip(made_by, has_result, strict=True)]

    def _explain(self, read: Any, *given: Any) -> Any:
        """Return the result of a function; an error names the value that it cannot read, or the outdated schema."""
        try:
            return read(*given)
        except ValueError as error:
            raise UnreadableValueError(path=self._name, found=error) from None
        except DBAPIError as error:
            if not self._changes:
                raise
            raise OutdatedSchemaError(path=self._name, change=self._changes[0]) from error


def iter_records(columns: Sequence[Column[Any]], batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield rows as dicts."""
    names = [column.name for column in columns]
    for row in zip(*batch, strict=True):
        yield dict(zip(names, row, strict=True))
