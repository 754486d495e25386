"""The throughput: numbers of results and errors, minute by minute."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from photometry_tasks.rules.results import Result
from photometry_tasks.sql import statements
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.transitions import Saved
from photometry_tasks.status import STATUS

_logger = logging.getLogger("photometry_tasks")

#: Seconds between two writes: other saves do not write the throughput.
_INTERVAL = 10.0

_MINUTE = 60.0

# A member of an enum takes longer to look up than a name of the module.
_ERROR = STATUS.ERROR


class Throughput:
    """The numbers of results since they were last written to the table of progress."""

    def __init__(self) -> None:
        self._clear()
        self._written = self._begun = time.monotonic()
        # The start of the counted minute by the clock of the database, from the first write of this minute.
        self._minute: int | None = None

    def _clear(self) -> None:
        self._saved = self._errors = 0
        self._elaptime = 0.0
        self._last_error: int | None = None

    def count(self, saved: Sequence[tuple[Result, Saved]]) -> None:
        """Count results, each with its outcome."""
        if not self._saved and (now := time.monotonic()) - self._begun >= 2 * _MINUTE:
            self._begun, self._minute = now - _MINUTE, None  # no result came for a while
        self._saved += len(saved)
        self._elaptime += sum([result.time for result, _ in saved])
        failed = [result.priority for result, task in saved if task.status is _ERROR]
        if failed:
            self._errors += len(failed)
            self._last_error = failed[-1]

    def _write(self, transaction: Transaction) -> None:
        if self._minute is None:
            ((now,),) = transaction.fetch_all(statements.TIME, {})
            self._minute = int(now - (time.monotonic() - self._begun))
        values = {
            "minute": self._minute,
            "saved": self._saved,
            "errors": self._errors,
            "elaptime": self._elaptime,
            "last_error": self._last_error,
        }
        _add(transaction, values)

    def write_if_due(
        self, run_in_transaction: Callable[[Callable[[Transaction], None]], None], *, is_last: bool = False
    ) -> None:
        """Write the counts if the last write is 10 s ago, or if this is the last write; retry later after a failure."""
        now = time.monotonic()
        if not self._saved or (now - self._written < _INTERVAL and not is_last):
            return
        self._written = now
        try:
            run_in_transaction(self._write)
        except Exception:
            _logger.exception("The throughput could not be written; retrying later")
            return
        self._clear()
        if now - self._begun >= _MINUTE:
            self._begun, self._minute = now, None


def _add(transaction: Transaction, values: dict[str, Any]) -> None:
    def insert() -> bool:
        return transaction.execute(statements.INSERT_PROGRESS, values) == 1

    if not transaction.execute(statements.ADD_PROGRESS, values) and not transaction.savepoint(insert):
        transaction.execute(statements.ADD_PROGRESS, values)  # another manager has just inserted the minute


class Minutes:
    """The numbers of results by minute, for results that were saved earlier."""

    def __init__(self) -> None:
        self._minutes: dict[int, dict[str, Any]] = {}

    def count(self, ended: float, result: Result, status: STATUS) -> None:
        """Count a result that was saved at a time, in seconds since 1970."""
        minute = int(ended // _MINUTE * _MINUTE)
        nothing = {"minute": minute, "saved": 0, "errors": 0, "elaptime": 0.0, "last_error": None}
        found = self._minutes.setdefault(minute, nothing)
        found["saved"] += 1
        found["elaptime"] += result.time
        if status is _ERROR:
            found["errors"] += 1
            found["last_error"] = result.priority

    def write(self, transaction: Transaction) -> None:
        """Add the numbers to the table of progress."""
        for values in self._minutes.values():
            _add(transaction, values)
