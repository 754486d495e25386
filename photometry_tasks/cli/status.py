"""`status`: show the status of a TODO-list in the terminal.

The fields of `status --json` are in `progress/status_fields.py`.
"""

import json
import time

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import todo_argument
from photometry_tasks.storage.location import Location

#: Seconds between two updates of `status --watch`.
_WATCH = 2.0


@click.command(cls=Command)
@todo_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Update the status every 2 seconds, until Ctrl-C.")
@click.option("--task", type=int, metavar="PRIORITY", help="Show the attempts at this task.")
def status(todo: Location, as_json: bool, watch: bool, task: int | None) -> None:
    """Show the status of TODO: counts, rate, errors, managers.

    TODO is a file or a PostgreSQL URL, and may be in use.

    Example: photometry-tasks status todo.sqlite --json
    """
    if watch and (as_json or task is not None):
        raise click.UsageError("--watch cannot be combined with --json or --task; leave one of them out.")
    from photometry_tasks.maintenance.status import get_attempts, get_status

    if as_json:
        echo(json.dumps(get_status(todo) if task is None else get_attempts(todo, task), indent=2, default=str))
        return
    from rich.live import Live

    from photometry_tasks.cli.display import build_attempts, build_console, build_view, print_view

    console = build_console()
    if task is not None:
        print_view(build_attempts(task, get_attempts(todo, task)))
        return
    if not watch:
        print_view(build_view(get_status(todo), console))
        return
    if not console.is_interactive:  # a pipe, or a terminal that cannot draw
        while True:
            print_view(build_view(get_status(todo), console))
            time.sleep(_WATCH)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(build_view(get_status(todo), console), refresh=True)
            time.sleep(_WATCH)
