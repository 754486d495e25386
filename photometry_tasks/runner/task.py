"""One task in a worker process: call the pipeline's function, and check its result."""

import inspect
import pickle
import signal
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from photometry_tasks.rules.results import INVALID_RESULT, LONGEST_KIND, Result, check_result
from photometry_tasks.rules.validation import as_text, invalid_argument
from photometry_tasks.runner.process_exit import describe_memory_limit, get_peak_memory
from photometry_tasks.status import STATUS

#: A pipeline's function: takes a task, and returns the fields of its result.
PhotometryFunction = Callable[[dict[str, Any]], Mapping[str, Any]]

#: Calls of these functions return no result at once.
_NOT_PLAIN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)

#: Python's own folder.
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")

#: Time at which this process finished its last task, or started.
_idle_since = time.perf_counter()


def run_task(function: PhotometryFunction, task: dict[str, Any]) -> Result | None:
    """Run the function on a task, and check its result; an exception or a malformed result becomes an ERROR.

    Return None if Ctrl-C reached this process: the task did not fail.
    """
    global _idle_since
    begun = time.perf_counter()
    times = {"worker_wait_time": begun - _idle_since}
    has_returned = False
    try:
        fields = function(dict(task))
        has_returned = True
        times["time"] = time.perf_counter() - begun
        # Checked in the worker: only plain values are sent, and a malformed result fails only its own task.
        identity = {"priority": task["priority"], "attempt": task.get("attempt")}
        result = check_result({**task, **times, **fields, **identity})
    except BaseException as error:
        # Where workers ignore Ctrl-C, as ours do, it is an exception of the function.
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            return None
        times["time"] = time.perf_counter() - begun
        text = traceback.format_exc()
        if isinstance(error, MemoryError):
            text += f"In this process, {describe_memory_limit()}.\n"
        kind = INVALID_RESULT if has_returned else build_kind(error)
        result = build_failure(task, text, kind, **times)
    _idle_since = time.perf_counter()
    return replace(result, peak_memory=get_peak_memory())


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


def describe_error(error: BaseException) -> str:
    """Return an exception as a line, with its last place in the user's code, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is that of our caller
    theirs = [frame for frame in frames if not frame.filename.startswith(("<frozen", _STANDARD_LIBRARY))]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text + "".join(f" ({frame.filename}, line {frame.lineno})" for frame in theirs[-1:])


def check_function(function: PhotometryFunction) -> PhotometryFunction:
    """Return a function that workers can import and call with a task, as far as this process can check it.

    Raises
    ------
    InvalidArgumentError
    """
    if not callable(function):
        raise invalid_argument("function", function, "a function is expected; import it, and give the function itself")
    if isinstance(function, type) and not issubclass(function, Mapping):
        remedy = "a class returns an instance and no result; give a function, or an instance with a method __call__"
        raise invalid_argument("function", function, remedy)
    if any(is_other(part) for is_other in _NOT_PLAIN for part in (function, type(function).__call__)):
        raise invalid_argument("function", function, "it is async or a generator; give a function that returns a dict")
    try:
        # Not that of a wrapped function: its wrapper may add arguments.
        inspect.signature(function, follow_wrapped=False).bind({})
    except ValueError:
        pass  # compiled code need not have a signature
    except TypeError as error:
        remedy = f"it cannot be called with a task alone ({error}); give a function with one argument, the task"
        raise invalid_argument("function", function, remedy) from error
    remedy = "the workers cannot import it; define it at the top level of a module"
    try:
        pickled = pickle.dumps(function)
    except Exception as error:
        raise invalid_argument("function", function, remedy) from error
    if b"__main__" in pickled and not hasattr(sys.modules["__main__"], "__file__"):
        raise invalid_argument("function", function, f"{remedy}, not in a notebook or at the prompt")
    return function
