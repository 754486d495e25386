"""Promises 1 and 5 if system calls fail: each call of opening, working and closing, in `support/failing_calls.py`."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import failing_calls
from tests.support.failing_calls import COLUMNS, SCENARIOS
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library that lets calls fail."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("letting system calls fail needs Linux and a C compiler (`cc`)")
    built = tmp_path_factory.mktemp("library") / "failing_calls.so"
    source = Path(failing_calls.__file__).with_suffix(".c")
    subprocess.run([compiler, "-Wall", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


def sweep(library: Path, folder: Path, scenario: str, stride: int, *kinds: str) -> Counter[str]:
    """Run each n-th case, print a table with a row for each kind of call, and return the sums of its columns."""
    command = [sys.executable, "-m", failing_calls.__name__, str(folder), scenario, str(stride), *kinds]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    sums: Counter[str] = Counter()
    print(f"{scenario:20}", *(f"{column:>7}" for column in COLUMNS))
    for line in run.stdout.splitlines():
        group = json.loads(line)
        print(f"{group['call']:20}", *(f"{group['counts'].get(column, 0):7}" for column in COLUMNS))
        for example in group["examples"]:
            print("   ", example)
        sums.update(group["counts"])
    print(f"{'all':20}", *(f"{sums[column]:7}" for column in COLUMNS))
    return sums


@pytest.mark.parametrize(
    ("scenario", "stride", "kind"),
    [
        pytest.param("memory, with a log", 80, "close", marks=pytest.mark.slow),
        pytest.param("disk, full", 400, "stat", marks=pytest.mark.slow),
        ("disk, after a kill", 15, "unlink"),
        pytest.param("memory", 200, "open", marks=pytest.mark.slow),
    ],
)
def test_some_calls_fail(library: Path, tmp_path: Path, scenario: str, stride: int, kind: str) -> None:
    """If some calls of a kind fail, nothing is lost, left behind or blocked, and each error is one of ours."""
    sums = sweep(library, tmp_path, scenario, stride, kind)
    assert sums["cases"] >= 5
    assert {column: sums[column] for column in COLUMNS[2:]} == dict.fromkeys(COLUMNS[2:], 0)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_call_fails(library: Path, tmp_path: Path, scenario: str) -> None:
    """The same if each call of opening, working and closing fails, once or from then on, followed by a kill or not."""
    sums = sweep(library, tmp_path, scenario, 7)
    assert sums["cases"] > 100
    assert {column: sums[column] for column in COLUMNS[2:]} == dict.fromkeys(COLUMNS[2:], 0)


_CLOSE = """
import ctypes, errno, itertools, sys, warnings
from pathlib import Path
from photometry_tasks import TaskManager
from tests.support.failing_calls import CALLS
from tests.support.lists import result_of
library, path = ctypes.CDLL(None), Path(sys.argv[1])
unlink = list(CALLS).index("unlink")
for number, is_lasting in itertools.product(range(1, 8), (0, 1)):
    manager = TaskManager(path)
    manager.save_result(result_of({"priority": 1}))
    library.fail_calls(bytes(path.parent), unlink, ctypes.c_long(number), errno.EIO, is_lasting)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        manager.close()
    library.stop_failing()
    for other in path.parent.glob("*-[wj]*"):
        print(other.name, any(f"Its {other.name[11:]} file stays" in str(warning.message) for warning in warned))
"""


def test_a_journal_that_stays(library: Path, todo: Callable[..., Path]) -> None:
    """If SQLite cannot delete its log or its journal at closing, a warning names the file."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _CLOSE, str(todo({}))]
    run = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert set(run.stdout.splitlines()) == {"todo.sqlite-wal True", "todo.sqlite-journal True"}
