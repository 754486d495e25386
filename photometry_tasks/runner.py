"""A function, a pool of processes and a TaskManager: all tasks done."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Self, Unpack

from photometry_tasks.arguments import check_positive, invalid
from photometry_tasks.constraints import Constraints, check_constraints
from photometry_tasks.results import Result, check_result
from photometry_tasks.status import STATUS
from photometry_tasks.taskmanager import TaskManager

__all__ = ["RunReport", "run_tasks"]

#: What a pipeline gives: it takes a task and returns the result's fields.
PhotometryFunction = Callable[[dict[str, Any]], Mapping[str, Any]]

#: Seconds that a worker has to end when it is told to.
_GRACE = 5.0

#: Tasks in flight for each worker: one that it works on, one that waits for it.
_IN_FLIGHT_PER_WORKER = 2


@dataclass
class RunReport:
    """How far a run has come.

    Attributes
    ----------
    saved : int
        Results saved.
    errors : int
        Those of them with status ERROR.
    wall_time : float
        Seconds since the run began.
    manager_time : float
        Seconds of them that getting, starting and saving took.
    """

    saved: int = 0
    errors: int = 0
    wall_time: float = 0.0
    manager_time: float = 0.0


def run_tasks(
    manager: TaskManager,
    function: PhotometryFunction,
    *,
    jobs: int | None = None,
    limit: int | None = None,
    progress: Callable[[RunReport], None] | None = None,
    **constraints: Unpack[Constraints],
) -> RunReport:
    """Run a function on the pending tasks, in worker processes, and save the results as they come.

    The manager stays in this process. A worker's exception becomes a result with status ERROR and the
    traceback in its errors.

    Parameters
    ----------
    manager : TaskManager
    function : callable
        Takes a task (dict, see `TaskManager.get_task`) and returns the result's fields: `status`,
        `method_used` and `details` (see `TaskManager.save_result`); `time` and `worker_wait_time` are filled
        in. It stands at the top level of a module, so that the workers can import it. If that is the script
        itself, what the script does stands under ``if __name__ == "__main__":``, since they import it too.
    jobs : int, optional
        Number of worker processes; by default the number of processors that this process may use.
    limit : int, optional
        Stop after so many tasks.
    progress : callable, optional
        Called with the report after results were saved.
    **constraints
        Which tasks to run: arguments of `build_constraints`.

    Returns
    -------
    RunReport

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C. What was done is saved, and the rest is pending; so it is after any other error.
    concurrent.futures.process.BrokenProcessPool
        If a worker process died.
    """
    jobs = check_positive("jobs", _usable_processors() if jobs is None else jobs)
    limit = None if limit is None else check_positive("limit", limit)
    _check_importable(function)
    # Checked once: an iterable may be one that can be read only once.
    run = _Run(manager, function, dict(check_constraints(constraints)), limit)
    others = set(multiprocessing.active_children())
    # Workers are spawned, not forked: they must inherit neither the connection nor its locks.
    context = multiprocessing.get_context("spawn")
    with _HeldInterrupt(run.wake_up) as interrupt, ProcessPoolExecutor(jobs, context, _prepare_worker) as pool:
        try:
            while True:
                interrupt.check()
                run.hand_out(pool, _IN_FLIGHT_PER_WORKER * jobs)
                if not run.in_flight:
                    return run.report
                run.wait()
                run.save_finished(progress)
        except BaseException:
            _end(set(multiprocessing.active_children()) - others)
            pool.shutdown(cancel_futures=True)  # waits for the results that were on their way
            run.stop()
            raise


def _end(workers: Collection[BaseProcess]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(_GRACE)
        worker.kill()
        worker.join()


class _Run:
    """The tasks in flight, between the manager and the pool."""

    def __init__(
        self,
        manager: TaskManager,
        function: PhotometryFunction,
        constraints: Mapping[str, Any],
        limit: int | None,
    ) -> None:
        self.report = RunReport()
        self.in_flight: dict[Future[Result], int] = {}
        self._manager = manager
        self._function = function
        self._constraints = constraints
        self._to_come = limit
        self._begun = time.perf_counter()
        self._started: set[int] = set()
        # Each finished task and Ctrl-C put something in: a queue that may be fed by a signal's handler.
        self._wakers: SimpleQueue[object] = SimpleQueue()

    def wake_up(self) -> None:
        self._wakers.put(None)

    def wait(self) -> None:
        """Wait until a task is finished, or Ctrl-C has come."""
        self._wakers.get()

    def hand_out(self, pool: ProcessPoolExecutor, number: int) -> None:
        wanted = number - len(self.in_flight)
        if self._to_come is not None:
            wanted = min(wanted, self._to_come)
        if wanted <= 0:
            return
        with self._managing():
            tasks = self._manager.get_tasks(wanted, **self._constraints)
            if not tasks:
                return
            priorities = [task["priority"] for task in tasks]
            self._started.update(priorities)
            self._manager.start_tasks(priorities)
        if self._to_come is not None:
            self._to_come -= len(tasks)
        for task in tasks:
            with _inherited_without_interrupt():
                future = pool.submit(_run_task, self._function, task)
            self.in_flight[future] = task["priority"]
            future.add_done_callback(self._wakers.put)

    def save_finished(self, progress: Callable[[RunReport], None] | None) -> None:
        done = [future for future in self.in_flight if future.done()]
        if done:
            self._save([future for future in done if future.exception() is None])
            for future in done:
                future.result()  # raises if the pool is broken; what the function raised is a result
            if progress is not None:
                progress(self.report)

    def _save(self, futures: list[Future[Result]]) -> None:
        with self._managing():
            statuses = self._manager.save_results(future.result() for future in futures)
        for future in futures:
            self._started.discard(self.in_flight.pop(future))
        self.report.saved += len(statuses)
        self.report.errors += statuses.count(STATUS.ERROR)

    def stop(self) -> None:
        """Save what is done, and return the rest to pending; what can't be is logged, as an error is on its way."""
        for future in list(self.in_flight):
            if future.done() and not future.cancelled() and future.exception() is None:
                try:
                    self._save([future])
                except Exception:
                    self._manager.logger.exception("A finished result could not be saved")
        try:
            self._manager.release_tasks(self._started)
        except Exception:
            self._manager.logger.exception("%d tasks could not be returned to pending", len(self._started))

    @contextmanager
    def _managing(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            now = time.perf_counter()
            self.report.manager_time += now - begun
            self.report.wall_time = now - self._begun


class _HeldInterrupt:
    """Ctrl-C, noted when it comes, and raised where nothing is left half done."""

    def __init__(self, wake_up: Callable[[], None]) -> None:
        self._wake_up = wake_up
        self._has_come = False
        self._handler: Any = None

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._handler = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if kind is None:
            self.check()  # it came while the last result was saved

    def _take(self, *_: object) -> None:
        self._has_come = True
        self._wake_up()

    def check(self) -> None:
        if self._has_come:
            raise KeyboardInterrupt


@contextmanager
def _inherited_without_interrupt() -> Iterator[None]:
    """Let a worker that is spawned here begin with Ctrl-C blocked, until it has learnt to ignore it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# --- in the worker process -------------------------------------------------------------------------------

_idle_since = time.perf_counter()


def _prepare_worker() -> None:
    # Ctrl-C in a terminal reaches the workers as well; it is the parent that decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _run_task(function: PhotometryFunction, task: dict[str, Any]) -> Result:
    global _idle_since
    begun = time.perf_counter()
    times = {"worker_wait_time": begun - _idle_since}
    try:
        fields = function(dict(task))
        times["time"] = time.perf_counter() - begun
        # Checked here, so that only plain values travel, and what is malformed is this task's error alone.
        result = check_result({**task, **times, **fields, "priority": task["priority"]})
    except BaseException:
        times["time"] = time.perf_counter() - begun
        failure = {"status": STATUS.ERROR, "method_used": "error", "details": {"errors": traceback.format_exc()}}
        result = check_result({**task, **times, **failure})
    _idle_since = time.perf_counter()
    return result


def _usable_processors() -> int:
    # A batch system gives a job some of the machine's processors; where that can't be asked, all count.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_importable(function: PhotometryFunction) -> None:
    remedy = "the workers cannot import it; define it at the top level of a module"
    try:
        pickle.dumps(function)
    except Exception as error:
        raise invalid("function", function, remedy) from error
    main = sys.modules["__main__"]
    if getattr(function, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
        raise invalid("function", function, f"{remedy}, not in a notebook or at the prompt")
