"""`upgrade` and `check`: the schema of a TODO-list, and its faults."""

from contextlib import closing

import click

from photometry_tasks import schema
from photometry_tasks.cli.params import todo_argument
from photometry_tasks.maintenance.check import find_faults
from photometry_tasks.storage.location import Location
from photometry_tasks.storage.open import open_read_only, upgrade_list


@click.command()
@todo_argument
@click.option("--check", is_flag=True, help="Only say what would be changed; exit code 1 if something would.")
def upgrade(todo: Location, check: bool) -> None:
    """Bring TODO, a file or a PostgreSQL URL, to the schema of this release. Opening a file does it too.

    Example: photometry-tasks upgrade todo.sqlite --check
    """
    if check:
        with closing(open_read_only(todo)) as database, database.begin(writes=False) as connection:
            changes = schema.find_changes(connection, database.name)
            schema.check_upgradable(connection, database.name)
    else:
        changes = upgrade_list(todo)
    for change in changes:
        click.echo(change)
    state = "is up to date:" if not changes else "would be upgraded to" if check else "is upgraded to"
    click.echo(f"{todo.name} {state} revision {schema.HEAD}.")
    if check and changes:
        raise click.exceptions.Exit(1)


@click.command()
@todo_argument
def check(todo: Location) -> None:
    """Look TODO, a file or a PostgreSQL URL, through for damage and contradictions; exit code 1 if there are any.

    Example: photometry-tasks check todo.sqlite
    """
    faults = list(find_faults(todo))
    for fault in faults:
        click.echo(fault)
    click.echo(f"{todo.name}: faults found: {len(faults)}.")
    if faults:
        raise click.exceptions.Exit(1)
