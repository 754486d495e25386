"""Measure how often the estimate of the time left is right: runs are simulated, and asked when they will end.

python -m benchmarks.forecasts [--runs 200] [--seed 1]

The run times are synthetic (seven shapes), or recorded: real calculations whose stamps grow with the brightness of the
star. The lists are in order of brightness, at random, or in order of CCDs. The true end should lie within the interval
in 80 % of the runs; the exit code is 1 if it does in less than 70 % or more than 90 %.
"""

import argparse
import heapq
import math
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from photometry_tasks.rules.estimate import Record, Workload, build_estimate, measure_pace
from photometry_tasks.rules.run_times import RunTimes, find_cell

#: A star: its magnitude and its run time, seconds.
Star = tuple[float, float]

_PARTS = 50


def _synthetic(chance: random.Random) -> Callable[[float], float]:
    """Return a function that draws the run time of a star of a magnitude."""
    scale, slope, scatter = 10 ** chance.uniform(-1, 3), chance.uniform(-0.4, 0.4), chance.uniform(0.1, 0.8)
    bend, faint = chance.uniform(-0.03, 0.03), chance.uniform(9, 12)
    shapes: list[Callable[[float], float]] = [
        lambda _: 1.0,
        lambda tmag: math.exp(slope * (tmag - 10)),
        lambda tmag: math.exp(slope * (tmag - 10) + bend * (tmag - 10) ** 2),
        lambda tmag: 1.0 + math.exp(slope * (tmag - 10)),
        lambda tmag: math.exp(-0.3 * min(tmag, faint)) * 20,  # constant from some magnitude on
        lambda tmag: 1 + 0.3 * math.sin(tmag),
        lambda tmag: 3.0 if chance.random() < 0.1 else math.exp(slope * (tmag - 10)),  # some tasks are of another kind
    ]
    shape = chance.choice(shapes)
    return lambda tmag: scale * shape(tmag) * chance.lognormvariate(0, scatter)


def record(number: int, chance: random.Random) -> list[Star]:
    """Return stars with real run times: medians of stamps that grow with the brightness, as apertures do."""
    rng = np.random.default_rng(chance.randrange(2**32))
    stars = []
    for _ in range(number + 1):
        tmag = chance.triangular(5, 15, 14)
        size = 7 + round(2 * max(0.0, 12 - tmag))
        times = []
        for _ in range(3):
            begun = time.thread_time()
            stamps = rng.normal(100.0, 10.0, size=(96, size, size))
            np.median(stamps, axis=0)
            times.append(time.thread_time() - begun)
        # Other programs on the machine delay a millisecond more than they delay an hour.
        stars.append((tmag, min(times)))
    return stars[1:]  # the first call loads libraries


def make_list(recorded: list[Star] | None, chance: random.Random, longest: int = 5000) -> list[Star]:
    """Return the stars of a list, in its order."""
    number = round(math.exp(chance.uniform(math.log(300), math.log(longest))))
    if recorded is not None:
        stars = chance.choices(recorded, k=number)
    else:
        draw = _synthetic(chance)
        tmags = [chance.triangular(4, 16, 14) for _ in range(number)]
        stars = [(tmag, draw(tmag)) for tmag in tmags]
    order = chance.choice(["brightness", "random", "CCD"])
    if order == "brightness":
        stars.sort()
    elif order == "CCD":
        stars.sort()
        stars.sort(key=lambda _: chance.randrange(16))  # within a CCD, still in order of brightness
    return stars


def forecast(stars: list[Star], jobs: int, share: float) -> tuple[float, dict[str, Any]]:
    """Return the true time until the end of a run, and the estimate after a share of its tasks, both in hours."""
    free = [0.0] * jobs
    ends = []
    for _, seconds in stars:
        begun = heapq.heappop(free)
        ends.append((begun, begun + seconds))
        heapq.heappush(free, begun + seconds)
    now = sorted(end for _, end in ends)[max(15, int(share * len(stars)))]
    run_times, total = RunTimes(), 0.0
    waiting: list[dict[Any, float]] = [defaultdict(float) for _ in range(_PARTS)]
    running: dict[Any, float] = defaultdict(float)
    minutes: dict[int, Any] = {}
    for number, ((tmag, seconds), (begun, end)) in enumerate(zip(stars, ends, strict=True)):
        cell = find_cell("ffi", None, tmag)
        if end <= now:
            run_times.add(cell, seconds)
            total += seconds
            row = minutes.setdefault(int(end // 60), SimpleNamespace(minute=60 * int(end // 60), saved=0, elaptime=0.0))
            row.saved, row.elaptime = row.saved + 1, row.elaptime + seconds
        elif begun <= now:
            running[cell] += 1
        else:
            waiting[number * _PARTS // len(stars)][cell] += 1
    workload = Workload(run_times, waiting, list(range(_PARTS)), running, 1, 0, total)
    is_short = total < len(run_times)  # 1 s a task
    record = Record([minutes[minute] for minute in sorted(minutes)], [(0.0, now)], now)
    pace = measure_pace(record) if is_short and now > 1800 else jobs
    return (max(end for _, end in ends) - now) / 3600, build_estimate(workload, pace)


def main() -> None:
    """Print the share of runs whose end lies within the interval, for each kind of run times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    is_good = True
    for name in ("synthetic", "recorded"):
        chance = random.Random(arguments.seed)
        recorded = record(2000, chance) if name == "recorded" else None
        below = above = 0
        widths, begun = [], time.perf_counter()
        for _ in range(arguments.runs):
            stars = make_list(recorded, chance)
            true, found = forecast(stars, chance.choice([2, 8, 32]), chance.uniform(0.1, 0.9))
            below += true < found["hours_low"]
            above += true > found["hours_high"]
            widths.append(found["hours_high"] / found["hours_low"])
        within = 1 - (below + above) / arguments.runs
        is_good &= 0.7 <= within <= 0.9
        seconds = (time.perf_counter() - begun) / arguments.runs
        print(
            f"{name}: the true end lies within the interval in {within:.0%} of {arguments.runs} runs, "
            f"before it in {below}, after it in {above}; high / low: {statistics.median(widths):.2f}; "
            f"{seconds:.2f} s a run"
        )
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
