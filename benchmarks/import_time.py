"""Measure `import photometry_tasks`, compared with `import sqlalchemy.orm`: whole processes, in turn.

python -m benchmarks.import_time
"""

import os
import statistics
import subprocess
import sys
import time

PAIRS = 51

#: Both imports use compiled modules, as after an installation with pip.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def time_of(statement: str) -> float:
    """Return the wall time of a Python process that runs a statement, in milliseconds."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=ENVIRONMENT)
    return 1000 * (time.perf_counter() - begun)


def main() -> None:
    """Print both medians, and the median difference of the pairs."""
    statements = "import sqlalchemy.orm", "import photometry_tasks"
    for statement in statements:
        time_of(statement)  # fills the caches
    pairs = [tuple(map(time_of, statements)) for _ in range(PAIRS)]
    for statement, times in zip(statements, zip(*pairs, strict=True), strict=True):
        print(f"{statement:26} {statistics.median(times):7.1f} ms  ({min(times):.1f} to {max(times):.1f})")
    differences = [ours - theirs for theirs, ours in pairs]
    print(f"{'difference':26} {statistics.median(differences):7.1f} ms, median of {PAIRS}")


if __name__ == "__main__":
    main()
