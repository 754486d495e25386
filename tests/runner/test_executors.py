"""Executors of every kind run a list to its end, and save the same rows."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    InvalidStateError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import suppress
from functools import partial
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import TooManyErrorsError, WorkerError
from photometry_tasks.runner import RunReport, run_tasks
from tests.support import functions as functions
from tests.support.lists import make_file, many, query
from tests.support.paths import ROOT

ROWS = """SELECT priority, status, mean_flux, errors IS NULL
FROM todolist JOIN diagnostics USING (priority) ORDER BY 1"""


def run_over_mpi(path: Path, function: str) -> subprocess.CompletedProcess[str]:
    """Run on three ranks: one has the file open, and two are workers."""
    launch = [str(Path(sys.executable).with_name("mpiexec")), "-n", "3", sys.executable, "-m", "mpi4py.futures"]
    command = ["-m", "photometry_tasks.cli", "run", str(path), f"tests.support.functions:{function}"]
    workers = ["--executor", "mpi4py.futures:MPIPoolExecutor", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(launch + command + workers, env=environment, capture_output=True, text=True, cwd=path.parent)


DASK = """
import sys
from distributed import Client
from photometry_tasks import TaskManager
from photometry_tasks.runner import run_tasks
from tests.support import functions

if __name__ == "__main__":
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with Client(**options) as client, TaskManager(sys.argv[1]) as tm:
        how = dict(stop_after=float(sys.argv[3])) if sys.argv[3:] else {}
        run_tasks(tm, getattr(functions, sys.argv[2]), jobs=2, executor=lambda jobs: client.get_executor(), **how)
"""


def run_over_dask(path: Path, function: str, *stop_after: str) -> subprocess.CompletedProcess[str]:
    """Run on a cluster of two workers on this machine."""
    script = path.with_name("script.py")
    script.write_text(DASK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(path), function, *stop_after]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=path.parent)


def run_over_processes(path: Path, function: str) -> subprocess.CompletedProcess[str]:
    """Run on the default pool."""
    command = [sys.executable, "-m", "photometry_tasks.cli", "run", str(path), "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command += [f"tests.support.functions:{function}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=path.parent)


EXECUTORS = {"mpi": run_over_mpi, "dask": run_over_dask, "processes": run_over_processes}


@pytest.mark.parametrize("name", ["mpi", "processes", pytest.param("dask", marks=pytest.mark.slow)])
def test_the_same_rows(tmp_path: Path, name: str) -> None:
    """Two workers over MPI, in a Dask cluster and in the pool of processes save the same result for every task."""
    path = make_file(tmp_path / "todo.sqlite", many(60))
    run = EXECUTORS[name](path, "every_third_raises_slowly")
    assert run.returncode == 0, run.stderr
    expected = [(n, 1, float(n), 1) if n % 3 else (n, 2, None, 0) for n in range(1, 61)]
    assert query(path, ROWS) == expected
    # The two workers, and "error": no task runs in the process that has the file open.
    assert query(path, "SELECT count(DISTINCT method_used) FROM diagnostics") == [(3,)]


@pytest.mark.parametrize(
    ("launch", "tasks", "module", "executor", "found"),
    [
        ("", "3", "mpi4py.futures -m photometry_tasks.cli", "mpi4py.futures:MPIPoolExecutor", "one rank"),
        ("mpiexec -n 1", "2", "mpi4py.futures -m photometry_tasks.cli", "mpi4py.futures:MPIPoolExecutor", "one rank"),
        ("", "129", "photometry_tasks.cli", "mine:connect", "one rank"),
        ("mpiexec -n 2", "2", "photometry_tasks.cli", "mine:connect", "every rank of MPI runs this program"),
    ],
)
def test_ranks_that_would_all_be_managers(
    tmp_path: Path, launch: str, tasks: str, module: str, executor: str, found: str
) -> None:
    """If the ranks of MPI do not find one another, or all run the program, an error names the remedies."""
    path = make_file(tmp_path / "todo.sqlite", many(5))
    (tmp_path / "mine.py").write_text(
        "from mpi4py.futures import MPIPoolExecutor\n"
        "def connect(jobs):\n"
        "    raise RuntimeError('the executor was made')\n"
    )
    command = [sys.executable, "-m", *module.split(), "run", str(path), "tests.support.functions:good"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLURM_NTASKS": tasks}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [*launch.split(), *command, "--executor", executor, "--jobs", "2"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert run.returncode != 0
    assert "Error: --executor='m" in run.stderr
    assert found in run.stderr
    remedy = "use `srun --mpi=pmi2` (MPICH), `srun --mpi=pmix` (Open MPI) or `mpiexec -n`"
    assert (remedy in run.stderr) == (found == "one rank")
    assert "in use" not in run.stderr
    assert query(path, "SELECT DISTINCT status FROM todolist") == [(None,)]


@pytest.mark.slow
def test_a_dead_dask_worker(tmp_path: Path) -> None:
    """A task that kills Dask's workers becomes an ERROR with Dask's own reason; the other tasks have their results."""
    path = make_file(tmp_path / "todo.sqlite", many(20))
    run = run_over_dask(path, "task_5_kills_dask")
    assert run.returncode == 0, run.stderr
    failed = dict(query(path, "SELECT priority, errors FROM diagnostics WHERE errors IS NOT NULL"))
    assert 5 in failed  # Dask also blames tasks that were on a dying worker each time
    assert len(failed) <= 4
    assert all("all those workers died" in text for text in failed.values())
    assert query(path, "SELECT count(*) FROM todolist WHERE status = 1") == [(20 - len(failed),)]


@pytest.mark.slow
def test_dask_when_the_time_is_over(tmp_path: Path) -> None:
    """At the time limit, tasks that run on Dask's workers return to pending, and the run ends without an error."""
    path = make_file(tmp_path / "todo.sqlite", many(5))
    run = run_over_dask(path, "waits_from_task_3", "8")
    assert run.returncode == 0, run.stderr
    assert "could not be shut down" not in run.stderr
    assert query(path, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(None, 3), (1, 2)]


def test_threads(opened: Callable[..., TaskManager]) -> None:
    """Any executor of concurrent.futures works, threads too."""
    manager = opened(*many(50))
    report = run_tasks(manager, functions.good, jobs=4, executor=ThreadPoolExecutor)
    assert (report.saved, report.errors) == (50, 0)
    assert manager.summary[STATUS.OK.name] == 50


class CannotEnd(ThreadPoolExecutor):
    """An executor whose shutdown fails."""

    def shutdown(self, *_: Any, **__: Any) -> None:
        super().shutdown()
        raise ConnectionError("the scheduler is gone")


def test_an_executor_that_cannot_end(opened: Callable[..., TaskManager], caplog: pytest.LogCaptureFixture) -> None:
    """If the shutdown fails, all results are saved, no task stays STARTED, and the failure is logged."""
    manager = opened(*many(50))
    assert run_tasks(manager, functions.good, jobs=2, executor=CannotEnd).saved == 50
    assert "the executor could not be shut down" in caplog.text
    manager.reset_tasks(status=STATUS.OK)

    def fail(report: Any) -> None:
        if report.saved:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_tasks(manager, functions.good, jobs=2, executor=CannotEnd, progress=fail)
    assert manager.summary["STARTED"] == 0


@pytest.mark.slow
def test_a_pool_that_hangs_is_ended(opened: Callable[..., TaskManager]) -> None:
    """At the time limit the processes of a ProcessPoolExecutor are killed, so that the program can end."""
    manager = opened(*many(5))
    others = {child.pid for child in psutil.Process().children()}  # such as servers of other tests
    pool = partial(ProcessPoolExecutor, mp_context=get_context("spawn"))
    report = run_tasks(manager, functions.does_not_end, jobs=1, executor=pool, stop_after=6)
    assert (report.saved, report.is_out_of_time) == (1, True)
    tracker = resource_tracker._resource_tracker._pid  # multiprocessing keeps it running
    children = [child for child in psutil.Process().children() if child.pid not in {*others, tracker}]
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert manager.get_number_tasks() == 4


def test_what_is_no_executor(opened: Callable[..., TaskManager]) -> None:
    """A function that returns no executor is refused before any task starts."""
    manager = opened(*many(5))
    with pytest.raises(ValueError, match=r"a function that returns a concurrent\.futures\.Executor"):
        run_tasks(manager, functions.good, jobs=2, executor=math.sqrt)  # type: ignore[arg-type]
    assert manager.get_number_tasks() == 5


class Batch(ThreadPoolExecutor):
    """An executor as those of clusters: its futures do not tell which tasks run, and it cancels running tasks or none.

    The exceptions in `failures` are those of the tasks with these priorities; `all_after` is that of all later tasks.
    """

    def __init__(self, failures: dict[int, BaseException] | None = None, all_after: int | None = None) -> None:
        super().__init__(2)
        self.failures, self.all_after = failures or {}, all_after

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer: Future[Any] = Future()
        priority = args[1]["priority"]
        if self.all_after is not None and priority > self.all_after:
            priority = self.all_after
        if priority in self.failures:
            outer.set_exception(self.failures[priority])
            return outer

        def copy(inner: Future[Any]) -> None:
            with suppress(InvalidStateError):  # cancelled while it ran
                outer.set_result(inner.result())

        super().submit(function, *args, **kwargs).add_done_callback(copy)
        return outer


class CannotCancel(Future[Any]):
    def cancel(self) -> bool:
        raise NotImplementedError


class Stubborn(ThreadPoolExecutor):
    """An executor without cancellation."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(*args, **kwargs)
        future.__class__ = CannotCancel
        return future


class WorkerLost(Exception):  # noqa: N818  # as in Parsl
    """A worker died, in the words of an executor."""


@pytest.mark.parametrize("pool", [lambda _: Batch(), Stubborn, ThreadPoolExecutor])
def test_only_waiting_tasks_are_cancelled(
    opened: Callable[..., TaskManager], pool: Callable[[int], Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a signal, each task that has begun is finished and saved, also if the executor would cancel it."""
    monkeypatch.chdir(tmp_path)
    manager = opened(*many(300))

    def interrupt(report: RunReport) -> None:
        if report.saved >= 50 and not manager.summary["ERROR"]:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_tasks(manager, functions.takes_a_moment, jobs=2, executor=pool, progress=interrupt)
    begun = set(map(int, Path("begun").read_text().split()))
    assert 50 <= len(begun) < 60
    assert {row["priority"] for row in manager.cursor.execute("SELECT priority FROM diagnostics")} == begun
    assert manager.get_number_tasks() == 300 - len(begun)


@pytest.mark.parametrize("fatal", [{1}, {5, 6, 7}, {20}, set(range(1, 21))], ids=["first", "three", "last", "all"])
def test_a_worker_that_dies_elsewhere(opened: Callable[..., TaskManager], fatal: set[int]) -> None:
    """An executor's own exception is the ERROR of its task, and the run goes on, as the executor does."""
    manager = opened(*many(20))
    failures: dict[int, BaseException] = {n: WorkerLost("loss of worker 0") if n % 2 else WorkerLost() for n in fatal}
    report = run_tasks(manager, functions.good, jobs=2, executor=lambda _: Batch(failures))
    assert (report.saved, report.errors) == (20, len(fatal))
    rows = manager.cursor.execute("SELECT priority, errors FROM diagnostics WHERE errors IS NOT NULL").fetchall()
    assert {row["priority"]: row["errors"] for row in rows} == {n: str(failures[n]) or "WorkerLost:" for n in fatal}


def test_an_executor_without_workers(opened: Callable[..., TaskManager]) -> None:
    """If no task has a result any more, a new executor runs them; only the tasks that die there are ERRORs."""
    manager = opened(*many(40))
    made: list[Batch] = []

    def make(_jobs: int) -> Batch:
        failures: dict[int, BaseException] = {11: WorkerLost("11"), 13: WorkerLost("13")}
        made.append(Batch(failures, all_after=11 if not made else None))
        return made[-1]

    run_tasks(manager, functions.good, jobs=1, executor=make)
    assert (manager.summary["OK"], manager.summary["ERROR"]) == (38, 2)
    assert 2 <= len(made) <= 4


def test_executors_without_workers(opened: Callable[..., TaskManager]) -> None:
    """If new executors run no task either, the run ends."""
    manager = opened(*many(40))
    gone = Batch({3: WorkerLost("all workers are gone")}, 3)
    with pytest.raises(TooManyErrorsError, match=r"4 tasks in a row .*WorkerLost\).* all workers are gone"):
        run_tasks(manager, functions.good, jobs=1, executor=lambda _: gone, max_errors_in_a_row=4)
    assert (manager.summary["OK"], manager.summary["ERROR"], manager.get_number_tasks()) == (2, 0, 38)


def gone(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the scheduler is gone")


def broken(*_: Any, **__: Any) -> Any:
    raise BrokenExecutor("no worker can start")


def cancelled(*_: Any, **__: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.cancel()
    return future


def failed(error: Exception) -> Callable[..., Future[Any]]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return lambda *_, **__: future


@pytest.mark.parametrize(
    ("submit", "says"),
    [
        (gone, "RuntimeError: the scheduler is gone"),
        (broken, "BrokenExecutor: no worker can start"),
        (cancelled, "CancelledError: by the executor"),
        (failed(ConnectionError("no route")), "ConnectionError: no route"),
        (failed(ModuleNotFoundError("No module named 'mystars'")), "No module named 'mystars'"),
    ],
)
def test_an_executor_that_fails(
    opened: Callable[..., TaskManager], submit: Callable[..., Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of the executor ends the run with an error that names it; no task becomes an ERROR."""
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    manager = opened(*many(5))
    with pytest.raises(WorkerError, match=says):
        run_tasks(manager, functions.good, jobs=2, executor=ThreadPoolExecutor)
    assert manager.get_number_tasks() == 5
