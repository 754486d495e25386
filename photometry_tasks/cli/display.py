"""The output of the commands in a terminal: the progress of a run, and the status of a TODO-list."""

import os
import shlex
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, timedelta
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from photometry_tasks.cli.messages import describe_estimate, describe_used_up, echo
from photometry_tasks.status import FINISHED, NOT_GIVEN, RETRIES
from photometry_tasks.text import (
    brief,
    clean,
    count_of,
    describe_silence,
    find_message,
    format_range,
    format_seconds,
    list_first,
    name_version,
)

#: Seconds between two lines of progress without a terminal.
_LINES = 30.0

#: The columns of running tasks, the most important first.
_RUNNING = ("starid", "for", "95 % take at most", "worker", "priority", "tmag", "camera", "ccd", "datasource")

#: Columns of a terminal below which a table shows less in each row, and from which the focal plane shows totals.
_NARROW, _WIDE = 60, 100

#: The rows of each list, from a high terminal to a low one; and the most hosts that are shown of a kind of failure.
_ROWS, _MOST_HOSTS = (10, 5, 3, 2, 1), 3

#: The most tasks that cover a task, or that it covers, that are shown.
_MOST_COVERS = 10

#: Units of a rate, each in seconds.
_RATES = (("s", 1.0), ("min", 60.0), ("h", 3600.0))

#: Seconds, and least number of moments, over which a rate is measured; the longest usual pause, seconds.
_WINDOW, _MOMENTS, _PAUSE = 60.0, 10, 5.0

#: Columns of the narrowest terminal in which tables can be read.
_NARROWEST = 40

#: Columns of an output that is no terminal: a program reads each row as a line. Also the most that COLUMNS may give.
_WIDEST = 10_000


def build_console(*, stderr: bool = False) -> Console:
    """Return a console of a readable width: in batch jobs COLUMNS may be 0, and it may hold any text."""
    size = shutil.get_terminal_size()
    # Without these variables, the console follows the terminal when its size changes.
    width = min(max(size.columns, _NARROWEST), _WIDEST) if "COLUMNS" in os.environ else None
    height = size.lines if "LINES" in os.environ else None
    if width is None and not (sys.stderr if stderr else sys.stdout).isatty():
        width = _WIDEST
    return Console(stderr=stderr, width=width, height=height)


def print_view(view: RenderableType, console: Console | None = None) -> None:
    """Print a view; outside of a terminal without the blanks that fill up its lines."""
    console = console or build_console()
    if console.is_terminal:
        console.print(view)
        return
    with console.capture() as captured:
        console.print(view)
    echo("\n".join(map(str.rstrip, captured.get().splitlines())))


class _Progress(Progress):
    """A progress bar with a note below."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.note:
            yield Text(self.note, style="yellow")


class Bar:
    """A progress bar: done/total, rate, time left, errors, and a note.

    Without a terminal, a line is printed every half minute. Both go to stderr, because a program may read stdout.

    Parameters
    ----------
    unit : str
        The noun of the counted things, in the plural.
    is_drawn : bool, optional
        Whether to draw the bar in a terminal, and not to print lines.
    """

    def __init__(self, unit: str, *, is_drawn: bool = True) -> None:
        self._unit = unit
        self._shown = 0.0
        # The latest moments at which something was done, each with the number done by then.
        self._moments: deque[tuple[float, int]] = deque()
        console = build_console(stderr=True)
        left = TextColumn("time left: {task.fields[left]}")
        columns: list[ProgressColumn] = [MofNCompleteColumn(), TextColumn(unit), left]
        if console.width >= _NARROW:
            columns = [
                SpinnerColumn("line"),  # ASCII
                TextColumn("{task.description}"),
                BarColumn(),
                *columns[:2],
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                left,
            ]
        self._progress = _Progress(*columns, TextColumn("[red]{task.fields[errors]}"), console=console)
        self._line = self._progress.add_task("", total=None, errors="", rate="", left="unknown")
        self._is_drawn = is_drawn and self._progress.console.is_interactive  # a dumb terminal cannot draw

    def show(
        self,
        description: str,
        done: int,
        total: int | None,
        errors: int = 0,
        *,
        left: str | None = None,
        note: str = "",
    ) -> None:
        """Show how many of the total are done.

        Parameters
        ----------
        description : str
        done : int
        total : int or None
        errors : int, optional
        left : str, optional
            The time left; by default it follows from the rate.
        note : str, optional
            A sentence that is shown below.
        """
        now = time.monotonic()
        rate = self._measure_rate(now, done)
        if left is None:
            left = format_seconds((total - done) / rate) if rate and total is not None else "unknown"
        failed = count_of(errors, "error") if errors else ""
        if self._is_drawn:
            self._progress.note = clean(note)
            self._progress.update(
                self._line,
                description=description,
                completed=done,
                total=total,
                errors=failed,
                rate=_format_rate(rate),
                left=left,
            )
        elif now - self._shown >= _LINES:
            self._shown = now
            words = [f"{description}: {done}/{'?' if total is None else total} {self._unit}", _format_rate(rate)]
            words += [f"time left: {left}", failed]
            echo(", ".join(filter(None, words)) + f". {note}" * bool(note), err=True)

    def _measure_rate(self, now: float, done: int) -> float | None:
        """Return how many were done in a second lately; None without any, or if the pause since then is unusual."""
        moments = self._moments
        if moments and done < moments[-1][1]:
            moments.clear()  # another thing is counted now
        if not moments or done != moments[-1][1]:
            moments.append((now, done))
        while len(moments) > _MOMENTS and now - moments[1][0] > _WINDOW:
            moments.popleft()
        if len(moments) < 2 or moments[-1][0] == moments[0][0]:
            return None
        rate = (moments[-1][1] - moments[0][1]) / (moments[-1][0] - moments[0][0])
        return rate if now - moments[-1][0] <= max(_PAUSE, 3 / rate) else None

    def __enter__(self) -> Self:
        if self._is_drawn:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_drawn:
            self._progress.stop()


def _format_rate(rate: float | None) -> str:
    if not rate:
        return ""
    unit, number = next((unit, rate * size) for unit, size in _RATES if rate * size >= 1 or unit == "h")
    return f"{number:.3g}/{unit}"


def build_view(found: dict[str, Any], console: Console) -> RenderableType:
    """Return the status of `get_status`; in a terminal with as many rows and parts as its height allows.

    Parameters
    ----------
    found : dict
    console : rich.console.Console
    """
    left = 0
    for rows in _ROWS:
        parts, more = _build_parts(found, rows, console.width)
        left = console.height - 1 - sum(len(console.render_lines(part)) for part in parts)
        if left >= 0 or not console.is_terminal:
            break
    for part in more:
        left -= len(console.render_lines(part))
        if left < 0 and console.is_terminal:
            break
        parts.append(part)
    return Group(*parts)


def _build_parts(found: dict[str, Any], rows: int, width: int) -> tuple[list[RenderableType], list[RenderableType]]:
    """Return the parts of a status, with so many rows in each list: the important parts, and the others."""
    parts: list[RenderableType] = [Text(clean(found["todo_file"]), style="bold"), _build_counts(found)]
    parts.append(Text(clean(_describe(found))))
    if found["failures"]:
        parts.append(_build_failures(found["failures"], rows))
    if found["last_errors"]:
        errors = [{**row, "errors": find_message(row["errors"] or "")} for row in found["last_errors"][:rows]]
        parts.append(_build_list("Last errors", errors, ("priority", "starid", "errors")))
    parts.append(_build_focal_plane(found["ccds"], width))
    if found["running"]:
        number, running = found["status"]["STARTED"], [_show_running(row) for row in found["running"][:rows]]
        title = "Interrupted tasks" if found["holder"] is None else "Started tasks"
        queued = found["queued"] or 0
        title += f": {number:,}" + (f", {queued:,} of which wait for a worker" if queued else "")
        title += f" (here {len(running)})" if number - queued > len(running) else ""
        most = 2 if width < _NARROW else 6 if width < _WIDE else None
        names = [name for name in _RUNNING[:most] if any(row[name] is not None for row in running)]
        parts.append(_build_list(title, running, names))
    more = []
    if found["versions"]:
        versions = [{**row, "version": brief(name_version(row["version"]))} for row in found["versions"][:rows]]
        more.append(_build_list("Versions of the pipeline", versions, ("version", "results")))
    return parts, more


def _show_running(row: dict[str, Any]) -> dict[str, Any]:
    seconds, expected = row["seconds"], row["expected"]
    return {
        **row,
        "for": None if seconds is None else format_seconds(seconds),
        "95 % take at most": None if expected is None else format_seconds(expected),
    }


def build_attempts(priority: int, attempts: list[dict[str, Any]]) -> RenderableType:
    """Return the attempts at a task for a terminal."""
    if not attempts:
        return Text(f"Task {priority} has no attempts yet.")
    parts = [Text(f"Attempts at task {priority}, times in UTC", style="bold")]
    for number, row in enumerate(attempts, start=1):
        begun, ended = row["begun"], row["ended"]
        words = [f"{begun.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if begun else "time unknown"]
        if begun and ended:
            words.append(str(timedelta(seconds=max(0, round((ended - begun).total_seconds())))))
        words.append((row["how"] or "running") + (f" ({row['kind']})" if row["kind"] else ""))
        words.append(f"worker {row['worker']} on {row['host']}")
        words += [f"job {row['slurm_jobid']}"] if row.get("slurm_jobid") else []
        words += [f"version {name_version(row['version'])}"] if row["version"] else []
        parts.append(Text(clean(f"{number}: {', '.join(words)}")))
        if error := find_message(row["errors"] or ""):
            parts.append(Text(f"   {clean(error)}", style="dim"))
    return Group(*parts)


def build_fields(fields: dict[str, Any]) -> Table:
    """Return the values of one task for a terminal, with their units; missing values are left out."""
    from photometry_tasks.reading.columns import COLUMNS

    table = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        if value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            unit = COLUMNS[name].info.get("unit") if name in COLUMNS else None
            table.add_row(Text(clean(name)), Text(clean(text), overflow="fold"), Text(unit or ""))
    return table


def build_star(task: dict[str, Any]) -> RenderableType:
    """Return a task of `TodoList.star` for a terminal."""
    place = f"sector {task['sector']}, camera {task['camera']}, CCD {task['ccd']}, {task['datasource']}"
    title = f"Task {task['priority']}: TIC {task['starid']}, tmag {task['tmag']}, {place}, {task['status_name']}"
    parts: list[RenderableType] = [Text(clean(title), style="bold")]
    for words, name in (("Covered by", "covered_by"), ("Covers", "covers")):
        if task[name]:
            others = (f"task {other['priority']} (TIC {other['starid']})" for other in task[name])
            parts.append(Text(clean(f"{words} {list_first(others, _MOST_COVERS)}")))
    if result := task["result"]:
        own = {f"extra_{name}": value for name, value in result["extra"].items()}
        parts.append(build_fields({name: value for name, value in result.items() if name != "extra"} | own))
    return Group(*parts, build_attempts(task["priority"], task["attempts"]), Text())


def build_errors(groups: list[dict[str, Any]], number: int) -> RenderableType:
    """Return groups of `TodoList.errors`, the first of a number, each with the star of its first task."""
    rows = [
        {
            "tasks": group["count"],
            "kind": brief(group["kind"] or NOT_GIVEN),
            "message": group["message"],
            "hosts": _list_hosts(group["hosts"]),
            "first task": f"{group['first']} (TIC {group['starid']})",
        }
        for group in groups
    ]
    title = "Errors" + (f" (the first {len(groups)} of {count_of(number, 'group')})" if number > len(groups) else "")
    return _build_list(title, rows, ("tasks", "kind", "message", "hosts", "first task"))


def build_plan(magnitudes: list[dict[str, Any]]) -> RenderableType:
    """Return the magnitudes of `TodoList.plan` for a terminal."""
    table = _build_table("magnitude", "tasks", "will be done", "will be left")
    for column in table.columns:
        column.justify = "right"
    for row in magnitudes:
        tmag, tasks, low, high = (row[name] for name in ("tmag", "tasks", "done_low", "done_high"))
        name = "none" if tmag is None else f"{tmag}–{tmag + 1}"
        table.add_row(name, f"{tasks:,}", format_range(low, high), format_range(tasks - high, tasks - low))
    return table


def _list_hosts(hosts: dict[str, int]) -> str:
    return list_first((f"{brief(host)}: {number}" for host, number in hosts.items()), _MOST_HOSTS)


def _build_counts(found: dict[str, Any]) -> Table:
    shown = [name for name, number in found["status"].items() if number]
    table = _build_table(*shown, "all")
    for column in table.columns:
        column.justify = "right"
    table.add_row(*(str(found["status"][name]) for name in shown), str(found["numtasks"]))
    return table


def _describe(found: dict[str, Any]) -> str:
    lines = []
    if left := describe_estimate(found["estimate"]):
        lines.append(left)
    if found["rate"]:
        lines.append(f"Results over the last 10 minutes: {_format_rate(found['rate'])}.")
    if found["mean_elaptime"] is not None:
        lines.append(f"Mean run time of a task: {format_seconds(found['mean_elaptime'])}.")
    use = "Not in use." if found["holder"] is None else f"In use by {found['holder']}."
    if (started := found["status"]["STARTED"]) and found["holder"] is None:
        fate = "the next run will run it again" if started == 1 else "the next run will run them again"
        use += f" {count_of(started, 'task')} interrupted; {fate}."
    elif started and found["silence"]:
        use += f" {describe_silence(found['silence'], found['running'])}"
    lines.append(use)
    if found["age"] is not None:
        age = f"{found['age']:.0f} s"
        lines.append(f"Published by a manager {age} ago: the file itself cannot be read, or lacks newer results.")
    if oldest := found["oldest_transaction"]:
        name = oldest["application_name"] or "unnamed"
        who = name if oldest["pid"] is None else f"process {oldest['pid']} ({name})"
        duration = timedelta(seconds=round(oldest["age"]))
        lines.append(f"Oldest open transaction: {who}, for {duration}. Claims become slower until it ends.")
    if found["used_up"]:
        lines.append(describe_used_up(found["todo_file"], found["used_up"], RETRIES))
    if found["has_log"]:
        command = f"photometry-tasks upgrade {shlex.quote(found['todo_file'])}"
        lines.append(f"The log of a killed manager holds results that the file lacks. Save them with `{command}`.")
    return "\n".join(lines)


def _build_focal_plane(ccds: list[dict[str, Any]], width: int) -> RenderableType:
    """Return the share of finished tasks and the errors, with a column for each camera and a row for each CCD."""
    cells = {(entry["camera"], entry["ccd"]): entry for entry in ccds}
    # A file may hold texts in place of integers.
    cameras, numbers = (
        sorted({1, 2, 3, 4} | {place[axis] for place in cells}, key=lambda number: (isinstance(number, str), number))
        for axis in (0, 1)
    )
    table = _build_table("")
    for camera in cameras:
        table.add_column(Text(clean(f"{'cam' if width < _NARROW else 'camera'} {camera}")), justify="right")
    for ccd in numbers:
        row = (_build_cell(cells.get((camera, ccd)), has_total=width >= _WIDE) for camera in cameras)
        table.add_row(Text(clean(f"CCD {ccd}")), *row)
    return _put_title("Finished tasks (and errors), by camera and CCD", table)


def _build_cell(entry: dict[str, Any] | None, *, has_total: bool) -> Text:
    if entry is None:
        return Text("-", style="dim")
    total = sum(number for name, number in entry.items() if name not in ("camera", "ccd"))
    done = sum(entry[status.name] for status in FINISHED)
    text = Text(_floor(done, total) + (f" of {total}" if has_total else ""), style="green" if done == total else "")
    if entry["ERROR"]:
        text.append(f" ({entry['ERROR']:,})", style="red")
    return text


def _floor(part: int, whole: int) -> str:
    """Return a share in percent, rounded down, so that only a whole is 100 %."""
    return f"{1000 * part // whole / 10:g} %"


def _build_failures(failures: list[dict[str, Any]], most: int) -> RenderableType:
    rows = [
        {
            "kind": brief(row["kind"] or NOT_GIVEN),
            "tasks": row["tasks"],
            "hosts": _list_hosts(row["hosts"]),
        }
        for row in failures[:most]
    ]
    title = "Kinds of failure" + (f" (the first {most} of {len(failures)})" if len(failures) > most else "")
    return _build_list(title, rows, ("kind", "tasks", "hosts"))


def _build_table(*names: str) -> Table:
    """Return a table without rows and without a frame, which would take lines."""
    return Table(*names, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _put_title(title: str, table: Table) -> RenderableType:
    return Group(Text(title, style="italic"), table)  # a table would fold its title to its own width


def _build_list(title: str, rows: list[dict[str, Any]], names: Sequence[str]) -> RenderableType:
    table = _build_table(*names)
    for row in rows:
        # As Text, because an error may contain characters that look like markup.
        table.add_row(*(_build_text(name, row[name]) for name in names))
    return _put_title(title, table)


def _build_text(name: str, value: object) -> Text:
    text = Text("" if value is None else clean(value), overflow="fold")
    if name == "errors":
        text.no_wrap, text.overflow = True, "ellipsis"
    return text
