"""The ORM session of a reader, which changes nothing and holds no transaction longer than it must."""

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.orm import ORMExecuteState, Session

from photometry_tasks.errors import ReadOnlyError


def build_reading_session(engine: Engine, name: str) -> Session:
    """Return a session on an engine whose transactions only read.

    Each query is read as a whole, and its transaction ended, unless the caller has begun one or asks for parts of the
    rows (`yield_per`).
    """
    session = Session(engine, expire_on_commit=False)

    def refuse(*_: Any) -> None:
        raise ReadOnlyError(path=name, found="a flush of changed objects")

    def refuse_statement(context: ExceptionContext) -> None:
        if _is_write_refused(context.original_exception):
            raise ReadOnlyError(path=name, found=context.statement) from context.original_exception

    event.listen(session, "before_flush", refuse)
    event.listen(session, "do_orm_execute", _execute)
    event.listen(engine, "handle_error", refuse_statement)
    return session


def _execute(state: ORMExecuteState) -> Any:
    session = state.session
    if session.in_transaction() or "yield_per" in state.execution_options:
        return None  # as every session
    try:
        result = state.invoke_statement()
        return result.freeze()() if getattr(result, "returns_rows", True) else result
    finally:
        session.commit()


def _is_write_refused(error: BaseException) -> bool:
    # SQLite's primary code, and PostgreSQL's code of a change in a transaction that only reads.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == 8 or getattr(error, "sqlstate", None) == "25006"
