"""Measure the start of the command and the imports, compared with Python and with SQLAlchemy: whole processes, in turn.

python -m benchmarks.import_time [--rounds 21]

Times are those of the processor, since other programs delay a process. Each difference is the median of the rounds,
followed by the smallest and the largest. If one is over its ceiling, an exclamation mark follows the ceiling, and the
exit code is 1.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys

PYTHON, SQLALCHEMY = "-c pass", "-c import sqlalchemy.orm"

#: The arguments of Python, those of the program with which it is compared, and the ceiling of the difference, ms.
CASES = {
    "-m photometry_tasks.cli --help": (PYTHON, 150),
    "-m photometry_tasks.cli --version": (PYTHON, 150),
    "-m photometry_tasks.cli run --help": (PYTHON, 150),
    "-m photometry_tasks.cli run --jobs 0": (PYTHON, 150),
    "-c import photometry_tasks": (PYTHON, 25),
    "-c from photometry_tasks import TaskManager": (SQLALCHEMY, 25),
    "-c import sqlalchemy.orm; from photometry_tasks import TaskManager": (SQLALCHEMY, 25),
    "-c from photometry_tasks import build_constraints": (SQLALCHEMY, 50),
}

#: All programs use compiled modules, as after an installation with pip.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def time_of(program: str) -> float:
    """Return the processor time of a Python process, in milliseconds."""
    option, text = program.split(maxsplit=1)
    command = [sys.executable, option, *([text] if option == "-c" else text.split())]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=ENVIRONMENT, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Run the programs, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_time", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {program: [] for program in (PYTHON, SQLALCHEMY, *CASES)}
    for program in times:
        time_of(program)  # fills the caches
    for _ in range(rounds):
        for program, measured in times.items():
            measured.append(time_of(program))
    print(f"{'python …':66} {'ms':>5}   {'over':24} {'ms':>5} {'spread':>11} at most")
    is_over = False
    for program, (baseline, ceiling) in CASES.items():
        differences = [ours - theirs for ours, theirs in zip(times[program], times[baseline], strict=True)]
        difference = statistics.median(differences)
        is_over |= difference > ceiling
        spread = f"{min(differences):.0f}–{max(differences):.0f}"
        numbers = f"{difference:5.0f} {spread:>11} {ceiling:7}{' !' * (difference > ceiling)}"
        print(f"{program:66} {statistics.median(times[program]):5.0f}   {baseline:24} {numbers}")
    sys.exit(is_over)


if __name__ == "__main__":
    main()
