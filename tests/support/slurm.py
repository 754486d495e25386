"""A SLURM of three virtual nodes on this machine."""

import getpass
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.processes import running_command

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol")
NODES = ("n1", "n2", "n3")
#: SLURM 22.05 creates groups of version 1 itself; for version 2 it needs systemd.
CGROUPS = Path("/sys/fs/cgroup/freezer")

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
TmpFS={folder}/%n-tmp
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
{control}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SlurmdTimeout=10
SchedulerParameters=bf_interval=5
MpiDefault=none
JobRequeue=1
ReturnToService=2
DefMemPerCPU=500
AccountingStorageType=accounting_storage/none
NodeName=n[1-3] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]},{ports[2]},{ports[3]} CPUs=16 RealMemory=16000
PartitionName=all Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP
"""
WITH_CGROUPS = """
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
"""
LIMITS = """
CgroupPlugin=cgroup/v1
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
AllowedSwapSpace=0
"""


def until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait until a condition holds, and fail after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not after {seconds} s: {condition}"
        time.sleep(0.1)


class Cluster:
    """Three nodes, and the commands of SLURM."""

    def __init__(self, folder: Path, has_cgroups: bool) -> None:
        self.folder = folder
        self.has_cgroups = has_cgroups
        # A job of another SLURM, in which the tests may run, is none of ours.
        others = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        self.environment = {
            **others,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self._daemons = ExitStack()
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def call(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Return the output of a command."""
        run = subprocess.run(
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()

    def start(self) -> None:
        """Start the daemons, and wait until all nodes are idle."""
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)
        munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        places = [f"--{option}={self.folder}/munge.{name}" for option, name in munge.items()]
        self._start("munged", "--foreground", "--force", *places)
        until((self.folder / "munge.socket").exists)
        self._start("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        until(lambda: self.call("sinfo", "-h", "-o", "%T %D") == f"idle {len(NODES)}")

    def _start(self, *command: str) -> "subprocess.Popen[bytes]":
        log = self._daemons.enter_context((self.folder / "daemons.log").open("ab"))
        return self._daemons.enter_context(running_command([*command], env=self.environment, stdout=log, stderr=log))

    def start_node(self, node: str) -> None:
        """Start a node."""
        self._nodes[node] = self._start("slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill the daemon of a node and all processes of its jobs at once, as a power cut does."""
        self._nodes[node].kill()
        for group in CGROUPS.glob(f"slurm_{node}/**/cgroup.procs"):
            for pid in map(int, group.read_text().split()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._nodes[node].wait()

    def submit(self, folder: Path, *command: str | Path) -> str:
        """Submit a script, and return the id of its job."""
        return self.call("sbatch", "--parsable", *command, cwd=folder)

    def states(self, job: str) -> set[str]:
        """Return the states of a job, or of the elements of an array."""
        return set(self.call("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").split())

    def node(self, job: str) -> str:
        """Return the first node of a job."""
        return self.call("squeue", "-h", "-j", job, "-o", "%B").split()[0]

    def wait(self, job: str, *, seconds: float = 120.0) -> set[str]:
        """Wait until a job has ended, and return its states."""
        going = {"PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED", "CONFIGURING", "STOPPED"}
        until(lambda: not going & self.states(job), seconds=seconds)
        return self.states(job)

    def cancel_all(self) -> None:
        """Kill all jobs, and wait for their end."""
        for how in ([], ["--signal=KILL", "--full"]):
            subprocess.run(["scancel", *how, "--user", getpass.getuser()], env=self.environment, timeout=60)
        until(lambda: not self.call("squeue", "-h"))

    def stop(self) -> None:
        """End the daemons, and what is left of jobs."""
        for node in self._nodes:
            self.kill_node(node)
        self._daemons.close()
        for group in CGROUPS.parent.glob("*/slurm_n[123]"):
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()


def free_ports(number: int) -> list[int]:
    """Return ports that no program uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
