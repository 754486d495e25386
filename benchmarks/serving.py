"""Measure what the live page costs a run, and how long the page of a large list takes.

    python -m benchmarks.serving [disk | memory | server | page ...] [--minutes 10] [--seconds 60] [--rows 2000000]

`disk`, `memory` and `server` run tasks that wait. In every second minute `photometry-tasks serve` shows the list to 20
clients, which wait for its updates and fetch each one, and to a browser if Chromium is installed. The ratio is the
results per second with the page, divided by those without it in the minute before or after.

`page` reads and renders the page of a list with many results.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bulk import Bench, make_campaign
from benchmarks.lists import make_list
from benchmarks.reading import run, running
from benchmarks.server import make_list as make_server_list
from benchmarks.server import serving
from photometry_tasks import TodoList
from photometry_tasks.report.page import render_list
from photometry_tasks.report.queries import read_list
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import begin_reading

_CLIENTS, _JOBS, _WAIT = 20, 8, 0.1


def watch(url: str, connection: Any, stop: Event) -> None:
    """Let 20 clients fetch each update until the event is set, and send how many they got."""
    fetched: list[float] = []

    def follow() -> None:
        with suppress(OSError), urllib.request.urlopen(url.replace("/?", "/events?"), timeout=60) as stream:
            for line in stream:
                if stop.is_set():
                    return
                if line.startswith(b"data"):
                    begun = time.perf_counter()
                    with urllib.request.urlopen(url.replace("/?", "/content?"), timeout=60) as answer:
                        answer.read()
                    fetched.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    stop.wait()
    connection.send(fetched)
    os._exit(0)  # not waiting for the streams


@contextmanager
def showing(target: str, fetched: list[float]) -> Iterator[psutil.Process]:
    """Serve a list to 20 clients and a browser, and yield the process of the server."""
    command = [str(Path(sys.executable).with_name("photometry-tasks")), "serve", target, "--port", "0"]
    with tempfile.TemporaryDirectory() as profile:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        ours, theirs = multiprocessing.Pipe()
        executable = shutil.which("chromium")
        processes: list[subprocess.Popen[Any]] = [server]
        if executable is not None:
            options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
            options.append("--remote-debugging-port=0")  # it stays open
            processes.append(subprocess.Popen([executable, *options, url], stderr=subprocess.DEVNULL))
        try:
            with running(watch, url, theirs):
                yield psutil.Process(server.pid)
            fetched += ours.recv()
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def measure(target: str, in_memory: bool, minutes: int, seconds: float) -> Iterator[str]:
    """Yield lines with the ratios of paired minutes, and the load of the server."""
    log = Path(f"{target}-wal")
    rates: dict[bool, list[float]] = {False: [], True: []}
    loads: list[float] = []
    fetched: list[float] = []
    longest_log = 0
    with TodoList(target) as todo, running(run, target, in_memory):

        def count() -> tuple[int, float]:
            counts, now = todo.counts(), time.perf_counter()
            return sum(counts.values()) - counts["PENDING"] - counts["STARTED"], now

        def wait(length: float) -> tuple[float, int]:
            (done, begun), longest = count(), 0
            while (left := begun + length - time.perf_counter()) > 0:
                time.sleep(min(left, 1.0))
                longest = max(longest, log.stat().st_size if log.exists() else 0)
            then, ended = count()
            return (then - done) / (ended - begun), longest

        while count()[0] < _JOBS * 10:
            time.sleep(0.1)
        for number in range(2 * minutes):
            has_page = number % 4 in (1, 2)  # in turn the first and the second of a pair
            if has_page:
                with showing(target, fetched) as server:
                    time.sleep(5)  # the start of the server and of the browser
                    before = server.cpu_times()
                    rate, longest = wait(seconds)
                    after = server.cpu_times()
                loads.append((after.user + after.system - before.user - before.system) / seconds)
            else:
                rate, longest = wait(seconds)
            rates[has_page].append(rate)
            longest_log = max(longest_log, longest)
    ratios = [with_it / without for with_it, without in zip(rates[True], rates[False], strict=True)]
    noise = [a / b for a, b in zip(rates[False][1:], rates[False], strict=False)] or [1.0]
    yield (
        f"results/s with {statistics.median(rates[True]):.1f}, without {statistics.median(rates[False]):.1f}; "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}), between minutes without "
        f"the page {min(noise):.3f}–{max(noise):.3f}"
    )
    yield (
        f"the server takes {statistics.median(loads):.1%} of a core (at most {max(loads):.1%}); {len(fetched)} updates "
        f"fetched, each in {1000 * statistics.median(fetched):.0f} ms (at most {1000 * max(fetched):.0f}); "
        f"largest write-ahead log {longest_log / 1e6:.1f} MB"
    )


def measure_page(folder: Path, rows: int) -> None:
    """Print how long the queries and the page of a large list take, of all tasks and of a camera."""
    location = parse_location(make_campaign(Bench(folder, rows, 1)))
    for constraints in ({}, {"camera": [2]}):
        times: dict[str, list[float]] = {"queries": [], "page": []}
        for _ in range(5):
            with begin_reading(location) as opened:
                begun = time.perf_counter()
                read_list(opened, constraints)
                between = time.perf_counter()
                size = len(render_list(opened, constraints).encode())
                times["queries"].append(between - begun)
                times["page"].append(time.perf_counter() - between)
        shown = ", ".join(f"{name} {statistics.median(each):.2f} s" for name, each in times.items())
        print(f"{rows:,} tasks, {constraints or 'no filter'}: {shown}, {size / 1e3:.0f} kB", flush=True)


def main() -> None:
    """Print the figures."""
    parts = ["disk", "memory", "server", "page"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*parts, []], help="by default all")
    parser.add_argument("--minutes", type=int, default=10, help="pairs of minutes in each mode")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of such a minute")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the list of `page`")
    given = parser.parse_args()
    number = int(2.5 * given.minutes * given.seconds * _JOBS / _WAIT) + 1000
    with tempfile.TemporaryDirectory() as folder:
        for part in given.parts or parts:
            if part == "page":
                measure_page(Path(folder), given.rows)
            elif part == "server":
                with serving() as url:
                    make_server_list(url, number)
                    for line in measure(url, False, given.minutes, given.seconds):
                        print(f"{part:8} {line}", flush=True)
            else:
                path = make_list(Path(folder) / f"{part}.sqlite", number)
                for line in measure(str(path), part == "memory", given.minutes, given.seconds):
                    print(f"{part:8} {line}", flush=True)


if __name__ == "__main__":
    main()
