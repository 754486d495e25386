"""The progress of a run in numbers, and as JSON."""

import json
import math
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from photometry_tasks import statements
from photometry_tasks.status import STATUS
from photometry_tasks.todo_file import check_writable, clear_temporaries, explained, replace_file

__all__ = ["add_result", "build_summary", "count_by_ccd", "count_by_status", "prepare_place", "write_summary"]

#: Weight of the newest value in the means of run times.
_ALPHA = 0.1

_NAMES: dict[int | None, str] = {None: "PENDING", **{status.value: status.name for status in STATUS}}


def build_summary() -> dict[str, Any]:
    """Return the summary of a run that has not begun."""
    return {
        "slurm_jobid": os.environ.get("SLURM_JOB_ID"),
        "numtasks": 0,
        "tasks_run": 0,
        **{status.name: 0 for status in STATUS},
        "last_error": None,
        "mean_elaptime": None,
        "mean_worker_waittime": None,
    }


def add_result(summary: dict[str, Any], elaptime: float, wait_time: float | None, errors: str | None) -> None:
    """Count one saved result.

    Parameters
    ----------
    summary : dict
        It is changed.
    elaptime, wait_time : float
        Seconds.
    errors : str or None
        The errors that were stored with it.
    """
    summary["tasks_run"] += 1
    summary["mean_elaptime"] = _weighted(summary["mean_elaptime"], elaptime)
    if wait_time is not None and math.isfinite(wait_time):
        summary["mean_worker_waittime"] = _weighted(summary["mean_worker_waittime"], wait_time)
    if errors is not None:
        summary["last_error"] = errors


def _weighted(mean: float | None, value: float) -> float:
    """Exponentially weighted mean, begun by the first value."""
    return value if mean is None else _ALPHA * value + (1 - _ALPHA) * mean


def count_by_status(connection: Connection) -> dict[str, int]:
    """Count the tasks by the name of their status; pending ones as PENDING. Every name is there."""
    counts = dict.fromkeys(_NAMES.values(), 0)
    for status, number in connection.execute(statements.COUNT_BY_STATUS):
        counts[_name(status)] += number
    return counts


def count_by_ccd(connection: Connection) -> dict[tuple[int, int], dict[str, int]]:
    """Count the tasks by camera and CCD, and in each by the name of their status."""
    counts: dict[tuple[int, int], dict[str, int]] = {}
    for camera, ccd, status, number in connection.execute(statements.COUNT_BY_CCD):
        counts.setdefault((camera, ccd), dict.fromkeys(_NAMES.values(), 0))[_name(status)] += number
    return counts


def _name(status: int | None) -> str:
    """Return the name of a status; a number that another program wrote is UNKNOWN."""
    return _NAMES.get(status, STATUS.UNKNOWN.name)


def prepare_place(path: Path) -> None:
    """Check that a summary can be written, make its folder, and clear what a killed writer has left there.

    Raises
    ------
    OSError
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path)
    clear_temporaries(path)


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary as JSON, at once and as a whole; the folder is made."""
    text = json.dumps(summary, indent=2, allow_nan=False)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
