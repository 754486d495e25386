"""The command line: the only place that prints, exits, and knows the libraries for it."""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from sqlalchemy.exc import DBAPIError

from photometry_tasks import schema
from photometry_tasks.backends import find_path, open_database
from photometry_tasks.checking import find_faults
from photometry_tasks.errors import TodoError
from photometry_tasks.export import export_tasks
from photometry_tasks.ingest import add_target_lists
from photometry_tasks.opening import upgrade_schema, upgrade_todo_file
from photometry_tasks.options import (
    SECONDS,
    Statuses,
    constraint_options,
    import_object,
    read_constraints,
    todo_argument,
)
from photometry_tasks.overview import get_overview
from photometry_tasks.resetting import build_choice, count_chosen
from photometry_tasks.result_log import ResultLog
from photometry_tasks.runner import RunReport, run_tasks
from photometry_tasks.showing import Bar, build_view
from photometry_tasks.taskmanager import TaskManager
from photometry_tasks.todo_file import find_todo_file, write_output
from photometry_tasks.workers import PhotometryFunction

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
def init(todo: Path, lists: tuple[Path, ...], sector: int | None, cadence: int | None, datasource: Any) -> None:
    """Make the TODO-file TODO from target lists, or add to it what is new.

    A list is a CSV file: one of the TESS target lists of MIT, or one with columns named as in `todolist`.

    Example: photometry-tasks init todo.sqlite all_targets_S001_v1.csv --datasource both
    """
    with Bar("targets") as bar:

        def show_progress(done: int, total: int | None) -> None:
            bar.show("Reading" if total is None else "Writing", done, total)

        added, known = add_target_lists(
            todo, lists, sector=sector, cadence=cadence, datasource=datasource, progress=show_progress
        )
    click.echo(f"{added} tasks added to {todo}; {known} were listed already.")


# --- run -------------------------------------------------------------------------------------------------


@main.command()
@todo_argument
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--jobs", type=click.IntRange(min=1), help="Worker processes.  [default: the processors]")
@click.option("--in-memory", is_flag=True, help="Work on a copy in memory.")
@click.option("--summary", type=click.Path(path_type=Path), help="Write the progress to this JSON file.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many tasks.")
@click.option("--task-timeout", type=SECONDS, metavar="S", help="Give a task up after so many seconds, as an ERROR.")
@click.option(
    "--grace",
    type=SECONDS,
    metavar="S",
    default=20,
    show_default=True,
    help="Seconds that running tasks may go on after Ctrl-C, SIGTERM or SIGUSR1. A second signal ends them.",
)
@click.option(
    "--stop-after",
    type=SECONDS,
    metavar="S",
    help="Begin no task that would hardly end within so many seconds from now.  [default: 30 s before SLURM's limit]",
)
@click.option(
    "--executor", metavar="MODULE:FACTORY", help="Workers of another kind, as mpi4py.futures:MPIPoolExecutor."
)
@constraint_options
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
    end = "its time was over: " if report.is_out_of_time else ""
    click.echo(
        f"{report.saved} results ({report.errors} errors) in {report.wall_time:.1f} s, {rate:.3g} a second; "
        f"handing out and saving took {share:.1%} of the time; {end}{manager.get_number_tasks()} tasks are pending."
    )


# --- status, report ---------------------------------------------------------------------------------------


@main.command()
@todo_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
def status(todo: Path, as_json: bool, watch: bool) -> None:
    """Show how the TODO-file TODO stands: counts, rate, errors, and who works on it. It may be in use.

    Example: photometry-tasks status todo.sqlite --json
    """
    path = find_todo_file(todo)
    if as_json and watch:
        raise click.UsageError("--json and --watch exclude each other.")
    if as_json:
        click.echo(json.dumps(get_overview(path), indent=2))
        return
    console = Console()
    if not watch:
        console.print(build_view(get_overview(path)))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(build_view(get_overview(path)), refresh=True)
            time.sleep(_WATCH)


@main.command()
@todo_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write it.")
def report(todo: Path, output: Path) -> None:
    """Make a page with pictures of how the TODO-file TODO stands: one HTML file, which needs nothing else.

    Example: photometry-tasks report todo.sqlite -o report.html
    """
    path = find_todo_file(todo)
    with _needs("report", "Matplotlib"):
        from photometry_tasks.report import build_report

        page = build_report(path)
    write_output(output, path, lambda temporary: _write_text(temporary, page))
    click.echo(f"{output}: {len(page.encode()) / 1e6:.1f} MB")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@contextmanager
def _needs(extra: str, library: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        message = f"This needs {library} ({error}): pip install 'photometry_tasks[{extra}]'"
        raise click.ClickException(message) from error


# --- reset, export ---------------------------------------------------------------------------------------


@main.command()
@todo_argument
@click.option("--status", type=Statuses(with_pending=False), help="Only with these, as ERROR,WARNING.")
@click.option("--error-like", metavar="TEXT", help="Only with this in their errors.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@constraint_options
def reset(todo: Path, status: Any, error_like: str | None, dry_run: bool, **options: Any) -> None:
    """Return chosen tasks of the TODO-file TODO to pending, with those that only they had skipped.

    Example: photometry-tasks reset todo.sqlite --status ERROR,WARNING --camera 1 --dry-run
    """
    constraints = read_constraints(options)
    if not constraints and status is None and error_like is None:
        raise click.UsageError("Which tasks? Give --status, --error-like or constraints, as --camera.")
    path = find_todo_file(todo)
    choice = build_choice(status, error_like, constraints)
    if not dry_run:
        upgrade_todo_file(path)  # takes in the results of a killed manager too
    elif ResultLog(path).has_results():
        click.echo("A log of results lies beside it: they are not counted here.")
    counts = count_chosen(path, choice)
    click.echo(f"{_describe(counts)} {'would go' if dry_run else 'go'} back to pending.")
    if dry_run or not counts:
        return
    if sys.stdin.isatty():
        click.confirm("Their results are deleted. Go on?", abort=True)
    # Opening returns none to pending: only those that were chosen go.
    with TaskManager(path, cleanup_constraints={"priority": []}) as manager:
        counts = manager.reset_tasks(status=status, error_like=error_like, **constraints)
    click.echo(f"{_describe(counts)} are pending again.")


def _describe(counts: dict[str, int]) -> str:
    details = ", ".join(f"{number} {name}" for name, number in counts.items())
    return f"{sum(counts.values())} tasks" + (f" ({details})" if details else "")


@main.command()
@todo_argument
@click.argument("target", metavar="FILE.csv|.parquet|.ecsv", type=click.Path(path_type=Path))
@click.option("--status", type=Statuses(with_pending=True), help="Only with these, as OK,WARNING.")
@constraint_options
def export(todo: Path, target: Path, status: Any, **options: Any) -> None:
    """Write the tasks of the TODO-file TODO with their diagnostics to a table.

    Example: photometry-tasks export todo.sqlite results.csv --status OK,WARNING --camera 1
    """
    path = find_todo_file(todo)
    with _needs(target.suffix.lower().lstrip("."), "a library"):
        number = export_tasks(path, target, status=status, **read_constraints(options))
    click.echo(f"{number} tasks written to {target}.")


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
@todo_argument
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
    with _needs("demo", "NumPy"):
        from photometry_tasks.demo import make_todo_file, photometry
    path = Path(tempfile.mkdtemp(prefix="photometry-tasks-demo-")) / "todo.sqlite"
    make_todo_file(path)
    click.echo("The stars of this sector are invented, and so is their light.")
    with TaskManager(path) as manager:
        _run(manager, photometry, {}, jobs=2)
    Console().print(build_view(get_overview(path)))
    click.echo(f"The results are in {path}")


if __name__ == "__main__":
    main()
