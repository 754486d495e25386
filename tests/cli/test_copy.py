"""`copy_list`: a file is copied to a server and back, with every row and every bit, or not at all."""

import shutil
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert, inspect, select, text

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import (
    CopyError,
    InvalidArgumentError,
    NotATodoFileError,
    OutdatedSchemaError,
    TodoError,
    TodoFileNotFoundError,
    TodoListNotFoundError,
    UnsavedResultsError,
)
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.copy import Copied, copy_list
from photometry_tasks.models import Base, diagnostics, todolist
from photometry_tasks.schema import HEAD, create_schema
from photometry_tasks.storage.sqlite.result_log import ResultLog
from tests.support import old_files
from tests.support.lists import Rows, checksum, make_file, query, result_of
from tests.support.paths import SHARED
from tests.support.servers import SECRET, owned_databases

#: The limits of the columns, and values close to them.
INTEGERS = [2**63 - 1, -(2**63), 0, -1, 2**53 + 1]
REALS = [float("inf"), float("-inf"), 5e-324, -5e-324, sys.float_info.max, 0.1 + 0.2, 1 / 3, 1e23, 0.0, None]
TEXTS = ["", "\n", "a\tb\r\nc", "\\N", "\\.", "\\x41", "'\"", "α é 🌟 \u2028", "x" * 100_000, "NULL", " ", None]


@pytest.fixture
def server(postgresql: Engine) -> Iterator[str]:
    """Create empty databases with a user whose password needs quoting, and return the URL of the first."""
    with owned_databases(postgresql, "copyist", "copying", "copying_too") as url:
        yield url


@pytest.fixture
def on_server(server: str) -> Iterator[Engine]:
    """Return an engine for the database, as another program would use."""
    engine = create_engine(server)
    yield engine
    engine.dispose()


def engine_of(path: Path) -> Engine:
    return create_engine(f"sqlite:///{path}")


def rows_of(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of the tables of a TODO-list, with floats as their bits."""
    with engine.connect() as connection:
        found = {
            table.name: [tuple(map(bits_of, row)) for row in connection.execute(select(table))]
            for table in Base.metadata.sorted_tables
        }
    engine.dispose()
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def bits_of(value: object) -> object:
    return struct.pack(">d", value).hex() if isinstance(value, float) else value


def make_used(path: Path) -> Path:
    """Create a file with results of all kinds, skips, and a task that is still STARTED."""
    rows: Rows = [{"starid": 500 + number, "tmag": 8 + number / 7} for number in range(40)]
    rows[3].update(datasource="tpf:77", method="halo", tmag=None)
    make_file(path, rows)
    with TaskManager(path) as manager:
        for number in range(30):
            (task,) = [manager.get_task(starid=500 + number)] if number % 10 else [manager.get_random_task()]
            if task is None:
                continue
            manager.start_task(task["priority"])
            details = {"errors": [f"wrong\n{number}\t\\ é"]} if number % 3 == 0 else {}
            skips = [539 - number // 5] if number % 5 == 0 else []
            status = (STATUS.OK, STATUS.WARNING, STATUS.ERROR)[number % 3]
            lightcurve = f"c/{number}.fits"
            manager.save_result(
                result_of(task, status, **details, skip_targets=skips, filepath_lightcurve=lightcurve, ptp=number / 3)
            )
        task = manager.get_task()
        assert task is not None
    with closing(sqlite3.connect(path)) as other, other:
        # As after a killed manager.
        other.execute("UPDATE todolist SET status = 6 WHERE priority = ?", (task["priority"],))
        other.execute("INSERT INTO photometry_skipped SELECT * FROM photometry_skipped LIMIT 1")  # as in older files
    return path


def make_extreme(path: Path) -> Path:
    """Create a file with the limits of all columns."""
    make_file(path, [])
    tasks, results = [], []
    for number in range(60):
        priority = INTEGERS[number] if number < len(INTEGERS) else number
        pick: Callable[[list[Any]], Any] = lambda values, number=number: values[number % len(values)]  # type: ignore[misc]  # noqa: E731
        tasks.append(
            {
                "priority": priority,
                "starid": pick(INTEGERS),
                "sector": number,
                "datasource": pick(TEXTS) or "",
                "camera": pick(INTEGERS[::-1]),
                "ccd": number,
                "cadence": 120,
                "method": pick(TEXTS),
                "tmag": pick(REALS),
                "status": pick([None, *range(7)]),
                "cbv_area": pick(INTEGERS),
            }
        )
        reals = {column.name: pick(REALS[i % 7 :] + REALS) for i, column in enumerate(diagnostics.columns)}
        integers = dict.fromkeys(("mask_size", "stamp_width", "stamp_height", "stamp_resizes"), pick([*INTEGERS, None]))
        texts = {
            "lightcurve": f"{number}é\n" if number % 2 else None,
            "method_used": pick(TEXTS) or "",
            "errors": pick(TEXTS),
        }
        elaptime = reals["elaptime"] or 0.0
        results.append({**reals, **integers, **texts, "elaptime": elaptime, "priority": priority})
    engine = engine_of(path)
    with engine.begin() as connection:
        connection.execute(insert(todolist), tasks)
        connection.execute(insert(diagnostics), results)
        connection.execute(text("INSERT INTO photometry_skipped VALUES (7, 8), (7, 8), (8, -9223372036854775808)"))
        connection.execute(
            text("INSERT INTO photometry_tasks_progress VALUES (60, 9223372036854775807, 0, 1e308, NULL)")
        )
    engine.dispose()
    return path


@pytest.mark.parametrize("make", [make_used, make_extreme])
def test_to_a_server_and_back(make: Callable[[Path], Path], server: str, on_server: Engine, tmp_path: Path) -> None:
    """A file, its copy on a server and a copy of that have the same rows, bit for bit; no other file is left."""
    path, back = make(tmp_path / "todo.sqlite"), tmp_path / "back.sqlite"
    before, rows = checksum(path), rows_of(engine_of(path))
    expected = Copied(len(rows["todolist"]), len(rows["diagnostics"]), len(rows["photometry_skipped"]), [])
    assert min(expected[:3]) > 0
    assert copy_list(path, server) == expected
    assert rows_of(on_server) == rows
    assert copy_list(server, back) == expected
    assert rows_of(engine_of(back)) == rows == rows_of(on_server)
    assert checksum(path) == before
    assert query(back, "PRAGMA integrity_check") == [("ok",)]
    assert sorted(tmp_path.iterdir()) == [back, path]


def test_values_that_only_a_server_holds(server: str, on_server: Engine) -> None:
    """A copy from server to server keeps -0.0 and NaN, which SQLite cannot store."""
    with on_server.begin() as connection:
        create_schema(connection)
        connection.execute(text("INSERT INTO todolist VALUES (1, 1, 1, 'ffi', 1, 1, 1, NULL, '-0.0', NULL, 1)"))
        connection.execute(text("INSERT INTO todolist VALUES (2, 1, 1, 'tpf', 1, 1, 1, NULL, 'NaN', NULL, 1)"))
    too = server.replace("/copying", "/copying_too")
    assert copy_list(server, too).tasks == 2
    assert rows_of(create_engine(too)) == rows_of(on_server)
    assert {row[8] for row in rows_of(on_server)["todolist"]} == {"8000000000000000", "7ff8000000000000"}


def test_nan_goes_to_a_file_as_null(server: str, on_server: Engine, tmp_path: Path) -> None:
    """NaN becomes NULL in a file; if the column must not be NULL, the copy is refused and leaves no file."""
    with on_server.begin() as connection:
        create_schema(connection)
        connection.execute(text("INSERT INTO todolist VALUES (1, 1, 1, 'ffi', 1, 1, 1, NULL, 'NaN', NULL, 1)"))
    path = tmp_path / "todo.sqlite"
    copy_list(server, path)
    assert query(path, "SELECT tmag FROM todolist") == [(None,)]
    with on_server.begin() as connection:
        connection.execute(text("INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (1, '', 'NaN')"))
    with pytest.raises(CopyError, match=r"to .*two\.sqlite: NOT NULL constraint failed: diagnostics\.elaptime"):
        copy_list(server, tmp_path / "two.sqlite")
    assert list(tmp_path.iterdir()) == [path]


def test_from_file_to_file(tmp_path: Path) -> None:
    """A file is copied to a file, by path or by URL."""
    path, copy = make_extreme(tmp_path / "todo.sqlite"), tmp_path / "copy.sqlite"
    assert copy_list(f"sqlite:///{path}", f"sqlite:///{copy}").tasks == 60
    assert rows_of(engine_of(copy)) == rows_of(engine_of(path))


@pytest.mark.sample(3)
@pytest.mark.parametrize("release", ["3.0", "4.4", "5.0", "6.0"])
def test_real_old_files(release: str, server: str, on_server: Engine, tmp_path: Path) -> None:
    """Upgraded files of TASOC's real releases are equal after a copy to a server and back."""
    real = SHARED / f"data/legacy/todo-v{release}.sqlite"
    if not real.is_file():
        pytest.skip(f"the real files are not in {real.parent}")
    path, back = tmp_path / "todo.sqlite", tmp_path / "back.sqlite"
    shutil.copy(real, path)
    TaskManager(path).close()
    rows = rows_of(engine_of(path))
    copied = copy_list(path, server)
    assert copied == copy_list(server, back) or copied.left_out
    assert rows_of(on_server) == rows_of(engine_of(back)) == rows
    assert min(copied[:2]) > 0


def test_what_others_added_is_named(tmp_path: Path, server: str, on_server: Engine) -> None:
    """Tables and columns of other programs are left out and named; the tables of workers and attempts are not named."""
    path, back = make_used(tmp_path / "todo.sqlite"), tmp_path / "back.sqlite"
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE corr_settings (a)")
        other.execute('CREATE TABLE "Odd name" (a)')
        other.execute("ALTER TABLE todolist ADD COLUMN corr_status INTEGER DEFAULT 4")
        other.execute("ALTER TABLE diagnostics ADD COLUMN Extra")
    left_out = ["table Odd name", "table corr_settings", "column todolist.corr_status", "column diagnostics.Extra"]
    assert copy_list(path, server).left_out == left_out
    with TaskManager(server):
        pass  # registers a worker
    with on_server.begin() as connection:
        connection.execute(text("ALTER TABLE photometry_skipped ADD COLUMN why TEXT"))
        connection.execute(text('CREATE TABLE "Todolist" (a INTEGER)'))
    assert copy_list(server, back).left_out == ["table Todolist", "column photometry_skipped.why"]
    assert query(
        back, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'photometry_tasks_%' AND type = 'table'"
    ) == [(7,)]


# --- managers on the copies ------------------------------------------------------------------------------


def test_managers_work_on_the_copies(tmp_path: Path, server: str, on_server: Engine) -> None:
    """A manager continues a copied list, on the server and in a file; running tasks are pending again."""
    path, back = make_used(tmp_path / "todo.sqlite"), tmp_path / "back.sqlite"
    copy_list(path, server)
    with on_server.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM todolist WHERE status = 6")).scalar_one() == 1
        analyzed = "SELECT reltuples FROM pg_class WHERE relname = 'todolist'"
        assert connection.execute(text(analyzed)).scalar_one() == 40
    with TaskManager(path) as manager:
        expected = {name: manager.summary[name] for name in STATUS.__members__}
    with TaskManager(server) as manager:
        assert {name: manager.summary[name] for name in STATUS.__members__} == expected
        assert expected["STARTED"] == 0
        (task,) = manager.claim_tasks(1)
        manager.save_result(result_of(task))
    copy_list(server, back)
    with TaskManager(back) as manager:
        assert manager.summary["OK"] == expected["OK"] + 1
        found = manager.get_task()
        assert found is not None
        manager.start_task(found["priority"])
        manager.save_result(result_of(found))


def test_one_moment_is_copied(tmp_path: Path, server: str) -> None:
    """While managers use the source, the copy is of one moment: the counts of its tables agree."""
    path, back = make_used(tmp_path / "todo.sqlite"), tmp_path / "back.sqlite"
    with TaskManager(path, cleanup_constraints={"priority": []}) as manager:

        def work(_done: int, _total: int | None) -> None:
            task = manager.get_task()
            assert task is not None
            manager.save_result(result_of(task))

        results = len(query(path, "SELECT * FROM diagnostics"))
        assert copy_list(path, server, progress=work).results == results
        assert len(query(path, "SELECT * FROM diagnostics")) == results + 1
    with TaskManager(server, cleanup_constraints={"priority": []}) as manager:
        assert copy_list(server, back, progress=work).results == results
    assert len(query(back, "SELECT * FROM diagnostics")) == results


def test_progress(tmp_path: Path, server: str) -> None:
    """`progress` is called after every 10,000 rows, and at the end with all rows."""
    path = make_file(tmp_path / "todo.sqlite", [{}] * 25_000)
    calls: list[tuple[int, int | None]] = []
    copy_list(path, server, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(10_000, 25_000), (20_000, 25_000), (25_000, 25_000)]


# --- refused ---------------------------------------------------------------------------------------------


def tables_of(engine: Engine) -> list[str]:
    with closing(engine.connect()) as connection:
        return inspect(connection).get_table_names()


def test_a_target_that_is_not_empty(tmp_path: Path, server: str, on_server: Engine) -> None:
    """A target with tasks is refused and not changed; the error gives their number and the remedy, but no password."""
    path, other = make_used(tmp_path / "todo.sqlite"), make_file(tmp_path / "other.sqlite", [{}] * 3)
    note = tmp_path / "note.txt"
    note.write_text("not a database")
    before = checksum(path), checksum(other), checksum(note)
    copy_list(other, server)
    rows = rows_of(on_server)
    with pytest.raises(InvalidArgumentError, match=r"target=.*holds 3 tasks .*give the URL of an empty") as caught:
        copy_list(path, server)
    assert SECRET not in str(caught.value)
    assert "p%40" not in str(caught.value)
    for source in (path, server, other):
        with pytest.raises(InvalidArgumentError, match=r"target=.*holds 3 tasks, and is not replaced; give the path"):
            copy_list(source, other)
    with pytest.raises(InvalidArgumentError, match=r"target=.*this file exists, and is not replaced"):
        copy_list(path, note)
    assert rows_of(on_server) == rows
    assert (checksum(path), checksum(other), checksum(note)) == before
    assert sorted(tmp_path.iterdir()) == [note, other, path]


def test_a_target_whose_list_is_empty(tmp_path: Path, server: str, on_server: Engine) -> None:
    """A list without rows is filled; a list with any row, or with an older schema, is refused."""
    path = make_used(tmp_path / "todo.sqlite")
    with on_server.begin() as connection:
        create_schema(connection)
        connection.execute(text("INSERT INTO photometry_tasks_progress VALUES (60, 1, 0, 1.5, NULL)"))
    with pytest.raises(InvalidArgumentError, match=r"holds 0 tasks \(rows: photometry_tasks_progress 1\)"):
        copy_list(path, server)
    with on_server.begin() as connection:
        connection.execute(text("DELETE FROM photometry_tasks_progress"))
        connection.execute(text("DROP INDEX status_idx"))
    with pytest.raises(OutdatedSchemaError, match="index status_idx is created"):
        copy_list(path, server)
    with on_server.begin() as connection:
        connection.execute(text("CREATE INDEX status_idx ON todolist (status)"))
    copy_list(path, server)
    assert rows_of(on_server) == rows_of(engine_of(path))


def test_two_at_once(tmp_path: Path, server: str, on_server: Engine) -> None:
    """If two copies to the same empty database run at once, one succeeds and the other is refused."""
    path = make_used(tmp_path / "todo.sqlite")

    def copy() -> Copied | InvalidArgumentError:
        try:
            return copy_list(path, server)
        except InvalidArgumentError as error:
            return error

    with ThreadPoolExecutor(2) as executor:
        ends = [future.result() for future in [executor.submit(copy) for _ in range(2)]]
    assert {type(end) for end in ends} == {Copied, InvalidArgumentError}
    assert rows_of(on_server) == rows_of(engine_of(path))


def test_an_outdated_source(tmp_path: Path, server: str, on_server: Engine) -> None:
    """A source is refused if it must be upgraded, is not a list, or does not exist."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "4.4")
    before = checksum(path)
    with pytest.raises(OutdatedSchemaError, match="photometry-tasks upgrade"):
        copy_list(path, server)
    assert checksum(path) == before
    with pytest.raises(TodoListNotFoundError) as caught:
        copy_list(server, tmp_path / "back.sqlite")
    assert SECRET not in str(caught.value)
    with on_server.begin() as connection:
        create_schema(connection)
        connection.execute(text("UPDATE photometry_tasks_version SET version_num = '0004'"))
    with pytest.raises(OutdatedSchemaError, match=r"photometry-tasks upgrade .*copyist:\*\*\*@"):
        copy_list(server, tmp_path / "back.sqlite")
    with pytest.raises(TodoFileNotFoundError):
        copy_list(tmp_path / "none.sqlite", server)
    with pytest.raises(FileNotFoundError, match="This directory does not exist"):
        copy_list(make_file(tmp_path / "new.sqlite", []), tmp_path / "none" / "todo.sqlite")
    assert HEAD != "0004"


def test_results_that_are_not_in_the_file(tmp_path: Path, server: str, on_server: Engine) -> None:
    """Results in the log of a manager are copied; a file whose log belongs to another state of it is refused."""
    path, back = make_file(tmp_path / "todo.sqlite", [{}] * 3), tmp_path / "back.sqlite"
    with TaskManager(path, load_into_memory=True) as manager:
        task = manager.get_task()
        assert task is not None
        manager.save_result(result_of(task))
        log = ResultLog(path).path
        kept = log.read_bytes()
        assert copy_list(path, back).results == 1
    log.write_bytes(kept)
    with pytest.raises(UnsavedResultsError, match=r"todo\.sqlite-results\b.*`photometry-tasks upgrade .*todo\.sqlite`"):
        copy_list(path, server)
    assert tables_of(on_server) == []
    log.unlink()


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE diagnostics SET mask_size = x'0500000000000000' WHERE priority = 7", r"diagnostics\.mask_size is b'"),
        ("UPDATE diagnostics SET lightcurve = x'41' WHERE priority = 7", r"lightcurve is b'A' in .* with priority 7"),
        ("UPDATE todolist SET tmag = 'bright' WHERE priority = 7", r"todolist\.tmag is 'bright' in the row"),
        ("UPDATE todolist SET cadence = 1.5 WHERE priority = 7", r"todolist\.cadence is 1\.5 in the row"),
        ("UPDATE diagnostics SET errors = 'a' || char(0) WHERE priority = 7", r"errors is 'a\\x00' in the row"),
        (
            "UPDATE diagnostics SET errors = CAST(x'61c3' AS TEXT) WHERE priority = 7",
            r"errors is 'a\\udcc3' in the row",
        ),
    ],
)
def test_values_of_another_type(change: str, message: str, tmp_path: Path, server: str, on_server: Engine) -> None:
    """If a column of the server cannot hold a value, the error names it and its row, and nothing is copied."""
    path = make_extreme(tmp_path / "todo.sqlite")
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(change)
    with pytest.raises(CopyError, match=message) as caught:
        copy_list(path, server)
    assert SECRET not in str(caught.value)
    assert tables_of(on_server) == []
    if "AS TEXT" in change:
        with pytest.raises(CopyError, match=message):
            copy_list(path, tmp_path / "copy.sqlite")


def test_rows_that_refer_to_nothing(tmp_path: Path, server: str, on_server: Engine) -> None:
    """A result without its task, as a program without foreign keys can leave it, is refused and named."""
    path = make_extreme(tmp_path / "todo.sqlite")
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("DELETE FROM todolist WHERE priority = 33")
    with pytest.raises(CopyError, match=r"Key \(priority\)=\(33\) is not present"):
        copy_list(path, server)
    with pytest.raises(CopyError, match="FOREIGN KEY constraint failed"):
        copy_list(path, tmp_path / "copy.sqlite")
    assert tables_of(on_server) == []
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted(tmp_path: Path, server: str, on_server: Engine) -> None:
    """An interrupted copy in either direction leaves nothing, and can be repeated."""
    path, back = make_file(tmp_path / "todo.sqlite", [{}] * 10_001), tmp_path / "back.sqlite"

    def interrupt(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_list(path, server, progress=interrupt)
    assert tables_of(on_server) == []
    copy_list(path, server)
    with pytest.raises(KeyboardInterrupt):
        copy_list(server, back, progress=interrupt)
    assert list(tmp_path.iterdir()) == [path]
    copy_list(server, back)
    assert rows_of(engine_of(back)) == rows_of(engine_of(path))


def test_a_damaged_source(tmp_path: Path, server: str, on_server: Engine) -> None:
    """If the source is damaged, the error says so, and nothing is copied."""
    path = make_file(tmp_path / "todo.sqlite", [{}] * 5000)
    with closing(sqlite3.connect(path)) as other, other:
        (page,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'todolist'").fetchone()
        (size,) = other.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(content)
    with pytest.raises(TodoError, match=r"todo\.sqlite is damaged"):
        copy_list(path, server)
    assert tables_of(on_server) == []


def test_tables_of_the_same_name(tmp_path: Path, server: str, on_server: Engine) -> None:
    """A database in which another program uses the name of a TODO-list's table is refused, and no table is added."""
    path = make_extreme(tmp_path / "todo.sqlite")
    with on_server.begin() as connection:
        connection.execute(text("CREATE TABLE diagnostics (note text)"))
    with pytest.raises(NotATodoFileError, match="it has tables named diagnostics, but no revision"):
        copy_list(path, server)
    with pytest.raises(NotATodoFileError, match="it has tables named diagnostics"):
        add_targets(server, [{"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9.0}])
    assert tables_of(on_server) == ["diagnostics"]
