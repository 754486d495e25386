"""Measure the upgrade of a file of release 3.0, compared with a copy of its tables and indexes by plain SQLite.

    python -m benchmarks.upgrade [--rows N] [--repeats N] [--no-results]

Both run in turn, each in a new process on its own copy of the file. The copy of the tables is one transaction too.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.old_files import build_diagnostics, build_indexes, build_skipped, build_todolist, make_old_file

_MEASURE = """
import json, resource, sys, time
{setup}
start = time.perf_counter()
{work}
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def copy_script(path: Path, *, results: bool) -> str:
    """Return a script that copies each table within the file, and builds the indexes of release 6.3."""
    creates = {"todolist": build_todolist("6.3")}
    if results:
        creates |= {"diagnostics": build_diagnostics("6.3"), "photometry_skipped": build_skipped("6.3")}
    columns = {
        "todolist": "priority, starid, sector, datasource, camera, ccd, 1800, method, tmag, status, cbv_area",
        "diagnostics": (
            "priority, lightcurve, 'aperture', elaptime, NULL, mean_flux, variance, variability, rms_hour, ptp, "
            "pos_row, pos_column, contamination, mask_size, NULL, stamp_width, stamp_height, stamp_resizes, errors"
        ),
        "photometry_skipped": "priority, skipped_by",
    }
    statements = ["BEGIN IMMEDIATE"]
    for name, create in creates.items():
        statements += [
            create.replace(f"CREATE TABLE {name}", f"CREATE TABLE new_{name}"),
            f"INSERT INTO new_{name} SELECT {columns[name]} FROM {name}",
        ]
    for index in build_indexes("6.3"):
        if not results and "diagnostics" in index:
            continue
        statements.append(index.replace("INDEX ", "INDEX new_").replace(" ON ", " ON new_"))
    setup = f"import sqlite3; connection = sqlite3.connect({str(path)!r}, isolation_level=None)"
    work = f"for statement in {statements!r}: connection.execute(statement)\nconnection.execute('COMMIT')"
    return _MEASURE.format(setup=setup, work=work)


def upgrade_script(path: Path) -> str:
    """Return a script that upgrades the file as opening does."""
    setup = (
        "import alembic.command\nfrom pathlib import Path\n"
        "from photometry_tasks.storage.sqlite.database import SQLiteDatabase\n"
        "from photometry_tasks.storage.upgrade import upgrade_schema\n"
        f"database = SQLiteDatabase.open(Path({str(path)!r}))"
    )
    return _MEASURE.format(setup=setup, work="upgrade_schema(database)\ndatabase.close()")


def measure(script: str) -> tuple[float, float]:
    """Run a script, and return its seconds and its peak memory in MB."""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, megabytes = json.loads(run.stdout)
    return seconds, megabytes


def main() -> None:
    """Print both times, their ratio, and the peak memory of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-results", action="store_true", help="leave out the tables of results")
    arguments = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        old = make_old_file(Path(folder) / "old.sqlite", "3.0", arguments.rows, results=not arguments.no_results)
        path = Path(folder) / "todo.sqlite"
        for _ in range(arguments.repeats):
            shutil.copy(old, path)
            plain, plain_memory = measure(copy_script(path, results=not arguments.no_results))
            shutil.copy(old, path)
            ours, our_memory = measure(upgrade_script(path))
            ratios.append(ours / plain)
            print(
                f"{arguments.rows} rows: copy {plain:.1f} s ({plain_memory:.0f} MB), "
                f"upgrade {ours:.1f} s ({our_memory:.0f} MB), ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
