"""The check of results: any result of a pipeline gives the plain values of one row of diagnostics."""

import copy
import math
import pickle
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from photometry_tasks import STATUS
from photometry_tasks.errors import InvalidResultError
from photometry_tasks.models import diagnostics
from photometry_tasks.rules.results import Result, build_diagnostics, check_result
from photometry_tasks.sql.statements import TARGET_NAMES

BARE: Mapping[str, Any] = MappingProxyType({"priority": 7, "status": 1, "method_used": "aperture", "time": 1.0})
REALS = ("mean_flux", "variance", "variability", "rms_hour", "ptp", "contamination", "edge_flux")
COUNTS = ("mask_size", "stamp_resizes")
NAN = float("nan")


def check(**details: Any) -> Result:
    return check_result({**BARE, "details": details})


def stored(column: str, **details: Any) -> Any:
    return build_diagnostics(check(**details))[column]


# --- the checked result ---


def test_every_column_has_a_source() -> None:
    """A checked result has a value for every column of `diagnostics`; no value is None if all fields are given."""
    numbers = dict.fromkeys((*REALS, *COUNTS), 1)
    lists = {"stamp": (0, 1, 0, 1), "pos_centroid": (1, 1), "errors": ["boom"]}
    details = {**numbers, **lists, "filepath_lightcurve": "a.fits"}
    full = build_diagnostics(check_result({**BARE, "worker_wait_time": 1.0, "details": details}))
    for row in (build_diagnostics(check_result(BARE)), full):
        assert {*row, "priority", "errors"} == {column.name for column in diagnostics.columns}
    assert None not in full.values()


def test_a_result_says_of_which_target_it_is() -> None:
    """A checked result has the columns of a target, the magnitude and the attempt; a missing value is None."""
    bare = check_result(BARE)
    assert ({*asdict(bare.target).values()}, bare.tmag, bare.attempt) == ({None}, None, None)
    said = {"starid": np.int64(5), "datasource": "tpf", "sector": 1, "camera": 2, "ccd": 3, "cadence": 20, "tmag": 9}
    result = check_result({**BARE, **said, "attempt": np.uint8(4)})
    assert {**asdict(result.target), "tmag": result.tmag} == said
    assert (*asdict(result.target),) == TARGET_NAMES
    assert (result.priority, result.status, result.attempt) == (7, STATUS.OK, 4)


def test_a_checked_result_stays_as_it_is() -> None:
    """A result that is already checked is returned unchanged, and cannot be changed."""
    result = check(mean_flux=1.0)
    assert check_result(result) is result
    for record, name in ((result, "time"), (result.details, "errors"), (result.target, "starid")):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(record, name, "boom")


# --- numbers ---

numbers = st.floats() | st.sampled_from([-0.0, math.inf, -math.inf, NAN])
whole_numbers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 2**62 - 1, 2**62, -(2**62), 2**63 - 1, -(2**63)])
corners = st.lists(st.integers(-(2**62), 2**62 - 1), min_size=4, max_size=4)


@settings(max_examples=25)
@given(
    reals=st.fixed_dictionaries({}, optional=dict.fromkeys(REALS, numbers | st.none())),
    counts=st.fixed_dictionaries({}, optional=dict.fromkeys(COUNTS, whole_numbers | st.none())),
    lists=st.fixed_dictionaries(
        {},
        optional={
            "pos_centroid": st.tuples(numbers, numbers),
            "stamp": corners,
            "skip_targets": st.lists(whole_numbers, max_size=3),
        },
    ),
)
def test_numbers_of_numpy_are_stored_as_plain_ones(
    reals: dict[str, Any], counts: dict[str, Any], lists: dict[str, Any]
) -> None:
    """NumPy's scalars and zero-dimensional arrays give the same results as plain numbers."""
    plain = check(**reals, **counts, **lists)
    for name, number in reals.items():
        is_null = number is None or math.isnan(number)
        assert repr(build_diagnostics(plain)[name]) == ("None" if is_null else repr(number + 0.0))
    for name, count in counts.items():
        assert build_diagnostics(plain)[name] == (0 if count is None and name == "stamp_resizes" else count)
    for box in (lambda value, kind: kind(value), np.array):
        given = {name: None if number is None else box(number, np.float64) for name, number in reals.items()}
        given |= {name: None if count is None else box(count, np.int64) for name, count in counts.items()}
        for name, values in lists.items():
            given[name] = np.array(values, dtype=np.float64 if name == "pos_centroid" else np.int64)
        assert repr(check(**given)) == repr(plain)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
def test_special_values_of_every_width(kind: Any) -> None:
    """At every width NaN becomes None, infinity stays, and zero loses its sign."""
    for column, field in (("mean_flux", "mean_flux"), ("pos_column", "pos_centroid")):
        for value, expected in ((NAN, None), (-math.inf, -math.inf), (-0.0, 0.0)):
            for number in (kind(value), np.array(value, dtype=kind)):
                found = stored(column, **{field: number if field == column else (number, 1.0)})
                assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        *((7.0, 7), (np.float16(7), 7), (np.array(7.0), 7), (-0.0, 0), (2.0**53, 2**53), (2.0**62, 2**62)),
        *((np.ma.masked_array(7, mask=False), 7), (np.ma.masked, None), (np.ma.masked_array(7, mask=True), None)),
        *((NAN, None), (np.float32("nan"), None), (np.uint64(2**63 - 1), 2**63 - 1)),
    ],
)
def test_whole_floats_are_counts(value: Any, count: int | None) -> None:
    """A float with a whole number is a count; a masked value or NaN gives None."""
    found = stored("mask_size", mask_size=value)
    assert found == count
    assert type(found) in (int, type(None))


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(-7.5), math.inf, 2.0**63, 1e300, 2**63, np.uint64(2**63), 10**400, True, np.True_, "7", b"7", [7]],
)
def test_values_that_are_no_counts(value: Any) -> None:
    """A fraction, infinity, an integer of more than 64 bits, a bool or a text is not a count."""
    for name in COUNTS:
        with pytest.raises(InvalidResultError, match=rf"^Result of task 7: details\.{name}="):
            check(**{name: value})


@pytest.mark.parametrize("name", ["priority", "starid", "sector", "camera", "ccd", "cadence", "attempt"])
def test_keys_are_whole(name: str) -> None:
    """An identifier is an integer of at most 64 bits, or a float that no other integer is rounded to."""
    whole = [np.int64(-(2**63)), np.int64(2**63 - 1), -5.0, 2.0**53 - 1, np.float64(5), np.array(5.0), np.float16(2047)]
    for value in (*whole, np.float32(2**24 - 1), Decimal(5), np.ma.masked_array(5.0, mask=False)):
        result = check_result({**BARE, name: value})
        assert int(value) in (result.priority, result.attempt, *asdict(result.target).values())
    rounded = (2.0**53, -(2.0**53), np.float32(2**24), np.float16(2048), np.longdouble(2**53), np.array(2.0**60))
    others = (5.5, NAN, np.float32("nan"), math.inf, True, np.ma.masked, 2**63, np.uint64(2**63), -(2**63) - 1)
    for value in (*rounded, *others, "5", b"5", np.array([5.0])):
        with pytest.raises(InvalidResultError, match=rf": {name}="):
            check_result({**BARE, name: value})
        with pytest.raises(InvalidResultError, match=r": details\.skip_targets="):
            check(skip_targets=[value])


@pytest.mark.parametrize("value", [True, np.True_, "1", b"1", 1j, np.timedelta64(1, "s"), np.array([1.0]), 10**400])
@pytest.mark.parametrize("field", ["time", "worker_wait_time", "tmag", "details.mean_flux", "details.pos_centroid"])
def test_values_that_are_no_numbers(field: str, value: Any) -> None:
    """In no field is a bool, a text, bytes, a complex number, a time or an array a number."""
    name = field.removeprefix("details.")
    given = {name: (1.0, value) if name == "pos_centroid" else value}
    with pytest.raises(InvalidResultError, match=rf": {field}="):
        check_result({**BARE, **(given if field == name else {"details": given})})


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float16, np.float32, np.float64, float, Decimal])
def test_a_stamp_of_any_numbers(kind: Any) -> None:
    """The corners of a stamp are whole numbers of any type; the size of small integers does not overflow."""
    corners = tuple(map(kind, (200, 100, 0, 255)))
    for stamp in (corners, np.array(corners)):
        row = build_diagnostics(check(stamp=stamp))
        assert (row["stamp_height"], row["stamp_width"]) == (-100, 255)
        assert type(row["stamp_width"]) is int
    with pytest.raises(InvalidResultError, match="an integer is expected"):
        check(stamp=(0.5, 1, 2, 3))
    row = build_diagnostics(check(stamp=(NAN, 12.0, 3, 14)))
    assert (row["stamp_height"], row["stamp_width"]) == (None, 11)


def test_statuses_and_stars_as_floats() -> None:
    """A whole float is a status or a star id too."""
    for value in (2.0, np.float32(2), np.array(2.0), Enum("Theirs", {"ERROR": 2.0}).ERROR):  # type: ignore[attr-defined]  # mypy does not see the member
        assert check_result({**BARE, "status": value}).status is STATUS.ERROR
    found = check(skip_targets=np.array([267211065, 2.0**53 - 1])).details.skip_targets
    assert found == (267211065, 2**53 - 1)
    assert set(map(type, found)) == {int}


# --- texts ---


def spell(letter: str) -> str:
    """Return a letter as a database stores it."""
    return "\\x00" if letter == "\0" else f"\\u{ord(letter):x}" if "\ud800" <= letter <= "\udfff" else letter


@settings(max_examples=25)
@given(text=st.text(st.characters(exclude_categories=()), min_size=1) | st.sampled_from(["\0", "\udce9", "a\ud800\0é"]))
def test_every_text_can_be_stored(text: str) -> None:
    """NULs and lone surrogates in a text, which no database stores, are escaped; other characters stay."""
    text = f"a{text}"  # blanks alone are no text
    result = check_result(
        {**BARE, "method_used": text, "datasource": text, "details": {"errors": [text], "filepath_lightcurve": text}}
    )
    row = build_diagnostics(result)
    kept = {row["method_used"], result.datasource, row["lightcurve"], *result.details.errors}
    assert kept == {"".join(map(spell, text))}
    assert check(errors=text).details.errors == result.details.errors


def test_texts_of_numpy_are_stored_as_plain_ones() -> None:
    """A text or path of another class becomes a plain text."""
    for text in ("aperture", "é"):
        result = check_result({**BARE, "method_used": np.str_(text), "details": {"errors": np.array([text])}})
        assert type(result.method_used) is type(result.details.errors[0]) is str
    assert stored("lightcurve", filepath_lightcurve=Path("a") / "b.fits") == "a/b.fits"


@pytest.mark.parametrize("errors", ["two\nlines", np.str_("two\nlines"), ["two\nlines"], np.array(["two\nlines"])])
def test_a_text_is_one_error(errors: Any) -> None:
    """A text is one error, with its line breaks."""
    assert check(errors=errors).details.errors == ("two\nlines",)


@pytest.mark.parametrize(
    "given",
    [
        {"method_used": b"x"},
        {"datasource": b"x"},
        {"details": {"errors": b"x"}},
        {"details": {"errors": ["x", b"x"]}},
        {"details": {"filepath_lightcurve": b"x"}},
        {"details": {"skip_targets": b"x"}},
        {"details": {"pos_centroid": b"xy"}},
        {"details": {"stamp": b"wxyz"}},
    ],
)
def test_bytes_are_refused(given: dict[str, Any]) -> None:
    """Bytes are neither a text nor a path nor a list."""
    with pytest.raises(InvalidResultError, match=r"b'\w+'\]?: a (text|path|list) is expected"):
        check_result({**BARE, **given})


# --- no side effects, and errors ---


def test_nothing_of_the_caller_is_changed_or_kept() -> None:
    """The result is not changed, and later changes of its lists do not change the checked result."""
    lists: dict[str, Any] = {
        "errors": ["boom"],
        "skip_targets": np.array([5, 6]),
        "pos_centroid": [1.0, -0.0],
        "stamp": [0, 1, 2, 4],
    }
    details = MappingProxyType({**lists, "mean_flux": np.array(-0.0)})
    before = copy.deepcopy(lists)
    result = check_result(MappingProxyType({**BARE, "details": details}))
    assert repr(lists) == repr(before)
    as_it_was = repr(result)
    for values in lists.values():
        values[0] = values[1] if len(values) > 1 else "changed"
    assert repr(result) == as_it_was


def test_star_ids_from_any_iterable() -> None:
    """Any iterable of star ids gives plain integers, and is read once; a masked id is refused."""
    for values in ([1, 2], {1, 2}, range(1, 3), iter([1, 2]), np.array([1, 2], dtype=np.uint16), [np.int8(1), 2]):
        found = check(skip_targets=values).details.skip_targets
        assert found == (1, 2)
        assert set(map(type, found)) == {int}
    with pytest.raises(InvalidResultError, match=r"details\.skip_targets"):
        check(skip_targets=np.ma.masked_array([1, 2], mask=[True, False]))


class Theirs(Enum):
    """Statuses of a pipeline, of which none is in STATUS."""

    STARTED = 6
    TRUE = True
    TEXT = "1"


class Hostile:
    """A number whose conversion raises an unusual error."""

    def __float__(self) -> float:
        raise ZeroDivisionError

    def __index__(self) -> int:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        return "hostile"


STATUSES = "one of UNKNOWN (0), OK (1), ERROR (2), WARNING (3), ABORT (4), SKIPPED (5) is expected"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"time": "\udce9"}, "time='\\udce9': a number is expected"),
        ({"details": "\udce9"}, "details='\\udce9': a dict is expected"),
        (
            {"details": {"\udce9": 1, "stamp": ("\udce9", 1, 2, 3)}},
            "details.stamp=('\\udce9', 1, 2, 3): an integer is expected",
        ),
        ({"time": None}, "time=None: a number is expected"),
        ({"time": NAN}, "time=nan: a finite number is expected"),
        ({"status": Theirs.STARTED}, f"status=<Theirs.STARTED: 6>: {STATUSES}"),
        ({"status": Theirs.TRUE}, f"status=<Theirs.TRUE: True>: {STATUSES}"),
        ({"status": Theirs.TEXT}, f"status=<Theirs.TEXT: '1'>: {STATUSES}"),
        ({"status": 1.5}, f"status=1.5: {STATUSES}"),
        ({"status": NAN}, f"status=nan: {STATUSES}"),
        ({"status": 6.0}, f"status=6.0: {STATUSES}"),
        ({"details": 5}, "details=5: a dict is expected"),
        ({"details": [("ptp", 1)]}, "details=[('ptp', 1)]: a dict is expected"),
        ({"details": range(2)}, "details=range(0, 2): a dict is expected"),
        ({"details": np.float64(0)}, "details=np.float64(0.0): a dict is expected"),
        ({"details": np.array([1, 2])}, "details=array([1, 2]): a dict is expected"),
        ({"details": {"stamp": (1, 2, 3)}}, "details.stamp=(1, 2, 3): (row1, row2, col1, col2) is expected"),
        ({"details": {"pos_centroid": (1,)}}, "details.pos_centroid=(1,): (column, row) is expected"),
        ({"details": {"ptp": Hostile()}}, "details.ptp=hostile: the value cannot be read (ZeroDivisionError())"),
        (
            {"details": {"mask_size": Hostile()}},
            "details.mask_size=hostile: the value cannot be read (ZeroDivisionError())",
        ),
    ],
)
def test_messages(given: dict[str, Any], problem: str) -> None:
    """An error names the task, the field, its value and the remedy."""
    with pytest.raises(InvalidResultError) as caught:
        check_result({**BARE, **given})
    assert str(caught.value).startswith(f"Result of task 7: {problem}. ")


def test_all_faults_at_once() -> None:
    """An error names each wrong, missing or misspelt field once, with what is expected."""
    details = {
        "ptp": Hostile(),
        "stamp": iter([1, 2, 3]),
        "pos_centroid": (1, "x"),
        "skip_targets": iter(["TIC 5"]),
        "mask_size": 2**70,
        "kind": "x" * 300,
        "extra": 5,
        "variance": np.float32(3),
        "mean_flx": 1.0,
        "of_my_own": 2.0,
    }
    with pytest.raises(InvalidResultError) as caught:
        check_result({"priority": 7, "statusx": "OK", "time": b"1", "details": MappingProxyType(details)})
    found = {fault.split("=")[0].split(" ")[0]: fault.rpartition(": ")[2] for fault in caught.value.faults}
    assert found == {
        "statusx": "this key does not exist, it is spelled `status`",
        "status": "a text is no status; give STATUS.OK or its number, 1",
        "method_used": "a text is expected",
        "time": "a number is expected",
        "details.ptp": "the value cannot be read (ZeroDivisionError())",
        "details.stamp": "(row1, row2, col1, col2) is expected",
        "details.pos_centroid": "a number is expected",
        "details.skip_targets": "an integer is expected",
        "details.mask_size": "an integer of at most 64 bits is expected",
        "details.kind": "a text of at most 200 characters is expected",
        "details.extra": "a dict is expected",
        "details.mean_flx": "this key is not stored; is it 'mean_flux'?",
    }
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


def test_keys_of_any_type() -> None:
    """Keys that no field has, of whatever type, change nothing; those of the details are named."""
    odd: dict[Any, Any] = {7: 1, None: 2, b"ptp": 3, ("ptp",): 4, "peak_memory": "x", "unknown": 5, "\ud800": 6}
    result = check_result({**odd, **BARE, "details": {**odd, "ptp": np.float32(1)}})
    assert (result.details.ptp, result.peak_memory) == (1.0, None)
    assert set(result.unknown) == {str(key).replace("\ud800", "\\ud800") for key in odd}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=Result) == result
    assert check_result({**BARE, "details": {**odd, "ptp": 1.0}}) == result


def test_keys_of_other_kinds_of_text() -> None:
    """A key may be a text of NumPy or a member of an enum of texts."""
    keys = Enum("keys", {"ptp": "ptp", "time": "time", "details": "details"}, type=str)  # type: ignore[misc]
    given = {**BARE, keys("time"): 2.0, np.str_("details"): {keys("ptp"): 1.0, np.str_("mean_flux"): np.float32(3)}}
    result = check_result(given)
    assert (result.time, result.details.ptp, result.details.mean_flux) == (2.0, 1.0, 3.0)


def test_a_message_without_a_priority() -> None:
    """If a result has no priority or is not a dict, the error says so."""
    with pytest.raises(InvalidResultError, match=r"^Result of task \?: priority is missing: an integer is expected; "):
        check_result({})
    with pytest.raises(InvalidResultError, match=r"^Result of task \?: result=\[\]: a dict is expected\."):
        check_result(cast(Any, []))


@pytest.mark.parametrize("priority", [10**5000, "x" * 10**6, b"x" * 10**6, [10**5000]], ids=type)
@pytest.mark.parametrize("given", [{}, {"details": 7}, {"time": None}], ids=str)
def test_a_message_of_a_long_priority(priority: object, given: dict[str, Any]) -> None:
    """A priority that is too long to be shown is shortened in each message."""
    with pytest.raises(InvalidResultError) as caught:
        check_result({**BARE, **given, "priority": priority})
    assert len(str(caught.value)) < 300
