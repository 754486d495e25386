"""What the commands take: options that several share, and what is made of them."""

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from photometry_tasks.constraints import check_constraints
from photometry_tasks.status import STATUS

__all__ = ["SECONDS", "Statuses", "constraint_options", "import_object", "read_constraints", "todo_argument"]


class _Seconds(click.FloatRange):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail("seconds are expected; leave it out for no limit", param, ctx)
        return seconds


SECONDS = _Seconds(min=0)

todo_argument = click.argument("todo", type=click.Path(path_type=Path))


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
