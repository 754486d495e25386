"""TODO-files of the TASOC pipeline's releases since 3.0 (contract 10), created with plain SQLite."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

RELEASES = ["3.0", "4.1", "4.3", "4.4", "4.5", "5.0", "6.0", "6.3"]

#: The rule of contract 10 for a requested method.
METHODS = ("aperture", "halo", "psf", "linpsf")
SWITCHED = "Automatically switched to Halo photometry"


def number(release: str) -> float:
    return float(release)


def build_todolist(release: str) -> str:
    integer, wide = ("INT" if number(release) < 4.4 else "INTEGER"), ("BIGINT" if number(release) < 5 else "INTEGER")
    key = "BIGINT NOT NULL" if number(release) < 4.1 else "INTEGER PRIMARY KEY ASC NOT NULL"
    cadence = f"cadence {integer} NOT NULL," if number(release) >= 6 else ""
    return f"""CREATE TABLE todolist (
        priority {key}, starid {wide} NOT NULL, sector {integer} NOT NULL, datasource TEXT NOT NULL DEFAULT 'ffi',
        camera {integer} NOT NULL, ccd {integer} NOT NULL, {cadence} method TEXT DEFAULT NULL, tmag REAL,
        status {integer} DEFAULT NULL, cbv_area {integer} NOT NULL)"""


def build_diagnostics(release: str) -> str:
    integer = "INT" if number(release) < 4.4 else "INTEGER"
    key = "INT PRIMARY KEY NOT NULL" if number(release) < 4.4 else "INTEGER PRIMARY KEY ASC NOT NULL"
    return f"""CREATE TABLE diagnostics (
        priority {key}, {"starid BIGINT NOT NULL," if number(release) < 5 else ""} lightcurve TEXT,
        {"method_used TEXT NOT NULL," if number(release) >= 4.5 else ""} elaptime REAL NOT NULL,
        {"worker_wait_time REAL," if number(release) >= 4.4 else ""} mean_flux DOUBLE PRECISION,
        variance DOUBLE PRECISION, variability DOUBLE PRECISION, rms_hour DOUBLE PRECISION, ptp DOUBLE PRECISION,
        pos_row REAL, pos_column REAL, contamination REAL, mask_size {integer},
        {"edge_flux REAL," if number(release) >= 4.3 else ""} stamp_width {integer}, stamp_height {integer},
        stamp_resizes {integer}, errors TEXT,
        FOREIGN KEY (priority) REFERENCES todolist(priority) ON DELETE CASCADE ON UPDATE CASCADE)"""


def build_skipped(release: str) -> str:
    integer = "INT" if number(release) < 4.4 else "INTEGER"
    return f"""CREATE TABLE photometry_skipped (priority {integer} NOT NULL, skipped_by {integer} NOT NULL,
        FOREIGN KEY (priority) REFERENCES todolist(priority) ON DELETE CASCADE ON UPDATE CASCADE,
        FOREIGN KEY (skipped_by) REFERENCES todolist(priority) ON DELETE RESTRICT ON UPDATE CASCADE)"""


def build_indexes(release: str) -> Iterator[str]:
    yield "CREATE INDEX status_idx ON todolist (status)"
    yield "CREATE INDEX starid_idx ON todolist (starid)"
    if number(release) < 4.1:
        yield "CREATE UNIQUE INDEX priority_idx ON todolist (priority)"
    if number(release) < 5:
        yield "CREATE INDEX starid_datasource_idx ON todolist (starid, datasource)"
    else:
        cadence = ", cadence" if number(release) >= 6 else ""
        yield f"CREATE UNIQUE INDEX unique_target_idx ON todolist (starid, datasource, sector, camera, ccd{cadence})"
        yield "CREATE UNIQUE INDEX diagnostics_lightcurve_idx ON diagnostics (lightcurve)"
    if number(release) >= 6.3:
        yield "CREATE INDEX todolist_datasource_idx ON todolist (datasource)"


def make_old_file(path: Path, release: str, rows: int = 60, *, results: bool = True) -> Path:
    """Create a file of a release in mid-run: every fifth task is pending or SKIPPED, with results of many kinds.

    Without results there is only the table `todolist`, as before the first opening.
    """
    tables = [build_todolist(release)] + ([build_diagnostics(release), build_skipped(release)] if results else [])
    with closing(sqlite3.connect(path)) as connection:
        for statement in tables:
            connection.execute(statement)
        insert(connection, "todolist", (task(priority, results) for priority in range(1, rows + 1)))
        if results:
            insert(connection, "diagnostics", (result(n) for n in range(1, rows + 1) if n % 5))
            skips = [(n, n - 1) for n in range(10, rows, 10)]
            # Older files hold duplicate rows.
            connection.executemany("INSERT INTO photometry_skipped VALUES (?, ?)", skips + skips[:1])
            connection.execute(
                "UPDATE todolist SET status = 5 WHERE priority IN (SELECT priority FROM photometry_skipped)"
            )
        for statement in build_indexes(release):
            if results or "diagnostics" not in statement:
                connection.execute(statement)
        connection.commit()
    return path


def insert(connection: sqlite3.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = (tuple(row[column] for column in columns) for row in rows)
    connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", values)


def task(priority: int, results: bool) -> dict[str, Any]:
    """Return a task; each star has three: full-frame images, a pixel file, and a secondary target in a pixel file."""
    star, kind = divmod(priority - 1, 3)
    datasource = ["ffi", "tpf", f"tpf:{1000 + star}"][kind]
    return {
        "priority": priority,
        "starid": 1000 + star + 500_000_000 * (kind == 2),
        "sector": 27 if kind == 0 and star % 2 else 1,
        "datasource": datasource,
        "camera": 1 + star % 4,
        "ccd": 1 + star % 3,
        "cadence": (600 if star % 2 else 1800) if kind == 0 else 120,
        "method": [None, "halo", None, "psf", "aperture", "unheard-of"][priority % 6],
        "tmag": None if priority % 17 == 0 else 2.0 + priority / 7,
        "status": [None, 1, 2, 3, 1][priority % 5] if results else None,
        "cbv_area": 111 + star % 4,
    }


def result(priority: int) -> dict[str, Any]:
    return {
        "priority": priority,
        "starid": task(priority, True)["starid"],
        "lightcurve": None if priority % 5 == 2 else f"lc/{priority}.fits",
        "method_used": "linpsf" if priority % 2 else "aperture",
        "elaptime": priority * 1.5,
        "worker_wait_time": None if priority % 7 else 0.25,
        "mean_flux": 1e4 / priority,
        "variance": 1e-300,
        "variability": 1.1,
        "rms_hour": 0.1 + 0.2,
        "ptp": float("inf") if priority % 11 == 0 else None,
        "pos_row": 100.5,
        "pos_column": 200,
        "contamination": 0.0,
        "mask_size": priority % 40,
        "edge_flux": priority / 3,
        "stamp_width": 11,
        "stamp_height": 15,
        "stamp_resizes": 0,
        "errors": [None, SWITCHED, "one\ntwo", None, f"first\n{SWITCHED} at last"][priority % 5],
    }


def expected_cadence(task: dict[str, Any]) -> int:
    return (1800 if task["sector"] < 27 else 600) if task["datasource"] == "ffi" else 120


def expected_method_used(task: dict[str, Any], errors: str | None) -> str:
    method = task["method"] if task["method"] in METHODS else "aperture"
    return "halo" if method == "aperture" and SWITCHED in (errors or "") else str(method)


def open_as_tasoc(path: Path) -> None:
    """Open an old file as the current TASOC code does, which adds missing columns and tables in its own way."""
    with closing(sqlite3.connect(path)) as connection:
        execute = connection.execute
        columns = {row[1] for row in execute("PRAGMA table_info(todolist)")}
        if "cadence" not in columns:
            execute("ALTER TABLE todolist ADD COLUMN cadence INTEGER DEFAULT NULL")
            execute("UPDATE todolist SET cadence = 1800 WHERE datasource = 'ffi' AND sector < 27")
            execute("UPDATE todolist SET cadence = 600 WHERE datasource = 'ffi' AND sector >= 27 AND sector <= 55")
            execute("UPDATE todolist SET cadence = 120 WHERE datasource <> 'ffi' AND sector < 27")
        execute(build_diagnostics("6.3").replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        execute(build_skipped("6.3").replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        columns = {row[1] for row in execute("PRAGMA table_info(diagnostics)")}
        if "edge_flux" not in columns:
            execute("ALTER TABLE diagnostics ADD COLUMN edge_flux REAL DEFAULT NULL")
        if "worker_wait_time" not in columns:
            execute("ALTER TABLE diagnostics ADD COLUMN worker_wait_time REAL DEFAULT NULL")
        if "method_used" not in columns:
            execute("ALTER TABLE diagnostics ADD COLUMN method_used TEXT NOT NULL DEFAULT 'aperture'")
            for method in METHODS:
                execute(
                    "UPDATE diagnostics SET method_used = ? "
                    "WHERE priority IN (SELECT priority FROM todolist WHERE method = ?)",
                    (method, method),
                )
            execute(
                "UPDATE diagnostics SET method_used = 'halo' WHERE method_used = 'aperture' AND errors LIKE ?",
                (f"%{SWITCHED}%",),
            )
        for statement in build_indexes("6.3"):
            execute(statement.replace("INDEX", "INDEX IF NOT EXISTS", 1))
        connection.commit()
        execute("ANALYZE")
        connection.commit()
