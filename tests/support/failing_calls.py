"""Let each system call of a manager's work fail, one after the other, and count what goes wrong.

This program runs with the library built from `failing_calls.c` in LD_PRELOAD. Its arguments are an empty folder, a
scenario, a stride, and kinds of calls, by default all: it runs each n-th of their cases, and prints a JSON line a kind.
"""

import ctypes
import errno
import json
import logging
import os
import random
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import filelock  # noqa: F401 - imported before a call can fail
import psutil
import sqlalchemy.dialects.sqlite  # noqa: F401 - as above

from photometry_tasks import TaskManager
from photometry_tasks.errors import FileChangedError, TodoError
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.progress import throughput
from photometry_tasks.storage.sqlite import status_file
from tests.support.lists import make_file, query, result_of
from tests.support.old_files import make_old_file

#: The kinds of calls, in the order of `failing_calls.c`, and the errors with which they fail. Locks and interrupted
#: calls are tried again for seconds: they fail once only.
CALLS = {
    "open": ["EIO", "EMFILE", "ESTALE", "ENOSPC", "EACCES"],
    "opendir": ["EIO", "EMFILE"],
    "read": ["EIO", "ESTALE", "EINTR"],
    "write": ["EIO", "ENOSPC", "EDQUOT", "EINTR"],
    "sync": ["EIO", "ENOSPC", "EDQUOT"],
    "close": ["EIO", "EDQUOT", "EINTR"],
    "stat": ["EIO", "ESTALE", "EACCES"],
    "truncate": ["EIO", "EINTR"],
    "unlink": ["EIO", "EACCES", "ESTALE"],
    "rename": ["EIO", "ENOSPC", "ESTALE"],
    "lock": ["EIO", "ENOLCK"],
    "flock": ["EIO", "ENOLCK", "EINTR"],
    "chmod": ["EPERM", "EIO"],
    "chown": ["EPERM", "EIO"],
    "mkdir": ["EIO"],
    "mmap": ["ENOMEM"],
}
ONCE = {"lock", "flock", "EINTR"}

MEMORY: dict[str, Any] = {"load_into_memory": True}

#: The files that the manager finds, whether it takes their file system for a shared one, and its arguments.
SCENARIOS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "disk, new file": ("none", False, {}),
    "disk, full": ("closed", False, {"durability": "full", "cleanup": True}),
    "disk, after a kill": ("killed on disk", False, {}),
    "disk, with a log": ("killed in memory", False, {}),
    "disk, older file": ("older", False, {}),
    "disk, shared": ("killed on disk", True, {}),
    "memory": ("closed", False, MEMORY),
    "memory, full": ("closed", False, {**MEMORY, "durability": "full", "cleanup": True}),
    "memory, after a kill": ("killed on disk", False, MEMORY),
    "memory, with a log": ("killed in memory", False, MEMORY),
    "memory, older file": ("older", False, MEMORY),
    "memory, shared": ("killed in memory", True, MEMORY),
}

#: What is counted. All but the first two must be zero: accepted results that are gone, later calls that fail too,
#: files or descriptors that stay, errors of another class or about a change that nobody made, saves that raise though
#: the result is stored, files that stay without a word, files of the user that were closed or changed.
COLUMNS = ("cases", "raised", "lost", "wedged", "left", "wrong", "untrue", "silent", "harmed")

_shim = ctypes.CDLL(None)

#: Managers that are not closed before their process ends.
_killed: list[TaskManager] = []

Seen = dict[str, Any]


def prepare(folder: Path, state: str, *, is_shared: bool) -> set[int]:
    """Create the files of a state in a folder, and return the priorities of the accepted results."""
    # The tests' file system is local: another mount table lets the manager take it for a shared one.
    mounts = folder / "proc" / "self" / "mounts"
    mounts.parent.mkdir(parents=True)
    mounts.write_text(f"x / {'nfs' if is_shared else 'ext4'} rw 0 0\n")
    psutil.PROCFS_PATH = str(folder / "proc")
    path = folder / state / "todo.sqlite"
    path.parent.mkdir()
    if state == "older":
        make_old_file(path, "4.2", 40)
    elif state != "none":
        make_file(path, [{"tmag": float(number), "status": {19: 6, 20: 2}.get(number)} for number in range(1, 41)])
    if not state.startswith("killed"):
        return set()

    def die() -> list[int]:
        manager = TaskManager(path, load_into_memory=state == "killed in memory")
        manager.save_results([result_of({"priority": priority}) for priority in (37, 38)])
        return [37, 38]

    return set(in_child(die))


class Work:
    """Work as a pipeline: open, hand out, save, back up, close; return the accepted results and the errors."""

    def __init__(self, path: Path, arguments: dict[str, Any]) -> None:
        self.path = path
        self.arguments = arguments
        self.saved: dict[int, bool] = {}
        self.errors: dict[str, list[str]] = {"raised": [], "wrong": []}
        self.victims: list[tuple[int, Path]] = []
        self.is_wedged = False

    def do(self, *, is_lasting: bool, dies: bool) -> None:
        """Do all steps. If calls fail only once, a step that failed works at the second try."""
        if self.arguments["create"]:
            self.try_twice(self.create, is_lasting=is_lasting)
            if is_lasting and self.errors["raised"]:
                _shim.stop_failing()
                self.must(self.create)
        manager = self.try_twice(self.open, is_lasting=is_lasting)
        if manager is None:
            _shim.stop_failing()
            manager = self.must(self.open)
        steps = (self.save_one, self.save_many, self.look, TaskManager.backup, self.save_one, self.save_many)
        for step in steps if manager is not None else ():
            self.try_twice(lambda step=step: step(manager), is_lasting=is_lasting)
        if dies and manager is not None:
            _killed.append(manager)
            return
        if manager is None:
            return
        self.attempt(manager.close)
        _shim.stop_failing()
        self.must(manager.close)
        if (again := self.must(self.open)) is not None:
            self.must(again.close)

    def try_twice(self, step: Callable[[], Any], *, is_lasting: bool) -> Any:
        before = sum(map(len, self.errors.values()))
        found = self.attempt(step)
        is_done = sum(map(len, self.errors.values())) == before
        return found if is_done or is_lasting else self.must(step)

    def must(self, step: Callable[[], Any]) -> Any:
        """Try a step that no call makes fail any more."""
        before = sum(map(len, self.errors.values()))
        found = self.attempt(step)
        self.is_wedged |= sum(map(len, self.errors.values())) > before
        return found

    def attempt(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Exception as error:
            is_ours = isinstance(error, TodoError | OSError) and not isinstance(error, FileChangedError)
            self.errors["raised" if is_ours else "wrong"].append(describe(error))
        # Another file gets the lowest free descriptor: a descriptor that is closed twice would close this file.
        place = self.path.parent.with_name(f"victim-{len(self.victims)}")
        place.write_bytes(b"mine" * 1000)
        self.victims.append((os.open(place, os.O_RDWR), place))
        return None

    def create(self) -> None:
        rows = [{"starid": 100 + n, "sector": 1, "camera": 1, "ccd": 1, "tmag": n / 2} for n in range(40)]
        add_targets(self.path, rows)

    def open(self) -> TaskManager:
        arguments = {name: value for name, value in self.arguments.items() if name != "create"}
        return TaskManager(self.path, summary=self.path.with_name("summary.json"), **arguments)

    def save_one(self, manager: TaskManager) -> None:
        task = manager.get_task()
        if task is not None:
            manager.start_task(task["priority"])
            self.saved[task["priority"]] = False
            manager.save_result(result_of(task, skip_targets=[139, 140]))
            self.saved[task["priority"]] = True

    def save_many(self, manager: TaskManager) -> None:
        tasks = manager.claim_tasks(2)
        priorities = [task["priority"] for task in tasks]
        self.saved.update(dict.fromkeys(priorities, False))
        manager.save_results(map(result_of, tasks))
        self.saved.update(dict.fromkeys(priorities, True))

    def look(self, manager: TaskManager) -> None:
        manager.write_summary()
        manager.release_tasks([39])
        manager.reset_tasks(priority=36)
        manager.get_number_tasks(camera=1)
        get_status(self.path)


def describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if "photometry_tasks" in frame.filename), frames[-1])
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"


def observe(work: Work, *, is_lasting: bool, dies: bool) -> Seen:
    """Do the work in this process, and return what happened."""
    spoken: list[logging.LogRecord] = []
    logger = logging.getLogger("photometry_tasks")
    logger.addHandler(handler := logging.Handler(logging.WARNING))
    handler.emit = spoken.append  # type: ignore[method-assign]
    logger.propagate = False
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        work.do(is_lasting=is_lasting, dies=dies)
    _shim.stop_failing()
    held = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            held.append(str(descriptor.readlink()))
    harmed = [str(place) for _, place in work.victims if place.read_bytes() != b"mine" * 1000]
    for descriptor, place in work.victims:
        try:
            os.close(descriptor)
        except OSError:
            harmed.append(str(place))
    expected = {"todo.sqlite", "summary.json", "todo.sqlite-lock", "todo.sqlite-shm"}  # the last two hold no results
    is_silent = not (dies or warned or spoken or any(work.errors.values()))
    return {
        **work.errors,
        "saved": work.saved,
        "wedged": work.is_wedged or threading.active_count() > 1,
        "left": [] if dies else [name for name in held if name.startswith(str(work.path.parent))],
        "silent": sorted({other.name for other in work.path.parent.iterdir()} - expected) if is_silent else [],
        "harmed": harmed,
        "calls": list(map(_shim.count_calls, range(len(CALLS)))),
    }


def judge(path: Path, saved: dict[int, bool]) -> Seen:
    """Open the file while no call fails, and compare it with the results that were accepted and refused."""
    if not path.exists():
        return {"lost": [priority for priority, is_accepted in saved.items() if is_accepted]}
    try:
        TaskManager(path).close()
    except Exception as error:
        return {"lost": [f"the file cannot be opened: {describe(error)}"]}
    stored = {row[0] for row in query(path, "SELECT priority FROM todolist JOIN diagnostics USING (priority)")}
    left = {other.name for other in path.parent.iterdir()} - {"todo.sqlite", "summary.json"}
    if Path(psutil.PROCFS_PATH, "self", "mounts").read_text().startswith("x / nfs"):
        left.discard("todo.sqlite-lock")
    return {
        "lost": [priority for priority, is_accepted in saved.items() if is_accepted and priority not in stored]
        + [row[0] for row in query(path, "PRAGMA integrity_check") if row[0] != "ok"],
        "untrue": [priority for priority, is_accepted in saved.items() if not is_accepted and priority in stored],
        "left": sorted(left),
    }


def in_child(function: Callable[[], Any]) -> Any:
    """Return the result of a function in a forked process, which has a minute; None if it dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.alarm(60)
            os.write(writing, json.dumps(function()).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return json.loads(found) if found else None


def sweep(folder: Path, scenario: str, stride: int, kinds: list[str]) -> Iterator[Seen]:
    """Run each n-th case of a scenario, and yield the counts of each kind of call."""
    state, is_shared, arguments = SCENARIOS[scenario]
    accepted = dict.fromkeys(prepare(folder, state, is_shared=is_shared), True)
    path = folder / "case" / "todo.sqlite"
    arguments = {**arguments, "create": state == "none"}

    def run(kind: int, number: int, error: str, *, is_lasting: bool = False, dies: bool = False) -> Seen:
        shutil.rmtree(path.parent, ignore_errors=True)
        shutil.copytree(folder / state, path.parent)

        def work() -> Seen:
            _shim.fail_calls(bytes(path.parent), kind, ctypes.c_long(number), getattr(errno, error), is_lasting)
            return observe(Work(path, arguments), is_lasting=is_lasting, dies=dies)

        seen: Seen = in_child(work) or {"wedged": True, "saved": {}, "left": []}
        saved = {**accepted, **{int(priority): is_accepted for priority, is_accepted in seen["saved"].items()}}
        judged: Seen = in_child(lambda: judge(path, saved)) or {"lost": ["the next opening hangs"]}
        if is_lasting:  # SQLite may find a commit in its log whose sync failed, if it could not remove it
            judged.pop("untrue", None)
        return {**seen, **judged, "left": seen["left"] + judged.get("left", [])}

    counted = run(0, 10**9, "EIO")
    if any(counted[column] for column in COLUMNS[1:]):
        raise RuntimeError(f"{scenario}: the work itself fails: {counted}")
    for kind, (call, errors) in enumerate(CALLS.items()):
        if call not in (kinds or CALLS):
            continue
        cases = list(product(range(1, counted["calls"][kind] + 1), errors, (False, True), (False, True)))
        cases = [case for case in cases if not (case[2] and ONCE & {call, case[1]})]
        counts: Counter[str] = Counter()
        examples = []
        for number, error, is_lasting, dies in cases[random.randrange(stride) :: stride]:
            seen = run(kind, number, error, is_lasting=is_lasting, dies=dies)
            counts.update({"cases": 1}, **{column: int(bool(seen.get(column))) for column in COLUMNS[1:]})
            if any(seen.get(column) for column in COLUMNS[2:]):
                examples.append({"case": [call, number, error, is_lasting, dies], **seen})
        yield {"call": call, "counts": counts, "examples": examples}


def main(folder: Path, scenario: str, stride: int, kinds: list[str]) -> None:
    """Run a scenario, and print what it shows."""
    logging.getLogger("photometry_tasks").addHandler(logging.NullHandler())
    status_file._INTERVAL = status_file._SHARE = throughput._INTERVAL = 0  # type: ignore[misc]  # each save writes both
    for group in sweep(folder, scenario, stride, kinds):
        print(json.dumps(group), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
