"""The command line: the only place that prints, exits, and knows the libraries for it."""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from photometry_tasks import schema
from photometry_tasks.backends import find_path, open_database
from photometry_tasks.checking import find_faults
from photometry_tasks.errors import TodoError
from photometry_tasks.ingest import add_target_lists
from photometry_tasks.opening import upgrade_schema, upgrade_todo_file
from photometry_tasks.result_log import ResultLog
from photometry_tasks.runner import RunReport, run_tasks
from photometry_tasks.sqlite import SQLite
from photometry_tasks.summary import count_by_ccd, count_by_status, name_counts
from photometry_tasks.taskmanager import TaskManager
from photometry_tasks.todo_file import find_todo_file
from photometry_tasks.workers import PhotometryFunction

__all__ = ["main"]

#: Exit code of a program that Ctrl-C stopped: 128 + SIGINT.
_INTERRUPTED = 130

#: Saved results between two counts of what is still pending: neighbours are skipped meanwhile.
_RECOUNT = 500


class _Commands(click.Group):
    """Show the errors that a user can mend as one line, without a traceback."""

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
    """Keep the list of the stars that a photometry pipeline has yet to measure."""


_SECONDS = click.FloatRange(min=0)
_todo_argument = click.argument("todo", type=click.Path(path_type=Path))


# --- init ------------------------------------------------------------------------------------------------


@main.command()
@_todo_argument
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
def init(todo: Path, lists: tuple[Path, ...], sector: int | None, cadence: int | None, datasource: Any) -> None:
    """Make the TODO-file TODO from target lists, or add to it what is new.

    A list is a CSV file: one of the TESS target lists of MIT, or one with columns named as in `todolist`.

    Example: photometry-tasks init todo.sqlite all_targets_S001_v1.csv --datasource both
    """
    with _progress_bar("targets") as bar:
        line = bar.add_task("Reading", total=None, errors="")

        def show_progress(done: int, total: int | None) -> None:
            bar.update(line, description="Reading" if total is None else "Writing", completed=done, total=total)

        added, known = add_target_lists(
            todo, lists, sector=sector, cadence=cadence, datasource=datasource, progress=show_progress
        )
    click.echo(f"{added} tasks added to {todo}; {known} were listed already.")


# --- run -------------------------------------------------------------------------------------------------


class _IntegerOrFFI(click.ParamType[Any]):
    name = "integer|ffi"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "ffi" else click.INT.convert(value, param, ctx)


def _constraint_options(command: Callable[..., None]) -> Callable[..., None]:
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


@main.command()
@_todo_argument
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--jobs", type=click.IntRange(min=1), help="Worker processes.  [default: the processors]")
@click.option("--in-memory", is_flag=True, help="Work on a copy in memory.")
@click.option("--summary", type=click.Path(path_type=Path), help="Write the progress to this JSON file.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many tasks.")
@click.option("--task-timeout", type=_SECONDS, metavar="S", help="Give a task up after so many seconds, as an ERROR.")
@click.option(
    "--grace",
    type=_SECONDS,
    metavar="S",
    default=20,
    show_default=True,
    help="Seconds that running tasks may go on after Ctrl-C, SIGTERM or SIGUSR1. A second signal ends them.",
)
@click.option(
    "--stop-after",
    type=_SECONDS,
    metavar="S",
    help="Begin no task that would hardly end within so many seconds from now.  [default: 30 s before SLURM's limit]",
)
@click.option(
    "--executor", metavar="MODULE:FACTORY", help="Workers of another kind, as mpi4py.futures:MPIPoolExecutor."
)
@_constraint_options
def run(
    todo: Path,
    function: str,
    in_memory: bool,
    summary: Path | None,
    executor: str | None,
    **options: Any,
) -> None:
    """Run FUNCTION on the pending tasks of the TODO-file TODO, and save the results.

    FUNCTION takes a task (a dict) and returns the fields of its result (a dict).

    Example: photometry-tasks run todo.sqlite photometry_tasks.demo:photometry --jobs 2 --camera 1
    """
    how = {name: options.pop(name) for name in ("jobs", "limit", "task_timeout", "grace", "stop_after")}
    constraints = _read_constraints(options)
    chosen = _import_object(function, "MODULE:FUNCTION")
    how["executor"] = None if executor is None else _import_object(executor, "--executor")
    with TaskManager(todo, summary=summary, load_into_memory=in_memory) as manager:
        _run(manager, chosen, constraints, **how)


def _read_constraints(options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `build_constraints` that were given as options."""
    constraints = {name: value for name, value in options.items() if value not in (None, ())}
    if "ffi" in constraints.get("cadence", ()):
        if len(constraints["cadence"]) > 1:
            raise click.BadParameter("'ffi' stands alone", param_hint="--cadence")
        constraints["cadence"] = "ffi"
    return constraints


def _run(
    manager: TaskManager,
    function: PhotometryFunction,
    constraints: dict[str, Any],
    limit: int | None = None,
    **how: Any,
) -> None:
    with _progress_bar("tasks") as bar:

        def count_total(saved: int) -> int:
            total = saved + manager.get_number_tasks(**constraints)
            return total if limit is None else min(total, limit)

        line = bar.add_task("Measuring", total=count_total(0), errors="")
        report = RunReport()

        def show_progress(now: RunReport) -> None:
            nonlocal report
            report = now
            errors = f"{now.errors} errors" if now.errors else ""
            bar.update(line, completed=now.saved, errors=errors)
            if now.saved % _RECOUNT == 0:
                bar.update(line, total=count_total(now.saved))

        try:
            report = run_tasks(manager, function, limit=limit, progress=show_progress, **how, **constraints)
            bar.update(line, total=report.saved)
        except (KeyboardInterrupt, SystemExit):
            bar.stop()
            click.echo(f"Stopped. {report.saved} results are saved, the other tasks are pending.", err=True)
            raise
    rate = report.saved / report.wall_time if report.wall_time else 0.0
    share = report.manager_time / report.wall_time if report.wall_time else 0.0
    end = "its time was over: " if report.is_out_of_time else ""
    click.echo(
        f"{report.saved} results ({report.errors} errors) in {report.wall_time:.1f} s, {rate:.3g} a second; "
        f"handing out and saving took {share:.1%} of the time; {end}{manager.get_number_tasks()} tasks are pending."
    )


def _import_object(name: str, argument: str) -> Any:
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


@contextmanager
def _progress_bar(unit: str) -> Iterator[Progress]:
    """Show done/total, rate, time left and errors, on the error stream: the output may be read by a program."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        _RateColumn("{task.speed}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[errors]}"),
        console=Console(stderr=True),
    ) as bar:
        yield bar


class _RateColumn(TextColumn):
    def render(self, task: Any) -> Any:
        speed = task.finished_speed or task.speed
        return type(super().render(task))("" if speed is None else f"{speed:.0f}/s")


# --- status ----------------------------------------------------------------------------------------------


@main.command()
@_todo_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(todo: Path, as_json: bool) -> None:
    """Count the tasks of the TODO-file TODO by status, and by camera and CCD. It may be in use.

    Example: photometry-tasks status todo.sqlite --json
    """
    _show_status(find_todo_file(todo), as_json)


def _show_status(path: Path, as_json: bool = False) -> None:
    with closing(SQLite.open_to_read(path)) as database, database.begin(writes=False) as connection:
        schema.find_changes(connection, path)  # an older file has all that is counted
        by_status = name_counts(count_by_status(connection))
        by_ccd = count_by_ccd(connection)
    log = ResultLog(path)
    if not as_json and log.has_results():
        click.echo(f"{log.path.name} lies beside it: results since the last backup, which are not counted here.")
    if as_json:
        ccds = [{"camera": camera, "ccd": ccd, **counts} for (camera, ccd), counts in by_ccd.items()]
        numbers = {"todo_file": str(path), "numtasks": sum(by_status.values()), "status": by_status, "ccds": ccds}
        click.echo(json.dumps(numbers, indent=2))
        return
    shown = [name for name, number in by_status.items() if number]
    table = Table("camera", "ccd", *shown, "all", title="Tasks", title_justify="left")
    for column in table.columns:
        column.justify = "right"
    for (camera, ccd), counts in by_ccd.items():
        table.add_row(str(camera), str(ccd), *(str(counts[name]) for name in shown), str(sum(counts.values())))
    table.add_section()
    table.add_row("all", "", *(str(by_status[name]) for name in shown), str(sum(by_status.values())))
    Console().print(table)


# --- upgrade, check --------------------------------------------------------------------------------------


@main.command()
@click.argument("todo")
@click.option("--check", is_flag=True, help="Only say what would be changed; exit code 1 if something would.")
def upgrade(todo: str, check: bool) -> None:
    """Bring TODO, a file or a PostgreSQL URL, to the schema of this release. Opening a file does it too.

    Example: photometry-tasks upgrade todo.sqlite --check
    """
    path = find_path(todo)
    if path is not None and not check:
        changes, name = upgrade_todo_file(find_todo_file(path)), str(path)
    else:
        with closing(open_database(todo, to_read=check)) as database:
            name = database.name
            if check:
                with database.begin(writes=False) as connection:
                    changes = schema.find_changes(connection, name)
                    schema.check_upgradable(connection, name)
            else:
                changes = upgrade_schema(database)
    for change in changes:
        click.echo(change)
    state = "is up to date:" if not changes else "would be upgraded to" if check else "is upgraded to"
    click.echo(f"{name} {state} revision {schema.HEAD}.")
    if check and changes:
        raise click.exceptions.Exit(1)


@main.command()
@_todo_argument
def check(todo: Path) -> None:
    """Look the TODO-file TODO through for damage and contradictions; exit code 1 if there are any.

    Example: photometry-tasks check todo.sqlite
    """
    path = find_todo_file(todo)
    faults = list(find_faults(path))
    for fault in faults:
        click.echo(fault)
    click.echo(f"{path}: faults found: {len(faults)}.")
    if faults:
        raise click.exceptions.Exit(1)


# --- demo ------------------------------------------------------------------------------------------------


@main.command()
def demo() -> None:
    """Measure a small invented sector over two processes, and show where the results are.

    Example: photometry-tasks demo
    """
    try:
        from photometry_tasks.demo import make_todo_file, photometry
    except ImportError as error:
        message = f"The demo needs NumPy ({error}): pip install 'photometry_tasks[demo]'"
        raise click.ClickException(message) from error
    path = Path(tempfile.mkdtemp(prefix="photometry-tasks-demo-")) / "todo.sqlite"
    make_todo_file(path)
    click.echo("The stars of this sector are invented, and so is their light.")
    with TaskManager(path) as manager:
        _run(manager, photometry, {}, jobs=2)
    _show_status(path)
    click.echo(f"The results are in {path}")


if __name__ == "__main__":
    main()
