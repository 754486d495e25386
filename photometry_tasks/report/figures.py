"""Draw the figures of the page as SVG elements."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup
from sqlalchemy import Row

from photometry_tasks.report.queries import Point
from photometry_tasks.text import count_of, format_seconds

__all__ = ["COLOURS", "draw_magnitudes", "draw_points", "draw_positions", "draw_throughput", "format_time"]

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
_SOURCES = {"ffi": "#0072B2", "tpf": "#D55E00", "secondary": "#009E73"}

#: Size of a figure and its margins: left, right, top, bottom. On a phone, its letters shrink to 9 pixels.
_WIDTH, _HEIGHT, _MARGINS = 480, 270, (52, 12, 30, 40)

#: The most points of a series, steps of time, and times on an axis.
_POINTS, _STEPS, _TIMES = 3000, 200, 4

#: An address of a task's star, or "".
LinkTo = Callable[[Any], str]


def format_time(seconds: float) -> str:
    """Return a time in UTC as text; `seconds` are since 1970."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


class _Axis:
    """A scale of a figure: values to coordinates."""

    def __init__(self, low: float, high: float, begin: float, end: float, *, is_log: bool = False) -> None:
        self._is_log = is_log
        if is_log:
            low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))
        self.low, self.high = low, high if high > low else low + 1
        self._begin, self._end = begin, end

    def place(self, value: float) -> float:
        """Return the coordinate of a value."""
        share = ((math.log10(value) if self._is_log else value) - self.low) / (self.high - self.low)
        return self._begin + share * (self._end - self._begin)

    def list_ticks(self) -> list[float]:
        """Return values to mark, about five."""
        step = next(
            size * 10**power
            for power in range(math.floor(math.log10(self.high - self.low)) - 1, 99)
            for size in (1, 2, 5)
            if (self.high - self.low) / (size * 10**power) <= 6 and (not self._is_log or size * 10**power >= 1)
        )
        values = [step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [10.0**value for value in values] if self._is_log else values


class _Figure:
    """An SVG element with axes."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], *, is_log: bool = False, is_flipped: bool = False
    ) -> None:
        left, right, top, bottom = _MARGINS
        ends = (_WIDTH - right, left) if is_flipped else (left, _WIDTH - right)
        self.x = _Axis(*x, *ends)
        self.y = _Axis(*y, _HEIGHT - bottom, top, is_log=is_log)
        self._parts: list[Markup] = []
        self._legend = 0.0

    def add(self, element: str, content: object = None, **attributes: object) -> None:
        """Add an element; an underscore in the name of an attribute stands for a hyphen."""
        pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
        values = Markup("").join(Markup(' {}="{}"').format(*pair) for pair in pairs)
        text = "" if content is None else content
        self._parts.append(Markup("<{0}{1}>{2}</{0}>").format(element, values, text))

    def draw_axes(self, x_label: str, y_label: str, *, shows_x: bool = True) -> None:
        """Draw lines, ticks and labels."""
        left, right, top, bottom = _MARGINS
        for value in self.y.list_ticks():
            y = f"{self.y.place(value):.1f}"
            self.add("path", d=f"M{left} {y}H{_WIDTH - right}", class_="grid")
            self.add("text", _format_tick(value), x=left - 5, y=y, class_="tick", text_anchor="end", dy="0.35em")
        for value in self.x.list_ticks() if shows_x else ():
            x = f"{self.x.place(value):.1f}"
            self.add("text", _format_tick(value), x=x, y=_HEIGHT - bottom + 15, class_="tick", text_anchor="middle")
        self.add("path", d=f"M{left} {top}V{_HEIGHT - bottom}H{_WIDTH - right}", class_="axis")
        self.add("text", x_label, x=(left + _WIDTH - right) / 2, y=_HEIGHT - 6, text_anchor="middle")
        self.add("text", y_label, x=2, y=14)

    def add_legend(self, name: str, colour: str) -> None:
        """Add a name of the legend, at the top."""
        x = _WIDTH - _MARGINS[1] - self._legend
        self.add("text", name, x=x, y=14, text_anchor="end", class_="tick")
        x -= (8.0 if name.isupper() else 6.2) * len(name) + 12
        self.add("rect", x=f"{x:.1f}", y=5, width=9, height=9, fill=colour)
        self._legend = _WIDTH - _MARGINS[1] - x + 10

    def add_bars(self, bars: Iterable[tuple[float, float, float, float]], colour: str) -> None:
        """Draw bars, each from x to x and from y to y, as one element."""
        path = []
        for begin, end, low, high in bars:
            # A bar stays visible if it is thinner than a pixel.
            x, top = self.x.place(begin), self.y.place(high)
            width, height = max(self.x.place(end) - x, 0.7), max(self.y.place(low) - top, 0.5)
            path.append(f"M{x:.1f} {top:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z")
        self.add("path", d="".join(path), fill=colour)

    def add_points(self, points: Sequence[Point], colour: str) -> None:
        """Draw points, of many a part, as one element."""
        step = math.ceil(len(points) / _POINTS) or 1
        path = "".join(f"M{self.x.place(p.x):.1f} {self.y.place(p.y):.1f}h0" for p in points[::step])
        self.add("path", d=path, stroke=colour, class_="points")

    def add_outlier(self, point: Point, text: str, address: str) -> None:
        """Draw a point with a text, and with a link to its star if there is an address."""
        x, y = f"{self.x.place(point.x):.1f}", f"{self.y.place(point.y):.1f}"
        circle = Markup('<circle cx="{}" cy="{}" r="5" class="far"><title>{}</title></circle>').format(x, y, text)
        if address:
            self.add("a", circle, href=address, aria_label=text)
        else:
            self._parts.append(circle)

    def render(self, label: str, *, has_links: bool = False) -> Markup:
        """Return the SVG element, with a label for screen readers, from which a picture would hide its links."""
        role = "group" if has_links else "img"
        start = Markup('<svg viewBox="0 0 {} {}" role="{}" aria-label="{}">').format(_WIDTH, _HEIGHT, role, label)
        return start + Markup("").join(self._parts) + Markup("</svg>")


def draw_magnitudes(counts: Mapping[float, Mapping[str, float]]) -> Markup:
    """Draw the tasks of each half magnitude by status.

    Parameters
    ----------
    counts : mapping
        Numbers of tasks, by the lower edge of the half magnitude and by the name of the status; not empty.
    """
    lowest, highest = min(counts), max(counts) + 0.5
    figure = _Figure((lowest, highest), (0, max(sum(column.values()) for column in counts.values())))
    figure.draw_axes("TESS magnitude", "tasks")
    bottom: dict[float, float] = defaultdict(float)
    for name, colour in reversed(COLOURS.items()):
        if any(column[name] for column in counts.values()):
            figure.add_legend(name, colour)
    for name, colour in COLOURS.items():
        bars = []
        for edge, column in counts.items():
            if number := column[name]:
                bars.append((edge, edge + 0.5, bottom[edge], bottom[edge] + number))
                bottom[edge] += number
        if bars:
            figure.add_bars(bars, colour)
    return figure.render(f"Tasks by status in each half magnitude from {lowest:g} to {highest:g}")


def draw_points(points: Sequence[Point], name: str, unit: str, link: LinkTo) -> Markup:
    """Draw values of results by magnitude, on a logarithmic axis; those that are far from similar stars are marked.

    Parameters
    ----------
    points : sequence of Point
        Not empty.
    name, unit : str
        Of the values.
    link : callable
        Returns the address of a star, or "".
    """
    values = sorted(point.y for point in points)
    figure = _Figure((min(p.x for p in points), max(p.x for p in points)), (values[0], values[-1]), is_log=True)
    figure.draw_axes("TESS magnitude", f"{name} ({unit})")
    for source, colour in _SOURCES.items():
        if own := [point for point in points if point.source == source]:
            figure.add_points(own, colour)
            figure.add_legend(source, colour)
    far = [point for point in points if point.is_far]
    for point in far:
        value = format_seconds(point.y) if unit == "s" else f"{point.y:.3g} {unit}"
        figure.add_outlier(point, f"TIC {point.starid}: {value} at magnitude {point.x:.2f}", link(point.starid))
    results, median = count_of(len(points), "result"), values[len(values) // 2]
    return figure.render(
        f"{name} of {results} by magnitude; the median is {median:.3g} {unit}; {len(far)} marked, which differ from "
        "similar stars",
        has_links=any(link(point.starid) for point in far),
    )


def draw_positions(points: Sequence[Point]) -> Markup:
    """Draw tasks on the sky by status; right ascension increases to the left. `points` are not empty."""
    across, up = [point.x for point in points], [point.y for point in points]
    figure = _Figure((min(across), max(across)), (min(up), max(up)), is_flipped=True)
    figure.draw_axes("right ascension (°)", "declination (°)")
    for name, colour in reversed(COLOURS.items()):
        if own := [point for point in points if point.source == name]:
            figure.add_points(own, colour)
            figure.add_legend(name, colour)
    return figure.render(f"{count_of(len(points), 'task')} on the sky by status")


def draw_throughput(runs: Sequence[Sequence[Row[Any]]]) -> Markup:
    """Draw the numbers of results and errors per minute over the time of work.

    Parameters
    ----------
    runs : sequence of sequence of Row
        Rows with `minute`, `saved` and `errors`, by run, in chronological order; not empty.
    """
    lengths = [(run[-1].minute - run[0].minute) // 60 + 1 for run in runs]
    width = math.ceil(sum(lengths) / _STEPS)
    saved: list[tuple[float, float, float, float]] = []
    errors: list[tuple[float, float, float, float]] = []
    starts: dict[int, int] = {}
    begin = 0
    for run, length in zip(runs, lengths, strict=True):
        starts[begin] = run[0].minute
        steps: Counter[int] = Counter()
        failed: Counter[int] = Counter()
        for row in run:
            step = (row.minute - run[0].minute) // 60 // width
            steps[step] += row.saved
            failed[step] += row.errors
        for step in range(math.ceil(length / width)):
            end = min(step * width + width, length)  # the last step of a run may be shorter
            size = end - step * width
            saved.append((begin + step * width, begin + end, 0, steps[step] / size))
            errors.append((begin + step * width, begin + end, 0, failed[step] / size))
        begin += length
    highest = max(bar[3] for bar in saved)
    figure = _Figure((0, begin), (0, highest or 1))
    figure.draw_axes("time of work, without pauses", "results a minute", shows_x=False)
    figure.add_legend("errors", COLOURS["ERROR"])
    figure.add_legend("results", COLOURS["STARTED"])
    figure.add_bars(saved, COLOURS["STARTED"])
    figure.add_bars([bar for bar in errors if bar[3]], COLOURS["ERROR"])
    shown = -math.inf
    for place, minute in starts.items():
        x = figure.x.place(place)
        if len(starts) <= _STEPS and place:
            figure.add("path", d=f"M{x:.1f} {_MARGINS[2]}V{_HEIGHT - _MARGINS[3]}", class_="pause")
        if place - shown >= begin / _TIMES:
            shown = place
            figure.add("text", format_time(minute), x=f"{x:.1f}", y=_HEIGHT - _MARGINS[3] + 15, class_="tick")
    first, last = format_time(runs[0][0].minute), format_time(runs[-1][-1].minute)
    return figure.render(
        f"Results and errors saved per minute over {count_of(len(runs), 'run')} from {first} to {last} UTC; at most "
        f"{highest:.3g} results per minute, {max(bar[3] for bar in errors):.3g} with ERROR"
    )


def _format_tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 and value == round(value) else f"{value:g}"
