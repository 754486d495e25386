"""Stopping a run: by signals, and at its time limit."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.ingest import add_target_lists
from photometry_tasks.runner import RunReport, executors, run_tasks
from photometry_tasks.runner.shutdown import find_time_limit
from tests.support import functions as functions
from tests.support.lists import many, query
from tests.support.paths import ROOT
from tests.support.processes import ignore_signals, running_command, spawn_pool, wait_until, workers_of


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_JOB_END_TIME", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start runs in separate process groups, by a parent that ignores signals."""
    processes = []

    def start_run(path: Path, function: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "photometry_tasks.cli", "run", str(path), "--jobs", "2", *options, function]
        processes.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=ignore_signals,
            )
        )
        return processes[-1]

    yield start_run
    for process in processes:
        process.kill()
        process.communicate()


def begun() -> set[int]:
    return set(map(int, Path("begun").read_text().split())) if Path("begun").exists() else set()


def wait_until_begun(process: subprocess.Popen[str], tasks: set[int]) -> None:
    wait_until(lambda: tasks <= begun(), process)


WAITS = "tests.support.functions:waits_from_task_3"


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("number", "whole_group", "in_memory"),
    [
        (signal.SIGINT, True, False),
        (signal.SIGINT, False, True),
        (signal.SIGTERM, True, True),
        (signal.SIGTERM, False, False),
        (signal.SIGUSR1, True, True),
        (signal.SIGUSR1, False, False),
    ],
)
def test_what_runs_is_finished(
    todo: Callable[..., Path], start: Callable[..., Any], number: int, whole_group: bool, in_memory: bool
) -> None:
    """After a signal no new task starts, and running tasks are finished and saved; the exit code is 128 + n."""
    path = todo(*many(30))
    process = start(path, WAITS, *(["--in-memory"] if in_memory else []))
    wait_until_begun(process, {3, 4})
    (os.killpg if whole_group else os.kill)(process.pid, number)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Measuring")
    warning = process.stderr.readline()
    reason = f"{path}: stopping ({signal.Signals(number).name}): no new task starts; 2 running tasks may continue for "
    assert warning.startswith(reason)
    Path("go").touch()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Stopped: 4 results saved, unfinished tasks pending." in errors
    assert begun() == {1, 2, 3, 4}
    found = query(path, "SELECT status, count(*) FROM todolist GROUP BY 1 ORDER BY 1")
    assert found == [(None, 26), (STATUS.OK.value, 4)]


def test_a_death_if_the_parent_ignores_its_children(todo: Callable[..., Path], start: Callable[..., Any]) -> None:
    """A command notices how its workers die, although its parent ignored SIGCHLD."""
    path = todo(*many(5))
    process = start(path, "tests.support.functions:task_3_kills_itself")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = query(path, "SELECT priority, errors LIKE '%killed by SIGKILL%' FROM diagnostics WHERE errors IS NOT NULL")
    assert found == [(3, 1), (4, 1)]


@pytest.mark.parametrize("executor", ["tests.support.processes:spawn_pool", "loky:get_reusable_executor"])
def test_ctrl_c_that_reaches_workers(todo: Callable[..., Path], start: Callable[..., Any], executor: str) -> None:
    """Tasks that Ctrl-C interrupts in the workers of an executor have not failed: they are pending."""
    pytest.importorskip(executor.partition(":")[0])
    path = todo(*many(30))
    process = start(path, WAITS, "--executor", executor)
    wait_until_begun(process, {3, 4})
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert query(path, "SELECT status, count(*) FROM todolist GROUP BY 1 ORDER BY 1") == [(None, 28), (1, 2)]


@pytest.mark.sample(3)
@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGUSR1, signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(
    todo: Callable[..., Path], start: Callable[..., Any], first: int, second: int
) -> None:
    """A second signal ends running tasks at once; finished results are saved, and the exit code gives a signal."""
    path = todo(*many(30))
    process = start(path, WAITS, "--grace", "3600")
    wait_until_begun(process, {3, 4})
    os.kill(process.pid, first)
    os.kill(process.pid, second)
    process.communicate(timeout=60)
    # The system delivers the pending signal with the lower number first.
    assert process.returncode in (128 + first, 128 + second)
    assert query(path, "SELECT status, count(*) FROM todolist GROUP BY 1 ORDER BY 1") == [(None, 28), (1, 2)]
    assert workers_of(process.pid) == []


LEFT = [functions.leaves_a_thread, functions.blocks_at_exit, functions.cannot_be_ended]


@pytest.mark.sample(5)
@pytest.mark.parametrize("executor", [None, spawn_pool])
@pytest.mark.parametrize("function", LEFT)
def test_workers_that_do_not_end(
    opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch, function: Any, executor: Any
) -> None:
    """A run waits a few seconds for processes that do not end after their last task, and then kills them."""
    monkeypatch.setattr(executors, "_LONGEST_EXIT", 0.5)
    before = set(multiprocessing.active_children())
    report = run_tasks(opened(*many(4)), function, jobs=2, executor=executor)
    assert (report.saved, report.errors) == (4, 0)
    wait_until(lambda: not set(multiprocessing.active_children()) - before)


def test_children_of_others(opened: Callable[..., TaskManager]) -> None:
    """The end of a run kills no process that another part of the program has started meanwhile."""
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))

    def interrupt(report: RunReport) -> None:
        if report.saved and other.pid is None:
            other.start()
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            run_tasks(opened(*many(4)), functions.waits_from_task_3, jobs=2, progress=interrupt)
        assert other.is_alive()
    finally:
        other.kill()
        other.join()


class WaitsForItsProgram(ThreadPoolExecutor):
    """An executor that waits for a program at its end, as executorlib does for its workers."""

    program: "subprocess.Popen[bytes]"

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        self.program.wait()


def test_an_executor_that_waits_for_its_program(
    opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run kills the program that an executor waits for without end, but none that started before the run."""
    monkeypatch.setattr(executors, "_LONGEST_EXIT", 0.5)
    executor = WaitsForItsProgram(2)
    sleep = ["sleep", "600"]

    def make(_jobs: int) -> WaitsForItsProgram:
        executor.program = subprocess.Popen(sleep)
        return executor

    with subprocess.Popen(sleep) as another:
        report = run_tasks(opened(*many(4)), functions.good, jobs=2, executor=make)
        assert report.saved == 4
        assert executor.program.wait() == -signal.SIGKILL
        assert another.poll() is None
        another.kill()


def be_slow_to_start(jobs: int) -> ThreadPoolExecutor:
    """Tell the test that the executor starts, and wait without end, as for the nodes of a cluster."""
    print("starting", flush=True)
    time.sleep(600)
    return ThreadPoolExecutor(jobs)


@pytest.mark.sample(3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_the_executor_starts(todo: Callable[..., Path], number: int) -> None:
    """A signal ends the start of an executor at once, and the list is closed as usual."""
    path = todo(*many(2))
    command = [sys.executable, "-m", "photometry_tasks.cli", "run", str(path), "tests.support.functions:good"]
    command += ["--jobs", "2", "--executor", "tests.runner.test_shutdown:be_slow_to_start"]
    how = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "stdout": subprocess.PIPE, "text": True}
    with running_command(command, **how) as process:
        assert process.stdout.readline() == "starting\n"
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert [other.name for other in path.parent.glob("todo*")] == ["todo.sqlite"]


class NeverShutsDown(ThreadPoolExecutor):
    """An executor whose tasks and shutdown never end, as Parsl's with a task that hangs."""

    def shutdown(self, *_: Any, **__: Any) -> None:
        super().shutdown(wait=False, cancel_futures=True)
        threading.Event().wait()

    def submit(self, *_: Any, **__: Any) -> Any:
        return Future()


@pytest.mark.slow
def test_an_executor_that_never_shuts_down(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second signal, the run ends although the executor does not, and its tasks are pending."""
    monkeypatch.setattr(executors, "_LONGEST_EXIT", 0.5)
    manager = opened(*many(4))
    signals = (signal.SIGINT, signal.SIGTERM)  # the system delivers two equal signals at once as one
    timer = threading.Timer(0.5, lambda: [os.kill(os.getpid(), number) for number in signals])
    timer.start()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_tasks(manager, functions.good, jobs=2, executor=NeverShutsDown)
    assert manager.get_number_tasks() == 4


def test_a_second_signal_ends_the_wait_for_workers(
    opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second signal kills such processes at once."""
    monkeypatch.setattr(executors, "_LONGEST_EXIT", 3600.0)

    def interrupt(report: RunReport) -> None:
        if report.saved == 4 and not timer.is_alive() and not timer.finished.is_set():
            signal.raise_signal(signal.SIGINT)
            timer.start()

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run_tasks(opened(*many(4)), functions.leaves_a_thread, jobs=2, progress=interrupt)


def test_the_grace_ends(todo: Callable[..., Path], start: Callable[..., Any]) -> None:
    """Tasks that run longer than the grace are ended, and return to pending."""
    path = todo(*many(30))
    process = start(path, WAITS, "--grace", "3600", "--grace-term", "0.2")
    wait_until_begun(process, {3, 4})
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert query(path, "SELECT status, count(*) FROM todolist GROUP BY 1 ORDER BY 1") == [(None, 28), (1, 2)]


def test_nothing_is_begun_that_would_not_end(opened: Callable[..., TaskManager]) -> None:
    """No task starts that would hardly finish in time, according to the last run times; this is no error."""
    manager = opened(*many(30))
    report = run_tasks(manager, functions.takes_half_a_second, jobs=1, stop_after=4.2)
    assert report.is_out_of_time
    assert report.wall_time < 4.2
    assert 1 <= report.saved <= 8
    assert begun() == set(range(1, report.saved + 1))
    assert manager.summary["OK"] + manager.get_number_tasks() == 30


@pytest.mark.sample(2)
@pytest.mark.parametrize("by_slurm", [False, True])
def test_the_time_is_over(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch, by_slurm: bool) -> None:
    """Tasks that run at the time limit are ended, and return to pending."""
    if by_slurm:
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 36))
    manager = opened(*many(5))
    report = run_tasks(manager, functions.waits_from_task_3, jobs=1, stop_after=3600.0 if by_slurm else 5.0)
    assert report.is_out_of_time
    assert report.saved == 2
    assert manager.get_number_tasks() == 3


def be_in_a_job(monkeypatch: pytest.MonkeyPatch, squeue: str) -> None:
    """Set the environment of job 4711, with a shell script as `squeue`."""
    Path("bin").mkdir()
    Path("bin/squeue").write_text(f"#!/bin/sh\n{squeue}\n")
    Path("bin/squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")


@pytest.mark.parametrize(
    ("variable", "squeue"),
    [
        (130, "echo 4711 1"),
        (None, 'test "$SLURM_TIME_FORMAT" = %s -a -z "$SQUEUE_SORT" && echo "4711 $(($(date +%s) + 130))"'),
        (-1, 'echo "4711 $(($(date +%s) + 130))"'),
        (None, 'echo "4710 N/A"; echo "4711 $(($(date +%s) + 130))"; echo "4712 1"'),
    ],
    ids=["variable", "squeue", "the variable of an earlier job", "array"],
)
def test_the_end_of_the_job(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: int | None, squeue: str
) -> None:
    """The time limit is 30 s before the end of the job: from SLURM's variable, or else from `squeue`."""
    be_in_a_job(monkeypatch, squeue)
    monkeypatch.setenv("SQUEUE_SORT", "-e")
    if variable is not None:
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + variable))
    found = [find_time_limit(limit) for limit in (None, 3600.0, 5.0)]
    assert found == pytest.approx([100, 100, 5], abs=5)
    assert caplog.text.count("SLURM ends job 4711 at 20") == (0 if variable == 130 else 3)


@pytest.mark.parametrize(
    ("squeue", "found"),
    [
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", "(slurm_load_jobs error: Invalid job id"),
        ("echo 4711 N/A", "(4711 N/A)"),
        ("echo 4711", "(4711)"),
        ("exec sleep 600", "timed out after 0.5 seconds)"),
        ("rm bin/squeue", "(no answer)"),
        (r"printf '4711 \377\376\n'", "(4711 \ufffd"),
        ("echo 4711 99999999999999", "(4711 99999999999999)"),
        (f"echo 4711 {'9' * 5000}", "9999)"),
        ("echo 4711 1000", "(an end in the past, 1970-01-01"),
        ("yes slurm | head -100000", "slurm slurm"),
        (None, "No such file or directory: 'squeue')"),
    ],
)
def test_squeue_has_no_answer(
    opened: Callable[..., TaskManager],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    squeue: str | None,
    found: str,
) -> None:
    """If SLURM does not say when it ends the job, the run has no time limit, and a warning names the remedy."""
    monkeypatch.setattr("photometry_tasks.runner.shutdown._PATIENCE", 0.5)
    be_in_a_job(monkeypatch, squeue or "")
    if squeue is None:
        monkeypatch.setenv("PATH", "nowhere")
    report = run_tasks(opened(*many(2)), functions.good, jobs=1, executor=ThreadPoolExecutor)
    assert (report.saved, report.is_out_of_time) == (2, False)
    (line,) = caplog.messages
    assert line.startswith("`squeue` did not say when SLURM ends job 4711 (")
    assert found in line
    assert line.endswith("; give the run a time limit (--stop-after)")


def test_no_time_at_all(opened: Callable[..., TaskManager]) -> None:
    """With no time left, no task starts."""
    manager = opened(*many(5))
    report = run_tasks(manager, functions.good, jobs=1, stop_after=0)
    assert (report.saved, report.is_out_of_time) == (0, True)
    assert manager.get_number_tasks() == 5


@pytest.mark.slow
def test_the_command_says_that_time_is_over(todo: Callable[..., Path], start: Callable[..., Any]) -> None:
    """At the time limit the command prints the number of pending tasks, and exits with 0."""
    process = start(todo(*many(5)), WAITS, "--stop-after", "6")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "The time limit was reached. 3 tasks pending." in output


def test_handlers_are_put_back(opened: Callable[..., TaskManager]) -> None:
    """After a run the handlers are restored; a signal with a handler of the program keeps it during the run."""
    during: list[Any] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    mine = signal.signal(signal.SIGUSR1, functions.good)
    before = [signal.getsignal(number) for number in numbers]
    try:
        run_tasks(
            opened(*many(2)),
            functions.good,
            jobs=1,
            progress=lambda _: during.append([signal.getsignal(number) for number in numbers]),
        )
        assert [signal.getsignal(number) for number in numbers] == before
    finally:
        signal.signal(signal.SIGUSR1, mine)
    assert during[0][1] is not signal.SIG_DFL
    assert during[0][2] is functions.good


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_handlers_of_an_executor(opened: Callable[..., TaskManager], number: int) -> None:
    """A handler that comes with the executor does not keep a signal from the run."""

    def make(jobs: int) -> ThreadPoolExecutor:
        signal.signal(number, lambda *_: sys.exit())  # as dask-jobqueue does
        return ThreadPoolExecutor(jobs)

    def raise_after_a_result(report: RunReport) -> None:
        if report.saved:
            signal.raise_signal(number)

    manager = opened(*many(300))
    before = signal.getsignal(number)
    try:
        with pytest.raises(BaseException) as raised:  # noqa: PT011
            run_tasks(manager, functions.good, jobs=2, executor=make, progress=raise_after_a_result)
    finally:
        signal.signal(number, before)
    assert raised.type is KeyboardInterrupt or raised.value.code == 128 + number
    assert (manager.summary["STARTED"], manager.summary["OK"] > 0) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [False, True], ids=["disk", "memory"])
def test_a_sector_is_stopped_and_continued(
    target_lists: dict[int, Path], tmp_path: Path, start: Callable[..., Any], in_memory: bool
) -> None:
    """A real sector is stopped by SIGTERM at three random moments and continued: every task gets exactly one result."""
    path = tmp_path / "todo.sqlite"
    number, _ = add_target_lists(path, [target_lists[1]])
    options = ["--in-memory"] if in_memory else []
    done = 0
    for _ in range(3):
        process = start(path, "tests.support.functions:takes_a_moment", *options)
        moment = random.uniform(2.0, 6.0)  # seconds
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(moment)
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 143, errors
        ((before, done),) = [(done, query(path, "SELECT count(*) FROM diagnostics")[0][0])]
        assert before < done < number
        assert query(path, "SELECT count(*) FROM todolist WHERE status IS NOT NULL") == [(done,)]
    process = start(path, "tests.support.functions:takes_a_moment", *options)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert query(path, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(STATUS.OK.value, number)]
    assert query(path, "SELECT count(*) FROM diagnostics") == [(number,)]
    lines = list(map(int, Path("begun").read_text().split()))
    assert len(lines) == len(set(lines)) == number
