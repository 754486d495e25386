"""Differences between databases: the kind of a database, and functions with different names in SQL."""

from typing import Any

from sqlalchemy import Dialect, Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


def is_sqlite(dialect: Dialect) -> bool:
    """Whether the dialect is SQLite; the TASOC pipeline keeps its TODO-lists in SQLite files."""
    return dialect.name == "sqlite"


def is_server(dialect: Dialect) -> bool:
    """Whether the dialect is PostgreSQL, where many managers share a TODO-list."""
    return dialect.name == "postgresql"


class unix_time(FunctionElement[float]):  # noqa: N801
    """Seconds since 1970 by the clock of the database: on a server, the same clock for all managers and readers."""

    type = Double()
    inherit_cache = True


@compiles(unix_time)
def _from_julian_day(_element: unix_time, _compiler: Any, **_given: Any) -> str:
    return "(julianday('now') - 2440587.5) * 86400.0"


@compiles(unix_time, "postgresql")
def _from_clock(_element: unix_time, _compiler: Any, **_given: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
