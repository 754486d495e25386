"""One task in a worker process: call the pipeline's function, and check its result."""

import importlib
import os
import signal
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from msgspec.structs import replace

from photometry_tasks.errors import InvalidResultError
from photometry_tasks.rules.results import INVALID_RESULT, LONGEST_KIND, Result, check_result
from photometry_tasks.rules.validation import as_text, show
from photometry_tasks.runner.process_exit import describe_memory_limit, get_peak_memory
from photometry_tasks.status import STATUS

#: A pipeline's function: takes a task, and returns the fields of its result.
PhotometryFunction = Callable[[dict[str, Any]], Mapping[str, Any]]

#: Python's own folder.
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")

#: Files of frames between our caller and the user's code: of this room, and of Python's import.
_NOT_THEIRS = (os.path.dirname(__file__), os.path.dirname(importlib.__file__), "<frozen importlib")  # noqa: PTH120

#: Time at which this process finished its last task, or started.
_idle_since = time.perf_counter()


def run_task(function: PhotometryFunction, task: dict[str, Any]) -> Result | None:
    """Run the function on a task, and check its result; an exception or a malformed result becomes an ERROR.

    Return None if Ctrl-C reached this process: the task did not fail.
    """
    result, error = try_task(function, task)
    # Where workers ignore Ctrl-C, as ours do, it is an exception of the function.
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        return None
    return result


def try_task(function: PhotometryFunction, task: dict[str, Any]) -> tuple[Result, BaseException | None]:
    """Return the checked result of the function, or an ERROR and the exception that led to it."""
    global _idle_since
    begun = time.perf_counter()
    times = {"worker_wait_time": begun - _idle_since}
    failure: BaseException | None = None
    has_returned = False
    try:
        fields = function(dict(task))
        has_returned = True
        times["time"] = time.perf_counter() - begun
        if not isinstance(fields, Mapping):
            fault = (
                f"the function returned {show(fields)}: a dict with `status`, `method_used` and `details` is expected"
            )
            raise InvalidResultError(priority=show(task["priority"]), faults=[fault])  # noqa: TRY301 - as any other fault
        # Checked in the worker: only plain values are sent, and a malformed result fails only its own task.
        identity = {"priority": task["priority"], "attempt": task.get("attempt")}
        result = check_result({**task, **times, **fields, **identity})
    except BaseException as error:
        failure = error
        times["time"] = time.perf_counter() - begun
        if has_returned and isinstance(error, InvalidResultError):
            text = f"Invalid result: {'; '.join(error.faults)}."
        else:
            text = format_error(error)
        if isinstance(error, MemoryError):
            text += f"In this process, {describe_memory_limit()}.\n"
        kind = INVALID_RESULT if has_returned else build_kind(error)
        result = build_failure(task, text, kind, **times)
    _idle_since = time.perf_counter()
    return replace(result, peak_memory=get_peak_memory()), failure


def build_kind(error: BaseException) -> str:
    """Return the kind of a failure: the class of an exception, with its module unless it is a builtin."""
    kind = type(error)
    module = kind.__module__.replace("__mp_main__", "__main__")  # the name of the script in a spawned process
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    return as_text(name)[:LONGEST_KIND]


def build_failure(task: Mapping[str, Any], reason: str, kind: str, *, time: float, **times: float) -> Result:
    """Return an ERROR as the result of a task that failed; values of another type in its row do not matter."""
    details = {"errors": reason, "kind": kind}
    failure = {"status": STATUS.ERROR, "method_used": "error", "time": time, "details": details}
    return check_result({"priority": task["priority"], "attempt": task.get("attempt"), **times, **failure})


def find_user_trace(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception from the first frame of the user's code on; None if it has none."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_NOT_THEIRS):
        trace = trace.tb_next
    return trace


def format_error(error: BaseException) -> str:
    """Return an exception with its traceback, from the first frame of the user's code on."""
    return "".join(traceback.format_exception(type(error), error, find_user_trace(error)))


def describe_error(error: BaseException) -> str:
    """Return an exception as a line, with its last place in the user's code, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is that of our caller
    theirs = [frame for frame in frames if not frame.filename.startswith(("<frozen", _STANDARD_LIBRARY))]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text + "".join(f" ({frame.filename}, line {frame.lineno})" for frame in theirs[-1:])
