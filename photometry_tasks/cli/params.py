"""The parameters of the commands: types, shared options, and their conversion."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from photometry_tasks.rules.constraints import check_constraints
from photometry_tasks.runner.functions import import_object
from photometry_tasks.runner.task import describe_error
from photometry_tasks.status import RETRIES, STATUS
from photometry_tasks.storage.location import parse_location

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic since click 8.4


force_option = click.option("--force", is_flag=True, help="Replace an output file whatever it holds.")


class _Seconds(click.FloatRange):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number of seconds; leave the option out for no limit", param, ctx)
        return seconds


SECONDS = _Seconds(min=0)


class _SecondsOrAuto(_Seconds):
    name = "seconds|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return "auto" if str(value).lower() == "auto" else super().convert(value, param, ctx)


class _Todo(ParamType):
    name = "file or URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        return parse_location(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _complete_file(ctx, param, incomplete)


def _complete_file(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


#: A TODO-file, or the URL of a list on a server.
TODO = _Todo()

todo_argument = click.argument("todo", type=TODO)
function_argument = click.argument("function", metavar="MODULE:FUNCTION", shell_complete=_complete_file)


class _IntegerOrFFI(ParamType):
    name = "integer|ffi"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return "ffi" if str(value).lower() == "ffi" else click.INT.convert(value, param, ctx)


class _Status(ParamType):
    """The name of a status, in any case."""

    name = "status"

    def __init__(self, *, with_pending: bool) -> None:
        self._names = [status.name for status in STATUS] + ["PENDING"] * with_pending

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value.upper() not in self._names:
            self.fail(f"{value!r} is not one of {', '.join(self._names)}", param, ctx)
        return value.upper()

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        return [CompletionItem(name) for name in self._names if name.startswith(incomplete.upper())]


class _List(ParamType):
    """Values of another type, separated by commas."""

    def __init__(self, item: ParamType) -> None:
        self._item = item
        self.name = item.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return [self._item.convert(text.strip(), param, ctx) for text in value.split(",")]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self._item.get_metavar(param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        found = self._item.shell_complete(ctx, param, last)
        return [CompletionItem(f"{before}{comma}{item.value}") for item in found]


def list_option(name: str, item: ParamType, text: str) -> Any:
    """Add an option that takes several values, with commas between them or one each time that it is given."""
    return click.option(
        name,
        type=_List(item),
        multiple=True,
        callback=lambda _ctx, _param, lists: tuple(chain.from_iterable(lists)),
        help=f"{text}; several with commas, or repeat it.",
    )


def constraint_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each argument of `build_constraints`."""
    options = [
        *(
            list_option(f"--{name}", click.INT, f"Only tasks with this {name}")
            for name in ("priority", "starid", "sector", "camera", "ccd", "cbv-area")
        ),
        list_option("--cadence", _IntegerOrFFI(), "Only tasks with this cadence in seconds, or 'ffi'"),
        click.option(
            "--datasource",
            type=click.Choice(["ffi", "tpf"], case_sensitive=False),
            help="'ffi': only full-frame images. 'tpf': all other tasks.",
        ),
        click.option("--tmag-min", type=float, help="Lowest TESS magnitude, inclusive."),
        click.option("--tmag-max", type=float, help="Highest TESS magnitude, inclusive."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def choice_options(*, with_pending: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option for each argument that chooses tasks: those of `Choice`.

    Parameters
    ----------
    with_pending : bool
        Whether pending tasks can be chosen.
    """
    options = [
        list_option("--status", _Status(with_pending=with_pending), "Only tasks with this status"),
        click.option("--error-like", metavar="TEXT", help="Only tasks with this text in their errors."),
        click.option(
            "--kind",
            multiple=True,
            metavar="KIND",
            help="Only tasks that failed in this way, for example 'out of memory' or ValueError; may be repeated.",
        ),
        click.option(
            "--made-by",
            multiple=True,
            metavar="VERSION",
            help="Only results of this version of the pipeline; may be repeated.",
        ),
        click.option(
            "--not-made-by",
            multiple=True,
            metavar="VERSION",
            help="Only results of other versions of the pipeline; may be repeated.",
        ),
        click.option(
            "--attempts-min", type=click.IntRange(min=1), help="Only tasks with at least this number of attempts."
        ),
    ]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        command = constraint_options(command)
        for option in reversed(options):
            command = option(command)
        return command

    return add


def read_choice(options: dict[str, Any], *, with_pending: bool) -> dict[str, Any]:
    """Return the given options as arguments of `Choice`, checked before the list is opened."""
    from photometry_tasks.sql.choices import CHOICES, build_choice

    own = {name: options.pop(name) for name in CHOICES}
    choice = {name: value for name, value in own.items() if value not in (None, ())} | read_constraints(options)
    build_choice(choice, with_pending=with_pending)
    return choice


def read_constraints(options: dict[str, Any]) -> dict[str, Any]:
    """Return the given options as arguments of `build_constraints`."""
    constraints = {name: value for name, value in options.items() if value not in (None, ())}
    if "ffi" in constraints.get("cadence", ()):
        if set(constraints["cadence"]) != {"ffi"}:
            raise click.BadParameter(
                "'ffi' cannot be combined with another cadence; give only one of them", param_hint="--cadence"
            )
        constraints["cadence"] = "ffi"
    check_constraints(constraints)  # before the list is opened
    return constraints


#: Executors that a user may name by a word.
_EXECUTORS = (
    *("mpi4py.futures:MPIPoolExecutor", "concurrent.futures:ThreadPoolExecutor"),
    "concurrent.futures:ProcessPoolExecutor",
)


def import_executor(name: str) -> Callable[[int], Any]:
    """Return a function that makes an executor, and turns any error of the user's factory into a message."""
    if ":" not in name:
        near = [known for known in _EXECUTORS if name.lower().rstrip("s") in known.lower()] or _EXECUTORS
        raise click.BadParameter(
            f"{name!r} is no executor; give it as package.module:factory, for example {near[0]}",
            param_hint="--executor",
        )
    factory = import_object(name, "--executor")

    def make(jobs: int) -> Any:
        try:
            return factory(jobs)
        except Exception as error:
            hint = f"{name!r} made no executor: {describe_error(error)}; correct it, or leave --executor out"
            raise click.BadParameter(hint, param_hint="--executor") from error

    return make


#: Options of both `run` and `work`, named as the arguments of `run_tasks`.
RUN_OPTIONS = (
    *("jobs", "limit", "task_timeout", "grace", "grace_term", "stop_after", "max_errors_in_a_row"),
    *("log_level", "log_dir"),
)


def read_opening(options: dict[str, Any]) -> dict[str, Any]:
    """Return the given options that are arguments of `TaskManager`."""
    opening = {name: options.pop(name) for name in ("retries", "version", "only_version")}
    if opening["only_version"] and opening["version"] is None:
        raise click.UsageError("--only-version needs --pipeline-version; give that too.")
    return opening


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options of both `run` and `work`."""
    options = [
        function_argument,
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            help="Number of workers.  [default: the number of available processors]",
        ),
        click.option("--limit", type=click.IntRange(min=1), help="Run at most this number of tasks."),
        click.option(
            "--task-timeout",
            type=_SecondsOrAuto(min=0),
            metavar="S",
            help="Seconds after which a task's process is killed, and the task becomes an ERROR. "
            "'auto': ten times as long as similar tasks take, and at least a minute.",
        ),
        click.option(
            "--grace",
            type=SECONDS,
            metavar="S",
            default=20,
            show_default=True,
            help="Seconds that running tasks may continue after a signal. A second signal ends them.",
        ),
        click.option(
            "--grace-term",
            type=SECONDS,
            metavar="S",
            help="Seconds that running tasks may continue after SIGTERM.  [default: --grace, but at most 20]",
        ),
        click.option(
            "--stop-after",
            type=SECONDS,
            metavar="S",
            help="Seconds after which the run ends: no task starts that would hardly finish in time.  "
            "[default: 30 s before SLURM's time limit]",
        ),
        click.option(
            "--retries",
            type=click.IntRange(min=0),
            metavar="N",
            default=RETRIES,
            show_default=True,
            help="Run a failed task again up to this number of times; after all other tasks.",
        ),
        click.option(
            "--max-errors-in-a-row",
            type=click.IntRange(min=0),
            metavar="N",
            default=100,
            show_default=True,
            help="End with exit code 3 when this number of tasks in a row fails in the same way. 0: never.",
        ),
        click.option("-v", "--verbose", is_flag=True, help="Log what the function says: the same as --log-level INFO."),
        click.option(
            "--log-level",
            type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
            metavar="LEVEL",
            help="Lowest level of logged messages: DEBUG, INFO, WARNING or ERROR.  "
            "[default: INFO with --log-dir, else WARNING]",
        ),
        click.option(
            "--log-dir",
            type=click.Path(file_okay=False),
            metavar="FOLDER",
            help="Log into a file for each worker process in this folder; without it, to stderr.",
        ),
        click.option("--fail", is_flag=True, help="End with exit code 4 if a task became an ERROR."),
        click.option(
            "--pipeline-version",
            "version",
            metavar="TEXT",
            help="The version of the pipeline, which is kept with its results.",
        ),
        click.option(
            "--only-version",
            is_flag=True,
            help="Refuse a list with results of a version other than --pipeline-version.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def needs(extra: str, library: str) -> Iterator[None]:
    """Turn a missing library into an error that names the extra to install."""
    try:
        yield
    except ImportError as error:
        message = f"This command needs {library} ({error}). Run: pip install 'photometry_tasks[{extra}]'"
        raise click.ClickException(message) from error
