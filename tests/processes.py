"""Real processes that hold a manager, and that a test can kill."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

# Forked from a server that has imported everything: each is there in a hundredth of a second.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["photometry_tasks", "sqlite3", "filelock", "psutil", "tests.conftest"])


@contextmanager
def running(function: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run a function, which gets a connection first, in a process; it is killed at the end, if it lives still."""
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
    """Kill a process as a cluster does at the time limit: it can do nothing about it."""
    process.kill()
    process.join()


def received(connection: Connection) -> Iterator[Any]:
    """Yield what a process sent, until it is dead or has closed the connection."""
    try:
        while True:
            yield connection.recv()
    except (EOFError, ConnectionResetError):
        return
