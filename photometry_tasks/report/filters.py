"""The filters of the page: constraints as texts in an address."""

from collections.abc import Mapping
from typing import Any

from photometry_tasks.constraints import check_constraints
from photometry_tasks.rules.validation import invalid_argument

__all__ = ["FILTERS", "parse_filters"]

_NUMBERS, _LIMITS = ("camera", "ccd", "sector", "cadence"), ("tmag_min", "tmag_max")

#: The names of the filters, each that of a constraint.
FILTERS = (*_NUMBERS, "datasource", *_LIMITS)


def parse_filters(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the filters of an address as arguments of `build_constraints`; an empty text is no filter.

    Raises
    ------
    InvalidArgumentError
    """
    found: dict[str, Any] = {}
    for name in FILTERS:
        if not (text := given.get(name, "").strip()):
            continue
        try:
            if name in _LIMITS:
                found[name] = float(text)
            elif name == "datasource" or (name == "cadence" and text.lower() == "ffi"):
                found[name] = text.lower()
            else:
                found[name] = [int(part) for part in text.rstrip(", ").split(",")]
        except ValueError:
            kind = "a number is" if name in _LIMITS else "one integer or several with commas are"
            if name == "cadence":
                kind = f"'ffi', or {kind}"
            raise invalid_argument(name, text, f"{kind} expected") from None
    check_constraints(found)
    return found
