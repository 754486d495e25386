"""Executors of every kind: the number of their workers, their shutdown, and their leftover processes."""

import multiprocessing
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Set
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from photometry_tasks.errors import UnguardedScriptError, WorkerError
from photometry_tasks.rules.validation import check_positive, invalid_argument

#: Seconds that workers have after their last task: a function may leave a thread, or wait at the exit of its process.
_LONGEST_EXIT = 5.0

#: Seconds that the executor has after its workers were killed.
_LAST_EXIT = 1.0


def shut_down(
    executor: Executor,
    running: Collection[Future[Any]],
    *,
    kill: bool,
    others: Set[int],
    is_urgent: Callable[[], bool],
) -> None:
    """Shut an executor down in bounded time, and kill its workers, but not the child processes in `others`.

    The shutdown has a few seconds; without `kill`, it waits for the workers, but only until `is_urgent`.
    Then, if `running` tasks or the shutdown still do not end, the other children that this process has started since
    are killed: those of executors that do not use `multiprocessing`.
    """
    ending: Future[None] = Future()
    threading.Thread(target=_shut_down_into, args=(ending, executor, kill), daemon=True).start()

    def has_ended() -> bool:
        return ending.done() and all(future.done() for future in running)

    _wait_until(lambda: ending.done() or (not kill and is_urgent()), _LONGEST_EXIT)
    if not ending.done() or (kill and not hasattr(executor, "kill_workers")):
        for process in multiprocessing.active_children():
            if process.pid not in others:
                with suppress(psutil.NoSuchProcess):
                    kill_tree(psutil.Process(process.pid))
        _wait_until(has_ended, _LAST_EXIT)
    if not has_ended():
        for child in psutil.Process().children():
            if child.pid not in others:
                kill_tree(child)
        _wait_until(has_ended, _LAST_EXIT)
    if ending.done():
        ending.result()


def _wait_until(is_over: Callable[[], bool], longest: float) -> None:
    until = time.monotonic() + longest
    while not is_over() and time.monotonic() < until:
        time.sleep(0.02)


def _shut_down_into(ending: "Future[None]", executor: Executor, kill: bool) -> None:
    """Shut an executor down, and put the end or the error into a future."""
    try:
        if not kill:
            executor.shutdown()
        elif hasattr(executor, "kill_workers"):  # WorkerPool, and ProcessPoolExecutor from Python 3.14 on
            executor.kill_workers()
        else:
            try:
                executor.shutdown(wait=False, cancel_futures=True)
            except TypeError:  # Dask's takes only `wait`, and cancels the futures by itself
                executor.shutdown(wait=False)
    except BaseException as error:
        ending.set_exception(error)
    else:
        ending.set_result(None)


def is_worker_death(error: BaseException) -> bool:
    """Whether the error of a future says that the task's worker died.

    Each executor has an exception of its own for that. Python's exceptions say that the function could not be imported,
    or that the executor failed: those of the function itself become results.
    """
    is_pythons = type(error).__module__.partition(".")[0] in sys.stdlib_module_names
    return isinstance(error, BrokenExecutor) or not (is_pythons or isinstance(error, (ImportError, WorkerError)))


def check_guard(executor: Executor) -> None:
    """Raise an error if the workers of a broken executor have imported a script that lacks a guard.

    Raises
    ------
    UnguardedScriptError
    """
    context = getattr(executor, "_mp_context", None)  # of Python's ProcessPoolExecutor, which does not say more
    script = getattr(sys.modules["__main__"], "__file__", None)
    if context is None or context.get_start_method() == "fork" or script is None:
        return
    if re.search(rb"\b__name__\s*[=!]=", Path(script).read_bytes()) is None:
        raise UnguardedScriptError(path=script)


def check_jobs(jobs: int | None, executor: object) -> int:
    """Return the number of workers, by default the number of processors that this process may use."""
    if jobs is not None:
        return check_positive("jobs", jobs)
    if executor is not None:
        raise invalid_argument("jobs", jobs, "an executor needs a number of workers; give that number")
    # A batch system may give a job only a part of the processors; a system that cannot report it counts all.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_ranks(executor: object) -> None:
    """Raise an error if other ranks of MPI run this program too, because each would be a manager of the list."""
    if "mpi4py.futures" not in sys.modules:
        return
    from mpi4py import MPI

    # SLURM starts this number of processes, and its plugin for MPI makes one world of them.
    launched = os.environ.get("SLURM_NTASKS", "")
    if MPI.COMM_WORLD.size == 1 and launched.isdecimal() and launched.lstrip("0") not in ("", "1"):
        raise invalid_argument(
            "executor",
            executor,
            f"SLURM_NTASKS is {launched}, but MPI has one rank: the launcher does not fit the MPI of mpi4py; "
            "use `srun --mpi=pmi2` (MPICH), `srun --mpi=pmix` (Open MPI) or `mpiexec -n`",
        )
    if MPI.COMM_WORLD.rank > 0:
        raise invalid_argument(
            "executor",
            executor,
            "every rank of MPI runs this program; run it as `python -m mpi4py.futures -m photometry_tasks.cli ...`, "
            "or a script as `python -m mpi4py.futures SCRIPT`",
        )


def find_children() -> set[int]:
    """Return the ids of the child processes of this process."""
    return {child.pid for child in psutil.Process().children()}


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and its children."""
    with suppress(psutil.NoSuchProcess):
        started = process.children(recursive=True)
        process.kill()
        for child in started:
            with suppress(psutil.NoSuchProcess):
                child.kill()
