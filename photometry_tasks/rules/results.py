"""Check a pipeline's result, and turn it into a record of plain values. Pure.

The types of `Result` and `Details` are the rules, and their methods `__post_init__` state what a type cannot say.
msgspec applies both to the result that a pipeline hands in, and to a result that is read from a log. Values of other
types than these, such as NumPy's, are turned into plain values first; that takes longer than all the rest.

The stores decide whether a result comes too late: `storage/postgresql/store.py`, and `taskmanager.py` reports it.
"""

import enum
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from operator import attrgetter
from typing import Annotated, Any

from msgspec import Meta, Struct, ValidationError, convert, field
from msgspec.structs import force_setattr

from photometry_tasks.errors import InvalidResultError
from photometry_tasks.rules.validation import as_integer, as_items, as_real, as_scalar, as_text, is_one_letter_off, show
from photometry_tasks.status import FAILED, STATUS

#: The kind of a failure whose result was refused.
INVALID_RESULT = "invalid result"

#: The longest kind, characters: a database limits the length of a value in an index.
LONGEST_KIND = 200

#: The most bytes of the pipeline's own values, as JSON.
_LARGEST_EXTRA = 2**16

_STARTED = STATUS.STARTED
#: Statuses that a result may have: a task with a result is no longer STARTED.
_RESULT_STATUSES = {status.value: status for status in STATUS if status is not _STARTED}

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
#: The difference of two corners of a stamp needs one bit more.
_Corner = Annotated[int, Meta(ge=-(2**62), le=2**62)]


class Measured(Struct, frozen=True, omit_defaults=True):
    """Values that have the same name in the details and in `diagnostics`."""

    mean_flux: float | None = None
    variance: float | None = None
    variability: float | None = None
    rms_hour: float | None = None
    ptp: float | None = None
    contamination: float | None = None
    edge_flux: float | None = None
    mask_size: Integer | None = None
    stamp_resizes: Integer | None = None


_MEASURED = Measured.__struct_fields__
_COUNTS = ("mask_size", "stamp_resizes")
_REALS = tuple(name for name in _MEASURED if name not in _COUNTS)
_pick_measured, _pick_reals = attrgetter(*_MEASURED), attrgetter(*_REALS)


class _FieldError(ValueError):
    """A field is refused: its name, and the remedy."""


class Details(Measured, frozen=True, omit_defaults=True):
    """The details of a result: see `TaskManager.save_result`."""

    filepath_lightcurve: str | None = None
    pos_centroid: tuple[float | None, float | None] | None = None
    stamp: tuple[_Corner | None, _Corner | None, _Corner | None, _Corner | None] | None = None
    errors: tuple[str, ...] = ()
    skip_targets: tuple[Integer, ...] = ()
    kind: str | None = None
    extra: Any = None

    def __post_init__(self) -> None:
        for name, number in zip(_REALS, _pick_reals(self), strict=True):
            if not number or number != number:
                force_setattr(self, name, _clear(number))
        if self.pos_centroid is not None:
            column, row = self.pos_centroid
            force_setattr(self, "pos_centroid", (_clear(column), _clear(row)))
        if (path := self.filepath_lightcurve) is not None:
            # Path("") is "."; programs write an empty text for a missing one.
            force_setattr(self, "filepath_lightcurve", as_text(path) if path != "." and path.strip() else None)
        if self.errors:
            plain = tuple(map(as_text, self.errors)) if any(map(str.strip, self.errors)) else ()
            force_setattr(self, "errors", plain)
        if self.kind is not None:
            kind = " ".join(as_text(self.kind).split())  # one line: it is shown in tables
            if len(kind) > LONGEST_KIND:
                raise _FieldError("details.kind", f"a text of at most {LONGEST_KIND} characters is expected")
            force_setattr(self, "kind", kind or None)
        if self.extra is not None:
            force_setattr(self, "extra", _check_extra(self.extra) or None)


class TaskTarget(Struct, frozen=True):
    """The target of a task, as the table holds it: other programs may have stored values of any type."""

    starid: Any
    datasource: Any
    sector: Any
    camera: Any
    ccd: Any
    cadence: Any


class Result(Struct, frozen=True, omit_defaults=True):
    """A checked result: its task, as far as the pipeline said it, and what the pipeline found.

    Attributes
    ----------
    priority : int
        Priority of its task.
    status : STATUS
        Status that the pipeline gave the task.
    method_used : str
        The method of photometry.
    time : float
        Run time, seconds.
    worker_wait_time : float or None
        Time that the worker waited for the task, seconds.
    details : Details
    starid, datasource, sector, camera, ccd, cadence, tmag
        The target, as in the result; None if absent there.
    attempt : int or None
        Number of the attempt, as in the result; None if absent there.
    unknown : tuple of str
        Keys of the details that are not stored.
    peak_memory : int or None
        Largest resident memory of the worker process, bytes.
    """

    priority: Integer
    status: Any
    method_used: str
    time: float
    worker_wait_time: float | None = None
    details: Details = field(default_factory=Details)
    starid: Integer | None = None
    datasource: str | None = None
    sector: Integer | None = None
    camera: Integer | None = None
    ccd: Integer | None = None
    cadence: Integer | None = None
    tmag: float | None = None
    attempt: Integer | None = None
    unknown: tuple[str, ...] = ()
    peak_memory: Integer | None = None

    def __post_init__(self) -> None:
        if type(self.status) is not STATUS or self.status is _STARTED:
            force_setattr(self, "status", _read_status(self.status))
        force_setattr(self, "method_used", as_text(self.method_used))
        if not math.isfinite(self.time):
            raise _FieldError("time", "a finite number is expected")
        force_setattr(self, "worker_wait_time", _clear(self.worker_wait_time))
        force_setattr(self, "tmag", _clear(self.tmag))
        if (datasource := self.datasource) is not None:
            force_setattr(self, "datasource", as_text(datasource) if datasource.strip() else None)
        if self.details.kind is not None and self.status not in FAILED:
            force_setattr(self.details, "kind", None)

    @property
    def target(self) -> TaskTarget:
        """The target, as far as the result names it."""
        return TaskTarget(self.starid, self.datasource, self.sector, self.camera, self.ccd, self.cadence)

    @property
    def lacks_target(self) -> bool:
        """Whether the result does not name its target in full."""
        return None in (self.starid, self.datasource, self.sector, self.camera, self.ccd, self.cadence)


def build_diagnostics(result: Result) -> dict[str, Any]:
    """Return the row of `diagnostics` of a result: a value for each column of the model, by name."""
    details = result.details
    row: dict[str, Any] = dict(zip(_MEASURED, _pick_measured(details), strict=True))
    row["priority"] = result.priority
    row["lightcurve"] = details.filepath_lightcurve
    row["method_used"] = result.method_used
    row["elaptime"] = result.time
    row["worker_wait_time"] = result.worker_wait_time
    row["pos_column"], row["pos_row"] = details.pos_centroid or (None, None)
    row1, row2, column1, column2 = details.stamp or (None, None, None, None)
    row["stamp_height"] = None if row1 is None or row2 is None else row2 - row1
    row["stamp_width"] = None if column1 is None or column2 is None else column2 - column1
    row["stamp_resizes"] = details.stamp_resizes or 0
    row["errors"] = join_errors(details.errors)
    return row


def join_errors(errors: Iterable[str]) -> str | None:
    """Return error messages as they are stored."""
    return "\n".join(errors) or None


def _clear(number: float | None) -> float | None:
    """Return a number without the sign of a zero, which SQLite does not keep, and None for NaN."""
    return None if number is None or number != number else number + 0.0


def _read_status(value: Any) -> STATUS:
    """Return the status with a value; a pipeline may have its own enum with the same values."""
    with suppress(Exception):  # the number may be of any class
        return _RESULT_STATUSES[_as_key(value.value if isinstance(value, enum.Enum) else value)]
    if isinstance(value, str) and value in STATUS.__members__ and STATUS[value] is not _STARTED:
        raise _FieldError("status", f"a text is no status; give STATUS.{value} or its number, {STATUS[value].value}")
    names = ", ".join(f"{status.name} ({number})" for number, status in _RESULT_STATUSES.items())
    raise _FieldError("status", f"one of {names} is expected")


def _check_extra(extra: object) -> dict[str, Any]:
    """Return the pipeline's own values as plain values."""
    if not isinstance(extra, Mapping):
        raise _FieldError("details.extra", "a dict is expected")
    plain = {}
    for name, item in extra.items():
        if not isinstance(name, str) or not re.fullmatch(r"\w{1,100}", name):
            problem = f"the name {show(name)}: at most 100 letters, digits and underscores are expected"
            raise _FieldError("details.extra", problem)
        try:
            plain[str(name)] = as_scalar(item)
        except Exception as error:
            raise _FieldError("details.extra", f"{name}={show(item)}: {error}") from None
    if (size := len(encode_extra(plain).encode())) > _LARGEST_EXTRA:
        problem = f"at most {_LARGEST_EXTRA:,} bytes as JSON are expected, not {size:,}; write a file instead"
        raise _FieldError("details.extra", problem)
    return plain


def encode_extra(extra: Mapping[str, Any]) -> str:
    """Return the pipeline's own values as a JSON object."""
    items = []
    for name, item in extra.items():
        text = json.dumps(item, ensure_ascii=False)
        if isinstance(item, float) and math.isinf(item):
            text = text.replace("Infinity", "1e999")  # JSON has no infinity; readers take this number for it
        items.append(f"{json.dumps(name, ensure_ascii=False)}: {text}")
    return f"{{{', '.join(items)}}}"


# --- the check -------------------------------------------------------------------------------------------


def check_result(result: Mapping[str, Any] | Result) -> Result:
    """Check a result, and return it as a record of plain numbers and texts.

    Parameters
    ----------
    result : mapping
        The task as `get_task` or `claim_tasks` returned it, with `status`, `method_used`, `time` (seconds) and
        optionally `worker_wait_time` (seconds) and `details`. The mapping is not changed.

    Returns
    -------
    Result

    Raises
    ------
    InvalidResultError
        If fields are missing or have a wrong type or value. The message names each of them and its value.
    """
    if isinstance(result, Result):
        return result  # already checked
    if type(result) is not dict and not isinstance(result, Mapping):
        raise InvalidResultError(priority="?", faults=[f"result={show(result)}: a dict is expected"])
    given: Mapping[str, Any] = result
    faults: dict[str, str] = {}
    if not _KEYS.issuperset(result):
        given, faults = _pick_fields(result)
    details = given.get("details")
    try:
        if details is not None and type(details) is not dict and not isinstance(details, Mapping):
            raise _FieldError  # noqa: TRY301 - msgspec would take an array for a mapping; `_make_plain` refuses it
        checked = convert(given, Result)
    except (ValidationError, _FieldError, UnicodeEncodeError):  # the last for a lone surrogate
        checked = _convert_plain(given, faults)
    if faults:
        faults |= _find_unknown(given.get("details"))
        task = show(result["priority"]) if "priority" in result else "?"
        raise InvalidResultError(priority=task, faults=_describe_faults({**result, **given}, faults))
    if details and not DETAILS.issuperset(details):
        force_setattr(checked, "unknown", tuple(as_text(str(key)) for key in details if key not in DETAILS))
    return checked


def describe_unknown(key: str) -> str:
    """Return the warning of a key of the details that is not stored."""
    near = get_close_matches(key, DETAILS, n=1)
    hint = f"is it {near[0]!r}?" if near else "give a value of your own in details['extra'], which is kept"
    return f"details[{key!r}] is not stored; {hint}"


def _pick_fields(result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of a result, and a fault for each other key that is one letter off a key that is absent."""
    given = {name: result[name] for name in _FIELDS if name in result}
    faults = {}
    for key in result:
        if key not in _KEYS and isinstance(key, str):
            for known in _OWN_KEYS:
                if known not in result and is_one_letter_off(key, known):
                    faults[key] = f"this key does not exist, it is spelled `{known}`"
                    given[known] = result[key]
    return given, faults


def _find_unknown(details: object) -> dict[str, str]:
    """Return a fault for each key of the details that looks like a known one; alone it would give a warning."""
    keys = [key for key in details if isinstance(key, str)] if isinstance(details, Mapping) else []
    near = {key: get_close_matches(key, DETAILS, n=1) for key in keys if key not in DETAILS}
    return {f"details.{key}": f"this key is not stored; is it {names[0]!r}?" for key, names in near.items() if names}


def _describe_faults(result: Mapping[str, Any], faults: Mapping[str, str]) -> Iterator[str]:
    for name, fault in faults.items():
        field = name.removeprefix("details.")
        values = result if field == name else result["details"]
        yield f"{name}={show(values[field])}: {fault}" if field in values else f"{name} is missing: {fault}"


def _convert_plain(given: Mapping[str, Any], faults: dict[str, str]) -> Result:
    """Return the record of a result with values of other types, and add what is wrong to the faults, by field.

    A valid value takes the place of each wrong one, because msgspec names only the first.
    """
    plain = _make_plain(given, faults)
    while True:
        try:
            return convert(plain, Result)
        except (ValidationError, _FieldError) as error:
            field, fault = _explain(error)
        *outer, name = field.split(".")
        values = plain["details"] if outer else plain
        if name in _REQUIRED and name not in values:
            values[name] = _MISSING  # msgspec then says what it expects
            continue
        faults[field] = fault
        if name in _REQUIRED:
            values[name] = _REQUIRED[name]
        else:
            del values[name]


def _explain(error: Exception) -> tuple[str, str]:
    """Return the name of the field that is refused, and what is expected."""
    cause = error if isinstance(error, _FieldError) else error.__cause__
    if isinstance(cause, _FieldError):
        field, remedy = cause.args
        return field, remedy
    message, _, place = str(error).partition(" - at `$")
    if not place:
        return message.split("`")[1], ""  # a missing field
    field = place.strip(".`").partition("[")[0]
    found = _EXPECTED.match(message)
    words = _WORDS[found[1]] if found else "a number of at most 64 bits"
    if found and found[2]:
        words += " of at most 64 bits"
    elif field in _FIELD_WORDS and found and (found[1] == "str" or "of length" in message):
        words = _FIELD_WORDS[field]
    return field, f"{words} is expected"


#: How msgspec says what it expects, with the limit of an integer.
_EXPECTED = re.compile(r"Expected `(\w+)[^`]*`( [<>]=)?")
_WORDS = {"int": "an integer", "float": "a number", "str": "a text", "array": "a list", "object": "a dict"}
_FIELD_WORDS = {
    "details.filepath_lightcurve": "a path",
    "details.pos_centroid": "(column, row)",
    "details.stamp": "(row1, row2, col1, col2)",
}


# --- values of other types -------------------------------------------------------------------------------

#: Functions that turn a value of a field into a plain value, or raise a ValueError if it has none.
_Plain = Mapping[str, Callable[[Any], Any]]


def _make_plain(result: Mapping[str, Any], faults: dict[str, str]) -> dict[str, Any]:
    """Return a result with plain values in the place of others that mean the same; msgspec judges the rest.

    Values that cannot be read are added to the faults.
    """
    plain = _make_each_plain(result, _PLAIN, "", faults)
    details = result.get("details")
    if isinstance(details, Mapping):
        plain["details"] = _make_each_plain(details, _PLAIN_DETAILS, "details.", faults)
    elif plain.pop("details", None) is not None:
        faults["details"] = "a dict is expected"
    return plain


def _make_each_plain(values: Mapping[str, Any], plain: _Plain, prefix: str, faults: dict[str, str]) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        if name not in _KNOWN or (value is None and name not in _REQUIRED):
            continue  # an absent field, or a key of any type
        try:
            found[str.__str__(name)] = _try(plain.get(name, _as_given), value)  # a member of a StrEnum is a key too
        except Exception as error:
            faults[f"{prefix}{name}"] = f"the value cannot be read ({error!r})"
            if name in _REQUIRED:
                found[name] = _REQUIRED[name]
    return found


def _as_count(value: object) -> int | None:
    """Return an integer; a float with a whole number counts as one, since NumPy's sums and sizes are often floats."""
    try:
        return as_integer(value)
    except ValueError:
        number = as_real(value)
        if number != number:
            return None
        if not number.is_integer():
            raise
        return int(number)


def _as_key(value: object) -> int:
    """Return an integer that names one thing; of whole floats only those that cannot be the rounding of another."""
    with suppress(ValueError):
        return as_integer(value)
    number = _as_count(value)
    bits = {2: 11, 4: 24}.get(getattr(getattr(value, "dtype", None), "itemsize", 8), 53)  # of the significand
    if number is None or abs(number) >= 2**bits:
        raise ValueError("an integer is expected")
    return number


def _as_path(value: str | os.PathLike[str]) -> str:
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _as_errors(value: object) -> list[Any]:
    return [value] if isinstance(value, str) else as_items(value)


def _as_list_of(convert_item: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def as_list(value: object) -> list[Any]:
        return [_try(convert_item, item) for item in as_items(value)]

    return as_list


def _try(convert_value: Callable[[Any], Any], value: Any) -> Any:
    """Return a converted value, or the value itself, which msgspec then refuses; a text is one that it can read."""
    with suppress(ValueError):
        value = convert_value(value)
    return as_text(value) if isinstance(value, str) else value


def _as_given(value: Any) -> Any:
    return value


_KEYS_OF_TASK = ("priority", "starid", "sector", "camera", "ccd", "cadence", "attempt")
_PLAIN: _Plain = {
    **dict.fromkeys(_KEYS_OF_TASK, _as_key),
    **dict.fromkeys(("time", "worker_wait_time", "tmag"), as_real),
}
_PLAIN_DETAILS: _Plain = {
    **dict.fromkeys(_REALS, as_real),
    **dict.fromkeys(_COUNTS, _as_count),
    "filepath_lightcurve": _as_path,
    "pos_centroid": _as_list_of(as_real),
    "stamp": _as_list_of(_as_count),
    "errors": _as_errors,
    "skip_targets": _as_list_of(_as_key),
}

#: The fields that each result has, with valid values.
_REQUIRED: Mapping[str, Any] = {"priority": 0, "status": 0, "method_used": "", "time": 0.0}
_MISSING = object()
#: The keys that the pipeline adds to the task, the fields that it gives, and all keys of a result.
_OWN_KEYS = ("status", "method_used", "time", "worker_wait_time", "details")
_FIELDS = tuple(name for name in Result.__struct_fields__ if name not in ("unknown", "peak_memory"))
_KEYS = frozenset((*_FIELDS, "method"))
DETAILS = frozenset(Details.__struct_fields__)
_KNOWN = _KEYS | DETAILS

#: Columns of diagnostics that have a source. Not read from the model: workers, which check results, need no SQLAlchemy.
COLUMNS = frozenset(build_diagnostics(Result(priority=0, status=STATUS.OK, method_used="", time=0.0)))
