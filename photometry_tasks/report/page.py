"""A TODO-file as one page of HTML with pictures, for people who would rather look than query."""

import html
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, product
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, and_, case, func, inspect, select

from photometry_tasks import schema
from photometry_tasks.models import diagnostics, progress, todolist
from photometry_tasks.sql.counts import count_by_ccd, count_by_status, name_counts
from photometry_tasks.sql.functions import as_bytes, whole_part
from photometry_tasks.status import FINISHED, STATUS
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import open_read_only

__all__ = ["build_report"]

_task, _result = todolist.c, diagnostics.c

_FINISHED = tuple(status.name for status in FINISHED)

#: Shown although there may be none.
_USUAL = ("PENDING", "OK", "WARNING", "ERROR", "SKIPPED", "STARTED")

#: What is drawn: one number far off, as a placeholder, would leave a line of the rest.
_FAINTEST, _BRIGHTEST = 40, -30
_SHORTEST, _LONGEST = 1e-4, 1e6
_LAST_MINUTE = 253_402_300_740  # of the year 9999

_is_drawn = _task.tmag.between(_BRIGHTEST, _FAINTEST)
# Whole half magnitudes above the brightest: what is cut off is then the same on either side of 0.
_half_magnitudes = whole_part((_task.tmag - _BRIGHTEST) * 2)
_NO_MAGNITUDE, _FAR_OFF = -1, -2
_bin = case((_is_drawn, _half_magnitudes), (_task.tmag.is_(None), _NO_MAGNITUDE), else_=_FAR_OFF).label("bin")
_COUNT_BY_MAGNITUDE: Select[Any] = select(_bin, _task.status, func.count()).group_by(_bin, _task.status)

_results = diagnostics.join(todolist, _result.priority == _task.priority)
_RUN_TIMES: Select[Any] = (
    select(_half_magnitudes, _result.elaptime)
    .select_from(_results)
    .where(and_(_is_drawn, _result.elaptime.between(_SHORTEST, _LONGEST)))
)
_COUNT_RESULTS: Select[Any] = select(func.count()).select_from(_results)
_ERRORS: Select[Any] = (
    select(_result.priority, _task.starid, _task.status, as_bytes(_result.errors))
    .select_from(_results)
    .where(_result.errors.is_not(None))
    .order_by(_result.priority)
)
_PACE: Select[Any] = (
    select(progress.c.minute, progress.c.saved, progress.c.errors)
    .where(progress.c.minute.between(0, _LAST_MINUTE))
    .order_by(progress.c.minute)
)

#: Rows held at a time.
_ROWS = 1000

_KINDS_KNOWN, _KINDS_SHOWN, _CCDS_SHOWN = 20_000, 15, 400
_LONGEST_MESSAGE = 160
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")

_STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box; -webkit-print-color-adjust: exact; print-color-adjust: exact }
body { font: 16px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 52rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem } p { margin: .4rem 0 }
section { break-inside: avoid } svg { width: 100%; max-width: 42rem; height: auto; display: block }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); gap: .5rem; margin: 1rem 0 }
.tiles div { background: #f3f3f3; border-left: .4rem solid; padding: .3rem .6rem }
dt { font-size: .8rem; color: #333 } dd { margin: 0; font-size: 1.2rem; color: #222 }
.cameras { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .9rem }
.ccds { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 3px }
h3 { font-size: .85rem; margin: 0 0 .2rem }
.ccd { border: 1px solid #999; padding: .2rem .25rem; font-size: .8rem; line-height: 1.3 }
.ccd small { font-size: .65rem; white-space: nowrap }
.share { font-size: 1.05rem } .failed { display: block; height: .35rem; background: #fff; border: 1px solid #999 }
.failed span { display: block; height: 100% }
table { border-collapse: collapse; width: 100%; font-size: .85rem } small { color: #333 }
th, td { text-align: left; vertical-align: top; padding: .25rem .4rem; border-bottom: 1px solid #ccc }
.number { text-align: right; overflow-wrap: normal }
@media print { svg { max-width: 30rem } .cameras { grid-template-columns: repeat(4, 1fr); gap: .4rem } }
"""


@dataclass
class _Kind:
    """Errors that differ in nothing but their numbers, and the first of them."""

    priority: int
    starid: int
    number: int = 0
    failed: int = 0


def build_report(todo: str | os.PathLike[str] | Location) -> str:
    """Return a page of HTML about a TODO-list: counts, pictures and the commonest errors.

    It refers to nothing outside it. The list is read in one transaction, and others may be working on it.

    Parameters
    ----------
    todo : str or os.PathLike
        The file, or the URL of a list on a server; one of an older release is shown as far as it goes.

    Returns
    -------
    str
        The page, to be written as UTF-8.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    TodoError
        If it is no TODO-file, or not there.
    """
    from photometry_tasks.report import figures

    location = parse_location(todo)
    with closing(open_read_only(location)) as database, database.begin(writes=False) as connection:
        schema.find_changes(connection, database.name)  # only to refuse what is no TODO-list
        tables = set(inspect(connection).get_table_names())
        by_status = name_counts(count_by_status(connection))
        by_ccd = count_by_ccd(connection)
        by_magnitude = _count_by_magnitude(connection)
        has_results = diagnostics.name in tables
        results: int = connection.execute(_COUNT_RESULTS).scalar_one() if has_results else 0
        run_times = _count_run_times(connection, figures.STEPS) if has_results else {}
        kinds, others = _group_errors(connection) if has_results else ({}, 0)
        pace = list(connection.execute(_PACE)) if progress.name in tables else []
        log = database.find_result_log()
    colours = figures.COLOURS
    name = _clean(database.name if location.path is None else location.path.name)
    body = [
        f"<h1>{name}</h1><p>As it was on {datetime.now(UTC):%Y-%m-%d at %H:%M:%S} UTC.</p>",
        _show_log(log) if log is not None else "",
        _show_counts(by_status, colours),
        _section("Focal plane", _show_focal_plane(by_ccd, colours["ERROR"])),
        _section("Results over magnitude", _show_magnitudes(by_magnitude, figures)),
        _section("Run time over magnitude", _show_run_times(run_times, results, figures)),
        _section("Results per minute", _show_pace(pace, figures)),
        _section("The commonest errors", _show_errors(kinds, others)),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<title>{name}</title>\n<style>{_STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(filter(None, body))}\n</body></html>\n"
    )


def _show_log(log: Path) -> str:
    beside = f"{log.name} lies beside it: results since the last backup, which are not counted here."
    return f"<p>{_clean(beside)}</p>"


# --- reading ---------------------------------------------------------------------------------------------


def _stream(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    return iter(connection.execute(query.execution_options(yield_per=_ROWS)))


def _count_by_magnitude(connection: Connection) -> dict[int, dict[str, int]]:
    """Count the tasks by half magnitude, and in each by the name of their status."""
    counts: dict[int, dict[int | None, int]] = {}
    for half, status, number in connection.execute(_COUNT_BY_MAGNITUDE):
        counts.setdefault(half, {})[status] = number
    return {half: name_counts(by_status) for half, by_status in sorted(counts.items())}


def _count_run_times(connection: Connection, steps: int) -> dict[float, Counter[int]]:
    """Count results by the lower edge of their half magnitude, and in each by run time, as steps of a decade."""
    counts: dict[float, Counter[int]] = {}
    for half, elaptime in _stream(connection, _RUN_TIMES):
        counts.setdefault(_lower_edge(half), Counter())[math.floor(math.log10(elaptime) * steps)] += 1
    return dict(sorted(counts.items()))


def _lower_edge(half: int) -> float:
    return _BRIGHTEST + half / 2


def _group_errors(connection: Connection) -> tuple[dict[str, _Kind], int]:
    """Count results by the last line of their errors without its numbers; and those of the kinds beyond the limit."""
    kinds: dict[str, _Kind] = {}
    others = 0
    for priority, starid, status, errors in _stream(connection, _ERRORS):
        line = errors.decode(errors="replace").rstrip().rpartition("\n")[2].strip()
        message = _NUMBER.sub("#", line[: 5 * _LONGEST_MESSAGE]) or "(no text)"
        if len(message) > _LONGEST_MESSAGE:
            message = message[: _LONGEST_MESSAGE - 1] + "…"
        # Where every line is different, they would fill the memory.
        if message not in kinds and len(kinds) == _KINDS_KNOWN:
            others += 1
            continue
        kind = kinds.setdefault(message, _Kind(priority, starid))
        kind.number += 1
        kind.failed += status == STATUS.ERROR.value
    return kinds, others


# --- showing ---------------------------------------------------------------------------------------------


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}\n</section>"


def _clean(text: object) -> str:
    """Return a text without a meaning in HTML, and without characters that control what is around them."""
    return html.escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)))


def _percent(part: int, whole: int) -> str:
    """Return a share, of which 0 and 100 % are exactly that."""
    if part in (0, whole):
        return "–" if not whole else "100 %" if part else "0 %"
    share = 100 * part / whole
    return "<0.1 %" if share < 0.1 else ">99.9 %" if share > 99.9 else f"{share:.1f} %"


def _count_finished(counts: dict[str, int]) -> int:
    return sum(counts[name] for name in _FINISHED)


def _show_counts(by_status: dict[str, int], colours: dict[str, str]) -> str:
    total, finished = sum(by_status.values()), _count_finished(by_status)
    tiles = [("tasks", f"{total:,}", "#222"), ("done", html.escape(_percent(finished, total)), "#222")]
    tiles += [(name, f"{number:,}", colours[name]) for name, number in by_status.items() if number or name in _USUAL]
    shown = "".join(
        f'<div style="border-color:{colour}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, colour in tiles
    )
    return (
        f'<dl class="tiles">{shown}</dl><p>Done: {finished:,} of {total:,}. '
        f"These are {', '.join(_FINISHED[:-1])} or {_FINISHED[-1]}.</p>"
    )


def _show_focal_plane(by_ccd: dict[tuple[int, int], dict[str, int]], red: str) -> str:
    """Show each camera as a block of its CCDs; those of TESS are all there, with tasks or without."""
    tess = set(product(range(1, 5), repeat=2))
    ccds = sorted(tess) if set(by_ccd) <= tess else list(by_ccd)
    cameras: dict[int, list[str]] = {}
    for camera, ccd in ccds[:_CCDS_SHOWN]:
        counts = by_ccd.get((camera, ccd), {})
        cameras.setdefault(camera, []).append(_show_ccd(f"{camera}.{ccd}", counts, red))
    blocks = "".join(
        f'<div><h3>camera {_clean(camera)}</h3><div class="ccds">{"".join(cells)}</div></div>'
        for camera, cells in cameras.items()
    )
    more = f" {len(ccds) - _CCDS_SHOWN:,} more CCDs are not shown." if len(ccds) > _CCDS_SHOWN else ""
    return (
        '<div class="cameras" role="group" aria-label="Share of the tasks done and share of ERROR, by camera and CCD">'
        f"{blocks}</div><p>Each cell: camera.ccd, the share of its tasks that is done (the bluer, the more), and "
        f"the share of these that is ERROR (the bar). The CCDs are in order, not as they lie on the sky.{more}</p>"
    )


def _show_ccd(name: str, counts: dict[str, int], red: str) -> str:
    total = sum(counts.values())
    finished = _count_finished(counts) if counts else 0
    failed = counts.get("ERROR", 0)
    share = finished / total if total else 0.0
    # From white to the sky blue of the palette, on which black text keeps a contrast of 9.
    colour = "#" + "".join(f"{round(255 + (end - 255) * share):02x}" for end in (86, 180, 233))
    width = 100 * failed / finished if finished else 0.0
    return (
        f'<div class="ccd" style="background:{colour}">{_clean(name)}<br>'
        f'<span class="share">{html.escape(_percent(finished, total))}</span><br>'
        f"<small>ERROR {html.escape(_percent(failed, finished))}</small>"
        f'<span class="failed"><span style="width:{width:.1f}%;background:{red}"></span></span></div>'
    )


def _show_magnitudes(by_magnitude: dict[int, dict[str, int]], figures: Any) -> str:
    drawn = {_lower_edge(half): counts for half, counts in by_magnitude.items() if half >= 0}
    without = sum(by_magnitude.get(_NO_MAGNITUDE, {}).values())
    far_off = sum(by_magnitude.get(_FAR_OFF, {}).values())
    text = f"<p>Tasks without a magnitude, which are not drawn: {without:,}.</p>"
    if far_off:
        text += f"<p>Tasks of a magnitude beyond {_BRIGHTEST} to {_FAINTEST}, which are not drawn: {far_off:,}.</p>"
    return (figures.draw_magnitudes(drawn) if drawn else "<p>No task has a magnitude.</p>") + text


def _show_run_times(counts: dict[float, Counter[int]], results: int, figures: Any) -> str:
    if not results:
        return "<p>There are no results.</p>"
    drawn = sum(sum(column.values()) for column in counts.values())
    text = (
        f"<p>Drawn: {drawn:,} of {results:,} results, those with a magnitude and a run time from {_SHORTEST:g} to "
        f"{_LONGEST:,.0f} s. The line is the median in each half magnitude.</p>"
    )
    return (figures.draw_run_times(counts) if counts else "") + text


def _show_pace(minutes: list[Any], figures: Any) -> str:
    if not minutes:
        return (
            "<p>When its results were saved was not noted: nothing has been saved yet, or all of it by a release or a "
            "program that does not note it.</p>"
        )
    saved, errors = sum(minute.saved for minute in minutes), sum(minute.errors for minute in minutes)
    first, last = (figures.show_time(minute.minute) for minute in (minutes[0], minutes[-1]))
    return (
        f"{figures.draw_pace(minutes)}<p>Results saved: {saved:,}, of them ERROR: {errors:,}; from {first} to "
        f"{last} UTC. Pauses of more than {figures.PAUSE // 60} minutes are cut "
        "out: a dashed line, with the time of the minute after it.</p>"
    )


def _show_errors(kinds: dict[str, _Kind], others: int) -> str:
    if not kinds:
        return "<p>There are none.</p>"
    by_number: Iterable[tuple[str, _Kind]] = sorted(kinds.items(), key=lambda item: -item[1].number)
    rows = "".join(
        f'<tr><td class="number">{kind.number:,}</td><td class="number">{kind.failed:,}</td><td>{_clean(message)}'
        f"<br><small>first: priority {_clean(kind.priority)}, TIC {_clean(kind.starid)}</small></td></tr>\n"
        for message, kind in islice(by_number, _KINDS_SHOWN)
    )
    shown = min(len(kinds), _KINDS_SHOWN)
    more = f" Errors of yet other kinds: {others:,}." if others else ""
    return (
        '<table><thead><tr><th class="number">results</th><th class="number">ERROR</th><th>last line</th></tr>'
        f"</thead><tbody>\n{rows}</tbody></table><p>{shown:,} of {len(kinds):,} kinds. A kind has one last line "
        f"but for its numbers, which are shown as #; ERROR is how many of the results have that status.{more}</p>"
    )
