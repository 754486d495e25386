"""One transaction on a TODO-list: its statements at what the driver costs, and what they move from status to status."""

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import IntegrityError

__all__ = ["Statements", "Transaction"]

Row = tuple[Any, ...]


class Statements:
    """Core statements on the connection of a driver, each compiled when it is first used.

    Run by SQLAlchemy itself, a statement that changes one row costs several times what the driver takes for it. All
    values are parameters: one that a statement has of its own has to be a literal.

    Parameters
    ----------
    cursor
        Of the driver's connection: they run in whatever transaction that is in.
    compile_statement : callable
        Returns a statement's text, and the names of its parameters in their order.
    integrity_error : type
        What the driver raises where a row breaks a rule.
    """

    def __init__(
        self,
        cursor: Any,
        compile_statement: Callable[[Executable], tuple[str, list[str]]],
        integrity_error: type[Exception],
    ) -> None:
        self._integrity_error = integrity_error
        self._cursor = cursor
        self._compile_statement = compile_statement
        self._compiled: dict[Executable, tuple[str, Callable[[Mapping[str, Any]], Row]]] = {}

    def run(self, sql: str, parameters: Row = ()) -> Any:
        """Run a statement of SQL, and return the driver's cursor."""
        return self._cursor.execute(sql, parameters)

    def one(self, statement: Executable, parameters: Mapping[str, Any]) -> Row | None:
        """Return the first row."""
        sql, arrange = self._compile(statement)
        row: Row | None = self._cursor.execute(sql, arrange(parameters)).fetchone()
        return row

    def all(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """Return all rows."""
        sql, arrange = self._compile(statement)
        rows: list[Row] = self._cursor.execute(sql, arrange(parameters)).fetchall()
        return rows

    def change(self, statement: Executable, rows: Iterable[Mapping[str, Any]]) -> int:
        """Run a statement for each of the rows, and return how many rows of the table that changed."""
        return self.change_rows(statement, map(self._compile(statement)[1], rows))

    def change_rows(self, statement: Executable, rows: Iterable[Row]) -> int:
        """Do as `change` with rows whose values are in the order in which the statement has them."""
        sql, rows = self._compile(statement)[0], list(rows)
        if not rows:
            return 0
        if len(rows) == 1:
            self._cursor.execute(sql, rows[0])
        else:
            self._cursor.executemany(sql, rows)
        return int(self._cursor.rowcount)

    def attempt(self, work: Callable[[], bool]) -> bool:
        """Return what some work returns; if that is False, or a row breaks a rule, all that it has done is undone."""
        self._cursor.execute("SAVEPOINT attempt")
        try:
            is_done = work()
        except (self._integrity_error, IntegrityError):
            is_done = False
        if not is_done:
            self._cursor.execute("ROLLBACK TO attempt")
        self._cursor.execute("RELEASE attempt")
        return is_done

    def close(self) -> None:
        """Let go of the connection."""
        self._cursor.close()

    def _compile(self, statement: Executable) -> tuple[str, Callable[[Mapping[str, Any]], Row]]:
        found = self._compiled.get(statement)
        if found is None:
            sql, names = self._compile_statement(statement)
            found = self._compiled[statement] = sql, _arranging(names)
        return found


def _arranging(names: list[str]) -> Callable[[Mapping[str, Any]], Row]:
    """Return what makes of parameters by name those by position."""
    if len(names) < 2:
        return lambda parameters: tuple(parameters[name] for name in names)
    return itemgetter(*names)


class Transaction:
    """What is done to a TODO-list at once.

    Attributes
    ----------
    connection : sqlalchemy.Connection
        For statements that depend on constraints, or on lists.
    is_shared : bool
        Whether others may change the list at the same time.
    moved : dict
        How many tasks have each status more than before; pending ones as None.
    reset_from : int or None
        The lowest priority of a task that has gone back to pending.
    """

    __slots__ = ("all", "attempt", "change", "change_rows", "connection", "is_shared", "moved", "one", "reset_from")

    def __init__(self, connection: Connection, statements: Statements, *, is_shared: bool = False) -> None:
        self.connection = connection
        self.is_shared = is_shared
        self.one = statements.one
        self.all = statements.all
        self.change = statements.change
        self.change_rows = statements.change_rows
        self.attempt = statements.attempt
        self.moved: dict[int | None, int] = {}
        self.reset_from: int | None = None

    def move(self, old: int | None, new: int | None, number: int = 1) -> None:
        """Count tasks that go from one status to another."""
        self.moved[old] = self.moved.get(old, 0) - number
        self.moved[new] = self.moved.get(new, 0) + number

    def note_reset(self, priorities: Iterable[int]) -> None:
        """Note tasks that go back to pending."""
        lowest = min(priorities, default=None)
        if lowest is not None and (self.reset_from is None or lowest < self.reset_from):
            self.reset_from = lowest
