"""The job scripts on a real SLURM: they end, are cancelled, meet limits, are requeued, and lose nodes or memory."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.lists import empty_list, make_file, many, query
from tests.support.paths import ROOT
from tests.support.slurm import Cluster, until

SCRIPTS = ROOT / "examples" / "slurm"

#: Instead of USR1 some minutes before the limit, which would come at once in these short jobs.
WITHOUT_WARNING = "--signal=B:CONT@1"

#: Options of sbatch, and of the run, for each script: of two workers each, on several nodes if the script can.
SMALL = {
    "one_node.sh": (["--cpus-per-task=2", WITHOUT_WARNING], ["--jobs", "2"]),
    "chain.sh": (["--cpus-per-task=2"], ["--jobs", "2"]),
    "array.sh": (["--cpus-per-task=1", "--array=0-1", WITHOUT_WARNING], ["--jobs", "1", "--lease", "15"]),
    "mpi.sh": (["--ntasks=3", "--nodes=3"], []),
    "dask.sh": (["--ntasks=2", "--nodes=2"], []),
}

pytestmark = pytest.mark.cluster


@dataclass
class Job:
    """A submitted script, its list of 30 tasks, and its directory."""

    cluster: Cluster
    name: str
    folder: Path
    todo: str | Path

    def submit(self, function: str, *options: str, minutes: int = 10) -> None:
        """Submit the script; in the directory, it continues with its list."""
        of_sbatch, of_run = SMALL[self.name]
        how = ["--time", str(minutes), "--output=log", *of_sbatch, *options]
        self.id = self.cluster.submit(
            self.folder, *how, SCRIPTS / self.name, self.todo, f"tests.support.functions:{function}", *of_run
        )

    def begun(self) -> set[int]:
        """Return the tasks that a worker has begun."""
        file = self.folder / "begun"
        return set(map(int, file.read_text().split())) if file.exists() else set()

    def wait_until_some_wait(self) -> None:
        """Wait until both workers are in a task that waits; in an array, one of the jobs may have claimed all tasks."""
        until(lambda: self.begun() >= ({3} if self.name == "array.sh" else {3, 4}))

    def go(self) -> None:
        """Let the waiting tasks continue."""
        (self.folder / "go").touch()

    def log(self) -> str:
        """Return the output of the job."""
        return (self.folder / "log").read_text()

    def statuses(self) -> dict[int | None, int]:
        """Return the number of tasks of each status."""
        return dict(query(self.todo, "SELECT status, count(*) FROM todolist GROUP BY 1"))

    def is_complete(self) -> bool:
        """Whether each task has one result, without error."""
        found = query(self.todo, "SELECT count(*), count(DISTINCT priority) FROM diagnostics WHERE errors IS NULL")
        return found == [(30, 30)] and self.statuses() == {1: 30}


@pytest.fixture(params=list(SMALL))
def job(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path, server_database: Engine) -> Iterator[Job]:
    """Return a script, with a list of 30 tasks."""
    shutil.copy(SCRIPTS / "dask_client.py", tmp_path)
    cluster.environment["LAUNCH"] = "srun --mpi=pmi2" if request.param == "mpi.sh" else "srun"
    rows = many(30)
    is_on_server = request.param == "array.sh"
    todo = empty_list(server_database, rows) if is_on_server else make_file(tmp_path / "todo.sqlite", rows)
    yield Job(cluster, request.param, tmp_path, todo)
    cluster.cancel_all()


def finish(job: Job) -> None:
    """Submit the script again, until no task is left."""
    job.go()
    job.submit("waits_from_task_3")
    assert job.cluster.wait(job.id) == {"COMPLETED"}, job.log()
    assert job.is_complete()


def test_it_runs_to_the_end(job: Job) -> None:
    """Each script runs its list to the end."""
    job.submit("good")
    assert job.cluster.wait(job.id) == {"COMPLETED"}, job.log()
    assert job.is_complete()
    assert job.log().count("SLURM ends job") == (2 if job.name == "array.sh" else 1)


def test_it_is_cancelled(job: Job) -> None:
    """After `scancel`, running tasks are finished, except Dask's; the next job goes on."""
    job.submit("waits_from_task_3")
    job.wait_until_some_wait()
    job.cluster.call("scancel", job.id)
    until(lambda: "stopping (SIGTERM)" in job.log() or job.name == "dask.sh")
    job.go()
    assert job.cluster.wait(job.id) == {"CANCELLED"}
    kept = job.statuses()[1]
    assert kept == len(job.begun()) or (job.name == "dask.sh" and kept >= 2), job.log()
    assert job.statuses() == {1: kept, None: 30 - kept}
    finish(job)


def test_it_reaches_its_limit(job: Job) -> None:
    """Half a minute before the limit, the run ends without error, and without the tasks that hang."""
    job.submit("waits_from_task_3", minutes=1)
    job.wait_until_some_wait()
    states = job.cluster.wait(job.id)
    assert "The time limit was reached. 28 tasks pending." in job.log()
    assert job.statuses() == {1: 2, None: 28}
    # The second time, the chain has finished no task. Ranks of MPI cannot be stopped one by one.
    expected = {"chain.sh": "FAILED", "mpi.sh": "TIMEOUT"}
    assert states == {expected.get(job.name, "COMPLETED")}, job.log()
    finish(job)


def test_it_is_requeued(job: Job) -> None:
    """After `scontrol requeue`, the job begins again, with all results, and adds to its output."""
    job.submit("waits_from_task_3")
    job.wait_until_some_wait()
    job.cluster.call("scontrol", "requeue", job.id)
    job.go()
    assert job.cluster.wait(job.id) == {"COMPLETED"}, job.log()
    assert job.is_complete()
    assert "JOB REQUEUE" in job.log()


def test_it_loses_a_node(job: Job) -> None:
    """If its node fails, SLURM starts the job on other nodes, and it goes on with all results."""
    if not job.cluster.has_cgroups:
        pytest.skip("without control groups of version 1, the processes of a node are not known")
    job.submit("waits_from_task_3")
    job.wait_until_some_wait()
    node = job.cluster.node(job.id)
    job.cluster.kill_node(node)
    job.go()
    try:
        until(lambda: "down" in job.cluster.call("sinfo", "-h", "-n", node, "-o", "%T"), seconds=60)
    finally:
        job.cluster.start_node(node)
    assert job.cluster.wait(job.id) == {"COMPLETED"}, job.log()
    assert job.is_complete()


def test_it_runs_out_of_memory(job: Job) -> None:
    """The task whose worker the kernel kills is an ERROR, and SLURM does not count its job as completed.

    Over MPI, the job ends, and the task is pending; Dask's workers are another step of the job.
    """
    if not job.cluster.has_cgroups:
        pytest.skip("without control groups of version 1, the jobs have no limit on memory")
    job.submit("takes_memory", "--mem=700M")
    states = job.cluster.wait(job.id)
    found = {"array.sh": {"OUT_OF_MEMORY", "COMPLETED"}, "mpi.sh": {"FAILED"}, "dask.sh": {"COMPLETED"}}
    assert states == found.get(job.name, {"OUT_OF_MEMORY"}), job.log()
    if job.name == "mpi.sh":
        assert job.statuses().keys() == {1, None}
    else:
        ((error,),) = query(job.todo, "SELECT errors FROM diagnostics WHERE errors IS NOT NULL")
        assert ("workers died" if job.name == "dask.sh" else "SIGKILL: out of memory; the memory limit is") in error
        assert job.statuses() == {1: 29, 2: 1}
    if job.name != "array.sh":  # `work` tries no ERROR again
        finish(job)


def test_a_chain(cluster: Cluster, tmp_path: Path) -> None:
    """A chain goes on with the options of sbatch until no task is pending; a job that depends on it begins then."""
    path = make_file(tmp_path / "todo.sqlite", many(30))
    how = ["--output=log", "--time=7", "--cpus-per-task=1", "--job-name=sector-1", "--mem=777M"]
    cluster.environment["SLURM_JOB_END_TIME"] = "1"  # of another job, in which the chain is submitted
    try:
        command = [SCRIPTS / "chain.sh", path, "tests.support.functions:good", "--jobs", "2", "--limit", "12"]
        chain = cluster.submit(tmp_path, *how, *command)
    finally:
        del cluster.environment["SLURM_JOB_END_TIME"]
    later = cluster.submit(tmp_path, f"--dependency=afterany:{chain}", "--wrap", f"cp {path} copy.sqlite")
    assert cluster.wait(chain) == {"COMPLETED"}, (tmp_path / "log").read_text()
    shown = cluster.call("scontrol", "show", "job", chain)
    for found in ("JobName=sector-1", "Restarts=2", "TimeLimit=00:07:00", "CPUs/Task=1", "mem=777M"):
        assert found in shown
    assert cluster.wait(later) == {"COMPLETED"}
    for each in (path, tmp_path / "copy.sqlite"):
        assert query(each, "SELECT status, count(*) FROM todolist GROUP BY 1") == [(1, 30)]


@pytest.mark.parametrize(
    ("launch", "state"), [("srun --mpi=pmi2", "COMPLETED"), ("mpiexec -n 3", "COMPLETED"), ("srun", "FAILED")]
)
def test_the_launchers_of_mpi(cluster: Cluster, tmp_path: Path, launch: str, state: str) -> None:
    """MPICH runs with `--mpi=pmi2` and with its own `mpiexec`; the ranks of a plain `srun` are refused."""
    path = make_file(tmp_path / "todo.sqlite", many(30))
    cluster.environment["LAUNCH"] = launch
    how = ["--output=log", "--time=5", "--ntasks=3", "--nodes=3"]
    job = cluster.submit(tmp_path, *how, SCRIPTS / "mpi.sh", path, "tests.support.functions:good")
    assert cluster.wait(job) == {state}
    log = (tmp_path / "log").read_text()
    assert query(path, "SELECT count(*) FROM todolist WHERE status = 1") == [(30 if state == "COMPLETED" else 0,)], log
    assert ("SLURM_NTASKS is 3, but MPI has one rank" in log) == (launch == "srun")
    assert "in use" not in log
