"""`TodoList`: what it reads, from lists of any release, and that it changes nothing."""

import os
import pickle
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from photometry_tasks import STATUS, TaskManager, TodoList
from photometry_tasks.errors import (
    ClosedError,
    DamagedFileError,
    InvalidArgumentError,
    NotATodoFileError,
    OutdatedSchemaError,
    ReadOnlyError,
    TodoFileNotFoundError,
    UnknownRevisionError,
    UnreadableValueError,
    ValuesChangedError,
)
from photometry_tasks.export import export_tasks
from photometry_tasks.models import Diagnostics, Task
from photometry_tasks.reading.columns import COLUMNS
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import upgrade_list
from tests.support.lists import checksum, make_file, many, query, result_of
from tests.support.old_files import RELEASES, make_old_file
from tests.support.paths import SHARED
from tests.support.processes import kill, received, running

MODES = pytest.mark.parametrize("in_memory", [False, True])


def run_campaign(target: Any, **how: Any) -> None:
    """Save results: task 1 covers task 2, tasks 3 and 4 fail alike, task 5 fails otherwise, task 6 has own values."""
    with TaskManager(target, version="v1", **how) as manager:
        (bright,) = manager.claim_tasks(1, priority=1)
        manager.save_result(result_of(bright, mean_flux=1.5, mask_size=7, skip_targets=[102]))
        for priority, text in ((3, "pixel 17 is dead"), (4, "pixel 4 is dead"), (5, "no flux")):
            (task,) = manager.claim_tasks(1, priority=priority)
            manager.save_result(result_of(task, STATUS.ERROR, errors=["Traceback", text], kind="ValueError"))
        (last,) = manager.claim_tasks(1, priority=6)
        manager.save_result(
            result_of(last, STATUS.WARNING, errors=["close to the edge"], extra={"snr": 3, "grade": "A"})
        )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def target(todo: Callable[..., Any]) -> Any:
    """Create a list of 8 tasks with results, in a file or on a server."""
    path = todo(*many(8))
    run_campaign(path)
    return path


# --- what it reads ---------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_counts(target: Any) -> None:
    """The counts are those of the table, by the name of the status, with the arguments of `build_constraints`."""
    todo = TodoList(target)
    counts = {"PENDING": 2, "OK": 1, "ERROR": 3, "WARNING": 1, "SKIPPED": 1}
    assert {name: number for name, number in todo.counts().items() if number} == counts
    assert list(todo.counts()) == ["PENDING", *STATUS.__members__]
    assert todo.counts(priority=[1, 2, 3])["OK"] == 1
    assert len(todo) == 8
    assert "8 tasks (2 PENDING, 1 OK, 3 ERROR, 1 WARNING, 1 SKIPPED)" in repr(todo)
    with TaskManager(target, reset=False) as manager:
        for text in (todo._repr_html_(), manager._repr_html_()):
            assert "<th>tasks</th><td>8</td></tr>" in text
            assert "<th>ERROR</th><td>3</td></tr>" in text


@pytest.mark.both_databases
def test_select(target: Any) -> None:
    """The rows are plain dicts with all columns, in order of priority."""
    rows = list(TodoList(target).select())
    assert [row["priority"] for row in rows] == list(range(1, 9))
    assert all(list(row) == [*COLUMNS, "extra_grade", "extra_snr"] for row in rows)
    assert {type(value) for row in rows for value in row.values()} == {int, float, str, type(None)}
    first, second, third, *_, sixth, _, last = rows
    assert (first["status_name"], first["mean_flux"], first["mask_size"], first["attempts"]) == ("OK", 1.5, 7, 1)
    assert (second["status_name"], second["skipped_by"], second["attempts"]) == ("SKIPPED", 1, 0)
    assert (third["errors"], third["version"]) == ("Traceback\npixel 17 is dead", "v1")
    assert (sixth["extra_snr"], sixth["extra_grade"]) == (3, "A")
    assert (last["status_name"], last["version"], last["extra_snr"]) == ("PENDING", None, None)


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"status": STATUS.OK}, [1]),
        ({"status": [None, STATUS.WARNING]}, [6, 7, 8]),
        ({"tmag_max": 3, "status": STATUS.ERROR}, [3, 4]),
        ({"starid": [101, 102]}, [1, 2]),
        ({"camera": 2}, []),
    ],
)
def test_which_tasks(target: Any, arguments: dict[str, Any], expected: list[int]) -> None:
    """The status and the constraints choose tasks; the named columns come in the order of their names."""
    rows = list(TodoList(target).select(columns=["starid", "priority"], **arguments))
    assert rows == [{"starid": 100 + priority, "priority": priority} for priority in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": "mean_flx"}, r"columns='mean_flx': there is no such column; is it 'mean_flux'\?"),
        ({"columns": ["starid", "extra_sn"]}, r"columns='extra_sn': .* is it 'extra_snr'\?"),
        ({"columns": []}, r"columns=\[\]: one name or several are expected"),
        ({"columns": 5}, "columns=5: a non-empty text is expected"),
        ({"status": 17}, "status=17: .* expected"),
        ({"camera": "x"}, "camera='x'"),
    ],
)
@pytest.mark.parametrize("method", ["select", "to_table", "to_arrow"])
def test_wrong_arguments(target: Any, method: str, arguments: dict[str, Any], message: str) -> None:
    """A wrong argument is named by the call itself, not by the first row."""
    with pytest.raises(InvalidArgumentError, match=message):
        getattr(TodoList(target), method)(**arguments)


@pytest.mark.both_databases
def test_pages(todo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come in pages; between two rows no transaction is open, and later pages have what was saved meanwhile."""
    path = todo(*many(20))
    monkeypatch.setattr("photometry_tasks.reading.rows.FIRST_PAGE", 3)
    monkeypatch.setattr("photometry_tasks.reading.rows.PAGE", 5)
    rows = TodoList(path).select(columns=["priority", "status"])
    assert next(rows) == {"priority": 1, "status": None}
    with TaskManager(path) as manager:
        manager.save_results(result_of({"priority": priority}) for priority in (2, 20))
    found = {row["priority"]: row["status"] for row in rows}
    assert list(found) == list(range(2, 21))
    assert (found[2], found[20]) == (None, 1)


@pytest.mark.both_databases
def test_own_values_that_change(todo: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own values come as they were saved, whatever types they have later; columns of tables have one type for all."""
    path = todo(*many(20))
    monkeypatch.setattr("photometry_tasks.reading.rows.FIRST_PAGE", 3)
    monkeypatch.setattr("photometry_tasks.reading.rows.PAGE", 5)
    with TaskManager(path) as manager:
        for priority in range(1, 17):
            manager.save_result(result_of({"priority": priority}, extra={"v": priority, f"of_{priority}": True}))
        rows = TodoList(path).select(columns=["extra_v", "extra_of_16"])
        assert next(rows) == {"extra_v": 1, "extra_of_16": None}
        for priority, value in ((18, 2.5), (19, "text"), (20, None)):
            manager.save_result(result_of({"priority": priority}, extra={"v": value}))
    assert [row["extra_v"] for row in rows] == [*range(2, 17), None, 2.5, "text", None]
    column = TodoList(path).to_arrow(columns="extra_v")["extra_v"]
    assert column.to_pylist() == [*map(str, range(1, 17)), None, "2.5", "text", None]
    assert TodoList(path).to_pandas(columns="extra_v", priority=[1, 18])["extra_v"].tolist() == [1.0, 2.5]
    assert list(TodoList(path).to_table(columns="extra_v", priority=[2, 3])["extra_v"]) == [2, 3]
    assert TodoList(path).star(100 + 1)[0]["result"]["extra"] == {"v": 1, "of_1": True}

    monkeypatch.setattr("photometry_tasks.export.tasks.find_own_columns", lambda *_: [sa.Column("extra_v", sa.Integer)])
    with pytest.raises(ValuesChangedError, match=r"extra_v had only values of type int before, and now has 2\.5"):
        export_tasks(path, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.both_databases
def test_star(target: Any) -> None:
    """A star has its tasks, each with its result, the tasks that it covers or that cover it, and its attempts."""
    todo = TodoList(target)
    (bright,), (covered,), (failed,), (other,) = map(todo.star, (101, 102, 103, 106))
    cover = {"priority": 1, "starid": 101, "datasource": "ffi", "tmag": 0.0}
    assert bright["covers"] == [{"priority": 2, "starid": 102, "datasource": "ffi", "tmag": 1.0}]
    assert (covered["covered_by"], covered["result"], covered["attempts"]) == ([cover], None, [])
    assert (bright["result"]["mask_size"], bright["result"]["version"], bright["result"]["extra"]) == (7, "v1", {})
    assert other["result"]["extra"] == {"snr": 3, "grade": "A"}
    (attempt,) = failed["attempts"]
    assert list(attempt) == ["attempt", "worker", "host", "version", "begun", "ended", "how", "kind", "errors"]
    assert (attempt["how"], attempt["kind"], attempt["version"]) == ("ERROR", "ValueError", "v1")
    assert attempt["begun"] <= attempt["ended"]
    assert attempt["ended"].utcoffset().total_seconds() == 0
    assert todo.star(999) == []


@pytest.mark.both_databases
def test_errors(target: Any) -> None:
    """Failures are grouped by kind and by message without its numbers, the commonest first; a warning is none."""
    todo = TodoList(target)
    dead, without_flux = todo.errors()
    (host,) = dead["hosts"]
    shared = {"kind": "ValueError", "message": "pixel # is dead", "first": 3, "last": 4, "starid": 103}
    assert dead == {**shared, "count": 2, "hosts": {host: 2}}
    assert (without_flux["message"], without_flux["count"]) == ("no flux", 1)
    assert [group["message"] for group in todo.errors(priority=5)] == ["no flux"]


#: The beginning of a traceback.
FRAME = 'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    g()\n'


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (f"{FRAME}ValueError: flux is NaN\nsee the log\nfor details", "ValueError: flux is NaN"),
        (f"{FRAME}    ^^^\nKeyError: 1\n\nDuring handling:\n\n{FRAME}OSError: no", "OSError: no"),
        ('  File "a.py", line 3\n    x = (\n        ^\nSyntaxError: never closed', "SyntaxError: never closed"),
        ("one\ntwo \n\n", "two"),
        ('  File "a.py", line 3\n    only frames', "only frames"),
        ("", "(no text)"),
    ],
)
def test_the_line_that_says_what_is_wrong(todo: Callable[..., Path], errors: str, message: str) -> None:
    """Errors are grouped by the line that begins the exception, whatever lines follow."""
    path = todo({}, {})
    with TaskManager(path) as manager:
        manager.save_result(result_of({"priority": 1}, STATUS.ERROR, errors=[errors]))
    assert [group["message"] for group in TodoList(path).errors()] == [re.sub(r"\d", "#", message)]


@pytest.mark.both_databases
def test_estimate(target: Any) -> None:
    """The estimate has the tasks that are left, and hours from the run times of the results."""
    todo = TodoList(target)
    found = todo.estimate()
    assert found["tasks"] == 2
    assert found["cpu_hours_low"] < 3 / 3600 < found["cpu_hours_high"]
    assert found["cpu_hours_done"] == pytest.approx(7.5 / 3600)
    assert found["jobs"] == pytest.approx(7.5, rel=0.2)  # in about a second
    assert found["hours_low"] < 3 / 3600 / found["jobs"] < found["hours_high"]
    assert todo.estimate(jobs=2)["jobs"] == 2
    assert todo.estimate(priority=1)["tasks"] == 0
    assert todo.plan(1, 1.0, camera=1)["done_low"] == 2


@pytest.mark.both_databases
def test_a_sample_of_a_large_list(database: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate of a sample from all parts of a list is close to that of the whole list."""
    rows = [{"tmag": 5 + n / 200, "camera": 1 + n % 4, "status": None if n % 5 else 1} for n in range(2000)]
    target = database(rows)
    results = [{"priority": n + 1, "method_used": "a", "elaptime": 60.0 * (1 + n % 3)} for n in range(0, 2000, 5)]
    engine = sa.create_engine(target if "://" in str(target) else f"sqlite:///{target}")
    with engine.begin() as connection:
        connection.execute(sa.insert(Diagnostics), results)
    engine.dispose()
    todo = TodoList(target)
    whole = todo.estimate(2), todo.plan(2, 20)
    monkeypatch.setattr("photometry_tasks.sql.run_times._TASKS", 5)
    monkeypatch.setattr("photometry_tasks.sql.run_times._PARTS", 40)
    sample = todo.estimate(2), todo.plan(2, 20)
    assert sample[0]["tasks"] == whole[0]["tasks"] == 1600
    assert sample[1]["tasks"] == 1600
    assert sample[0]["cpu_hours_done"] == pytest.approx(whole[0]["cpu_hours_done"], rel=0.2)
    for name in ("cpu_hours", "cpu_hours_low", "hours_low"):
        assert sample[0][name] == pytest.approx(whole[0][name], rel=0.3)
    assert sample[1]["done_low"] == pytest.approx(whole[1]["done_low"], rel=0.3)
    assert todo.estimate(2, camera=2)["tasks"] == 400


def test_a_part_of_the_list_without_results(todo: Callable[..., Path]) -> None:
    """For tasks among which none has a result, the results of the others count."""
    path = todo(*({"tmag": 8.0 + n / 10} for n in range(80)))
    with TaskManager(path) as manager:
        manager.save_results([{**result_of(task), "time": 3600.0} for task in manager.claim_tasks(40)])
    reader = TodoList(path)
    found = reader.estimate(1, tmag_min=12.0)
    assert found["tasks"] == 40
    assert found["cpu_hours_low"] < 40 < found["cpu_hours_high"]
    assert found["cpu_hours_done"] == 0
    assert reader.plan(1, 10.0, tmag_min=12.0)["done_low"] > 0


def test_times_of_tasks_that_were_reset(todo: Callable[..., Path]) -> None:
    """Where the results were deleted, the history of the attempts has run times."""
    path = todo(*many(4))
    with TaskManager(path) as manager:
        for task in manager.claim_tasks(2):
            manager.save_result({**result_of(task), "time": 1000.0})
        manager.cursor.execute("UPDATE photometry_tasks_attempts SET begun = ended - 1000")
        manager.conn.commit()
        manager.reset_tasks(everything=True)
    found = TodoList(path).estimate()
    assert (found["tasks"], found["cpu_hours_done"]) == (4, 0.0)
    assert found["cpu_hours_low"] < 4000 / 3600 < found["cpu_hours_high"]


@pytest.mark.parametrize(
    ("method", "arguments", "match"),
    [
        ("estimate", {"jobs": 0}, "jobs=0: a number of workers above 0 is expected"),
        ("estimate", {"jobs": "two"}, "jobs='two'"),
        ("plan", {"jobs": 2, "hours": -1}, "hours=-1: a number of hours above 0"),
        ("plan", {"jobs": 2, "hours": float("nan")}, "hours=nan"),
    ],
)
def test_refused_estimates(todo: Callable[..., Path], method: str, arguments: Any, match: str) -> None:
    """A number that is no number of workers or hours is refused."""
    with pytest.raises(InvalidArgumentError, match=match):
        getattr(TodoList(todo({})), method)(**arguments)


def test_rows_become_objects_after_the_transaction(target: Path) -> None:
    """While a query of the session builds its objects, a manager can open the list."""
    opened = []

    def open_list(task: Task, _: Any) -> None:
        if task.priority == 1:
            TaskManager(target, reset=False).close()
            opened.append(task)

    sa.event.listen(Task, "load", open_list)
    try:
        with TodoList(target) as todo:
            assert len(todo.session.scalars(sa.select(Task)).all()) == 8
    finally:
        sa.event.remove(Task, "load", open_list)
    assert len(opened) == 1


@pytest.mark.both_databases
def test_session(target: Any) -> None:
    """The session reads the models, also objects and results in parts, and ends each query's transaction."""
    with TodoList(target) as todo:
        session = todo.session
        query = sa.select(Task.starid, Diagnostics.mean_flux).join(Diagnostics, Task.priority == Diagnostics.priority)
        assert session.execute(query.where(Task.status == 1)).all() == [(101, 1.5)]
        task = session.get(Task, 3)
        assert not session.in_transaction()
        assert task is not None
        assert task.starid == 103  # read already
        assert len(list(session.scalars(sa.select(Task).execution_options(yield_per=2)))) == 8
        session.rollback()
        assert session.connection().exec_driver_sql("SELECT count(*) FROM todolist").scalar() == 8
        session.rollback()
        assert todo.session is session


@pytest.mark.sample(5)
@pytest.mark.both_databases
@MODES
@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.add(Task(priority=99, starid=1)) or session.commit(),
        lambda session: setattr(session.get(Task, 1), "status", None) or session.flush(),
        lambda session: session.delete(session.get(Task, 1)) or session.flush(),
        lambda session: session.execute(sa.insert(Task).values(priority=99)),
        lambda session: session.execute(sa.text("DELETE FROM todolist")),
        lambda session: session.connection().exec_driver_sql("CREATE TABLE mine (x INTEGER)"),
    ],
)
def test_refused_changes(target: Any, in_memory: bool, change: Callable[[Any], Any]) -> None:
    """The session refuses every change with an error that names the way out, on the copy of a list in memory too."""
    with TaskManager(target, load_into_memory=in_memory, reset=False) as manager, TodoList(target) as todo:
        if in_memory:
            manager.save_result(result_of({"priority": 8}))
        before = list(todo.select())
        with pytest.raises(ReadOnlyError, match=r"would change it\. Open it with TaskManager"):
            change(todo.session)
        todo.session.rollback()
        assert todo.session.scalar(sa.select(sa.func.count(Task.priority))) == 8
        assert list(todo.select()) == before


# --- lists of any release, in any place ------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.parametrize("in_wal_mode", [False, True])
@pytest.mark.parametrize("with_results", [False, True])
@pytest.mark.parametrize("release", RELEASES)
def test_old_files(tmp_path: Path, release: str, with_results: bool, in_wal_mode: bool) -> None:
    """A file of any release is read as it is, and nothing stays beside it; columns that it lacks hold None."""
    path = make_old_file(tmp_path / "old.sqlite", release, results=with_results)
    if in_wal_mode:
        leave_in_wal_mode(path)
    before = checksum(path), names_in(tmp_path)
    todo = TodoList(path)
    rows = list(todo.select())
    assert [row["priority"] for row in rows] == list(range(1, 61))
    assert {row["cadence"] is None for row in rows} == {release < "6.0"}
    assert {row["attempts"] for row in rows} == {None}
    assert [row["skipped_by"] for row in rows if row["status_name"] == "SKIPPED"] == [9, 19, 29, 39, 49][
        : 5 * with_results
    ]
    assert sum(group["count"] for group in todo.errors()) == todo.counts()["ERROR"] == 12 * with_results
    assert len(todo.star(1003)) == 2
    assert todo.estimate()["tasks"] == todo.counts()["PENDING"]
    if release < "6.0":
        by_session = lambda **given: todo.session.scalars(sa.select(Task).filter_by(**given)).all()  # noqa: E731
        for read in (todo.counts, todo.errors, lambda **given: next(todo.select(**given)), by_session):
            with pytest.raises(OutdatedSchemaError, match="photometry-tasks upgrade"):
                read(cadence=1800)
    assert (checksum(path), names_in(tmp_path)) == before
    upgrade_list(parse_location(path))
    assert {row["attempts"] for row in todo.select()} == {0}  # the same reader sees the upgrade


@pytest.mark.parametrize("name", ["todo-v3.0.sqlite", "todo-v4.4.sqlite", "todo-v5.0.sqlite", "todo-v6.0.sqlite"])
def test_real_files(tmp_path: Path, name: str) -> None:
    """A real file of an earlier release of TASOC is read, and stays as it is."""
    source = SHARED / "data/legacy" / name
    if not source.is_file():
        pytest.skip(f"{source} is not there")
    path = Path(shutil.copy(source, tmp_path))
    before = checksum(path)
    todo = TodoList(path)
    assert len(list(todo.select())) == len(todo) == query(path, "SELECT count(*) FROM todolist")[0][0]
    assert sum(group["count"] for group in todo.errors()) == todo.counts()["ERROR"] + todo.counts()["ABORT"]
    assert checksum(path) == before


def test_what_is_no_list(tmp_path: Path) -> None:
    """A missing, empty, cut or foreign file, and one of a newer release, is refused at once, and not changed."""
    with pytest.raises(TodoFileNotFoundError):
        TodoList(tmp_path / "missing.sqlite")
    todo = make_file(tmp_path / "todo.sqlite", []).read_bytes()
    contents = {b"": NotATodoFileError, b"something else": NotATodoFileError, todo[:5000]: DamagedFileError}
    for sql, error in (
        ("DROP TABLE todolist", NotATodoFileError),
        ("UPDATE photometry_tasks_version SET version_num = '9999'", UnknownRevisionError),
    ):
        with closing(sqlite3.connect(tmp_path / "todo.sqlite")) as connection, connection:
            connection.execute(sql)
        contents[(tmp_path / "todo.sqlite").read_bytes()] = error
        (tmp_path / "todo.sqlite").write_bytes(todo)
    path = tmp_path / "other.sqlite"
    for content, error in contents.items():
        path.write_bytes(content)
        before = checksum(path)
        with pytest.raises(error):
            TodoList(path)
        assert checksum(path) == before


def test_a_foreign_value(target: Path) -> None:
    """A value of a wrong type raises an error that names it, when its row is read."""
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("UPDATE todolist SET camera = 'one' WHERE priority = 2")
        connection.commit()
    todo = TodoList(target)
    with pytest.raises(UnreadableValueError, match=r"todolist.camera is 'one' in the row with priority 2"):
        list(todo.select())
    assert len(list(todo.select(columns="starid"))) == 8


# --- beside managers -------------------------------------------------------------------------------------


@MODES
def test_beside_a_manager(target: Path, in_memory: bool) -> None:
    """A reader sees each result once it is saved, before and after backups, and the manager closes without a trace."""
    todo = TodoList(target)
    with TaskManager(target, load_into_memory=in_memory, reset=False) as manager:
        for priority in (7, 8):
            manager.save_result(result_of({"priority": priority}))
            assert todo.star(100 + priority)[0]["status_name"] == "OK"
            assert todo.star(100 + priority)[0]["result"]["elaptime"] == 1.5
        manager.reset_tasks(priority=8)
        assert todo.counts()["PENDING"] == 1
        manager.backup()
        assert todo.counts()["PENDING"] == 1
        manager.save_result(result_of({"priority": 8}))
        assert todo.counts()["PENDING"] == 0
    assert names_in(target.parent) == [target.name]
    assert todo.counts()["OK"] == 3


def save_many(connection: Connection, path: Path, in_memory: bool) -> None:
    with TaskManager(path, load_into_memory=in_memory, backup_interval=7) as manager:
        for priority in range(1, 61):
            manager.save_result(result_of({"priority": priority}))
            connection.send(priority)


@MODES
def test_while_a_manager_works(tmp_path: Path, in_memory: bool) -> None:
    """While a manager in another process saves and backs up, a reader always sees each acknowledged result."""
    path = make_file(tmp_path / "todo.sqlite", many(60))
    todo = TodoList(path)
    with running(save_many, path, in_memory) as (process, connection):
        for acknowledged in received(connection):
            found = [row["priority"] for row in todo.select(status=STATUS.OK, columns="priority")]
            assert found[:acknowledged] == list(range(1, acknowledged + 1))
            assert todo.counts()["OK"] >= len(found)
        process.join()
        assert process.exitcode == 0
    assert todo.counts()["OK"] == 60
    assert names_in(tmp_path) == ["todo.sqlite"]


def save_and_wait(connection: Connection, path: Path, in_memory: bool) -> None:
    manager = TaskManager(path, load_into_memory=in_memory, reset=False)
    manager.save_result(result_of({"priority": 7}))
    connection.send(None)
    connection.recv()


@MODES
def test_after_a_kill(target: Path, in_memory: bool) -> None:
    """The results of a killed manager are seen, and its files stay for the next opening."""
    with running(save_and_wait, target, in_memory) as (process, connection):
        connection.recv()
        kill(process)
    names = names_in(target.parent)
    before = [checksum(target.with_name(name)) for name in names if not name.endswith("-shm")]
    assert TodoList(target).star(107)[0]["status_name"] == "OK"
    assert names_in(target.parent) == names
    assert [checksum(target.with_name(name)) for name in names if not name.endswith("-shm")] == before
    with TaskManager(target, reset=False):
        assert TodoList(target).counts()["PENDING"] == 1


def test_a_file_that_comes_and_goes(target: Path) -> None:
    """If the file is deleted the next call says so, and after it is back the same reader reads it."""
    todo = TodoList(target)
    aside = target.rename(target.with_name("aside.sqlite"))
    with pytest.raises(TodoFileNotFoundError):
        todo.counts()
    assert "does not exist" in repr(todo)
    assert "does not exist" in todo._repr_html_()
    aside.rename(target)
    assert len(todo) == 8


# --- threads, processes, closing -------------------------------------------------------------------------


@pytest.mark.both_databases
def test_threads_and_processes(target: Any) -> None:
    """A reader works in other threads at once, in a forked child, and after pickling."""
    todo = TodoList(target)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append((len(list(todo.select())), todo.session.get(Task, 1).starid)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(8, 101)] * 4
    copy = pickle.loads(pickle.dumps(todo))
    assert copy.counts() == todo.counts()
    child = os.fork()
    if child == 0:
        os._exit(len(todo) if todo.session.get(Task, 2) is not None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
    assert len(todo) == 8


@pytest.mark.parametrize("call", [len, pickle.dumps, TodoList.counts, TodoList.select, lambda todo: todo.session])
def test_after_closing(target: Path, call: Callable[[TodoList], Any]) -> None:
    """After closing, each call says that the reader is closed; closing again does nothing."""
    with TodoList(target) as todo:
        _ = todo.session
    todo.close()
    assert "closed" in repr(todo)
    with pytest.raises(ClosedError, match=r"The TodoList of .* is closed. Open it again with TodoList\("):
        call(todo)


# --- tables ----------------------------------------------------------------------------------------------

TYPES = [("priority", int), ("mean_flux", float), ("mask_size", int), ("errors", str), ("extra_snr", int)]


@pytest.mark.both_databases
def test_to_table(target: Any) -> None:
    """An astropy table has units, descriptions and masked missing values, and integers stay integers."""
    table = TodoList(target).to_table(columns=[name for name, _ in TYPES])
    assert (str(table["mean_flux"].unit), table["mean_flux"].description) == ("electron / s", COLUMNS["mean_flux"].doc)
    assert [table[name].dtype.kind for name, _ in TYPES] == ["i", "f", "i", "U", "i"]
    assert list(table["mask_size"].mask) == [False] + [True] * 7
    assert (table["mask_size"][0], table["extra_snr"][5]) == (7, 3)
    assert len(TodoList(target).to_table(camera=7)) == 0
    assert TodoList(target).to_table(camera=7)["priority"].dtype.kind == "i"


@pytest.mark.both_databases
def test_to_arrow(target: Any) -> None:
    """An Arrow table has units and descriptions in the metadata of its fields, and the rows of `select`."""
    todo = TodoList(target)
    table = todo.to_arrow()
    assert table.to_pylist() == list(todo.select())
    assert table.schema.field("tmag").metadata == {b"unit": b"mag", b"description": b"TESS magnitude"}
    assert todo.to_arrow(camera=7).schema.field("mask_size").type == table.schema.field("mask_size").type


def test_to_pandas(target: Path) -> None:
    """A frame of pandas has integers, with NA for missing ones, and the units in its attributes."""
    pandas = pytest.importorskip("pandas")
    todo = TodoList(target)
    frame = todo.to_pandas()
    assert [str(frame[name].dtype) for name, _ in TYPES] == ["Int64", "Float64", "Int64", "string", "Int64"]
    assert frame["mask_size"].sum() == 7
    assert frame["mask_size"][1] is pandas.NA
    assert frame.attrs["elaptime"] == {"unit": "s", "description": "Run time"}
    assert len(todo.to_pandas(camera=7)) == 0


def test_a_missing_library(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library of a table, the error names the extra that installs it."""
    for name, extra, method in (("astropy", "astropy", "to_table"), ("pandas", "pandas", "to_pandas")):
        for module in (name, f"{name}.table"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"{name} is missing .* Run: pip install 'photometry_tasks\[{extra}\]'"):
            getattr(TodoList(target), method)()


# --- read-only places ------------------------------------------------------------------------------------


def leave_in_wal_mode(path: Path) -> None:
    """Change a file as a program that leaves it in WAL mode."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.commit()


def leave_a_log(path: Path) -> None:
    with running(save_and_wait, path, True) as (process, connection):
        connection.recv()
        kill(process)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("leave", [lambda _path: None, leave_in_wal_mode, leave_a_log])
def test_a_read_only_place(target: Path, leave: Callable[[Path], None]) -> None:
    """A file is read though neither it nor its folder can be written, whatever its last writer left."""
    leave(target)
    folder = target.parent
    place = Path(tempfile.mkdtemp(prefix="read-only-"))
    for path in folder.iterdir():
        shutil.copy(path, place)
        (place / path.name).chmod(0o444)
    place.chmod(0o555)
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        todo = TodoList(place / target.name)
        os._exit(todo.counts()["OK"] * 10 + len(list(todo.select())) + len(todo.session.scalars(sa.select(Task)).all()))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert names_in(place) == names_in(folder)
    shutil.rmtree(place)
    assert code == (36 if leave is leave_a_log else 26)
