"""The command line: the only place that prints, exits, and knows the libraries for it."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from sqlalchemy.exc import DBAPIError

from photometry_tasks.cli import list_commands
from photometry_tasks.cli.display import Bar, build_history, build_view
from photometry_tasks.cli.params import (
    RUN_OPTIONS,
    SECONDS,
    constraint_options,
    import_object,
    needs,
    read_constraints,
    run_options,
    todo_argument,
)
from photometry_tasks.errors import TodoError
from photometry_tasks.ingest import add_target_lists
from photometry_tasks.progress.overview import get_overview, read_history
from photometry_tasks.runner import RunReport, run_tasks
from photometry_tasks.runner.pool import PhotometryFunction
from photometry_tasks.storage.backends import find_path, name_list
from photometry_tasks.storage.sqlite.paths import write_output
from photometry_tasks.taskmanager import TaskManager

__all__ = ["main"]

#: Exit code of a program that Ctrl-C stopped: 128 + SIGINT.
_INTERRUPTED = 130

#: Saved results between two counts of what is still pending: neighbours are skipped meanwhile.
_RECOUNT = 500

#: Seconds between two looks of `status --watch`.
_WATCH = 2.0


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


# --- init ------------------------------------------------------------------------------------------------


@main.command()
@todo_argument
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
def init(todo: Path | str, lists: tuple[Path, ...], sector: int | None, cadence: int | None, datasource: Any) -> None:
    """Make the TODO-list TODO, a file or a PostgreSQL URL, from target lists, or add to it what is new.

    A list is a CSV file: one of the TESS target lists of MIT, or one with columns named as in `todolist`.

    Example: photometry-tasks init todo.sqlite all_targets_S001_v1.csv --datasource both
    """
    with Bar("targets") as bar:

        def show_progress(done: int, total: int | None) -> None:
            bar.show("Reading" if total is None else "Writing", done, total)

        added, known = add_target_lists(
            todo, lists, sector=sector, cadence=cadence, datasource=datasource, progress=show_progress
        )
    click.echo(f"{added} tasks added to {name_list(todo)}; {known} were listed already.")


# --- run -------------------------------------------------------------------------------------------------


@main.command()
@todo_argument
@run_options
@click.option("--in-memory", is_flag=True, help="Work on a copy in memory.")
@click.option("--summary", type=click.Path(path_type=Path), help="Write the progress to this JSON file.")
@click.option(
    "--executor", metavar="MODULE:FACTORY", help="Workers of another kind, as mpi4py.futures:MPIPoolExecutor."
)
@constraint_options
def run(
    todo: Path | str,
    function: str,
    in_memory: bool,
    summary: Path | None,
    executor: str | None,
    **options: Any,
) -> None:
    """Run FUNCTION on the pending tasks of TODO, a file or a PostgreSQL URL, and save the results.

    FUNCTION takes a task (a dict) and returns the fields of its result (a dict). What was cut short or went wrong
    before is run again.

    Example: photometry-tasks run todo.sqlite photometry_tasks.demo:photometry --jobs 2 --camera 1
    """
    how = {name: options.pop(name) for name in RUN_OPTIONS}
    constraints = read_constraints(options)
    chosen = import_object(function, "MODULE:FUNCTION")
    if executor is not None:
        if how["jobs"] is None or how["task_timeout"] is not None:
            raise click.UsageError(
                "--executor needs --jobs, and ends tasks by its own means: leave --task-timeout out."
            )
        how["executor"] = import_object(executor, "--executor")
    with TaskManager(todo, summary=summary, load_into_memory=in_memory) as manager:
        _run(manager, chosen, constraints, **how)


@main.command()
@todo_argument
@run_options
@click.option(
    "--lease",
    type=SECONDS,
    metavar="S",
    default=600,
    show_default=True,
    help="Let others take its tasks after so many seconds without a sign of life.",
)
@constraint_options
def work(todo: Path | str, function: str, lease: float, **options: Any) -> None:
    """Run FUNCTION on tasks of TODO, a PostgreSQL URL, as one of many workers that need no coordinator.

    Like `run`, but it returns nothing to pending at the start. Both end when no task is left: not before those that
    others are at are done, since they come back if those fall silent.

    Example: photometry-tasks work postgresql+psycopg://me@host/sector1 photometry_tasks.demo:photometry --jobs 2
    """
    how = {name: options.pop(name) for name in RUN_OPTIONS}
    constraints = read_constraints(options)
    chosen = import_object(function, "MODULE:FUNCTION")
    if find_path(todo) is not None:
        raise click.UsageError("Only a list on a server has several workers. For a file: photometry-tasks run.")
    with TaskManager(todo, reset=False, lease=lease) as manager:
        _run(manager, chosen, constraints, **how)


def _run(
    manager: TaskManager,
    function: PhotometryFunction,
    constraints: dict[str, Any],
    limit: int | None = None,
    **how: Any,
) -> None:
    def count_total(saved: int) -> int:
        total: int = saved + manager.summary["STARTED"] + manager.get_number_tasks(**constraints)
        return total if limit is None else min(total, limit)

    report, total, counted = RunReport(), count_total(0), 0
    with Bar("tasks") as bar:

        def show_progress(now: RunReport) -> None:
            nonlocal report, total, counted
            report = now
            if now.saved - counted >= _RECOUNT:
                total, counted = count_total(now.saved), now.saved
            bar.show("Measuring", now.saved, total, now.errors)

        bar.show("Measuring", 0, total)
        try:
            report = run_tasks(manager, function, limit=limit, progress=show_progress, **how, **constraints)
        except (KeyboardInterrupt, SystemExit):
            click.echo(f"Stopped. {report.saved} results are saved, the other tasks are pending.", err=True)
            raise
    rate = report.saved / report.wall_time if report.wall_time else 0.0
    share = report.manager_time / report.wall_time if report.wall_time else 0.0
    end = f"{report.late} came too late, others have the tasks; " if report.late else ""
    end += "its time was over: " if report.is_out_of_time else ""
    click.echo(
        f"{report.saved} results ({report.errors} errors) in {report.wall_time:.1f} s, {rate:.3g} a second; "
        f"handing out and saving took {share:.1%} of the time; {end}{manager.get_number_tasks()} tasks are pending."
    )


# --- status, report ---------------------------------------------------------------------------------------


@main.command()
@todo_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
@click.option("--task", type=int, metavar="PRIORITY", help="Show the attempts at this task, of a list on a server.")
def status(todo: Path | str, as_json: bool, watch: bool, task: int | None) -> None:
    """Show how TODO, a file or a PostgreSQL URL, stands: counts, rate, errors, and who works on it. It may be in use.

    Example: photometry-tasks status todo.sqlite --json
    """
    if watch and (as_json or task is not None):
        raise click.UsageError("--watch stands alone.")
    console = Console()
    if task is not None:
        attempts = read_history(todo, task)
        if as_json:
            click.echo(json.dumps(attempts, indent=2, default=str))
        else:
            console.print(build_history(task, attempts))
        return
    if as_json:
        click.echo(json.dumps(get_overview(todo), indent=2))
        return
    if not watch:
        console.print(build_view(get_overview(todo)))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(build_view(get_overview(todo)), refresh=True)
            time.sleep(_WATCH)


@main.command()
@todo_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write it.")
def report(todo: Path | str, output: Path) -> None:
    """Make a page with pictures of how TODO, a file or a PostgreSQL URL, stands: one HTML file that needs no other.

    Example: photometry-tasks report todo.sqlite -o report.html
    """
    path = find_path(todo)
    with needs("report", "Matplotlib"):
        from photometry_tasks.report import build_report

        page = build_report(todo)
    write_output(output, path, lambda temporary: _write_text(temporary, page))
    click.echo(f"{output}: {len(page.encode()) / 1e6:.1f} MB")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


# --- whole lists -----------------------------------------------------------------------------------------

for _command in (
    list_commands.reset,
    list_commands.export,
    list_commands.copy_all,
    list_commands.upgrade,
    list_commands.check,
):
    main.add_command(_command)


# --- demo ------------------------------------------------------------------------------------------------


@main.command()
def demo() -> None:
    """Measure a small invented sector over two processes, and show where the results are.

    Example: photometry-tasks demo
    """
    with needs("demo", "NumPy"):
        from photometry_tasks.demo import make_todo_file, photometry
    path = Path(tempfile.mkdtemp(prefix="photometry-tasks-demo-")) / "todo.sqlite"
    make_todo_file(path)
    click.echo("The stars of this sector are invented, and so is their light.")
    with TaskManager(path) as manager:
        _run(manager, photometry, {}, jobs=2)
    Console().print(build_view(get_overview(path)))
    click.echo(f"The results are in {path}")
