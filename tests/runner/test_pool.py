"""Workers that die, hang, or cannot run the function."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import psutil
import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import TooManyErrorsError, UnguardedScriptError, WorkerError
from photometry_tasks.runner import RunReport, pool, run_tasks
from tests.support import functions as functions
from tests.support.lists import many, query
from tests.support.paths import ROOT
from tests.support.processes import wait_until, workers_of


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def errors_of(manager: TaskManager) -> dict[int, str]:
    rows = manager.cursor.execute(
        "SELECT priority, errors FROM todolist JOIN diagnostics USING (priority) WHERE status = 2"
    ).fetchall()
    return {row["priority"]: row["errors"] for row in rows}


def runs_of_each() -> Counter[int]:
    return Counter(map(int, Path("begun").read_text().split()))


@pytest.mark.sample(2)
@pytest.mark.parametrize("in_memory", [False, True])
def test_functions_that_kill_their_process(opened: Callable[..., TaskManager], in_memory: bool) -> None:
    """A task that kills its process becomes an ERROR with the reason; no other task is affected, and each runs once."""
    manager = opened(*many(500), load_into_memory=in_memory)
    report = run_tasks(manager, functions.kills_itself, jobs=2)
    assert (report.saved, report.errors) == (500, 3)
    assert manager.summary["OK"] == 497
    errors = errors_of(manager)
    assert sorted(errors) == [100, 101, 300]
    assert "killed by SIGKILL" in errors[100]
    assert "memory" in errors[100]
    assert "exit code 3" in errors[101]
    assert "killed by SIGSEGV" in errors[300]
    assert runs_of_each() == Counter(range(1, 501))


def test_an_executor_that_breaks_as_a_whole(opened: Callable[..., TaskManager]) -> None:
    """If a dead worker breaks the executor, the tasks in flight run again one at a time, to find the fatal ones."""
    manager = opened(*many(40))
    pool = partial(ProcessPoolExecutor, mp_context=get_context("spawn"))
    report = run_tasks(manager, functions.task_3_kills_itself, jobs=3, executor=pool)
    assert (report.saved, report.errors) == (40, 2)
    errors = errors_of(manager)
    assert sorted(errors) == [3, 4]
    assert all("process" in text for text in errors.values())
    assert manager.summary["OK"] == 38
    runs = runs_of_each()
    assert max(runs.values()) <= 2
    assert sum(runs.values()) <= 40 + 3 + 1  # the tasks in flight when it broke, and the other fatal one


def test_a_task_that_hangs(opened: Callable[..., TaskManager]) -> None:
    """A task that exceeds its time limit becomes an ERROR with that limit, and its child program is killed."""
    manager = opened(*many(6))
    report = run_tasks(manager, functions.hangs_in_a_program, jobs=2, task_timeout=0.5)
    assert (report.saved, report.errors) == (6, 1)
    assert "0.5 s (task_timeout)" in errors_of(manager)[2]
    ((elaptime,),) = manager.cursor.execute("SELECT elaptime FROM diagnostics WHERE priority = 2").fetchall()
    assert 0.5 <= elaptime < 20
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(int(Path("program").read_text())).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def control_group() -> Iterator[Path]:
    """Create a control group with 300 MB of memory."""
    entry = next((line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line), None)
    if entry is None:
        pytest.skip("control groups of version 2 count memory here, and a process cannot move itself into one")
    group = Path("/sys/fs/cgroup/memory" + entry.split(":", 2)[2]) / f"photometry-tasks-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(300 * 10**6))
    except OSError as error:
        pytest.skip(f"no control group can be created here: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text())  # the last processes are about to end
    group.rmdir()


def test_out_of_memory(todo: Callable[..., Path], tmp_path: Path, control_group: Path) -> None:
    """If the kernel kills a worker for memory, its task becomes an ERROR with this reason and the limit."""
    path = todo(*many(5))
    command = [
        sys.executable,
        "-m",
        "photometry_tasks.cli",
        "run",
        str(path),
        "tests.support.functions:takes_memory",
    ]
    run = subprocess.run(
        ["bash", "-c", f'echo $BASHPID > "{control_group}/cgroup.procs"; exec "$@"', "-", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    ((priority, text),) = query(
        path, "SELECT priority, errors FROM todolist JOIN diagnostics USING (priority) WHERE status = 2"
    )
    assert priority == 2
    assert "killed by SIGKILL: out of memory; the memory limit is 300 MB (control group)" in text
    with TaskManager(path, reset=False) as manager:
        assert manager.reset_tasks(kind="out of memory") == {"ERROR": 1}


def test_limit_of_address_space(opened: Callable[..., TaskManager]) -> None:
    """A task that gets no more memory becomes an ERROR with the limit."""
    manager = opened(*many(1))
    run_tasks(manager, functions.has_little_address_space, jobs=1)
    assert "the memory limit is 3000 MB (RLIMIT_AS)" in errors_of(manager)[1]


def test_limit_of_cpu_time(opened: Callable[..., TaskManager]) -> None:
    """A task that uses up its CPU time becomes an ERROR with this reason."""
    manager = opened(*many(3))
    report = run_tasks(manager, functions.has_little_cpu_time, jobs=1)
    assert (report.saved, report.errors) == (3, 1)
    assert "SIGXCPU: its CPU time limit (RLIMIT_CPU)" in errors_of(manager)[2]


def test_a_function_that_the_workers_do_not_find(
    opened: Callable[..., TaskManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the workers cannot import the function, the run ends with the reason, and no task becomes an ERROR."""
    manager = opened(*many(30))
    module = tmp_path / "soon_gone.py"
    module.write_text("def photometry(task):\n    return task\n")
    monkeypatch.syspath_prepend(tmp_path)
    import soon_gone  # type: ignore[import-not-found]

    module.unlink()
    with pytest.raises(WorkerError, match="No module named 'soon_gone'"):
        run_tasks(manager, soon_gone.photometry, jobs=2)
    assert manager.get_number_tasks() == 30


SCRIPT = """
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from photometry_tasks import TaskManager
from photometry_tasks.ingest import add_targets
from photometry_tasks.runner import run_tasks
def photometry(task):
    return {"status": 1, "method_used": "mine"}
add_targets(sys.argv[1], [{"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9.85}])
with TaskManager(sys.argv[1]) as tm:
    run_tasks(tm, photometry, jobs=2, executor=EXECUTOR)
"""


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("executor", "lines", "left"),
    [
        ("None", [1], 31),
        (
            "partial(ProcessPoolExecutor, mp_context=get_context('spawn'))",
            [2, 3],
            31,
        ),  # each worker prints it too, if it lives long enough
        ("ThreadPoolExecutor", [0], 0),
    ],
)
@pytest.mark.parametrize("database", ["file", "server"], indirect=True)
def test_a_script_without_a_guard(
    todo: Callable[..., Any], tmp_path: Path, executor: str, lines: list[int], left: int
) -> None:
    """A script that its workers would run again ends at once: a line names the guard, and no task has changed."""
    path = todo(*many(30))
    (tmp_path / "script.py").write_text(SCRIPT.replace("EXECUTOR", executor))
    run = subprocess.run([sys.executable, "script.py", str(path)], capture_output=True, text=True)
    line = f"{UnguardedScriptError(path=tmp_path / 'script.py')}\n"
    assert '`if __name__ == "__main__":`' in line
    assert run.stderr in [line * number for number in lines]
    assert run.returncode == (lines != [0])
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(left,)]


def test_a_function_under_the_guard(todo: Callable[..., Any], tmp_path: Path) -> None:
    """A function that a script defines where workers do not look is named with the remedy; no task has changed."""
    path = todo({})
    own, rest = SCRIPT.replace("EXECUTOR", "None").split("def photometry", 1)
    guarded = 'if __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in f"def photometry{rest}".splitlines())
    (tmp_path / "script.py").write_text(own + guarded)
    run = subprocess.run([sys.executable, "script.py", str(path)], capture_output=True, text=True)
    assert "attribute 'photometry' on <module '__mp_main__'" in run.stderr
    assert 'define it outside of `if __name__ == "__main__":`' in run.stderr
    assert query(path, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(2,)]


@pytest.mark.sample(2)
@pytest.mark.parametrize("command", [["photometry-tasks"], ["python", "-m", "photometry_tasks.cli"]])
def test_workers_are_light(todo: Callable[..., Path], command: list[str]) -> None:
    """A worker process loads neither SQLAlchemy nor the command, which need time and memory."""
    path = todo({})
    program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    run = [*program, "run", str(path), "tests.support.functions:reports_sqlalchemy", "--jobs", "1"]
    subprocess.run(run, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    assert query(path, "SELECT method_used FROM diagnostics") == [("False",)]


def test_all_workers_die(opened: Callable[..., TaskManager]) -> None:
    """If many workers die in a row, the run ends, and the tasks that they ran are pending again."""
    manager = opened(*many(30))
    with pytest.raises(TooManyErrorsError, match=r"failed in the same way on .* \(exit 7\).*exit code 7"):
        run_tasks(manager, functions.always_dies, jobs=2, max_errors_in_a_row=4)
    assert manager.get_number_tasks() == 30


def test_processes_of_the_function(opened: Callable[..., TaskManager]) -> None:
    """A function may start processes: SIGTERM ends them, and a forked child that returns sends no result."""
    manager = opened(*many(12))
    report = run_tasks(manager, functions.uses_a_pool_of_its_own, jobs=2, task_timeout=30)
    assert (report.saved, report.errors) == (12, 0)
    for function in (functions.ends_what_it_has_just_forked, functions.forks_and_comes_back_twice):
        manager.reset_tasks(status=STATUS.OK)
        report = run_tasks(manager, function, jobs=1)
        assert (report.saved, report.errors) == (12, 0)
    fluxes = manager.cursor.execute("SELECT mean_flux FROM diagnostics ORDER BY priority").fetchall()
    assert [flux for (flux,) in fluxes] == [float(n) for n in range(1, 13)]


def test_a_function_that_cuts_its_connection(
    opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that closes its connection and stays alive is killed, and its task becomes an ERROR."""
    monkeypatch.setattr(pool._Worker._end, "__defaults__", (0.1,))
    manager = opened(*many(4))
    report = run_tasks(manager, functions.cuts_its_connection, jobs=1)
    assert (report.saved, report.errors) == (4, 1)
    assert "had closed its connection" in errors_of(manager)[2]


def test_importing_is_not_the_tasks_time(opened: Callable[..., TaskManager]) -> None:
    """The import of the function does not count towards the time limit of a task."""
    manager = opened(*many(4))
    report = run_tasks(manager, functions.SlowToImport(), jobs=2, task_timeout=0.5)
    assert (report.saved, report.errors) == (4, 0)


def test_tiny_limits(opened: Callable[..., TaskManager]) -> None:
    """With a tiny time limit each task still gets its own result, never that of another task."""
    manager = opened(*many(8))
    report = run_tasks(manager, functions.good, jobs=2, task_timeout=1e-9)
    assert report.saved == 8
    rows = manager.cursor.execute("SELECT priority, mean_flux FROM diagnostics WHERE errors IS NULL").fetchall()
    assert all(row["mean_flux"] == row["priority"] for row in rows)
    assert report.errors + len(rows) == 8


@pytest.mark.sample(2)
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_executor_that_breaks_while_it_is_idle(opened: Callable[..., TaskManager], jobs: int) -> None:
    """A pool that refuses the next task is replaced, and all tasks are run."""
    manager = opened(*many(6))
    pools: list[ProcessPoolExecutor] = []

    def make(number: int) -> ProcessPoolExecutor:
        pools.append(ProcessPoolExecutor(number, get_context("spawn")))
        return pools[-1]

    def kill_the_workers(report: RunReport) -> None:
        """Kill the workers, and wait until the pool reports that it is broken."""
        if len(pools) > 1 or not report.saved:
            return
        for process in active_children():
            process.kill()
            process.join()
        with suppress(BrokenProcessPool):
            while True:
                pools[0].submit(abs, 1).result()

    report = run_tasks(
        manager, functions.takes_half_a_second, jobs=jobs, executor=make, limit=4, progress=kill_the_workers
    )
    assert report.saved - report.errors >= 3
    assert manager.summary["STARTED"] == 0
    assert len(pools) >= 2


@pytest.mark.parametrize("value", ["1e11", "9" * 20, "9" * 400, "9" * 5000, "inf", "nan", "soon", ""])
def test_nonsense_of_slurm(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A malformed or far-future end of the job sets no limit."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", value)
    report = run_tasks(opened(*many(2)), functions.good, jobs=1, executor=ThreadPoolExecutor, stop_after=1e12)
    assert (report.saved, report.is_out_of_time) == (2, False)


def test_a_result_does_not_wait_for_the_others(opened: Callable[..., TaskManager], tmp_path: Path) -> None:
    """A finished result is saved while other tasks still run."""
    manager = opened(*many(4))

    def show(report: RunReport) -> None:
        if report.saved == 2:
            (tmp_path / "go").touch()  # the other two tasks wait for this file

    assert run_tasks(manager, functions.waits_from_task_3, jobs=2, progress=show).saved == 4


def test_workers_end_with_their_parent(todo: Callable[..., Path], tmp_path: Path) -> None:
    """If the run is killed, its workers end too, even during a task; the next run returns their tasks to pending."""
    path = todo(*many(8))
    command = [sys.executable, "-m", "photometry_tasks.cli", "run", str(path), "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "tests.support.functions:hangs_from_task_5"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until((tmp_path / "hangs").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not workers_of(process.pid))
    with TaskManager(path) as manager:
        assert manager.summary["STARTED"] == 0
        assert manager.summary["OK"] + manager.get_number_tasks() == 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"task_timeout": -1}, "task_timeout"),
        ({"task_timeout": 0}, "a positive number of seconds"),
        ({"grace": float("nan")}, "grace"),
        ({"grace_term": -1}, "grace_term"),
        ({"stop_after": "soon"}, "stop_after"),
        ({"executor": ProcessPoolExecutor}, "jobs=None: an executor needs a number of workers"),
        (
            {"executor": ProcessPoolExecutor, "jobs": 1, "task_timeout": 5},
            "task_timeout=5.0: it works only for the default",
        ),
    ],
)
def test_bad_arguments(opened: Callable[..., TaskManager], arguments: dict[str, Any], says: str) -> None:
    """An invalid argument is a ValueError with its name, before any task starts."""
    manager = opened({})
    with pytest.raises(ValueError, match=says):
        run_tasks(manager, functions.good, **arguments)
    assert manager.get_number_tasks() == 1


def test_status_of_a_dead_task(opened: Callable[..., TaskManager]) -> None:
    """The next opening returns the task of a dead worker to pending, as any ERROR."""
    manager = opened(*many(1))
    run_tasks(manager, functions.always_dies, jobs=1)
    assert manager.summary[STATUS.ERROR.name] == 1
    manager.close()
    with TaskManager(manager.todo_file) as again:
        assert again.get_number_tasks() == 1
