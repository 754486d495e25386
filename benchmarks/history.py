"""Measure what the history of attempts costs: saved tasks, and bytes of the file, beside another checkout.

    python -m benchmarks.history --against CHECKOUT [--rows 100000] [--rounds 7] [--server]

The measurements of this checkout and of the other one alternate, so that the noise of the machine cancels. One task is
got, started and saved; a batch claims 100 tasks and saves their results.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks import lists
from benchmarks.server import serving
from photometry_tasks import TaskManager
from photometry_tasks.ingest import add_targets

ONE_BY_ONE, BATCHES, BATCH = 1000, 20, 100
MODES: dict[str, dict[str, Any]] = {"disk": {}, "memory": {"load_into_memory": True, "backup_interval": None}}


def make_list(target: Any, rows: int) -> None:
    """Create a list of full-frame tasks."""
    add_targets(target, ({"starid": n, "sector": 1, "camera": 1, "ccd": 1, "tmag": 10.0} for n in range(1, rows + 1)))


def measure(manager: TaskManager) -> dict[str, float]:
    """Return the median times of a task, in microseconds."""
    single, batch = [], []
    for _ in range(ONE_BY_ONE):
        begun = time.perf_counter()
        task = manager.get_task()
        assert task is not None
        manager.start_task(task["priority"])
        manager.save_result(lists.result_of(task))
        single.append(time.perf_counter() - begun)
    for _ in range(BATCHES):
        begun = time.perf_counter()
        manager.save_results(list(map(lists.result_of, manager.claim_tasks(BATCH))))
        batch.append((time.perf_counter() - begun) / BATCH)
    return {"one by one": 1e6 * statistics.median(single), f"batches of {BATCH}": 1e6 * statistics.median(batch)}


def serve_rounds(target: str, rows: int, mode: str) -> None:
    """Measure once for each line on standard input; at the end, print the bytes that each task has added."""
    path = None if "://" in target else Path(target)
    make_list(target, rows)
    before = path.stat().st_size if path else 0
    done = 0
    with TaskManager(target, **MODES.get(mode, {})) as manager:
        print("ready", flush=True)
        for _ in sys.stdin:
            print(json.dumps(measure(manager)), flush=True)
            done += ONE_BY_ONE + BATCHES * BATCH
    print(json.dumps({"bytes": (path.stat().st_size - before) / done if path else 0.0}), flush=True)


def alternate(checkouts: list[Path], targets: list[str], given: argparse.Namespace, mode: str) -> Iterator[str]:
    """Yield a line for each figure."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--serve", target, "--rows", str(given.rows), "--mode", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )
        for checkout, target in zip(checkouts, targets, strict=True)
    ]
    found: list[list[dict[str, float]]] = [[], []]
    for process in processes:
        process.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
    for number in range(given.rounds + 1):
        for place, process in enumerate(processes):
            print(file=process.stdin, flush=True)
            row = json.loads(process.stdout.readline())  # type: ignore[union-attr]  # it is a pipe
            if number:  # the first round warms up
                found[place].append(row)
    sizes = [json.loads(process.communicate()[0])["bytes"] for process in processes]
    for name in found[0][0]:
        ours, theirs = ([row[name] for row in rows] for rows in found)
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        yield (
            f"{mode:7} {name:15} {statistics.median(ours):8.1f} µs, there {statistics.median(theirs):8.1f} µs: "
            f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        )
    if sizes[0]:
        yield f"{mode:7} {sizes[0]:.0f} bytes a task, there {sizes[1]:.0f}: {sizes[0] - sizes[1]:.0f} more"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="the other checkout")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--server", action="store_true", help="on PostgreSQL in place of a file")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_rounds(given.serve, given.rows, given.mode)
        return
    checkouts = [Path(__file__).parents[1], given.against.resolve()]
    for mode in ["server"] if given.server else MODES:
        contexts = [serving() if given.server else nullcontext() for _ in checkouts]
        with contexts[0] as first, contexts[1] as second, tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder) / f"{place}.sqlite") for place in range(2)]
            targets = [str(url or file) for url, file in zip((first, second), files, strict=True)]
            for line in alternate(checkouts, targets, given, mode):
                print(line, flush=True)


if __name__ == "__main__":
    main()
