"""Functions that the tests give to worker processes: real ones, which succeed, fail, hang or die."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from photometry_tasks import STATUS


def good(task: dict[str, Any]) -> dict[str, Any]:
    details = {"mean_flux": np.float32(task["priority"]), "unpicklable": threading.Lock()}
    return {"status": STATUS.OK, "method_used": "aperture", "details": details}


def every_third_raises(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] % 3 == 0:
        raise RuntimeError(f"no stamp for TIC {task['starid']}")
    return good(task)


def rubbish(task: dict[str, Any]) -> Any:
    return [None, {"status": "fine"}, {"status": 1}, 5, {**good(task), "details": {"stamp": 1}}][task["priority"] % 5]


def exits(_task: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit("enough")


def raises_a_base_exception(task: dict[str, Any]) -> dict[str, Any]:
    raise [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit][task["priority"] % 3]


def does_not_end(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 1:
        return good(task)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
    return good(task)


def dies(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] == 5:
        os._exit(1)
    return good(task)


def covers_the_next_hundred(task: dict[str, Any]) -> dict[str, Any]:
    return {**good(task), "details": {"skip_targets": range(task["starid"] + 1, task["starid"] + 101)}}


def another_sector(task: dict[str, Any]) -> dict[str, Any]:
    return {**good(task), "priority": 1, "sector": 99, "time": 123.0}


def says_what_ctrl_c_does(task: dict[str, Any]) -> dict[str, Any]:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    os.kill(os.getpid(), signal.SIGTERM)  # ignored too, but not by what a worker starts
    handlers = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGUSR1)]
    return {**good(task), "method_used": f"{handlers}, blocked: {blocked}"}


def says_its_process(task: dict[str, Any]) -> dict[str, Any]:
    return {**good(task), "method_used": str(os.getpid())}


def hangs_from_task_5(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] >= 5:
        # Say that it hangs, so that the test knows when, and hang until the process is ended.
        Path("hangs").touch()
        time.sleep(600)
    return good(task)
