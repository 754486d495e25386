"""Build the report: read a TODO-list, draw its figures, render one HTML page."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from photometry_tasks.report import queries
from photometry_tasks.rules.estimate import PAUSE
from photometry_tasks.rules.validation import check_path
from photometry_tasks.sql.magnitudes import BRIGHTEST, FAINTEST
from photometry_tasks.status import FINISHED
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import begin_reading
from photometry_tasks.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["build_report", "write_report"]

#: The most groups of errors in the table.
_MOST_GROUPS = 15

#: A report has it near its beginning.
_GENERATOR = b'<meta name="generator" content="photometry_tasks">'


def build_report(todo: str | os.PathLike[str] | Location) -> str:
    """Return an HTML page about a TODO-list: counts, figures and the most frequent errors.

    The page needs no other file. One transaction reads the list; other programs may write to the list meanwhile.

    Parameters
    ----------
    todo : str or os.PathLike
        The TODO-file, or the URL of a list on a server. If an older release created the list, the page omits the
        missing content.

    Returns
    -------
    str
        The page, which declares UTF-8 as its encoding.

    Raises
    ------
    ImportError
        If Matplotlib or Jinja2 is missing.
    TodoError
        If the file does not exist or is not a TODO-file.
    """
    # Matplotlib and Jinja2 are optional: importing build_report must work without them.
    from photometry_tasks.report import figures

    template = _build_environment().get_template("template.html")
    location = parse_location(todo)
    with begin_reading(location) as opened:
        snapshot = queries.read_snapshot(opened)
    magnitudes, run_times = snapshot.by_magnitude.by_lower_edge, snapshot.run_times
    return template.render(
        name=location.name if location.path is None else location.path.name,
        time=datetime.now(UTC),
        snapshot=snapshot,
        figures={
            "magnitudes": figures.draw_magnitudes(counts=magnitudes) if magnitudes else None,
            "run_times": figures.draw_run_times(counts=run_times, medians=snapshot.medians) if run_times else None,
            "pace": figures.draw_pace(runs=snapshot.runs) if snapshot.runs else None,
        },
        results_drawn=sum(counts.total() for counts in run_times.values()),
        groups_shown=_MOST_GROUPS,
        finished_statuses=[status.name for status in FINISHED],
        colours=figures.COLOURS,
        brightest=BRIGHTEST,
        faintest=FAINTEST,
        shortest=queries.SHORTEST,
        longest=queries.LONGEST,
        pause=PAUSE,
    )


def write_report(todo: str | os.PathLike[str] | Location, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write the page of `build_report` to an HTML file, as a whole.

    Parameters
    ----------
    todo : str or os.PathLike
        As for `build_report`.
    path : str or os.PathLike
        The file. An earlier report is replaced.
    force : bool, optional
        Replace any file, not only a report.

    Raises
    ------
    InvalidArgumentError
        If the file holds something else than a report.
    ImportError, TodoError
        As `build_report`; or if the file cannot be written.
    """
    output = Path(check_path("path", path))
    parse_location(todo).write_output(output, build_report(todo), _is_report, force=force)


def _is_report(file: BinaryIO) -> bool:
    """Whether a file is a report."""
    return _GENERATOR in file.read(1000)


def _build_environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from photometry_tasks.report.figures import format_time

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "clean": clean,
        "minute": format_time,
        "percent": _format_percent,
        "thousands": "{:,}".format,
    }
    return environment


def _format_percent(part: int, of: int) -> str:
    """Return a share. Only exact shares of 0 and 1 become 0 % and 100 %."""
    if part in (0, of):
        return "–" if not of else "100 %" if part else "0 %"
    share = 100 * part / of
    return "<0.1 %" if share < 0.1 else ">99.9 %" if share > 99.9 else f"{share:.1f} %"
