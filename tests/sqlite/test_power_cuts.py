"""Promise 1: with `durability="full"`, acknowledged results survive a power cut, whatever of the rest it leaves out."""

import random
import shutil
import sys
from pathlib import Path

import pytest

from photometry_tasks import TaskManager
from tests.support.lists import make_file, query
from tests.support.power_cuts import Directory, State, record

#: Each word opens a manager, which saves three results: on disk or in memory, with backups, and closed or killed.
RUNS = {
    "a log is taken in on disk": "memory-killed disk-closed",
    "a log is taken in in memory": "memory-killed memory-closed",
    "a log is taken in by an upgrade": "memory-killed upgrade",
    "a write-ahead log is taken in": "disk-killed memory-killed disk-killed disk-closed",
    "backups": "memory-backups-killed memory-backups-closed",
}

SCRIPT = """
import os, sys
from pathlib import Path
from photometry_tasks import TaskManager
from photometry_tasks.storage.sqlite.opening import upgrade_todo_file
from tests.support.lists import result_of

path, durability, *words = sys.argv[1:]
for number, word in enumerate(words):
    child = os.fork()
    if not child:
        if word == "upgrade":
            upgrade_todo_file(Path(path))
            os._exit(0)
        manager = TaskManager(path, load_into_memory="memory" in word, durability=durability)
        for priority in range(3 * number + 1, 3 * number + 4):
            manager.save_result(result_of({"priority": priority}, mean_flux=priority / 7))
            os.write(1, b"saved %d" % priority)
            if "backups" in word:
                manager.backup()
        if "closed" in word:
            manager.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def find_states(path: Path, run: str, durability: str) -> list[tuple[State, int]]:
    """Return the different states that a power cut at any call of a run may leave, with the number of saved results."""
    make_file(path, [{} for _ in range(15)])
    directory = Directory(path.parent)
    command = [sys.executable, "-c", SCRIPT, str(path), durability, *RUNS[run].split()]
    states: dict[frozenset[tuple[str, bytes]], int] = {}
    number = 0
    for name, texts, given in record(command, path.parent.with_name("trace")):
        if name == "write" and texts[-1].startswith(b"saved "):
            number += 1
        else:
            directory.apply(name, texts, given)
        for state in directory.iter_states():
            states[frozenset(state.items())] = number  # of equal states, the last has the most saved results
    return [(dict(state), number) for state, number in states.items()]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which records system calls, is not installed")
@pytest.mark.parametrize(
    ("run", "durability", "is_sample"),
    [
        ("a log is taken in on disk", "full", True),
        *(pytest.param(run, kind, False, marks=pytest.mark.slow) for run in RUNS for kind in ("full", "normal")),
    ],
)
def test_power_cuts(tmp_path: Path, run: str, durability: str, is_sample: bool) -> None:
    """Whatever a power cut leaves, the file can be opened and is undamaged; with 'full', it has all saved results."""
    folder = tmp_path / "list"
    folder.mkdir()
    path = folder / "todo.sqlite"
    chance = random.Random(1)
    states = find_states(path, run, durability)
    if is_sample:  # the first with each combination of names
        states = list({(number, *sorted(state)): (state, number) for state, number in reversed(states)}.values())
    for state, number in states:
        shutil.rmtree(folder)
        folder.mkdir()
        for name, content in state.items():
            (folder / name).write_bytes(content)
        TaskManager(path, load_into_memory=chance.random() < 0.5).close()
        left = [other.name for other in folder.iterdir() if not other.name.startswith("todo.sqlite-results-kept-")]
        assert left == ["todo.sqlite"]
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
        stored = query(path, "SELECT priority, mean_flux * 7 FROM diagnostics ORDER BY priority")
        assert all(priority == value for priority, value in stored)
        if durability == "full":
            assert {priority for priority, _ in stored} >= set(range(1, number + 1))
