"""The group of the commands, and the errors that they print without a traceback."""

from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from photometry_tasks.cli.copy import copy_command
from photometry_tasks.cli.export import export
from photometry_tasks.cli.init import init
from photometry_tasks.cli.reset import reset
from photometry_tasks.cli.run import demo, run, work
from photometry_tasks.cli.status import report, status
from photometry_tasks.cli.upgrade import check, upgrade
from photometry_tasks.errors import TodoError

#: Exit code after Ctrl-C: 128 + SIGINT.
_INTERRUPTED = 130


class _Commands(click.Group):
    """Prints errors that a user can correct without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(_INTERRUPTED) from None
        except DBAPIError as error:
            raise click.ClickException(str(error.orig)) from error
        except (TodoError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands)
@click.version_option(package_name="photometry_tasks")
def main() -> None:
    """Keep the TODO-list of a photometry pipeline: the stars to measure, and the results."""


for _command in (init, run, work, status, report, reset, export, copy_command, upgrade, check, demo):
    main.add_command(_command)
