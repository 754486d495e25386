"""Measure what skipping costs: saves with and without neighbours, and batches in a crowded field.

    python -m benchmarks.skipping [--rows 100000] [--server]

Run it in two checkouts in turn to compare two releases. `alone` saves results without neighbours one by one, `10
neighbours` each with ten fainter stars in its aperture. In the field, each second star covers the next, fainter one,
and the results come in an order that has nothing to do with brightness.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks import lists
from benchmarks.server import serving
from photometry_tasks import TaskManager
from photometry_tasks.ingest import add_targets

BATCH, ONE_BY_ONE = 100, 500


def make_list(target: Any, rows: int) -> None:
    """Create a list of full-frame tasks; a star's number is its priority, and star 1 is the brightest."""
    stars = ({"starid": n, "sector": 1, "camera": 1, "ccd": 1, "tmag": 5 + 10 * n / rows} for n in range(1, rows + 1))
    add_targets(target, stars)


def result_of(priority: int, listed: list[int]) -> dict[str, Any]:
    """Return the result of a task with the stars in its aperture."""
    result = lists.result_of({"priority": priority, "starid": priority, "cadence": 1800})
    return {**result, "details": {**result["details"], "skip_targets": listed}}


@contextmanager
def opened(target: Any, **arguments: Any) -> Iterator[TaskManager]:
    """Open a list, and start all tasks."""
    with TaskManager(target, overwrite=True, **arguments) as manager:
        manager.claim_tasks(10**9)
        yield manager


def measure_single(manager: TaskManager, first: int, neighbours: int) -> float:
    """Return the median time of a save, in microseconds."""
    times = []
    for priority in range(first, first + ONE_BY_ONE * (neighbours + 1), neighbours + 1):
        listed = list(range(priority + 1, priority + neighbours + 1))
        result = result_of(priority, listed)
        begun = time.perf_counter()
        manager.save_result(result)
        times.append(time.perf_counter() - begun)
    return 1e6 * statistics.median(times)


def measure_batches(manager: TaskManager, rows: int, *, is_crowded: bool) -> list[float]:
    """Return the times of the batches, in milliseconds."""
    order = list(range(1, rows + 1))
    random.Random(1).shuffle(order)
    times = []
    for start in range(0, rows, BATCH):
        results = []
        for priority in order[start : start + BATCH]:
            listed = [priority + 1] if is_crowded and priority % 2 and priority < rows else []
            results.append(result_of(priority, listed))
        begun = time.perf_counter()
        manager.save_results(results)
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--server", action="store_true", help="on PostgreSQL in place of a file")
    given = parser.parse_args()
    kinds: list[dict[str, Any]] = [{}] if given.server else [{}, {"load_into_memory": True, "backup_interval": None}]
    with tempfile.TemporaryDirectory() as folder, serving() if given.server else nullcontext() as url:
        target = url or Path(folder) / "todo.sqlite"
        make_list(target, given.rows)
        for arguments in kinds:
            name = "server" if url else "memory" if arguments else "disk"
            with opened(target, **arguments) as manager:
                for neighbours in (0, 1, 10):
                    found = measure_single(manager, 20_000 * (1 + neighbours % 4), neighbours)
                    print(f"{name:8} a save with {neighbours:2} neighbours   {found:9.1f} µs")
            medians = {}
            for is_crowded in (False, True):
                with opened(target, **arguments) as manager:
                    times = measure_batches(manager, given.rows, is_crowded=is_crowded)
                medians[is_crowded] = statistics.median(times)
                kind = "crowded" if is_crowded else "alone"
                longest, factor = max(times), max(times) / medians[False]
                print(
                    f"{name:8} batches of {BATCH}, {kind:8} median {medians[is_crowded]:7.2f} ms, "
                    f"longest {longest:7.2f} ms, {factor:.1f} medians without neighbours"
                )


if __name__ == "__main__":
    main()
