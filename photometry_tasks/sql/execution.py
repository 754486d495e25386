"""One transaction: run Core statements at the driver's cost, and count the status changes of tasks."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Dialect, Executable, Table
from sqlalchemy.exc import IntegrityError

Row = tuple[Any, ...]
T = TypeVar("T")


class DriverCursor:
    """Run Core statements on a cursor of the driver; each statement is compiled at its first use.

    SQLAlchemy itself takes several times as long as the driver for a statement that changes one row.

    Parameters
    ----------
    cursor
        A cursor of the driver's connection. Statements join the open transaction of this connection.
    dialect : sqlalchemy.Dialect
        Compiles statements with positional parameters.
    integrity_error : type
        The driver's exception for a row that violates a constraint of the database.
    """

    def __init__(self, cursor: Any, dialect: Dialect, integrity_error: type[Exception]) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self.integrity_error = integrity_error

    def fetch_one(self, statement: Executable, parameters: Mapping[str, Any]) -> Row | None:
        """Return the first row, or None."""
        sql, arrange = compile_statement(statement, self._dialect)
        row: Row | None = self._cursor.execute(sql, arrange(parameters)).fetchone()
        return row

    def fetch_all(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Return all rows."""
        sql, arrange = compile_statement(statement, self._dialect)
        rows: list[Row] = self._cursor.execute(sql, arrange(parameters)).fetchall()
        return rows

    def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> int:
        """Run a statement, and return the number of changed rows."""
        sql, arrange = compile_statement(statement, self._dialect)
        return int(self._cursor.execute(sql, arrange(parameters)).rowcount)

    def executemany(self, statement: Executable, parameters: Iterable[Mapping[str, Any]]) -> int:
        """Run a statement once for each mapping of parameters, and return the total number of changed rows."""
        sql, arrange = compile_statement(statement, self._dialect)
        rows = list(map(arrange, parameters))
        if not rows:
            return 0
        if len(rows) == 1:
            self._cursor.execute(sql, rows[0])
        else:
            self._cursor.executemany(sql, rows)
        return int(self._cursor.rowcount)

    def run_sql(self, sql: str) -> Any:
        """Run SQL that only this database has, such as a pragma, and return the driver's cursor."""
        return self._cursor.execute(sql)

    def savepoint(self, work: Callable[[], T]) -> T | None:
        """Return the result of `work`, and roll back its changes if the result is false.

        If a row violates a constraint of the database, the result is None.
        """
        self._cursor.execute("SAVEPOINT photometry_tasks")
        try:
            is_done = work()
        except (self.integrity_error, IntegrityError):
            is_done = None
        if not is_done:
            self._cursor.execute("ROLLBACK TO photometry_tasks")
        self._cursor.execute("RELEASE photometry_tasks")
        return is_done

    def close(self) -> None:
        """Close the cursor."""
        self._cursor.close()


@lru_cache(2000)
def compile_statement(statement: Executable, dialect: Dialect) -> tuple[str, Callable[[Mapping[str, Any]], Row]]:
    """Return the SQL of a statement, and a function that turns named parameters into positional parameters."""
    compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined]  # all our statements have it
    required = {bind.key: bind for bind in compiled.binds.values() if bind.required}
    if lists := sorted(name for name, bind in required.items() if bind.expanding):
        raise ValueError(f"{', '.join(lists)}: a statement with a list runs on the connection of SQLAlchemy")
    state = compiled.construct_expanded_state(dict.fromkeys(required))
    names = state.positiontup
    own = {name: state.parameters[name] for name in set(names) - required.keys()}
    return state.statement, _build_arranger(names, own)


def _build_arranger(names: Sequence[str], own: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Row]:
    if own:
        return lambda parameters: tuple(parameters[name] if name in parameters else own[name] for name in names)
    if not names:
        return lambda _parameters: ()
    if len(names) == 1:
        (only,) = names
        return lambda parameters: (parameters[only],)
    return itemgetter(*names)


#: Rows in memory: with more of them, each takes longer, since they leave the processor's cache.
_BATCH = 500


def iter_batches(connection: Connection, statement: Executable) -> Iterator[Sequence[Any]]:
    """Yield the rows of a statement, some at a time."""
    with connection.execute(statement.execution_options(yield_per=_BATCH)) as result:
        yield from result.partitions()


#: Priorities per statement: about 100 kB of SQL.
_CHUNK = 10_000


def iter_chunks(priorities: Collection[int]) -> Iterator[Sequence[int]]:
    """Yield priorities in parts, in ascending order: the order in which every manager locks tasks."""
    ordered = sorted(priorities)
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


class Keeper(Protocol):
    """Keeps what a transaction deletes or changes."""

    def keep_rows(self, table: Table, condition: Any, priorities: Sequence[int]) -> None:
        """Keep the rows of a table that meet a condition on these priorities, before they are deleted."""

    def keep_statuses(self, priorities: Sequence[int]) -> None:
        """Keep the statuses of tasks before they change."""


class Transaction:
    """The changes of one method to a TODO-list: all are committed, or none.

    Statements that are built once run at the driver's cost, with `fetch_one`, `fetch_all`, `execute`, `executemany`
    and `savepoint`. All other statements run on `connection`.

    Attributes
    ----------
    connection : sqlalchemy.Connection
        For statements with lists of values, and for streamed rows.
    integrity_error : type
        The driver's exception for a row that violates a constraint.
    is_shared : bool
        Whether other managers may change the list at the same time.
    moved : dict
        Increase of the number of tasks, by status; None stands for pending.
    left : list of int
        Priorities of tasks that are no longer pending, and possibly of others that are not pending.
    number_left : int
        The number of tasks that are no longer pending; some may be missing from `left`.
    reset_from : int or None
        The lowest priority of the tasks that returned to pending.
    running : collection of int
        The tasks that this manager has started and not ended; empty if `is_shared`, since the table then knows them.
    kept : Keeper or None
        Keeps what a reset by hand deletes: see `undo.py`.
    """

    __slots__ = (
        "connection",
        "execute",
        "executemany",
        "fetch_all",
        "fetch_one",
        "integrity_error",
        "is_shared",
        "kept",
        "left",
        "moved",
        "number_left",
        "reset_from",
        "running",
        "savepoint",
    )

    def __init__(self, connection: Connection, cursor: DriverCursor, *, is_shared: bool = False) -> None:
        self.connection = connection
        self.is_shared = is_shared
        self.fetch_one = cursor.fetch_one
        self.integrity_error = cursor.integrity_error
        self.fetch_all = cursor.fetch_all
        self.execute = cursor.execute
        self.executemany = cursor.executemany
        self.savepoint = cursor.savepoint
        self.moved: dict[int | None, int] = {}
        self.left: list[int] = []
        self.number_left = 0
        self.reset_from: int | None = None
        self.running: Collection[int] = ()
        self.kept: Keeper | None = None

    def count_move(self, old: int | None, new: int | None, number: int = 1) -> None:
        """Count tasks whose status changes from `old` to `new`."""
        self.moved[old] = self.moved.get(old, 0) - number
        self.moved[new] = self.moved.get(new, 0) + number
        if old is None and new is not None:
            self.number_left += number

    def count_reset(self, priorities: Iterable[int]) -> None:
        """Record the lowest priority of tasks that return to pending."""
        lowest = min(priorities, default=None)
        if lowest is not None and (self.reset_from is None or lowest < self.reset_from):
            self.reset_from = lowest
