"""Measure the cost of a task, compared with plain sqlite3 that does the same durable work by hand, in one run.

python -m benchmarks [PART ...] [--rows 168642 2000000] [--rounds 7] [--folder DIR] [--json FILE]

Each ratio is the median of the rounds, followed by the smallest and the largest ratio. If a ratio is over its ceiling,
an exclamation mark follows the ceiling, and the exit code is 1.
"""

import argparse
import json
import platform
import resource
import sqlite3
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import HEAD
from benchmarks.parts import PARTS, Bench

#: The most tasks that a round of a part takes from a list.
_TASKS_A_ROUND = 4000


def main() -> None:
    """Run the chosen parts, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; by default all")
    parser.add_argument("--rows", type=int, nargs="+", default=[168_642, 2_000_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="create the lists here; they are deleted at the end")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"PART {', '.join(sorted(unknown))} does not exist; choose from {', '.join(PARTS)}")
    if min(arguments.rows) < _TASKS_A_ROUND * arguments.rounds:
        parser.error(
            f"--rows must be at least {_TASKS_A_ROUND} times --rounds: a round takes up to {_TASKS_A_ROUND} tasks"
        )
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}"
    print(f"{versions}; medians of {arguments.rounds} rounds; a task is get + start + save\n{HEAD}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        bench = Bench(Path(folder), arguments.rows, arguments.rounds)
        for part in arguments.parts or PARTS:
            PARTS[part](bench)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory: {peak:.0f} MiB")
    if arguments.json is not None:
        kept = {"versions": versions, "peak_mib": peak, "rows": [row.as_dict() for row in bench.rows]}
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    sys.exit(any(row.ceiling is not None and row.ratio > row.ceiling for row in bench.rows))


if __name__ == "__main__":
    main()
