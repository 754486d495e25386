"""Texts for messages: numbers and lists as words; long texts, and texts with control characters."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

__all__ = [
    "brief",
    "build_html",
    "clean",
    "count_of",
    "describe_jobs",
    "describe_running",
    "describe_silence",
    "describe_tasks",
    "find_message",
    "format_hours",
    "format_range",
    "format_seconds",
    "list_first",
    "name_version",
    "shorten",
]

#: Characters of an error that are shown: a traceback has some thousand.
_LONGEST = 10_000

#: The most characters of a name that a pipeline or another program gives.
_BRIEF = 200


def clean(text: object) -> str:
    """Return a text with its unprintable characters escaped: they could control a terminal, or hide other text."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in str(text)
    )


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun: "1 task", "2,000 tasks"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_range(low: int, high: int) -> str:
    """Return two numbers as an interval: "1,200–1,400", or "7" if they are equal."""
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def format_seconds(seconds: float) -> str:
    """Return a duration in a readable unit, with two or three digits: "0.25 s", "12 min", "3.5 h", "12 days"."""
    units = [("s", 1.0, 100.0), ("min", 60.0, 6000.0), ("h", 3600.0, 72 * 3600.0), ("days", 86400.0, math.inf)]
    name, size = next((name, size) for name, size, end in units if seconds < end)
    value = seconds / size
    return f"{value:.2g} {name}" if value < 100 else f"{value:,.0f} {name}"


def describe_running(starid: object, seconds: float | None, place: str | None, expected: float | None) -> str:
    """Return a running task: "TIC 103, 5 min (process 77), while 95 % of similar tasks take at most 2 s"."""
    text = f"TIC {starid}"
    if seconds is not None:
        text += f", {format_seconds(seconds)}"
    if place:
        text += f" ({place})"
    return text + (f", while 95 % of similar tasks take at most {format_seconds(expected)}" if expected else "")


def describe_silence(seconds: float, running: Sequence[Mapping[str, Any]]) -> str:
    """Return how long no result has come, and which task has run longest; `running` are those of `status`."""
    text = f"No result for {format_seconds(seconds)}"
    for row in running[:1]:
        text += f"; longest: {describe_running(row['starid'], row['seconds'], row['worker'], row['expected'])}"
    return f"{text}."


def format_hours(hours: float) -> str:
    """Return a duration of hours in a readable unit: see `format_seconds`."""
    return format_seconds(3600 * hours)


def describe_jobs(jobs: float) -> str:
    """Return how many tasks run at once, with three digits: "1 task at once"."""
    return f"{jobs:.3g} task{'' if jobs == 1 else 's'} at once"


def list_first(items: Iterable[object], limit: int) -> str:
    """Return the first items with commas between, and an ellipsis if there are more."""
    first = list(islice(items, limit + 1))
    return ", ".join(map(str, first[:limit])) + ", …" * (len(first) > limit)


def describe_tasks(counts: Mapping[str, int]) -> str:
    """Return a number of tasks with their statuses: '3 tasks (2 ERROR, 1 SKIPPED)'."""
    details = ", ".join(f"{number:,} {status}" for status, number in counts.items())
    return count_of(sum(counts.values()), "task") + (f" ({details})" if details else "")


def build_html(kind: str, name: str, counts: Mapping[str, int], note: str = "") -> str:
    """Return a short HTML text for notebooks: the kind and the name of an object, its counts, and a note."""
    from html import escape  # only notebooks need it

    title = f"<b>{escape(kind)}</b> of <code>{escape(clean(name))}</code>"
    if note:
        return f"<div>{title}: {escape(clean(note))}</div>"
    rows = {"tasks": sum(counts.values()), **{status: number for status, number in counts.items() if number}}
    cells = "".join(f"<tr><th>{escape(status)}</th><td>{number:,}</td></tr>" for status, number in rows.items())
    return f"<div>{title}<table>{cells}</table></div>"


def name_version(version: str | None) -> str:
    """Return a version of the pipeline for messages."""
    return "an unknown version" if version is None else repr(version)


def find_message(errors: str) -> str:
    """Return the line that says what is wrong: the first one after the last frame of a traceback, or the last line."""
    lines = [line for line in errors.splitlines() if line.strip()]
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if frames:
        rest = (line for line in lines[frames[-1] + 1 :] if not line.startswith(" "))
        lines = [next(rest, lines[-1])]
    return lines[-1].strip() if lines else ""


def brief(text: object) -> str:
    """Return the name of a kind, a host or a version on one line, with at most 200 characters."""
    line = clean(text).replace("\n", " ")
    return line if len(line) <= _BRIEF else f"{line[: _BRIEF - 1]}…"


def shorten(text: str) -> str:
    """Return the beginning and the end of a text with more than 10,000 characters, and any other text as it is."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}\n…\n{text[-_LONGEST // 2 + 3 :]}"
