"""Measure the cost of safety: saves in memory with and without the log, and saves on disk, interleaved in one run.

python -m benchmarks.durability [--tasks 2000] [--rounds 10] [--folder DIR]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.lists import make_list, result_of
from photometry_tasks import TaskManager
from photometry_tasks.storage.sqlite.working_copy import WorkingCopy

WAYS: dict[str, dict[str, Any]] = {
    "memory, no log": {"load_into_memory": True, "backup_interval": None},
    "memory": {"load_into_memory": True, "backup_interval": None},
    "memory, full": {"load_into_memory": True, "backup_interval": None, "durability": "full"},
    "disk": {},
    "disk, full": {"durability": "full"},
}


def main() -> None:
    """Print the median time of a save in each way, its ratio to the first way, and the sizes of the log and the WAL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    each = arguments.tasks // arguments.rounds
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        managers: dict[str, TaskManager] = {}
        for name, way in WAYS.items():
            path = Path(folder) / f"{name}.sqlite"
            make_list(path, arguments.tasks)
            managers[name] = TaskManager(path, **way)
        medians: dict[str, list[float]] = {name: [] for name in WAYS}
        record = WorkingCopy.record
        for _ in range(arguments.rounds):
            for name, manager in managers.items():
                WorkingCopy.record = (lambda *_: None) if name == "memory, no log" else record  # type: ignore[method-assign]
                times = []
                for _ in range(each):
                    result = result_of(manager.get_task() or {})
                    begun = time.perf_counter()
                    manager.save_result(result)
                    times.append(time.perf_counter() - begun)
                medians[name].append(statistics.median(times))
        first = medians["memory, no log"]
        print(f"{'way':16} {'µs a save':>10} {'ratio':>6}   spread (medians of {arguments.rounds} rounds of {each})")
        for name, values in medians.items():
            ratios = sorted(value / base for value, base in zip(values, first, strict=True))
            spread = f"{ratios[0]:.2f}–{ratios[-1]:.2f}"
            print(f"{name:16} {statistics.median(values) * 1e6:10.0f} {statistics.median(ratios):6.2f}   {spread}")
        log = Path(folder) / "memory.sqlite-results"
        print(f"a result takes {log.stat().st_size / arguments.tasks:.0f} bytes in the log")
        for manager in managers.values():
            manager.close()
        pages = count_pages(Path(folder) / "disk.sqlite")
        print(f"a save on disk writes {pages:.1f} pages to the WAL: SQLite syncs it after {1000 / pages:.0f} results")


def count_pages(path: Path) -> float:
    """Return how many pages a save writes to the write-ahead log, on average."""
    with TaskManager(path, overwrite=True) as manager:
        wal = path.with_name(f"{path.name}-wal")
        before = wal.stat().st_size
        for _ in range(50):
            manager.save_result(result_of(manager.get_task() or {}))
        return (wal.stat().st_size - before) / (4096 + 24) / 50


if __name__ == "__main__":
    main()
