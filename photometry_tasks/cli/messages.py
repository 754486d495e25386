"""The messages of the commands, and the sentences that name the next command."""

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from photometry_tasks.storage.location import Location
from photometry_tasks.text import clean, count_of, describe_jobs, format_hours


def echo(message: str, *, err: bool = False) -> None:
    """Print a message, whose texts and file names cannot control the terminal."""
    click.echo(clean(message), file=sys.stderr if err else sys.stdout)  # otherwise click writes UTF-8 instead of ASCII


class _Handler(logging.Handler):
    """Prints the manager's messages; those of tasks have the star in each line, and a handler of their own."""

    def emit(self, record: logging.LogRecord) -> None:
        echo(f"{record.levelname} {record.getMessage()}", err=True)


@contextmanager
def logging_to_terminal(how: dict[str, Any], *, verbose: bool) -> Iterator[None]:
    """Complete the options of the log, and print the manager's messages of the chosen level.

    Parameters
    ----------
    how : dict
        With `log_level` and `log_dir`, arguments of `run_tasks`.
    verbose : bool
    """
    chosen = how["log_level"] or ("INFO" if verbose or how["log_dir"] else None)
    how["log_level"] = chosen or "WARNING"
    if chosen is None or how["log_dir"] is not None:
        yield
        return
    from photometry_tasks.runner.logs import is_of_manager

    handler, root, ours = _Handler(), logging.getLogger(), logging.getLogger("photometry_tasks")
    handler.addFilter(is_of_manager)
    root.addHandler(handler)
    ours.setLevel(chosen)
    try:
        yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(logging.NOTSET)


def suggest_run(todo: Location) -> str:
    """Return the sentence that names the command for pending tasks."""
    command = "work" if todo.path is None else "run"
    return f"Run pending tasks with `photometry-tasks {command} {shlex.quote(todo.name)} MODULE:FUNCTION`."


def describe_estimate(found: dict[str, Any]) -> str:
    """Return the sentence about the tasks that are left, from an estimate of `TodoList`; "" if nothing is known."""
    if not found["tasks"] or found["cpu_hours"] is None:
        return ""
    low, high = (format_hours(found[f"cpu_hours_{name}"]) for name in ("low", "high"))
    done = format_hours(found["cpu_hours_done"])
    text = f"{count_of(found['tasks'], 'task')} left: {low} to {high} of run time, after {done} for the results so far"
    if found["jobs"] is None:
        return f"{text}."
    low, high = (format_hours(found[f"hours_{name}"]) for name in ("low", "high"))
    return f"{text}. With {describe_jobs(found['jobs'])}, this takes {low} to {high}."


def describe_used_up(name: str, number: int, retries: int) -> str:
    """Return the sentence about failed tasks that have no retries left."""
    tasks = f"{count_of(number, 'failed task')} {'has' if number == 1 else 'have'} no retries left"
    limit = "--retries 0" if not retries else f"more than {count_of(retries, 'failure')}"
    return f"{tasks} ({limit}). Try again with `photometry-tasks reset {shlex.quote(name)} --status ERROR,ABORT`."
