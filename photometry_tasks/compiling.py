"""Statements as the databases get them."""

from functools import cache
from typing import Any

from sqlalchemy import ClauseElement, Dialect, Executable
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteDialect

__all__ = ["HintingCompiler", "bind_for_postgresql", "compile_for_postgresql", "compile_for_sqlite"]


class HintingCompiler(SQLiteCompiler):
    """SQLAlchemy's own, which also writes which index is to be taken (https://sqlite.org/lang_indexedby.html)."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return a hint as it stands behind a table."""
        return text


class _Dialect(SQLiteDialect):
    statement_compiler = HintingCompiler
    supports_statement_cache = True


@cache
def compile_for_sqlite(statement: Executable) -> tuple[str, list[str]]:
    """Return a statement's text, and the names of its parameters in their order."""
    compiled = statement.compile(dialect=_Dialect(paramstyle="qmark"))  # type: ignore[attr-defined]  # ours can be
    return str(compiled), compiled.positiontup


@cache
def compile_for_postgresql(statement: Executable) -> tuple[str, list[str]]:
    """Return a statement's text, and the names of its parameters in their order."""
    compiled = statement.compile(dialect=_make_dialect())  # type: ignore[attr-defined]  # ours can be
    return str(compiled), compiled.positiontup


def bind_for_postgresql(statement: ClauseElement, **parameters: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the text of a statement, and the values of its parameters: those given, and those it has."""
    compiled: Any = statement.compile(dialect=_make_dialect())
    expanded = compiled.construct_expanded_state(parameters)
    return expanded.statement, tuple(expanded.positional_parameters)


def _make_dialect() -> Dialect:
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg  # only where there is a server

    return PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]  # SQLAlchemy gives it no types
