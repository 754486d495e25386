"""Measure each step of a long list once, in processes of their own: seconds, and peak memory of each step.

    python -m benchmarks.large [--rows 10000000] [--tasks 100000] [--folder FOLDER] [--server]

A file is loaded, worked on in each mode, reported, exported, backed up, and upgraded from release 3.0 of the TASOC
pipeline. With --server, a list on PostgreSQL is loaded, worked on, reported and exported.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.server import serving
from tests.support.old_files import make_old_file

#: A step runs in a process of its own, so that its peak memory is its own.
_STEP = """
import json, resource, sys, time
from pathlib import Path
from benchmarks.lists import result_of, rows_of
from benchmarks.measuring import run_in_batches, run_singly
from photometry_tasks import TaskManager
from photometry_tasks.export import export_tasks
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.status import get_status
target, rows, tasks, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])

def targets():
    for star in range(1, rows + 1):
        camera, ccd = 1 + star % 4, 1 + star // 4 % 4
        tmag = 6 + 10 * (star * 2654435761 % 2**32 / 2**32) ** 0.5
        yield {{"starid": star, "sector": 1, "camera": camera, "ccd": ccd, "tmag": tmag}}

{setup}
begun = time.perf_counter()
{work}
print(json.dumps([time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""

_OPEN, _COPY = (
    "manager = TaskManager(target)",
    "manager = TaskManager(target, load_into_memory=True, backup_interval=None)",
)
_BOTH = {
    "load": ("", "add_targets(target, targets())"),
    "open": ("", _OPEN),
    "one by one": (_OPEN, "run_singly(manager, tasks)\nmanager.close()"),
    "in batches of 1000": (_OPEN, "run_in_batches(manager, [1000] * (tasks // 1000))\nmanager.close()"),
}
_READ = {
    "status": ("", "get_status(target)"),
    "report": (
        "from photometry_tasks.report import build_report",
        "(folder / 'report.html').write_text(build_report(target))",
    ),
    "export to CSV": ("", "export_tasks(target, folder / 'all.csv')"),
    "export to Parquet": ("", "export_tasks(target, folder / 'all.parquet')"),
}
_MEMORY = {
    "open in memory": ("", _COPY),
    "one by one in memory": (_COPY, "run_singly(manager, tasks)"),
    "in batches in memory": (_COPY, "run_in_batches(manager, [1000] * (tasks // 1000))"),
    "backup": (_COPY, "manager.backup()"),
}


def run(step: tuple[str, str], *arguments: object) -> tuple[float, float]:
    """Run a step; return its seconds, and the peak memory of its process in MB."""
    setup, work = step
    command = [sys.executable, "-c", _STEP.format(setup=setup, work=work), *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, megabytes = json.loads(output.splitlines()[-1])
    return seconds, megabytes


def measure(rows: int, tasks: int, folder: Path, *, is_server: bool) -> Iterator[str]:
    """Yield a line for each step."""
    with ExitStack() as opened:
        target = opened.enter_context(serving()) if is_server else str(folder / "todo.sqlite")
        for name, step in (_BOTH | _READ if is_server else _BOTH | _MEMORY | _READ).items():
            seconds, megabytes = run(step, target, rows, tasks, folder)
            yield f"{name:24} {seconds:9.2f} s {megabytes:8.0f} MB"
        if is_server:
            return
        size = Path(target).stat().st_size
        yield f"{'size of the file':24} {size / 1e9:9.2f} GB"
        for path in folder.iterdir():
            path.unlink()
        older = make_old_file(folder / "older.sqlite", "3.0", rows)
        seconds, megabytes = run(("", _OPEN), older, rows, tasks, folder)
        yield f"{'upgrade from release 3.0':24} {seconds:9.2f} s {megabytes:8.0f} MB"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="create the lists here; they are deleted at the end")
    parser.add_argument("--server", action="store_true", help="on PostgreSQL in place of a file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for line in measure(given.rows, given.tasks, Path(folder), is_server=given.server):
            print(line, flush=True)


if __name__ == "__main__":
    main()
