"""The messages of the commands, and the sentences that name the next command."""

import shlex
import sys

import click

from photometry_tasks.storage.location import Location
from photometry_tasks.text import clean, count_of


def echo(message: str, *, err: bool = False) -> None:
    """Print a message, whose texts and file names cannot control the terminal."""
    click.echo(clean(message), file=sys.stderr if err else sys.stdout)  # otherwise click writes UTF-8 instead of ASCII


def suggest_run(todo: Location) -> str:
    """Return the sentence that names the command for pending tasks."""
    command = "work" if todo.path is None else "run"
    return f"Run pending tasks with `photometry-tasks {command} {shlex.quote(todo.name)} MODULE:FUNCTION`."


def describe_used_up(name: str, number: int, retries: int) -> str:
    """Return the sentence about failed tasks that have no retries left."""
    tasks = f"{count_of(number, 'failed task')} {'has' if number == 1 else 'have'} no retries left"
    limit = "--retries 0" if not retries else f"more than {count_of(retries, 'failure')}"
    return f"{tasks} ({limit}). Try again with `photometry-tasks reset {shlex.quote(name)} --status ERROR,ABORT`."
