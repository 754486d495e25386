"""Draw the figures of the report as SVG elements. No other module imports Matplotlib."""

import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sqlalchemy import Row

from photometry_tasks.report.queries import STEPS
from photometry_tasks.text import count_of

__all__ = ["COLOURS", "draw_magnitudes", "draw_pace", "draw_run_times", "format_time"]

#: Colour-blind readers can distinguish this palette of Okabe and Ito. Figures stack the statuses in this order.
COLOURS = {
    "OK": "#009E73",
    "WARNING": "#F0E442",
    "ERROR": "#D55E00",
    "SKIPPED": "#56B4E9",
    "STARTED": "#0072B2",
    "ABORT": "#CC79A7",
    "UNKNOWN": "#000000",
    "PENDING": "#CCCCCC",
}

#: Steps of run time in a decade of the figure.
_STEPS_DRAWN = 10

#: Limits for runs of any length: steps of time, and dates on the axis.
_TIMES, _DATES = 240, 5

#: The numbers of a logarithmic axis. Matplotlib writes formulas such as 10², which take longest of all texts.
_PLAIN = "{x:g}"

#: The margins of a figure, which hold the longest numbers. Matplotlib would draw all texts twice to find the shortest.
_MARGINS = {"left": 0.17, "right": 0.96, "bottom": 0.13, "top": 0.84, "hspace": 0.12}

#: Inches. On a phone, letters of 12 pixels then shrink to 9 pixels.
_WIDTH = 5.0

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # equal lists yield equal figures
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def format_time(seconds: int) -> str:
    """Return a time in UTC as text.

    Parameters
    ----------
    seconds : int
        Seconds since 1970.

    Returns
    -------
    str
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


@mpl.rc_context(_STYLE)
def draw_magnitudes(counts: Mapping[float, Mapping[str, int]]) -> Markup:
    """Draw the tasks of each half magnitude by status: numbers above, shares below.

    Parameters
    ----------
    counts : mapping
        Numbers of tasks, by the lower edge of the half magnitude and by the name of the status; not empty.

    Returns
    -------
    Markup
        An SVG element.
    """
    lowest, highest = min(counts), max(counts) + 0.5
    edges = [lowest + number / 2 for number in range(round((highest - lowest) * 2) + 1)]
    columns = [counts.get(edge, {}) for edge in edges[:-1]]
    totals = [sum(column.values()) or 1 for column in columns]
    figure = Figure((_WIDTH, 4.2))
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 2], gridspec_kw=_MARGINS)
    bottom = [0] * len(columns)
    for name, colour in COLOURS.items():
        if not any(column[name] for column in counts.values()):
            continue
        top = [low + column.get(name, 0) for low, column in zip(bottom, columns, strict=True)]
        top_share, bottom_share = (
            [100 * number / total for number, total in zip(line, totals, strict=True)] for line in (top, bottom)
        )
        _fill(above, top=top, bottom=bottom, edges=edges, colour=colour, label=name)
        _fill(below, top=top_share, bottom=bottom_share, edges=edges, colour=colour)
        bottom = top
    above.set(ylabel="tasks", ylim=(0, None), xlim=(lowest, highest))
    above.locator_params(axis="y", integer=True)
    below.set(ylabel="share (%)", ylim=(0, 100), xlabel="TESS magnitude")
    figure.legend(loc="upper center", ncols=5, handlelength=1, columnspacing=1.2)
    return _render_svg(
        figure,
        name="magnitudes",
        label=f"Tasks by status in each half magnitude from {lowest:g} to {highest:g}: numbers above, shares below",
    )


@mpl.rc_context(_STYLE)
def draw_run_times(counts: Mapping[float, Mapping[int, int]], medians: Mapping[float, float]) -> Markup:
    """Draw the number of results by magnitude and run time, and the median run time.

    Parameters
    ----------
    counts : mapping
        Numbers of results, by the lower edge of the half magnitude and by step of run time; not empty.
        The lower edge of a step is 10**(step / `STEPS`) seconds.
    medians : mapping
        Median run times in seconds, by the lower edge of the half magnitude, in ascending order.

    Returns
    -------
    Markup
        An SVG element.
    """
    lowest, highest = min(counts), max(counts) + 0.5
    columns = round((highest - lowest) * 2)
    cells: Counter[tuple[int, int]] = Counter()
    for edge, column in counts.items():
        for step, number in column.items():
            cells[step // (STEPS // _STEPS_DRAWN), round((edge - lowest) * 2)] += number
    shortest, longest = min(cells)[0], max(cells)[0] + 1
    # Matplotlib leaves cells with NaN empty.
    mesh = [[cells.get((line, column), math.nan) for column in range(columns)] for line in range(shortest, longest)]
    figure = Figure((_WIDTH, 3.4))
    axes = figure.subplots(gridspec_kw={**_MARGINS, "right": 0.92})  # at the right are the numbers of the colours
    image = axes.pcolormesh(
        [lowest + column / 2 for column in range(columns + 1)],
        [10 ** (line / _STEPS_DRAWN) for line in range(shortest, longest + 1)],
        mesh,
        norm=LogNorm(1, max(*cells.values(), 10)),
        cmap="cividis_r",
        rasterized=True,
    )
    figure.colorbar(image, label="results", pad=0.01, format=_PLAIN)
    outline = [withStroke(linewidth=4, foreground="white")]
    middles = [edge + 0.25 for edge in medians]
    axes.plot(middles, list(medians.values()), "o-", color="#D55E00", ms=3, label="median", path_effects=outline)
    axes.set(yscale="log", ylabel="run time (s)", xlabel="TESS magnitude")
    axes.yaxis.set_major_formatter(_PLAIN)
    # If the limits are not whole decades, the axis may show no number or many numbers.
    axes.set_ylim(10 ** (shortest // _STEPS_DRAWN), 10 ** -(-longest // _STEPS_DRAWN))
    figure.legend(loc="upper right")
    first, last = medians[lowest], medians[highest - 0.5]
    return _render_svg(
        figure,
        name="run-times",
        label=(
            f"Results by run time and magnitude; the median goes from {first:.3g} s at magnitude {lowest:g} to "
            f"{last:.3g} s at {highest:g}"
        ),
    )


@mpl.rc_context(_STYLE)
def draw_pace(runs: Sequence[Sequence[Row[Any]]]) -> Markup:
    """Draw the numbers of results and errors per minute over the time of work.

    Parameters
    ----------
    runs : sequence of sequence of Row
        Rows with `minute`, `saved` and `errors`, by run, in chronological order; not empty.

    Returns
    -------
    Markup
        An SVG element.
    """
    lengths = [(run[-1].minute - run[0].minute) // 60 + 1 for run in runs]
    width = math.ceil(sum(lengths) / _TIMES)
    unit, minutes_per_unit = ("hours", 60) if sum(lengths) > 180 else ("minutes", 1)
    edges, saved, errors = [0.0], [], []
    dates: dict[float, str] = {}
    minutes = 0
    for run, length in zip(runs, lengths, strict=True):
        dates[edges[-1]] = format_time(run[0].minute)
        saved_by_step: Counter[int] = Counter()
        errors_by_step: Counter[int] = Counter()
        for row in run:
            step = (row.minute - run[0].minute) // 60 // width
            saved_by_step[step] += row.saved
            errors_by_step[step] += row.errors
        for step, begin in enumerate(range(0, length, width)):
            size = min(width, length - begin)  # the last step of a run may be shorter
            minutes += size
            edges.append(minutes / minutes_per_unit)
            saved.append(saved_by_step[step] / size)
            errors.append(errors_by_step[step] / size)
    figure = Figure((_WIDTH, 3.8))
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 2], gridspec_kw=_MARGINS)
    _fill(above, top=saved, bottom=[0] * len(saved), edges=edges, colour=COLOURS["STARTED"])
    _fill(below, top=errors, bottom=[0] * len(errors), edges=edges, colour=COLOURS["ERROR"])
    above.set(ylabel="results / min", ylim=(0, max(saved) * 1.05 or 1), xlim=(0, edges[-1]))
    below.set(ylabel="errors / min", ylim=(0, max(errors) * 1.05 or 1))
    below.set_xlabel(f"{unit} of work, without pauses")
    if len(dates) <= _TIMES:
        for axes in (above, below):
            axes.vlines(list(dates)[1:], 0, 1, "#444444", "dashed", lw=0.8, transform=axes.get_xaxis_transform())
    shown: list[float] = []
    for start in dates:
        if not shown or start - shown[-1] >= edges[-1] / _DATES:
            shown.append(start)
    above.secondary_xaxis("top").set_xticks(shown, [dates[start].replace(" ", "\n") for start in shown])
    first, last = format_time(runs[0][0].minute), format_time(runs[-1][-1].minute)
    return _render_svg(
        figure,
        name="pace",
        label=(
            f"Results and errors saved per minute over {count_of(len(runs), 'run')} from {first} to {last} UTC; "
            f"at most {max(saved):.3g} results per minute, {max(errors):.3g} with ERROR"
        ),
    )


def _fill(
    axes: Axes,
    *,
    top: Sequence[float],
    bottom: Sequence[float],
    edges: Sequence[float],
    colour: str,
    label: str | None = None,
) -> None:
    # A single path contains all steps. The line keeps a step visible if it is thinner than a pixel.
    axes.stairs(top, edges, baseline=bottom, fill=True, color=colour, lw=0.3, label=label)


def _render_svg(figure: Figure, *, name: str, label: str) -> Markup:
    """Return an SVG element with a label for screen readers. The name makes the ids unique within the page."""
    text = io.StringIO()
    # The default metadata contain addresses of vocabularies, but the page must not refer to any address.
    figure.savefig(text, format="svg", dpi=150, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :])
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    start = Markup('<svg role="img" aria-label="{}" ').format(label)
    return start + Markup(svg.removeprefix("<svg "))  # noqa: S704 - Matplotlib has escaped the texts
