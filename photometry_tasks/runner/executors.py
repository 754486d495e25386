"""Executors of every kind: how many workers they have, how they end, and the processes that they leave."""

import multiprocessing
import os
import sys
from collections.abc import Set
from concurrent.futures import Executor

from photometry_tasks.errors import WorkerDiedError
from photometry_tasks.rules.validation import check_positive, invalid_argument


def shut_down(executor: Executor, *, kill: bool, others: Set[int]) -> None:
    """Let an executor end, or end it with what it runs; processes that were there before it are let alone."""
    if not kill:
        executor.shutdown()
    elif hasattr(executor, "kill_workers"):  # ours, and ProcessPoolExecutor's from Python 3.14 on
        executor.kill_workers()
    else:
        try:
            executor.shutdown(wait=False, cancel_futures=True)
        except TypeError:  # Dask's takes no more than this, and cancels them by itself
            executor.shutdown(wait=False)
        _kill_children(find_children() - others)


def is_worker_death(error: BaseException) -> bool:
    """Whether an executor says that a task's worker died: ours, or Dask's after some tries."""
    dask = sys.modules.get("distributed")
    return isinstance(error, WorkerDiedError) or (dask is not None and isinstance(error, dask.KilledWorker))


def check_jobs(jobs: int | None, executor: object) -> int:
    """Return the number of workers; by default the number of processors that this process may use."""
    if jobs is not None:
        return check_positive("jobs", jobs)
    if executor is not None:
        raise invalid_argument("jobs", jobs, "say how many workers the executor has")
    # A batch system gives a job some of the machine's processors; where that can't be asked, all count.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_children() -> set[int]:
    """Return the processes that `multiprocessing` has started here, by their ids."""
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def _kill_children(pids: Set[int]) -> None:
    """Kill those of the processes that `multiprocessing` has started here."""
    for process in multiprocessing.active_children():
        if process.pid in pids:
            process.kill()
