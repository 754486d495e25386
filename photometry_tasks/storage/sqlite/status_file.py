"""The status file of a TODO-file: the tasks that a manager runs; the whole status if readers cannot see it."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from heapq import nsmallest
from pathlib import Path
from typing import Any

from photometry_tasks.files import open_regular, os_errors, replace_file, resolve
from photometry_tasks.progress.status_fields import NO_LIVE_TASKS, LiveTask, LiveTasks, read_status_fields
from photometry_tasks.rules.estimate import ESTIMATES
from photometry_tasks.sql.execution import Transaction
from photometry_tasks.sql.statements import build_running_tasks
from photometry_tasks.status import name_counts
from photometry_tasks.storage.sqlite.lock import find_holder

_logger = logging.getLogger("photometry_tasks")

#: Seconds between two writes; or this many times the duration of a write, if that is longer.
_INTERVAL, _SHARE = 10.0, 100

#: The most running tasks in the file.
_MOST_TASKS = 100

#: The most bytes of a status file that are read.
_LONGEST = 2**24

_PLAIN = {int, float, str, type(None)}


class StatusFile:
    """Writes what the TODO-file does not show into another file in the same directory.

    Parameters
    ----------
    path : Path
        The TODO-file.
    is_needed : bool
        Whether the TODO-file does not show the status: in memory mode, and if a manager on a network file system keeps
        readers out. Otherwise only the running tasks are published.
    can_be_read : bool
        Whether the TODO-file can be read: then it shows the status at first.
    """

    def __init__(self, path: Path, *, is_needed: bool, can_be_read: bool) -> None:
        self._path = path
        self._is_needed = is_needed
        #: Returns the tasks that really run; without it, all started tasks do.
        self.find_running: Callable[[], LiveTasks] | None = None
        self._next = time.monotonic() + (_INTERVAL if can_be_read else 0.0)
        self.remove()  # a killed manager may have left a status file

    def write_if_due(
        self,
        run_in_transaction: Callable[[Callable[[Transaction], Any]], Any],
        started: Mapping[int, tuple[int, float]],
    ) -> None:
        """Write the status that a transaction sees, at intervals; a failed write is retried at the next interval.

        Parameters
        ----------
        run_in_transaction : callable
        started : mapping
            The live attempts by priority, each with its number and the time of its begin, seconds since 1970.
        """
        begun = time.monotonic()
        if begun < self._next:
            return
        place = _find_place(self._path)
        try:
            live = self.find_running() if self.find_running is not None else _take_longest(started)
            tasks = {str(priority): task._asdict() for priority, task in live.tasks.items()}
            status: dict[str, Any] = {"live": tasks, "queued": live.queued}
            if self._is_needed:
                status |= run_in_transaction(
                    lambda transaction: read_status_fields(transaction.connection, self._path, live)
                )
            text = json.dumps(status)
            with os_errors(place):
                replace_file(place, text, like=self._path, owner=resolve(self._path))
        except Exception:  # the call that publishes is complete
            _logger.exception("%s: the status could not be written; the manager will retry", place)
        now = time.monotonic()
        self._next = max(begun + _INTERVAL, now + _SHARE * (now - begun))

    def remove(self) -> None:
        """Delete the status file: the TODO-file can be read."""
        place = _find_place(self._path)
        with os_errors(place):
            place.unlink(missing_ok=True)


def _take_longest(started: Mapping[int, tuple[int, float]]) -> LiveTasks:
    now, longest = time.time(), nsmallest(_MOST_TASKS, started, key=lambda priority: started[priority][1])
    return LiveTasks({priority: LiveTask(max(0.0, now - started[priority][1]), None) for priority in longest})


def read_status_file(path: Path) -> dict[str, Any] | None:
    """Return the status that a manager published for a TODO-file, as `get_status` returns it, or None."""
    found = _read(path)
    if not _is_status(found):
        return None
    age = max(0.0, time.time() - found["time"])  # the clock of another node may be ahead
    return {**found, "holder": find_holder(path), "age": age, "has_log": False}


def read_live_tasks(path: Path) -> LiveTasks:
    """Return the tasks that the manager of a TODO-file published as running, with the times until then."""
    found = _read(path)
    try:
        tasks = {
            int(priority): LiveTask(float(task["seconds"]), None if task["worker"] is None else str(task["worker"]))
            for priority, task in found["live"].items()
        }
        return LiveTasks(tasks, None if found["queued"] is None else int(found["queued"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return NO_LIVE_TASKS


def _read(path: Path) -> Any:
    file = open_regular(_find_place(path))
    if file is None:
        return None
    with file:
        try:
            return json.loads(file.read(_LONGEST))
        except (ValueError, RecursionError):  # the file is incomplete, or another program's
            return None


def _is_status(found: Any) -> bool:
    """Whether a value has the fields of `read_status_fields`: another release or program may have written it."""
    names = set(name_counts({}))
    try:
        ccds, running, errors = found["ccds"], found["running"], found["last_errors"]
        counts = [
            found["queued"] or 0,
            found["numtasks"],
            *(table[name] for table in (found["status"], *ccds) for name in names),
        ]
        times = [
            found["time"],
            *(found[name] for name in ("rate", "mean_elaptime", "silence") if found[name] is not None),
        ]
        columns = [*build_running_tasks(0).selected_columns.keys(), "seconds", "worker", "expected"]
        values = [row[name] for row in running for name in columns] + [row["starid"] for row in errors]
        values += [found["estimate"][name] for name in ESTIMATES]
        texts = [found["todo_file"], *(row["errors"] for row in errors)]
        return (
            {*map(type, counts)} == {int}
            and {*map(type, times)} <= {int, float}
            and {*map(type, texts)} == {str}
            and {*map(type, (*values, *(ccd[axis] for ccd in ccds for axis in ("camera", "ccd"))))} <= _PLAIN
            and all(ccd.keys() == {"camera", "ccd", *names} and any(map(ccd.get, names)) for ccd in ccds)
            # Otherwise the time left would be no time.
            and all(0 <= number < 2**32 for number in (*counts, *times))
            and (found["rate"] is None or found["rate"] > 1e-4)
        )
    except (AttributeError, KeyError, TypeError):
        return False


def _find_place(path: Path) -> Path:
    path = resolve(path)
    return path.with_name(f"{path.name}-status")
