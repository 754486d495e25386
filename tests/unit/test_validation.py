"""The check of arguments: integers, numbers, lists and choices, and the messages of errors."""

import math
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photometry_tasks import STATUS
from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.rules.validation import (
    as_finite,
    as_integer,
    as_items,
    as_real,
    check_durability,
    check_finite,
    check_integer,
    check_integers,
    check_interval,
    check_lease,
    check_path,
    check_positive,
    check_seconds,
    check_statuses,
    check_text,
)

LOWEST, HIGHEST = -(2**63), 2**63 - 1
INTEGER_TYPES = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
REAL_TYPES = (np.float16, np.float32, np.float64, np.longdouble)

ends = st.sampled_from([0, 127, 128, 255, 2**31, 2**32, LOWEST - 1, LOWEST, HIGHEST, HIGHEST + 1, 2**64 - 1, 2**64])
integers = ends | st.integers(-(2**65), 2**65)


@settings(max_examples=25)
@given(number=integers)
def test_integers_of_every_width(number: int) -> None:
    """If an integer needs at most 64 bits, every NumPy type gives the same int; other integers are refused."""
    holding = [kind for kind in INTEGER_TYPES if np.iinfo(kind).min <= number <= np.iinfo(kind).max]
    for value in [number, *(kind(number) for kind in holding), *(np.array(number, kind) for kind in holding)]:
        if LOWEST <= number <= HIGHEST:
            assert as_integer(value) == number
            assert type(as_integer(value)) is int
        else:
            with pytest.raises(ValueError, match="an integer of at most 64 bits is expected"):
                as_integer(value)


@settings(max_examples=25)
@given(number=st.floats(width=16) | st.sampled_from([0, 7, -1]))
def test_reals_of_every_width(number: float) -> None:
    """For every real NumPy type, scalars and zero-dimensional arrays give the same float, also NaN and infinity."""
    for value in [number, *(kind(number) for kind in REAL_TYPES), *(np.array(number, kind) for kind in REAL_TYPES)]:
        assert repr(as_real(value)) == repr(float(number))


@pytest.mark.parametrize("value", [Decimal("1.5"), Fraction(3, 2), np.ma.masked_array(1.5, mask=False)])
def test_numbers_of_other_kinds(value: Any) -> None:
    """A decimal, a fraction and an unmasked value are numbers."""
    assert as_real(value) == 1.5


@pytest.mark.parametrize("value", [np.ma.masked, np.ma.masked_array(5, mask=True), np.ma.masked_array(5.0, mask=True)])
def test_masked_values(value: Any) -> None:
    """A masked value is NaN as a number, and not an integer, with any number under the mask."""
    assert math.isnan(as_real(value))
    for convert in (as_integer, as_finite):
        with pytest.raises(ValueError, match="is expected"):
            convert(value)


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.True_, np.array(True)),
        *("1", b"1", bytearray(b"1"), memoryview(b"1"), np.str_("1"), np.bytes_(b"1"), np.array("1")),
        *(1j, np.complex64(1), np.array(1j)),
        *(np.datetime64("2020"), np.timedelta64(5, "ns"), np.timedelta64(5)),
        *(np.array([1]), np.array([[1]]), np.array(1, dtype=object), [1], (1,), {1}, {1: 1}),
        *(None, object(), STATUS.OK),
    ],
    ids=lambda value: f"{type(value).__name__} {value!r:.30}".partition(" at 0x")[0],
)
def test_values_that_are_no_numbers(value: Any) -> None:
    """A bool, a text, bytes, a complex number, a time, an array or an enum is neither integer nor number."""
    with pytest.raises(ValueError, match=r"^an integer is expected$"):
        as_integer(value)
    for convert in (as_real, as_finite):
        with pytest.raises(ValueError, match=r"^a number is expected$"):
            convert(value)


def test_numbers_beyond_a_float() -> None:
    """An integer too large for a float is refused as a number; NaN and infinity are not finite."""
    with pytest.raises(ValueError, match="a number of at most 64 bits"):
        as_real(10**400)
    for value in (math.nan, math.inf, -math.inf, np.float16("inf"), np.array(np.nan)):
        with pytest.raises(ValueError, match="a finite number"):
            as_finite(value)


@settings(max_examples=25)
@given(numbers=st.lists(integers, max_size=4))
def test_lists_of_integers(numbers: list[int]) -> None:
    """Every iterable of integers gives the same new list; the error names an integer of more than 64 bits."""
    fits = all(LOWEST <= number <= HIGHEST for number in numbers)
    same = [numbers, tuple(numbers), iter(numbers), np.array(numbers, dtype=object)]
    if fits:
        same.append(np.array(numbers, dtype=np.int64))
    for values in same:
        if fits:
            found = check_integers("starid", values)
            assert found == numbers
            assert found is not values
            assert set(map(type, found)) <= {int}
        else:
            with pytest.raises(InvalidArgumentError, match=r"^starid=-?\d+: an integer of at most 64 bits"):
                check_integers("starid", values)


@pytest.mark.parametrize("value", ["12", b"12", bytearray(b"12"), {1: 2}, np.array(1), np.str_("12"), 5, None])
def test_values_that_are_no_lists(value: Any) -> None:
    """A text, bytes, a mapping, a zero-dimensional array or a single value is not a list of items."""
    with pytest.raises(ValueError, match=r"^a list is expected$"):
        as_items(value)


@pytest.mark.parametrize("values", [[1, 2], (1, 2), {1, 2}, range(1, 3), {1: 0, 2: 0}.keys(), np.array([1, 2])])
def test_items(values: Any) -> None:
    """Any other iterable gives a new list of its items."""
    items = as_items(values)
    assert items == [1, 2]
    items.append(3)
    assert len(values) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_integer("priority", 1.0), "priority=1.0: an integer is expected."),
        (lambda: check_integers("starid", "12"), "starid='12': a list is expected."),
        (lambda: check_integers("starid", [1, True]), "starid=True: an integer is expected."),
        (lambda: check_integers("starid", [[1]]), "starid=[1]: an integer is expected."),
        (lambda: check_positive("jobs", 0), "jobs=0: a positive integer is expected."),
        (lambda: check_interval("every", 0.5), "every=0.5: None or a positive integer is expected."),
        (lambda: check_durability("none"), "durability='none': 'normal' or 'full' is expected."),
        (
            lambda: check_finite("tmag_min", math.inf, "leave it out"),
            "tmag_min=inf: a finite number is expected; leave",
        ),
        (lambda: check_seconds("timeout", -1), "timeout=-1: 0 s or more is expected."),
        (lambda: check_seconds("timeout", "1"), "timeout='1': a number is expected; give seconds."),
        (lambda: check_lease(0), "lease=0: more than 0 s and at most 30 days is expected; 600 s is usual."),
        (lambda: check_text("error_like", ""), "error_like='': a non-empty text is expected."),
        (lambda: check_text("error_like", b"x"), "error_like=b'x': a non-empty text is expected."),
        (lambda: check_statuses("O"), "status='O': a STATUS or several, or their names, are expected: UNKNOWN, OK,"),
        (lambda: check_statuses([7]), "status=[7]: a STATUS or several"),
        (lambda: check_statuses(True), "status=True: a STATUS or several"),
        (lambda: check_statuses([None]), "status=[None]: a STATUS or several"),
    ],
)
def test_messages(call: Callable[[], object], message: str) -> None:
    """An error names the argument, the value and the remedy, and is a ValueError."""
    with pytest.raises(ValueError, match=r"is|are") as caught:
        call()
    assert type(caught.value) is InvalidArgumentError
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("value", "interval"),
    [(None, None), (1, 1), ("10", 10), (2.9, 2), (np.int8(3), 3), (HIGHEST + 1, HIGHEST + 1)]
    + [(value, ValueError) for value in (0, -1, 0.9, "x", "", [1], math.nan, math.inf, object())],
)
def test_intervals(value: Any, interval: Any) -> None:
    """An interval is None or a value that int() turns into a positive integer; other values are refused."""
    if interval is ValueError:
        with pytest.raises(InvalidArgumentError, match="None or a positive integer"):
            check_interval("every", value)
    else:
        assert check_interval("every", value) == interval


def test_ends_of_ranges() -> None:
    """Each range includes its ends."""
    assert (check_positive("n", 1), check_seconds("s", 0)) == (1, 0.0)
    assert (check_lease(5e-324), check_lease(30 * 86_400)) == (5e-324, 2_592_000.0)
    with pytest.raises(InvalidArgumentError, match="lease"):
        check_lease(30 * 86_400 + 1)


def test_durability() -> None:
    """Only with 'full' does each result survive a power cut."""
    assert check_durability("full") is True
    assert check_durability("normal") is False


class Theirs(Enum):
    """The enum of a pipeline."""

    GOOD = 1
    TRUE = True
    TEXT = "OK"


def test_statuses() -> None:
    """One or several statuses, as members of any enum, integers or names, give their values; None gives all."""
    assert check_statuses(None) == [0, 1, 2, 3, 4, 5, 6]
    for value in (STATUS.OK, 1, Theirs.GOOD, [STATUS.OK], {Theirs.GOOD}, np.array([1]), (np.int8(1),), np.int64(1)):
        assert check_statuses(value) == [1]
    for value in ("OK", "ok", ["Ok"], np.str_("OK"), np.array(["OK"])):
        assert check_statuses(value) == [1]
    assert check_statuses(["pending", "Error"], with_pending=True) == [None, 2]
    assert check_statuses([]) == []
    assert check_statuses(iter([STATUS.OK, None, 2]), with_pending=True) == [1, None, 2]
    for value in (Theirs.TEXT, "O K", ["PENDING "], "1", [STATUS], [2.0], [True], [-1], b"\2", {STATUS.OK: 1}, [[1]]):
        with pytest.raises(InvalidArgumentError, match=r"status=.*: a STATUS or several, .* STARTED, or PENDING"):
            check_statuses(value, with_pending=True)


def test_paths() -> None:
    """A path is a text that is not empty, or an object with one; any other value may be a URL, and is not shown."""
    assert check_path("output", "a b.csv") == check_path("output", Path("a b.csv")) == "a b.csv"
    for value in ("", None, 5, b"postgresql://me:secret@h/d", ["secret"], "secret\0", open):
        with pytest.raises(InvalidArgumentError, match=r"^output=.*: a path is expected") as caught:
            check_path("output", value)
        assert "secret" not in str(caught.value)
