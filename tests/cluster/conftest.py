"""The SLURM of the tests."""

import getpass
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.slurm import CGROUPS, CONFIGURATION, LIMITS, NODES, PROGRAMS, WITH_CGROUPS, Cluster, free_ports


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start a SLURM of three virtual nodes; without control groups, its jobs have no limits on memory."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (see CONTRIBUTING.md)")
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # short: the path of a socket has at most 107 characters
    for name in ("state", *NODES, *(f"{node}-tmp" for node in NODES)):
        (folder / name).mkdir()
    has_cgroups = os.access(CGROUPS, os.W_OK)
    settings = {
        "host": socket.gethostname().partition(".")[0],
        "ports": free_ports(4),
        "user": getpass.getuser(),
        "folder": folder,
        "control": WITH_CGROUPS if has_cgroups else "ProctrackType=proctrack/linuxproc",
    }
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**settings))
    (folder / "cgroup.conf").write_text(LIMITS if has_cgroups else "")
    slurm = Cluster(folder, has_cgroups)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(folder, ignore_errors=True)
