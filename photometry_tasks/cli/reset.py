"""`reset` and `reset-uncovered`: return tasks to pending."""

import sys
from typing import Any

import click

from photometry_tasks.cli.display import echo, suggest_run
from photometry_tasks.cli.params import Statuses, constraint_options, read_constraints, todo_argument
from photometry_tasks.maintenance.reset import count_reset, count_uncovered
from photometry_tasks.sql.statements import build_chosen_tasks
from photometry_tasks.storage.location import Location
from photometry_tasks.storage.open import upgrade_list
from photometry_tasks.taskmanager import TaskManager
from photometry_tasks.text import count_of, describe_tasks


@click.command()
@todo_argument
@click.option(
    "--status", type=Statuses(with_pending=False), help="Only tasks with these statuses, for example ERROR,WARNING."
)
@click.option("--error-like", metavar="TEXT", help="Only tasks with this text in their errors.")
@click.option("--dry-run", is_flag=True, help="Only count the tasks.")
@constraint_options
def reset(todo: Location, status: Any, error_like: str | None, dry_run: bool, **options: Any) -> None:
    """Return chosen tasks of TODO to pending, and delete their results.

    TODO is a file or a PostgreSQL URL. Tasks that only the chosen tasks had skipped return to pending too. On a server,
    tasks that are running on other managers are not reset.

    Example: photometry-tasks reset todo.sqlite --status ERROR,WARNING --camera 1 --dry-run
    """
    constraints = read_constraints(options)
    if not constraints and status is None and error_like is None:
        raise click.UsageError("No tasks are chosen. Give --status, --error-like or constraints such as --camera.")
    chosen = build_chosen_tasks(status, error_like, constraints)
    if todo.path is not None and not dry_run:
        upgrade_list(todo)  # saves the results that a killed manager logged too
    expected = count_reset(todo, chosen)
    counts = expected.name_returned()
    next_step = " Leave --dry-run out to reset them." if dry_run and counts else ""
    echo(f"{describe_tasks(counts)} {'would' if dry_run else 'will'} return to pending.{next_step}")
    if expected.covered:
        number = f"{count_of(expected.covered, 'chosen task')} {'would' if dry_run else 'will'}"
        echo(f"{number} lose the result and stay SKIPPED: a task that is not chosen covers it. Reset that task too.")
    if dry_run or not (counts or expected.covered):
        return
    if sys.stdin.isatty():
        click.confirm("Their results will be deleted. Continue?", abort=True)
    with TaskManager(todo, reset=False) as manager:  # opening must return no other tasks
        counts = manager.reset_tasks(status=status, error_like=error_like, **constraints)
    echo(f"{describe_tasks(counts)} returned to pending. {suggest_run(todo)}")


@click.command("reset-uncovered")
@todo_argument
@click.option("--dry-run", is_flag=True, help="Show how many tasks would return, and change nothing.")
def reset_uncovered(todo: Location, dry_run: bool) -> None:
    """Return the SKIPPED tasks of TODO to pending that no task covers.

    Lists of TASOC and of older releases may hold such tasks: what covered them was skipped itself, or not measured.
    `check` names them. TODO is a file or a PostgreSQL URL.

    Example: photometry-tasks reset-uncovered todo.sqlite --dry-run
    """
    if dry_run:
        number = count_uncovered(todo)
        next_step = " Leave --dry-run out to reset them." if number else ""
        echo(f"{count_of(number, 'SKIPPED task')} would return to pending.{next_step}")
        return
    with TaskManager(todo, reset=False) as manager:
        number = manager.reset_uncovered_tasks()
    echo(f"{count_of(number, 'SKIPPED task')} returned to pending. {suggest_run(todo)}")
