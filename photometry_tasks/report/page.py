"""Render the page of a TODO-list: as one file that needs no other, or as the content of a live page."""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from photometry_tasks.rules.validation import check_path
from photometry_tasks.status import FINISHED
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import OpenList, begin_reading
from photometry_tasks.text import brief, clean, count_of, describe_silence, format_hours, format_seconds

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["build_report", "render", "render_list", "write_report"]

#: A report has it near its beginning.
_GENERATOR = b'<meta name="generator" content="photometry_tasks">'

#: The values by which the focal plane can be coloured.
_SHADES = {"done": "share of finished tasks", "failed": "share of failed tasks", "seconds": "run time"}

#: The most groups of errors, and of warnings, in the tables.
_GROUPS, _WARNINGS = 15, 5

#: The most cameras, hosts and versions that are compared.
_COMPARED = 20


def build_report(todo: str | os.PathLike[str] | Location) -> str:
    """Return an HTML page about a TODO-list: counts, the time left, figures and the most frequent errors.

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
        If Jinja2 is missing.
    TodoError
        If the file does not exist or is not a TODO-file.
    """
    location = parse_location(todo)
    name = location.name if location.path is None else location.path.name
    with begin_reading(location) as opened:
        content = render_list(opened, {})
    return render("page.html", name=name, content=content)


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


def render_list(
    opened: OpenList, constraints: Mapping[str, Any], colour: str = "done", link: Callable[..., str] | None = None
) -> "Markup":
    """Return the content of the page of a list.

    Parameters
    ----------
    opened : OpenList
    constraints : mapping
        Arguments of `build_constraints`: the tasks that the page shows.
    colour : {'done', 'failed', 'seconds'}, optional
        The value by which the focal plane is coloured.
    link : callable, optional
        Takes parameters of an address, and returns the address. Without it, the content has no links.
    """
    from photometry_tasks.report import figures, queries

    page = queries.read_list(opened, constraints)

    def link_star(starid: Any) -> str:
        return "" if link is None else link(star=starid)

    drawn = {
        "magnitudes": figures.draw_magnitudes(page.by_magnitude) if page.by_magnitude else None,
        "run_times": figures.draw_points(page.run_times, "run time", "s", link_star) if page.run_times else None,
        "noise": figures.draw_points(page.noise, "rms_hour", "ppm", link_star) if page.noise else None,
        "positions": figures.draw_positions(page.positions) if page.positions else None,
        "throughput": figures.draw_throughput(page.runs) if page.runs else None,
    }
    return render(
        "list.html",
        page=page,
        figures=drawn,
        link=link,
        most_groups=_COMPARED,
        constraints=constraints,
        colour=colour if colour in _SHADES else "done",
        shades=_SHADES,
        failures=page.failures.groups[:_GROUPS],
        warnings=page.warnings.groups[:_WARNINGS],
    )


def _format_moment(value: object, form: str = "%m-%d %H:%M:%S") -> str:
    """Return a time; what another program stored in its place is shown as it is."""
    return value.strftime(form) if isinstance(value, datetime) else "–" if value is None else brief(value)


def render(template: str, **values: Any) -> "Markup":
    """Return a page or a part of it."""
    from markupsafe import Markup  # of Jinja2

    # The templates escape all values.
    return Markup(_build_environment().get_template(template).render(time=datetime.now(UTC), **values))  # noqa: S704


@cache
def _build_environment() -> "Environment":
    # Jinja2 is optional: importing build_report must work without it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from photometry_tasks.report.figures import COLOURS, format_time

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"colours": COLOURS, "finished_statuses": [status.name for status in FINISHED]}
    environment.filters |= {
        "silence": describe_silence,
        "brief": brief,
        "clean": clean,
        "minute": format_time,
        "moment": _format_moment,
        "percent": _format_percent,
        "thousands": "{:,}".format,
        "seconds": format_seconds,
        "hours": format_hours,
        "count": count_of,
        "number": lambda value: f"{value:.6g}" if isinstance(value, float) else value,
    }
    return environment


def _format_percent(part: float, of: float) -> str:
    """Return a share in percent; only all is 100 %, and only nothing is 0 %."""
    if not of:
        return "–"
    share = 100 * part / of
    if part and share < 0.1:
        return "<0.1 %"
    if part < of and share > 99.9:
        return ">99.9 %"
    return f"{share:.1f} %" if 0 < share < 100 else f"{share:.0f} %"
