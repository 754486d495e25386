"""`try`: one task in this process; nothing is saved, and nothing changes."""

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from photometry_tasks import TaskManager
from tests.support import old_files
from tests.support.commands import COMMAND, Call
from tests.support.lists import checksum, empty_list, many, query

PIPELINE = """
import sys
def photometry(task):
    details = {"mean_flux": 17e3, "mean_flx": 1, "skip_targets": [107], "extra": {"chi2": 3.5}, "errors": ["no [sky]"]}
    return {"status": 3, "method_used": "halo", "details": details}
def invert(number):
    return 1 / number
def raises(task):
    print("for the terminal")
    return invert(task["priority"] - task["priority"])
def nothing(task): pass
def wrong(task): return {"statusx": 1, "details": {"stamp": 1, "ptp": "x"}}
def ends(task): sys.exit("enough")
def interrupts(task): raise KeyboardInterrupt
"""
TRACEBACK = """Traceback (most recent call last):
  File "HERE/mine.py", line 10, in raises
    return invert(task["priority"] - task["priority"])
"""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["photometry"],
            0,
            (
                "Task priority 2, starid 102, sector 1, camera 1, ccd 1, cadence 1800, datasource ffi, tmag ",
                *("WARNING", "halo", "17000", "electron / s", "no [sky]", "(107,)", "extra_chi2", "3.5"),
                "details['mean_flx'] is not stored; is it 'mean_flux'?",
                "Nothing was saved. Run all pending tasks with `photometry-tasks run todo.sqlite mine.py:photometry`.",
            ),
        ),
        (["photometry", "--priority", "1"], 0, ("Task priority 1, starid 101,",)),  # not pending
        (["photometry", "--starid", "103", "--camera", "1"], 0, ("Task priority 3,",)),
        (["photometry", "--camera", "4"], 1, ("Error: No task has camera 4; the list has 1",)),
        (["raises"], 1, ("for the terminal", TRACEBACK, "an ERROR (ZeroDivisionError). Nothing was saved.")),
        (["raises", "--pdb"], 2, ("--pdb needs a terminal; leave it out.",)),
        (["nothing"], 1, ("- the function returned None: a dict with `status`", "an ERROR (invalid result)")),
        (
            ["wrong"],
            1,
            (
                "The result is invalid:\n- statusx=1: this key does not exist, it is spelled `status`\n",
                "\n- details.stamp=1: a list is expected\n- details.ptp='x': a number is expected\n",
                "\n- method_used is missing: a text is expected\n",
            ),
        ),
        (["ends"], 1, ("SystemExit: enough", "an ERROR (SystemExit)")),
        (["interrupts"], 130, ("Interrupted.",)),
        (["misspelt"], 1, ("mine.py has no function misspelt; choose from photometry, invert, raises",)),
    ],
)
def test_one_task(
    todo: Callable[..., Path], call: Call, tmp_path: Path, arguments: list[str], code: int, says: tuple[str, ...]
) -> None:
    """The checked result, its faults or the user's traceback is shown; the list and its folder stay as they are."""
    path = todo({"status": 2}, *many(3)[1:])
    (tmp_path / "mine.py").write_text(PIPELINE)
    before = checksum(path), path.stat(), sorted(tmp_path.iterdir())
    run = call("try", "todo.sqlite", f"mine.py:{arguments[0]}", *arguments[1:])
    output = run.stdout + run.stderr
    assert [text for text in says if text.replace("HERE", str(tmp_path)) not in output] == []
    assert run.returncode == code
    assert (checksum(path), path.stat(), sorted(tmp_path.iterdir())) == before


def test_a_list_of_any_kind(todo: Callable[..., Path], call: Call, tmp_path: Path, server_database: Engine) -> None:
    """A list in use, an old file, and a list on a server give a task too."""
    with TaskManager(todo(*many(2))) as manager:
        lists = [manager.todo_file, old_files.make_old_file(tmp_path / "old.sqlite", "3.0")]
        for name in (*lists, empty_list(server_database, many(2))):
            run = call("try", name, "tests.support.functions:good")
            assert run.returncode == 0, run.stderr
    assert query(manager.todo_file, "SELECT count(*) FROM todolist WHERE status IS NULL") == [(2,)]


def test_the_debugger(todo: Callable[..., Path], tmp_path: Path) -> None:
    """After an exception, --pdb begins in the frame of the function that raised it."""
    path = todo({})
    (tmp_path / "mine.py").write_text(PIPELINE)
    terminal, end = pty.openpty()
    command = [COMMAND, "try", str(path), "mine.py:raises", "--pdb"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=end, stdout=end, stderr=end, close_fds=True) as process:
        os.close(end)
        os.write(terminal, b"p number\nup\np task['starid']\nq\n")
        shown = b""
        while True:
            try:
                part = os.read(terminal, 10_000)
            except OSError:  # the process has ended
                break
            if not part:
                break
            shown += part
        assert process.wait(60) == 1
    os.close(terminal)
    text = shown.decode().replace("\r\n", "\n")
    assert "-> return 1 / number" in text
    assert "(Pdb) p number\n0\n" in text
    assert "(Pdb) p task['starid']\n101\n" in text
    assert "Nothing was saved." in text
