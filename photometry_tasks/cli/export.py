"""`export`: write tasks with their diagnostics to a table."""

import sys
from pathlib import Path
from typing import Any

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import choice_options, force_option, needs, read_choice, todo_argument
from photometry_tasks.storage.location import Location
from photometry_tasks.text import count_of


@click.command(cls=Command)
@todo_argument
@click.argument("target", metavar="FILE", type=click.Path())
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "ecsv", "vot", "fits", "parquet"], case_sensitive=False),
    help="The format, if the name of FILE does not give it.  [default for '-': csv]",
)
@force_option
@click.option(
    "--for-spreadsheets",
    is_flag=True,
    help="In CSV, write an apostrophe before each text that a spreadsheet would run as a formula.",
)
@choice_options(with_pending=True)
def export(todo: Location, target: str, file_format: Any, force: bool, for_spreadsheets: bool, **options: Any) -> None:
    """Write the tasks of TODO and their diagnostics to a table.

    TODO is a file or a PostgreSQL URL. The name of FILE gives its format: .csv, .ecsv or .vot (VOTable), also with .gz,
    .fits or .parquet. '-' is the output. Of existing files, only an earlier export is replaced.

    Example: photometry-tasks export todo.sqlite results.csv --status OK,WARNING --camera 1
    """
    from photometry_tasks.export import export_tasks
    from photometry_tasks.reading.matches import describe_matches, has_match

    is_printed = target in ("-", "/dev/stdout")
    if is_printed and file_format in ("fits", "parquet"):
        raise click.UsageError(f"--format {file_format} is no text; give the name of a file in place of '-'.")
    choice = read_choice(options, with_pending=True)
    if choice and not (is_printed or force) and Path(target).is_file() and not has_match(todo, choice):
        raise click.ClickException(f"{describe_matches(todo, choice)} {target} is not replaced by an empty table.")
    extra = "parquet" if "parquet" in (file_format, target.rpartition(".")[2].lower()) else "astropy"
    with needs(extra, "a library for this format"):
        output = sys.stdout.buffer if is_printed else target
        how = {"file_format": file_format, "force": force, "for_spreadsheets": for_spreadsheets}
        number = export_tasks(todo, output, **how, **choice)
    echo(f"{count_of(number, 'task')} written to {'the output' if is_printed else target}.", err=is_printed)
    if not number:
        echo(describe_matches(todo, choice), err=True)
