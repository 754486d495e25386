"""The rules of a target: the valid values of a row, and the default method, cadence and area."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from photometry_tasks.errors import InvalidTargetError
from photometry_tasks.ingest.csv_lists import Located
from photometry_tasks.rules.validation import as_integer, as_real, check_natural, check_positive, invalid_argument, show
from photometry_tasks.sql.statements import TARGET_NAMES

#: The brightest targets saturate in full-frame images: only halo photometry measures them.
_HALO_TMAG = 2.0


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
                checked = (check_natural if name == "sector" else check_positive)(name, value)
                object.__setattr__(self, name, checked)
        if self.datasource not in ("tpf", "ffi", "both"):
            raise invalid_argument("datasource", self.datasource, "'tpf', 'ffi' or 'both' is expected")


def build_plain_target(row: Any, defaults: Defaults) -> Target | None:
    """Return the target of a row whose values need no conversion, as in nearly all rows from Python; else None."""
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
    defaults: Defaults,
) -> Target:
    """Return the target of checked values; the rules replace None."""
    if method is None and datasource == "ffi" and tmag is not None and tmag <= _HALO_TMAG:
        method = "halo"
    if cadence is None:
        cadence = defaults.cadence or _cadence_of(datasource, sector)
    if cbv_area is None:
        cbv_area = camera * 100 + ccd * 10
    return Target(starid, datasource, sector, camera, ccd, cadence, method, tmag, cbv_area)


#: Larger numbers may exceed 64 bits or be infinite: `build_targets` checks them.
_LARGE = 2**60


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

    starid, camera, ccd = read("starid", _as_natural), read("camera", _as_natural), read("ccd", _as_natural)
    sector = read("sector", _as_natural, defaults.sector)
    if "tmag" not in row:
        raise InvalidTargetError(
            where=where, problem="column tmag is missing; give None for a star without a magnitude"
        )
    tmag = None if row["tmag"] is None else read("tmag", _as_magnitude)
    datasource = read("datasource", _as_datasource, defaults.datasource)
    method = read("method", _as_method, "") or None
    cadence = None if row.get("cadence") is None else read("cadence", _as_positive)
    area = None if row.get("cbv_area") is None else read("cbv_area", _as_natural)
    for source in ("tpf", "ffi") if datasource == "both" else (datasource,):
        yield _complete(starid, source, sector, camera, ccd, cadence, method, tmag, area, defaults)


_REMEDIES = {"sector": "; give it with --sector, or `sector=`"}


def _cadence_of(datasource: str, sector: int) -> int:
    """Return the time between TESS's exposures in a sector, seconds."""
    if datasource != "ffi":
        return 120
    return 1800 if sector < 27 else 600 if sector < 56 else 200


def _as_natural(value: object) -> int:
    if isinstance(value, str):
        # int() also accepts "1_000" and the digits of other scripts.
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise ValueError("a whole number is expected")
        return int(value)
    if (number := as_integer(value)) < 0:
        raise ValueError("a whole number of at least 0 is expected")
    return number


def _as_positive(value: object) -> int:
    if (number := _as_natural(value)) == 0:
        raise ValueError("a positive number is expected")
    return number


def _as_magnitude(value: object) -> float | None:
    if isinstance(value, str):
        # float() also accepts "1_0" and the digits of other scripts.
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
