"""Contract 6: saving results."""

import copy
import enum
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidResultError, UnknownTaskError
from tests.support.lists import ask, query, result_of

pytestmark = pytest.mark.both_databases


def stored(manager: TaskManager, priority: int = 1) -> dict[str, Any]:
    """Return the row of diagnostics, with the types of the database."""
    sql = f"SELECT * FROM diagnostics WHERE priority = {priority}"
    return dict(manager.session.connection().exec_driver_sql(sql).mappings().one())


def status_of(manager: TaskManager, priority: int = 1) -> int | None:
    ((status,),) = ask(manager, f"SELECT status FROM todolist WHERE priority = {priority}")
    return None if status is None else int(status)


def everything(manager: TaskManager) -> list[Any]:
    return [ask(manager, f"SELECT * FROM {t}") for t in ("todolist", "diagnostics", "photometry_skipped")]


def test_every_field_goes_where_it_belongs(opened: Callable[..., TaskManager]) -> None:
    """Each detail is stored in its column; unknown details are ignored."""
    manager = opened({})
    task = manager.get_task()
    assert task is not None
    details = {
        "filepath_lightcurve": Path("c1800/tess101.fits.gz"),
        "pos_centroid": (12.5, 34.25),
        "stamp": (100, 111, 200, 215),
        "stamp_resizes": 2,
        "mean_flux": 1.5e4,
        "variance": 0.5,
        "variability": 1.25,
        "rms_hour": 100.0,
        "ptp": 50.0,
        "mask_size": 13,
        "edge_flux": 3.5,
        "contamination": 0.125,
        "errors": ["first", "second"],
        "wcs": object(),
    }
    manager.save_result(
        {
            **task,
            "status": STATUS.WARNING,
            "method_used": "psf",
            "time": 7.5,
            "worker_wait_time": 0.25,
            "details": details,
        }
    )
    assert stored(manager) == {
        "priority": 1,
        "lightcurve": "c1800/tess101.fits.gz",
        "method_used": "psf",
        "elaptime": 7.5,
        "worker_wait_time": 0.25,
        "mean_flux": 1.5e4,
        "variance": 0.5,
        "variability": 1.25,
        "rms_hour": 100.0,
        "ptp": 50.0,
        "pos_row": 34.25,
        "pos_column": 12.5,
        "contamination": 0.125,
        "mask_size": 13,
        "edge_flux": 3.5,
        "stamp_width": 15,
        "stamp_height": 11,
        "stamp_resizes": 2,
        "errors": "first\nsecond",
    }
    assert status_of(manager) == STATUS.WARNING.value


def test_a_result_may_be_bare(opened: Callable[..., TaskManager]) -> None:
    """Only priority, status, method_used and time are required; other columns are NULL, and stamp_resizes is 0."""
    manager = opened({})
    manager.save_result({"priority": 1, "status": STATUS.OK, "method_used": "aperture", "time": 1})
    given = {"priority": 1, "method_used": "aperture", "elaptime": 1.0, "stamp_resizes": 0}
    assert stored(manager) == {**dict.fromkeys(stored(manager)), **given}


class PipelineStatus(enum.Enum):
    """The enum of a pipeline, with the same values as ours."""

    GOOD = 1
    BAD = 2


class PipelineNumber(enum.IntEnum):
    """The enum of a pipeline, with integers as members."""

    ABORT = 4


@pytest.mark.parametrize(
    ("status", "number"),
    [
        *((status, status.value) for status in STATUS if status is not STATUS.STARTED),
        (PipelineStatus.BAD, 2),
        (PipelineNumber.ABORT, 4),
        (3, 3),
        (np.int64(5), 5),
        (np.array(1.0), 1),
    ],
)
def test_statuses(opened: Callable[..., TaskManager], status: Any, number: int) -> None:
    """A status may be a STATUS, another enum's member of equal value, or the integer; the stored status is returned."""
    manager = opened({})
    assert manager.save_result(result_of({"priority": 1}, status)) is STATUS(number)
    assert status_of(manager) == number


REALS = [
    *(number(2.5) for number in (float, np.float16, np.float32, np.float64, np.longdouble)),
    np.array(2.5),
    np.array(2.5, dtype=np.float32),
]
INTEGERS = [
    *(number(7) for number in (int, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)),
    np.array(7),
    7.0,
    np.float32(7),
]


@pytest.mark.parametrize("value", REALS, ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}")
def test_reals_of_every_width(opened: Callable[..., TaskManager], value: Any) -> None:
    """NumPy's reals are stored as plain numbers."""
    manager = opened({})
    details = {"mean_flux": value, "pos_centroid": np.array([value, value]), "edge_flux": value}
    manager.save_result({**result_of({"priority": 1}, **details), "time": value, "worker_wait_time": value})
    row = stored(manager)
    for name in ("mean_flux", "pos_row", "pos_column", "edge_flux", "elaptime", "worker_wait_time"):
        assert row[name] == 2.5
        assert type(row[name]) is float


@pytest.mark.parametrize("value", INTEGERS, ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}")
def test_integers_of_every_width(opened: Callable[..., TaskManager], value: Any) -> None:
    """NumPy's integers, and whole floats, are stored as integers; in a real column as reals."""
    manager = opened({})
    stamp = np.array([0, 7, 0, 14], dtype=np.int16)
    manager.save_result(result_of({"priority": 1}, mask_size=value, stamp_resizes=value, stamp=stamp, variance=value))
    row = stored(manager)
    assert [row[name] for name in ("mask_size", "stamp_resizes", "stamp_height", "stamp_width")] == [7, 7, 7, 14]
    assert type(row["mask_size"]) is int
    assert row["variance"] == 7.0


@pytest.mark.parametrize("nan", [math.nan, np.nan, np.float32("nan"), np.array(np.nan), None])
def test_nan_is_null(opened: Callable[..., TaskManager], nan: Any) -> None:
    """NaN and None are stored as NULL in every field."""
    manager = opened({})
    details = dict.fromkeys(("mean_flux", "variance", "ptp", "mask_size", "contamination"), nan)
    details |= {"pos_centroid": (nan, 3.0), "stamp": (nan, 3, 1, 2)}
    manager.save_result({**result_of({"priority": 1}, **details), "worker_wait_time": nan})
    row = stored(manager)
    assert {row[name] for name in ("mean_flux", "variance", "ptp", "mask_size", "contamination")} == {None}
    assert (row["pos_column"], row["pos_row"], row["worker_wait_time"]) == (None, 3.0, None)
    assert (row["stamp_height"], row["stamp_width"]) == (None, 1)


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_a_row_of_floats(opened: Callable[..., TaskManager], kind: Any) -> None:
    """A task and its details whose integers have become floats, as in a table with gaps, are stored as integers."""
    manager = opened({"tmag": 8.0}, {})
    (task,) = manager.claim_tasks(1)
    floats = {name: kind(task[name]) for name in ("priority", "starid", "sector", "camera", "ccd", "cadence")}
    details = {"stamp": tuple(map(kind, (1, 12, 3, 14))), "mask_size": kind(9), "skip_targets": [kind(102)]}
    assert manager.save_result({**result_of(task, kind(1), **details), **floats}) is STATUS.OK
    row = stored(manager)
    assert [row[name] for name in ("stamp_height", "stamp_width", "mask_size")] == [11, 11, 9]
    assert ask(manager, "SELECT priority, skipped_by FROM photometry_skipped") == [(2, 1)]


def test_masked_values_are_null(opened: Callable[..., TaskManager]) -> None:
    """A masked value is stored as NULL, not as the number under the mask."""
    manager = opened({})
    values = np.ma.masked_array([1.0, 2.0], mask=[True, False])
    manager.save_result(
        result_of({"priority": 1}, mean_flux=np.ma.masked, variance=values[0], ptp=values[1], pos_centroid=values)
    )
    row = stored(manager)
    assert [row[name] for name in ("mean_flux", "variance", "pos_column")] == [None] * 3
    assert [row[name] for name in ("ptp", "pos_row")] == [2.0, 2.0]


@pytest.mark.parametrize("value", [math.inf, -math.inf, np.float32("inf"), 1.7e308, 5e-324, 10**300, -0.0])
def test_infinite_and_huge_numbers_stay(opened: Callable[..., TaskManager], value: Any) -> None:
    """Infinity and the ends of the range are stored unchanged; a zero has no sign."""
    manager = opened({})
    manager.save_result(result_of({"priority": 1}, mean_flux=value))
    assert str(stored(manager)["mean_flux"]) == str(float(value) + 0.0)


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        (None, None),
        ([], None),
        ("", None),
        ([" ", "\n"], None),
        (["", "a"], "\na"),
        ("boom", "boom"),
        (["boom"], "boom"),
        (("a", "b"), "a\nb"),
        (["two\nlines", "c"], "two\nlines\nc"),
        (["a\0b"], "a\\x00b"),
        (["caf\udce9"], "caf\\udce9"),
        (["'; DROP TABLE todolist; --"], "'; DROP TABLE todolist; --"),
        (np.array(["x", "y"]), "x\ny"),
    ],
)
def test_errors(opened: Callable[..., TaskManager], errors: Any, text: str | None) -> None:
    """Errors are joined by newlines; a text is one error; characters that no database stores are escaped."""
    manager = opened({})
    manager.save_result(result_of({"priority": 1}, errors=errors))
    assert stored(manager)["errors"] == text


def test_a_path_with_nul_or_in_another_encoding(opened: Callable[..., TaskManager]) -> None:
    """Characters of a light-curve path that no database stores are escaped."""
    manager = opened({}, {})
    manager.save_result(result_of({"priority": 1}, filepath_lightcurve="a\0b"))
    manager.save_result(result_of({"priority": 2}, filepath_lightcurve=Path("caf\udce9.fits")))
    assert stored(manager)["lightcurve"] == "a\\x00b"
    assert stored(manager, 2)["lightcurve"] == "caf\\udce9.fits"


@pytest.mark.parametrize("blank", ["", " \t", "\N{NO-BREAK SPACE}\n", np.str_(""), Path()])
def test_a_blank_text_is_no_value(opened: Callable[..., TaskManager], blank: Any) -> None:
    """Any number of results may have a blank path: no path is stored; of a blank datasource, the table's counts."""
    manager = opened({"tmag": 8}, {"tmag": 9}, {})
    datasource = "" if isinstance(blank, Path) else blank
    result = result_of({"priority": 1, "datasource": datasource}, filepath_lightcurve=blank, skip_targets=[102])
    assert manager.save_result(result) is STATUS.OK
    assert manager.save_result(result_of({"priority": 3}, filepath_lightcurve=blank)) is STATUS.OK
    assert [stored(manager, priority)["lightcurve"] for priority in (1, 3)] == [None, None]
    assert status_of(manager, 2) == STATUS.SKIPPED.value


def test_no_argument_is_changed(opened: Callable[..., TaskManager]) -> None:
    """The caller's result, its details and the lists in them are not changed."""
    manager = opened({"datasource": "tpf:5"})
    task = manager.get_task()
    assert task is not None
    result = result_of(task, errors=["boom"], skip_targets=[5, 101], stamp=[1, 2, 3, 4])
    before = copy.deepcopy(result)
    manager.save_result(result)
    assert result == before
    assert stored(manager)["errors"] == "boom\nTargetNotFoundError: Could not find primary TPF target (TIC 5)"


GOOD: dict[str, Any] = {"priority": 1, "status": 1, "method_used": "aperture", "time": 1.0}


@pytest.mark.files_only  # refused before any database access
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"priority": None}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": np.array([1])}, "priority"),
        ({"priority": np.ma.masked}, "priority"),
        ({"time": np.timedelta64(5, "ns")}, "time"),
        ({"details": {"mask_size": np.array([5])}}, "details.mask_size"),
        ({"details": {"mask_size": np.timedelta64(5, "s")}}, "details.mask_size"),
        ({"details": {"stamp": (-(2**63), 2**63 - 1, 0, 1)}}, "details.stamp"),
        ({"details": {"skip_targets": np.array([[1, 2], [3, 4]])}}, "details.skip_targets"),
        ({"details": {"skip_targets": {5: "x"}}}, "details.skip_targets"),
        ({"details": {"skip_targets": bytearray(b"5")}}, "details.skip_targets"),
        ({"status": None}, "status"),
        ({"status": STATUS.STARTED}, "status"),
        ({"status": 7}, "status"),
        ({"status": "OK"}, "status"),
        ({"status": True}, "status"),
        ({"status": math.nan}, "status"),
        ({"method_used": None}, "method_used"),
        ({"method_used": b"halo"}, "method_used"),
        ({"time": None}, "time"),
        ({"time": math.nan}, "time"),
        ({"time": math.inf}, "time"),
        ({"time": "1"}, "time"),
        ({"time": np.array([1.0])}, "time"),
        ({"worker_wait_time": "long"}, "worker_wait_time"),
        ({"tmag": "bright"}, "tmag"),
        ({"starid": "5"}, "starid"),
        ({"datasource": 5}, "datasource"),
        ({"details": []}, "details"),
        ({"details": {"mean_flux": "1"}}, "details.mean_flux"),
        ({"details": {"mean_flux": 1j}}, "details.mean_flux"),
        ({"details": {"mean_flux": True}}, "details.mean_flux"),
        ({"details": {"mean_flux": 10**400}}, "details.mean_flux"),
        ({"details": {"mean_flux": np.array([1.0, 2.0])}}, "details.mean_flux"),
        ({"details": {"mask_size": 2.5}}, "details.mask_size"),
        ({"details": {"mask_size": 2**63}}, "details.mask_size"),
        ({"details": {"mask_size": math.inf}}, "details.mask_size"),
        ({"details": {"stamp": (1, 2, 3)}}, "details.stamp"),
        ({"details": {"stamp": 5}}, "details.stamp"),
        ({"details": {"stamp": (1, 2, 3, "4")}}, "details.stamp"),
        ({"details": {"pos_centroid": (1,)}}, "details.pos_centroid"),
        ({"details": {"pos_centroid": 1.0}}, "details.pos_centroid"),
        ({"details": {"errors": 5}}, "details.errors"),
        ({"details": {"errors": [5]}}, "details.errors"),
        ({"details": {"errors": b"boom"}}, "details.errors"),
        ({"details": {"skip_targets": "5"}}, "details.skip_targets"),
        ({"details": {"skip_targets": ["5) OR (1=1"]}}, "details.skip_targets"),
        ({"details": {"skip_targets": 5}}, "details.skip_targets"),
        ({"details": {"skip_targets": [2.0**53]}}, "details.skip_targets"),
        ({"details": {"skip_targets": [2**64]}}, "details.skip_targets"),
        ({"details": {"filepath_lightcurve": 5}}, "details.filepath_lightcurve"),
    ],
)
def test_malformed_results(opened: Callable[..., TaskManager], change: dict[str, Any], named: str) -> None:
    """A malformed result is a ValueError that names the field, changes nothing, and the next call works."""
    manager = opened({"starid": 1}, {"starid": 5})
    before = everything(manager)
    with pytest.raises(InvalidResultError, match=rf"(?s){named}\b.*Nothing was saved") as caught:
        manager.save_result({**GOOD, **change})
    assert isinstance(caught.value, ValueError)
    assert everything(manager) == before
    assert manager.summary["tasks_run"] == 0
    manager.save_result(GOOD)
    assert status_of(manager) == 1


@pytest.mark.files_only  # refused before any database access
@pytest.mark.parametrize("missing", ["priority", "status", "method_used", "time"])
def test_missing_fields(opened: Callable[..., TaskManager], missing: str) -> None:
    """The error names a missing field."""
    result = {name: value for name, value in GOOD.items() if name != missing}
    with pytest.raises(ValueError, match=f"{missing} is missing: "):
        opened({}).save_result(result)


@pytest.mark.files_only  # refused before any database access
@pytest.mark.parametrize("result", [None, 5, "result", [1]])
def test_no_result_at_all(opened: Callable[..., TaskManager], result: Any) -> None:
    """A result that is not a mapping is a ValueError."""
    with pytest.raises(ValueError, match="a dict is expected"):
        opened({}).save_result(result)


def test_an_unknown_task(opened: Callable[..., TaskManager]) -> None:
    """A result of an unknown task is a LookupError and changes nothing."""
    manager = opened({})
    before = everything(manager)
    with pytest.raises(UnknownTaskError, match="77"):
        manager.save_result({**GOOD, "priority": 77})
    assert everything(manager) == before
    manager.save_result(GOOD)


def test_a_second_save_replaces_the_first(opened: Callable[..., TaskManager]) -> None:
    """The row of diagnostics of a second result replaces the first row."""
    manager = opened({})
    manager.save_result(result_of({"priority": 1}, STATUS.ERROR, errors="boom", mask_size=3, filepath_lightcurve="a"))
    manager.save_result(result_of({"priority": 1}, STATUS.OK, filepath_lightcurve="a"))
    row = stored(manager)
    assert (row["errors"], row["mask_size"], row["lightcurve"]) == (None, None, "a")
    assert status_of(manager) == STATUS.OK.value
    assert ask(manager, "SELECT count(*) FROM diagnostics") == [(1,)]


def test_one_light_curve_for_ten_tasks(opened: Callable[..., TaskManager]) -> None:
    """If another task has the light-curve path, the result becomes an ERROR that says so; all ten rows are stored."""
    manager = opened(*[{} for _ in range(10)])
    for priority in range(1, 11):
        manager.save_result(result_of({"priority": priority}, filepath_lightcurve="same.fits", errors=["boom"]))
    assert stored(manager, 1)["lightcurve"] == "same.fits"
    for priority in range(2, 11):
        row = stored(manager, priority)
        assert row["lightcurve"] is None
        assert row["errors"].startswith("boom\n")
        assert "'same.fits' already belongs to task 1" in row["errors"]
        assert status_of(manager, priority) == STATUS.ERROR.value
    assert manager.summary["OK"] == 1
    assert manager.summary["ERROR"] == 9


def test_values_are_bound(opened: Callable[..., TaskManager]) -> None:
    """SQL in a text of any field changes no other row."""
    manager = opened({}, *[{} for _ in range(20)])
    injected = "ffi') OR 1=1; UPDATE todolist SET status = 5; --"
    manager.save_result(
        {
            **GOOD,
            "datasource": injected,
            "method_used": injected,
            "details": {"errors": injected, "skip_targets": [110]},
        }
    )
    assert manager.summary["OK"] == 1
    assert manager.summary["SKIPPED"] == 0
    assert manager.get_number_tasks() == 20
    assert stored(manager)["method_used"] == injected


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_saved_result_is_on_disk_after_closing(todo: Callable[..., Path], in_memory: bool) -> None:
    """After closing, plain SQLite reads the saved result."""
    path = todo({})
    with TaskManager(path, load_into_memory=in_memory) as manager:
        manager.save_result(GOOD)
    assert query(path, "SELECT status, elaptime FROM todolist JOIN diagnostics USING (priority)") == [(1, 1.0)]


def test_a_result_survives_a_kill(todo: Callable[..., Path]) -> None:
    """After a kill, each saved result is in the file, and started tasks return to pending."""
    path = todo({}, {})
    script = (
        "import sys, signal, os; from photometry_tasks import TaskManager; tm = TaskManager(sys.argv[1], lease=1e-3)\n"
        "tm.save_result({'priority': 1, 'status': 1, 'method_used': 'aperture', 'time': 1})\n"
        "tm.start_task(2)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)])
    assert run.returncode == -signal.SIGKILL
    with TaskManager(path) as manager:
        assert manager.summary["OK"] == 1
        assert manager.get_number_tasks() == 1
