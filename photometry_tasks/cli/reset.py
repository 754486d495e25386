"""`reset`: return chosen tasks to pending."""

import sys
from contextlib import closing
from typing import Any

import click

from photometry_tasks.cli.params import Statuses, constraint_options, read_constraints, todo_argument
from photometry_tasks.maintenance.reset import count_reset
from photometry_tasks.sql.statements import build_chosen_tasks
from photometry_tasks.storage.location import Location
from photometry_tasks.storage.open import open_read_only, upgrade_list
from photometry_tasks.taskmanager import TaskManager


@click.command()
@todo_argument
@click.option("--status", type=Statuses(with_pending=False), help="Only with these, as ERROR,WARNING.")
@click.option("--error-like", metavar="TEXT", help="Only with this in their errors.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@constraint_options
def reset(todo: Location, status: Any, error_like: str | None, dry_run: bool, **options: Any) -> None:
    """Return chosen tasks of TODO, a file or a PostgreSQL URL, to pending, with those that only they had skipped.

    On a server, tasks that somebody is at are left alone.

    Example: photometry-tasks reset todo.sqlite --status ERROR,WARNING --camera 1 --dry-run
    """
    constraints = read_constraints(options)
    if not constraints and status is None and error_like is None:
        raise click.UsageError("Which tasks? Give --status, --error-like or constraints, as --camera.")
    chosen = build_chosen_tasks(status, error_like, constraints)
    if not dry_run and todo.path is not None:
        upgrade_list(todo)  # takes in the results of a killed manager too
    else:
        with closing(open_read_only(todo)) as database:
            if database.find_result_log() is not None:
                click.echo("A log of results lies beside it: they are not counted here.")
    counts = count_reset(todo, chosen)
    click.echo(f"{_describe(counts)} {'would go' if dry_run else 'go'} back to pending.")
    if dry_run or not counts:
        return
    if sys.stdin.isatty():
        click.confirm("Their results are deleted. Go on?", abort=True)
    with TaskManager(todo, reset=False) as manager:  # only those that were chosen go
        counts = manager.reset_tasks(status=status, error_like=error_like, **constraints)
    click.echo(f"{_describe(counts)} are pending again.")


def _describe(counts: dict[str, int]) -> str:
    details = ", ".join(f"{number} {name}" for name, number in counts.items())
    return f"{sum(counts.values())} tasks" + (f" ({details})" if details else "")
