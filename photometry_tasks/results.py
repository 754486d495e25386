"""What a pipeline hands back, checked and turned into the plain values of one diagnostics row. Pure."""

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from photometry_tasks.errors import InvalidResultError
from photometry_tasks.status import STATUS
from photometry_tasks.values import as_finite, as_integer, as_items, as_real, show

__all__ = ["Result", "check_result"]

#: Statuses that a result may bring: a task that has a result is not under way.
_RESULT_STATUSES = {status.value: status for status in STATUS if status is not STATUS.STARTED}

_REALS = ("mean_flux", "variance", "variability", "rms_hour", "ptp", "edge_flux", "contamination")


@dataclass(frozen=True, slots=True)
class Result:
    """A checked result.

    Attributes
    ----------
    priority : int
        The task that it belongs to.
    status : STATUS
        What the pipeline made of it.
    diagnostics : dict
        The values of its diagnostics row, by column, except `lightcurve` and `errors`.
    lightcurve : str or None
        Path of the light curve.
    errors : tuple of str
        What went wrong.
    skip_targets : tuple of int
        Stars whose light lies in the aperture.
    task : dict
        What it says of its task (sector, camera, ccd, cadence, datasource, starid, tmag): only what it has.
    """

    priority: int
    status: STATUS
    diagnostics: dict[str, Any]
    lightcurve: str | None
    errors: tuple[str, ...]
    skip_targets: tuple[int, ...]
    task: dict[str, Any]


def check_result(result: Mapping[str, Any]) -> Result:
    """Check a result and return its values as plain numbers and texts.

    Parameters
    ----------
    result : mapping
        The task as it was handed out, with `status`, `method_used`, `time` (seconds) and optionally
        `worker_wait_time` (seconds) and `details`. It is not changed.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If a field is missing or is not what it should be; it is named, with its value.
    """
    if not isinstance(result, Mapping):
        raise InvalidResultError(priority="?", field="result", value=show(result), remedy="a dict is expected")
    field = _Fields(result, result.get("priority", "?"))
    priority = field.required("priority", as_integer)
    details = result.get("details")
    detail = _Fields({} if details is None else details, priority, prefix="details.")
    column, row = detail.optional("pos_centroid", _pair_of_reals) or (None, None)
    height, width = detail.optional("stamp", _size_of_stamp) or (None, None)
    return Result(
        priority=priority,
        status=field.required("status", _as_status),
        diagnostics={
            "method_used": field.required("method_used", _as_text),
            "elaptime": field.required("time", as_finite),
            "worker_wait_time": field.optional("worker_wait_time", _as_real_or_null),
            "pos_column": column,
            "pos_row": row,
            "stamp_height": height,
            "stamp_width": width,
            "stamp_resizes": detail.optional("stamp_resizes", _as_integer_or_null) or 0,
            "mask_size": detail.optional("mask_size", _as_integer_or_null),
            **{name: detail.optional(name, _as_real_or_null) for name in _REALS},
        },
        lightcurve=detail.optional("filepath_lightcurve", _as_path),
        errors=detail.optional("errors", _as_texts) or (),
        skip_targets=detail.optional("skip_targets", _as_integers) or (),
        task={
            name: value
            for name, convert in _TASK_FIELDS.items()
            if (value := field.optional(name, convert)) is not None
        },
    )


class _Fields:
    """The fields of a mapping, converted; an error names the field, its value and the task."""

    def __init__(self, values: Any, priority: object, prefix: str = "") -> None:
        self._priority = priority
        self._prefix = prefix
        if not isinstance(values, Mapping):
            raise self._error("", values, "a dict is expected")
        self._values = values

    def required(self, name: str, convert: Any) -> Any:
        if name not in self._values:
            raise self._error(name, None, "it is missing")
        return self._convert(name, convert)

    def optional(self, name: str, convert: Any) -> Any:
        return None if self._values.get(name) is None else self._convert(name, convert)

    def _convert(self, name: str, convert: Any) -> Any:
        value = self._values[name]
        try:
            return convert(value)
        except ValueError as error:
            raise self._error(name, value, str(error)) from None

    def _error(self, name: str, value: object, remedy: str) -> InvalidResultError:
        field = f"{self._prefix}{name}".rstrip(".")
        return InvalidResultError(priority=self._priority, field=field, value=show(value), remedy=remedy)


def _as_status(value: object) -> STATUS:
    try:
        # A pipeline has an enum of its own, with the same values.
        return _RESULT_STATUSES[as_integer(value.value if isinstance(value, enum.Enum) else value)]
    except (KeyError, ValueError):
        names = ", ".join(f"{status.name} ({number})" for number, status in _RESULT_STATUSES.items())
        raise ValueError(f"one of {names} is expected") from None


def _as_real_or_null(value: object) -> float | None:
    if value is None:
        return None
    number = as_real(value)
    return None if number != number else number


def _as_integer_or_null(value: object) -> int | None:
    """Accept a float too where it is a whole number: NumPy's sums and sizes come as floats."""
    try:
        return as_integer(value)
    except ValueError:
        number = as_real(value)
        if number != number:
            return None
        if not number.is_integer():
            raise
        return as_integer(int(number))


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected")
    # No database can hold NUL in a text, nor UTF-8 a lone surrogate (a file name in another encoding).
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _as_path(value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ValueError("a path is expected")
    return _as_text(os.fsdecode(value))


def _as_texts(value: object) -> tuple[str, ...]:
    return (_as_text(value),) if isinstance(value, str) else tuple(map(_as_text, as_items(value)))


def _as_integers(value: object) -> tuple[int, ...]:
    return tuple(map(as_integer, as_items(value)))


def _as_sequence(value: object, length: int, expected: str) -> list[Any]:
    items = as_items(value)
    if len(items) != length:
        raise ValueError(f"{expected} is expected")
    return items


def _pair_of_reals(value: object) -> tuple[float | None, float | None]:
    column, row = _as_sequence(value, 2, "(column, row)")
    return _as_real_or_null(column), _as_real_or_null(row)


def _size_of_stamp(value: object) -> tuple[int, int]:
    row1, row2, column1, column2 = map(as_integer, _as_sequence(value, 4, "(row1, row2, col1, col2)"))
    return as_integer(row2 - row1), as_integer(column2 - column1)


_TASK_FIELDS: dict[str, Any] = {
    "starid": as_integer,
    "sector": as_integer,
    "camera": as_integer,
    "ccd": as_integer,
    "cadence": as_integer,
    "datasource": _as_text,
    "tmag": _as_real_or_null,
}
