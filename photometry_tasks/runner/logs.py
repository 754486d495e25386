"""The log of a run: messages and warnings of the function from every worker, with the star in each line."""

import logging
import multiprocessing
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from photometry_tasks.rules.results import Result
from photometry_tasks.rules.validation import check_path, invalid_argument
from photometry_tasks.runner.task import PhotometryFunction, run_task
from photometry_tasks.storage.guard import WORKER
from photometry_tasks.text import clean

_logger = logging.getLogger("photometry_tasks")

#: The star of the task that this thread runs; and in a worker process, which runs one task at a time, that of the task.
_star: ContextVar[int | None] = ContextVar("star", default=None)
_star_of_process: list[int] = []

#: The handler of each log in this process, and Python's way to show a warning.
_handlers: "dict[TaskLog, tuple[logging.Handler, Callable[..., None]]]" = {}

#: Held while a handler is added: tasks may run in threads.
_lock = threading.Lock()


class TaskLog(NamedTuple):
    """A log of the tasks of a run, for `run_task` in any worker.

    Attributes
    ----------
    level : int
        The lowest level of the messages.
    directory : str or None
        The directory with a file for each worker process; None: stderr.
    """

    level: int
    directory: str | None

    def run(self, function: PhotometryFunction, task: dict[str, Any]) -> Result | None:
        """Run the function on a task as `run_task`, and log what it says."""
        with _lock:
            self._start()
        token = _star.set(task["starid"])
        if multiprocessing.current_process().name == WORKER:
            _star_of_process[:] = [task["starid"]]
        try:
            result = run_task(function, task)
            if result is not None:
                kind = f" ({result.details.kind})" if result.details.kind else ""
                _logger.info("task %d: %s%s, %.3g s", task["priority"], result.status.name, kind, result.time)
        finally:
            _star.reset(token)
            _star_of_process.clear()
        return result

    def _start(self) -> None:
        """Add a handler for this worker process, once."""
        if self in _handlers:
            return
        root = logging.getLogger()
        handler: logging.Handler = logging.StreamHandler()
        if self.directory is not None:
            path = Path(self.directory, f"{socket.gethostname()}-{os.getpid()}.log")
            handler = _FileHandler(path, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(_Formatter())
        handler.setLevel(self.level)
        handler.addFilter(_is_of_task)
        _handlers[self] = handler, warnings.showwarning
        # Without other wishes, a pipeline that has handlers of its own needs no other.
        if not (self.directory is None and self.level >= logging.WARNING and root.handlers):
            root.addHandler(handler)
            root.setLevel(min(root.level, self.level))
        warnings.showwarning = partial(_log_warning, warnings.showwarning)

    def stop(self) -> None:
        """Remove the handler of this process, if its threads have run tasks."""
        if self in _handlers:
            handler, warnings.showwarning = _handlers.pop(self)
            logging.getLogger().removeHandler(handler)
            handler.close()


@contextmanager
def log_tasks(level: object, directory: object) -> "Iterator[TaskLog | None]":
    """Check the arguments, create the directory, and yield the log; None if neither argument is given.

    Parameters
    ----------
    level : int or str or None
    directory : str or os.PathLike or None

    Raises
    ------
    InvalidArgumentError
    """
    if level is None and directory is None:
        yield None
        return
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if number is None and level is None:
        number = logging.INFO
    if not isinstance(number, int) or isinstance(number, bool):
        raise invalid_argument("log_level", level, "a level of logging is expected: DEBUG, INFO, WARNING or ERROR")
    if directory is not None:
        directory = os.path.abspath(check_path("log_dir", directory))  # noqa: PTH100 - for workers of other directories
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise invalid_argument("log_dir", directory, f"{error.strerror}; give another directory") from error
    log = TaskLog(number, directory)
    level_before = logging.getLogger().level
    try:
        yield log
    finally:
        log.stop()
        logging.getLogger().setLevel(level_before)


class _FileHandler(logging.FileHandler):
    """Says once that a log cannot be written, as on a full disk: the task itself goes on."""

    _has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - logging's
        if not self._has_failed:
            self._has_failed = True
            text = f"{self.baseFilename}: the log cannot be written ({sys.exc_info()[1]}); the run goes on without it"
            print(text, file=sys.stderr)


def _find_star() -> int | None:
    """Return the star of the task that runs now; threads of the function do not inherit it."""
    star = _star.get()
    return _star_of_process[0] if star is None and _star_of_process else star


def is_of_manager(_record: logging.LogRecord) -> bool:
    """Whether a record comes from no task: the filter of a handler for the manager."""
    return _find_star() is None


def _is_of_task(record: logging.LogRecord) -> bool:
    """Whether a record comes from a task; if this handler is the only one, other warnings go where they would go."""
    if _find_star() is not None:
        return True
    last = logging.lastResort
    if last is not None and record.levelno >= last.level and len(logging.getLogger().handlers) == 1:
        last.handle(record)
    return False


class _Formatter(logging.Formatter):
    """Begins each line of a message with the time, the level and the star."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record)} {record.levelname} TIC {_find_star()} "
        return "\n".join(head + line for line in clean(super().format(record)).splitlines())


def _log_warning(
    show: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any, **more: Any
) -> None:
    """Log a warning of a task, without the line of code that gave it; show any other as before."""
    if _find_star() is None:
        show(message, category, *place, **more)
    else:
        logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)
