"""Keep what a reset by hand deletes, until the next one, and put it back.

The table `photometry_tasks_undo` holds parts, each a JSON object compressed with zlib. Part 0 has the time of the reset
and the number of results that had been saved by then. Each other part has columns and rows: deleted rows of a table,
with the columns of other programs too; the statuses of tasks before and after the reset; or the failures that no longer
count.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from photometry_tasks.errors import CannotUndoError
from photometry_tasks.models import attempts, diagnostics, extra, own_skips, photometry_skipped, todolist, undo
from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Keeper, Transaction, iter_chunks
from photometry_tasks.status import name_counts
from photometry_tasks.text import count_of, list_first

#: The tables whose rows a reset deletes, in an order in which each row comes after the rows that it refers to.
_DELETED = (diagnostics.name, extra.name, photometry_skipped.name, own_skips.name)

#: The most priorities that an error names.
_SHOWN = 5


class Kept(Keeper):
    """The rows and statuses that a reset by hand changes; a new object deletes those of the reset before it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._before: dict[int, int | None] = {}
        self._parts = 0
        self._columns: dict[str, list[Any]] = {}
        self._problem: str | None = None
        transaction.connection.execute(sa.delete(undo))

    def keep_rows(self, table: sa.Table, condition: Any, priorities: Sequence[int]) -> None:
        """Keep the rows of a table that meet a condition on these priorities, before they are deleted."""
        columns = self._find_columns(table)
        rows: sa.Select[Any] = sa.select(*columns).select_from(table).where(condition)
        try:
            found = self._transaction.connection.execute(rows, {"priorities": priorities}).all()
        except DBAPIError as error:  # SQLite reads no text that is not Unicode; a server holds none
            if self._transaction.is_shared:
                raise
            self._problem = f"{table.name} held a value that could not be kept ({error.orig})"
            return
        self._add_rows(table.name, [column.name for column in columns], [list(row) for row in found])

    def _find_columns(self, table: sa.Table) -> list[Any]:
        """Return the columns of a table that can be put back, those of other programs too."""
        if table.name not in self._columns:
            columns: list[Any] = []
            for column in sa.inspect(self._transaction.connection).get_columns(table.name):
                own: sa.ColumnClause[Any] = sa.column(column["name"])
                if column["name"] in table.columns:
                    columns.append(table.columns[column["name"]])
                elif "computed" not in column and "identity" not in column:
                    # A server writes and reads each type as a text.
                    shared = self._transaction.is_shared
                    columns.append(sa.cast(own, sa.Text).label(column["name"]) if shared else own)
            self._columns[table.name] = columns
        return self._columns[table.name]

    def keep_statuses(self, priorities: Sequence[int]) -> None:
        """Keep the statuses of tasks before they change."""
        for priority, status in _read_statuses(self._transaction, priorities).items():
            self._before.setdefault(priority, status)

    def finish(self) -> None:
        """Let the earlier failures of the changed tasks no longer count, and keep how the reset has left the list."""
        for chunk in iter_chunks(self._before):
            counted = {"priorities": chunk}
            found = self._transaction.connection.execute(statements.COUNTED_FAILURES, counted)
            self._add_rows(attempts.name, list(found.keys()), [list(row) for row in found])
            self._transaction.connection.execute(statements.FORGIVE_FAILURES, counted)
            after = _read_statuses(self._transaction, chunk)
            rows = [[priority, self._before[priority], after[priority]] for priority in chunk]
            self._add_rows(todolist.name, ["priority", "before", "after"], rows)
        ((now,),) = self._transaction.fetch_all(statements.TIME, {})
        ((saved,),) = self._transaction.fetch_all(statements.COUNT_RESULTS, {})
        self._add(0, "reset", {"time": now, "saved": saved, "problem": self._problem})

    def _add_rows(self, origin: str, columns: list[str], rows: list[list[Any]]) -> None:
        if rows:
            self._parts += 1
            self._add(self._parts, origin, {"columns": columns, "rows": rows})

    def _add(self, part: int, origin: str, content: dict[str, Any]) -> None:
        packed = zlib.compress(json.dumps(content, default=_encode).encode(), 1)
        self._transaction.execute(statements.INSERT_UNDO, {"part": part, "origin": origin, "content": packed})


def _encode(value: Any) -> Any:
    """Return a value of another program that JSON does not know; a server reads a text as any type."""
    return {"base64": b64encode(value).decode()} if isinstance(value, bytes) else str(value)


def _decode(value: dict[str, Any]) -> Any:
    return b64decode(value["base64"]) if value.keys() == {"base64"} else value


def _read_statuses(transaction: Transaction, priorities: Sequence[int]) -> dict[int, int | None]:
    found = transaction.connection.execute(statements.STATUSES, {"priorities": priorities})
    return dict(map(tuple, found))


def undo_reset(transaction: Transaction, path: str) -> Counter[int | None]:
    """Put back what the last reset by hand deleted, and return the number of changed tasks by their new status.

    Raises
    ------
    CannotUndoError
        If no reset is kept, or a result was saved or a task changed since.
    """
    header = next(_iter_parts(transaction, "reset"), None)
    if header is None:
        raise CannotUndoError(path=path, found="no reset is kept, or it was undone already")
    if header["problem"]:
        raise CannotUndoError(path=path, found=header["problem"])
    _check_no_result(transaction, header, path)
    restored: Counter[int | None] = Counter()

    def restore() -> bool:
        for part in _iter_parts(transaction, todolist.name):
            restored.update(_restore_statuses(transaction, part["rows"], path))
        for origin in _DELETED:
            there = {column["name"] for column in sa.inspect(transaction.connection).get_columns(origin)}
            for part in _iter_parts(transaction, origin):
                if gone := sorted(set(part["columns"]) - there):
                    raise CannotUndoError(path=path, found=f"the column {origin}.{gone[0]} was deleted since")
                table = sa.table(origin, *map(sa.column, part["columns"]))
                rows = [dict(zip(part["columns"], row, strict=True)) for row in part["rows"]]
                transaction.connection.execute(sa.insert(table), rows)
        for part in _iter_parts(transaction, attempts.name):
            counted = [{"task": priority, "number": number} for priority, number in part["rows"]]
            transaction.executemany(statements.COUNT_AGAIN, counted)
        return True

    if not transaction.savepoint(restore):
        raise CannotUndoError(path=path, found="another program has changed rows since")
    transaction.connection.execute(sa.delete(undo))
    return restored


def _iter_parts(transaction: Transaction, origin: str) -> Iterator[dict[str, Any]]:
    for (part,) in transaction.fetch_all(statements.UNDO_PARTS, {"origin": origin}):
        ((content,),) = transaction.fetch_all(statements.UNDO_CONTENT, {"part": part})
        yield json.loads(zlib.decompress(content), object_hook=_decode)


def _check_no_result(transaction: Transaction, header: dict[str, Any], path: str) -> None:
    ((saved,),) = transaction.fetch_all(statements.COUNT_RESULTS, {})
    if saved == header["saved"]:
        return
    since = {"since": datetime.fromtimestamp(header["time"], UTC)}
    latest = transaction.connection.execute(statements.build_latest_results(_SHOWN + 1), since).scalars().all()
    tasks = f" (the latest: priority {list_first(latest, _SHOWN)})" if latest else ""
    number = saved - header["saved"]
    raise CannotUndoError(
        path=path,
        found=f"{count_of(number, 'result')} saved since{tasks}" if number > 0 else "results were released since",
    )


def _restore_statuses(transaction: Transaction, rows: Sequence[Sequence[Any]], path: str) -> Counter[int | None]:
    """Give tasks the statuses that they had before the reset, if they have those after it."""
    priorities = [priority for priority, _, _ in rows]
    if transaction.is_shared:
        transaction.connection.execute(statements.LOCK_TASKS, {"priorities": priorities})
    now = _read_statuses(transaction, priorities)
    measured = transaction.connection.execute(statements.MEASURED_AMONG, {"priorities": priorities}).scalars().all()
    if gone := set(priorities) - now.keys():
        raise CannotUndoError(path=path, found=f"task {min(gone)} was deleted since")
    changed = [priority for priority, _, after in rows if now[priority] != after]
    if changed or measured:
        first = min([*changed, *measured])
        name = next(name for name, number in name_counts({now[first]: 1}).items() if number)
        raise CannotUndoError(path=path, found=f"task {first} has changed since, and is {name} now")
    for _, before, after in rows:
        transaction.count_move(after, before)
    moves = [{"task": priority, "new_status": before} for priority, before, _ in rows]
    transaction.executemany(statements.SET_STATUS, moves)
    return Counter(before for _, before, after in rows if before != after)
