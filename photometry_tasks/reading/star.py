"""Read the tasks of one star: results, the tasks that cover them or that they cover, and attempts."""

from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from photometry_tasks.models import attempts, diagnostics, photometry_skipped, todolist, workers
from photometry_tasks.reading.columns import COLUMNS
from photometry_tasks.reading.rows import TaskReader, iter_records
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


def read_star(opened: OpenList, starid: int) -> list[dict[str, Any]]:
    """Return the tasks of a star, as `TodoList.star` describes them."""
    reader = TaskReader(opened, [todolist.c.starid == starid], None)
    _, batch = reader.read_page(None)
    return [_build_star_task(opened.connection, reader, row) for row in iter_records(reader.columns, batch)]


def _build_star_task(connection: Connection, reader: TaskReader, row: dict[str, Any]) -> dict[str, Any]:
    def read(statement: Select[Any], is_stored: bool) -> list[dict[str, Any]]:
        parameters = {"task": row["priority"]}
        return [dict(found) for found in connection.execute(statement, parameters).mappings()] if is_stored else []

    own = {name: row[column.name] for name, column in reader.own.items() if row[column.name] is not None}
    has_result = row["elaptime"] is not None
    return {
        **{name: row[name] for name in _TASK},
        "result": {**{name: row[name] for name in _RESULT}, "extra": own} if has_result else None,
        "covered_by": read(_COVERED_BY, reader.has(_skip.priority)),
        "covers": read(_COVERS, reader.has(_skip.priority)),
        "attempts": read(_ATTEMPTS, reader.has(_try.kind)),
    }
