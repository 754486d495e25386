"""`try`: run a photometry function on one task in this process, and save nothing."""

import shlex
import sys
from itertools import chain
from typing import Any

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import constraint_options, function_argument, read_constraints, todo_argument
from photometry_tasks.errors import InvalidResultError
from photometry_tasks.rules.results import INVALID_RESULT, build_diagnostics, describe_unknown
from photometry_tasks.runner.functions import import_function
from photometry_tasks.runner.task import find_user_trace, try_task
from photometry_tasks.storage.location import Location

#: The keys of a task, in the order of `get_task`.
_TASK = ("priority", "starid", "method", "sector", "camera", "ccd", "cadence", "datasource", "tmag")


@click.command("try", cls=Command)
@todo_argument
@function_argument
@click.option("--pdb", "debugs", is_flag=True, help="After an exception, start Python's debugger where it was raised.")
@constraint_options
def try_command(todo: Location, function: str, debugs: bool, **options: Any) -> None:
    """Run FUNCTION on one task, and show the result.

    FUNCTION is package.module:function or path/to/file.py:function. It runs in this process, on the first pending task
    that the options choose, or if none is pending on the first. Nothing is saved.

    Example: photometry-tasks try todo.sqlite photometry_tasks.demo:photometry --camera 1
    """
    constraints = read_constraints(options)
    if debugs and not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("--pdb needs a terminal; leave it out.")
    sys.dont_write_bytecode = True  # the file may be beside the list, where nothing may change
    chosen = import_function(function)
    from photometry_tasks.cli.display import build_fields, print_view
    from photometry_tasks.todolist import TodoList

    with TodoList(todo) as reader:
        found = (reader.select(status, _TASK, **constraints) for status in ([None], None))
        task = next(chain.from_iterable(found), None)
    if task is None:
        from photometry_tasks.reading.matches import describe_matches

        raise click.ClickException(describe_matches(todo, constraints))
    echo(f"Task {', '.join(f'{name} {value}' for name, value in task.items() if value is not None)}")
    result, error = try_task(chosen, task)
    if isinstance(error, KeyboardInterrupt):
        raise error
    if error is not None:
        kind, trace = result.details.kind, find_user_trace(error)
        if kind == INVALID_RESULT and isinstance(error, InvalidResultError):
            trace = None  # the function has returned
            echo("\n- ".join(["The result is invalid:", *error.faults]), err=True)
        else:
            echo("\n".join(result.details.errors).rstrip(), err=True)
        if debugs and trace is not None:
            import pdb

            pdb.post_mortem(trace)
        echo(f"The task would become an ERROR ({kind}). Nothing was saved.", err=True)
        raise click.exceptions.Exit(1)
    details = result.details
    fields = {"status": result.status.name, **build_diagnostics(result), "skip_targets": details.skip_targets or None}
    fields |= {"kind": details.kind, **{f"extra_{name}": value for name, value in (details.extra or {}).items()}}
    print_view(build_fields({name: fields[name] for name in fields if name != "priority"}))
    for key in result.unknown:
        echo(describe_unknown(key))
    command = "work" if todo.path is None else "run"
    quoted = f"{shlex.quote(todo.name)} {shlex.quote(function)}"
    echo(f"Nothing was saved. Run all pending tasks with `photometry-tasks {command} {quoted}`.")
