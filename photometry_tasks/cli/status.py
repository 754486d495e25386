"""`status` and `report`: show the status of a TODO-list in the terminal, or as a page.

The fields of `status --json` are in `progress/status_fields.py`.
"""

import json
import sys
import time
from pathlib import Path

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import force_option, needs, todo_argument
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
            live.update(build_view(get_status(todo), console, is_live=True), refresh=True)
            time.sleep(_WATCH)


@click.command(cls=Command)
@todo_argument
@click.option(
    *("-o", "--output"), type=click.Path(), required=True, metavar="FILE", help="The HTML file; '-' is the output."
)
@force_option
def report(todo: Location, output: str, force: bool) -> None:
    """Write the status of TODO as an HTML page with figures.

    TODO is a file or a PostgreSQL URL. The page is one file, which needs no other files.

    Example: photometry-tasks report todo.sqlite -o report.html
    """
    with needs("report", "Matplotlib and Jinja2"):
        from photometry_tasks.report import build_report, write_report

        if output in ("-", "/dev/stdout"):
            sys.stdout.buffer.write(build_report(todo).encode())
            return
        write_report(todo, output, force=force)
    echo(f"Report written to {output} ({Path(output).stat().st_size / 1e3:,.0f} kB). Open it in a browser.")
