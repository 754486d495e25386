"""`export_tasks` and `photometry-tasks export`: CSV, Parquet and ECSV."""

import csv
import gzip
import math
import re
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidArgumentError, OutdatedSchemaError, UnreadableValueError, UnsavedResultsError
from photometry_tasks.export import export_tasks
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.reading.columns import STORED
from photometry_tasks.rules.validation import show
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import upgrade_list
from photometry_tasks.text import count_of
from tests.support.commands import Call
from tests.support.lists import checksum, make_file, query, result_of
from tests.support.old_files import make_old_file
from tests.support.processes import kill, running

#: The FITS standard has no electron; astropy keeps the unit, but warns.
pytestmark = pytest.mark.filterwarnings("ignore:'electron.*' did not parse as fits unit")

SQL = "SELECT * FROM todolist AS t LEFT JOIN diagnostics AS d ON d.priority = t.priority {} ORDER BY t.priority"


@pytest.fixture
def filled(todo: Callable[..., Path]) -> Path:
    """Create a file with unusual values: NULL, infinity, quotes, commas, lines, other scripts, large numbers."""
    path = todo(
        {"tmag": None, "starid": 2**62},
        {"tmag": -1.46, "datasource": "tpf", "cadence": 120},
        {"tmag": 1e-300, "datasource": "tpf:102", "method": "halo"},
        {"camera": 4, "ccd": 4},
    )
    with TaskManager(path) as manager:
        errors = ["a, b; \"c\" 'd'", "Zeile 2 — ☆"]
        details = {
            "mean_flux": math.inf,
            "variance": 0.1,
            "ptp": math.nan,
            "filepath_lightcurve": "a b.fits",
            "mask_size": 7,
        }
        manager.save_result(result_of({"priority": 1}, STATUS.ERROR, errors=errors, **details))
        manager.save_result(result_of({"priority": 2}, mean_flux=1 / 3))
        manager.save_result(result_of({"priority": 3}, STATUS.WARNING, stamp=(1, 12, 3, 20)))
    return path


def change(path: Path, sql: str, rows: Iterable[tuple[Any, ...]] = ((),)) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(sql, rows)


def expected(path: Path, where: str = "") -> list[tuple[Any, ...]]:
    """Return the rows of the file, without the second column priority."""
    return [row[:11] + row[12:] for row in query(path, SQL.format(where))]


TEXTS = {"datasource", "method", "lightcurve", "method_used", "errors"}
REALS = {
    *("tmag", "elaptime", "worker_wait_time", "mean_flux", "variance", "variability", "rms_hour", "ptp"),
    *("pos_row", "pos_column", "contamination", "edge_flux"),
}
TYPES = {
    column.name: "string" if column.name in TEXTS else "double" if column.name in REALS else "int64"
    for column in STORED
}


def read_csv(path: Path) -> list[tuple[Any, ...]]:
    """Read a CSV file with two readers; Python's own does not distinguish an empty text from a missing value."""
    table = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=TYPES, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == table.column_names
    found = [tuple(row.values()) for row in table.to_pylist()]
    kinds = [{"string": str, "double": float, "int64": int}[TYPES[name]] for name in head]
    assert [tuple(cell and kind(cell) for kind, cell in zip(kinds, row, strict=True)) for row in rows] == [
        tuple("" if value is None else value for value in row) for row in found
    ]
    return found


def read_compressed(path: Path) -> list[tuple[Any, ...]]:
    plain = path.with_suffix(".plain")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    try:
        return read_csv(plain)
    finally:
        plain.unlink()


def read_parquet(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pyarrow.parquet.read_table(path).to_pylist()]


def read_ecsv(path: Path) -> list[tuple[Any, ...]]:
    table = Table.read(path, format="ascii.ecsv")
    return [tuple(None if cell is np.ma.masked else cell for cell in row) for row in table]


def read_fits(path: Path) -> list[tuple[Any, ...]]:
    with fits.open(path) as file:
        file.verify("exception")
    return read_table(Table.read(path, format="fits"))


def read_votable(path: Path) -> list[tuple[Any, ...]]:
    return read_table(Table.read(path, format="votable"))


def read_table(table: Table) -> list[tuple[Any, ...]]:
    """Return the rows of a table, whose missing texts are empty."""
    return [tuple(None if cell is np.ma.masked or cell == "" else cell for cell in row) for row in table]


#: Formats in which every text is equal when read back; and the others.
EXACT = {"csv": read_csv, "csv.gz": read_compressed, "parquet": read_parquet, "ecsv": read_ecsv}
READERS = {**EXACT, "fits": read_fits, "vot": read_votable}


def as_in(kind: str, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows as a format has them: FITS has no characters but printable ASCII."""
    if kind != "fits":
        return rows
    odd = {text: text.encode("unicode_escape").decode() for row in rows for text in row if isinstance(text, str)}
    return [tuple(odd.get(value, value) for value in row) for row in rows]


@pytest.mark.parametrize("kind", list(READERS))
def test_every_value(filled: Path, tmp_path: Path, kind: str) -> None:
    """Every value is equal when read back, to the last bit."""
    target = tmp_path / f"out.{kind}"
    before = checksum(filled)
    assert export_tasks(str(filled), str(target)) == 4
    assert READERS[kind](target) == as_in(kind, expected(filled))
    assert checksum(filled) == before
    assert sorted(tmp_path.iterdir()) == sorted([filled, target])


#: Texts that readers take for a line break, a blank, a missing value, a comment, a quote or a formula.
ODD = [
    *("a\rb", "a\r\nb", "\n", "a\n\n  b\n#c", "a\x0bb", "a\x0cb", "a\x1cb", "a\x1db", "a\x1eb", "a\x85b"),
    *("\u2028", "a\u2029b", "", " ", " a", "a ", "\ta", "\xa0", "\0", "a\0", "\ufeff", "\x1b[2J", "\x1a"),
    *("nan", "--", "None", "null", "N/A", "masked", "0", "True", "é 🌟", "=1+1"),
    *('""', '"', "'", 'a"b', ",", "a,b", "#", "\\", "\\n", '"\\u0041"'),
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", list(EXACT))
@settings(max_examples=10)
@given(texts=st.lists(st.text() | st.sampled_from(ODD), max_size=9))
@example(texts=ODD)
def test_every_text(tmp_path_factory: pytest.TempPathFactory, kind: str, texts: list[str]) -> None:
    """Every text is equal when read back, and no text is taken for a missing value."""
    folder = tmp_path_factory.mktemp("texts")
    path = make_file(folder / "todo.sqlite", [{"method": text} for text in texts] + [{}])
    rows = [(number, text, f"{text}{number}", text) for number, text in enumerate(texts, start=1)]
    change(
        path,
        "INSERT INTO diagnostics (priority, errors, lightcurve, method_used, elaptime) VALUES (?, ?, ?, ?, 1)",
        rows,
    )
    export_tasks(path, folder / f"out.{kind}")
    assert READERS[kind](folder / f"out.{kind}") == expected(path)


def test_units(filled: Path, tmp_path: Path) -> None:
    """ECSV, FITS, VOTable and Parquet hold the units, and all but FITS the descriptions."""
    for kind, name in (("ecsv", "ascii.ecsv"), ("fits", "fits"), ("vot", "votable")):
        export_tasks(filled, tmp_path / f"out.{kind}")
        table = Table.read(tmp_path / f"out.{kind}", format=name)
        assert (str(table["tmag"].unit), str(table["mean_flux"].unit)) == ("mag", "electron / s")
        assert table["mask_size"].dtype.kind == "i"
        assert table["elaptime"].description == (None if kind == "fits" else "Run time")
    export_tasks(filled, tmp_path / "out.parquet")
    field = pyarrow.parquet.read_schema(tmp_path / "out.parquet").field("elaptime")
    assert field.metadata == {b"unit": b"s", b"description": b"Run time"}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["--status", "OK,WARNING"], "WHERE t.status IN (1, 3)"),
        (["--status", "pending"], "WHERE t.status IS NULL"),
        (["--status", "PENDING,ERROR"], "WHERE t.status IS NULL OR t.status = 2"),
        (["--status", "OK", "--status", "error", "--camera", "1,4"], "WHERE t.status IN (1, 2)"),
        (["--cadence", "FFI"], "WHERE t.datasource = 'ffi'"),
        (["--cadence", "120,1800", "--ccd", "1"], "WHERE t.ccd = 1"),
        (["--camera", "4"], "WHERE t.camera = 4"),
        (["--datasource", "tpf", "--status", "OK"], "WHERE t.datasource <> 'ffi' AND t.status = 1"),
        (["--camera", "3"], "WHERE 0"),
    ],
)
def test_the_command(filled: Path, call: Call, options: list[str], where: str) -> None:
    """Only the chosen tasks are written, and the command prints their number."""
    run = call("export", filled, "out.csv", *options)
    assert run.returncode == 0, run.stderr
    rows = expected(filled, where)
    assert run.stdout == f"{count_of(len(rows), 'task')} written to out.csv.\n"
    assert read_csv(filled.parent / "out.csv") == rows


@pytest.mark.parametrize("kind", ["csv", "ecsv", "vot"])
def test_printed(filled: Path, call: Call, kind: str) -> None:
    """With '-', the table is all that is printed; the message is on stderr."""
    export_tasks(filled, filled.with_name(f"out.{kind}"))
    run = call("export", filled, "-", *(["--format", kind] if kind != "csv" else []))
    assert run.stdout == filled.with_name(f"out.{kind}").read_text(encoding="utf-8")
    assert run.stderr == "4 tasks written to the output.\n"
    assert not filled.with_name("-").exists()


@pytest.mark.parametrize(
    ("status", "where"),
    [
        *(
            (status, "WHERE t.status = 2")
            for status in (STATUS.ERROR, 2, [STATUS.ERROR], {2}, np.int64(2), [np.int8(2)], "ERROR", ["error"])
        ),
        (iter([None, STATUS.OK]), "WHERE t.status IS NULL OR t.status = 1"),
        (("pending", 1), "WHERE t.status IS NULL OR t.status = 1"),
        *((status, None) for status in ("ERR", ["OK", "DONE"], [2.0], [True], 9, [b"2"])),
    ],
)
def test_statuses(filled: Path, tmp_path: Path, status: Any, where: str | None) -> None:
    """One or several statuses choose their tasks, as members or values of STATUS; other values are refused."""
    if where is None:
        with pytest.raises(InvalidArgumentError, match=r"status=.*: a STATUS or several, .*, or PENDING"):
            export_tasks(filled, tmp_path / "out.csv", status=status)
        assert not (tmp_path / "out.csv").exists()
    else:
        export_tasks(filled, tmp_path / "out.csv", status=status)
        assert read_csv(tmp_path / "out.csv") == expected(filled, where)


SUFFIXES = [f".{kind}" for kind in READERS]

HEAD = "priority,starid,sector,datasource,camera,ccd,cadence,method,tmag,status,cbv_area"


@pytest.mark.sample(5)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_again(filled: Path, tmp_path: Path, suffix: str) -> None:
    """An export, whatever it holds, and an empty file are replaced, also through a symlink."""
    target, link = tmp_path / f"out{suffix}", tmp_path / f"link{suffix}"
    target.touch()
    link.symlink_to(target)
    for place in (target, target, link):
        assert export_tasks(filled, place, camera=[]) == 0
        assert export_tasks(filled, place) == len(expected(filled))
    assert link.is_symlink()


@pytest.mark.sample(7)
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content",
    [
        "starid,sector,camera,ccd,tmag\n1,1,1,1,9\n",  # a target list
        "# TESS targets\nTICID,Camera,CCD,Tmag\n1,1,1,9\n",
        f"{HEAD}\n1,1,1,ffi,1,1,1800,,9,,110\n",  # a target list with all columns of a task
        f"{HEAD},lightcurve,method_used,my_own\n",  # an export to which its user has added a column
        "import os\n",
        "#\n",
        "\n",
        "PAR1",
        f"PAR1{HEAD}PAR1",
        b"PAR1\x00\x01\x02\x03\xff\x04\x00\x00\x00PAR1",
        b"\xff\xfe\x00",
    ],
)
def test_files_that_are_no_export(filled: Path, tmp_path: Path, suffix: str, content: str | bytes) -> None:
    """A file of the user is not replaced, nor is one that a symlink leads to; the error names the way out."""
    theirs = tmp_path / f"theirs{suffix}"
    theirs.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / f"link{suffix}").symlink_to(theirs)
    before = checksum(theirs)
    for place in (theirs, tmp_path / f"link{suffix}"):
        with pytest.raises(InvalidArgumentError, match=r"^output=.*something else, .* another path, or `force=True`"):
            export_tasks(filled, place)
    assert checksum(theirs) == before
    assert {path.name for path in tmp_path.iterdir()} == {filled.name, theirs.name, f"link{suffix}"}
    assert export_tasks(filled, theirs, force=True) == export_tasks(filled, theirs)


def test_a_table_of_another_program(filled: Path, tmp_path: Path) -> None:
    """A Parquet table or an ECSV table with other columns is not replaced."""
    table = pyarrow.table({"priority": [1], "starid": [2]})
    pyarrow.parquet.write_table(table, tmp_path / "theirs.parquet")
    Table({"priority": [1], "starid": [2]}).write(tmp_path / "theirs.ecsv", delimiter=",")
    for name in ("theirs.parquet", "theirs.ecsv"):
        before = checksum(tmp_path / name)
        with pytest.raises(InvalidArgumentError, match="holds something else"):
            export_tasks(filled, tmp_path / name)
        assert checksum(tmp_path / name) == before


def test_no_match(filled: Path, tmp_path: Path, call: Call) -> None:
    """If no task matches, the command says why, and keeps an earlier export; without one it writes an empty table."""
    assert call("export", filled, "out.csv").returncode == 0
    before = checksum(tmp_path / "out.csv")
    run = call("export", filled, "out.csv", "--camera", "9")
    assert (run.returncode, checksum(tmp_path / "out.csv")) == (1, before)
    assert re.search(r"No task has camera 9; the list has .* out\.csv is not replaced by an empty table\.", run.stderr)
    assert call("export", filled, "new.csv", "--camera", "9").returncode == 0
    assert call("export", filled, "out.csv", "--camera", "9", "--force").returncode == 0
    assert checksum(tmp_path / "out.csv") != before


def test_through_a_symlink(filled: Path, tmp_path: Path) -> None:
    """A symlink is kept, and its target is written."""
    folder = tmp_path / "folder"
    folder.mkdir()
    link = tmp_path / "out.csv"
    link.symlink_to(folder / "real.csv")
    export_tasks(filled, link)
    assert link.is_symlink()
    assert read_csv(folder / "real.csv") == expected(filled)


def test_while_a_manager_works(filled: Path, tmp_path: Path) -> None:
    """If the file is in use, one state of it is written."""
    with TaskManager(filled) as manager:
        manager.save_result(result_of({"priority": 4}))
        assert export_tasks(filled, tmp_path / "out.csv", status=STATUS.OK) == 2


def save_in_memory(connection: Connection, path: Path, number: int, backup_interval: int | None) -> None:
    """Save results in memory, send how many are saved after each, and wait."""
    with TaskManager(path, load_into_memory=True, backup_interval=backup_interval) as manager:
        for priority in range(1, number + 1):
            manager.save_result(result_of({"priority": priority}, filepath_lightcurve=f"{priority}.fits"))
            connection.send(priority)
        connection.recv()
    connection.send("closed")


def test_names_of_own_values(todo: Callable[..., Path], tmp_path: Path) -> None:
    """The name of an own value may hold any letter; FITS writes it with escapes."""
    path = todo({})
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}, extra={"é": 7}))
    for kind, name in (("csv", "extra_é"), ("fits", r"extra_\xe9")):
        export_tasks(path, tmp_path / f"out.{kind}")
        export_tasks(path, tmp_path / f"out.{kind}")
        table = Table.read(tmp_path / f"out.{kind}", format={"csv": "ascii.csv"}.get(kind, kind))
        assert list(table[name]) == [7]


@pytest.mark.parametrize("is_killed", [False, True], ids=["running", "killed"])
def test_results_in_the_log(todo: Callable[..., Path], tmp_path: Path, is_killed: bool) -> None:
    """Results that a manager in memory logged are written, in its run and after a kill; nothing is changed."""
    path = todo(*[{}] * 5)
    with running(save_in_memory, path, 3, None) as (process, connection):
        assert [connection.recv() for _ in range(3)] == [1, 2, 3]
        if is_killed:
            kill(process)
        before = checksum(path), checksum(path.with_name("todo.sqlite-results"))
        for kind, read in READERS.items():
            assert export_tasks(path, tmp_path / f"out.{kind}") == 5
            rows = [(row[9], row[11]) for row in read(tmp_path / f"out.{kind}")]
            assert rows == [(1, f"{n}.fits") for n in (1, 2, 3)] + [(None, None)] * 2
        assert (checksum(path), checksum(path.with_name("todo.sqlite-results"))) == before


def test_while_backups_replace_the_file(todo: Callable[..., Path], tmp_path: Path) -> None:
    """While a manager backs up after every other result, an export holds all results that were saved before it."""
    path, number = todo(*[{}] * 60), 50
    with running(save_in_memory, path, number, 2) as (_, connection):
        saved = 0
        while saved < number:
            saved = connection.recv()
            while connection.poll():
                saved = connection.recv()
            found = export_tasks(path, tmp_path / "out.csv", status=[STATUS.OK.value])
            assert found >= saved
            assert [row[0] for row in read_csv(tmp_path / "out.csv")] == list(range(1, found + 1))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda log: log[:-60] + b"x" + log[-59:] + log[:10], "1 result cannot be read"),
        (lambda log: log.replace(log.split(b"\n")[0] + b"\n", b""), "they belong to another state of the file"),
    ],
    ids=["damaged", "of another file"],
)
def test_a_log_that_cannot_be_read(
    todo: Callable[..., Path], tmp_path: Path, damage: Callable[[bytes], bytes], found: str
) -> None:
    """If results in a log cannot be read, an export is refused with the remedy, which works; the status is shown."""
    path, target = todo({}, {}, {}), tmp_path / "out.csv"
    with running(save_in_memory, path, 2, None) as (process, connection):
        assert [connection.recv(), connection.recv()] == [1, 2]
        kill(process)
    log = path.with_name("todo.sqlite-results")
    log.write_bytes(damage(log.read_bytes()))
    with pytest.raises(UnsavedResultsError, match=rf"\({found}\).*`photometry-tasks upgrade {path}`"):
        export_tasks(path, target)
    assert not target.exists()
    assert get_status(path)["has_log"]
    upgrade_list(parse_location(path))
    assert export_tasks(path, target) == 3


@pytest.mark.parametrize("name", ["out.txt", "out.fits.gz", "out", "todo.csv", "link.csv"])
def test_bad_targets(filled: Path, tmp_path: Path, name: str) -> None:
    """Another suffix, or the TODO-file itself, is refused before anything is written."""
    path = filled.rename(tmp_path / "todo.csv")
    if name == "link.csv":
        (tmp_path / name).symlink_to(path)
    before = checksum(path)
    with pytest.raises(InvalidArgumentError, match=r"(target|output)="):
        export_tasks(path, tmp_path / name)
    assert checksum(path) == before
    assert {other.name for other in tmp_path.iterdir()} <= {path.name, "link.csv"}


def test_an_older_file(tmp_path: Path) -> None:
    """A file with an older schema is refused, and the error names the command that upgrades it."""
    path = make_old_file(tmp_path / "old.sqlite", "4.4")
    with pytest.raises(OutdatedSchemaError, match="photometry-tasks upgrade"):
        export_tasks(path, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("kind", list(READERS))
def test_values_of_another_type(filled: Path, tmp_path: Path, kind: str) -> None:
    """Numbers that TASOC stored as their bytes are read, and bytes in place of a text are written as text."""
    numbers = {"mask_size": (7).to_bytes(8, "little"), "stamp_width": (-5).to_bytes(8, "little", signed=True)}
    numbers |= {"mean_flux": struct.pack("<f", -0.5), "ptp": struct.pack("<d", 1e30), "variance": struct.pack("<f", 0)}
    numbers |= {"rms_hour": struct.pack("<f", math.nan), "errors": b"bo\xffm", "lightcurve": "é".encode()}
    for name, value in numbers.items():
        change(filled, f"UPDATE diagnostics SET {name} = ? WHERE priority = 2", [(value,)])
    change(filled, "UPDATE todolist SET camera = ?", [((3).to_bytes(8, "little"),)])
    change(filled, "UPDATE diagnostics SET errors = CAST(x'eda08041' AS TEXT) WHERE priority = 3")
    export_tasks(filled, tmp_path / f"out.{kind}")
    rows = [dict(zip(TYPES, row, strict=True)) for row in READERS[kind](tmp_path / f"out.{kind}")]
    texts = {"errors": r"bo\xffm", "lightcurve": "é", "camera": 3}
    read = {"mask_size": 7, "stamp_width": -5, "mean_flux": -0.5, "ptp": 1e30, "variance": 0.0, "rms_hour": None}
    if kind == "fits":
        texts["lightcurve"] = r"\xe9"
    assert rows[1] == rows[1] | read | texts
    assert (rows[2]["errors"], rows[2]["camera"]) == (r"\xed\xa0\x80A", 3)


@pytest.mark.sample(5)
@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("todolist.camera", "one"), ("todolist.tmag", "bright"), ("todolist.cadence", 1.5)),
        *(("todolist.starid", b"\5\0\0\0"), ("todolist.tmag", (5).to_bytes(8, "little"))),
        *(("diagnostics.mask_size", b"\5\0"), ("diagnostics.ptp", (-5).to_bytes(4, "little", signed=True))),
    ],
)
def test_a_value_that_cannot_be_read(filled: Path, tmp_path: Path, kind: str, column: str, value: Any) -> None:
    """If a number cannot be read without doubt, the error names it and its row, and an earlier file stays."""
    target = tmp_path / f"out.{kind}"
    export_tasks(filled, target)
    before = checksum(target)
    table, _, name = column.partition(".")
    change(filled, f"UPDATE {table} SET {name} = ? WHERE priority = 3", [(value,)])
    found = rf"{column} is {re.escape(show(value))} in the row with priority 3: a number"
    with pytest.raises(UnreadableValueError, match=found):
        export_tasks(filled, target)
    assert checksum(target) == before
    assert sorted(tmp_path.iterdir()) == sorted([filled, target])


def test_for_spreadsheets(filled: Path, call: Call) -> None:
    """On demand, an apostrophe precedes each text that a spreadsheet would run; numbers stay as they are."""
    armed = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]
    for number, text in enumerate(armed, start=5):
        change(filled, "INSERT INTO todolist SELECT ?, ?, 1, 'ffi', 1, 1, 1, ?, -1.5, 1, 1", [(number, number, text)])
    run = call("export", filled, "out.csv", "--for-spreadsheets")
    assert run.returncode == 0, run.stderr
    rows = read_csv(filled.parent / "out.csv")
    assert [row[7:9] for row in rows[4:]] == [(f"'{text}", -1.5) for text in armed]
    assert rows[:4] == expected(filled)[:4]
    refused = call("export", filled, "out.ecsv", "--for-spreadsheets")
    assert "--for-spreadsheets: give a file name that ends with .csv" in refused.stderr


MEASURE = """
import sys
from pathlib import Path
from photometry_tasks.export import export_tasks
from photometry_tasks.reading.columns import STORED
from photometry_tasks.text import count_of
number = export_tasks(Path(sys.argv[1]), Path(sys.argv[2]))
# Not getrusage: its value may include the process that started this program.
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(number, peak)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("csv", 60_000),
        ("parquet", 60_000),
        *(pytest.param(kind, 2_000_000, marks=pytest.mark.slow) for kind in READERS),
    ],
)
def test_memory(tmp_path: Path, kind: str, number: int) -> None:
    """An export of any number of rows takes at most 250 MB, 50 of which are pandas: pyarrow imports it."""
    path = make_file(tmp_path / "todo.sqlite", [{}])
    with closing(sqlite3.connect(path)) as connection, connection:
        numbers = f"WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {number})"
        connection.execute(
            f"INSERT INTO todolist {numbers}"
            " SELECT i, 100 + i, 1, 'ffi', 1 + i % 4, 1 + i / 4 % 4, 1800, NULL, i * 1e-5, 1, 110 FROM n"
        )
        connection.execute(
            "INSERT INTO diagnostics (priority, lightcurve, method_used, elaptime, mean_flux, variance, errors)"
            f" {numbers}"
            " SELECT i, 'lightcurves/' || i || '.fits.gz', 'aperture', i * 1e-3, i / 7.0, i / 3.0, 'error ' || i FROM n"
        )
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(tmp_path / f"out.{kind}")], capture_output=True, text=True
    )
    written, peak = map(int, run.stdout.split())
    assert written == number
    assert peak < 250_000  # kB
