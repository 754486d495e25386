"""The function of a pipeline on the command line: its names, and what is said of each mistake."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Call
from tests.support.lists import checksum, many, query
from tests.support.paths import ROOT

FILES = {
    "good.py": """
LIMIT = 5
class Pipeline: pass
async def waits(task): return {}
def yields(task): yield {}
def needs_two(task, configuration): return {}
def photometry(task): return {"status": 1, "method_used": "mine"}
def calibrate(task): return {}
""",
    "needs.py": "import os\n\nimport cupyx\ndef f(task): return {}\n",
    "misspelt.py": "import numpi\n",
    "lacks.py": "import json.nothing\n",
    "deep.py": "import needs\n",
    "syntax.py": "x = 1\ndef f(task:\n    return {}\n",
    "raises.py": "def g():\n    return 1 / 0\ng()\n",
    "exits.py": "raise SystemExit('no data')\n",
    "nul.py": "\0",
    "two.dots.py": "",
    "script": "",
    "json.py": "",
    "unguarded.py": """
from photometry_tasks import TaskManager
from photometry_tasks.runner import run_tasks
def photometry(task): return {"status": 1, "method_used": "mine"}
with TaskManager("todo.sqlite") as tm:
    run_tasks(tm, photometry)
""",
    "folder/one.py": "",
    "package/__init__.py": "",
    "package/inner.py": "from .other import f as g\ndef f(task): return g(task)\n",
    "package/other.py": "def f(task): return {'status': 1, 'method_used': 'other'}\n",
}
FORMS = "give it as package.module:function or path/to/file.py:function."


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", f"it names no function; {FORMS}"),
        ("good", "it names no function; give it as good:FUNCTION."),
        ("good.py", "it names no function; give it as good.py:FUNCTION."),
        ("good.py:", "it names no function; give it as good.py:FUNCTION."),
        (".good:f", f"'.good' is not the name of a module; {FORMS}"),
        ("good:photometry.x", f"'photometry.x' is not the name of a function; {FORMS}"),
        ("good:two words", f"'two words' is not the name of a function; {FORMS}"),
        ("a:b:c", f"'a:b' is not the name of a module; {FORMS}"),
        ("god.py:photometry", "the file god.py does not exist; try good.py."),
        ("no/such.py:f", "the file no/such.py does not exist; correct its name."),
        ("script:f", "workers import a file by its name, which has to end with .py and hold no other dot; rename it."),
        ("two.dots.py:f", "which has to end with .py and hold no other dot; rename it."),
        ("json.py:f", "has a module json already; rename the file."),
        ("folder/:f", "folder/ is a directory; give a file in it, for example folder/one.py:f."),
        ("package:f", "give it with its module, for example package.inner:f, package.other:f."),
        ("packagr:f", "there is no module packagr; try package"),
        ("package.iner:f", "there is no module package.iner; try package.inner."),
        ("nothing_like_it:f", "there is no module nothing_like_it; give a module that is installed or in the current"),
        ("good.photometry:f", "good is a module and no package; give the function as good:FUNCTION."),
        ("good:photometri", "good has no function photometri; try photometry."),
        ("good.py:xyz", "good.py has no function xyz; choose from Pipeline, waits, yields, needs_two, photometry, …."),
        ("good:LIMIT", "LIMIT is not a function, but a value of type int; choose from Pipeline, waits,"),
        ("good:Pipeline", "a class returns an instance and no result; give a function"),
        ("good:waits", "it is async or a generator; give a function that returns a dict."),
        ("good.py:yields", "it is async or a generator; give a function that returns a dict."),
        (
            "good:needs_two",
            "it cannot be called with a task alone (missing a required argument: 'configuration');",
        ),
        ("needs:f", "needs.py imports cupyx, which is not installed (line 3); install it, then try again."),
        ("deep.py:f", "needs.py imports cupyx, which is not installed (line 3); install it, then try again."),
        ("misspelt:f", "misspelt.py imports numpi, which is not installed (line 1); try numpy."),
        ("lacks:f", "lacks.py imports json.nothing, which json lacks (line 1); correct this line, then try again."),
        ("syntax.py:f", 'its module cannot be imported:\n  File "HERE/syntax.py", line 2\n    def f(task:\n'),
        (
            "raises:f",
            "its module cannot be imported:\n"
            '  File "HERE/raises.py", line 3, in <module>\n    g()\n  File "HERE/raises.py", line 2, in g\n',
        ),
        ("nul:f", "null bytes"),
        ("exits.py:f", "SystemExit: no data\nCorrect the module, then try again."),
        ("unguarded.py:photometry", "unguarded.py runs its tasks when it is imported, as each worker does. Move them"),
    ],
)
def test_a_wrong_function(todo: Callable[..., Path], call: Call, files: Path, name: str, says: str) -> None:
    """Each mistake in a function or its name has its own message with the way out, and the list stays as it is."""
    path = todo({"status": 2})
    before = checksum(path)
    run = call("run", path, name, "--jobs", "1")
    assert run.returncode == 1
    assert says.replace("HERE", str(files)) in run.stderr
    assert run.stderr.startswith(f"Error: FUNCTION={name!r}: " if name != "unguarded.py:photometry" else "Error: ung")
    assert "photometry_tasks/" not in run.stderr.replace(str(path), "")
    assert checksum(path) == before


PIPELINE = """
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from helper import METHOD
lock = threading.Lock()
measure = lambda task: {"status": 1, "method_used": METHOD, "details": {"mean_flux": task["tmag"] if lock else 0}}
def connect(jobs): return ProcessPoolExecutor(jobs, get_context("spawn"))
def connect_dask(jobs):
    from distributed import Client
    return Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None).get_executor()
"""


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "executor",
    [
        "",
        "concurrent.futures:ThreadPoolExecutor",
        "mpi4py.futures:MPIPoolExecutor",
        "HERE:connect",
        pytest.param("HERE:connect_dask", marks=pytest.mark.slow),
    ],
)
def test_a_file(todo: Callable[..., Path], tmp_path: Path, executor: str) -> None:
    """A function of a file, of any kind, and the modules beside it are found by the workers of each executor."""
    path = todo(*many(6))
    folder = tmp_path / "my pipeline"
    folder.mkdir()
    (folder / "my-pipe.py").write_text(PIPELINE)
    (folder / "helper.py").write_text("METHOD = 'helped'\n")
    (tmp_path / "elsewhere").mkdir()
    command = ["run", str(path), "../my pipeline/my-pipe.py:measure", "--jobs", "2"]
    if executor:
        command += ["--executor", executor.replace("HERE", str(folder / "my-pipe.py"))]
    launch = [sys.executable, "-m", "photometry_tasks.cli"]
    if "mpi" in executor:
        mpiexec = str(Path(sys.executable).with_name("mpiexec"))
        launch = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", *launch[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    how: dict[str, Any] = {"cwd": tmp_path / "elsewhere", "env": environment, "capture_output": True, "text": True}
    run = subprocess.run([*launch, *command], **how)
    assert run.returncode == 0, run.stderr
    found = query(path, "SELECT status, method_used FROM todolist JOIN diagnostics USING (priority)")
    assert found == [(1, "helped")] * 6
