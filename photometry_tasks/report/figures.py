"""The pictures of the report, as SVG within HTML: the only module that loads matplotlib."""

import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

__all__ = ["COLOURS", "PAUSE", "STEPS", "draw_magnitudes", "draw_pace", "draw_run_times", "show_time"]

#: Of Okabe and Ito, which the colour-blind can tell apart; in the order in which they are stacked.
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

#: Steps of run time in a decade, 2.3 % each: as exact as the median is.
STEPS = 100
_STEPS_DRAWN = 10

#: Seconds without a result that end a run.
PAUSE = 1800

#: Steps of time drawn, and dates written, whatever the length of the runs.
_TIMES, _DATES = 240, 5

_WIDTH = 5.0  # inches: letters keep 9 of their 12 pixels on a phone

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def show_time(seconds: int) -> str:
    """Return a time (UTC), given as seconds since 1970."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def draw_magnitudes(counts: Mapping[float, Mapping[str, int]]) -> str:
    """Draw how many tasks of each half magnitude have which status, and their shares.

    Parameters
    ----------
    counts : mapping
        By the lower edge of each half magnitude, and by the name of the status.
    """
    lowest, highest = min(counts), max(counts) + 0.5
    edges = [lowest + number / 2 for number in range(round((highest - lowest) * 2) + 1)]
    totals = [sum(counts.get(edge, {}).values()) for edge in edges[:-1]]
    names = [name for name in COLOURS if any(column[name] for column in counts.values())]

    def draw() -> Figure:
        figure = Figure((_WIDTH, 4.2), layout="constrained")
        above, below = figure.subplots(2, sharex=True, height_ratios=[3, 2])
        bottom = [0] * len(totals)
        for name in names:
            top = [low + counts.get(edge, {}).get(name, 0) for low, edge in zip(bottom, edges, strict=False)]
            _fill(above, top, bottom, edges, COLOURS[name], name)
            shares = [[100 * n / (total or 1) for n, total in zip(line, totals, strict=True)] for line in (top, bottom)]
            _fill(below, shares[0], shares[1], edges, COLOURS[name])
            bottom = top
        above.set(ylabel="tasks", ylim=(0, None), xlim=(lowest, highest))
        above.locator_params(axis="y", integer=True)
        below.set(ylabel="share (%)", ylim=(0, 100), xlabel="TESS magnitude")
        figure.legend(loc="outside upper center", ncols=5, handlelength=1, columnspacing=1.2)
        return figure

    label = f"Tasks by status in each half magnitude from {lowest:g} to {highest:g}: numbers above, shares below"
    return _to_svg(draw, "magnitudes", label)


def draw_run_times(counts: Mapping[float, Mapping[int, int]]) -> str:
    """Draw how many results of each half magnitude took how long, and the median.

    Parameters
    ----------
    counts : mapping
        By the lower edge of each half magnitude, and by run time: 10**(step/STEPS) seconds are its lower edge.
    """
    lowest, highest = min(counts), max(counts)
    widths = range(round((highest - lowest) * 2) + 1)
    steps = [step // (STEPS // _STEPS_DRAWN) for column in counts.values() for step in column]
    shortest, longest = min(steps), max(steps) + 1
    mesh = [[math.nan] * len(widths) for _ in range(shortest, longest)]
    for edge, column in counts.items():
        for step, number in column.items():
            line, place = mesh[step // (STEPS // _STEPS_DRAWN) - shortest], round((edge - lowest) * 2)
            line[place] = number + (0 if math.isnan(line[place]) else line[place])
    most = max(number for line in mesh for number in line if not math.isnan(number))
    medians = [10 ** ((_median(column) + 0.5) / STEPS) for column in counts.values()]

    def draw() -> Figure:
        figure = Figure((_WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        image = axes.pcolormesh(
            [lowest + width / 2 for width in range(len(widths) + 1)],
            [10 ** (step / _STEPS_DRAWN) for step in range(shortest, longest + 1)],
            mesh,
            norm=LogNorm(1, max(most, 10)),
            cmap="cividis_r",
            rasterized=True,
        )
        figure.colorbar(image, label="results", pad=0.01)
        outline = [withStroke(linewidth=4, foreground="white")]
        middles = [edge + 0.25 for edge in counts]
        axes.plot(middles, medians, "o-", color="#D55E00", ms=3, label="median", path_effects=outline)
        axes.set(yscale="log", ylabel="run time (s)", xlabel="TESS magnitude")
        # Whole decades: otherwise there may be no number on the axis, or many.
        axes.set_ylim(10 ** (shortest // _STEPS_DRAWN), 10 ** -(-longest // _STEPS_DRAWN))
        figure.legend(loc="outside upper right")
        return figure

    label = (
        f"Results by run time and magnitude; the median goes from {medians[0]:.3g} s at magnitude {lowest:g} to "
        f"{medians[-1]:.3g} s at {highest + 0.5:g}"
    )
    return _to_svg(draw, "run-times", label)


def draw_pace(minutes: Sequence[Any]) -> str:
    """Draw how many results and errors were saved in a minute over the time that was worked.

    Parameters
    ----------
    minutes : sequence
        Rows of `photometry_tasks_progress`, in order.
    """
    runs = list(_split(minutes))
    lengths = [(run[-1].minute - run[0].minute) // 60 + 1 for run in runs]
    width = math.ceil(sum(lengths) / _TIMES)
    edges, saved, errors, starts = [0.0], [], [], []
    for run, length in zip(runs, lengths, strict=True):
        starts.append(edges[-1])
        # The last step of a run may be shorter than the others.
        steps = [min(width, length - begin) for begin in range(0, length, width)]
        sums = [[0, 0] for _ in steps]
        for row in run:
            step = sums[(row.minute - run[0].minute) // 60 // width]
            step[0] += row.saved
            step[1] += row.errors
        for step, size in zip(sums, steps, strict=True):
            edges.append(edges[-1] + size)
            saved.append(step[0] / size)
            errors.append(step[1] / size)
    is_long = edges[-1] > 180
    places = [edge / (60 if is_long else 1) for edge in edges]
    dates = {start / (60 if is_long else 1): show_time(run[0].minute) for start, run in zip(starts, runs, strict=True)}

    def draw() -> Figure:
        figure = Figure((_WIDTH, 3.8), layout="constrained")
        above, below = figure.subplots(2, sharex=True, height_ratios=[3, 2])
        _fill(above, saved, [0] * len(saved), places, COLOURS["STARTED"])
        _fill(below, errors, [0] * len(errors), places, COLOURS["ERROR"])
        above.set(ylabel="results / min", ylim=(0, max(saved) * 1.05 or 1), xlim=(0, places[-1]))
        below.set(ylabel="errors / min", ylim=(0, max(errors) * 1.05 or 1))
        below.set_xlabel(f"{'hours' if is_long else 'minutes'} of work, without the pauses")
        if len(dates) <= _TIMES:
            for axes in (above, below):
                axes.vlines(list(dates)[1:], 0, 1, "#444444", "dashed", lw=0.8, transform=axes.get_xaxis_transform())
        shown: list[float] = []
        for start in dates:
            if not shown or start - shown[-1] >= places[-1] / _DATES:
                shown.append(start)
        top = above.secondary_xaxis("top")
        top.set_xticks(shown, [dates[start].replace(" ", "\n") for start in shown])
        return figure

    first, last = show_time(minutes[0].minute), show_time(minutes[-1].minute)
    label = (
        f"Results and errors saved per minute over {len(runs)} runs from {first} to {last} UTC; "
        f"at most {max(saved):.3g} results per minute, {max(errors):.3g} with ERROR"
    )
    return _to_svg(draw, "pace", label)


def _split(minutes: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Divide the minutes into runs."""
    begin = 0
    for end in range(1, len(minutes) + 1):
        if end == len(minutes) or minutes[end].minute - minutes[end - 1].minute > PAUSE:
            yield minutes[begin:end]
            begin = end


def _median(counts: Mapping[int, int]) -> int:
    """Return the median of the keys, each as often as its value says; of two, the lower."""
    left = (sum(counts.values()) + 1) // 2
    for key in sorted(counts):
        left -= counts[key]
        if left <= 0:
            return key
    raise ValueError("there are no values")


def _fill(
    axes: Axes, top: Sequence[float], bottom: Sequence[float], edges: Sequence[float], colour: str, name: str = ""
) -> None:
    # One path, whatever the number of steps; the line keeps a step visible that is thinner than a pixel.
    axes.stairs(top, edges, baseline=bottom, fill=True, color=colour, lw=0.3, label=name or None)


def _to_svg(draw: Any, name: str, label: str) -> str:
    """Return a picture as an element of HTML whose ids are no other's, with a label for those who do not see it."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # they would come with addresses of vocabularies
    text = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        draw().savefig(text, format="svg", dpi=150, metadata=nothing)
    svg = text.getvalue()
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :])
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)
