"""Check a pipeline's result, and turn it into the plain values of one row of diagnostics. Pure.

The stores decide whether a result comes too late: `storage/postgresql/store.py`, and `taskmanager.py` reports it.
"""

import enum
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from photometry_tasks.errors import InvalidResultError
from photometry_tasks.rules.validation import (
    as_finite,
    as_integer,
    as_items,
    as_real,
    as_scalar,
    as_text,
    is_one_letter_off,
    show,
)
from photometry_tasks.status import FAILED, STATUS

#: Statuses that a result may have: a task with a result is no longer STARTED.
_RESULT_STATUSES = {status.value: status for status in STATUS if status is not STATUS.STARTED}


class Result(NamedTuple):
    """A checked result.

    Attributes
    ----------
    priority : int
        Priority of its task.
    status : STATUS
        Status that the pipeline gave the task.
    diagnostics : dict
        Its row of `diagnostics`: a value for each column of the model, by name.
    errors : tuple of str
        Error messages of the pipeline.
    skip_targets : tuple of int
        Ids of the stars in the aperture.
    target : dict
        Starid, datasource, sector, camera, ccd, cadence and tmag of the task, as in the result; None if absent there.
    attempt : int or None
        Number of the attempt, as in the result; None if absent there.
    kind : str or None
        Kind of the failure; None if the task did not fail, or the pipeline gave no kind.
    extra : str or None
        The pipeline's own values as a JSON object.
    unknown : tuple of str
        Keys of the details that are not stored.
    peak_memory : int or None
        Largest resident memory of the worker process, bytes.
    """

    priority: int
    status: STATUS
    diagnostics: dict[str, Any]
    errors: tuple[str, ...]
    skip_targets: tuple[int, ...]
    target: dict[str, Any]
    attempt: int | None = None
    kind: str | None = None
    extra: str | None = None
    unknown: tuple[str, ...] = ()
    peak_memory: int | None = None


#: The kind of a failure whose result was refused.
INVALID_RESULT = "invalid result"

#: The longest kind, characters: a database limits the length of a value in an index.
LONGEST_KIND = 200

#: The most bytes of the pipeline's own values, as JSON.
_LARGEST_EXTRA = 2**16

#: Names of fields, each with a conversion to plain values. A conversion raises a ValueError with the expected type.
_Fields = Sequence[tuple[str, Callable[[Any], Any]]]

_TASK_INTEGERS = ("starid", "sector", "camera", "ccd", "cadence", "attempt")
_TASK_REALS = ("tmag", "worker_wait_time")
#: Columns of diagnostics; each holds the number of the same name in the details.
_STATISTICS = ("mean_flux", "variance", "variability", "rms_hour", "ptp", "contamination", "edge_flux")
_COUNTS = ("mask_size", "stamp_resizes")
_NUMBERS = _STATISTICS + _COUNTS

#: Nearly all fields have these types already: one test covers them all.
_PLAIN_REALS, _PLAIN_INTEGERS = {float, type(None)}, {int, type(None)}
_LARGE = 2**62


def check_result(result: Mapping[str, Any] | Result) -> Result:
    """Check a result, and return its values as plain numbers and texts.

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
        If a field is missing or has a wrong type or value. The message names the field and its value.
    """
    if isinstance(result, Result):
        return result  # already checked
    if not isinstance(result, Mapping):
        raise InvalidResultError(priority="?", field="result", value=show(result), remedy="a dict is expected")
    details = {} if result.get("details") is None else result["details"]
    try:
        if not _RESULT_KEYS.issuperset(result):
            _check_spelling(result)
        priority, status, method_used, elaptime, datasource = _read_each(result, _TASK, is_required=True)
        lightcurve, errors, skip_targets, centroid, stamp = _read_each(details, _OTHERS)
        has_own = not _USUAL_DETAILS.issuperset(details)
        kind, extra = _read_each(details, _OWN) if has_own else (None, None)
        tmag, wait_time, *statistics = _read_reals(result, details)
        starid, sector, camera, ccd, cadence, attempt, *counts = _read_integers(result, details)
    except _FieldError as error:
        values, name, remedy = error.args
        field, value = (f"details.{name}" if values is details else name), values.get(name)
        task = _show_priority(result)
        raise InvalidResultError(priority=task, field=field, value=show(value), remedy=remedy) from None
    except (AttributeError, TypeError):
        if isinstance(details, Mapping):
            raise
        remedy = "a dict is expected"
        task = _show_priority(result)
        raise InvalidResultError(priority=task, field="details", value=show(details), remedy=remedy) from None
    numbers: list[Any] = statistics + counts
    row: dict[str, Any] = dict(zip(_NUMBERS, numbers, strict=True))
    row["priority"] = priority
    row["lightcurve"] = lightcurve
    row["method_used"] = method_used
    row["elaptime"] = elaptime
    row["worker_wait_time"] = wait_time
    row["pos_column"], row["pos_row"] = centroid or (None, None)
    row["stamp_height"], row["stamp_width"] = stamp or (None, None)
    row["stamp_resizes"] = row["stamp_resizes"] or 0
    row["errors"] = "\n".join(errors) if errors else None
    target = {
        "starid": starid,
        "datasource": datasource,
        "sector": sector,
        "camera": camera,
        "ccd": ccd,
        "cadence": cadence,
        "tmag": tmag,
    }
    return Result(
        priority,
        status,
        row,
        errors or (),
        skip_targets or (),
        target,
        attempt,
        kind if status in FAILED else None,
        extra,
        tuple(str(key) for key in details if key not in DETAILS) if has_own else (),
    )


def _show_priority(result: Mapping[str, Any]) -> str:
    return show(result["priority"]) if "priority" in result else "?"


class _FieldError(Exception):
    """A wrong field: its mapping, its name, and the remedy."""


def _check_spelling(result: Mapping[str, Any]) -> None:
    """Check that no other key of a result is one letter off a key that the result lacks."""
    for key in result:
        if key not in _RESULT_KEYS and isinstance(key, str):
            for known in _OWN_KEYS:
                if known not in result and is_one_letter_off(key, known):
                    raise _FieldError(result, key, f"this key does not exist; it is spelled `{known}`")


def _read_each(values: Mapping[str, Any], fields: _Fields, *, is_required: bool = False) -> list[Any]:
    """Return the converted fields; an absent field is None, unless it is required."""
    found = []
    for name, convert in fields:
        value = values.get(name)
        try:
            found.append(None if value is None and not is_required else convert(value))
        except ValueError as error:
            raise _FieldError(values, name, error if name in values else "the field is missing") from None
        except Exception as error:
            raise _FieldError(values, name, f"the value cannot be read ({error!r})") from error
    return found


def _read_reals(result: Mapping[str, Any], details: Mapping[str, Any]) -> list[float | None]:
    """Return the fields of real numbers; NaN and an absent field are None."""
    found = [*map(result.get, _TASK_REALS), *map(details.get, _STATISTICS)]
    if not _PLAIN_REALS.issuperset(map(type, found)):
        found = _read_each(result, _with(as_real, _TASK_REALS)) + _read_each(details, _with(as_real, _STATISTICS))
    # SQLite does not keep the sign of a zero. PostgreSQL shall store the same value.
    return [None if number is None or number != number else number + 0.0 for number in found]


def _read_integers(result: Mapping[str, Any], details: Mapping[str, Any]) -> list[int | None]:
    """Return the fields of integers; an absent field is None."""
    found = [*map(result.get, _TASK_INTEGERS), *map(details.get, _COUNTS)]
    if _PLAIN_INTEGERS.issuperset(map(type, found)):
        for number in found:
            if number is not None and not -_LARGE < number < _LARGE:
                break
        else:
            return found
    return _read_each(result, _with(_as_key, _TASK_INTEGERS)) + _read_each(details, _with(_as_count, _COUNTS))


def _with(convert: Callable[[Any], Any], names: Sequence[str]) -> _Fields:
    return [(name, convert) for name in names]


def _as_status(value: object) -> STATUS:
    if type(value) is STATUS and value is not STATUS.STARTED:
        return value
    try:
        # A pipeline may have its own enum with the same values.
        return _RESULT_STATUSES[_as_key(value.value if isinstance(value, enum.Enum) else value)]
    except (KeyError, ValueError):
        names = ", ".join(f"{status.name} ({number})" for number, status in _RESULT_STATUSES.items())
        raise ValueError(f"one of {names} is expected") from None


def _as_real_or_null(value: object) -> float | None:
    if value is None:
        return None
    number = value if type(value) is float else as_real(value)
    return None if number != number else number + 0.0


def _as_count(value: object) -> int | None:
    """Return an integer; a float with a whole number counts as one, since NumPy's sums and sizes are often floats."""
    try:
        return as_integer(value)
    except ValueError:
        number = math.nan if value is None else as_real(value)
        if number != number:
            return None
        if not number.is_integer():
            raise
        return as_integer(int(number))


def _as_key(value: object) -> int:
    """Return an integer that names one thing; of whole floats only those that cannot be the rounding of another."""
    if type(value) is int and -_LARGE < value < _LARGE:  # as nearly all are
        return value
    try:
        return as_integer(value)
    except ValueError:
        number = _as_count(value)
        bits = {2: 11, 4: 24}.get(getattr(getattr(value, "dtype", None), "itemsize", 8), 53)  # of the significand
        if number is None or abs(number) >= 2**bits:
            raise
        return number


def _as_text_or_null(value: object) -> str | None:
    text = as_text(value)
    return text if text.strip() else None  # programs write an empty text for a missing one


def _as_datasource(value: object) -> str | None:
    return None if value is None else _as_text_or_null(value)  # the only field of these that may be absent


def _as_path(value: object) -> str | None:
    if not isinstance(value, (str, os.PathLike)):  # a union of types would be made anew at each call
        raise ValueError("a path is expected")
    path = value if type(value) is str else os.fsdecode(value)
    return None if path == "." else _as_text_or_null(path)  # Path("") is "."


def _as_texts(value: object) -> tuple[str, ...]:
    texts = (as_text(value),) if isinstance(value, str) else tuple(map(as_text, as_items(value)))
    return texts if any(map(str.strip, texts)) else ()


def _as_kind(value: object) -> str | None:
    kind = " ".join(as_text(value).split()) or None  # one line: it is shown in tables
    if kind is not None and len(kind) > LONGEST_KIND:
        raise ValueError(f"a text of at most {LONGEST_KIND} characters is expected")
    return kind


def _as_extra(value: object) -> str | None:
    """Return the pipeline's own values as a JSON object."""
    if not isinstance(value, Mapping):
        raise ValueError("a dict is expected")
    items = []
    for name, item in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"\w{1,100}", name):
            raise ValueError(f"the name {show(name)}: at most 100 letters, digits and underscores are expected")
        try:
            plain = as_scalar(item)
        except ValueError as error:
            raise ValueError(f"{name}={show(item)}: {error}") from None
        text = json.dumps(plain, ensure_ascii=False)
        if isinstance(plain, float) and math.isinf(plain):
            text = text.replace("Infinity", "1e999")  # JSON has no infinity; readers take this number for it
        items.append(f"{json.dumps(name, ensure_ascii=False)}: {text}")
    text = f"{{{', '.join(items)}}}"
    if (size := len(text.encode())) > _LARGEST_EXTRA:
        raise ValueError(f"at most {_LARGEST_EXTRA:,} bytes as JSON are expected, not {size:,}; write a file instead")
    return text if items else None


def _as_integers(value: object) -> tuple[int, ...]:
    return tuple(map(_as_key, as_items(value)))


def _as_sequence(value: object, length: int, expected: str) -> Sequence[Any]:
    items = value if type(value) is tuple else as_items(value)
    if len(items) != length:
        raise ValueError(f"{expected} is expected")
    return items


def _pair_of_reals(value: object) -> tuple[float | None, float | None]:
    column, row = _as_sequence(value, 2, "(column, row)")
    return _as_real_or_null(column), _as_real_or_null(row)


def _size_of_stamp(value: object) -> tuple[int | None, int | None]:
    row1, row2, column1, column2 = corners = _as_sequence(value, 4, "(row1, row2, col1, col2)")
    if set(map(type, corners)) == {int} and max(corners) < _LARGE and min(corners) > -_LARGE:
        return row2 - row1, column2 - column1
    return _difference(row1, row2), _difference(column1, column2)


def _difference(first: object, last: object) -> int | None:
    start, end = _as_count(first), _as_count(last)
    return None if start is None or end is None else as_integer(end - start)


_TASK: _Fields = (
    ("priority", _as_key),
    ("status", _as_status),
    ("method_used", as_text),
    ("time", as_finite),
    ("datasource", _as_datasource),
)
_OTHERS: _Fields = (
    ("filepath_lightcurve", _as_path),
    ("errors", _as_texts),
    ("skip_targets", _as_integers),
    ("pos_centroid", _pair_of_reals),
    ("stamp", _size_of_stamp),
)
_OWN: _Fields = (("kind", _as_kind), ("extra", _as_extra))
#: The keys that nearly all details have, and all known keys.
_USUAL_DETAILS = frozenset((*_NUMBERS, *(name for name, _ in _OTHERS)))
DETAILS = _USUAL_DETAILS | {name for name, _ in _OWN}
#: The keys that the pipeline adds to the task, and all keys of a result.
_OWN_KEYS = ("status", "method_used", "time", "worker_wait_time", "details")
_RESULT_KEYS = frozenset((*_OWN_KEYS, "priority", "datasource", "method", *_TASK_INTEGERS, *_TASK_REALS))

#: Columns of diagnostics that have a source. Not read from the model: workers, which check results, need no SQLAlchemy.
COLUMNS = frozenset(check_result({"priority": 0, "status": 1, "method_used": "", "time": 0.0}).diagnostics)
