"""The group of the commands, and the errors that they print without a traceback.

Help, completion and usage errors load no library but click: a command imports what it needs when it runs.
"""

import codecs
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from photometry_tasks.cli.copy import copy_command
from photometry_tasks.cli.estimate import estimate, plan
from photometry_tasks.cli.export import export
from photometry_tasks.cli.init import init
from photometry_tasks.cli.messages import echo
from photometry_tasks.cli.reset import reset, reset_uncovered, undo
from photometry_tasks.cli.run import demo, run, work
from photometry_tasks.cli.serve import report, serve
from photometry_tasks.cli.show import errors, show
from photometry_tasks.cli.status import status
from photometry_tasks.cli.trial import try_command
from photometry_tasks.cli.upgrade import check, upgrade
from photometry_tasks.errors import InvalidArgumentError, TodoError, TooManyErrorsError
from photometry_tasks.text import clean

#: Exit code after Ctrl-C: 128 + SIGINT.
_INTERRUPTED = 130

#: The signals that a command acts on, with Python's actions. Programs in the background of a script ignore SIGINT, and
#: with an ignored SIGCHLD no process learns that its child has died.
_ACTIONS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGUSR1: signal.SIG_DFL,
    signal.SIGCHLD: signal.SIG_DFL,
}


#: Characters of our messages, for terminals whose encoding lacks them.
_PLAIN = {"–": "-", "…": "~"}


def _replace_by_plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace a character that an encoding lacks by a similar one, or by its escape."""
    if isinstance(error, UnicodeEncodeError) and (plain := _PLAIN.get(error.object[error.start])):
        return plain, error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error("plain", _replace_by_plain)


class _CleanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Print a warning without the line of code that gave it."""
    echo(f"{category.__name__}: {message}", err=True)


@contextmanager
def _stating_interrupts() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, click.Abort) as error:
        # click turns Ctrl-C at a question into an Abort, as a "no".
        if not any(isinstance(each, KeyboardInterrupt) for each in (error, error.__context__)):
            raise
        echo("\n" * isinstance(error, click.Abort) + "Interrupted.", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None


class _Braked(click.ClickException):
    """Too many tasks in a row failed in the same way."""

    exit_code = 3


class _Commands(click.Group):
    """Prints errors that a user can correct without a traceback."""

    def main(self, *given: Any, **named: Any) -> Any:
        """Run a command, whatever signals its parent ignored; text that the encoding lacks is printed as escapes."""
        for number, action in _ACTIONS.items():
            if signal.getsignal(number) is signal.SIG_IGN:
                with suppress(ValueError):  # a program that runs the command in a thread
                    signal.signal(number, action)
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:  # it was closed; another file would take its place
                setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - as long as the process
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="plain")
        if logging.lastResort is not None:  # prints the warnings of the library, unless the pipeline has a handler
            logging.lastResort.setFormatter(_CleanFormatter())
        warnings.showwarning = _show_warning
        return super().main(*given, **named)

    def make_context(self, *given: Any, **named: Any) -> click.Context:
        """Parse the options; click would print "Aborted!" after Ctrl-C."""
        with _stating_interrupts():
            return super().make_context(*given, **named)

    def _name_option(self, ctx: click.Context, text: str) -> str:
        """Return a message about an argument of Python, which begins with its name, with the option in its place."""
        name, _, rest = text.partition("=")
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        for param in [] if command is None else command.params:
            if isinstance(param, click.Option) and param.name == name:
                option = max(param.opts, key=len)
                return option + rest.removeprefix("True") if param.is_flag else f"{option}={rest}"
        return text

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _stating_interrupts():
                return super().invoke(ctx)
        except (BrokenPipeError, click.exceptions.Exit, click.Abort):
            raise  # click ends quietly; the reader of the output, such as `head`, may have enough
        except click.ClickException as error:
            error.message = clean(error.message)  # type: ignore[misc]  # final, but only its text reaches the terminal
            raise
        except (TodoError, OSError) as error:
            failure = _Braked if isinstance(error, TooManyErrorsError) else click.ClickException
            text = self._name_option(ctx, str(error)) if isinstance(error, InvalidArgumentError) else str(error)
            raise failure(clean(text)) from error
        except Exception as error:
            from sqlalchemy.exc import DBAPIError

            if not isinstance(error, DBAPIError):
                raise
            raise click.ClickException(clean(error.orig)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="photometry_tasks")
def main() -> None:
    """Keep the TODO-list of a photometry pipeline: the stars to measure, and the results."""


for _command in (
    init,
    run,
    work,
    try_command,
    status,
    estimate,
    plan,
    errors,
    show,
    serve,
    report,
    reset,
    undo,
    reset_uncovered,
    export,
    copy_command,
    upgrade,
    check,
    demo,
):
    main.add_command(_command)
