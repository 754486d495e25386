"""`reset`, `undo` and `reset-uncovered`: return tasks to pending, and put their results back."""

import shlex
import sys
from contextlib import suppress
from typing import Any

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo, suggest_run
from photometry_tasks.cli.params import choice_options, read_choice, todo_argument
from photometry_tasks.errors import OutdatedSchemaError
from photometry_tasks.storage.location import Location
from photometry_tasks.taskmanager import TaskManager
from photometry_tasks.text import count_of, describe_tasks


@click.command(cls=Command)
@todo_argument
@click.option("--everything", is_flag=True, help="Choose every task.")
@click.option("--forget-history", is_flag=True, help="With --everything, delete the history of attempts too.")
@click.option("--dry-run", is_flag=True, help="Only count the tasks.")
@click.option("--yes", is_flag=True, help="Delete finished results without a question.")
@choice_options(with_pending=False)
def reset(todo: Location, everything: bool, forget_history: bool, dry_run: bool, yes: bool, **options: Any) -> None:
    """Return chosen tasks to pending, and delete their results.

    TODO is a file or a PostgreSQL URL. Tasks that only the chosen tasks had skipped return to pending too. On a server,
    tasks that are running on other managers are not reset. `undo` puts the results back until the next reset.

    Example: photometry-tasks reset todo.sqlite --status ERROR,WARNING --camera 1 --dry-run
    """
    if forget_history and not everything:
        raise click.UsageError("--forget-history deletes the history of all tasks; give --everything too.")
    choice = read_choice(options, with_pending=False)
    if choice and everything:
        raise click.UsageError("--everything chooses every task; leave it out, or the other options.")
    if not choice and not everything:
        raise click.UsageError(
            "No tasks are chosen. Give --status, --kind or constraints such as --camera, or --everything."
        )
    from photometry_tasks.maintenance.reset import count_reset
    from photometry_tasks.sql.choices import build_chosen_tasks
    from photometry_tasks.storage.open import upgrade_list

    chosen = build_chosen_tasks(choice, everything=everything)
    if todo.path is not None and not dry_run:
        if not (yes or sys.stdin.isatty()):
            with suppress(OutdatedSchemaError):
                _check_yes(count_reset(todo, chosen).finished, forget_history=forget_history)
        upgrade_list(todo)  # saves the results that a killed manager logged too
    expected, finished = count_reset(todo, chosen)
    counts = expected.name_returned()
    next_step = " Leave --dry-run out to reset them." if dry_run and counts else ""
    echo(f"{describe_tasks(counts)} {'would' if dry_run else 'will'} return to pending.{next_step}")
    if expected.covered:
        number = f"{count_of(expected.covered, 'chosen task')} {'would' if dry_run else 'will'}"
        echo(f"{number} lose the result and stay SKIPPED: a task that is not chosen covers it. Reset that task too.")
    if choice and not (counts or expected.covered):
        from photometry_tasks.reading.matches import describe_matches

        echo(describe_matches(todo, choice), err=True)
    if dry_run or not (counts or expected.covered or forget_history):
        return
    if not yes:
        _check_yes(finished, forget_history=forget_history)
    if forget_history:
        with TaskManager(todo, overwrite=True, forget=True):
            echo(f"{describe_tasks(counts)} returned to pending; the history is deleted. {suggest_run(todo)}")
        return
    with TaskManager(todo, reset=False) as manager:  # opening must return no other tasks
        counts = manager.reset_tasks(everything=everything, **choice)
    command = f"photometry-tasks undo {shlex.quote(todo.name)}"
    echo(f"{describe_tasks(counts)} returned to pending; `{command}` undoes it. {suggest_run(todo)}")


def _check_yes(finished: int, *, forget_history: bool) -> None:
    """Ask whether to delete finished results and the history; refuse it without a terminal."""
    lost = [count_of(finished, "finished result")] * bool(finished) + ["the history"] * forget_history
    if not lost:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"This deletes {' and '.join(lost)}; give --yes to do it without a question.")
    click.confirm(f"This deletes {' and '.join(lost)}. Continue?", abort=True)


@click.command(cls=Command)
@todo_argument
def undo(todo: Location) -> None:
    """Put back the results that the last `reset` of TODO deleted.

    TODO is a file or a PostgreSQL URL. If a result was saved or a task was changed since, nothing is changed.

    Example: photometry-tasks undo todo.sqlite
    """
    with TaskManager(todo, reset=False, upgrade=False) as manager:
        counts = manager.undo_reset()
    echo(f"{describe_tasks(counts)} of {todo.name} restored, as before the last reset.")


@click.command("reset-uncovered", cls=Command)
@todo_argument
@click.option("--dry-run", is_flag=True, help="Show how many tasks would return, and change nothing.")
def reset_uncovered(todo: Location, dry_run: bool) -> None:
    """Return SKIPPED tasks to pending that no task covers.

    Lists of TASOC and of older releases may hold such tasks: what covered them was skipped itself, or not measured.
    `check` names them. TODO is a file or a PostgreSQL URL.

    Example: photometry-tasks reset-uncovered todo.sqlite --dry-run
    """
    if dry_run:
        from photometry_tasks.maintenance.reset import count_uncovered

        number = count_uncovered(todo)
        next_step = " Leave --dry-run out to reset them." if number else ""
        echo(f"{count_of(number, 'SKIPPED task')} would return to pending.{next_step}")
        return
    with TaskManager(todo, reset=False) as manager:
        number = manager.reset_uncovered_tasks()
    echo(f"{count_of(number, 'SKIPPED task')} returned to pending. {suggest_run(todo)}")
