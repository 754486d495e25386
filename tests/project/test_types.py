"""The types of the public names."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
def test_a_users_script(tmp_path: Path) -> None:
    """`mypy --strict` accepts a user's script that uses every public name."""
    pytest.importorskip("mypy")
    script = ROOT / "tests" / "project" / "user_script.py"
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), str(script)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
