"""Commands that change, look through or write out a whole TODO-list."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from photometry_tasks import schema
from photometry_tasks.cli.display import Bar
from photometry_tasks.cli.params import TODO, Statuses, constraint_options, needs, read_constraints, todo_argument
from photometry_tasks.export import export_tasks
from photometry_tasks.maintenance.check import find_faults
from photometry_tasks.maintenance.copy import copy_list
from photometry_tasks.maintenance.reset import build_choice, count_chosen
from photometry_tasks.storage.backends import find_path, name_list, open_database
from photometry_tasks.storage.sqlite.opening import upgrade_schema, upgrade_todo_file
from photometry_tasks.storage.sqlite.paths import find_todo_file
from photometry_tasks.storage.sqlite.result_log import ResultLog
from photometry_tasks.taskmanager import TaskManager

__all__ = ["check", "copy_all", "export", "reset", "upgrade"]


# --- reset, export ---------------------------------------------------------------------------------------


@click.command()
@todo_argument
@click.option("--status", type=Statuses(with_pending=False), help="Only with these, as ERROR,WARNING.")
@click.option("--error-like", metavar="TEXT", help="Only with this in their errors.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@constraint_options
def reset(todo: Path | str, status: Any, error_like: str | None, dry_run: bool, **options: Any) -> None:
    """Return chosen tasks of TODO, a file or a PostgreSQL URL, to pending, with those that only they had skipped.

    On a server, tasks that somebody is at are left alone.

    Example: photometry-tasks reset todo.sqlite --status ERROR,WARNING --camera 1 --dry-run
    """
    constraints = read_constraints(options)
    if not constraints and status is None and error_like is None:
        raise click.UsageError("Which tasks? Give --status, --error-like or constraints, as --camera.")
    path = find_path(todo)
    choice = build_choice(status, error_like, constraints)
    if path is not None and not dry_run:
        upgrade_todo_file(find_todo_file(path))  # takes in the results of a killed manager too
    elif path is not None and ResultLog(find_todo_file(path)).has_results():
        click.echo("A log of results lies beside it: they are not counted here.")
    counts = count_chosen(todo, choice)
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


@click.command()
@todo_argument
@click.argument("target", metavar="FILE.csv|.parquet|.ecsv", type=click.Path(path_type=Path))
@click.option("--status", type=Statuses(with_pending=True), help="Only with these, as OK,WARNING.")
@constraint_options
def export(todo: Path | str, target: Path, status: Any, **options: Any) -> None:
    """Write the tasks of TODO, a file or a PostgreSQL URL, with their diagnostics to a table.

    Example: photometry-tasks export todo.sqlite results.csv --status OK,WARNING --camera 1
    """
    with needs(target.suffix.lower().lstrip("."), "a library"):
        number = export_tasks(todo, target, status=status, **read_constraints(options))
    click.echo(f"{number} tasks written to {target}.")


# --- copy, upgrade, check --------------------------------------------------------------------------------------


@click.command("copy")
@click.argument("source", type=TODO)
@click.argument("target", type=TODO)
def copy_all(source: Path | str, target: Path | str) -> None:
    """Copy all tasks and results of SOURCE to TARGET: a file to an empty PostgreSQL URL, or back to a new file.

    Tables and columns of other programs are left out, and named. What was running is so in the copy too; `run` begins
    it anew.

    Example: photometry-tasks copy todo.sqlite copy.sqlite
    """
    with Bar("rows") as bar:
        copied = copy_list(source, target, progress=lambda done, total: bar.show("Copying", done, total))
    for name in copied.left_out:
        click.echo(f"Left out, of another program: {name}")
    click.echo(f"{copied.tasks} tasks, {copied.results} results and {copied.skips} skips are in {name_list(target)}.")


@click.command()
@click.argument("todo")
@click.option("--check", is_flag=True, help="Only say what would be changed; exit code 1 if something would.")
def upgrade(todo: str, check: bool) -> None:
    """Bring TODO, a file or a PostgreSQL URL, to the schema of this release. Opening a file does it too.

    Example: photometry-tasks upgrade todo.sqlite --check
    """
    path = find_path(todo)
    if path is not None and not check:
        changes, name = upgrade_todo_file(find_todo_file(path)), str(path)
    else:
        with closing(open_database(todo, to_read=check)) as database:
            name = database.name
            if check:
                with database.begin(writes=False) as connection:
                    changes = schema.find_changes(connection, name)
                    schema.check_upgradable(connection, name)
            else:
                changes = upgrade_schema(database)
    for change in changes:
        click.echo(change)
    state = "is up to date:" if not changes else "would be upgraded to" if check else "is upgraded to"
    click.echo(f"{name} {state} revision {schema.HEAD}.")
    if check and changes:
        raise click.exceptions.Exit(1)


@click.command()
@todo_argument
def check(todo: Path | str) -> None:
    """Look TODO, a file or a PostgreSQL URL, through for damage and contradictions; exit code 1 if there are any.

    Example: photometry-tasks check todo.sqlite
    """
    faults = list(find_faults(todo))
    for fault in faults:
        click.echo(fault)
    click.echo(f"{name_list(todo)}: faults found: {len(faults)}.")
    if faults:
        raise click.exceptions.Exit(1)
