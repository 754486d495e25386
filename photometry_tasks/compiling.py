"""Statements as SQLite gets them."""

from functools import cache
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteDialect

__all__ = ["HintingCompiler", "compile_statement"]


class HintingCompiler(SQLiteCompiler):
    """SQLAlchemy's own, which also writes which index is to be taken (https://sqlite.org/lang_indexedby.html)."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return a hint as it stands behind a table."""
        return text


class _Dialect(SQLiteDialect):
    statement_compiler = HintingCompiler
    supports_statement_cache = True


@cache
def compile_statement(statement: Executable) -> tuple[str, list[str]]:
    """Return a statement's text, and the names of its parameters in their order."""
    compiled = statement.compile(dialect=_Dialect(paramstyle="qmark"))  # type: ignore[attr-defined]  # ours can be
    return str(compiled), compiled.positiontup
