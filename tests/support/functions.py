"""Functions that the tests run in worker processes: they succeed, fail, hang or die.

This module imports little: each worker imports it.
"""

import atexit
import functools
import json
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from photometry_tasks import STATUS


def good(task: dict[str, Any]) -> dict[str, Any]:
    details = {"mean_flux": float(task["priority"])}
    return {"status": STATUS.OK, "method_used": "aperture", "details": details, "unpicklable": threading.Lock()}


def reports_sqlalchemy(task: dict[str, Any]) -> dict[str, Any]:
    return {**good(task), "method_used": str("sqlalchemy" in sys.modules)}


def takes_nothing() -> dict[str, Any]:
    return {}


def takes_a_keyword(*, task: dict[str, Any]) -> dict[str, Any]:
    return good(task)


def needs_a_configuration(task: dict[str, Any], configuration: object) -> dict[str, Any]:
    return {**good(task), "method_used": str(configuration)}


def give_configuration(function: Callable[..., dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    @functools.wraps(function)
    def measure(task: dict[str, Any]) -> dict[str, Any]:
        return function(task, configuration=1)

    return measure


@give_configuration
def decorated(task: dict[str, Any], configuration: object) -> dict[str, Any]:
    return needs_a_configuration(task, configuration)


async def is_async(task: dict[str, Any]) -> dict[str, Any]:
    return good(task)


def yields(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield good(task)


def every_third_raises(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] % 3 == 0:
        raise RuntimeError(f"no stamp for TIC {task['starid']}")
    return good(task)


def rubbish(task: dict[str, Any]) -> Any:
    return [None, {"status": "fine"}, {"status": 1}, 5, {**good(task), "details": {"stamp": 1}}][task["priority"] % 5]


def exits(_task: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit("enough")


def raises_a_base_exception(task: dict[str, Any]) -> dict[str, Any]:
    import asyncio

    raise [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt][task["priority"] % 3]


def does_not_end(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 1:
        return good(task)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
    return good(task)


def covers_the_next_hundred(task: dict[str, Any]) -> dict[str, Any]:
    return {**good(task), "details": {"skip_targets": range(task["starid"] + 1, task["starid"] + 101)}}


def task_11_covers_19_stars(task: dict[str, Any]) -> dict[str, Any]:
    """Begin, and from task 12 on continue when the test creates the file `go`."""
    leaves_a_line(task)
    while task["priority"] >= 12 and not Path("go").exists():
        time.sleep(0.005)
    return {**good(task), "details": {"skip_targets": range(112, 131) if task["priority"] == 11 else ()}}


def another_sector(task: dict[str, Any]) -> dict[str, Any]:
    return {**good(task), "priority": 1, "sector": 99, "time": 123.0}


def says_what_ctrl_c_does(task: dict[str, Any]) -> dict[str, Any]:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    os.kill(os.getpid(), signal.SIGTERM)  # ignored too, but not by the child processes of a worker
    handlers = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGUSR1)]
    return {**good(task), "method_used": f"{handlers}, blocked: {blocked}"}


def says_its_process(task: dict[str, Any]) -> dict[str, Any]:
    return {**good(task), "method_used": str(os.getpid())}


def hangs_from_task_5(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] >= 5:
        # The file shows the test that the task hangs; it hangs until its process is ended.
        Path("hangs").touch()
        time.sleep(600)
    return good(task)


def leaves_a_line(task: dict[str, Any]) -> dict[str, Any]:
    """Write the priority of a begun task into a file, as a line; so short a line is written at once."""
    with Path("begun").open("a") as file:
        file.write(f"{task['priority']}\n")
    return good(task)


def kills_itself(task: dict[str, Any]) -> dict[str, Any]:
    leaves_a_line(task)
    match task["priority"]:
        case 100:
            os.kill(os.getpid(), signal.SIGKILL)
        case 101:
            os._exit(3)
        case 300:
            os.kill(os.getpid(), signal.SIGSEGV)
    return good(task)


def task_3_kills_itself(task: dict[str, Any]) -> dict[str, Any]:
    leaves_a_line(task)
    if task["priority"] in (3, 4):
        os.kill(os.getpid(), signal.SIGKILL)
    return good(task)


def always_dies(_task: dict[str, Any]) -> dict[str, Any]:
    os._exit(7)


def hangs_in_a_program(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 2:
        with subprocess.Popen(["sleep", "600"]) as program:
            Path("program").write_text(str(program.pid))
    return good(task)


def takes_memory(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 2:
        return {"taken": [bytearray(10**7) for _ in range(1000)]}
    return good(task)


def has_little_address_space(task: dict[str, Any]) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, resource.RLIM_INFINITY))
    return {**good(task), "taken": bytearray(4 * 10**9)}


def has_little_cpu_time(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 2:
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1, resource.RLIM_INFINITY))
        while True:
            pass
    return good(task)


def waits_from_task_3(task: dict[str, Any]) -> dict[str, Any]:
    """Begin, and continue when the test creates the file `go`."""
    leaves_a_line(task)
    while task["priority"] >= 3 and not Path("go").exists():
        time.sleep(0.005)
    return good(task)


def takes_half_a_second(task: dict[str, Any]) -> dict[str, Any]:
    leaves_a_line(task)
    time.sleep(0.5)
    return good(task)


def every_third_raises_slowly(task: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.02)
    every_third_raises(task)
    return says_its_process(task)


def takes_ten_milliseconds(task: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.01)
    return good(task)


def task_5_kills_dask(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 5:
        os._exit(1)
    return good(task)


def takes_a_moment(task: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.003)
    return leaves_a_line(task)


def leaves_a_thread(task: dict[str, Any]) -> dict[str, Any]:
    threading.Thread(target=time.sleep, args=(600,)).start()
    return good(task)


def blocks_at_exit(task: dict[str, Any]) -> dict[str, Any]:
    atexit.register(time.sleep, 600)
    return good(task)


def cannot_be_ended(task: dict[str, Any]) -> dict[str, Any]:
    """Fork a child that keeps the files of the worker, and wait for it at exit."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if (child := os.fork()) == 0:
        time.sleep(600)
    atexit.register(os.waitpid, child, 0)
    return good(task)


def uses_a_pool_of_its_own(task: dict[str, Any]) -> dict[str, Any]:
    """Use a pool, as libraries do that work in several processes; a pool ends its processes with SIGTERM."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return {**good(task), "details": {"mean_flux": sum(pool.map(abs, [-1, -2]))}}


def ends_what_it_has_just_forked(task: dict[str, Any]) -> dict[str, Any]:
    """End a child with SIGTERM before it has begun, as a pool does with an unneeded process."""
    for _ in range(20):
        if (child := os.fork()) == 0:
            time.sleep(10)
            os._exit(1)
        os.kill(child, signal.SIGTERM)
        if os.waitpid(child, 0)[1] != signal.SIGTERM:
            raise RuntimeError("the child was not ended by SIGTERM")
    return good(task)


def forks_and_comes_back_twice(task: dict[str, Any]) -> dict[str, Any]:
    child = os.fork()
    if task["priority"] == 2 and child == 0:
        raise RuntimeError("of the child")
    if child != 0:
        os.waitpid(child, 0)
    return good(task)


def cuts_its_connection(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 2:
        os.closerange(3, 256)
        time.sleep(600)
    return good(task)


class SlowToImport:
    """A function that takes a second to unpickle, like a function whose module has many imports."""

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        return good(task)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_slowly, (os.getpid(),)


_is_unpickled = False


def _unpickle_slowly(_pid: int) -> SlowToImport:
    global _is_unpickled
    if not _is_unpickled:
        time.sleep(1.0)
    _is_unpickled = True
    return SlowToImport()


def breaks_the_pool_once_it_is_idle(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 1:
        subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {os.getpid()}"])
    return good(task)


def lists_neighbours(task: dict[str, Any]) -> dict[str, Any]:
    """Take some milliseconds, and list the stars that the file in NEIGHBOURS names for this star."""
    neighbours: dict[str, list[int]] = json.loads(Path(os.environ["NEIGHBOURS"]).read_text())
    with Path(os.environ["NEIGHBOURS"] + "-runs").open("a") as file:
        file.write(f"{task['priority']}\n")
    time.sleep(task["starid"] % 7 / 1000)
    details = {"skip_targets": neighbours[str(task["starid"])], "mean_flux": task["starid"] / 7}
    status = STATUS.WARNING if task["starid"] % 5 == 0 else STATUS.OK
    return {"status": status, "method_used": "aperture", "details": details}


def task_5_dies_anywhere(task: dict[str, Any]) -> dict[str, Any]:
    """Write the priority of each task into a file of the test, because executors have working directories of their own.

    Threads belong to the test itself: there, task 5 only fails.
    """
    with Path(os.environ["BEGUN"]).open("a") as file:
        file.write(f"{task['priority']}\n")
    time.sleep(0.02)
    if task["priority"] == 5:
        if threading.current_thread().name.startswith("ThreadPoolExecutor-"):
            raise RuntimeError("no death of threads")
        os._exit(1)
    return good(task)


def logs(task: dict[str, Any]) -> dict[str, Any]:
    logger = logging.getLogger("pipeline")
    logger.info("first line\nsecond line \x1b[31m")
    logger.debug("detail")
    warnings.warn(f"overflow {task['priority']}", RuntimeWarning, stacklevel=1)
    thread = threading.Thread(target=logger.warning, args=("from a thread",))
    thread.start()
    thread.join()
    return good(task)
