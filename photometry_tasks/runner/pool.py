"""A pool of worker processes in which a dead worker costs only its own task, and the code that the workers run."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import psutil

from photometry_tasks.errors import UnguardedScriptError, WorkerDiedError, WorkerError
from photometry_tasks.runner.executors import kill_tree
from photometry_tasks.runner.process_exit import count_oom_kills, describe_exit
from photometry_tasks.runner.task import describe_error
from photometry_tasks.status import LOST
from photometry_tasks.storage.guard import UNGUARDED, WORKER
from photometry_tasks.text import shorten

#: Signals that a terminal or a batch system sends to the workers too. Workers ignore them: the parent decides.
_PARENTS_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}

#: The kind of a failure: the time limit of the task was reached.
TIMEOUT = "timeout"

#: Seconds between two checks that a worker is alive. When a worker dies, its pipe mostly closes at once, but a child of
#: the worker may hold it open.
_LOOK = 1.0


class Running(NamedTuple):
    """A call that a worker runs: its arguments, the monotonic time of its begin (s), the process of the worker."""

    args: tuple[Any, ...]
    begun: float
    pid: int | None


class WorkerPool(ThreadPoolExecutor):
    """A pool of processes; a thread for each process gives it one task at a time.

    If a process dies, only the future of its task fails, with `WorkerDiedError`, and the next task gets a new process;
    in `concurrent.futures.ProcessPoolExecutor` all futures fail. If a future is running, its task has really started.

    Parameters
    ----------
    jobs : int
        Number of processes; each starts when a task needs it.
    find_timeout : callable, optional
        Takes the arguments of a call, and returns the seconds after which its process is killed, or None. It is called
        again each second, in another thread: the limit of a running call may change.
    """

    def __init__(self, jobs: int, *, find_timeout: Callable[..., float | None] | None = None) -> None:
        super().__init__(jobs, thread_name_prefix="photometry_tasks")
        resource_tracker.ensure_running()  # before workers start: its start unblocks signals that they need blocked
        self._find_timeout = find_timeout
        # By thread: the call that its worker runs.
        self._running: dict[int, Running] = {}
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._is_ended = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function in a worker process; see `concurrent.futures.Executor`."""
        return super().submit(self._call, function, args, kwargs)

    def _call(self, *call: Any) -> Any:
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None or not worker.is_alive():
            worker = self._own.worker = self._start(worker)
        thread = threading.get_ident()
        self._running[thread] = Running(call[1], time.monotonic(), worker.pid)
        try:
            return worker.call(call, partial(self._find_timeout, *call[1]) if self._find_timeout else None)
        finally:
            del self._running[thread]

    def list_running(self) -> "list[Running]":
        """Return the calls that workers run."""
        return list(self._running.copy().values())

    def _start(self, dead: "_Worker | None") -> "_Worker":
        worker = _Worker()
        with self._lock:
            if dead is not None:
                self._workers.remove(dead)
                dead.close()
            self._workers.append(worker)
            if self._is_ended:
                worker.kill()
        worker.wait_until_ready()
        return worker

    def kill_workers(self) -> None:
        """Kill the processes and cancel waiting tasks, as ProcessPoolExecutor.kill_workers in Python 3.14."""
        with self._lock:
            self._is_ended = True
            for worker in self._workers:
                worker.kill()
        self.shutdown(cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when their tasks are finished; see `concurrent.futures.Executor`."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        while wait and self._workers:
            self._workers.pop().close()


class _Worker:
    """A worker process, for the thread that gives it tasks."""

    def __init__(self) -> None:
        # Spawned, not forked: it must inherit neither the manager's connection nor its locks.
        context = multiprocessing.get_context("spawn")
        self._oom_kills = count_oom_kills()
        self._is_lost = self._has_unpickled = False
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name=WORKER)
        # The process inherits this mask, so that no signal kills it before it ignores them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        self._identity = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def is_alive(self) -> bool:
        return not self._is_lost and self._process.is_alive()

    def wait_until_ready(self) -> None:
        """Wait until the process can take calls."""
        try:
            self._wait()
            self._pipe.recv()
        except (EOFError, OSError) as error:
            found = self._end()[1]
            if self._process.exitcode == UNGUARDED:
                raise UnguardedScriptError(path=sys.modules["__main__"].__file__) from None
            raise WorkerError(found=f"a worker could not start: {found}; see its output") from error

    def call(self, call: tuple[Any, ...], find_timeout: Callable[[], float | None] | None) -> Any:
        begun = time.monotonic()
        try:
            self._pipe.send(call)
            self._wait()
            self._pipe.recv()  # the call is unpickled, which may have imported the function's module
            self._has_unpickled = True
            begun = time.monotonic()
            limit = self._wait(begun, find_timeout)
            is_done, value = self._pipe.recv() if limit is None else (True, None)
        except (EOFError, OSError) as error:
            kind, found = self._end()
            if self._has_unpickled:
                raise WorkerDiedError(found=found, kind=kind, elapsed=time.monotonic() - begun) from error
            raise WorkerError(found=f"a worker could not import it: {found}; see its output") from error
        if limit is not None:
            self._end(0.0)
            found = f"its process was killed after its time limit of {limit:g} s (task_timeout)"
            raise WorkerDiedError(found=found, kind=TIMEOUT, elapsed=time.monotonic() - begun)
        if not is_done:
            found = shorten(str(value))
            if "on <module '__mp_main__'" in found:
                found += '; define it outside of `if __name__ == "__main__":`, where workers do not look'
            raise WorkerError(found=found)
        return value

    def _wait(self, begun: float = 0.0, find_timeout: Callable[[], float | None] | None = None) -> float | None:
        """Wait for an answer, and return the limit of the time since `begun` if it ran out, else None.

        A dead process raises EOFError.
        """
        while True:
            timeout = None if find_timeout is None else find_timeout()
            left = _LOOK if timeout is None else min(_LOOK, begun + timeout - time.monotonic())
            if self._pipe.poll(max(0.0, left)):
                return None
            if not self._process.is_alive():
                if self._pipe.poll():
                    return None
                raise EOFError
            if left <= 0:
                return timeout

    def _end(self, patience: float = 5.0) -> tuple[str, str]:
        """Return the kind of the process's end, and why it ended; kill it if it is alive after `patience` s."""
        self._is_lost = True
        until = time.monotonic() + patience
        # Not join(patience): if a live process has closed all its files, join takes it for dead and waits without end.
        while self._process.is_alive() and time.monotonic() < until:
            time.sleep(0.005)
        if self._process.is_alive():
            self.kill()
            self._process.join()
            return LOST, "its process was killed, because it had closed its connection to the manager"
        return describe_exit(self._process.exitcode, self._oom_kills)

    def kill(self) -> None:
        """Kill the process and its children."""
        # Through psutil: is_alive() may reap the process, and the thread that waits for it would miss its exit code.
        kill_tree(self._identity)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()  # and not close(): another thread may be in multiprocessing.active_children()


# --- in the worker process -------------------------------------------------------------------------------


def _let_forks_end() -> None:
    """Make SIGTERM end a forked child from its first moment on, because multiprocessing's pools end theirs with it."""
    masks = threading.local()

    def hold() -> None:
        masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

    def end_on_it() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        let_go()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=end_on_it)


def _serve(pipe: Connection) -> None:
    """Run the calls that arrive, until the parent closes the pipe."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # programs that the function starts ignore them too
    signal.signal(signal.SIGTERM, lambda *_: None)  # a handler, which is not inherited: SIGTERM ends them
    _let_forks_end()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PARENTS_SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ours = os.getpid()
    pipe.send(None)
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        except Exception as error:
            pipe.send(None)
            pipe.send((False, describe_error(error)))
            continue
        pipe.send(None)  # now the task's run time begins
        try:
            answer = True, function(*args, **kwargs)
        except Exception:
            answer = False, traceback.format_exc()
        if os.getpid() != ours:
            os._exit(0)  # a child that the function forked has returned: only its parent may answer
        pipe.send(answer)


def _end_with_parent() -> None:
    """Kill this process when its parent ends, because its result would be lost."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
