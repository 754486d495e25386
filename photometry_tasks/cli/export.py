"""`export`: write tasks with their diagnostics to a table."""

from pathlib import Path
from typing import Any

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import choice_options, needs, read_choice, todo_argument
from photometry_tasks.storage.location import Location
from photometry_tasks.text import count_of


@click.command(cls=Command)
@todo_argument
@click.argument("target", metavar="FILE.csv|.parquet|.ecsv", type=click.Path(path_type=Path))
@click.option(
    "--for-spreadsheets",
    is_flag=True,
    help="In CSV, write an apostrophe before each text that a spreadsheet would run as a formula.",
)
@choice_options(with_pending=True)
def export(todo: Location, target: Path, for_spreadsheets: bool, **options: Any) -> None:
    """Write the tasks of TODO and their diagnostics to a table.

    TODO is a file or a PostgreSQL URL. The name of the table gives its format: CSV, Parquet or ECSV.

    Example: photometry-tasks export todo.sqlite results.csv --status OK,WARNING --camera 1
    """
    from photometry_tasks.export import export_tasks

    with needs(target.suffix.lower().lstrip("."), "a library for this format"):
        choice = read_choice(options, with_pending=True)
        number = export_tasks(todo, target, for_spreadsheets=for_spreadsheets, **choice)
    echo(f"{count_of(number, 'task')} written to {target}.")
