"""`run`, `work` and `demo`: run a photometry function on the pending tasks."""

import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from photometry_tasks.cli.command import Command
from photometry_tasks.cli.messages import describe_used_up, echo, logging_to_terminal, suggest_run
from photometry_tasks.cli.params import (
    RUN_OPTIONS,
    SECONDS,
    constraint_options,
    force_option,
    import_executor,
    needs,
    read_constraints,
    read_opening,
    run_options,
    todo_argument,
)
from photometry_tasks.errors import TodoFileInUseError
from photometry_tasks.runner.functions import import_function
from photometry_tasks.runner.task import PhotometryFunction
from photometry_tasks.status import NOT_GIVEN, RETRIES
from photometry_tasks.storage.location import Location
from photometry_tasks.taskmanager import TaskManager
from photometry_tasks.text import count_of, describe_running, format_hours, format_seconds

if TYPE_CHECKING:
    from photometry_tasks.runner import RunReport

#: Exit code with `--fail` if a task became an ERROR.
_FAILED = 4

#: The most kinds of errors that are shown after a run.
_KINDS = 3

#: Seconds without a result after which the bar says so.
_SILENCE = 30.0

#: Seconds between two estimates of the time left; or so many times the duration of an estimate, if that is longer.
_ESTIMATE, _ESTIMATE_SHARE = 10.0, 100.0

#: Saved results between two counts of the pending tasks: results also skip neighbours.
_RECOUNT = 500


@click.command(cls=Command)
@todo_argument
@run_options
@click.option("--in-memory", is_flag=True, help="Work on a copy of the file in memory.")
@click.option("--summary", type=click.Path(path_type=Path), help="Write the progress to this JSON file.")
@force_option
@click.option("--executor", metavar="MODULE:FACTORY", help="Other workers, for example mpi4py.futures:MPIPoolExecutor.")
@constraint_options
def run(
    todo: Location,
    function: str,
    in_memory: bool,
    summary: Path | None,
    force: bool,
    executor: str | None,
    fail: bool,
    **options: Any,
) -> None:
    """Run FUNCTION on the pending tasks, and save the results.

    TODO is a file or a PostgreSQL URL. FUNCTION is package.module:function or path/to/file.py:function. It takes a task
    (a dict) and returns the fields of its result (a dict).
    Tasks that were interrupted or failed before are run again, failed tasks after all others.

    Example: photometry-tasks run todo.sqlite photometry_tasks.demo:photometry --jobs 2 --camera 1
    """
    how, verbose = {name: options.pop(name) for name in RUN_OPTIONS}, options.pop("verbose")
    opening = read_opening(options)
    constraints = read_constraints(options)
    chosen = import_function(function)  # before the list is opened
    if _has_nothing(todo, constraints):
        return
    if executor is not None:
        how["executor"] = import_executor(executor)
        if how["jobs"] is None:
            raise click.UsageError("--executor needs --jobs; give the number of its workers.")
        if how["task_timeout"] is not None:
            raise click.UsageError("--task-timeout works without --executor only; leave --task-timeout out.")
        from photometry_tasks.runner.executors import check_ranks

        check_ranks(executor)
    with (
        logging_to_terminal(how, verbose=verbose),
        TaskManager(todo, summary=summary, load_into_memory=in_memory, force=force, **opening) as manager,
    ):
        report = _run(manager, chosen, constraints, todo=todo, retries=opening["retries"], fail=fail, **how)
    _explain_nothing(todo, constraints, report)


@click.command(cls=Command)
@todo_argument
@run_options
@click.option(
    "--lease",
    type=SECONDS,
    metavar="S",
    default=600,
    show_default=True,
    help="Seconds without a heartbeat after which other managers may claim the tasks of this one.",
)
@constraint_options
def work(todo: Location, function: str, lease: float, fail: bool, **options: Any) -> None:
    """Run FUNCTION on the pending tasks, beside other managers.

    TODO is a PostgreSQL URL. Any number of managers can work on one list, without a coordinator.
    FUNCTION is package.module:function or path/to/file.py:function.

    `work` and `run` end when no matching task is pending or running: a task that another manager runs comes back if
    that manager's lease expires.

    Example: photometry-tasks work postgresql+psycopg://me@host/sector1 photometry_tasks.demo:photometry --jobs 2
    """
    how, verbose = {name: options.pop(name) for name in RUN_OPTIONS}, options.pop("verbose")
    opening = read_opening(options)
    constraints = read_constraints(options)
    chosen = import_function(function)  # before the list is opened
    if todo.path is not None:
        raise click.UsageError(
            "`work` needs a PostgreSQL URL, because a file has only one manager. Use `photometry-tasks run` for a file."
        )
    if _has_nothing(todo, constraints):
        return
    with logging_to_terminal(how, verbose=verbose), TaskManager(todo, lease=lease, **opening) as manager:
        report = _run(manager, chosen, constraints, todo=todo, retries=opening["retries"], fail=fail, **how)
    _explain_nothing(todo, constraints, report)


def _run(
    manager: TaskManager,
    function: PhotometryFunction,
    constraints: dict[str, Any],
    limit: int | None = None,
    todo: Location | None = None,
    retries: int = RETRIES,
    fail: bool = False,
    **how: Any,
) -> "RunReport":
    from photometry_tasks.cli.display import Bar
    from photometry_tasks.runner import RunReport, run_tasks
    from photometry_tasks.sql.history import count_used_up

    def count_total(saved: int) -> int:
        total: int = saved + manager.summary["STARTED"] + manager.get_number_tasks(**constraints)
        return total if limit is None else min(total, limit)

    report, total, counted = RunReport(), count_total(0), 0
    time_left = _TimeLeft(manager, constraints, how["jobs"])
    # Lines that the workers write into a bar would be overwritten.
    is_logged = how.get("log_level") in ("DEBUG", "INFO") and how.get("log_dir") is None
    with Bar("tasks", is_drawn=not is_logged) as bar:

        def show_progress(now: RunReport) -> None:
            nonlocal report, total, counted
            report = now
            if now.saved - counted >= _RECOUNT:
                total, counted = count_total(now.saved), now.saved
            left = time_left.describe(total - now.saved, [each._asdict() for each in now.running])
            bar.show("Measuring", now.saved, total, now.errors, left=left, note=_describe_running(now))

        bar.show("Measuring", 0, total, left=time_left.describe(total))
        try:
            report = run_tasks(manager, function, limit=limit, progress=show_progress, **how, **constraints)
        except (KeyboardInterrupt, SystemExit):
            saved = count_of(report.saved, "result")
            echo(f"Stopped: {saved} saved, unfinished tasks pending. Continue with the same command.", err=True)
            raise
    rate = report.saved / report.wall_time if report.wall_time else 0.0
    share = report.manager_time / report.wall_time if report.wall_time else 0.0
    pending = manager.get_number_tasks()
    sentences = [
        f"{count_of(report.saved, 'result')} ({count_of(report.errors, 'error')}) in {report.wall_time:.1f} s, "
        f"{rate:.3g} per second; claims and saves took {share:.1%} of the time."
    ]
    if report.late:
        sentences.append(f"{count_of(report.late, 'late result')} refused, because other managers have the tasks.")
    if report.is_out_of_time:
        sentences.append("The time limit was reached.")
    sentences.append(f"{count_of(pending, 'task')} pending.")
    if todo is not None and (pending or not report.errors):
        sentences.append(_suggest_next(todo, pending))
    echo(" ".join(sentences))
    if todo is not None and report.kinds:
        echo(f"{_describe_kinds(report)} Show them with `photometry-tasks errors {shlex.quote(todo.name)}`.")
    if todo is not None:
        with manager.session.begin():
            used_up = count_used_up(manager.session.connection(), retries)
        if used_up:
            echo(describe_used_up(todo.name, used_up, retries))
        if left := manager.summary["ERROR"] + manager.summary["ABORT"] - used_up:
            echo(f"The same command will run {count_of(left, 'failed task')} again.")
    if fail and report.errors:
        raise click.exceptions.Exit(_FAILED)
    return report


class _TimeLeft:
    """The interval of the time left of a run, estimated from time to time."""

    def __init__(self, manager: TaskManager, constraints: dict[str, Any], jobs: int | None) -> None:
        self._manager, self._constraints, self._jobs = manager, constraints, jobs
        self._next = 0.0
        self._text = "unknown"

    def describe(self, tasks: int, running: Sequence[Mapping[str, Any]] = ()) -> str:
        """Return the time that so many tasks take: of those that are left, a run may have a limit.

        Parameters
        ----------
        tasks : int
        running : sequence of mapping, optional
            Running tasks, with seconds and expected.
        """
        from photometry_tasks.progress.status_fields import find_overdue
        from photometry_tasks.rules.estimate import NO_RECORD, build_estimate, find_pace, take_first
        from photometry_tasks.runner.executors import check_jobs

        begun = time.monotonic()
        if begun < self._next:
            return self._text
        with suppress(TodoFileInUseError):  # another program has locked the file; the run waits
            workload = self._manager.read_workload(**self._constraints)
            started = round(sum(workload.running.values()))
            pace = find_pace(workload, NO_RECORD, started=started, at_work=None, is_in_use=True)
            at_once = max(check_jobs(self._jobs, None), pace or 0)  # on a server, other managers run tasks too
            found = build_estimate(take_first(workload, tasks), at_once, find_overdue(running))
            if found["hours_low"] is not None:
                low, high = (format_hours(found[f"hours_{name}"]) for name in ("low", "high"))
                self._text = low if low == high else f"{low} to {high}"
        now = time.monotonic()
        self._next = now + max(_ESTIMATE, _ESTIMATE_SHARE * (now - begun))
        return self._text


def _describe_running(report: "RunReport") -> str:
    """Return a sentence about a run without results, or about a task that runs much longer than similar tasks."""
    from photometry_tasks.rules.estimate import is_overdue

    if not report.running:
        return ""
    longest = report.running[0]
    place = f"process {longest.pid}" if longest.pid else None
    task = describe_running(longest.starid, longest.seconds, place, longest.expected)
    if report.silence >= _SILENCE:
        counts = f"{len(report.running)} running, {report.queued} queued"
        return f"No result for {format_seconds(report.silence)}; {counts}; longest: {task}."
    if is_overdue(longest.seconds, longest.expected):
        return f"Slow: {task}."
    return ""


def _has_nothing(todo: Location, constraints: dict[str, Any]) -> bool:
    """Whether no task matches constraints, and say so: opening the list would return failed tasks to pending."""
    if not constraints:
        return False
    from photometry_tasks.reading.matches import describe_matches, has_match

    if has_match(todo, constraints):
        return False
    echo(describe_matches(todo, constraints), err=True)
    return True


def _explain_nothing(todo: Location, constraints: dict[str, Any], report: "RunReport") -> None:
    """Print why a run with constraints had no task to run."""
    if constraints and not (report.saved or report.late or report.is_out_of_time):
        from photometry_tasks.reading.matches import describe_matches

        echo(describe_matches(todo, constraints), err=True)


def _describe_kinds(report: "RunReport") -> str:
    shown = [f"{number:,} {kind or NOT_GIVEN}" for kind, number in report.kinds.most_common(_KINDS)]
    rest = report.kinds.total() - sum(number for _, number in report.kinds.most_common(_KINDS))
    return f"Errors: {', '.join(shown + [count_of(rest, 'other')] * bool(rest))}."


def _suggest_next(todo: Location, pending: int) -> str:
    """Return the sentence that names the next command after a run."""
    if pending:
        return suggest_run(todo)
    return f"Export the results with `photometry-tasks export {shlex.quote(todo.name)} results.csv`."


@click.command(cls=Command)
def demo() -> None:
    """Measure a small invented sector with two processes.

    Example: photometry-tasks demo
    """
    from photometry_tasks.cli.display import build_console, build_view, print_view
    from photometry_tasks.maintenance.status import get_status

    with needs("demo", "NumPy"):
        from photometry_tasks.demo import make_todo_file, photometry
    path = Path(tempfile.mkdtemp(prefix="photometry-tasks-demo-")) / "todo.sqlite"
    make_todo_file(path)
    echo("The stars of this sector and their light are invented.")
    with TaskManager(path) as manager:
        _run(manager, photometry, {}, jobs=2)
    console = build_console()
    print_view(build_view(get_status(path), console), console)
    command = f"photometry-tasks export {shlex.quote(str(path))} results.csv"
    echo(f"The results are in {path}. Export them with `{command}`.")
