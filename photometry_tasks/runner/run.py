"""A function, an executor and a TaskManager: all tasks done."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Unpack

from photometry_tasks.constraints import Constraints, check_constraints
from photometry_tasks.errors import TooManyWorkerDeathsError
from photometry_tasks.rules.results import Result
from photometry_tasks.rules.validation import check_positive, check_seconds, invalid_argument
from photometry_tasks.runner.executors import check_jobs, find_children, is_worker_death, shut_down
from photometry_tasks.runner.pool import WorkerPool
from photometry_tasks.runner.shutdown import Shutdown, find_time_limit
from photometry_tasks.runner.task import PhotometryFunction, build_failure, check_importable, run_task
from photometry_tasks.status import STATUS
from photometry_tasks.taskmanager import TaskManager

#: Seconds that a finished result may wait for others, to be saved together with them.
_PATIENCE = 1.0

#: Tasks shorter than this (seconds) are handed out ahead, so many seconds of work: their results are saved together.
_SHORT, _AHEAD, _MOST_AHEAD = 0.1, 0.2, 31

#: Seconds after which it is looked whether anything is to be done: a lock cannot be waited for much longer at once.
_LONGEST_WAIT = 3600.0

#: Dead workers one after the other, without a result between, that end the run: it is not the tasks.
_DEATHS_IN_A_ROW = 100

#: Which part of its lease a manager on a server may be silent; and after which part, or how many seconds, it looks
#: again whether tasks have come back from others.
_SILENCE, _LOOK, _LONGEST_LOOK = 0.25, 0.1, 5.0


@dataclass
class RunReport:
    """How far a run has come.

    Attributes
    ----------
    saved : int
        Results saved.
    errors : int
        Those of them with status ERROR.
    late : int
        Results that were refused, since others had taken the tasks.
    wall_time : float
        Seconds since the run began.
    manager_time : float
        Seconds of them that getting, starting and saving took.
    is_out_of_time : bool
        Whether it ended since the next task would hardly have been done in time.
    """

    saved: int = 0
    errors: int = 0
    late: int = 0
    wall_time: float = 0.0
    manager_time: float = 0.0
    is_out_of_time: bool = False


def run_tasks(
    manager: TaskManager,
    function: PhotometryFunction,
    *,
    jobs: int | None = None,
    executor: Callable[[int], Executor] | None = None,
    limit: int | None = None,
    task_timeout: float | None = None,
    grace: float = 20.0,
    stop_after: float | None = None,
    progress: Callable[[RunReport], None] | None = None,
    **constraints: Unpack[Constraints],
) -> RunReport:
    """Run a function on the pending tasks, in worker processes, and save the results as they come.

    The manager stays in this process, and tells a server that it is alive. A worker's exception becomes a result with
    status ERROR and the traceback in its errors; so does its death, with the reason.

    Parameters
    ----------
    manager : TaskManager
    function : callable
        Takes a task (dict, see `TaskManager.get_task`) and returns the result's fields: `status`,
        `method_used` and `details` (see `TaskManager.save_result`); `time` and `worker_wait_time` are filled
        in. It stands at the top level of a module, so that the workers can import it. If that is the script
        itself, what the script does stands under ``if __name__ == "__main__":``, since they import it too.
    jobs : int, optional
        Number of workers; by default the number of processors that this process may use.
    executor : callable, optional
        Takes the number of workers, and returns the `concurrent.futures.Executor` that runs them:
        ``mpi4py.futures.MPIPoolExecutor``, or ``lambda jobs: client.get_executor()`` of a Dask client. By default
        they are processes on this machine.
    limit : int, optional
        Stop after so many tasks.
    task_timeout : float, optional
        Seconds after which a task is given up, and its process killed. Only without `executor`.
    grace : float, optional
        Seconds that what runs may go on after Ctrl-C, SIGTERM or SIGUSR1.
    stop_after : float, optional
        Seconds after which the run should have ended: no task is begun that would hardly be done by then, going by
        the run times seen. In a SLURM job that is half a minute before its end, or earlier if this says so.
    progress : callable, optional
        Called with the report after results were saved, and at the end.
    **constraints
        Which tasks to run: arguments of `build_constraints`.

    Returns
    -------
    RunReport

    Raises
    ------
    KeyboardInterrupt, SystemExit
        On Ctrl-C; on SIGTERM or SIGUSR1, with 128 and the number of the signal as exit code. What was done is saved,
        and the rest is pending; so it is after any other error. A second signal ends what runs at once.
    WorkerError
        If the workers cannot import the function.
    TooManyWorkerDeathsError
        If 100 workers died one after the other.

    Notes
    -----
    On a server, the run does not end while others are at tasks of these constraints: they may come back.

    Where one dead worker breaks the whole executor, as it does `concurrent.futures.ProcessPoolExecutor`, a new one is
    made, and the tasks that were under way are run again, one at a time: that shows which of them it was.
    """
    jobs = check_jobs(jobs, executor)
    limit = None if limit is None else check_positive("limit", limit)
    grace = check_seconds("grace", grace)
    stop_after = None if stop_after is None else check_seconds("stop_after", stop_after)
    task_timeout = None if task_timeout is None else check_seconds("task_timeout", task_timeout)
    if task_timeout == 0:
        raise invalid_argument("task_timeout", task_timeout, "a task needs some time; leave it out for no limit")
    if executor is None:
        executor = partial(WorkerPool, task_timeout=task_timeout)
    elif task_timeout is not None:
        raise invalid_argument(
            "task_timeout", task_timeout, "an executor of your own ends tasks by its own means; leave it out"
        )
    check_importable(function)
    # Checked once: an iterable may be one that can be read only once.
    checked = dict(check_constraints(constraints))
    run = _Run(manager, function, checked, executor, jobs, limit, progress)
    with Shutdown(grace, find_time_limit(stop_after), run.wake_up) as shutdown:
        run.work(shutdown)
    return run.report


class _Run:
    """The tasks in flight, between the manager and the executor."""

    def __init__(
        self,
        manager: TaskManager,
        function: PhotometryFunction,
        constraints: Mapping[str, Any],
        make_executor: Callable[[int], Executor],
        jobs: int,
        limit: int | None,
        progress: Callable[[RunReport], None] | None,
    ) -> None:
        self.report = RunReport()
        self._manager = manager
        self._function = function
        self._constraints = constraints
        self._make_executor = make_executor
        self._others = find_children()
        self._executor = make_executor(jobs)
        if not hasattr(self._executor, "submit"):
            raise invalid_argument("executor", make_executor, "a function is expected that returns an Executor")
        self._jobs = jobs
        self._to_come = math.inf if limit is None else limit
        self._progress = progress
        self._begun = self._last_sign = time.perf_counter()
        self._started: set[int] = set()
        self._in_flight: dict[Future[Result], dict[str, Any]] = {}
        self._done: list[Result] = []
        self._done_since = 0.0
        self._mean_time: float | None = None
        self._deaths_in_a_row = 0
        # Of an executor that broke as a whole: the tasks to be tried one at a time, and the one that is.
        self._suspects: deque[dict[str, Any]] = deque()
        self._alone: Future[Result] | None = None
        self._is_broken = self._is_told = False
        # Each finished task and each signal put something in: a queue that may be fed by a signal's handler.
        self._finished: SimpleQueue[Future[Result] | None] = SimpleQueue()

    def wake_up(self) -> None:
        self._finished.put(None)

    def work(self, shutdown: Shutdown) -> None:
        """Run the tasks until there are none, or it is time to stop."""
        try:
            while True:
                is_stopping = shutdown.is_requested()
                if is_stopping:
                    self._cancel_waiting(shutdown)
                else:
                    self._hand_out()
                is_idle = not (self._in_flight or self._done or (self._suspects and not is_stopping))
                if is_idle and (is_stopping or not self._awaits_more()):
                    break
                if is_stopping and shutdown.get_seconds_left() == 0:
                    break
                if self._in_flight or is_idle:
                    self._wait(shutdown, is_idle=is_idle)
                if self._is_save_due() or is_stopping:
                    self._save()
        finally:
            self._end()
        self.report.is_out_of_time = shutdown.is_out_of_time
        if self._progress is not None:
            self._progress(self.report)

    def _cancel_waiting(self, shutdown: Shutdown) -> None:
        """Take back what has not begun, and say so once."""
        running = sum(not future.cancel() for future in list(self._in_flight))
        left = shutdown.get_seconds_left() or 0.0
        if running and left >= 1 and not self._is_told:
            message = "%s: nothing more is begun; %d running tasks may go on for %.0f s, or until a second signal"
            self._manager.logger.warning(message, shutdown.reason, running, left)
            self._is_told = True

    def _awaits_more(self) -> bool:
        """Whether it may hand out more tasks, and more may come: what others are at comes back if they fall silent."""
        return bool(self._to_come) and self._manager.has_tasks_elsewhere(**self._constraints)

    # --- handing out -------------------------------------------------------------------------------------

    def _wanted_in_flight(self) -> int:
        """Return how many tasks should be in flight: where they are short, some wait for each worker."""
        if self._mean_time is None or self._mean_time > _SHORT:
            return self._jobs
        return self._jobs * (1 + min(_MOST_AHEAD, math.ceil(_AHEAD / max(self._mean_time, 1e-6))))

    def _hand_out(self) -> None:
        if self._suspects:
            if not self._in_flight:
                self._alone = self._submit(self._suspects.popleft())
            return
        target = self._wanted_in_flight()
        lacking = target - len(self._in_flight)
        if lacking <= 0 or 2 * lacking < target - self._jobs or not self._to_come:
            return
        with self._managing():
            tasks = self._manager.claim_tasks(int(min(lacking, self._to_come)), **self._constraints)
            self._started.update(task["priority"] for task in tasks)
        self._to_come -= len(tasks)
        for task in tasks:
            self._submit(task)

    def _submit(self, task: dict[str, Any]) -> Future[Result] | None:
        is_new = self._is_broken
        if is_new:
            self._executor.shutdown(wait=False)
            self._executor = self._make_executor(self._jobs)
            self._is_broken = False
        try:
            future = self._executor.submit(run_task, self._function, task)
        except BrokenExecutor:
            if is_new:
                raise
            self._is_broken = True
            self._suspects.append(task)
            return None
        self._in_flight[future] = task
        future.add_done_callback(self._finished.put)
        return future

    # --- taking results ----------------------------------------------------------------------------------

    def _wait(self, shutdown: Shutdown, *, is_idle: bool) -> None:
        """Wait until a task is finished, a signal has come, or it is time to look, to save or to stop."""
        timeouts = [_LONGEST_WAIT] if (left := shutdown.get_seconds_left()) is None else [left, _LONGEST_WAIT]
        lease = self._manager.lease
        if lease is not None:
            silence = time.perf_counter() - self._last_sign
            timeouts.append((min(_LOOK * lease, _LONGEST_LOOK) if is_idle else _SILENCE * lease) - silence)
        if self._done:
            timeouts.append(max(0.0, self._done_since + _PATIENCE - time.perf_counter()))
        try:
            future = self._finished.get(timeout=max(0.0, min(timeouts)))
            while True:
                if future is not None:
                    self._take(future, shutdown)
                future = self._finished.get_nowait()
        except Empty:
            pass
        if lease is not None and time.perf_counter() - self._last_sign >= _SILENCE * lease:
            with self._managing():
                self._manager.heartbeat()

    def _take(self, future: Future[Result], shutdown: Shutdown) -> None:
        task = self._in_flight.pop(future)
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            self._is_broken = True
            if future is not self._alone:
                self._suspects.append(task)
                return
        elif error is not None and not is_worker_death(error):
            raise error
        if error is None:
            result = future.result()
            elaptime = result.diagnostics["elaptime"]
            shutdown.add_run_time(elaptime)
            self._mean_time = elaptime if self._mean_time is None else 0.9 * self._mean_time + 0.1 * elaptime
            self._deaths_in_a_row = 0
        else:
            result = build_failure(task, str(error), time=getattr(error, "elapsed", 0.0))
            self._deaths_in_a_row += 1
        if not self._done:
            self._done_since = time.perf_counter()
        self._done.append(result)

    def _is_save_due(self) -> bool:
        """Whether the results that wait are to be saved: enough for a batch, or the first has waited long enough."""
        if not self._done:
            return False
        is_late = time.perf_counter() - self._done_since >= _PATIENCE
        return is_late or not self._in_flight or 2 * len(self._done) >= self._wanted_in_flight() - self._jobs

    def _save(self) -> None:
        if self._done:
            self._save_together(self._done)
            last, self._done = self._done[-1], []
            if self._progress is not None:
                self._progress(self.report)
            if self._deaths_in_a_row >= _DEATHS_IN_A_ROW:
                raise TooManyWorkerDeathsError(number=self._deaths_in_a_row, found="\n".join(last.errors))

    def _save_together(self, results: list[Result]) -> None:
        with self._managing():
            statuses = self._manager.save_results(results)
        self._started.difference_update(result.priority for result in results)
        self.report.late += statuses.count(None)
        self.report.saved += len(statuses) - statuses.count(None)
        self.report.errors += statuses.count(STATUS.ERROR)

    # --- the end -----------------------------------------------------------------------------------------

    def _end(self) -> None:
        """End what still runs, save what is done, and return the rest to pending; what can't be is logged."""
        try:
            # One that broke may wait for ever for processes that are gone.
            shut_down(self._executor, kill=bool(self._in_flight) or self._is_broken, others=self._others)
        except Exception:
            self._manager.logger.exception("The executor could not be shut down")
        for future in self._in_flight:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._done.append(future.result())
        for result in self._done:
            try:
                self._save_together([result])
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
            now = self._last_sign = time.perf_counter()
            self.report.manager_time += now - begun
            self.report.wall_time = now - self._begun
