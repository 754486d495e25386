"""`init`: create a TODO-list from target lists."""

from pathlib import Path
from typing import Any

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo, suggest_run
from photometry_tasks.cli.params import todo_argument
from photometry_tasks.storage.location import Location
from photometry_tasks.text import count_of


@click.command(cls=Command)
@todo_argument
@click.argument("lists", metavar="LIST.csv...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--sector", type=click.IntRange(min=1), help="Sector of targets without a sector in the list.")
@click.option(
    "--cadence",
    type=click.IntRange(min=1),
    help="Cadence in seconds of targets without a cadence in the list: at most 120 for tpf, more for ffi.",
)
@click.option(
    "--datasource",
    type=click.Choice(["tpf", "ffi", "both"], case_sensitive=False),
    default="ffi",
    show_default=True,
    help="Target pixel files, full-frame images, or a task for each, for targets without a datasource in the list.",
)
def init(todo: Location, lists: tuple[Path, ...], sector: int | None, cadence: int | None, datasource: Any) -> None:
    """Create a TODO-list from target lists, or add new targets.

    TODO is a file or a PostgreSQL URL. LIST.csv is a TESS target list of MIT, or a CSV file with the column names of
    `todolist`.

    Example: photometry-tasks init todo.sqlite all_targets_S001_v1.csv --datasource both
    """
    from photometry_tasks.cli.display import Bar
    from photometry_tasks.ingest import add_target_lists

    with Bar("targets") as bar:

        def show_progress(done: int, total: int | None) -> None:
            bar.show("Reading" if total is None else "Writing", done, total)

        added, listed = add_target_lists(
            todo, lists, sector=sector, cadence=cadence, datasource=datasource, progress=show_progress
        )
    result = f"{count_of(added, 'task')} added to {todo.name}, {listed:,} already listed"
    echo(f"{result}. {suggest_run(todo)}")
