"""`errors` and `show`: the failures of a TODO-list, and the tasks of one star."""

import json
import shlex
from typing import Any

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import constraint_options, read_constraints, todo_argument
from photometry_tasks.rules.validation import invalid_argument
from photometry_tasks.storage.location import Location

#: The most groups of errors that are shown.
_MOST_GROUPS = 20

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(cls=Command)
@todo_argument
@_json_option
@constraint_options
def errors(todo: Location, as_json: bool, **options: Any) -> None:
    """Show the errors of failed tasks, the commonest first.

    TODO is a file or a PostgreSQL URL, and may be in use. Errors of one kind that differ only in their numbers are
    one group. --priority and --starid show the whole errors of these tasks.

    Example: photometry-tasks errors todo.sqlite --camera 1
    """
    from photometry_tasks.cli.display import build_errors, print_view
    from photometry_tasks.reading.matches import describe_matches
    from photometry_tasks.todolist import TodoList

    constraints = read_constraints(options)
    with TodoList(todo) as reader:
        if {"priority", "starid"} & constraints.keys():
            tasks = [
                _describe_errors(task)
                for row in reader.select(None, ["priority", "starid"], **constraints)
                for task in reader.star(row["starid"])
                if task["priority"] == row["priority"]
            ]
            if not tasks:
                raise click.ClickException(describe_matches(todo, constraints))
            echo(json.dumps(tasks, indent=2) if as_json else "\n\n".join(map(_format_errors, tasks)))
            return
        groups = reader.errors(**constraints)
        shown = groups if as_json else groups[:_MOST_GROUPS]
    if as_json:
        echo(json.dumps(shown, indent=2))
    elif not shown:
        echo(f"No failure. {describe_matches(todo, constraints)}" if constraints else "No task has failed.")
    else:
        print_view(build_errors(shown, len(groups)))
        command = f"photometry-tasks errors {shlex.quote(todo.name)} --priority {shown[0]['first']}"
        echo(f"Show the whole error of a task with `{command}`.")


def _describe_errors(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task of `TodoList.star` with its last errors alone."""
    failed = [attempt for attempt in task["attempts"] if attempt["errors"] or attempt["kind"]]
    last = failed[-1] if failed else {"errors": None, "kind": None}
    found = (task["result"] or {}).get("errors") or last["errors"]
    kind = last["kind"] if task["status_name"] in ("ERROR", "ABORT") else None
    names = ("priority", "starid", "status_name")
    return {**{name: task[name] for name in names}, "kind": kind, "errors": found}


def _format_errors(task: dict[str, Any]) -> str:
    kind = f" ({task['kind']})" if task["kind"] else ""
    title = f"Task {task['priority']}, TIC {task['starid']}, {task['status_name']}{kind}"
    return f"{title}:\n{task['errors'].rstrip()}" if task["errors"] else f"{title}: no errors"


@click.command(cls=Command)
@todo_argument
@click.argument("tic", metavar="TIC", type=int)
@_json_option
def show(todo: Location, tic: int, as_json: bool) -> None:
    """Show the tasks of one star: results, covers, attempts.

    TODO is a file or a PostgreSQL URL, and may be in use. TIC is the star's number in the TESS Input Catalogue.

    Example: photometry-tasks show todo.sqlite 101
    """
    from photometry_tasks.cli.display import build_star, print_view
    from photometry_tasks.todolist import TodoList

    with TodoList(todo) as reader:
        tasks = reader.star(tic)
        if not tasks:
            raise invalid_argument("TIC", tic, _describe_others(reader, tic))
    if as_json:
        echo(json.dumps(tasks, indent=2, default=str))
        return
    for task in tasks:
        print_view(build_star(task))


def _describe_others(reader: Any, tic: int) -> str:
    """Return which stars a list has in place of one that it lacks."""
    from sqlalchemy import func, select

    from photometry_tasks.models import Task

    below = reader.session.scalar(select(func.max(Task.starid)).where(Task.starid < tic))
    above = reader.session.scalar(select(func.min(Task.starid)).where(Task.starid > tic))
    near = [f"TIC {starid}" for starid in (below, above) if starid is not None]
    return f"the list lacks this star; the nearest that it has: {', '.join(near)}" if near else "the list has no tasks"
