"""Target lists in: from rows or CSV files to a TODO-file."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from photometry_tasks import schema
from photometry_tasks.errors import InvalidTargetError
from photometry_tasks.ingest.csv_lists import Located, read_list
from photometry_tasks.rules.validation import as_integer, as_real, check_natural, check_positive, invalid, show
from photometry_tasks.sql import statements
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import create_list, open_database

__all__ = ["Added", "add_target_lists", "add_targets"]

#: The brightest targets saturate in full-frame images, where only halo photometry measures them.
_HALO_TMAG = 2.0

#: Rows in one statement of loading, and between two calls of `progress`.
_CHUNK = 10_000

Progress = Callable[[int, int | None], None]


class Added(NamedTuple):
    """How many tasks were added, and how many were there already (or stood in the lists twice)."""

    added: int
    known: int


class _Target(NamedTuple):
    """A row of `todolist` to be, apart from its priority and status."""

    starid: int
    datasource: str
    sector: int
    camera: int
    ccd: int
    cadence: int
    method: str | None
    tmag: float | None
    cbv_area: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What two rows of the same target share: the columns of `unique_target_idx`."""
        return self.starid, self.datasource, self.sector, self.camera, self.ccd, self.cadence

    @property
    def brightness(self) -> tuple[bool, float, int, str]:
        """What orders targets: brightest first, ties by star id and datasource; without a magnitude last."""
        return self.tmag is None, self.tmag or 0.0, self.starid, self.datasource


def add_targets(
    todo_file: str | os.PathLike[str] | Location,
    rows: Iterable[Mapping[str, Any]],
    *,
    sector: int | None = None,
    cadence: int | None = None,
    datasource: Literal["tpf", "ffi", "both"] = "ffi",
    progress: Progress | None = None,
) -> Added:
    """Add targets to a TODO-file, which is made if it is not there.

    Priorities run on from those in the file, in order of magnitude, brightest first, ties by star id and
    datasource. A target that is in the file already stays as it is. All rows are added, or none.

    Parameters
    ----------
    todo_file : str or os.PathLike
        The TODO-file, a directory for the `todo.sqlite` in it, or the URL of a PostgreSQL server's database.
    rows : iterable of mapping
        With `starid`, `camera`, `ccd` and `tmag` (TESS magnitude; None where it is not known), and optionally
        `sector`, `datasource`, `cadence` (seconds), `method` and `cbv_area`. Others are ignored.
    sector : int, optional
        For rows without one.
    cadence : int, optional
        Seconds, for rows without one. By default 120 for target pixel files; for full-frame images 1800
        before sector 27, 600 to sector 55 and 200 from then on.
    datasource : {'tpf', 'ffi', 'both'}, optional
        For rows without one; 'both' makes two tasks of a row.
    progress : callable, optional
        Called now and then with the number of rows read and None, later with the number of rows written and
        how many there are to write.

    Returns
    -------
    Added

    Raises
    ------
    InvalidTargetError
        If a row is not what it should be; it names the row and the column. Also a ValueError.

    Notes
    -----
    Without `method` it is 'halo' for targets of full-frame images with tmag ≤ 2, else NULL: left to the
    pipeline. Without `cbv_area` it is camera*100 + ccd*10, which means that no area was assigned.
    """
    located: Iterable[Located] = ((f"row {number}", {}, row) for number, row in enumerate(rows, start=1))
    return _add(todo_file, located, _Defaults(sector, cadence, datasource), progress)


def add_target_lists(
    todo_file: str | os.PathLike[str] | Location,
    lists: Iterable[str | os.PathLike[str]],
    *,
    sector: int | None = None,
    cadence: int | None = None,
    datasource: Literal["tpf", "ffi", "both"] = "ffi",
    progress: Progress | None = None,
) -> Added:
    """Add the targets of CSV files to a TODO-file; otherwise as `add_targets`.

    Parameters
    ----------
    lists : iterable of str or os.PathLike
        CSV files with a header line. They may be the TESS target lists of MIT (columns TICID, Camera, CCD,
        Tmag) or have columns named as in `todolist`; case does not matter, and other columns are ignored.
        Lines that begin with '#' are comments; one that says "sector N" gives the sector of a list that has
        no such column.
    todo_file, sector, cadence, datasource, progress
        As for `add_targets`.

    Returns
    -------
    Added

    Raises
    ------
    InvalidTargetError
        If a list is not what it should be; it names the file, the line and the column. Also a ValueError.
    """
    located = (row for path in lists for row in read_list(Path(path), sector))
    return _add(todo_file, located, _Defaults(sector, cadence, datasource), progress)


# --- checking --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Defaults:
    """What is given for rows that lack it."""

    sector: int | None
    cadence: int | None
    datasource: str

    def __post_init__(self) -> None:
        for name in ("sector", "cadence"):
            if (value := getattr(self, name)) is not None:
                checked = (check_natural if name == "sector" else check_positive)(name, value)
                object.__setattr__(self, name, checked)
        if self.datasource not in ("tpf", "ffi", "both"):
            raise invalid("datasource", self.datasource, "'tpf', 'ffi' or 'both' is expected")


def _build_plain_target(row: Any, defaults: _Defaults) -> _Target | None:
    """Return the target of a row whose values need no conversion, as nearly all that come from Python; else None."""
    if type(row) is not dict:
        return None
    get: Callable[..., Any] = row.get
    starid, camera, ccd, tmag, method = get("starid"), get("camera"), get("ccd"), get("tmag"), get("method")
    datasource, sector = get("datasource", defaults.datasource), get("sector", defaults.sector)
    if not (
        type(starid) is type(camera) is type(ccd) is type(sector) is int
        and 0 <= starid < _LARGE
        and 0 <= camera < _LARGE
        and 0 <= ccd < _LARGE
        and 0 <= sector < _LARGE
        and type(tmag) is float
        and -_LARGE < tmag < _LARGE
        and type(datasource) is str
        and datasource in ("ffi", "tpf")
        and method is None
    ):
        return None
    cadence, area = get("cadence"), get("cbv_area")
    if (cadence is None or (type(cadence) is int and 0 < cadence < _LARGE)) and (
        area is None or (type(area) is int and 0 <= area < _LARGE)
    ):
        return _complete(starid, datasource, sector, camera, ccd, cadence, method, tmag, area, defaults)
    return None


def _complete(
    starid: int,
    datasource: str,
    sector: int,
    camera: int,
    ccd: int,
    cadence: int | None,
    method: str | None,
    tmag: float | None,
    cbv_area: int | None,
    defaults: _Defaults,
) -> _Target:
    """Return the target of checked values; the rules give what is None."""
    if method is None and datasource == "ffi" and tmag is not None and tmag <= _HALO_TMAG:
        method = "halo"
    if cadence is None:
        cadence = defaults.cadence or _cadence_of(datasource, sector)
    if cbv_area is None:
        cbv_area = camera * 100 + ccd * 10
    return _Target(starid, datasource, sector, camera, ccd, cadence, method, tmag, cbv_area)


#: What is larger is looked at more closely: it may be more than 64 bits, or infinite.
_LARGE = 2**60


def _build_targets(located: Located, defaults: _Defaults) -> Iterator[_Target]:
    where, theirs, given = located
    try:
        row = dict(given)  # a sqlite3.Row is no mapping, but becomes one
    except (TypeError, ValueError):
        raise InvalidTargetError(where=where, problem=f"{show(given)} is no mapping of columns to values") from None

    def read(name: str, convert: Callable[[Any], Any], default: Any = None) -> Any:
        value = row.get(name)
        if value is None:
            if default is None:
                problem = f"column {theirs.get(name, name)} has no value"
                raise InvalidTargetError(where=where, problem=problem + _REMEDIES.get(name, ""))
            return default
        try:
            return convert(value)
        except ValueError as error:
            problem = f"column {theirs.get(name, name)}: {show(value)}: {error}"
            raise InvalidTargetError(where=where, problem=problem) from None

    starid, camera, ccd = read("starid", _as_natural), read("camera", _as_natural), read("ccd", _as_natural)
    sector = read("sector", _as_natural, defaults.sector)
    if "tmag" not in row:
        raise InvalidTargetError(where=where, problem="column tmag is missing; give None where it is not known")
    tmag = None if row["tmag"] is None else read("tmag", _as_magnitude)
    datasource = read("datasource", _as_datasource, defaults.datasource)
    method = read("method", _as_method, "") or None
    cadence = None if row.get("cadence") is None else read("cadence", _as_positive)
    area = None if row.get("cbv_area") is None else read("cbv_area", _as_natural)
    for source in ("tpf", "ffi") if datasource == "both" else (datasource,):
        yield _complete(starid, source, sector, camera, ccd, cadence, method, tmag, area, defaults)


_REMEDIES = {"sector": "; give it with --sector, or `sector=`"}


def _cadence_of(datasource: str, sector: int) -> int:
    """Return the time between exposures in seconds, as TESS took them."""
    if datasource != "ffi":
        return 120
    return 1800 if sector < 27 else 600 if sector < 56 else 200


def _as_natural(value: object) -> int:
    if isinstance(value, str):
        # int() also takes "1_000" and the digits of other scripts.
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise ValueError("a whole number is expected")
        return int(value)
    if (number := as_integer(value)) < 0:
        raise ValueError("a whole number, not negative, is expected")
    return number


def _as_positive(value: object) -> int:
    if (number := _as_natural(value)) == 0:
        raise ValueError("a positive number is expected")
    return number


def _as_magnitude(value: object) -> float | None:
    if isinstance(value, str):
        # float() also takes "1_0" and the digits of other scripts.
        if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|nan|[-+]?inf", value, re.IGNORECASE):
            raise ValueError("a number is expected")
        value = float(value)
    tmag = as_real(value)
    if tmag in (float("inf"), float("-inf")):
        raise ValueError("a finite number is expected")
    return None if tmag != tmag else tmag


def _as_datasource(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"ffi|tpf|tpf:[0-9]+", value):
        raise ValueError("'ffi', 'tpf' or 'tpf:<starid>' is expected")
    return value


def _as_method(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected")
    return value


# --- writing ---------------------------------------------------------------------------------------------


def _add(
    todo_file: str | os.PathLike[str] | Location,
    located: Iterable[Located],
    defaults: _Defaults,
    progress: Progress | None,
) -> Added:
    report = progress or (lambda _done, _total: None)
    location = parse_location(todo_file)
    added = Added(0, 0)

    def fill(database: Database) -> None:
        nonlocal added
        targets, listed = _collect(located, defaults, report)
        _insert(database, targets.values(), 0, report)
        added = Added(len(targets), listed - len(targets))

    if create_list(location, fill):
        return added
    with closing(open_database(location)) as database:
        with database.begin(writes=False) as connection:
            schema.find_changes(connection, database.name)  # refuses other programs' files before the lists are read
        targets, listed = _collect(located, defaults, report)
        database.ensure_schema()
        with database.begin_load() as connection:
            for key in connection.execute(statements.TARGETS):
                targets.pop(tuple(key), None)
            last: int = connection.execute(statements.LAST_PRIORITY).scalar_one()
            _insert(database, targets.values(), last, report)
            database.renew_statistics()
        database.recover()
    return Added(len(targets), listed - len(targets))


def _collect(
    located: Iterable[Located], defaults: _Defaults, report: Progress
) -> tuple[dict[tuple[Any, ...], _Target], int]:
    """Return the targets by key, each once, and how many were listed."""
    targets: dict[tuple[Any, ...], _Target] = {}
    listed = 0
    for row in located:
        plain = _build_plain_target(row[2], defaults)
        for target in _build_targets(row, defaults) if plain is None else (plain,):
            targets.setdefault(target.key, target)
            listed += 1
            if listed % _CHUNK == 0:
                report(listed, None)
    return targets, listed


def _insert(database: Database, targets: Collection[_Target], last: int, report: Progress) -> None:
    """Add targets with priorities from the last one on, in order of brightness."""

    def iter_rows() -> Iterator[dict[str, Any]]:
        ordered = sorted(targets, key=lambda target: target.brightness)
        for number, target in enumerate(ordered, start=1):
            yield {"priority": last + number, **dict(zip(_Target._fields, target, strict=True))}
            if number % _CHUNK == 0:
                report(number, len(targets))

    database.add_rows(statements.LOADED_COLUMNS, iter_rows())
    report(len(targets), len(targets))
