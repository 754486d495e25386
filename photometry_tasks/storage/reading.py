"""The ORM session of a reader, which changes nothing and holds no transaction longer than it must."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import ORMExecuteState, Session

from photometry_tasks.errors import OutdatedSchemaError, ReadOnlyError

#: The execution option of a query whose rows are read as a whole.
_IS_READ_AT_ONCE = "photometry_tasks_at_once"


def build_reading_session(engine: Engine, name: str, find_changes: Callable[[], list[str]]) -> Session:
    """Return a session on an engine whose transactions only read.

    The rows of each query are read as a whole, and its transaction ended before they become objects, unless the caller
    has begun one or asks for parts of the rows (`yield_per`).

    Parameters
    ----------
    engine : Engine
    name : str
        The path, or the URL without its password.
    find_changes : callable
        Returns a line for each change that an upgrade would make.
    """
    session = Session(engine, expire_on_commit=False)

    def refuse(*_: Any) -> None:
        raise ReadOnlyError(path=name, found="a flush of changed objects")

    def refuse_statement(context: ExceptionContext) -> None:
        if _is_write_refused(context.original_exception):
            raise ReadOnlyError(path=name, found=context.statement) from context.original_exception
        if isinstance(context.sqlalchemy_exception, DBAPIError) and (changes := find_changes()):
            raise OutdatedSchemaError(path=name, change=changes[0]) from context.original_exception

    event.listen(session, "before_flush", refuse)
    event.listen(session, "do_orm_execute", _execute)
    event.listen(engine, "handle_error", refuse_statement)
    event.listen(engine, "after_cursor_execute", _read_at_once)
    return session


def _execute(state: ORMExecuteState) -> Any:
    session = state.session
    if session.in_transaction() or "yield_per" in state.execution_options:
        return None  # as every session
    try:
        result = state.invoke_statement(execution_options={_IS_READ_AT_ONCE: True})
        session.connection().connection.rollback()  # of the driver: to build objects takes longer than to read rows
        return result.freeze()() if getattr(result, "returns_rows", True) else result
    finally:
        session.commit()


def _read_at_once(*given: Any) -> None:
    """Read all rows of a statement, as SQLAlchemy's dialects do that cannot read them later."""
    _, cursor, _, _, context, _ = given
    if cursor.description is not None and _IS_READ_AT_ONCE in context.execution_options:
        context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(cursor)


def _is_write_refused(error: BaseException) -> bool:
    # SQLite's primary code, and PostgreSQL's code of a change in a transaction that only reads.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == 8 or getattr(error, "sqlstate", None) == "25006"
