"""Processes that have a manager open, and that a test can kill."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from photometry_tasks.cli.main import main
from tests.support.paths import ROOT

# Forked from a server that has imported all modules: a process starts in 10 ms.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("sqlite3", "filelock", "psutil", "psycopg", "rich.live", "pytest"),
        *("numpy", "hypothesis.strategies", "pyarrow.parquet", "astropy.table"),  # of the modules of tests
        *(f"photometry_tasks.{name}" for name in ("cli.display", "export", "ingest", "runner.run")),
        *(f"photometry_tasks.maintenance.{name}" for name in ("check", "copy", "reset", "status")),
        *(f"photometry_tasks.storage.{name}.store" for name in ("sqlite", "postgresql")),
        *("tests.support.lists", "tests.support.processes"),
    ]
)


def run_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command `photometry-tasks` in a folder, in a process that has imported its modules."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        process = _context.Process(target=_become_command, args=(folder, environment, out, err, arguments))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode or 0, out.read_text(), err.read_text())


def _become_command(folder: Path, environment: dict[str, str], out: Path, err: Path, arguments: list[str]) -> None:
    os.chdir(folder)
    multiprocessing.process.ORIGINAL_DIR = str(folder)  # workers look for modules there
    os.environ.clear()
    os.environ.update(environment)
    for place, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - as long as the process
    main(list(arguments), "photometry-tasks")


def wait_until(is_true: Callable[[], object], *processes: "subprocess.Popen[Any]") -> None:
    """Look every 10 ms until a condition is true; a process that ends before is a failure."""
    while not is_true():
        assert [process.poll() for process in processes] == [None] * len(processes)
        time.sleep(0.01)


@contextmanager
def running_command(command: list[str], **how: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Run a command; `subprocess.Popen` alone would wait without end for a command that still runs after a failure."""
    with subprocess.Popen(command, **how) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running(function: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run a function, which gets a connection first, in a process; a process that still runs at the end is killed."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=function, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        kill(process)
        process.close()
        ours.close()


def kill(process: BaseProcess) -> None:
    """Kill a process with SIGKILL, as a cluster does at the time limit."""
    process.kill()
    process.join()


def received(connection: Connection) -> Iterator[Any]:
    """Yield the messages of a process until it ends or closes the connection."""
    try:
        while True:
            yield connection.recv()
    except (EOFError, ConnectionResetError):
        return


def ignore_signals() -> None:
    """Ignore signals, between fork and exec of a command: a shell's background, `trap ''` and some daemons do that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


def spawn_pool(jobs: int) -> ProcessPoolExecutor:
    """Return a pool whose processes do not inherit the handlers of signals: Ctrl-C interrupts their tasks."""
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))


def workers_of(group: int) -> list[list[str]]:
    """Return the commands of the living worker processes of a process group."""
    alive = []
    for process in psutil.process_iter(["cmdline", "status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                alive.append(process.info["cmdline"] or [])
    return [command for command in alive if any("spawn_main" in word for word in command)]
