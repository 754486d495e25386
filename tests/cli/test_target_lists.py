"""`add_targets` and `add_target_lists`: rows and CSV files become tasks."""

import gc
import math
import sqlite3
import subprocess
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from hypothesis import given, settings
from hypothesis import strategies as st

from photometry_tasks import TaskManager
from photometry_tasks.errors import (
    InvalidArgumentError,
    InvalidTargetError,
    LeftoverLogError,
    NotATodoFileError,
    TargetListNotFoundError,
)
from photometry_tasks.ingest import Added, add_target_lists, add_targets
from photometry_tasks.ingest.rows import SIZE
from tests.support.lists import checksum, make_file, query, result_of
from tests.support.servers import owned_databases
from tests.support.target_lists import MIT


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a target list, outside the directory of the TODO-file."""

    def write(text: str, name: str = "list.csv") -> Path:
        folder = tmp_path / "lists"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        return folder / name

    return write


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of a TODO-file that does not exist yet."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "todo.sqlite"


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, target: Path) -> Iterator[Any]:
    """Return the path of a TODO-file that does not exist yet, or the URL of a database without a list."""
    if request.param == "file":
        yield target
        return
    with owned_databases(request.getfixturevalue("postgresql"), "lister", "listed") as url:
        yield url


ROW = {"starid": 5, "sector": 1, "camera": 2, "ccd": 3, "tmag": 10.0}


def test_mit_list(listed: Callable[..., Path], target: Path) -> None:
    """A list of MIT is read with its columns, its comments and its sector."""
    assert add_target_lists(target, [listed(MIT)], datasource="both") == Added(4, 0)
    assert query(target, "SELECT * FROM todolist ORDER BY priority") == [
        (1, 8196058, 1, "ffi", 3, 4, 1800, "halo", 1.5, None, 340),
        (2, 8196058, 1, "tpf", 3, 4, 120, None, 1.5, None, 340),
        (3, 8195886, 1, "ffi", 1, 2, 1800, None, 9.85, None, 120),
        (4, 8195886, 1, "tpf", 1, 2, 120, None, 9.85, None, 120),
    ]
    with TaskManager(target) as manager:
        task = manager.get_task()
        assert task is not None
        manager.save_result(result_of(task))


def test_columns_of_todolist(listed: Callable[..., Path], target: Path) -> None:
    """A list with the columns of todolist gives every value, except for priority and status, which are ignored."""
    path = listed(
        "priority,starid,sector,datasource,camera,ccd,cadence,method,tmag,status,cbv_area,note\n"
        '77,5,27,tpf:9,1,2,20,psf,8.5,1,123,"a, b"\n'
        "78,6,,,3,4,,,,,,\n"
    )
    add_target_lists(target, [path], sector=60)
    assert query(target, "SELECT * FROM todolist ORDER BY priority") == [
        (1, 5, 27, "tpf:9", 1, 2, 20, "psf", 8.5, None, 123),
        (2, 6, 60, "ffi", 3, 4, 200, None, None, None, 340),
    ]


@pytest.mark.parametrize(
    ("datasource", "sector", "cadence"),
    [
        *(("ffi", sector, cadence) for sector, cadence in [(1, 1800), (26, 1800), (27, 600), (55, 600), (56, 200)]),
        *(("tpf", sector, 120) for sector in (1, 27, 60)),
        ("tpf:9", 60, 120),
    ],
)
def test_cadence(target: Path, datasource: str, sector: int, cadence: int) -> None:
    """The default cadence is that of TESS in the sector."""
    add_targets(target, [{**ROW, "datasource": datasource, "sector": sector}])
    assert query(target, "SELECT cadence FROM todolist") == [(cadence,)]


def test_given_cadence(target: Path) -> None:
    """The argument `cadence` applies only to rows without a cadence."""
    add_targets(target, [ROW, {**ROW, "starid": 6, "cadence": 20}], cadence=158)
    assert query(target, "SELECT starid, cadence FROM todolist") == [(5, 158), (6, 20)]


def test_numbers_of_numpy(target: Path) -> None:
    """NumPy's numbers in rows and arguments are stored as SQLite's integers and reals."""
    rows = [{"starid": np.int64(1), "camera": 1, "ccd": np.int8(2), "tmag": np.float32(9.5)}]
    add_targets(target, rows, sector=np.int64(5), cadence=np.int16(200))
    sql = "SELECT typeof(starid), typeof(sector), typeof(cadence), typeof(ccd), typeof(tmag), sector FROM todolist"
    assert query(target, sql) == [("integer",) * 4 + ("real", 5)]


def test_garbage_collection(target: Path) -> None:
    """Garbage collection, which pauses while targets are added, is as before afterwards, and after an error."""
    assert gc.isenabled()
    during = []
    add_targets(target, (ROW for _ in range(2)), progress=lambda *_: during.append(gc.isenabled()))
    with pytest.raises(InvalidTargetError):
        add_targets(target, [{}])
    assert during == [False] * 3
    assert gc.isenabled()
    gc.disable()
    try:
        add_targets(target, [ROW])
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("datasource", [np.array(["ffi"]), ["ffi", "tpf"], b"ffi", 3])
def test_an_odd_datasource(target: Path, datasource: Any) -> None:
    """A datasource that is not a text is an error that names the row and the column."""
    with pytest.raises(InvalidTargetError, match="row 1: column datasource"):
        add_targets(target, [{"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9.0, "datasource": datasource}])


@pytest.mark.parametrize("column", ["starid", "camera", "ccd", "sector", "cadence", "cbv_area"])
@pytest.mark.parametrize("value", [-1, 2**70, 1.5])
def test_numbers_out_of_range(target: Path, column: str, value: Any) -> None:
    """A negative, too large or fractional number is an error that names the row and the column."""
    row = {"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9.0, "cadence": 120, "cbv_area": 111}
    with pytest.raises(InvalidTargetError, match=f"row 1: column {column}"):
        add_targets(target, [row | {column: value}])
    for tmag in (float("inf"), float("-inf")):
        with pytest.raises(InvalidTargetError, match="row 1: column tmag"):
            add_targets(target, [row | {"tmag": tmag}])


def test_order(place: Any) -> None:
    """Priorities are in order of brightness, ties by star id and datasource, without a magnitude last."""
    stars: list[tuple[int, float | None, str]] = [
        (8, -1.0, "ffi"),
        (2, -0.0, "ffi"),
        (4, 0.0, "ffi"),
        (7, 5.0, "ffi"),
        (7, 5.0, "tpf"),
        (7, 5.0, "tpf:8"),
        (9, 5.0, "ffi"),
        (1, None, "ffi"),
        (3, None, "ffi"),
    ]
    rows = [{**ROW, "starid": starid, "tmag": tmag, "datasource": datasource} for starid, tmag, datasource in stars]
    assert add_targets(place, rows[::-1]) == Added(9, 0)
    assert add_targets(place, [{**row, "sector": 2} for row in rows[::2]]) == Added(5, 0)
    ordered = query(place, "SELECT priority, starid, tmag, datasource FROM todolist ORDER BY priority")
    assert ordered == [(number, *star) for number, star in enumerate([*stars, *stars[::2]], start=1)]
    assert math.copysign(1, ordered[1][2]) == 1


@pytest.mark.parametrize(
    ("row", "method"),
    [
        ({"tmag": 2.0}, "halo"),
        ({"tmag": 2.01}, None),
        ({"tmag": 1.0, "datasource": "tpf"}, None),
        ({"tmag": None}, None),
        ({"tmag": 1.0, "method": "psf"}, "psf"),
        ({"tmag": 9.0, "method": "halo", "datasource": "tpf"}, "halo"),
        ({"tmag": 1.0, "method": None}, "halo"),
    ],
)
def test_method(target: Path, row: dict[str, Any], method: str | None) -> None:
    """The default method is halo for the brightest targets of full-frame images, else NULL."""
    add_targets(target, [{**ROW, **row}])
    assert query(target, "SELECT method FROM todolist") == [(method,)]


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "starid": st.integers(1, 10**10),
                "sector": st.integers(1, 100),
                "camera": st.integers(1, 4),
                "ccd": st.integers(1, 4),
                "tmag": st.floats(-5, 20) | st.sampled_from([2.0, math.nextafter(2.0, 3.0)]),
            },
            optional={
                "datasource": st.sampled_from(["ffi", "tpf"]),
                "cadence": st.integers(1, 2000),
                "cbv_area": st.integers(110, 444),
            },
        ),
        max_size=6,
    )
)
@settings(max_examples=25)
def test_texts_are_as_numbers(rows: list[dict[str, Any]]) -> None:
    """Rows of numbers and rows of texts give the same tasks."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "numbers.sqlite", Path(folder) / "texts.sqlite"
        add_targets(files[0], rows)
        add_targets(files[1], [{name: str(value) for name, value in row.items()} for row in rows])
        numbers, texts = (query(path, "SELECT * FROM todolist ORDER BY priority") for path in files)
    assert numbers == texts


def test_again_adds_what_is_new(listed: Callable[..., Path], target: Path) -> None:
    """A second call adds new targets after the existing tasks, which are not changed."""
    first = listed(MIT)
    assert add_target_lists(target, [first]) == Added(2, 0)
    with TaskManager(target) as manager:
        manager.save_result(result_of({"priority": 1}))
    before = query(target, "SELECT * FROM todolist")
    second = listed(MIT + "42,1,1,-1.0,0,0\n", "second.csv")
    assert add_target_lists(target, [first, second]) == Added(1, 4)
    assert query(target, "SELECT * FROM todolist")[:2] == before
    assert query(target, "SELECT priority, starid FROM todolist WHERE priority > 2") == [(3, 42)]
    assert query(target, "SELECT priority FROM diagnostics") == [(1,)]


def test_a_target_that_is_listed_twice(place: Any) -> None:
    """If a target is listed twice, however spelt, the first row counts."""
    assert add_targets(place, [ROW, {**ROW, "tmag": 3.0}, {**ROW, "sector": 2}]) == Added(2, 1)
    assert query(place, "SELECT sector, tmag, priority FROM todolist ORDER BY 1") == [(1, 10.0, 1), (2, 10.0, 2)]
    again = [{**ROW, "cadence": 1800, "tmag": 2.0}, *({**ROW, "sector": 3, "tmag": tmag} for tmag in (12.0, 11.0))]
    assert add_targets(place, [{**ROW, "sector": 4}, *again]) == Added(2, 2)
    added = [(4, 10.0, 3), (3, 12.0, 4)]
    assert query(place, "SELECT sector, tmag, priority FROM todolist WHERE priority > 2 ORDER BY 3") == added
    for datasource, expected in (("tpf:0012", Added(1, 0)), ("tpf:12", Added(0, 1)), ("tpf:000012", Added(0, 1))):
        assert add_targets(place, [{**ROW, "datasource": datasource}]) == expected
    assert query(place, "SELECT datasource FROM todolist WHERE priority = 5") == [("tpf:12",)]


def test_rows_from_anywhere(target: Path) -> None:
    """Rows may come from a generator or a cursor, and hold NumPy's numbers."""
    rows = (
        {"starid": np.int64(n), "sector": np.uint8(2), "camera": np.int32(1), "ccd": 1, "tmag": np.float32(9.5)}
        for n in range(1, 4)
    )
    add_targets(target, rows)
    types = query(target, "SELECT DISTINCT typeof(starid), typeof(sector), typeof(tmag), tmag FROM todolist")
    assert types == [("integer", "integer", "real", 9.5)]
    add_targets(target, [{**ROW, "tmag": math.nan}, {**ROW, "sector": 2, "tmag": np.ma.masked}])
    assert query(target, "SELECT tmag FROM todolist WHERE starid = 5") == [(None,), (None,)]
    with closing(sqlite3.connect(target)) as connection:
        connection.row_factory = sqlite3.Row
        copied = add_targets(target.with_name("copy.sqlite"), connection.execute("SELECT * FROM todolist"))
    assert copied == Added(5, 0)


def as_table(kind: str, columns: dict[str, list[Any]]) -> Any:
    """Return columns as a table of a library; the cadence of the second row is missing."""
    if kind in ("Table", "QTable"):
        table = {"Table": Table, "QTable": QTable}[kind](columns)
        missing = MaskedColumn([120, 7], mask=[False, True], unit="s")
        table["cadence"] = missing if kind == "Table" else Masked(missing.data, mask=missing.mask) * units.s
        table["tmag"].unit = "mag"
        return table
    if kind == "NumPy":
        types = [(name, "S9" if name == "datasource" else "f8") for name in columns]
        return np.array(list(zip(*columns.values(), strict=True)), types)
    if kind == "mapping":
        return {name: values[0] for name, values in columns.items()}
    if kind == "Row":
        return Table(columns)[0]
    library = pytest.importorskip(kind.partition(".")[0])
    frame = library.DataFrame({**columns, "cadence": [120, None]})
    return {"pandas.Series": lambda: frame.iloc[0], "pandas.index": lambda: frame.set_index(["starid", "ccd"])}.get(
        kind, lambda: frame
    )()


@pytest.mark.parametrize(
    "kind",
    ["Table", "QTable", "NumPy", "mapping", "Row", "pandas", "pandas.Series", "pandas.index", "polars"],
)
def test_tables_of_other_libraries(target: Path, kind: str) -> None:
    """Rows may be a table of astropy, NumPy, pandas or polars, with missing values, or one mapping or row."""
    columns = {"starid": [5, 6], "camera": [1, 2], "ccd": [3, 4], "tmag": [9.5, 10.0], "datasource": ["tpf", "ffi"]}
    rows = [(5, 1, 3, 9.5, "tpf", 120), (6, 2, 4, 10.0, "ffi", 1800)][
        : 1 if kind in ("mapping", "Row", "pandas.Series") else 2
    ]
    assert add_targets(target, as_table(kind, columns), sector=1) == Added(len(rows), 0)
    assert query(target, "SELECT starid, camera, ccd, tmag, datasource, cadence FROM todolist ORDER BY 1") == rows


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (Table({"cadence": [2] * units.min}), "the table: column cadence is in min; give it in s"),
        ("list.csv", "rows='list.csv': rows or a table are expected; for CSV files use add_target_lists"),
        (5, "rows=5: rows or a table are expected"),
        ([5], "row 1: 5 is not a mapping of columns to values"),
    ],
)
def test_rows_that_are_none(target: Path, rows: Any, problem: str) -> None:
    """A value that is neither rows nor a table is refused, and so is a table in other units."""
    with pytest.raises(ValueError, match=problem):
        add_targets(target, rows, sector=1)


def test_a_table(place: Any) -> None:
    """Targets may come from an Arrow table of any library and with any types of numbers and texts; errors name rows."""
    number = 2 * SIZE + 3
    columns = {
        "starid": pa.array(range(1, number + 1), pa.uint32()),
        "camera": pa.array([1] * number, pa.int8()),
        "ccd": pa.array([None] + [4] * (number - 1), pa.int16()),
        "tmag": pa.array([None, math.nan] + [9.5] * (number - 2), pa.float32()),
        "datasource": pa.array(["ffi"] * number).dictionary_encode(),
        "method": pa.array([None] * (number - 1) + ["psf"], pa.large_string()),
        "note": pa.array([[1]] * number),
    }
    table = pa.table(columns)
    with pytest.raises(InvalidTargetError, match=r"^row 1: column ccd has no value"):
        add_targets(place, table, sector=1)
    assert add_targets(place, table.slice(1), sector=1) == Added(number - 1, 0)
    rows = query(place, "SELECT priority, starid, ccd, tmag, datasource, method FROM todolist ORDER BY priority")
    assert rows[0] == (1, 3, 4, 9.5, "ffi", None)
    assert rows[-2:] == [(number - 2, number, 4, 9.5, "ffi", "psf"), (number - 1, 2, 4, None, "ffi", None)]
    assert add_targets(place, pa.RecordBatchReader.from_batches(table.schema, table.slice(1).to_batches()), sector=1)[1]
    wrong = table.set_column(2, "ccd", pa.array([4] * (number - 2) + [5, 4]))
    with pytest.raises(InvalidTargetError, match=f"^row {number - 1}: column ccd: 5: a number from 1 to 4"):
        add_targets(place, wrong, sector=2)
    with pytest.raises(InvalidTargetError, match=r"^the table: column starid occurs twice"):
        add_targets(place, wrong.append_column("starid", columns["starid"]), sector=2)
    texts = [None, pa.py_buffer(array("i", range(number + 1))), pa.py_buffer(b"\xff" * number)]
    with pytest.raises(InvalidTargetError, match=r"^rows 1 to 1000: a text is not UTF-8"):
        add_targets(place, wrong.set_column(4, "datasource", pa.Array.from_buffers(pa.string(), number, texts)))
    with pytest.raises(InvalidArgumentError, match=r"^rows=.*: a table with named columns is expected"):
        add_targets(place, pa.chunked_array([columns["starid"]]))
    with pytest.raises(InvalidTargetError, match=r"^row 2: column tmag: array"):
        add_targets(place, [{**ROW, "tmag": None}, {**ROW, "tmag": np.array([1, 2])}])


@pytest.mark.slow
def test_memory(tmp_path: Path) -> None:
    """The memory that loading takes does not grow with the list: the database sorts it."""
    script = (
        "import resource, sys\nfrom photometry_tasks.ingest import add_targets\n"
        "number = int(sys.argv[1])\n"
        "rows = ({'starid': n, 'camera': 1, 'ccd': 1, 'tmag': n * 7 % 1009 / 50} for n in range(1, number))\n"
        "add_targets(sys.argv[2], rows, sector=1)\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for number in (20_000, 200_000):
        command = [sys.executable, "-c", script, str(number), str(tmp_path / f"{number}.sqlite")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 20_000  # kB; the rows take 100 MB in Python


def test_a_directory(tmp_path: Path) -> None:
    """A directory stands for the todo.sqlite in it, also when that is created."""
    add_targets(tmp_path, [ROW])
    assert [path.name for path in tmp_path.iterdir()] == ["todo.sqlite"]
    assert add_targets(tmp_path, [ROW]) == Added(0, 1)


def test_progress(target: Path) -> None:
    """`progress` is called while reading, and before and after writing with the number of new targets."""
    calls: list[tuple[int, int | None]] = []
    rows = [{**ROW, "starid": number} for number in range(1, 2501)]
    for some in (rows[:1], rows):
        add_targets(target, some, progress=lambda done, total: calls.append((done, total)))
    assert calls[:3] == [(1, None), (0, 1), (1, 1)]
    assert calls[3:] == [(1000, None), (2000, None), (2500, None), (0, 2499), (2499, 2499)]


@pytest.mark.parametrize("is_there", [False, True])
def test_all_or_nothing(target: Path, is_there: bool) -> None:
    """If writing fails, no target is added, and no file is created."""
    if is_there:
        add_targets(target, [ROW])

    def fail(_done: int, total: int | None) -> None:
        if total is not None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        add_targets(target, [{**ROW, "starid": number} for number in range(100, 25_000)], progress=fail)
    assert list(target.parent.iterdir()) == ([target] if is_there else [])
    assert not is_there or query(target, "SELECT starid FROM todolist") == [(5,)]


HEADER = "starid,camera,ccd,tmag,sector\n"


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        (HEADER + "1,1,1,9,1\nx,1,1,9,1\n", "line 3", "column starid: 'x': a whole number is expected"),
        (MIT + "\n# more\n7,x,1,9,0,0\n", "line 10", "column Camera: 'x'"),
        (HEADER + "1,1,1,bright,1\n", "line 2", "column tmag: 'bright': a number"),
        (HEADER + "1,1,1,9_5,1\n", "line 2", "column tmag: '9_5': a number"),
        (HEADER + "1,1,1,inf,1\n", "line 2", "column tmag: 'inf': a finite number"),
        (HEADER + "1,1.5,1,9,1\n", "line 2", "column camera: '1.5'"),
        (HEADER + "-1,1,1,9,1\n", "line 2", "column starid: '-1'"),
        (HEADER + "1_0,1,1,9,1\n", "line 2", "column starid: '1_0'"),
        (
            HEADER + f"{2**63},1,1,9,1\n",
            "line 2",
            "column starid: '9223372036854775808': an integer of at most 64 bits",
        ),
        (HEADER + "0,1,1,9,1\n", "line 2", "column starid: '0': a positive number"),
        (HEADER + "1,5,1,9,1\n", "line 2", "column camera: '5': a number from 1 to 4"),
        (HEADER + "1,1,1,-99,1\n", "line 2", "column tmag: '-99': a magnitude from -10 to 30"),
        (HEADER + "1,1,1,,0\n", "line 2", "column sector: '0': a positive number"),
        (HEADER + "1,,1,9,1\n", "line 2", "column camera has no value"),
        (HEADER + "1,1,1,9,\n", "line 2", "column sector has no value; give it with --sector"),
        (HEADER + "1,1,1,9\n", "line 2", "the line has 4 fields, but the header has 5"),
        (HEADER + "1,1,1,9,1,2\n", "line 2", "the line has 6 fields"),
        (HEADER + '1,1,1,9,"1\n', "line 2", "unexpected end of data"),
        (HEADER[:-8] + "\n1,1,1,9\n", "line 2", "column sector has no value"),
        (HEADER + "x,1,1,9,1\n1,1\n", "line 2", "column starid: 'x'"),
        ("starid,datasource,camera,ccd,tmag,sector\n1,tpf:x,1,1,9,1\n", "line 2", "column datasource: 'tpf:x'"),
        ("starid,camera,ccd,sector\n1,1,1,1\n", "list.csv", "column tmag is missing; the list has starid, camera"),
        ("starid,camera,ccd,tmag,sector,,,\n1,1,1,x,1,,,\n", "line 2", "column tmag: 'x'"),
        ("starid,TICID,camera,ccd,tmag,sector\n1,1,1,1,1,1\n", "list.csv", "column starid occurs twice"),
        ("", "list.csv", "the header line is missing"),
        ("# sector 1\n", "list.csv", "the header line is missing"),
        (HEADER, "list.csv", "the list has no targets"),
        ("# sector 1\n# sector 2\nTICID,Camera,CCD,Tmag\n1,1,1,9\n", "list.csv", r"several sectors \(1, 2\)"),
    ],
)
def test_bad_rows(listed: Callable[..., Path], target: Path, text: str, where: str, problem: str) -> None:
    """A bad row is an error with the file, the line and the column, and no file is created."""
    path = listed(text)
    with pytest.raises(InvalidTargetError, match=rf"{where}: .*{problem}.*No target was added") as caught:
        add_target_lists(target, [path])
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert list(target.parent.iterdir()) == []


def test_a_bad_row_leaves_an_existing_file_alone(listed: Callable[..., Path], target: Path) -> None:
    """If the second list has a bad row, no target of the first list is added either."""
    add_targets(target, [ROW])
    before = checksum(target)
    with pytest.raises(InvalidTargetError, match=r"bad\.csv, line 2"):
        add_target_lists(target, [listed(MIT), listed(HEADER + "x,1,1,1,1\n", "bad.csv")])
    assert checksum(target) == before
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"starid": 5.5}, "row 2: column starid: 5.5"),
        ({"starid": "x"}, "row 2: column starid: 'x'"),
        ({"sector": None}, "row 2: column sector has no value"),
        ({"camera": -1}, "row 2: column camera: -1"),
        ({"tmag": "x"}, "row 2: column tmag: 'x'"),
        ({"cadence": 0}, "row 2: column cadence: 0: a positive number"),
        ({"method": 5}, "row 2: column method: 5"),
        ({"datasource": "FFI"}, "row 2: column datasource: 'FFI'"),
        ({"datasource": "both"}, "row 2: column datasource: 'both'"),
    ],
)
def test_bad_rows_from_anywhere(target: Path, change: dict[str, Any], problem: str) -> None:
    """A bad row that does not come from a file is named by its number."""
    with pytest.raises(InvalidTargetError, match=problem):
        add_targets(target, [ROW, {**ROW, **change}])
    assert list(target.parent.iterdir()) == []


def test_an_older_list_with_such_values(target: Path) -> None:
    """Values that are refused in new rows do not keep a list that has them from being used and extended."""
    make_file(
        target, [{"starid": 0, "tmag": -99.0, "camera": 5, "cbv_area": 0}, {"sector": 0, "datasource": "tpf:0012"}]
    )
    assert add_targets(target, [ROW]) == Added(1, 0)
    with TaskManager(target) as manager:
        assert [task["starid"] for task in manager.get_tasks(9)] == [0, 102, 5]
        manager.save_result(result_of({"priority": 1}))


def test_a_row_that_is_none(target: Path) -> None:
    """A row without columns is named by its number."""
    with pytest.raises(InvalidTargetError, match=r"row 2: \(5, 1, 2\) is not a mapping"):
        add_targets(target, [ROW, (5, 1, 2)])  # type: ignore[list-item]
    with pytest.raises(InvalidTargetError, match="row 1: column starid has no value"):
        add_targets(target, [{}, (5, 1, 2)])  # type: ignore[list-item]


def test_a_row_without_the_column_of_magnitudes(target: Path) -> None:
    """A row without the column tmag is an error: the name may be misspelt."""
    with pytest.raises(InvalidTargetError, match="row 1: column tmag is missing"):
        add_targets(target, [{name: value for name, value in ROW.items() if name != "tmag"}])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("sector", value) for value in (-1, 0, 1.5)),
        *(("cadence", value) for value in ("x", 0, 20)),
        ("datasource", "all"),
        ("todo_file", ""),
        *(("lists", value) for value in ("", [], [""], ["list.csv", 5], b"list.csv", 5, None, {"list.csv": 1})),
    ],
)
def test_bad_arguments(target: Path, name: str, value: Any) -> None:
    """The arguments are checked before a row is read."""
    arguments = {"todo_file": target, "lists": ["list.csv"], "datasource": "both", name: value}
    with pytest.raises(InvalidArgumentError, match=f"^{name}="):
        add_target_lists(**arguments)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("kind", [str, Path, lambda path: [path], lambda path: (str(path),), lambda path: iter([path])])
def test_one_list_or_several(listed: Callable[..., Path], target: Path, kind: Callable[[Path], Any]) -> None:
    """A single path stands for one list."""
    assert add_target_lists(target, kind(listed(MIT))) == Added(2, 0)


def test_contradicting_sectors(listed: Callable[..., Path], target: Path) -> None:
    """A sector that contradicts the comments of a list is an error, and a sector that the comments name is valid."""
    path = listed(MIT)
    with pytest.raises(InvalidTargetError, match="the comments name sector 1, but sector 2 was given"):
        add_target_lists(target, [path], sector=2)
    add_target_lists(target, [path], sector=1)
    several = listed("# sector 1 and sector 2\nTICID,Camera,CCD,Tmag\n1,1,1,9\n", "several.csv")
    add_target_lists(target, [several], sector=2)
    assert query(target, "SELECT sector, count(*) FROM todolist GROUP BY 1") == [(1, 2), (2, 1)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (HEADER.encode() + b"1,1,1,9,1\n\xff\xfe\n", r", after line \d: the text is not UTF-8 .* but perhaps Latin-1"),
        (
            HEADER.replace("\n", ",é\n").encode("latin-1"),
            ", after line 0: the text is not UTF-8 .* but perhaps Latin-1",
        ),
        *(
            (MIT.encode(encoding), ": it is a binary file, or text in UTF-16; give a CSV file in UTF-8")
            for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")
        ),
        ("SQLite", ": it is a binary file"),
        ("directory", r": it cannot be read \(Is a directory\); give a readable CSV file"),
    ],
)
def test_not_a_text(target: Path, content: Any, problem: str) -> None:
    """A list that is not UTF-8 is an error that names the list, the likely encoding and the remedy."""
    path = target.parent.parent / "list.csv"
    if content == "SQLite":
        add_targets(path, [ROW])
    elif content == "directory":
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidTargetError, match=rf"^{path}{problem}"):
        add_target_lists(target, path)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_spellings_of_a_text(target: Path, line_end: str, mark: str) -> None:
    """A list may begin with a byte order mark, and have the line ends of any system."""
    path = target.with_name("list.csv")
    path.write_bytes((mark + MIT.replace("\n", line_end)).encode())
    assert add_target_lists(target, path) == Added(2, 0)


def test_a_missing_list(target: Path) -> None:
    """A list that does not exist is named, and is also a FileNotFoundError."""
    with pytest.raises(TargetListNotFoundError, match=r"^No such file or directory: 'no\.csv'\. Check") as caught:
        add_target_lists(target, ["no.csv"])
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(InvalidTargetError, match="embedded null byte"):
        add_target_lists(target, ["no\0.csv"])
    assert list(target.parent.iterdir()) == []


def test_a_foreign_file_is_not_added_to(target: Path) -> None:
    """A database of another program is refused before the lists are read, and not changed."""
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    before = checksum(target)
    with pytest.raises(NotATodoFileError):
        add_target_lists(target, ["there is no such list"])
    assert checksum(target) == before


def test_the_log_of_a_deleted_file(target: Path) -> None:
    """The log of a deleted TODO-file, whose manager was killed, is not applied to a new file."""
    script = (
        "import os, sys; from photometry_tasks import TaskManager; tm = TaskManager(sys.argv[1])\n"
        "tm.start_task(1); os._exit(0)"
    )
    add_targets(target, [ROW])
    subprocess.run([sys.executable, "-c", script, str(target)], check=True)
    target.unlink()
    with pytest.raises(LeftoverLogError, match=r"todo\.sqlite-wal belongs to a .* deleted\. Delete it too"):
        add_targets(target, [{**ROW, "starid": 6}])
    for log in target.parent.iterdir():
        log.unlink()
    add_targets(target, [{**ROW, "starid": 6}])
    assert query(target, "SELECT starid, status FROM todolist") == [(6, None)]


def test_no_such_directory(tmp_path: Path) -> None:
    """If the directory of the TODO-file does not exist, a FileNotFoundError names the directory."""
    with pytest.raises(FileNotFoundError, match=r"This directory does not exist.*nowhere"):
        add_targets(tmp_path / "nowhere" / "todo.sqlite", [ROW])


def test_real_lists(target_lists: dict[int, Path], target: Path) -> None:
    """Both real lists load without changes: 15,899 and 20,000 targets, each for TPF and FFI."""
    assert add_target_lists(target, target_lists.values(), datasource="both") == Added(71_798, 0)
    counts = Counter(dict.fromkeys([]))
    for sector, datasource, cadence, number in query(
        target, "SELECT sector, datasource, cadence, count(*) FROM todolist GROUP BY 1, 2, 3"
    ):
        counts[sector, datasource, cadence] = number
    assert counts == {
        (1, "ffi", 1800): 15_899,
        (1, "tpf", 120): 15_899,
        (14, "ffi", 1800): 20_000,
        (14, "tpf", 120): 20_000,
    }
    (disorder,) = query(
        target,
        "SELECT count(*) FROM todolist a JOIN todolist b ON b.priority = a.priority + 1 WHERE b.tmag < a.tmag",
    )
    assert disorder == (0,)
    assert query(target, "SELECT min(priority), max(priority) FROM todolist") == [(1, 71_798)]
    assert add_target_lists(target, target_lists.values(), datasource="both") == Added(0, 71_798)
