"""`copy`: copy a TODO-list from a file to a server, or back."""

import click

from photometry_tasks.cli.display import Bar
from photometry_tasks.cli.params import TODO
from photometry_tasks.maintenance.copy import copy_list
from photometry_tasks.storage.location import Location


@click.command("copy")
@click.argument("source", type=TODO)
@click.argument("target", type=TODO)
def copy_command(source: Location, target: Location) -> None:
    """Copy all tasks and results of SOURCE to TARGET: a file to an empty PostgreSQL URL, or back to a new file.

    Tables and columns of other programs are left out, and named. What was running is so in the copy too; `run` begins
    it anew.

    Example: photometry-tasks copy todo.sqlite copy.sqlite
    """
    with Bar("rows") as bar:
        copied = copy_list(source, target, progress=lambda done, total: bar.show("Copying", done, total))
    for name in copied.left_out:
        click.echo(f"Left out, of another program: {name}")
    click.echo(f"{copied.tasks} tasks, {copied.results} results and {copied.skips} skips are in {target.name}.")
