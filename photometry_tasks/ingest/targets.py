"""The rules of a target: the valid values of a row, and the default method, cadence and area."""

import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from photometry_tasks.errors import InvalidTargetError
from photometry_tasks.ingest.csv_lists import Located
from photometry_tasks.rules.validation import (
    BRIGHTEST,
    FAINTEST,
    as_integer,
    as_real,
    check_positive,
    invalid_argument,
    show,
)
from photometry_tasks.sql.statements import TARGET_NAMES

#: The brightest targets saturate in full-frame images: only halo photometry measures them.
_HALO_TMAG = 2.0

# The values that exist for TESS. Catalogues write "unknown" as a number outside, such as 0, -1, 99 or -999.
_END = 2**63  # of the integers of a database column
_POSITIVE = range(1, _END)  # star ids, sectors and cadences
_FOUR = frozenset(range(1, 5))  # cameras, and CCDs of a camera
_AREAS = frozenset(range(110, 445))  # camera*100 + ccd*10 + the area on the CCD, 0 to 4

#: Seconds. The longest cadence of target pixel files; full-frame images have longer cadences.
_LONGEST_OF_PIXEL_FILES = 120


@dataclass(slots=True)
class Target:
    """A new row of `todolist`, without its status; `priority` is set after all targets are sorted."""

    starid: int
    datasource: str
    sector: int
    camera: int
    ccd: int
    cadence: int
    method: str | None
    tmag: float | None
    cbv_area: int
    priority: int = 0


#: Returns the columns of `unique_target_idx`, which are equal for rows of the same target.
get_key: Callable[[Target], tuple[Any, ...]] = attrgetter(*TARGET_NAMES)


def sort_targets(targets: Iterable[Target]) -> list[Target]:
    """Return targets in order: brightest first, ties by star id and datasource; without a magnitude last."""
    with_magnitude: list[Target] = []
    without_magnitude: list[Target] = []
    for target in targets:
        (without_magnitude if target.tmag is None else with_magnitude).append(target)
    with_magnitude.sort(key=attrgetter("tmag", "starid", "datasource"))
    return with_magnitude + sorted(without_magnitude, key=attrgetter("starid", "datasource"))


@dataclass(frozen=True)
class Defaults:
    """The arguments for rows without a sector, a cadence or a datasource."""

    sector: int | None
    cadence: int | None
    datasource: str

    def __post_init__(self) -> None:
        for name in ("sector", "cadence"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_positive(name, value))
        if self.datasource not in ("tpf", "ffi", "both"):
            raise invalid_argument("datasource", self.datasource, "'tpf', 'ffi' or 'both' is expected")
        if self.cadence is not None:
            kind = "tpf" if self.cadence <= _LONGEST_OF_PIXEL_FILES else "ffi"
            if self.datasource != kind:
                problem = f"TESS has this cadence with datasource={kind!r} only, not with {self.datasource!r}"
                remedy = f"{problem}; correct either, or make a call for each datasource"
                raise invalid_argument("cadence", self.cadence, remedy)


def build_plain_target(row: Any, defaults: Defaults) -> Target | None:
    """Return the target of a row whose values need no conversion, as in nearly all rows from Python; else None."""
    if type(row) is not dict:
        return None
    get: Callable[..., Any] = row.get
    starid, camera, ccd, tmag, method = get("starid"), get("camera"), get("ccd"), get("tmag"), get("method")
    datasource, sector = get("datasource", defaults.datasource), get("sector", defaults.sector)
    if not (
        type(starid) is type(camera) is type(ccd) is type(sector) is int
        and 0 < starid < _END
        and camera in _FOUR
        and ccd in _FOUR
        and 0 < sector < _END
        and type(tmag) is float
        and BRIGHTEST <= tmag <= FAINTEST
        and type(datasource) is str
        and datasource in ("ffi", "tpf")
        and method is None
    ):
        return None
    cadence, area = get("cadence"), get("cbv_area")
    if (
        (type(cadence) is int and 0 < cadence < _END)
        or (cadence is None and (defaults.cadence is None or datasource == defaults.datasource))
    ) and (area is None or (type(area) is int and area in _AREAS)):
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
    defaults: Defaults,
) -> Target:
    """Return the target of checked values; the rules replace None."""
    if method is None and datasource == "ffi" and tmag is not None and tmag <= _HALO_TMAG:
        method = "halo"
    if not tmag and tmag is not None:
        tmag = 0.0  # never -0.0, which only some databases keep
    if cadence is None:
        cadence = defaults.cadence or _cadence_of(datasource, sector)
    if cbv_area is None:
        cbv_area = camera * 100 + ccd * 10
    return Target(starid, datasource, sector, camera, ccd, cadence, method, tmag, cbv_area)


def build_targets(located: Located, defaults: Defaults) -> Iterator[Target]:
    """Yield the targets of any row: two targets if its datasource is 'both'.

    Raises
    ------
    InvalidTargetError
        If the row is invalid. The error names the row and the column.
    """
    where, theirs, given = located
    try:
        row = dict(given)  # dict() also takes a sqlite3.Row, which is not a mapping
    except (TypeError, ValueError):
        raise InvalidTargetError(where=where, problem=f"{show(given)} is not a mapping of columns to values") from None

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

    starid, camera, ccd = read("starid", _as_positive), read("camera", _as_one_of_four), read("ccd", _as_one_of_four)
    sector = read("sector", _as_positive, defaults.sector)
    if "tmag" not in row:
        raise InvalidTargetError(
            where=where, problem="column tmag is missing; give None for a star without a magnitude"
        )
    tmag = None if row["tmag"] is None else read("tmag", _as_magnitude)
    datasource = read("datasource", _as_datasource, defaults.datasource)
    method = read("method", _as_method, "") or None
    cadence = None if row.get("cadence") is None else read("cadence", _as_positive)
    area = None if row.get("cbv_area") is None else read("cbv_area", _as_area)
    if cadence is not None and datasource == "both":
        problem = f"column cadence: {cadence}: the two tasks of datasource='both' have different cadences"
        raise InvalidTargetError(where=where, problem=f"{problem}; leave it empty, or add a column datasource")
    if cadence is None and defaults.cadence is not None and (datasource == "ffi") != (defaults.datasource == "ffi"):
        problem = f"column cadence has no value, and {defaults.cadence} s is for datasource={defaults.datasource!r}"
        raise InvalidTargetError(where=where, problem=f"{problem}, not {datasource!r}; give the row its own cadence")
    for source in ("tpf", "ffi") if datasource == "both" else (datasource,):
        yield _complete(starid, source, sector, camera, ccd, cadence, method, tmag, area, defaults)


_REMEDIES = {"sector": "; give it with --sector, or `sector=`"}


def _cadence_of(datasource: str, sector: int) -> int:
    """Return the time between TESS's exposures in a sector, seconds."""
    if datasource != "ffi":
        return 120
    return 1800 if sector < 27 else 600 if sector < 56 else 200


def _as_whole(value: object, allowed: Container[int], expected: str) -> int:
    if isinstance(value, str):
        # int() also accepts "1_000" and the digits of other scripts.
        if not (value.isascii() and value.isdigit()):
            raise ValueError("a whole number is expected")
        value = int(value.lstrip("0")[:20] or 0)  # 20 digits exceed 64 bits
    number = as_integer(value)
    if number not in allowed:
        raise ValueError(expected)
    return number


_as_positive = partial(_as_whole, allowed=_POSITIVE, expected="a positive number is expected")
_as_one_of_four = partial(_as_whole, allowed=_FOUR, expected="a number from 1 to 4 is expected")
_as_area = partial(
    _as_whole, allowed=_AREAS, expected="a number from 110 to 444 is expected; leave it empty if it is unknown"
)


def _as_magnitude(value: object) -> float | None:
    if isinstance(value, str):
        # float() also accepts "1_0" and the digits of other scripts.
        if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|nan|[-+]?inf", value, re.IGNORECASE):
            raise ValueError("a number is expected")
        value = float(value)
    tmag = as_real(value)
    if tmag in (float("inf"), float("-inf")):
        raise ValueError("a finite number is expected")
    if tmag != tmag:
        return None
    if not BRIGHTEST <= tmag <= FAINTEST:
        raise ValueError("a magnitude from -10 to 30 is expected; leave it empty (None) if it is unknown")
    return tmag


def _as_datasource(value: object) -> str:
    if isinstance(value, str):
        if value in ("ffi", "tpf"):
            return value
        if value.startswith("tpf:"):
            with suppress(ValueError):
                return f"tpf:{_as_positive(value[4:])}"  # one spelling of each target: never tpf:0012
    raise ValueError("'ffi', 'tpf' or 'tpf:<starid>' is expected")


def _as_method(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected")
    if not value.isprintable():
        raise ValueError("a text of printable characters is expected")  # a database refuses NUL and lone surrogates
    return value
