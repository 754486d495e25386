"""Read the tasks of one star: results, the tasks that cover them or that they cover, and attempts."""

from typing import Any

from sqlalchemy import Column, Select, bindparam, select

from photometry_tasks.models import attempts, diagnostics, extra, photometry_skipped, todolist, workers
from photometry_tasks.reading.columns import COLUMNS
from photometry_tasks.reading.extra import parse_values
from photometry_tasks.reading.rows import find_stored, iter_records, read_page
from photometry_tasks.storage.open import OpenList

_skip, _try, _worker = photometry_skipped.c, attempts.c, workers.c
_RESULT = [*(name for name in COLUMNS if name in diagnostics.columns and name != "priority"), "version"]
_TASK = [name for name in COLUMNS if name not in {*_RESULT, "skipped_by", "attempts"}]
_BRIGHTEST_FIRST = todolist.c.tmag.is_(None), todolist.c.tmag, todolist.c.priority
_FOUND = select(todolist.c.priority, todolist.c.starid, todolist.c.datasource, todolist.c.tmag).order_by(
    *_BRIGHTEST_FIRST
)
# IN and no join: older files hold a skip more than once.
_COVERED_BY: Select[Any] = _FOUND.where(
    todolist.c.priority.in_(select(_skip.skipped_by).where(_skip.priority == bindparam("task")))
)
_COVERS: Select[Any] = _FOUND.where(
    todolist.c.priority.in_(select(_skip.priority).where(_skip.skipped_by == bindparam("task")))
)
_ATTEMPTS: Select[Any] = (
    select(
        _try.attempt,
        _try.worker,
        _worker.host,
        _worker.version,
        _try.begun,
        _try.ended,
        _try.how,
        _try.kind,
        _try.errors,
    )
    .join(workers, _worker.worker == _try.worker, isouter=True)
    .where(_try.priority == bindparam("task"))
    .order_by(_try.attempt)
)


_EXTRA: Select[Any] = select(extra.c.extra).where(extra.c.priority == bindparam("task"))


def read_star(opened: OpenList, starid: int) -> list[dict[str, Any]]:
    """Return the tasks of a star, as `TodoList.star` describes them."""
    stored = find_stored(opened)

    def read(row: dict[str, Any], statement: Select[Any], column: Column[Any]) -> list[dict[str, Any]]:
        if column not in stored:
            return []
        return [dict(found) for found in opened.connection.execute(statement, {"task": row["priority"]}).mappings()]

    def read_result(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["elaptime"] is None:
            return None
        own = [parse_values(found["extra"], row["priority"]) for found in read(row, _EXTRA, extra.c.extra)]
        return {**{name: row[name] for name in _RESULT}, "extra": own[0] if own else {}}

    columns = list(COLUMNS.values())
    _, batch = read_page(opened, [todolist.c.starid == starid], columns)
    return [
        {
            **{name: row[name] for name in _TASK},
            "result": read_result(row),
            "covered_by": read(row, _COVERED_BY, _skip.priority),
            "covers": read(row, _COVERS, _skip.priority),
            "attempts": read(row, _ATTEMPTS, _try.kind),
        }
        for row in iter_records(columns, batch)
    ]
