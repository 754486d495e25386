"""Functions of campaigns, which the tests run in worker processes.

This module imports little: each worker imports it.
"""

import os
import signal
import time
from typing import Any

from photometry_tasks import STATUS

#: What the function does with tasks of these priorities; the others are OK.
PERMANENT = range(100, 800, 100)
HEALS = range(150, 800, 100)
DIES = range(7, 800, 700)
HANGS = (30,)
ABORTS = (60, 61)


class NoMaskError(RuntimeError):
    """A failure that version 2 of the pipeline mends."""


def campaign(task: dict[str, Any], version: int) -> dict[str, Any]:
    priority = task["priority"]
    if priority in PERMANENT:
        raise ValueError("this star will never work")
    if priority in HEALS and version < 2:
        raise NoMaskError("no mask")
    if priority in DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    if priority in HANGS:
        time.sleep(600)
    status = STATUS.ABORT if priority in ABORTS else STATUS.OK
    return {"status": status, "method_used": "aperture", "details": {"extra": {"version": version}}}


def version1(task: dict[str, Any]) -> dict[str, Any]:
    return campaign(task, 1)


def version2(task: dict[str, Any]) -> dict[str, Any]:
    return campaign(task, 2)


def always_fails(_task: dict[str, Any]) -> dict[str, Any]:
    import no_such_library  # noqa: F401 - fails

    return {}


def fails_in_turn(task: dict[str, Any]) -> dict[str, Any]:
    raise (ValueError, KeyError)[task["priority"] % 2]("in turn")


def returns_errors(_task: dict[str, Any]) -> dict[str, Any]:
    return {"status": STATUS.ERROR, "method_used": "aperture", "details": {"errors": "caught\nhere"}}


def same_path(_task: dict[str, Any]) -> dict[str, Any]:
    return {"status": STATUS.OK, "method_used": "aperture", "details": {"filepath_lightcurve": "one.fits"}}


def fails_from_task_3(task: dict[str, Any]) -> dict[str, Any]:
    if task["priority"] >= 3:
        raise OSError("disk full")
    return {"status": STATUS.OK, "method_used": "aperture"}


def good(_task: dict[str, Any]) -> dict[str, Any]:
    return {"status": STATUS.OK, "method_used": "aperture"}
