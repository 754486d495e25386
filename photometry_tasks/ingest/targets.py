"""The rules of a target: which values a row may hold, and which method, cadence and area follow from them."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from photometry_tasks.errors import InvalidTargetError
from photometry_tasks.ingest.csv_lists import Located
from photometry_tasks.rules.validation import as_integer, as_real, check_natural, check_positive, invalid_argument, show
from photometry_tasks.sql.statements import TARGET_NAMES

#: The brightest targets saturate in full-frame images, where only halo photometry measures them.
_HALO_TMAG = 2.0


@dataclass(slots=True)
class Target:
    """A row of `todolist` to be, apart from its status; `priority` is set when all targets are in order."""

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


#: The columns of `unique_target_idx`, which two rows of the same target share.
get_key: Callable[[Target], tuple[Any, ...]] = attrgetter(*TARGET_NAMES)


def sort_targets(targets: Iterable[Target]) -> list[Target]:
    """Return targets in order: brightest first, ties by star id and datasource; those without a magnitude come last."""
    bright: list[Target] = []
    unknown: list[Target] = []
    for target in targets:
        (unknown if target.tmag is None else bright).append(target)
    bright.sort(key=attrgetter("tmag", "starid", "datasource"))
    return bright + sorted(unknown, key=attrgetter("starid", "datasource"))


@dataclass(frozen=True)
class Defaults:
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
            raise invalid_argument("datasource", self.datasource, "'tpf', 'ffi' or 'both' is expected")


def build_plain_target(row: Any, defaults: Defaults) -> Target | None:
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
    defaults: Defaults,
) -> Target:
    """Return the target of checked values; the rules give what is None."""
    if method is None and datasource == "ffi" and tmag is not None and tmag <= _HALO_TMAG:
        method = "halo"
    if cadence is None:
        cadence = defaults.cadence or _cadence_of(datasource, sector)
    if cbv_area is None:
        cbv_area = camera * 100 + ccd * 10
    return Target(starid, datasource, sector, camera, ccd, cadence, method, tmag, cbv_area)


#: What is larger is looked at more closely: it may be more than 64 bits, or infinite.
_LARGE = 2**60


def build_targets(located: Located, defaults: Defaults) -> Iterator[Target]:
    """Yield the targets of a row of any origin: two if its datasource is 'both'.

    Raises
    ------
    InvalidTargetError
    """
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
