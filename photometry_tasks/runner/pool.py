"""Worker processes: one that dies takes only its own task with it. And what they run."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import psutil

from photometry_tasks.errors import WorkerDiedError, WorkerError
from photometry_tasks.runner.process_exit import count_oom_kills, describe_exit

#: Signals that a terminal or a batch system sends to the workers too: it is the parent that decides.
_PARENTS_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}

#: Seconds between two looks whether a silent worker is alive: mostly the closed pipe tells at once, but a process
#: that the worker left behind may hold it open.
_LOOK = 1.0


class WorkerPool(ThreadPoolExecutor):
    """A pool of processes, each with a thread of its own that gives it one task at a time.

    Unlike in `concurrent.futures.ProcessPoolExecutor`, a process that dies takes one task with it, whose future then
    raises `WorkerDiedError`; the next task gets a new process. A future that is running has really begun.

    Parameters
    ----------
    jobs : int
        Number of processes; each is started when it is first needed.
    task_timeout : float, optional
        Seconds after which a task's process is killed.
    """

    def __init__(self, jobs: int, *, task_timeout: float | None = None) -> None:
        super().__init__(jobs, thread_name_prefix="photometry_tasks")
        resource_tracker.ensure_running()  # now: when it starts, it lets signals through that were blocked
        self._timeout = task_timeout
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._is_ended = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let a process call a function; see `concurrent.futures.Executor`."""
        return super().submit(self._call, function, args, kwargs)

    def _call(self, *call: Any) -> Any:
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None or not worker.is_alive():
            worker = self._own.worker = self._start(worker)
        return worker.call(call, self._timeout)

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
        """Kill the processes, and drop what has not begun; as ProcessPoolExecutor.kill_workers in Python 3.14."""
        with self._lock:
            self._is_ended = True
            for worker in self._workers:
                worker.kill()
        self.shutdown(cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the processes end once they have done; see `concurrent.futures.Executor`."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        while wait and self._workers:
            self._workers.pop().close()


class _Worker:
    """A process, as its thread sees it."""

    def __init__(self) -> None:
        # Spawned, not forked: it must inherit neither the manager's connection nor its locks.
        context = multiprocessing.get_context("spawn")
        self._oom_kills = count_oom_kills()
        self._is_lost = self._has_understood = False
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        # It begins with these blocked, as this thread has them, until it has learnt to ignore them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        self._identity = psutil.Process(self._process.pid)

    def is_alive(self) -> bool:
        return not self._is_lost and self._process.is_alive()

    def wait_until_ready(self) -> None:
        """Wait until the process takes calls."""
        try:
            self._wait(None)
            self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(found=f"a worker could not start: {self._end()}; what it printed says more") from error

    def call(self, call: tuple[Any, ...], timeout: float | None) -> Any:
        begun = time.monotonic()
        try:
            self._pipe.send(call)
            self._wait(None)
            self._pipe.recv()  # it has understood, for which it may have had to import
            self._has_understood = True
            begun = time.monotonic()
            is_in_time = self._wait(None if timeout is None else begun + timeout)
            is_done, value = self._pipe.recv() if is_in_time else (True, None)
        except (EOFError, OSError) as error:
            found = self._end()
            if self._has_understood:
                raise WorkerDiedError(found=found, elapsed=time.monotonic() - begun) from error
            raise WorkerError(found=f"a worker could not import it: {found}; what it printed says more") from error
        if not is_in_time:
            self._end(0.0)
            found = f"its process was killed: it took longer than a task may, {timeout:g} s (task_timeout)"
            raise WorkerDiedError(found=found, elapsed=time.monotonic() - begun)
        if not is_done:
            raise WorkerError(found=value)
        return value

    def _wait(self, until: float | None) -> bool:
        """Wait for an answer or the process's end; return False if the time is over before."""
        while True:
            left = _LOOK if until is None else min(_LOOK, until - time.monotonic())
            if self._pipe.poll(max(0.0, left)):
                return True
            if not self._process.is_alive():
                if self._pipe.poll():
                    return True
                raise EOFError
            if left <= 0:
                return False

    def _end(self, patience: float = 5.0) -> str:
        """Say why the process has ended; one that lives on without answering is killed after so many seconds."""
        self._is_lost = True
        until = time.monotonic() + patience
        # Not join(patience): it takes a process that has closed all its files for a dead one, and waits for that.
        while self._process.is_alive() and time.monotonic() < until:
            time.sleep(0.005)
        if self._process.is_alive():
            self.kill()
            self._process.join()
            return "its process was killed: it had cut its connection to the run"
        return describe_exit(self._process.exitcode, self._oom_kills)

    def kill(self) -> None:
        """Kill the process, and what it has started."""
        # By its identity: is_alive() may take its exit code away from the thread that waits for it.
        with suppress(psutil.NoSuchProcess):
            started = self._identity.children(recursive=True)
            self._identity.kill()
            for child in started:
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    def close(self) -> None:
        """Let the process end."""
        self._pipe.close()
        self._process.join()
        self._process.close()


# --- in the worker process -------------------------------------------------------------------------------


def _let_forks_end() -> None:
    """Let what is forked here end on SIGTERM from its first moment on, as multiprocessing's pools do with theirs."""
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
    """Call the functions that come, until there will be no more."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # what the function starts ignores them too
    signal.signal(signal.SIGTERM, lambda *_: None)  # but this one ends what it starts
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
        except Exception:
            pipe.send(None)
            pipe.send((False, traceback.format_exc()))
            continue
        pipe.send(None)  # from here on it is the task's time
        try:
            answer = True, function(*args, **kwargs)
        except Exception:
            answer = False, traceback.format_exc()
        if os.getpid() != ours:
            os._exit(0)  # a child that the function has forked, and that came back from it: it must not answer
        pipe.send(answer)


def _end_with_parent() -> None:
    """Let no task run on that nobody waits for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
