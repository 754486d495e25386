"""Load real target lists, and run all tasks of a sector with the demo's photometry.

python -m benchmarks.real_sector LIST.csv... [--sector 1] [--jobs 2]
"""

import argparse
import tempfile
import time
from pathlib import Path

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.demo import photometry
from photometry_tasks.ingest import add_target_lists
from photometry_tasks.runner import run_tasks


def main() -> None:
    """Print the wall times, the rate, the manager's share, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lists", nargs="+", type=Path)
    parser.add_argument("--sector", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--in-memory", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        begun = time.perf_counter()
        added = add_target_lists(directory, arguments.lists, datasource="both").added
        seconds = time.perf_counter() - begun
        print(
            f"loaded   {added} tasks of {len(arguments.lists)} lists in {seconds:.1f} s, {added / seconds:.0f} a second"
        )
        with TaskManager(directory, load_into_memory=arguments.in_memory) as manager:
            wanted = manager.get_number_tasks(sector=arguments.sector)
            report = run_tasks(manager, photometry, jobs=arguments.jobs, sector=arguments.sector)
            print(
                f"ran      sector {arguments.sector} over {arguments.jobs} processes: {report.saved} results, "
                f"{report.errors} errors in {report.wall_time:.1f} s, {report.saved / report.wall_time:.0f} a second"
            )
            print(f"manager  {report.manager_time:.1f} s, {report.manager_time / report.wall_time:.1%} of the time")
            counts = {status.name: manager.summary[status.name] for status in STATUS if manager.summary[status.name]}
            pending, numtasks = manager.get_number_tasks(), manager.summary["numtasks"]
            adds_up = sum(counts.values()) + pending == numtasks == added and sum(counts.values()) == wanted
            verdict = "they add up" if adds_up else "THEY DO NOT ADD UP"
            print(f"counts   {counts}, {pending} pending, of {numtasks}: {verdict}")


if __name__ == "__main__":
    main()
