"""Profile a task: the share of each module, with the calls of SQLite and of the system by name.

python -m benchmarks.profiling [--disk] [--batch N] [--tasks 5000]
"""

import argparse
import cProfile
import pstats
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.lists import make_list
from benchmarks.measuring import run_in_batches, run_singly
from photometry_tasks import TaskManager


def main() -> None:
    """Print a line for each module with a share over 1 %."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling", description=__doc__)
    parser.add_argument("--disk", action="store_true", help="profile a list on disk; by default in memory")
    parser.add_argument("--batch", type=int, help="run tasks in batches of this size; by default one by one")
    parser.add_argument("--tasks", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_list(Path(folder) / "todo.sqlite", 2 * arguments.tasks)
        with TaskManager(path, load_into_memory=not arguments.disk, backup_interval=None) as manager:
            run_singly(manager, 200)
            profile = cProfile.Profile()
            profile.enable()
            if arguments.batch is None:
                run_singly(manager, arguments.tasks)
            else:
                run_in_batches(manager, [arguments.batch] * (arguments.tasks // arguments.batch))
            profile.disable()
    shares: Counter[str] = Counter()
    for (file, _, function), (_, _, seconds, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        shares[function if file == "~" else "/".join(Path(file).parts[-2:])] += seconds
    total = shares.total()
    for name, seconds in shares.most_common():
        if seconds > total / 100:
            print(f"{seconds / total:6.1%}  {name}")


if __name__ == "__main__":
    main()
