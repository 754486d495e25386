"""`upgrade` and `check`: the schema of a TODO-list, and its faults."""

import shlex
from contextlib import closing

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.params import todo_argument
from photometry_tasks.storage.location import Location
from photometry_tasks.text import count_of


@click.command(cls=Command)
@todo_argument
@click.option("--check", is_flag=True, help="Only list the changes; the exit code is 1 if there are any.")
def upgrade(todo: Location, check: bool) -> None:
    """Upgrade TODO to the schema of this release.

    TODO is a file or a PostgreSQL URL. The command also saves results that a killed manager logged. Opening a file for
    work upgrades it too.

    Example: photometry-tasks upgrade todo.sqlite --check
    """
    from photometry_tasks import schema
    from photometry_tasks.storage.open import open_read_only, upgrade_list

    if check:
        with closing(open_read_only(todo)) as database, database.begin(writes=False) as connection:
            changes = schema.find_changes(connection, database.name)
            schema.check_upgradable(connection, database.name)
            if database.find_holder() is None and database.find_result_log() is not None:
                changes.append("the results that a killed manager logged are saved")
    else:
        changes = upgrade_list(todo)
    for change in changes:
        echo(change)
    state = "is up to date:" if not changes else "would be upgraded to" if check else "is upgraded to"
    next_step = f" Upgrade it with `photometry-tasks upgrade {shlex.quote(todo.name)}`." if check and changes else ""
    echo(f"{todo.name} {state} revision {schema.HEAD}.{next_step}")
    if check and changes:
        raise click.exceptions.Exit(1)


@click.command(cls=Command)
@todo_argument
def check(todo: Location) -> None:
    """Check TODO for damage and contradictions.

    TODO is a file or a PostgreSQL URL, and is not changed. The exit code is 1 if there are faults. A note is no fault:
    it names tasks with a code in place of the magnitude, and tasks that TASOC or an older release has skipped otherwise
    than this release would.

    Example: photometry-tasks check todo.sqlite
    """
    from photometry_tasks.maintenance.check import find_faults, find_notes

    faults = list(find_faults(todo))
    for fault in faults:
        echo(fault)
    for note in find_notes(todo):
        echo(f"Note: {note}")
    echo(f"{todo.name}: {count_of(len(faults), 'fault')} found.")
    if faults:
        raise click.exceptions.Exit(1)
