"""Questions and results as a server gets them."""

import json
import math
from collections.abc import Iterable
from functools import lru_cache

from photometry_tasks.constraints import CheckedConstraints, build_expressions
from photometry_tasks.rules.results import Result
from photometry_tasks.sql.execution import Row
from photometry_tasks.status import STATUS
from photometry_tasks.storage.postgresql import claim_statements
from photometry_tasks.storage.postgresql.dbapi import bind_for_postgresql

__all__ = ["bind_claim", "bind_pending", "encode_results", "fit"]

#: Bytes. An index takes no more than a third of a page: https://www.postgresql.org/docs/current/btree.html.
_LONGEST_PATH = 2600


@lru_cache(256)
def bind_pending(constraints: CheckedConstraints, limit: int) -> tuple[str, Row]:
    """Return the statement of `claims.pending`, and its values."""
    return bind_for_postgresql(claim_statements.pending(build_expressions(constraints), limit))


@lru_cache(256)
def bind_claim(constraints: CheckedConstraints, limit: int, worker: int, *, waits: bool) -> tuple[str, Row]:
    """Return the statement of `claims.claim`, and its values."""
    statement = claim_statements.claim(build_expressions(constraints), limit, waits=waits)
    return bind_for_postgresql(statement, worker=worker)


def fit(result: Result) -> Result:
    """Return a result as a server can keep it: one whose path is too long for an index is an ERROR without it."""
    path = result.diagnostics["lightcurve"]
    if path is None or len(path) < _LONGEST_PATH // 4:
        return result
    length = len(path.encode())
    if length <= _LONGEST_PATH:
        return result
    problem = f"The light-curve path is of {length} bytes; a server keeps one of {_LONGEST_PATH} at most"
    row = {**result.diagnostics, "lightcurve": None}
    return result._replace(status=STATUS.ERROR, diagnostics=row, errors=(*result.errors, problem))


def encode_results(results: Iterable[Result]) -> str:
    """Return results as the one parameter of `acceptance.SAVE`."""
    rows = []
    for result in results:
        own = {"attempt": result.attempt, "status": result.status.value, "how": result.status.name}
        row = {**own, **result.diagnostics, "priority": result.priority, "errors": result.errors_text}
        rows.append({name: value for name, value in row.items() if value is not None})
    try:
        return json.dumps(rows, allow_nan=False, ensure_ascii=False)
    except ValueError:  # JSON has no infinity; PostgreSQL reads it from a text
        rows = [
            {name: str(x) if isinstance(x, float) and math.isinf(x) else x for name, x in row.items()} for row in rows
        ]
        return json.dumps(rows, ensure_ascii=False)
