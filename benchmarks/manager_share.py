"""Measure the manager's share of a run: 2 workers, 10 ms a task, a list of 168,642 tasks.

python -m benchmarks.manager_share [--rows 168642] [--tasks 4000] [--in-memory]

The exit code is 1 if the share is 5 % of the wall time or more.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.lists import make_list
from photometry_tasks import STATUS, TaskManager
from photometry_tasks.runner import run_tasks

_JOBS, _SECONDS, _CEILING = 2, 0.01, 0.05


def takes_ten_milliseconds(_task: dict[str, Any]) -> dict[str, Any]:
    """Return a result after 10 ms."""
    time.sleep(_SECONDS)
    return {"status": STATUS.OK, "method_used": "aperture", "details": {"mean_flux": 1.5}}


def main() -> None:
    """Print the share, and the rate with the highest rate of the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=168_642)
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--in-memory", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_list(Path(folder) / "todo.sqlite", arguments.rows)
        with TaskManager(path, load_into_memory=arguments.in_memory) as manager:
            report = run_tasks(manager, takes_ten_milliseconds, jobs=_JOBS, limit=arguments.tasks)
    share = report.manager_time / report.wall_time
    print(f"{report.saved} tasks in {report.wall_time:.1f} s; the manager's share: {share:.2%} (below {_CEILING:.0%})")
    print(f"{report.saved / report.wall_time:.0f} tasks a second; the workers allow {_JOBS / _SECONDS:.0f}")
    sys.exit(share >= _CEILING)


if __name__ == "__main__":
    main()
