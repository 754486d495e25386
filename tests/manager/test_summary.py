"""Contract 8: the summary of a run."""

import json
import math
import os
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidArgumentError, NotWritableError
from photometry_tasks.maintenance.status import get_status
from tests.support.lists import ask, execute_sql, result_of
from tests.support.processes import running

pytestmark = pytest.mark.both_databases

KEYS = {"slurm_jobid", "numtasks", "tasks_run", "last_error", "mean_elaptime", "mean_worker_waittime"}


def strict(path: str | Path) -> dict[str, Any]:
    """Read strict JSON: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    loaded: dict[str, Any] = json.loads(Path(path).read_text(), parse_constant=refuse)
    return loaded


def counts(manager: TaskManager) -> dict[str, int]:
    """Check that the counts add up, and return the nonzero counts."""
    numbers = {status.name: manager.summary[status.name] for status in STATUS}
    assert min(numbers.values()) >= 0
    assert sum(numbers.values()) + manager.get_number_tasks() == manager.summary["numtasks"]
    return {name: number for name, number in numbers.items() if number}


def test_keys(opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The summary has the keys that monitors read, and a count for each status."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    summary = opened({}, {}, summary=tmp_path / "summary.json").summary
    assert set(summary) == KEYS | {status.name for status in STATUS}
    assert (summary["slurm_jobid"], summary["numtasks"], summary["mean_elaptime"]) == (None, 2, None)
    assert strict(tmp_path / "summary.json") == summary


@pytest.mark.parametrize(("job", "shown"), [("123", "123"), ("", None)])
def test_slurm_jobid(
    opened: Callable[..., TaskManager], monkeypatch: pytest.MonkeyPatch, job: str, shown: str | None
) -> None:
    """The job id comes from SLURM's environment variable; an empty variable is none."""
    monkeypatch.setenv("SLURM_JOB_ID", job)
    assert opened({}).summary["slurm_jobid"] == shown


def test_the_counts_are_the_tables(opened: Callable[..., TaskManager]) -> None:
    """After each kind of change, the counts equal those of the table."""
    manager = opened(*[{"tmag": float(number)} for number in range(8)])
    assert counts(manager) == {}
    manager.start_task(1)
    manager.start_task(1)
    assert counts(manager) == {"STARTED": 1}
    manager.save_result(result_of({"priority": 1}, skip_targets=[102, 103]))
    assert counts(manager) == {"OK": 1, "SKIPPED": 2}
    manager.save_result(result_of({"priority": 2}, STATUS.ERROR))
    manager.save_result(result_of({"priority": 4}, STATUS.UNKNOWN))
    assert counts(manager) == {"OK": 1, "SKIPPED": 2, "UNKNOWN": 1}
    manager.save_result(result_of({"priority": 1}, STATUS.WARNING))
    assert counts(manager) == {"WARNING": 1, "UNKNOWN": 1}
    manager.save_result(result_of({"priority": 2}, STATUS.ERROR))
    assert counts(manager) == {"WARNING": 1, "ERROR": 1, "UNKNOWN": 1}
    assert manager.summary["tasks_run"] == 5
    manager.start_task(5)
    manager.release_tasks([5])
    assert counts(manager) == {"WARNING": 1, "ERROR": 1, "UNKNOWN": 1}


@pytest.mark.files_only
def test_others_changes_count(opened: Callable[..., TaskManager]) -> None:
    """Changes of the caller or of another program are counted; rolled-back changes are not."""
    manager = opened({}, {}, {})
    execute_sql(manager, "UPDATE todolist SET status = 1 WHERE priority = 1")
    assert counts(manager) == {"OK": 1}
    with closing(sqlite3.connect(manager.todo_file)) as other:
        other.execute("UPDATE todolist SET status = 4 WHERE priority = 2")
        other.commit()
    assert counts(manager) == {"OK": 1, "ABORT": 1}
    manager.cursor.execute("UPDATE todolist SET status = 1")
    manager.conn.rollback()
    assert counts(manager) == {"OK": 1, "ABORT": 1}
    execute_sql(manager, "UPDATE todolist SET status = 99 WHERE priority = 3")
    assert counts(manager) == {"OK": 1, "ABORT": 1, "UNKNOWN": 1}


def test_it_is_one_dict(opened: Callable[..., TaskManager]) -> None:
    """The summary is always the same dict: a pipeline may keep it."""
    manager = opened({})
    summary = manager.summary
    manager.start_task(1)
    assert manager.summary is summary
    assert summary["STARTED"] == 1


KEEP: dict[str, Any] = {"tasks_run": 5, "mean_elaptime": 1.0, "mean_worker_waittime": None, "note": "by hand"}


@pytest.mark.parametrize("given", [{}, KEEP, {"OK": 99, "STARTED": -1, "numtasks": None}, "itself", "del", "clear"])
def test_a_pipeline_may_change_it(opened: Callable[..., TaskManager], tmp_path: Path, given: Any) -> None:
    """A pipeline may assign the summary, or remove its items: saves count on, and the counts are the table's."""
    manager = opened({}, {}, summary=tmp_path / "summary.json", summary_interval=1)
    manager.save_result(result_of({"priority": 1}))
    summary, known = manager.summary, given if isinstance(given, dict) else {}
    if given == "del":
        del summary["tasks_run"]
    elif given == "clear":
        summary.clear()
    else:
        manager.summary = summary if given == "itself" else given
    manager.save_result(result_of({"priority": 2}, STATUS.ERROR))
    assert manager.summary is summary
    assert counts(manager) == {"OK": 1, "ERROR": 1}
    assert summary["tasks_run"] == 1 + (1 if given == "itself" else known.get("tasks_run", 0))
    assert summary["mean_elaptime"] == (1.05 if known is KEEP else 1.5)
    assert strict(tmp_path / "summary.json") == summary
    assert known.get("tasks_run") in (None, 5)  # the argument is not changed
    for value in (None, 5, [("OK", 1)], "{}"):
        with pytest.raises(InvalidArgumentError, match=r"^summary=.*: a dict is expected\.$"):
            manager.summary = value  # type: ignore[assignment]  # the argument is invalid
    assert manager.summary["note"] == "by hand" if known is KEEP else "note" not in manager.summary


def test_means(opened: Callable[..., TaskManager]) -> None:
    """The means start with the first value; a new value has weight 0.1; missing and infinite waits do not count."""
    manager = opened(*[{} for _ in range(6)])
    waits = [None, 1.0, math.nan, 2.0, math.inf, None]
    mean_time, mean_wait = 0.0, 0.0
    for number, wait in enumerate(waits, start=1):
        manager.save_result({**result_of({"priority": number}), "time": 10.0 * number, "worker_wait_time": wait})
        mean_time = 10.0 if number == 1 else 0.1 * 10 * number + 0.9 * mean_time
        assert manager.summary["mean_elaptime"] == pytest.approx(mean_time)
        if number == 1:
            assert manager.summary["mean_worker_waittime"] is None
    mean_wait = 0.1 * 2.0 + 0.9 * 1.0
    assert manager.summary["mean_worker_waittime"] == pytest.approx(mean_wait)


def test_last_error(opened: Callable[..., TaskManager]) -> None:
    """The last errors stay until the next errors; errors that saving adds count too."""
    manager = opened({}, {}, {"datasource": "tpf:5"})
    manager.save_result(result_of({"priority": 1}, STATUS.ERROR, errors=["a", "b"]))
    manager.save_result(result_of({"priority": 2}))
    assert manager.summary["last_error"] == "a\nb"
    manager.save_result(result_of({"priority": 3}, skip_targets=[5]))
    assert "TargetNotFoundError" in manager.summary["last_error"]


@pytest.mark.parametrize("line", ["x" * 1000, "☆\n" * 500, "\x0c\r\x01" * 300])
def test_long_errors(todo: Callable[..., Path | str], tmp_path: Path, line: str) -> None:
    """Of errors of several MB, the summary and the status show the beginning and the end; all of them are stored."""
    target = todo({}, {})
    errors = "\n".join(["Traceback", line * 2000, "ValueError: no star"])
    with TaskManager(target, summary=tmp_path / "summary.json") as manager:
        manager.save_result(result_of({"priority": 1}, STATUS.ERROR, errors=[errors]))
        manager.write_summary()
        (failed,) = get_status(target)["last_errors"]
        for text in (manager.summary["last_error"], failed["errors"]):
            assert text.startswith("Traceback\n")
            assert text.endswith("\nValueError: no star")
            assert len(text) == 10_000
        assert len(ask(manager, "SELECT errors FROM diagnostics")[0][0]) >= len(errors)
    assert (tmp_path / "summary.json").stat().st_size < 70_000  # up to six bytes a character


@pytest.mark.parametrize("value", [10**5000, math.nan, np.float32(1), {1, 2}, b"x"], ids=type)
def test_a_value_that_json_cannot_hold(opened: Callable[..., TaskManager], tmp_path: Path, value: object) -> None:
    """A value of the caller that JSON cannot hold is refused by name, and the file keeps its content."""
    manager = opened({}, summary=tmp_path / "summary.json")
    before = (tmp_path / "summary.json").read_bytes()
    manager.summary["mine"] = value
    with pytest.raises(InvalidArgumentError, match=r"^summary=.*JSON cannot hold it .*; remove that value"):
        manager.write_summary()
    assert (tmp_path / "summary.json").read_bytes() == before
    del manager.summary["mine"]
    manager.write_summary()


@pytest.mark.parametrize(
    ("interval", "calls", "numbers"),
    [(3, 0, [0, 0, 0, 3, 3]), (3, 2, [0, 0, 1, 3, 3]), (None, 0, [0, 0, 0, 0, 0]), (None, 1, [0, 0, 1, 2, 3])],
)
def test_when_it_is_written(
    opened: Callable[..., TaskManager], tmp_path: Path, interval: int | None, calls: int, numbers: list[int]
) -> None:
    """The file is written at opening, after each interval and at closing; the caller's own calls do not count."""
    path = tmp_path / "new" / "folder" / "summary.json"
    manager = opened(*[{} for _ in range(4)], summary=path, summary_interval=interval)
    written, counters = [strict(path)["tasks_run"]], [manager.summary_counter]
    for priority in range(1, 5):
        manager.save_result(result_of({"priority": priority}))
        written.append(strict(path)["tasks_run"])
        for _ in range(calls):
            manager.write_summary()
            assert strict(path)["tasks_run"] == priority
        counters.append(manager.summary_counter)
    assert written == numbers
    assert counters == ([0, 1, 2, 0, 1] if interval else [0, 1, 2, 3, 4])
    manager.close()
    assert strict(path)["tasks_run"] == 4
    assert strict(path)["OK"] == 4


@pytest.mark.files_only
def test_without_a_path_nothing_is_written(opened: Callable[..., TaskManager]) -> None:
    """Without a path no summary is written, and the counter counts all the same."""
    manager = opened({}, {}, summary_interval=2)
    manager.save_result(result_of({"priority": 1}))
    before = sorted(Path(manager.todo_file).parent.iterdir())
    manager.write_summary()
    assert manager.summary_counter == 1
    manager.save_result(result_of({"priority": 2}))
    assert manager.summary_counter == 0
    assert sorted(Path(manager.todo_file).parent.iterdir()) == before


def test_it_is_written_at_once(opened: Callable[..., TaskManager], tmp_path: Path) -> None:
    """A reader with the file open keeps the complete old file; no other file is left."""
    path = tmp_path / "summary" / "summary.json"
    manager = opened({}, summary=path)
    with path.open() as reader:
        before = path.read_text()
        manager.start_task(1)
        manager.write_summary()
        assert reader.read() == before
    assert path.read_text() != before
    assert list(path.parent.iterdir()) == [path]


def test_it_replaces_only_files(opened: Callable[..., TaskManager], tmp_path: Path) -> None:
    """A pipe or a device, such as /dev/null, is not replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(NotWritableError, match="not a regular file"):
        opened({}, summary=pipe)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", '{"name": "package", "slurm_jobid": 1}', "import os\n", "\n", "{", "\0", '# {"slurm_jobid": null}'],
)
def test_it_replaces_no_other_file(todo: Callable[..., Any], tmp_path: Path, content: str) -> None:
    """A file that is no summary is only replaced by force; otherwise the list is not opened."""
    path = tmp_path / "summary.json"
    path.write_text(content)
    with pytest.raises(InvalidArgumentError, match=r"^summary=.*something else, .* another path, or `force=True`"):
        TaskManager(place := todo({"status": STATUS.ERROR.value}), summary=path)
    assert path.read_text() == content
    with TaskManager(place, summary=path, force=True) as manager:
        assert strict(path) == manager.summary


@pytest.mark.parametrize("content", ["", '{"slurm_jobid": null, "numta', '{\n  "slurm_jobid": "123"\n}'])
def test_it_replaces_summaries(opened: Callable[..., TaskManager], tmp_path: Path, content: str) -> None:
    """An empty file and a summary are replaced, also one that TASOC was writing when it was killed."""
    (tmp_path / "summary.json").write_text(content)
    assert opened({}, summary=tmp_path / "summary.json").summary == strict(tmp_path / "summary.json")


@pytest.mark.parametrize("planted", ["before", "during", "dangling"])
def test_a_planted_link(opened: Callable[..., TaskManager], tmp_path: Path, planted: str) -> None:
    """A symlink in the summary's place is replaced; its target is not changed."""
    path, victim = tmp_path / "summary.json", tmp_path / "victim"
    if planted != "dangling":
        victim.write_text("mine")
    if planted != "during":
        path.symlink_to(victim)
    manager = opened({}, {}, summary=path)
    if planted == "during":
        path.unlink()
        path.symlink_to(victim)
        manager.write_summary()
    assert not path.is_symlink()
    assert strict(path)["numtasks"] == 2
    assert victim.exists() is (planted != "dangling")
    assert planted == "dangling" or victim.read_text() == "mine"


def write_on(connection: Connection, todo_file: Path, path: Path) -> None:
    with TaskManager(todo_file, summary=path, summary_interval=None) as manager:
        connection.send("begun")
        while not connection.poll():
            manager.write_summary()
            manager.summary["tasks_run"] += 1


@pytest.mark.sample(2)
def test_reading_while_it_is_written(todo: Callable[..., Path], tmp_path: Path) -> None:
    """Each of 20,000 reads during continuous writing finds valid and complete JSON."""
    path = tmp_path / "summary.json"
    with running(write_on, todo({}), path) as (_, connection):
        connection.recv()
        seen, reads = set(), 0
        while reads < 20_000 or len(seen) < 50:  # on slow disks too
            seen.add(strict(path)["tasks_run"])
            reads += 1
        connection.send("end")


@pytest.mark.files_only
def test_what_a_killed_writer_left(opened: Callable[..., TaskManager], tmp_path: Path) -> None:
    """The next manager deletes a temporary file of its summary that a killed manager left; other summaries' stay."""
    path = tmp_path / "out" / "summary.json"
    path.parent.mkdir()
    ours, others = (
        path.with_name(f".photometry_tasks-output-{zlib.crc32(name):08x}-0123456789abcdef.tmp")
        for name in (b"summary.json", b"another.json")
    )
    ours.touch()
    others.touch()
    opened({}, summary=path)
    assert sorted(path.parent.iterdir()) == sorted([path, others])


def test_strict_whatever_the_numbers(opened: Callable[..., TaskManager], tmp_path: Path) -> None:
    """The JSON is strict and ASCII with huge numbers, infinite waits, and any text in errors and environment."""
    path = tmp_path / "summary.json"
    manager = opened(*[{} for _ in range(9)], summary=path, summary_interval=1)
    times = [0, 5e-324, 1.7e308, np.float16(6e4), np.longdouble(1), 2**60]
    waits = [math.inf, -math.inf, math.nan, 1.7e308, np.float32("inf"), None]
    for priority, (time, wait) in enumerate(zip(times, waits, strict=True), start=1):
        result = result_of({"priority": priority}, STATUS.ERROR, errors=["\ud800 \0 \u2028 ☆ \x1b"])
        manager.save_result({**result, "time": time, "worker_wait_time": wait})
        assert strict(path)["tasks_run"] == priority
        assert path.read_bytes().isascii()


def test_a_failed_automatic_write_does_not_refuse_the_result(
    opened: Callable[..., TaskManager], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the summary cannot be written, the result is saved, and a warning is logged."""
    folder = tmp_path / "summary"
    manager = opened({}, {}, summary=folder / "summary.json", summary_interval=1)
    (folder / "summary.json").unlink()
    folder.rmdir()
    folder.write_text("a file in its place")
    manager.save_result(result_of({"priority": 1}))
    assert manager.summary["OK"] == 1
    assert "write_summary failed" in caplog.text
    with pytest.raises(OSError, match="summary"):
        manager.write_summary()
    folder.unlink()
    manager.save_result(result_of({"priority": 2}))
    assert strict(folder / "summary.json")["OK"] == 2
