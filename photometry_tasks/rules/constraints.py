"""Check the arguments of `build_constraints`. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, SupportsIndex, TypedDict

from photometry_tasks.rules.validation import as_items, check_finite, check_integer, invalid_argument

#: Names and plain values of constraints, hashable.
CheckedConstraints = tuple[tuple[str, Any], ...]

#: An integer or an iterable of integers; NumPy's scalars and arrays too.
Integers = SupportsIndex | Iterable[SupportsIndex]


class Constraints(TypedDict, total=False):
    """The arguments of `build_constraints`, for methods that pass them on."""

    priority: Integers | None
    starid: Integers | None
    sector: Integers | None
    cadence: Integers | Literal["ffi"] | None
    camera: Integers | None
    ccd: Integers | None
    cbv_area: Integers | None
    datasource: Literal["ffi", "tpf"] | None
    tmag_min: float | None
    tmag_max: float | None


def check_constraints(constraints: Mapping[str, Any]) -> CheckedConstraints:
    """Return constraints as plain values, which can be compared and stored.

    Parameters
    ----------
    constraints : mapping
        Arguments of `build_constraints`, except `return_list`.

    Raises
    ------
    TypeError
        If a name is not the name of a constraint.
    InvalidArgumentError
        As `build_constraints`.
    """
    for name in constraints:
        if name not in Constraints.__annotations__:
            raise TypeError(f"{name!r} is not a constraint; use {', '.join(Constraints.__annotations__)}")
    checked = tuple((name, _check(name, value)) for name, value in constraints.items() if value is not None)
    if "tmag_min" in constraints and "tmag_max" in constraints:
        limits: dict[str, Any] = dict(checked)
        if limits.get("tmag_min", -math.inf) > (most := limits.get("tmag_max", math.inf)):
            remedy = f"it is larger than the upper limit, {most}; exchange the two"
            raise invalid_argument("tmag_min", limits["tmag_min"], remedy)
    return checked


def _check(name: str, value: Any) -> int | float | str | tuple[int, ...]:
    if name in ("tmag_min", "tmag_max"):
        return check_finite(name, value, "leave it out for an open interval")
    if name == "datasource":
        if not isinstance(value, str) or value not in ("ffi", "tpf"):
            raise invalid_argument(name, value, "'ffi' or 'tpf' is expected")
        return value
    if name == "cadence" and isinstance(value, str):
        if value != "ffi":
            raise invalid_argument(name, value, "an integer, a list of integers or 'ffi' is expected")
        return value
    try:
        items = as_items(value)
    except ValueError:
        return check_integer(name, value)
    if set(map(type, items)) != {int} or min(items) < -(2**63) or max(items) >= 2**63:
        items = [check_integer(name, item) for item in items]
    return tuple(items)
