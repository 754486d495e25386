"""The summary of a run: its numbers, and its JSON file."""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photometry_tasks.files import check_replaceable, os_errors, replace_file
from photometry_tasks.rules.results import Result
from photometry_tasks.rules.validation import invalid_argument
from photometry_tasks.status import STATUS, name_counts
from photometry_tasks.text import shorten

if TYPE_CHECKING:
    from photometry_tasks.sql.transitions import Saved

#: Weight of the newest value in the mean times.
_ALPHA = 0.1


def build_summary() -> dict[str, Any]:
    """Return the summary of a run without results."""
    return {
        "slurm_jobid": os.environ.get("SLURM_JOB_ID") or None,
        "numtasks": 0,
        "tasks_run": 0,
        **{status.name: 0 for status in STATUS},
        "last_error": None,
        "mean_elaptime": None,
        "mean_worker_waittime": None,
    }


def add_results(summary: dict[str, Any], results: "Iterable[tuple[Result, Saved]]") -> None:
    """Add results, each with its outcome, to a summary."""
    # The dict is the pipeline's too, which may have removed a number.
    number = summary.get("tasks_run", 0)
    mean, mean_wait = summary.get("mean_elaptime"), summary.get("mean_worker_waittime")
    for result, saved in results:
        elaptime, wait_time = result.time, result.worker_wait_time
        number += 1
        # An exponentially weighted mean, which starts with the first value.
        mean = elaptime if mean is None else _ALPHA * elaptime + (1 - _ALPHA) * mean
        if wait_time is not None and math.isfinite(wait_time):
            mean_wait = wait_time if mean_wait is None else _ALPHA * wait_time + (1 - _ALPHA) * mean_wait
        if saved.errors is not None:
            summary["last_error"] = shorten(saved.errors)
    summary.update(tasks_run=number, mean_elaptime=mean, mean_worker_waittime=mean_wait)


def set_counts(summary: dict[str, Any], counts: Mapping[int | None, int]) -> None:
    """Set the number of tasks, and the number with each status."""
    named = name_counts(counts)
    summary["numtasks"] = sum(named.values())
    summary.update({status.name: named[status.name] for status in STATUS})


def check_place(path: Path) -> None:
    """Check that a summary, also one of TASOC, is all that a new summary replaces; a symlink is replaced itself.

    Raises
    ------
    InvalidArgumentError
    """
    if not path.is_symlink():
        check_replaceable("summary", path, lambda file: bool(re.match(rb'\{\s*"slurm_jobid"', file.read(100))))


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary of a TODO-list as JSON, atomically; create the directory."""
    try:
        text = json.dumps(summary, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:  # a value of the caller
        raise invalid_argument("summary", summary, f"JSON cannot hold it ({error}); remove that value") from error
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text + "\n")
