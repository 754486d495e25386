"""Run a function on the pending tasks of a TaskManager, in the workers of an executor."""

import math
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple, TypeVar, Unpack

from photometry_tasks.constraints import Constraints, check_constraints
from photometry_tasks.errors import (
    InvalidArgumentError,
    ServerUnreachableError,
    TodoFileInUseError,
    TooManyErrorsError,
    UnguardedScriptError,
    WorkerDiedError,
    WorkerError,
)
from photometry_tasks.progress.status_fields import LiveTask, LiveTasks
from photometry_tasks.rules.results import INVALID_RESULT, Result, join_errors
from photometry_tasks.rules.run_times import Cell, RunTimes, find_cell
from photometry_tasks.rules.validation import check_natural, check_positive, check_seconds, invalid_argument
from photometry_tasks.runner.executors import (
    check_guard,
    check_jobs,
    check_ranks,
    find_children,
    is_worker_death,
    shut_down,
)
from photometry_tasks.runner.functions import check_function, make_portable
from photometry_tasks.runner.logs import log_tasks
from photometry_tasks.runner.pool import WorkerPool
from photometry_tasks.runner.shutdown import Shutdown, find_time_limit
from photometry_tasks.runner.task import (
    PhotometryFunction,
    build_failure,
    build_kind,
    describe_error,
    run_task,
)
from photometry_tasks.status import FAILED, STATUS
from photometry_tasks.taskmanager import TaskManager
from photometry_tasks.text import count_of

T = TypeVar("T")

#: Seconds that a finished result may wait, so that several results are saved together.
_PATIENCE = 1.0

#: If tasks take less than `_SHORT` seconds on average, each worker gets up to `_AHEAD` seconds of work in advance, at
#: most `_MOST_AHEAD` tasks: their results are saved together.
_SHORT, _AHEAD, _MOST_AHEAD = 0.1, 0.2, 31

#: Longest single wait, seconds: Python limits the timeout of a lock.
_LONGEST_WAIT = 3600.0

#: The number of tasks that are passed over, because they would not end in time, before the run ends.
_MOST_PASSED_OVER = 1000

#: The automatic time limit of a task: so many times its forecast, at least so many seconds, from so many results on.
_TIMES_LONGER, _LEAST_TIMEOUT, _LEAST_RESULTS = 10.0, 60.0, 30

#: Seconds after which a run that waits looks for signals, and shows its progress.
_LONGEST_SLEEP = 1.0

#: Seconds for which a run waits while another program has locked the file: as long as for a server, with a usual lease;
#: and seconds between two tries, in addition to the 5 s that SQLite itself waits for a lock.
_LONGEST_LOCK, _PAUSE = 300.0, 0.1

#: Share of the lease after which a manager on a server sends a heartbeat; share of the lease, and at most seconds,
#: after which an idle manager looks for tasks that came back from other managers.
_HEARTBEAT, _LOOK, _LONGEST_LOOK = 0.25, 0.1, 5.0

#: Seconds after which the manager of a file shows readers that it works.
_FILE_HEARTBEAT = 10.0


class RunningTask(NamedTuple):
    """A task that a worker runs.

    Attributes
    ----------
    priority, starid : int
    seconds : float
        Since it began.
    expected : float or None
        The run time that 95 % of similar tasks do not exceed, seconds; None without results.
    pid : int or None
        The process of the worker; None if the executor does not tell.
    """

    priority: int
    starid: int
    seconds: float
    expected: float | None
    pid: int | None


@dataclass
class RunReport:
    """The progress of a run.

    Attributes
    ----------
    saved : int
        Saved results.
    errors : int
        Saved results with status ERROR.
    late : int
        Results that were refused, because other managers had taken the tasks.
    wall_time : float
        Seconds since the run began.
    manager_time : float
        Part of `wall_time` that claiming tasks and saving results took, seconds.
    is_out_of_time : bool
        Whether the run ended because no other task would have finished in time.
    kinds : Counter
        The number of saved results with status ERROR, by the kind of the failure; None if the pipeline gave none.
    running : list of RunningTask
        The tasks that workers run, the longest first.
    queued : int
        The tasks that wait for a worker.
    silence : float
        Seconds since the last result, or since the run began.
    """

    saved: int = 0
    errors: int = 0
    late: int = 0
    wall_time: float = 0.0
    manager_time: float = 0.0
    is_out_of_time: bool = False
    kinds: Counter[str | None] = field(default_factory=Counter)
    running: list[RunningTask] = field(default_factory=list)
    queued: int = 0
    silence: float = 0.0


def run_tasks(
    manager: TaskManager,
    function: PhotometryFunction,
    *,
    jobs: int | None = None,
    executor: Callable[[int], Executor] | None = None,
    limit: int | None = None,
    task_timeout: float | Literal["auto"] | None = None,
    grace: float = 20.0,
    grace_term: float | None = None,
    stop_after: float | None = None,
    max_errors_in_a_row: int = 100,
    log_level: int | str | None = None,
    log_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[RunReport], None] | None = None,
    **constraints: Unpack[Constraints],
) -> RunReport:
    """Run a function on the pending tasks, in worker processes, and save each result soon after its task finishes.

    Tasks that have failed since they were last reset by hand come after all others.

    The manager stays in this process, and sends heartbeats to a server. If the function raises an exception, the task
    becomes an ERROR with the traceback; if a worker dies, its task becomes an ERROR with the reason.

    Parameters
    ----------
    manager : TaskManager
    function : callable
        Takes a task (dict, see `TaskManager.get_task`) and returns the result's fields: `status`,
        `method_used` and `details` (see `TaskManager.save_result`); `time` and `worker_wait_time` are filled
        in. Define it at the top level of a module, so that the workers can import it. If that module is the script
        itself, put the script's statements under ``if __name__ == "__main__":``, because the workers import it too.
        A function of a notebook or a prompt, a lambda and a closure need cloudpickle (the extra ``notebook``).
    jobs : int, optional
        Number of workers; by default the number of processors that this process may use.
    executor : callable, optional
        Takes the number of workers, and returns a `concurrent.futures.Executor` with that number of workers:
        ``mpi4py.futures.MPIPoolExecutor``, or ``lambda jobs: client.get_executor()`` of a Dask client. By default
        the workers are processes on this machine.
    limit : int, optional
        Largest number of tasks to run.
    task_timeout : float or 'auto', optional
        Run time in seconds after which a task becomes an ERROR, and its process is killed. With 'auto', ten times the
        run time that 95 % of similar tasks do not exceed, and at least a minute, as soon as there are 30 results. Only
        without `executor`.
    grace : float, optional
        Seconds that running tasks may continue after Ctrl-C or SIGUSR1.
    grace_term : float, optional
        Seconds that running tasks may continue after SIGTERM; by default `grace`, but at most 20 s, because batch
        systems kill the job soon after SIGTERM (SLURM after 30 s).
    stop_after : float, optional
        Seconds after which the run should have ended. A task does not start if 95 % of the run times of similar tasks
        (see `TodoList.estimate`) are not shorter than the time that is left; later tasks that fit are run in its place,
        and it stays pending. In a SLURM job, the limit is at the latest half a minute before the end of the job.
    max_errors_in_a_row : int, optional
        The run ends if that many tasks in a row, which had not failed before, fail in the same way: the tasks are
        hardly the cause. They return to pending. 0 sets no limit.
    log_level : int or str, optional
        Lowest level of the messages and warnings of the function that workers log, with the time and the star in each
        line: a name or a number of `logging`. By default workers log as the function's own module sets it up, or at
        INFO if `log_dir` is given.
    log_dir : str or os.PathLike, optional
        The directory of the log: each worker process appends to its own file, HOST-PID.log. By default workers log to
        stderr. Workers on other nodes need the directory too.
    progress : callable, optional
        Called with the report each time results were saved, each second without a result, and at the end.
    **constraints
        Which tasks to run: arguments of `build_constraints`.

    Returns
    -------
    RunReport

    Raises
    ------
    KeyboardInterrupt, SystemExit
        On Ctrl-C; on SIGTERM or SIGUSR1, with 128 + the number of the signal as exit code. Finished results are saved,
        and unfinished tasks are pending again, as after any other error. A second signal ends running tasks at once.
        If the script lacks the ``if``, SystemExit ends it with a message.
    WorkerError
        If the workers cannot import the function, or the executor fails.
    TooManyErrorsError
        If `max_errors_in_a_row` is reached.
    TodoFileInUseError
        If another program has locked the file for 5 minutes.

    Notes
    -----
    On a server, the run does not end while other managers run tasks that match the constraints: these tasks may come
    back.

    If another program has locked the TODO-file, the run keeps its results, and tries again for 5 minutes.

    If one dead worker breaks the whole executor, as in `concurrent.futures.ProcessPoolExecutor`, or if more
    workers than `jobs` die without a result, a new executor is created, and their tasks are run again, one at a time: a
    task that breaks it again becomes an ERROR.
    """
    if not isinstance(manager, TaskManager):
        raise invalid_argument("manager", manager, "a TaskManager is expected; open the list with one")
    jobs = check_jobs(jobs, executor)
    if executor is not None:
        check_ranks(executor)
    limit = None if limit is None else check_positive("limit", limit)
    grace = check_seconds("grace", grace)
    grace_term = None if grace_term is None else check_seconds("grace_term", grace_term)
    stop_after = None if stop_after is None else check_seconds("stop_after", stop_after)
    most_errors = check_natural("max_errors_in_a_row", max_errors_in_a_row)
    if task_timeout not in (None, "auto"):
        task_timeout = check_seconds("task_timeout", task_timeout)
        if task_timeout == 0:
            remedy = "a positive number of seconds or 'auto' is expected; leave it out for no limit"
            raise invalid_argument("task_timeout", task_timeout, remedy)
    is_own_pool = executor is None
    if executor is not None and task_timeout is not None:
        raise invalid_argument(
            "task_timeout",
            task_timeout,
            "it works only for the default worker processes; leave it out if you give an executor",
        )
    check_function(function)
    if is_own_pool:
        function = make_portable(function)
    else:
        with suppress(InvalidArgumentError):  # threads, and executors with a pickle of their own, take any function
            function = make_portable(function)
    # Checked once, because a constraint may be an iterator.
    checked = dict(check_constraints(constraints))
    with log_tasks(log_level, log_dir) as log, Shutdown(grace, grace_term) as shutdown:
        call = run_task if log is None else log.run
        run = _Run(
            manager, call, function, checked, executor, jobs, limit, most_errors, shutdown, progress, task_timeout
        )
        shutdown.begin(find_time_limit(stop_after), run.wake_up)
        try:
            run.work()
        except UnguardedScriptError as error:
            raise SystemExit(str(error)) from None  # the line says all; a traceback would hide it
    return run.report


class _Run:
    """A run: the tasks in flight between the manager and the executor."""

    def __init__(
        self,
        manager: TaskManager,
        call: Callable[[PhotometryFunction, dict[str, Any]], Result | None],
        function: PhotometryFunction,
        constraints: Mapping[str, Any],
        make_executor: Callable[[int], Executor] | None,
        jobs: int,
        limit: int | None,
        most_errors: int,
        shutdown: Shutdown,
        progress: Callable[[RunReport], None] | None,
        task_timeout: float | Literal["auto"] | None,
    ) -> None:
        self.report = RunReport()
        self._manager = manager
        self._run_task = call
        self._function = function
        self._constraints = constraints
        self._make_executor = make_executor or partial(WorkerPool, find_timeout=self._find_timeout)
        self._task_timeout = task_timeout
        # A future for each finished task, None for each signal: put() of a SimpleQueue is reentrant.
        self._finished: SimpleQueue[Future[Result | None] | None] = SimpleQueue()
        self._shutdown = shutdown
        self._others = find_children()
        self._executor = self._make_executor(jobs)
        if not hasattr(self._executor, "submit"):
            raise invalid_argument(
                "executor", make_executor, "a function that returns a concurrent.futures.Executor is expected"
            )
        self._is_ours = isinstance(self._executor, WorkerPool)
        self._jobs = jobs
        self._to_come = math.inf if limit is None else limit
        self._progress = progress
        self._begun = self._last_heartbeat = time.perf_counter()
        self._started: set[int] = set()
        self._in_flight: dict[Future[Result | None], dict[str, Any]] = {}
        self._begun_at: dict[int, float] = {}
        self._done: list[Result] = []
        # Tasks whose worker died, with their ERRORs: saved when a result shows that the executor still has workers.
        self._failed: list[tuple[dict[str, Any], Result]] = []
        self._done_since = 0.0
        self._mean_time: float | None = None
        self._run_times: RunTimes | None = None
        self._run_times_lock = threading.Lock()  # threads of the pool ask for time limits
        # The tasks that would not end in time; and the time of the last result, and of the last call of `progress`.
        self._passed_over: set[int] = set()
        self._nothing_fits = False
        self._last_result = self._last_shown = self._begun
        # Tasks that had failed before this run; and the last failures of one kind of other tasks, by priority, with
        # their attempts.
        self._retried: set[int] = set()
        self._streak: dict[int, int] = {}
        self._streak_kind: str | None = None
        self._streak_error: str | None = None
        self._most_errors = most_errors
        # After an executor broke: the tasks to run one at a time, and the future of the running one.
        self._suspects: deque[dict[str, Any]] = deque()
        self._alone: Future[Result | None] | None = None
        self._is_broken = self._has_warned = False
        self._locked_since: float | None = None

    def wake_up(self) -> None:
        """End a wait for finished tasks, because a signal came."""
        self._finished.put(None)

    def work(self) -> None:
        """Run tasks until none is left, or the run has to stop."""
        if self._task_timeout == "auto":
            self._get_run_times()
        self._manager.watch_running(self._find_running)
        try:
            while True:
                is_stopping = self._shutdown.is_requested()
                if is_stopping:
                    self._cancel_waiting()
                else:
                    self._hand_out()
                    if not self._in_flight:
                        self._finish()
                is_idle = not (self._in_flight or self._done or (self._suspects and not is_stopping))
                if is_idle and (is_stopping or self._nothing_fits or not self._awaits_more()):
                    break
                if is_stopping and self._shutdown.get_seconds_left() == 0:
                    break
                if self._in_flight or is_idle:
                    self._wait(is_idle=is_idle)
                if self._is_save_due() or is_stopping:
                    self._save()
                if time.perf_counter() - self._last_shown >= _LONGEST_SLEEP:
                    self._show()
        finally:
            self._end()
        self.report.is_out_of_time = self._shutdown.is_out_of_time or self._nothing_fits
        self._show()

    def _show(self) -> None:
        """Call `progress` with the tasks that run and wait."""
        if self._progress is None:
            return
        now = self._last_shown = time.perf_counter()
        tasks = self._list_running()
        running = [
            RunningTask(task["priority"], task["starid"], seconds, self._forecast(task), pid)
            for task, seconds, pid in tasks
        ]
        self.report.running = sorted(running, key=lambda task: -task.seconds)
        self.report.queued = len(self._in_flight) - len(tasks)
        self.report.silence = now - self._last_result
        self._progress(self.report)

    def _list_running(self) -> list[tuple[dict[str, Any], float, int | None]]:
        """Return the tasks that run, each with the seconds since its begin, and the process that runs it."""
        if isinstance(self._executor, WorkerPool):
            clock = time.monotonic()
            return [(each.args[1], clock - each.begun, each.pid) for each in self._executor.list_running()]
        # The futures of other executors do not tell which tasks run: as many as there are workers.
        first, now = islice(self._in_flight.values(), self._jobs), time.perf_counter()
        return [(task, now - self._begun_at[task["priority"]], None) for task in first]

    def _find_running(self) -> LiveTasks:
        tasks = self._list_running()
        running = {
            task["priority"]: LiveTask(seconds, None if pid is None else f"process {pid}")
            for task, seconds, pid in tasks
        }
        return LiveTasks(running, max(0, len(self._in_flight) - len(tasks)))

    def _cancel_waiting(self) -> None:
        """Cancel the tasks that have not started, and warn once."""
        # Not the first `jobs`, which run: Dask cancels running tasks too.
        for future in list(self._in_flight)[self._jobs :]:
            future.cancel()
        running = sum(not future.done() for future in self._in_flight)
        left = self._shutdown.get_seconds_left() or 0.0
        if running and left >= 1 and not self._has_warned:
            message = "%s: stopping (%s): no new task starts; %s may continue for %.0f s, or until a second signal"
            arguments = self._manager.todo_file, self._shutdown.reason, count_of(running, "running task"), left
            self._manager.logger.warning(message, *arguments)
            self._has_warned = True

    def _awaits_more(self) -> bool:
        """Whether tasks of other managers may still come back, and be run here."""
        return bool(self._to_come) and self._manager.has_tasks_elsewhere(**self._constraints)

    # --- handing out -------------------------------------------------------------------------------------

    def _wanted_in_flight(self) -> int:
        """Return how many tasks should be in flight: if tasks are short, some wait for each process of our pool.

        Futures of other executors do not tell which tasks run: Dask cancels these too, and Parsl cancels no task.
        """
        if not self._is_ours or self._mean_time is None or self._mean_time > _SHORT:
            return self._jobs
        return self._jobs * (1 + min(_MOST_AHEAD, math.ceil(_AHEAD / max(self._mean_time, 1e-6))))

    def _hand_out(self) -> None:
        if self._suspects:
            if not self._in_flight:
                self._alone = self._submit(self._suspects.popleft())
            return
        if self._nothing_fits:
            return
        target = self._wanted_in_flight()
        lacking = target - len(self._in_flight)
        if lacking <= 0 or 2 * lacking < target - self._jobs or not self._to_come:
            return
        while lacking > 0:
            limit = int(min(lacking, self._to_come))
            try:
                tasks = self._claim(limit)
            except TodoFileInUseError:
                if self._shutdown.is_requested():
                    return
                raise
            fitting = [task for task in tasks if self._fits(task)]
            self._to_come -= len(fitting)
            lacking -= len(fitting)
            for task in fitting:
                self._submit(task)
            if len(self._passed_over) >= _MOST_PASSED_OVER or (self._passed_over and len(tasks) < limit):
                self._nothing_fits = True
                self._call(partial(self._manager.release_tasks, self._passed_over))
                self._started -= self._passed_over
            if len(fitting) == len(tasks) or self._nothing_fits:
                break

    def _fits(self, task: dict[str, Any]) -> bool:
        """Whether a task will end before the time limit; otherwise it is passed over, and returns to pending later."""
        if not self._shutdown.has_time_limit or self._shutdown.has_time_for(self._forecast(task) or 0.0):
            return True
        self._passed_over.add(task["priority"])
        return False

    def _forecast(self, task: dict[str, Any]) -> float | None:
        """Return the run time that 95 % of similar tasks do not exceed, seconds; None without results."""
        run_times = self._get_run_times()
        with self._run_times_lock:
            return run_times.get_quantile(_find_cell(task))

    def _get_run_times(self) -> RunTimes:
        if self._run_times is None:
            self._run_times = self._call(partial(self._manager.read_workload, **self._constraints)).run_times
        return self._run_times

    def _find_timeout(self, _function: object, task: dict[str, Any]) -> float | None:
        """Return the seconds after which the process of a task is killed, or None."""
        if self._task_timeout != "auto":
            return self._task_timeout
        if self._run_times is None or len(self._run_times) < _LEAST_RESULTS:
            return None
        return max(_LEAST_TIMEOUT, _TIMES_LONGER * (self._forecast(task) or 0.0))

    def _claim(self, limit: int) -> list[dict[str, Any]]:
        """Claim tasks: first those that have not failed."""
        is_over = self._shutdown.is_requested
        claim = partial(self._manager.claim_tasks, **self._constraints)
        tasks = self._call(partial(claim, limit, has_failed=False), is_over=is_over)
        self._started.update(task["priority"] for task in tasks)
        if len(tasks) < limit:
            failed = self._call(partial(claim, limit - len(tasks), has_failed=True), is_over=is_over)
            self._retried.update(task["priority"] for task in failed)
            tasks += failed
        return tasks

    def _submit(self, task: dict[str, Any]) -> Future[Result | None] | None:
        is_new = self._is_broken
        if is_new:
            self._executor.shutdown(wait=False)
            self._executor = self._make_executor(self._jobs)
            self._is_broken = False
        try:
            future = self._executor.submit(self._run_task, self._function, task)
        except BrokenExecutor as error:
            if is_new:
                raise WorkerError(found=describe_error(error)) from error
            self._is_broken = True
            self._suspects.append(task)
            return None
        except Exception as error:
            raise WorkerError(found=describe_error(error)) from error
        self._in_flight[future] = task
        self._begun_at[task["priority"]] = time.perf_counter()
        future.add_done_callback(self._finished.put)
        return future

    # --- taking results ----------------------------------------------------------------------------------

    def _wait(self, *, is_idle: bool) -> None:
        """Wait until a task finishes, a signal arrives, or a heartbeat, a save or the end of the run is due."""
        timeouts = [_LONGEST_WAIT] if (left := self._shutdown.get_seconds_left()) is None else [left, _LONGEST_WAIT]
        lease = self._manager.lease
        heartbeat = _FILE_HEARTBEAT if lease is None else _HEARTBEAT * lease
        look = heartbeat if lease is None or not is_idle else min(_LOOK * lease, _LONGEST_LOOK)
        timeouts.append(look - (time.perf_counter() - self._last_heartbeat))
        if self._done:
            timeouts.append(max(0.0, self._done_since + _PATIENCE - time.perf_counter()))
        if self._progress is not None:
            timeouts.append(_LONGEST_SLEEP)
        until = time.perf_counter() + min(timeouts)
        future = None
        while True:
            remaining = until - time.perf_counter()
            # The system may deliver a signal to another thread: its handler runs when this thread wakes up.
            with suppress(Empty):
                future = self._finished.get(timeout=max(0.0, min(remaining, _LONGEST_SLEEP)))
                break
            if remaining <= 0:
                break
        with suppress(Empty):
            while True:
                if future is not None:
                    self._take(future)
                future = self._finished.get_nowait()
        if time.perf_counter() - self._last_heartbeat >= heartbeat:
            self._call(self._manager.heartbeat)

    def _take(self, future: Future[Result | None]) -> None:
        task = self._in_flight.pop(future)
        self._begun_at.pop(task["priority"], None)
        if future.cancelled() and self._is_ours:
            return
        error = CancelledError("by the executor") if future.cancelled() else future.exception()
        if error is None:
            if (result := future.result()) is None:
                return  # Ctrl-C reached the worker
            elaptime = result.time
            if self._run_times is not None:
                with self._run_times_lock:
                    self._run_times.add(_find_cell(task), elaptime)
            self._mean_time = elaptime if self._mean_time is None else 0.9 * self._mean_time + 0.1 * elaptime
            self._finish(result)
            return
        if isinstance(error, BrokenExecutor):
            check_guard(self._executor)
        is_alone, is_certain = future is self._alone, isinstance(error, WorkerDiedError)
        if not is_certain and (isinstance(error, BrokenExecutor) or is_alone or len(self._failed) >= self._jobs):
            self._is_broken = True  # no worker may be left
        if self._shutdown.is_requested() and not is_certain:
            return  # the task was cancelled, or the signal reached its worker too
        if not is_worker_death(error):
            raise error if isinstance(error, WorkerError) else WorkerError(found=describe_error(error)) from error
        kind = error.kind if isinstance(error, WorkerDiedError) else build_kind(error)
        failure = build_failure(task, str(error) or describe_error(error), kind, time=getattr(error, "elapsed", 0.0))
        if is_certain or is_alone:
            self._finish(failure)
            return
        self._failed.append((task, failure))
        if self._is_broken:
            self._suspects.extend(task for task, _ in self._failed)
            self._failed.clear()

    def _finish(self, *results: Result) -> None:
        """Take results to save, together with the ERRORs that waited for one."""
        if not self._done:
            self._done_since = time.perf_counter()
        self._done += [*(failure for _, failure in self._failed), *results]
        self._failed.clear()

    def _is_save_due(self) -> bool:
        """Whether to save the waiting results: they fill a batch, or the first has waited long enough."""
        if not self._done:
            return False
        is_late = time.perf_counter() - self._done_since >= _PATIENCE
        # A result that lists neighbours may cover tasks that wait for a worker.
        is_late |= len(self._in_flight) > self._jobs and any(result.details.skip_targets for result in self._done)
        return is_late or not self._in_flight or 2 * len(self._done) >= self._wanted_in_flight() - self._jobs

    def _save(self) -> None:
        if self._done:
            statuses = self._save_together(self._done)
            saved, self._done = self._done, []
            if self._count_streak(saved, statuses):
                raise TooManyErrorsError(
                    tasks=count_of(len(self._streak), "task"),
                    host=socket.gethostname(),
                    kind=self._streak_kind or "a kind that is not given",
                    priority=list(self._streak)[-1],
                    found=(self._streak_error or "an error without a text").strip().splitlines()[-1],
                    path=self._manager.todo_file,
                )
            self._cancel_covered(saved)
            self._show()

    def _count_streak(self, results: list[Result], statuses: list[STATUS | None]) -> bool:
        """Count the failures of one kind in a row; return whether they end the run."""
        for result, status in zip(results, statuses, strict=True):
            is_failure = status in FAILED
            if is_failure and result.priority in self._retried:
                continue
            kind = _find_kind(result) if is_failure else None
            is_other = kind != self._streak_kind if is_failure else result.status not in FAILED
            if is_other:
                if self._is_braked():
                    break
                self._streak.clear()
            if is_failure:
                self._streak_kind, self._streak_error = kind, join_errors(result.details.errors)
                if result.status not in FAILED:
                    self._streak_error = f"another task has the light-curve path {result.details.filepath_lightcurve!r}"
                self._streak[result.priority] = result.attempt or 0
        return self._is_braked()

    def _is_braked(self) -> bool:
        return 0 < self._most_errors <= len(self._streak)

    def _cancel_covered(self, saved: list[Result]) -> None:
        """Cancel tasks that still wait for a worker although results have covered them meanwhile."""
        # The first tasks are running. On a server, results of other managers cover tasks too.
        waiting = {task["priority"]: future for future, task in list(self._in_flight.items())[self._jobs :]}
        if not waiting or (self._manager.lease is None and not any(result.details.skip_targets for result in saved)):
            return
        covered = self._call(partial(self._manager.find_skipped, list(waiting)))
        cancelled = [priority for priority in covered if waiting[priority].cancel()]
        if cancelled:
            self._call(partial(self._manager.release_tasks, cancelled))
            self._started.difference_update(cancelled)
            self._to_come += len(cancelled)

    def _save_together(self, results: list[Result]) -> list[STATUS | None]:
        statuses = self._call(partial(self._manager.save_results, results))
        self._last_result = time.perf_counter()
        self._started.difference_update(result.priority for result in results)
        self.report.late += statuses.count(None)
        self.report.saved += len(statuses) - statuses.count(None)
        self.report.errors += statuses.count(STATUS.ERROR)
        errors = [result for result, status in zip(results, statuses, strict=True) if status is STATUS.ERROR]
        invalid = [result for result in errors if result.details.kind == INVALID_RESULT]
        if invalid and not self.report.kinds[INVALID_RESULT]:
            found = join_errors(invalid[0].details.errors)
            message = "%s: task %d has an invalid result, the first one of this run. %s"
            self._manager.logger.warning(message, self._manager.todo_file, invalid[0].priority, found)
        self.report.kinds.update(map(_find_kind, errors))
        return statuses

    # --- the end -----------------------------------------------------------------------------------------

    def _end(self) -> None:
        """End running tasks, save finished results, and return unfinished tasks to pending; failures are logged."""
        self._manager.watch_running(None)
        try:
            # A broken executor may wait without end for processes that have died.
            kill = bool(self._in_flight) or self._is_broken
            is_urgent = self._shutdown.is_repeated
            shut_down(self._executor, self._in_flight, kill=kill, others=self._others, is_urgent=is_urgent)
        except Exception:
            self._manager.logger.exception("%s: the executor could not be shut down", self._manager.todo_file)
        for future in self._in_flight:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._done += filter(None, [future.result()])
        for number, result in enumerate(self._done):
            try:
                self._count_streak([result], self._save_together([result]))
            except (TodoFileInUseError, ServerUnreachableError):
                # Each of the others would wait as long.
                message, lost = "%s: %s could not be saved", count_of(len(self._done) - number, "finished result")
                self._manager.logger.exception(message, self._manager.todo_file, lost)
                break
            except Exception:
                message = "%s: the finished result of task %d could not be saved"
                self._manager.logger.exception(message, self._manager.todo_file, result.priority)
        try:
            if self._is_braked():
                self._call(partial(self._manager.release_failures, self._streak))
        except Exception:
            message = "%s: %s could not be returned to pending"
            self._manager.logger.exception(message, self._manager.todo_file, count_of(len(self._streak), "failed task"))
        try:
            if self._started:
                self._call(partial(self._manager.release_tasks, self._started), is_over=self._shutdown.is_requested)
        except Exception:
            message = "%s: %s could not be returned to pending"
            self._manager.logger.exception(message, self._manager.todo_file, count_of(len(self._started), "task"))

    # --- calls of the manager ----------------------------------------------------------------------------

    def _call(self, method: Callable[[], T], *, is_over: Callable[[], bool] | None = None) -> T:
        """Return the result of a call of the manager, and call again while another program has locked the file.

        The wait ends when `is_over` says so; by default with a second signal, because a result would be lost.
        """
        begun = time.perf_counter()
        try:
            while True:
                try:
                    result = method()
                except TodoFileInUseError as error:
                    now = time.monotonic()
                    if self._locked_since is None:
                        self._locked_since = now
                        message = "%s The run keeps its results, and waits for at most %.0f s"
                        self._manager.logger.warning(message, error, _LONGEST_LOCK)
                    if now - self._locked_since >= _LONGEST_LOCK or (is_over or self._shutdown.is_repeated)():
                        raise
                    time.sleep(_PAUSE)
                else:
                    if self._locked_since is not None:
                        self._locked_since = None
                        self._manager.logger.warning("%s: the lock has ended, the run goes on", self._manager.todo_file)
                    return result
        finally:
            now = self._last_heartbeat = time.perf_counter()
            self.report.manager_time += now - begun
            self.report.wall_time = now - self._begun


def _find_cell(task: dict[str, Any]) -> Cell:
    return find_cell(task["datasource"], task["method"], task["tmag"])


def _find_kind(result: Result) -> str | None:
    """Return the kind of a failure; saving makes a result an ERROR if another task has its light-curve path."""
    return result.details.kind if result.status in FAILED else INVALID_RESULT
