"""`init`: make a TODO-list from target lists."""

from pathlib import Path
from typing import Any

import click

from photometry_tasks.cli.display import Bar
from photometry_tasks.cli.params import todo_argument
from photometry_tasks.ingest import add_target_lists
from photometry_tasks.storage.location import Location


@click.command()
@todo_argument
@click.argument("lists", metavar="LIST.csv...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--sector", type=click.IntRange(min=0), help="Sector of the targets, where the list does not tell.")
@click.option("--cadence", type=click.IntRange(min=1), help="Seconds between exposures, where the list does not tell.")
@click.option(
    "--datasource",
    type=click.Choice(["tpf", "ffi", "both"]),
    default="ffi",
    show_default=True,
    help="Target pixel files, full-frame images, or a task for each, where the list does not tell.",
)
def init(todo: Location, lists: tuple[Path, ...], sector: int | None, cadence: int | None, datasource: Any) -> None:
    """Make the TODO-list TODO, a file or a PostgreSQL URL, from target lists, or add to it what is new.

    A list is a CSV file: one of the TESS target lists of MIT, or one with columns named as in `todolist`.

    Example: photometry-tasks init todo.sqlite all_targets_S001_v1.csv --datasource both
    """
    with Bar("targets") as bar:

        def show_progress(done: int, total: int | None) -> None:
            bar.show("Reading" if total is None else "Writing", done, total)

        added, known = add_target_lists(
            todo, lists, sector=sector, cadence=cadence, datasource=datasource, progress=show_progress
        )
    click.echo(f"{added} tasks added to {todo.name}; {known} were listed already.")
