"""The rules of a target: the valid values of each column of a list, and the arguments for values that it lacks.

The type of a column is its rule, and msgspec checks a column as a whole. Values of other types, such as NumPy's, are
turned into plain values first, one by one; few lists have them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, repeat
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, ValidationError, convert

from photometry_tasks.errors import InvalidTargetError
from photometry_tasks.rules.validation import (
    BRIGHTEST,
    FAINTEST,
    as_integer,
    as_real,
    check_positive,
    invalid_argument,
    show,
)

#: Stands for the magnitude of a row without this column: its name may be misspelt.
MISSING = object()

#: The columns that need a value in each row, or an argument.
_REQUIRED = ("starid", "camera", "ccd", "sector", "datasource")

#: Seconds. The longest cadence of target pixel files; full-frame images have longer cadences.
_LONGEST_OF_PIXEL_FILES = 120


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


@dataclass(frozen=True)
class Chunk:
    """Some rows of a list, by column.

    Attributes
    ----------
    columns : mapping
        The values of each column, by our names; None stands for no value.
    number : int
        The number of rows.
    locate : callable
        Returns the place of a row, for errors.
    theirs : mapping
        The source's names of our columns.
    """

    columns: Mapping[str, Sequence[Any]]
    number: int
    locate: Callable[[int], str]
    theirs: Mapping[str, str] = field(default_factory=dict)


class _InvalidValueError(ValueError):
    """The number of a row in its chunk, and the problem with a column of it."""


def build_targets(chunk: Chunk, defaults: Defaults) -> dict[str, Sequence[Any]]:
    """Return the targets of some rows, by column: two targets of a row if its datasource is 'both'.

    A column without any value is left out.

    Raises
    ------
    InvalidTargetError
        If a row is invalid. The error names the first such row, and its first such column.
    """
    targets: dict[str, Sequence[Any]] = {}
    for name in _RULES:
        try:
            if name != "cadence":
                values = _check(name, chunk, getattr(defaults, name, None))
            else:
                values = _complete_cadences(_check(name, chunk, None), targets["datasource"], defaults)
        except _InvalidValueError as error:
            place, problem = error.args
            if place:  # an earlier row may have an error in a later column
                before = {other: given[:place] for other, given in chunk.columns.items()}
                build_targets(replace(chunk, columns=before, number=place), defaults)
            problem = f"column {chunk.theirs.get(name, name)}{problem}"
            raise InvalidTargetError(where=chunk.locate(place), problem=problem) from None
        if values is not None:
            targets[name] = values
    return _double(targets) if defaults.datasource == "both" else targets


def _check(name: str, chunk: Chunk, default: Any) -> Sequence[Any] | None:
    """Return the plain values of a column, with the default in place of None; None if it has no value."""
    given = chunk.columns.get(name)
    if given is None and name == "tmag":
        given = [MISSING]
    if given is None or (given[0] is None and all(value is None for value in given)):
        if default is None and name in _REQUIRED:
            raise _InvalidValueError(0, _describe_lack(name))
        return None if default is None else [default] * chunk.number
    rule = _RULES[name]
    with suppress(ValueError, TypeError):
        return rule.convert_all(given)
    checked = []
    for place, value in enumerate(given):
        if value is MISSING:
            raise _InvalidValueError(place, " is missing; give None for a star without a magnitude")
        if value is None and default is None and name in _REQUIRED:
            raise _InvalidValueError(place, _describe_lack(name))
        try:
            checked.append(default if value is None else rule.convert(value))
        except ValueError as error:
            raise _InvalidValueError(place, f": {show(value)}: {error}") from None
    return checked


def _describe_lack(name: str) -> str:
    return " has no value" + ("; give it with --sector, or `sector=`" if name == "sector" else "")


def _complete_cadences(
    cadences: Sequence[Any] | None, sources: Sequence[str], defaults: Defaults
) -> Sequence[Any] | None:
    """Return cadences with the argument in place of None."""
    if not defaults.cadence and (cadences is None or defaults.datasource != "both"):
        return cadences
    cadences = cadences or [None] * len(sources)
    for place, (cadence, source) in enumerate(zip(cadences, sources, strict=True)):
        if cadence is not None and source == "both":
            problem = f": {cadence}: the two tasks of datasource='both' have different cadences"
            raise _InvalidValueError(place, f"{problem}; leave it empty, or add a column datasource")
        if cadence is None and defaults.cadence and (source == "ffi") != (defaults.datasource == "ffi"):
            problem = f" has no value, and {defaults.cadence} s is for datasource={defaults.datasource!r}"
            raise _InvalidValueError(place, f"{problem}, not {source!r}; give the row its own cadence")
    return [defaults.cadence if cadence is None else cadence for cadence in cadences]


def _double(targets: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return two targets in place of each with the datasource 'both'."""
    sources = [("tpf", "ffi") if source == "both" else (source,) for source in targets["datasource"]]
    doubled = {
        name: list(chain.from_iterable(map(repeat, values, map(len, sources)))) for name, values in targets.items()
    }
    return {**doubled, "datasource": list(chain.from_iterable(sources))}


# --- the values of a column ------------------------------------------------------------------------------


class _Texts(NamedTuple):
    """The rule for a column of texts: a function that returns a value as it is stored."""

    convert: Callable[[Any], str | None]

    def convert_all(self, values: Sequence[Any]) -> list[str | None]:
        """Return plain values; each text is converted once."""
        plain = {text: self.convert(text) for text in set(values)}
        return [plain[text] for text in values]


class _Numbers(NamedTuple):
    """The rule for a column of numbers.

    Attributes
    ----------
    kind : type
        int or float.
    column : Any
        The type of a list of these numbers with their range, for msgspec.
    spelling : re.Pattern
        The characters of these numbers as texts.
    expected : str
        The error for a number outside the range.
    """

    kind: type
    column: Any
    spelling: re.Pattern[str]
    expected: str

    def convert(self, value: Any) -> float | None:
        """Return a value of any type as a plain number."""
        number = _as_magnitude(value) if self.kind is float else _as_whole(value)
        try:
            return None if number is None else self.convert_all([number])[0]
        except ValidationError:
            raise ValueError(self.expected) from None

    def convert_all(self, values: Sequence[Any]) -> list[Any]:
        """Return plain numbers; a ValueError or TypeError says that a value needs `convert`."""
        if type(values[0]) is str:
            if not self.spelling.fullmatch("".join(values)):
                raise ValueError
            values = list(map(self.kind, values))
        numbers: list[Any] = convert(values, self.column)
        return numbers


def _as_whole(value: object) -> int:
    if isinstance(value, str):
        # int() also accepts "1_000" and the digits of other scripts.
        if not (value.isascii() and value.isdigit()):
            raise ValueError("a whole number is expected")
        value = int(value.lstrip("0")[:20] or 0)  # 20 digits exceed 64 bits
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # a DataFrame turns integers into floats where a value is missing
    return as_integer(value)


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
    if isinstance(value, str):
        if value in ("ffi", "tpf"):
            return str(value)
        if value.startswith("tpf:"):
            with suppress(ValueError):
                return f"tpf:{_POSITIVE.convert(value[4:])}"  # one spelling of each target: never tpf:0012
    raise ValueError("'ffi', 'tpf' or 'tpf:<starid>' is expected")


def _as_method(value: object) -> str | None:
    if not isinstance(value, str):
        raise ValueError("a text is expected")
    if not value.isprintable():
        raise ValueError("a text of printable characters is expected")  # a database refuses NUL and lone surrogates
    return str(value) or None


_whole = partial(_Numbers, int, spelling=re.compile("[0-9]+"))

# The values that exist for TESS. Catalogues write "unknown" as a number outside, such as 0, -1, 99 or -999.
_POSITIVE = _whole(list[Annotated[int, Meta(ge=1, le=2**63 - 1)]], expected="a positive number is expected")
_FOUR = _whole(list[Annotated[int, Meta(ge=1, le=4)]], expected="a number from 1 to 4 is expected")
_AREA = _whole(
    list[Annotated[int, Meta(ge=110, le=444)]],
    expected="a number from 110 to 444 is expected; leave it empty if it is unknown",
)
_MAGNITUDE = _Numbers(
    float,
    list[Annotated[float, Meta(ge=BRIGHTEST, le=FAINTEST)]],
    re.compile("[-+.0-9eE]+"),
    "a magnitude from -10 to 30 is expected; leave it empty (None) if it is unknown",
)

#: The rules in the order of their checks.
_RULES: dict[str, _Numbers | _Texts] = {
    "starid": _POSITIVE,
    "camera": _FOUR,
    "ccd": _FOUR,
    "sector": _POSITIVE,
    "tmag": _MAGNITUDE,
    "datasource": _Texts(_as_datasource),
    "method": _Texts(_as_method),
    "cadence": _POSITIVE,
    "cbv_area": _AREA,
}

#: The columns that a list may have.
USED = tuple(_RULES)
