"""What the command line shows: the progress of a run, and how a TODO-list stands."""

import time
from datetime import timedelta
from typing import Any, Self

import click
from rich.console import Console, Group, RenderableType
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
from rich.text import Text

from photometry_tasks.status import FINISHED

#: Seconds between two lines, where there is no terminal to draw a bar in.
_LINES = 30.0

_RUNNING = ("priority", "starid", "tmag", "sector", "camera", "ccd", "datasource")


class Bar:
    """How far something has come: done/total, rate, time left and errors.

    It is drawn in a terminal, else a line comes now and then; on the error stream, as a program may read the output.

    Parameters
    ----------
    unit : str
        Of what is counted.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._begun = time.monotonic()
        self._shown = 0.0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            TextColumn("[red]{task.fields[errors]}"),
            console=Console(stderr=True),
        )
        self._line = self._progress.add_task("", total=None, errors="", rate="")
        self._is_drawn = self._progress.console.is_terminal

    def show(self, description: str, done: int, total: int | None, errors: int = 0) -> None:
        """Show how many are done."""
        now = time.monotonic()
        rate = done / (now - self._begun) if done and now > self._begun else 0.0
        failed = _count_errors(errors) if errors else ""
        if self._is_drawn:
            self._progress.update(
                self._line,
                description=description,
                completed=done,
                total=total,
                errors=failed,
                rate=f"{rate:.3g}/s" if rate else "",
            )
        elif now - self._shown >= _LINES:
            self._shown = now
            left = timedelta(seconds=round((total - done) / rate)) if rate and total is not None else "?"
            words = [f"{description}: {done}/{'?' if total is None else total} {self._unit}", f"{rate:.3g}/s"]
            click.echo(", ".join([*words, f"left {left}", *([failed] if failed else [])]), err=True)

    def __enter__(self) -> Self:
        if self._is_drawn:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_drawn:
            self._progress.stop()


# --- status ----------------------------------------------------------------------------------------------


def build_view(found: dict[str, Any]) -> RenderableType:
    """Return what `get_overview` found as it is shown in a terminal."""
    parts: list[RenderableType] = [Text(found["todo_file"], style="bold"), _build_counts(found), Text(_describe(found))]
    parts.append(_build_focal_plane(found["ccds"]))
    if found["running"]:
        number = found["status"]["STARTED"]
        title = f"Running: {number}" + (
            f", the first {len(found['running'])}" if number > len(found["running"]) else ""
        )
        parts.append(_build_list(title, found["running"], _RUNNING))
    if found["last_errors"]:
        rows = [{**row, "errors": _last_line(row["errors"])} for row in found["last_errors"]]
        parts.append(_build_list("Errors", rows, ("priority", "starid", "errors")))
    return Group(*parts)


def build_history(priority: int, attempts: list[dict[str, Any]]) -> RenderableType:
    """Return the attempts at a task as they are shown in a terminal."""
    if not attempts:
        return Text(f"Nobody has tried task {priority} yet.")
    rows = [
        {
            "attempt": row["attempt"],
            "worker": f"{row['worker']} on {row['host']}, process {row['pid']}"
            + (f", job {row['slurm_jobid']}" if row["slurm_jobid"] else ""),
            "begun": f"{row['begun']:%Y-%m-%d %H:%M:%S%z}",
            "took": timedelta(seconds=round((row["ended"] - row["begun"]).total_seconds())) if row["ended"] else None,
            "how it ended": row["how"] or "running",
            "why": _last_line(row["errors"]),
        }
        for row in attempts
    ]
    return _build_list(f"Attempts at task {priority}", rows, tuple(rows[0]))


def _build_counts(found: dict[str, Any]) -> Table:
    shown = [name for name, number in found["status"].items() if number]
    table = Table(*shown, "all", title="Tasks", title_justify="left")
    for column in table.columns:
        column.justify = "right"
    table.add_row(*(str(found["status"][name]) for name in shown), str(found["numtasks"]))
    return table


def _describe(found: dict[str, Any]) -> str:
    lines = []
    rate, pending = found["rate"], found["status"]["PENDING"]
    if rate and pending:
        left = timedelta(seconds=round(pending / rate))
        lines.append(f"{rate:.3g} results a second over the last ten minutes: {left} left for what is pending.")
    elif rate:
        lines.append(f"{rate:.3g} results a second over the last ten minutes.")
    if found["mean_elaptime"] is not None:
        lines.append(f"A task took {found['mean_elaptime']:.3g} s on average.")
    lines.append("Nobody works on it." if found["holder"] is None else f"In use by {found['holder']}.")
    if found["age"] is not None:
        lines.append(f"As published {found['age']:.0f} s ago: the file itself does not tell at the moment.")
    if found["has_log"]:
        lines.append("A log of results lies beside it: they are not counted here until it is opened again.")
    return "\n".join(lines)


def _build_focal_plane(ccds: list[dict[str, Any]]) -> Table:
    """Lay the CCDs out as cameras and their CCDs: the share that is done, and of errors."""
    cells = {(entry["camera"], entry["ccd"]): entry for entry in ccds}
    cameras, numbers = ({1, 2, 3, 4} | {place[axis] for place in cells} for axis in (0, 1))
    table = Table("", title="Done and failed, by camera and CCD", title_justify="left")
    for camera in sorted(cameras):
        table.add_column(f"camera {camera}", justify="right")
    for ccd in sorted(numbers):
        table.add_row(f"CCD {ccd}", *(_build_cell(cells.get((camera, ccd))) for camera in sorted(cameras)))
    return table


def _build_cell(entry: dict[str, Any] | None) -> Text:
    if entry is None:
        return Text("–", style="dim")
    total = sum(number for name, number in entry.items() if name not in ("camera", "ccd"))
    done = sum(entry[status.name] for status in FINISHED)
    text = Text(f"{_floor(done, total)} of {total}", style="green" if done == total else "")
    if entry["ERROR"]:
        text.append(f"\n{_count_errors(entry['ERROR'])}", style="red")
    return text


def _floor(part: int, whole: int) -> str:
    """Return a share that says 100 % only if it is all."""
    return f"{1000 * part // whole / 10:g} %"


def _build_list(title: str, rows: list[dict[str, Any]], names: tuple[str, ...]) -> Table:
    table = Table(*names, title=title, title_justify="left")
    for row in rows:
        # As text: what stands in an error may look like markup.
        table.add_row(*(_build_text(name, row[name]) for name in names))
    return table


def _build_text(name: str, value: object) -> Text:
    text = Text("" if value is None else str(value), overflow="fold")
    if name == "errors":
        text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _count_errors(number: int) -> str:
    return f"{number} error{'' if number == 1 else 's'}"


def _last_line(errors: str | None) -> str:
    return next((line.strip() for line in reversed((errors or "").splitlines()) if line.strip()), "")
