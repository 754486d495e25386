"""`export_tasks` and `photometry-tasks export`: CSV, Parquet and ECSV."""

import csv
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from astropy.table import Table

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidArgumentError, OutdatedSchemaError
from photometry_tasks.export import export_tasks
from photometry_tasks.text import count_of
from tests.support.commands import Call
from tests.support.lists import checksum, make_file, query, result_of
from tests.support.old_files import make_old_file

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


def expected(path: Path, where: str = "") -> list[tuple[Any, ...]]:
    """Return the rows of the file, without the second column priority."""
    return [row[:11] + row[12:] for row in query(path, SQL.format(where))]


def read_csv(path: Path) -> list[tuple[Any, ...]]:
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    kinds = [float if name in REALS else str if name in TEXTS else int for name in head]
    return [tuple(None if cell == "" else kind(cell) for kind, cell in zip(kinds, row, strict=True)) for row in rows]


TEXTS = {"datasource", "method", "lightcurve", "method_used", "errors"}
REALS = {
    *("tmag", "elaptime", "worker_wait_time", "mean_flux", "variance", "variability", "rms_hour", "ptp"),
    *("pos_row", "pos_column", "contamination", "edge_flux"),
}


def read_parquet(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pyarrow.parquet.read_table(path).to_pylist()]


def read_ecsv(path: Path) -> list[tuple[Any, ...]]:
    table = Table.read(path, format="ascii.ecsv")
    return [tuple(None if str(cell) == "--" else cell for cell in row) for row in table]


READERS = {"csv": read_csv, "parquet": read_parquet, "ecsv": read_ecsv}


@pytest.mark.parametrize("kind", list(READERS))
def test_every_value(filled: Path, tmp_path: Path, kind: str) -> None:
    """Every value is equal when read back, to the last bit; only ECSV writes a line break as two characters."""
    target = tmp_path / f"out.{kind}"
    before = checksum(filled)
    assert export_tasks(filled, target) == 4
    rows = expected(filled)
    if kind == "ecsv":
        rows = [tuple(v.replace("\n", "\\n") if isinstance(v, str) else v for v in row) for row in rows]
    assert READERS[kind](target) == rows
    assert checksum(filled) == before
    assert sorted(tmp_path.iterdir()) == sorted([filled, target])


def test_units(filled: Path, tmp_path: Path) -> None:
    """ECSV and Parquet hold the units."""
    export_tasks(filled, tmp_path / "out.ecsv")
    table = Table.read(tmp_path / "out.ecsv", format="ascii.ecsv")
    assert (str(table["tmag"].unit), str(table["mean_flux"].unit)) == ("mag", "electron / s")
    export_tasks(filled, tmp_path / "out.parquet")
    field = pyarrow.parquet.read_schema(tmp_path / "out.parquet").field("elaptime")
    assert field.metadata == {b"unit": b"s"}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["--status", "OK,WARNING"], "WHERE t.status IN (1, 3)"),
        (["--status", "pending"], "WHERE t.status IS NULL"),
        (["--status", "PENDING,ERROR"], "WHERE t.status IS NULL OR t.status = 2"),
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


@pytest.mark.parametrize(
    ("status", "where"),
    [
        *(
            (status, "WHERE t.status = 2")
            for status in (STATUS.ERROR, 2, [STATUS.ERROR], {2}, np.int64(2), [np.int8(2)])
        ),
        (iter([None, STATUS.OK]), "WHERE t.status IS NULL OR t.status = 1"),
        *((status, None) for status in ("ERROR", ["ERROR"], [2.0], [True], 9, [b"2"])),
    ],
)
def test_statuses(filled: Path, tmp_path: Path, status: Any, where: str | None) -> None:
    """One or several statuses choose their tasks, as members or values of STATUS; other values are refused."""
    if where is None:
        with pytest.raises(InvalidArgumentError, match=r"status=.*: values of STATUS are expected: .* or None"):
            export_tasks(filled, tmp_path / "out.csv", status=status)
        assert not (tmp_path / "out.csv").exists()
    else:
        export_tasks(filled, tmp_path / "out.csv", status=status)
        assert read_csv(tmp_path / "out.csv") == expected(filled, where)


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


@pytest.mark.parametrize("name", ["out.fits", "out", "todo.csv", "link.csv"])
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


def test_a_failure_leaves_the_old_file(filled: Path, tmp_path: Path) -> None:
    """If the export fails, it does not replace an earlier file."""
    target = tmp_path / "out.parquet"
    target.write_text("earlier")
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute("UPDATE todolist SET camera = 'one' WHERE priority = 4")
    with pytest.raises(ValueError, match="int64"):
        export_tasks(filled, target)
    assert target.read_text() == "earlier"
    assert sorted(tmp_path.iterdir()) == sorted([filled, target])


MEASURE = """
import sys
from pathlib import Path
from photometry_tasks.export import export_tasks
from photometry_tasks.text import count_of
number = export_tasks(Path(sys.argv[1]), Path(sys.argv[2]))
# Not getrusage: its value may include the process that started this program.
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(number, peak)
"""


@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.parametrize("number", [60_000, pytest.param(2_000_000, marks=pytest.mark.slow)])
def test_memory(tmp_path: Path, kind: str, number: int) -> None:
    """An export of any number of rows takes at most 200 MB."""
    path = make_file(tmp_path / "todo.sqlite", [{}])
    import sqlite3
    from contextlib import closing

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
    assert peak < 200_000  # kB
