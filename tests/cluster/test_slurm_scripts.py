"""Job scripts on a real SLURM."""

from pathlib import Path

import pytest

from tests.support.lists import make_file, many
from tests.support.paths import ROOT
from tests.support.slurm import Cluster

SLURM = ROOT / "examples" / "slurm"

pytestmark = pytest.mark.cluster


def test_it_ends(cluster: Cluster, tmp_path: Path) -> None:
    """A script runs a list to its end."""
    path = make_file(tmp_path / "todo.sqlite", many(30))
    job = cluster.submit(tmp_path, "--cpus-per-task=2", SLURM / "one_node.sh", path, "tests.support.functions:good")
    assert cluster.wait(job) == {"COMPLETED"}
