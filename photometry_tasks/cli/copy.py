"""`copy`: copy a TODO-list from a file to a server, or back."""

import shlex

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import TODO
from photometry_tasks.storage.location import Location
from photometry_tasks.text import count_of


@click.command("copy", cls=Command)
@click.argument("source", type=TODO)
@click.argument("target", type=TODO)
def copy_command(source: Location, target: Location) -> None:
    """Copy the tasks and results of SOURCE to TARGET.

    SOURCE is a file or a PostgreSQL URL. TARGET is a new file, or the URL of a database without tasks.

    Tables and columns of other programs are not copied, but listed. A running task is STARTED in the copy too; `run`
    runs it again.

    Example: photometry-tasks copy todo.sqlite copy.sqlite
    """
    from photometry_tasks.cli.display import Bar
    from photometry_tasks.maintenance.copy import copy_list

    with Bar("rows") as bar:
        copied = copy_list(source, target, progress=lambda done, total: bar.show("Copying", done, total))
    for name in copied.left_out:
        echo(f"Not copied, because another program added it: {name}")
    number = f"{count_of(copied.tasks, 'task')}, {count_of(copied.results, 'result')}, {count_of(copied.skips, 'skip')}"
    echo(f"{number} copied to {target.name}. Show them with `photometry-tasks status {shlex.quote(target.name)}`.")
