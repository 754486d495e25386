"""What the commands take: options that several share, and what is made of them."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from photometry_tasks.constraints import check_constraints
from photometry_tasks.status import STATUS
from photometry_tasks.storage.location import parse_location


class _Seconds(click.FloatRange):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail("seconds are expected; leave it out for no limit", param, ctx)
        return seconds


SECONDS = _Seconds(min=0)


class _Todo(click.ParamType[Any]):
    name = "file or URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        return parse_location(value)


#: A TODO-file, or the URL of a list on a server.
TODO = _Todo()

todo_argument = click.argument("todo", type=TODO)


class Statuses(click.ParamType[Any]):
    """Names of statuses with commas between: a list of their values; PENDING is None.

    Parameters
    ----------
    with_pending : bool
        Whether pending tasks can be asked for.
    """

    name = "status,…"

    def __init__(self, *, with_pending: bool) -> None:
        self._values: dict[str, int | None] = {status.name: status.value for status in STATUS}
        if with_pending:
            self._values["PENDING"] = None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the names."""
        if not isinstance(value, str):
            return value
        try:
            return [self._values[name.strip().upper()] for name in value.split(",")]
        except KeyError as error:
            self.fail(f"{error.args[0]!r} is not one of {', '.join(self._values)}", param, ctx)


class _IntegerOrFFI(click.ParamType[Any]):
    name = "integer|ffi"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "ffi" else click.INT.convert(value, param, ctx)


def constraint_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each argument of `build_constraints`."""
    options = [
        *(
            click.option(f"--{name}", type=int, multiple=True, help="Only these; may be given several times.")
            for name in ("priority", "starid", "sector", "camera", "ccd", "cbv-area")
        ),
        click.option("--cadence", type=_IntegerOrFFI(), multiple=True, help="Seconds; or 'ffi'."),
        click.option("--datasource", type=click.Choice(["ffi", "tpf"]), help="'tpf' is all that is not 'ffi'."),
        click.option("--tmag-min", type=float, help="TESS magnitude."),
        click.option("--tmag-max", type=float, help="TESS magnitude."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def read_constraints(options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `build_constraints` that were given as options."""
    constraints = {name: value for name, value in options.items() if value not in (None, ())}
    if "ffi" in constraints.get("cadence", ()):
        if len(constraints["cadence"]) > 1:
            raise click.BadParameter("'ffi' stands alone", param_hint="--cadence")
        constraints["cadence"] = "ffi"
    check_constraints(constraints)  # before anything is opened
    return constraints


def import_object(name: str, argument: str) -> Any:
    """Return the function that a text like `package.module:function` names."""
    module_name, _, function_name = name.partition(":")
    # As `python -m` does: what lies in the current directory can be imported.
    sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        hint = f"cannot import {name!r} ({error}); give it as package.module:function"
        raise click.BadParameter(hint, param_hint=argument) from error
    if not callable(function):
        raise click.BadParameter(f"{name!r} is not a function", param_hint=argument)
    return function


#: What `run` and `work` have in common, as `run_tasks` takes it.
RUN_OPTIONS = ("jobs", "limit", "task_timeout", "grace", "stop_after")


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the function, and the options that `run` and `work` have in common."""
    options = [
        click.argument("function", metavar="MODULE:FUNCTION"),
        click.option("--jobs", type=click.IntRange(min=1), help="Worker processes.  [default: the processors]"),
        click.option("--limit", type=click.IntRange(min=1), help="Stop after so many tasks."),
        click.option(
            "--task-timeout", type=SECONDS, metavar="S", help="Give a task up after so many seconds, as an ERROR."
        ),
        click.option(
            "--grace",
            type=SECONDS,
            metavar="S",
            default=20,
            show_default=True,
            help="Seconds that running tasks may go on after Ctrl-C, SIGTERM or SIGUSR1. A second signal ends them.",
        ),
        click.option(
            "--stop-after",
            type=SECONDS,
            metavar="S",
            help="Begin no task that would hardly end within so many seconds from now.  "
            "[default: 30 s before SLURM's limit]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def needs(extra: str, library: str) -> Iterator[None]:
    """Say which extra holds a library that is missing."""
    try:
        yield
    except ImportError as error:
        message = f"This needs {library} ({error}): pip install 'photometry_tasks[{extra}]'"
        raise click.ClickException(message) from error
