"""`serve` and `report`: the page of a TODO-list, live in a browser or as a file."""

import errno
import sys
from pathlib import Path

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import force_option, needs, todo_argument
from photometry_tasks.storage.location import Location


@click.command(cls=Command)
@click.argument("todo", type=click.Path(path_type=str))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes a free port.")
def serve(todo: str, host: str, port: int) -> None:
    """Show TODO as a live page for a browser.

    TODO is a file, a PostgreSQL URL, or a folder with several files. The list is only read. The printed address has a
    token, which the server demands. Each start has another token, unless the environment gives it
    (PHOTOMETRY_TASKS_TOKEN). From another computer, use a tunnel: ssh -L 8765:localhost:8765 HOST

    Example: photometry-tasks serve todo.sqlite --port 0
    """
    with needs("web", "Starlette, Uvicorn and Jinja2"):
        from photometry_tasks.web import serve as serve_page
    if not Path(todo).is_dir():
        from photometry_tasks.todolist import TodoList

        TodoList(todo).close()  # an error names what is wrong, before a browser shows it
    try:
        serve_page(todo, host, port)
    except OSError as error:
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = "give another --port; 0 takes a free one" if is_port else "give an address of this computer as --host"
        reason = str(error.strerror).partition(" (while")[0]
        raise click.ClickException(f"{host}:{port} cannot be used ({reason}); {remedy}") from error


@click.command(cls=Command)
@todo_argument
@click.option(
    *("-o", "--output"), type=click.Path(), required=True, metavar="FILE", help="The HTML file; '-' is the output."
)
@force_option
def report(todo: Location, output: str, force: bool) -> None:
    """Write the page of TODO as one HTML file.

    TODO is a file or a PostgreSQL URL. The page needs no other file, and does not change: `serve` shows it live.

    Example: photometry-tasks report todo.sqlite -o report.html
    """
    with needs("report", "Jinja2"):
        from photometry_tasks.report import build_report, write_report

        if output in ("-", "/dev/stdout"):
            sys.stdout.buffer.write(build_report(todo).encode())
            return
        write_report(todo, output, force=force)
    echo(f"Report written to {output} ({Path(output).stat().st_size / 1e3:,.0f} kB). Open it in a browser.")
