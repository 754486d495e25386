"""Measure what a reader and the live page cost a run.

    python -m benchmarks.beside [disk | memory | server ...] [--minutes 10] [--seconds 60]

Tasks wait: two workers run them on a file, four on a server. Each round has three minutes in changing order. In one
nobody looks. In one a reader reads the counts, a page of tasks and the errors once a second. In one
`photometry-tasks serve` shows the list to 20 clients, which wait for its updates and fetch each one, and to a browser
if Chromium is installed. A ratio is the results per second of a minute, divided by those of the minute of the same
round in which nobody looked.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import islice, pairwise
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

from benchmarks.lists import DETAILS, make_list
from benchmarks.server import make_list as make_server_list
from benchmarks.server import serving
from photometry_tasks import STATUS, TaskManager, TodoList, run_tasks
from photometry_tasks.runner import RunReport

#: Workers by kind of list, and the seconds that each of their tasks waits.
_JOBS, _WAIT = {"disk": 2, "memory": 2, "server": 4}, 0.05

#: Seconds between two polls of the reader, and rows of a page.
_POLL, _PAGE = 1.0, 1000

_CLIENTS = 20


def wait(task: dict[str, Any]) -> dict[str, Any]:
    """Wait, and return a result; every hundredth task fails."""
    time.sleep(_WAIT)
    if task["priority"] % 100 == 0:
        raise ValueError(f"no stamp for TIC {task['starid']}")
    return {"status": STATUS.OK, "method_used": "aperture", "details": DETAILS}


def run(target: str, kind: str, stop: Event) -> None:
    """Run tasks until the event is set."""

    def interrupt(_: RunReport) -> None:
        if stop.is_set():
            os.kill(os.getpid(), signal.SIGTERM)  # a shell lets its jobs in the background ignore SIGINT

    with TaskManager(target, load_into_memory=kind == "memory", summary_interval=None) as manager, suppress(SystemExit):
        run_tasks(manager, wait, jobs=_JOBS[kind], max_errors_in_a_row=0, progress=interrupt)


def poll(target: str, connection: Any, stop: Event) -> None:
    """Read once a second until the event is set, and send the seconds of each poll."""
    durations: list[float] = []
    with TodoList(target) as todo:
        while not stop.wait(max(0.0, _POLL - sum(durations[-1:]))):
            begun = time.perf_counter()
            todo.counts()
            list(islice(todo.select(status=STATUS.OK), _PAGE))
            todo.errors()
            durations.append(time.perf_counter() - begun)
    connection.send(durations)


def watch(url: str, connection: Any, stop: Event) -> None:
    """Let 20 clients fetch each update until the event is set, and send the seconds of each."""
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
def running(function: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run a function in a process until the end of the block; its last argument is the event that stops it."""
    stop = multiprocessing.Event()
    process = multiprocessing.Process(target=function, args=(*arguments, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()


@contextmanager
def reading(target: str, found: dict[str, list[float]]) -> Iterator[None]:
    """Let a process poll the list."""
    ours, theirs = multiprocessing.Pipe()
    with running(poll, target, theirs):
        yield
    found["polls"] += ours.recv()


@contextmanager
def showing(target: str, found: dict[str, list[float]]) -> Iterator[None]:
    """Serve the list to 20 clients and a browser, and measure the load of the server."""
    command = [str(Path(sys.executable).with_name("photometry-tasks")), "serve", target, "--port", "0"]
    with tempfile.TemporaryDirectory() as profile:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        ours, theirs = multiprocessing.Pipe()
        processes: list[subprocess.Popen[Any]] = [server]
        if (executable := shutil.which("chromium")) is not None:
            options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
            options.append("--remote-debugging-port=0")  # it stays open
            processes.append(subprocess.Popen([executable, *options, url], stderr=subprocess.DEVNULL))
        try:
            with running(watch, url, theirs):
                time.sleep(5)  # the start of the server and of the browser
                before, begun = psutil.Process(server.pid).cpu_times(), time.perf_counter()
                yield
                after, seconds = psutil.Process(server.pid).cpu_times(), time.perf_counter() - begun
            found["loads"].append((after.user + after.system - before.user - before.system) / seconds)
            found["updates"] += ours.recv()
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def measure(target: str, kind: str, minutes: int, seconds: float) -> Iterator[str]:
    """Yield lines with the ratios, and with what was seen beside them."""
    log = Path(f"{target}-wal")
    found: dict[str, list[float]] = {"polls": [], "loads": [], "updates": []}
    longest_log = 0
    viewers: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "nobody": nullcontext,
        "reader": lambda: reading(target, found),
        "page": lambda: showing(target, found),
    }
    rates: dict[str, list[float]] = {name: [] for name in viewers}
    with TodoList(target) as todo, running(run, target, kind):

        def count() -> tuple[int, float]:
            counts, now = todo.counts(), time.perf_counter()
            return sum(counts.values()) - counts["PENDING"] - counts["STARTED"], now

        while count()[0] < 100:
            time.sleep(0.1)
        order = list(viewers)
        for number in range(minutes):
            for name in order[number % 3 :] + order[: number % 3]:
                with viewers[name]():
                    done, begun = count()
                    while (left := begun + seconds - time.perf_counter()) > 0:
                        time.sleep(min(left, 1.0))
                        longest_log = max(longest_log, log.stat().st_size if log.exists() else 0)
                    then, ended = count()
                rates[name].append((then - done) / (ended - begun))
    alone = rates["nobody"]
    noise = [after / before for before, after in pairwise(alone)] or [1.0]
    yield f"{statistics.median(alone):.1f} results/s if nobody looks; between minutes {min(noise):.3f}–{max(noise):.3f}"
    for name in ("reader", "page"):
        ratios = [seen / unseen for seen, unseen in zip(rates[name], alone, strict=True)]
        yield f"ratio with the {name} {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
    for name in ("polls", "updates"):
        middle, most = 1000 * statistics.median(found[name]), 1000 * max(found[name])
        yield f"{len(found[name])} {name}, each in {middle:.0f} ms (at most {most:.0f} ms)"
    yield (
        f"the server of the page takes {statistics.median(found['loads']):.1%} of a core (at most "
        f"{max(found['loads']):.1%}); largest write-ahead log {longest_log / 1e6:.1f} MB"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", choices=[*_JOBS, []], help="by default all")
    parser.add_argument("--minutes", type=int, default=10, help="rounds of three minutes for each kind of list")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of such a minute")
    given = parser.parse_args()
    for kind in given.kinds or _JOBS:
        number = int(given.minutes * 3 * (given.seconds + 20) * _JOBS[kind] / _WAIT) + 1000
        with tempfile.TemporaryDirectory() as folder, serving() if kind == "server" else nullcontext() as url:
            if url is None:
                target = str(make_list(Path(folder) / "todo.sqlite", number))
            else:
                make_server_list(target := url, number)
            for line in measure(target, kind, given.minutes, given.seconds):
                print(f"{kind:8} {line}", flush=True)


if __name__ == "__main__":
    main()
