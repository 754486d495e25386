"""`estimate` and `plan`: how long the tasks that are left will take, and how far a job of some hours comes."""

import json
import shlex
from typing import Any

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import describe_estimate, echo
from photometry_tasks.cli.params import constraint_options, read_constraints, todo_argument
from photometry_tasks.storage.location import Location
from photometry_tasks.text import count_of, describe_jobs, format_hours, format_range

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(cls=Command)
@todo_argument
@click.option("--jobs", type=float, help="How many tasks run at once.  [default: as many as lately]")
@_json_option
@constraint_options
def estimate(todo: Location, jobs: float | None, as_json: bool, **options: Any) -> None:
    """Estimate how long the tasks that are left will take.

    TODO is a file or a PostgreSQL URL, and may be in use. The run times of the results so far, by datasource, method
    and magnitude, tell those of the other tasks.

    Example: photometry-tasks estimate todo.sqlite --jobs 64
    """
    from photometry_tasks.todolist import TodoList

    constraints = read_constraints(options)
    with TodoList(todo) as reader:
        found = reader.estimate(jobs, **constraints)
    if not _show_simply(found, todo, constraints, as_json=as_json, is_known=found["cpu_hours"] is not None):
        unknown = " Give --jobs: no record says how many tasks run at once." if found["jobs"] is None else ""
        echo(f"{describe_estimate(found)}{unknown} In 4 of 5 cases, the true time lies within such limits.")


@click.command(cls=Command)
@todo_argument
@click.option("--jobs", type=float, required=True, help="How many tasks run at once.")
@click.option("--hours", type=float, required=True, help="Length of the run.")
@_json_option
@constraint_options
def plan(todo: Location, jobs: float, hours: float, as_json: bool, **options: Any) -> None:
    """Show which tasks a run of some hours will do.

    TODO is a file or a PostgreSQL URL, and may be in use. Tasks run in order of priority.

    Example: photometry-tasks plan todo.sqlite --jobs 64 --hours 12
    """
    from photometry_tasks.cli.display import build_plan, print_view
    from photometry_tasks.todolist import TodoList

    constraints = read_constraints(options)
    with TodoList(todo) as reader:
        found = reader.plan(jobs, hours, **constraints)
    if not _show_simply(found, todo, constraints, as_json=as_json, is_known=found["done_low"] is not None):
        print_view(build_plan(found["magnitudes"]))
        low, high, tasks = found["done_low"], found["done_high"], found["tasks"]
        echo(
            f"With {describe_jobs(jobs)}, {format_hours(hours)} suffice for {format_range(low, high)} of "
            f"{count_of(tasks, 'task')}{_describe_end(found)}; {format_range(tasks - high, tasks - low)} will be left. "
            "In 4 of 5 cases, the true number lies within such limits."
        )


def _describe_end(found: dict[str, Any]) -> str:
    low, high = found["priority_low"], found["priority_high"]
    return "" if high is None else f", up to priority {format_range(low or 0, high)}"


def _show_simply(
    found: dict[str, Any], todo: Location, constraints: dict[str, Any], *, as_json: bool, is_known: bool
) -> bool:
    """Print JSON, or why nothing is left or known; return False if there is more to print."""
    if as_json:
        echo(json.dumps(found, indent=2))
    elif not found["tasks"]:
        from photometry_tasks.reading.matches import describe_matches

        echo(f"No task is left. {describe_matches(todo, constraints)}" if constraints else "No task is left.")
    elif not is_known:
        command = "work" if todo.path is None else "run"
        command = f"photometry-tasks {command} {shlex.quote(todo.name)} MODULE:FUNCTION --limit 100"
        left = count_of(found["tasks"], "task")
        echo(f"{left} left. No result has a run time yet; measure some with `{command}`.")
    return as_json or not found["tasks"] or not is_known
