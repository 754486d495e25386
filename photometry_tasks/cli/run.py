"""`run`, `work` and `demo`: run a photometry function on the pending tasks."""

import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from photometry_tasks.cli.display import Bar, build_view
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
from photometry_tasks.maintenance.status import get_overview
from photometry_tasks.runner import RunReport, run_tasks
from photometry_tasks.runner.task import PhotometryFunction
from photometry_tasks.storage.location import Location
from photometry_tasks.taskmanager import TaskManager

#: Saved results between two counts of the pending tasks: results skip neighbours meanwhile.
_RECOUNT = 500


@click.command()
@todo_argument
@run_options
@click.option("--in-memory", is_flag=True, help="Work on a copy in memory.")
@click.option("--summary", type=click.Path(path_type=Path), help="Write the progress to this JSON file.")
@click.option(
    "--executor", metavar="MODULE:FACTORY", help="Workers of another kind, as mpi4py.futures:MPIPoolExecutor."
)
@constraint_options
def run(
    todo: Location,
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


@click.command()
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
def work(todo: Location, function: str, lease: float, **options: Any) -> None:
    """Run FUNCTION on tasks of TODO, a PostgreSQL URL, as one of many workers that need no coordinator.

    Like `run`, but it returns nothing to pending at the start. Both end when no task is left: not before those that
    others are at are done, since they come back if those fall silent.

    Example: photometry-tasks work postgresql+psycopg://me@host/sector1 photometry_tasks.demo:photometry --jobs 2
    """
    how = {name: options.pop(name) for name in RUN_OPTIONS}
    constraints = read_constraints(options)
    chosen = import_object(function, "MODULE:FUNCTION")
    if todo.path is not None:
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


@click.command()
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
