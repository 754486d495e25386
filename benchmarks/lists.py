"""Invented TODO-files of any size, brightest star first, and results for their tasks."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from photometry_tasks import STATUS
from photometry_tasks.schema import create_schema

#: The columns of a row after its priority, in this order.
NAMES = ("starid", "datasource", "sector", "camera", "ccd", "cadence", "method", "tmag", "cbv_area")
INSERT = f"INSERT INTO todolist (priority, {', '.join(NAMES)}) VALUES ({', '.join('?' * 10)})"

#: Stars with a target pixel file, as in a sector of TESS. A quarter as many are secondary targets in these files.
_PIXEL_FILES = 16_000


def rows_of(number: int, sector: int = 1) -> list[tuple[Any, ...]]:
    """Return rows of `todolist`, without priorities, brightest first."""
    chance = random.Random(number)
    rows: list[tuple[Any, ...]] = []

    def add(starid: int, datasource: str, cadence: int, tmag: float, camera: int, ccd: int) -> None:
        area = camera * 100 + ccd * 10 + chance.randint(1, 4)
        rows.append((starid, datasource, sector, camera, ccd, cadence, None, tmag, area))

    for star in range(1, min(_PIXEL_FILES, number // 3) + 1):
        tmag, camera, ccd = chance.gauss(10.5, 1.5), chance.randint(1, 4), chance.randint(1, 4)
        add(star, "tpf", 120, tmag, camera, ccd)
        add(star, "ffi", 1800, tmag, camera, ccd)
        if star % 4 == 0:
            add(900_000_000 + star, f"tpf:{star}", 120, tmag + chance.uniform(0.1, 5), camera, ccd)
    for star in range(number - len(rows)):
        tmag = max(3.0, 15 - chance.expovariate(1.0))
        add(1_000_000_000 + star, "ffi", 1800, tmag, chance.randint(1, 4), chance.randint(1, 4))
    return sorted(rows, key=lambda row: row[7])


def make_list(path: Path, number: int) -> Path:
    """Create a TODO-file with the schema of this release."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        create_schema(connection)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(INSERT, ((priority, *row) for priority, row in enumerate(rows_of(number), start=1)))
        connection.commit()
    return path


def finish_tasks(path: Path, number: int) -> None:
    """Finish the first tasks of a list, as a run does."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT priority, starid, cadence FROM todolist WHERE status IS NULL ORDER BY priority LIMIT ?"
        tasks = [{"priority": p, "starid": s, "cadence": c} for p, s, c in connection.execute(query, (number,))]
        connection.executemany(INSERT_RESULT, map(row_of, map(result_of, tasks)))
        connection.executemany("UPDATE todolist SET status = 1 WHERE priority = ?", [(t["priority"],) for t in tasks])
        connection.commit()


DETAILS = {
    "pos_centroid": (1034.52, 783.11),
    "stamp": (774, 794, 1026, 1043),
    "stamp_resizes": 1,
    "mean_flux": 17342.57,
    "variance": 812.3345,
    "variability": 1.3342,
    "rms_hour": 312.73,
    "ptp": 188.24,
    "mask_size": 17,
    "edge_flux": 0.0,
    "contamination": 0.0213,
}


def result_of(task: dict[str, Any]) -> dict[str, Any]:
    """Return a result with a value for each column of diagnostics except errors."""
    path = f"/data/c{task['cadence']:04d}/{task['priority']}/tess{task['starid']:011d}-s01-dr01-v06-tasoc_lc.fits.gz"
    result = {"status": STATUS.OK, "method_used": "aperture", "time": 3.21, "worker_wait_time": 0.02}
    return {**task, **result, "details": {**DETAILS, "filepath_lightcurve": path}}


_RESULT_COLUMNS = (
    "priority, lightcurve, method_used, elaptime, worker_wait_time, mean_flux, variance, variability, rms_hour, ptp, "
    "pos_row, pos_column, contamination, mask_size, edge_flux, stamp_width, stamp_height, stamp_resizes, errors"
)
INSERT_RESULT = (
    f"INSERT OR REPLACE INTO diagnostics ({_RESULT_COLUMNS}) VALUES ({', '.join('?' * len(_RESULT_COLUMNS.split()))})"
)


def row_of(result: dict[str, Any]) -> tuple[Any, ...]:
    """Return the diagnostics row of a result, without checks."""
    details = result["details"]
    column, row = details["pos_centroid"]
    row1, row2, column1, column2 = details["stamp"]
    return (
        result["priority"],
        details["filepath_lightcurve"],
        result["method_used"],
        result["time"],
        result["worker_wait_time"],
        details["mean_flux"],
        details["variance"],
        details["variability"],
        details["rms_hour"],
        details["ptp"],
        row,
        column,
        details["contamination"],
        details["mask_size"],
        details["edge_flux"],
        column2 - column1,
        row2 - row1,
        details["stamp_resizes"],
        None,
    )
