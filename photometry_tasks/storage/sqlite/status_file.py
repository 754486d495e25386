"""The status file of a TODO-file, which a manager writes while readers cannot see the status in the TODO-file."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from photometry_tasks.files import os_errors, replace_file
from photometry_tasks.progress.status_fields import read_status_fields
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.storage.sqlite.lock import find_holder

_logger = logging.getLogger("photometry_tasks")

#: Seconds between two writes; or this many times the duration of a write, if that is longer.
_INTERVAL, _SHARE = 10.0, 100


class StatusFile:
    """Writes the status of a TODO-file into another file in the same directory.

    Parameters
    ----------
    path : Path
        The TODO-file.
    is_needed : bool
        Whether the TODO-file does not show the status: in memory mode, and if a manager on a network file system keeps
        readers out.
    can_be_read : bool
        Whether the TODO-file can be read: then it shows the status at first.
    """

    def __init__(self, path: Path, *, is_needed: bool, can_be_read: bool) -> None:
        self._path = path
        self._is_needed = is_needed
        self._next = time.monotonic() + (_INTERVAL if can_be_read else 0.0)
        self.remove()  # a killed manager may have left a status file

    def write_if_due(self, run_in_transaction: Callable[[Callable[[Transaction], Any]], Any]) -> None:
        """Write the status that a transaction sees, at intervals; a failed write is retried at the next interval."""
        begun = time.monotonic()
        if not self._is_needed or begun < self._next:
            return
        place = _find_place(self._path)
        try:
            status = run_in_transaction(lambda transaction: read_status_fields(transaction.connection, self._path))
            text = json.dumps(status)
            with os_errors(place):
                replace_file(
                    place,
                    lambda temporary: temporary.write_text(text, encoding="utf-8"),
                    like=self._path,
                    owner=self._path,
                )
        except OSError:
            _logger.exception("%s: the status could not be written; the manager will retry", place)
        now = time.monotonic()
        self._next = max(begun + _INTERVAL, now + _SHARE * (now - begun))

    def remove(self) -> None:
        """Delete the status file: the TODO-file can be read."""
        _find_place(self._path).unlink(missing_ok=True)


def read_status_file(path: Path) -> dict[str, Any] | None:
    """Return the status that a manager published for a TODO-file, as `get_status` returns it, or None."""
    try:
        found: dict[str, Any] = json.loads(_find_place(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    age = max(0.0, time.time() - found["time"])  # the clock of another node may be ahead
    return {**found, "holder": find_holder(path), "age": age, "has_log": False}


def _find_place(path: Path) -> Path:
    path = path.resolve()
    return path.with_name(f"{path.name}-status")
