"""One task in a worker process: the pipeline's function is called, and its result checked."""

import pickle
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from photometry_tasks.rules.results import Result, check_result
from photometry_tasks.rules.validation import invalid_argument
from photometry_tasks.runner.process_exit import describe_memory_limit
from photometry_tasks.status import STATUS

#: A pipeline's function: it takes a task and returns the fields of its result.
PhotometryFunction = Callable[[dict[str, Any]], Mapping[str, Any]]

#: When this process finished its last task, or was started.
_idle_since = time.perf_counter()


def run_task(function: PhotometryFunction, task: dict[str, Any]) -> Result:
    """Run the function on a task, and check what it returns; what goes wrong in it is a result with status ERROR."""
    global _idle_since
    begun = time.perf_counter()
    times = {"worker_wait_time": begun - _idle_since}
    try:
        fields = function(dict(task))
        times["time"] = time.perf_counter() - begun
        # Checked here, so that only plain values travel, and what is malformed is this task's error alone.
        identity = {"priority": task["priority"], "attempt": task.get("attempt")}
        result = check_result({**task, **times, **fields, **identity})
    except BaseException as error:
        times["time"] = time.perf_counter() - begun
        text = traceback.format_exc()
        if isinstance(error, MemoryError):
            text += f"In this process {describe_memory_limit()}.\n"
        result = build_failure(task, text, **times)
    _idle_since = time.perf_counter()
    return result


def build_failure(task: Mapping[str, Any], reason: str, *, time: float, **times: float) -> Result:
    """Return the result of a task that gave none."""
    failure = {"status": STATUS.ERROR, "method_used": "error", "time": time, "details": {"errors": reason}}
    return check_result({**task, **times, **failure})


def check_importable(function: PhotometryFunction) -> None:
    """Check that the workers can import a function, as far as that can be told here.

    Raises
    ------
    InvalidArgumentError
    """
    remedy = "the workers cannot import it; define it at the top level of a module"
    try:
        pickle.dumps(function)
    except Exception as error:
        raise invalid_argument("function", function, remedy) from error
    main = sys.modules["__main__"]
    if getattr(function, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
        raise invalid_argument("function", function, f"{remedy}, not in a notebook or at the prompt")
