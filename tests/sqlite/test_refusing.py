"""Promise 4: a file that is no TODO-file, damaged, newer, or cannot be upgraded is refused and keeps every byte."""

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from photometry_tasks import TaskManager
from photometry_tasks.cli.main import main
from photometry_tasks.errors import (
    CannotUpgradeError,
    DamagedFileError,
    InvalidArgumentError,
    NotATodoFileError,
    TodoError,
    UnknownRevisionError,
)
from photometry_tasks.export import export_tasks
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.check import find_faults
from photometry_tasks.maintenance.copy import copy_list
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.report import build_report
from photometry_tasks.schema import HEAD
from photometry_tasks.storage.sqlite.lock import TodoLock
from tests.support import old_files
from tests.support.lists import checksum, fill, make_file

Make = Callable[[Path], object]


def content(data: bytes) -> Make:
    return lambda path: path.write_bytes(data)


def database(sql: str) -> Make:
    """Return a function that creates a database from SQL alone."""

    def make(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(sql)

    return make


def changed(sql: str) -> Make:
    """Return a function that creates a current TODO-file and changes it."""

    def make(path: Path) -> None:
        make_file(path, [{}, {}])
        database(sql)(path)

    return make


def old(release: str, sql: str, *, results: bool = True) -> Make:
    """Return a function that creates a file of a release and changes it."""

    def make(path: Path) -> None:
        old_files.make_old_file(path, release, results=results)
        database(sql)(path)

    return make


def damaged(change: Callable[[bytearray], object]) -> Make:
    """Return a function that creates a current TODO-file and changes its bytes."""

    def make(path: Path) -> None:
        make_file(path, fill([{} for _ in range(300)]))
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)

    return make


def cut(end: int) -> Make:
    return damaged(lambda data: data.__delitem__(slice(end, None)))


def put(position: int, data: bytes) -> Make:
    return damaged(lambda old: old.__setitem__(slice(position, position + len(data)), data))


def garble_schema(data: bytearray) -> None:
    start = data.index(b"CREATE TABLE todolist")
    data[start : start + 12] = b"CREATE TAXI "


BOOKMARKS = "CREATE TABLE bookmarks (url); INSERT INTO bookmarks VALUES ('https://tasoc.dk');"
REMADE = """DROP TABLE todolist; CREATE TABLE todolist (priority INTEGER {key}, starid INTEGER NOT NULL,
    sector INTEGER NOT NULL, datasource TEXT NOT NULL DEFAULT 'ffi', camera INTEGER NOT NULL, ccd INTEGER NOT NULL,
    method TEXT, tmag REAL, status INTEGER, cbv_area INTEGER NOT NULL {rule}) {options};"""

LAX = old_files.build_diagnostics("6.3").replace("elaptime REAL NOT NULL", "elaptime REAL")

NO_TODO_FILE: dict[str, tuple[Make, str]] = {
    "zero length": (content(b""), r"it is empty \(0 kB\)"),
    "a text": (content(b"starid,tmag\n1,10\n"), "it is not a SQLite database"),
    "a long text": (content(b"starid,tmag\n1,10\n" * 1000), "it is not a SQLite database"),
    "garbage": (content(bytes(range(256)) * 32), "it is not a SQLite database"),
    "garbage after the magic": (content(b"SQLite format 3\0" + bytes(5000)), "it is not a SQLite database"),
    "a damaged magic": (put(0, b"sQLite"), "it is not a SQLite database"),
    "a damaged page size": (put(16, b"\x12\x34"), "it is not a SQLite database"),
    "no tables": (database("VACUUM"), "it has no tables"),
    "another program's": (database(BOOKMARKS), "it has no table todolist, only bookmarks"),
    "another program's, with a log": (database(BOOKMARKS + "PRAGMA journal_mode=WAL;"), "todolist, only bookmarks"),
    "a view": (database("CREATE VIEW todolist AS SELECT 1 AS priority"), "it has no tables"),
    "a virtual table": (
        database("CREATE VIRTUAL TABLE todolist USING fts5 (priority)"),
        "todolist has no column starid",
    ),
    "no camera": (old("4.5", "ALTER TABLE todolist DROP COLUMN camera"), "todolist has no column camera"),
    "no elaptime": (old("4.4", "ALTER TABLE diagnostics DROP COLUMN elaptime"), "diagnostics has no column elaptime"),
    "another key": (
        old("5.0", REMADE.format(key="", rule=", PRIMARY KEY (starid)", options="")),
        "starid is in the primary key",
    ),
    "a generated column": (
        old("5.0", "ALTER TABLE todolist DROP COLUMN tmag; ALTER TABLE todolist ADD COLUMN tmag REAL AS (ccd * 2)"),
        "todolist.tmag is a generated column",
    ),
    "a column that must be given": (
        old("6.3", "DROP TABLE photometry_skipped; CREATE TABLE photometry_skipped (priority, skipped_by, x NOT NULL)"),
        "photometry_skipped.x is NOT NULL and has no default",
    ),
    "today's without cadence": (
        changed("DROP INDEX unique_target_idx; ALTER TABLE todolist DROP COLUMN cadence"),
        f"it has revision {HEAD}, but todolist has no column cadence",
    ),
    "today's without a key": (
        changed("DROP TABLE diagnostics; CREATE TABLE diagnostics AS SELECT 1 AS priority"),
        "the primary key of diagnostics is missing",
    ),
    "today's without todolist": (changed("PRAGMA foreign_keys=OFF; DROP TABLE todolist"), "it has no table todolist"),
}

DAMAGED: dict[str, tuple[Make, str]] = {
    "cut within the header": (cut(60), "malformed"),
    "half of it": (cut(8192), "malformed"),
    "all but the last bytes": (cut(-100), r"it ends after [\d.]+ of [\d.]+ kB"),
    "all but the last page": (cut(-4096), "malformed|it ends after"),
    "the schema's SQL": (damaged(garble_schema), "malformed database schema"),
    "the schema's page": (put(100, b"\xff" * 50), "malformed"),
    "the schema's text": (damaged(lambda data: data.__setitem__(data.index(b"tmag"), 0xE6)), "decode|malformed"),
    "the file format": (put(44, b"\0\0\0\x09"), "unsupported file format"),
}

NEWER: dict[str, tuple[Make, str]] = {
    "a newer revision": (
        changed("UPDATE photometry_tasks_version SET version_num = '0099'"),
        "has the schema revision 0099; this release of photometry_tasks .* knows 0001, .* A newer release wrote it",
    ),
    "two revisions": (changed("INSERT INTO photometry_tasks_version VALUES ('9f1c')"), f"revision {HEAD} and 9f1c"),
}

NOT_UPGRADABLE: dict[str, tuple[Make, str]] = {
    "a cadence of pixel files from sector 27 on": (
        old("5.0", "UPDATE todolist SET sector = 27 WHERE priority = 5"),
        "todolist.cadence has no value for priority 5, .* Create the file again from its target list",
    ),
    "a cadence of images from sector 56 on": (
        old("3.0", "UPDATE todolist SET sector = 56 WHERE priority IN (1, 4, 7, 10)", results=False),
        "for priority 1, 4, 7, …, and does not follow",
    ),
    "a cadence that TASOC left NULL": (
        old(
            "5.0", "ALTER TABLE todolist ADD COLUMN cadence INTEGER; UPDATE todolist SET sector = 30 WHERE priority = 2"
        ),
        "todolist.cadence has no value for priority 2,",
    ),
    "a target twice": (
        old(
            "4.5",
            "INSERT INTO todolist SELECT 999, starid, sector, datasource, camera, ccd, NULL, 1, NULL, 1 "
            "FROM todolist WHERE priority = 7",
        ),
        "todolist has rows of the same target: those with priority 7, 999",
    ),
    "a light curve twice": (
        old("4.1", "UPDATE diagnostics SET lightcurve = 'lc/3.fits' WHERE priority IN (4, 6)"),
        "diagnostics has rows with the same light-curve path: those with priority 3, 4, 6",
    ),
    "a priority twice": (
        old("3.0", "DROP INDEX priority_idx; UPDATE todolist SET priority = 3 WHERE priority = 4"),
        "todolist has rows of the same priority: those with priority 3, 3",
    ),
    "a priority that is a text": (
        old("3.0", "UPDATE todolist SET priority = 'first' WHERE priority = 1"),
        "todolist.priority is not an integer for priority first",
    ),
    "a result without a time": (
        old("6.3", f"DROP TABLE diagnostics; {LAX}; INSERT INTO diagnostics (priority, method_used) VALUES (3, 'psf')"),
        "diagnostics.elaptime has no value for priority 3",
    ),
    "an index on a dropped column": (
        old("4.4", "CREATE INDEX mine ON diagnostics (starid, elaptime)"),
        "index mine cannot be kept: no such column: starid",
    ),
    "a view on a dropped column": (
        old("4.4", "CREATE VIEW seen AS SELECT starid FROM diagnostics"),
        "view seen would no longer work .*no such column: starid",
    ),
    "a trigger on a dropped column": (
        old(
            "4.4",
            "CREATE TABLE log (s); CREATE TRIGGER noted AFTER INSERT ON diagnostics "
            "BEGIN INSERT INTO log VALUES (new.starid); END",
        ),
        "trigger noted of diagnostics would no longer work .*no such column: new.starid",
    ),
    "a foreign key to a dropped index": (
        old(
            "5.0",
            "CREATE TABLE stars (s, d, e, a, c, FOREIGN KEY (s, d, e, a, c) "
            "REFERENCES todolist (starid, datasource, sector, camera, ccd))",
        ),
        "table stars would no longer work .*foreign key mismatch",
    ),
    "a check on a dropped column": (
        old("4.4", "ALTER TABLE diagnostics ADD COLUMN x INTEGER CHECK (x <> starid)"),
        "no such column: starid",
    ),
    "a table option": (
        database(REMADE.format(key="PRIMARY KEY", rule="", options="WITHOUT ROWID").partition(";")[2]),
        "the table's WITHOUT ROWID cannot be kept",
    ),
    "an index of our name": (
        old("6.0", "CREATE TABLE jobs (datasource); CREATE INDEX todolist_datasource_idx ON jobs (datasource)"),
        "todolist_datasource_idx",
    ),
}

CASES = [
    pytest.param(make, kind, message, id=name)
    for kind, cases in (
        (NotATodoFileError, NO_TODO_FILE),
        (DamagedFileError, DAMAGED),
        (UnknownRevisionError, NEWER),
        (CannotUpgradeError, NOT_UPGRADABLE),
    )
    for name, (make, message) in cases.items()
]


def command(*arguments: str) -> Callable[[Path], object]:
    def run(path: Path) -> None:
        result = CliRunner().invoke(main, [arguments[0], str(path), *arguments[1:]])
        assert result.exit_code == 1
        raise CommandError(result.output)

    return run


class CommandError(Exception):
    """The output of a failed command."""


WAYS: dict[str, Callable[[Path], object]] = {
    "on disk": TaskManager,
    "in memory": lambda path: TaskManager(path, load_into_memory=True),
    "overwriting": lambda path: TaskManager(path, overwrite=True, cleanup=True),
    "adding": lambda path: add_targets(path, [{"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9}]),
    "upgrade": command("upgrade"),
    "run": command("run", "math:sqrt"),
    "run --in-memory": command("run", "math:sqrt", "--in-memory"),
}


def state(folder: Path) -> dict[str, tuple[str, int, int]]:
    return {path.name: checksum(path) for path in folder.iterdir()}


@pytest.mark.sample(5)
@pytest.mark.parametrize(("make", "kind", "message"), CASES)
def test_refused_and_unchanged(make: Make, kind: type[TodoError], message: str, tmp_path: Path) -> None:
    """In every way of opening, the error names the fault, and content, mode, time and folder do not change."""
    path = tmp_path / "todo.sqlite"
    make(path)
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18))
    before = state(tmp_path)
    for name, way in WAYS.items():
        with pytest.raises((kind, CommandError), match=message) as caught:
            way(path)
        assert str(path) in str(caught.value), name
        assert state(tmp_path) == before, name
    # If a file cannot be upgraded, or has damage deep inside, it can still be counted and checked.
    for arguments in (["status"], ["status", "--json"], ["check"], ["upgrade", "--check"]):
        result = CliRunner().invoke(main, [*arguments, str(path)])
        assert result.exit_code in ((0, 1) if kind in (CannotUpgradeError, DamagedFileError) else (1,))
        assert isinstance(result.exception, SystemExit | None)
        if arguments[0] == "upgrade":
            assert result.exit_code == 1
            assert re.search(message, result.output)
        # After reading a file in WAL mode, SQLite leaves two empty files in the directory.
        assert checksum(path) == before[path.name], arguments


def garble_leaf(data: bytearray) -> None:
    """Damage the middle of a page of rows that opening does not read."""
    page = data.rindex(b"ffi") // 4096 * 4096
    data[page + 2000 : page + 2400] = bytes(range(200)) * 2
    data[page + 8 : page + 30] = b"\xff" * 22


def page_of(name: str) -> Callable[[Path], object]:
    """Return a function that puts a page of another table in the place of the first page of a table or an index."""

    def make(path: Path) -> None:
        make_file(path, fill([{} for _ in range(300)]))
        database("CREATE TABLE stars (x, y); CREATE INDEX mine ON stars (x); INSERT INTO stars VALUES (1, 2);")(path)
        with closing(sqlite3.connect(path)) as connection:
            found = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
        data = bytearray(path.read_bytes())
        target, source = (4096 * (found[page] - 1) for page in (name, "photometry_tasks_version"))
        data[target : target + 4096] = data[source : source + 4096]
        path.write_bytes(data)

    return make


#: An index misses a change of its table that was made while the schema did not list the index.
BEHIND = """CREATE INDEX mine ON todolist (tmag); CREATE TABLE kept AS SELECT * FROM sqlite_master WHERE name = 'mine';
    PRAGMA writable_schema=ON; DELETE FROM sqlite_master WHERE name = 'mine'; PRAGMA writable_schema=RESET;
    UPDATE todolist SET tmag = 99 WHERE priority = 1;
    PRAGMA writable_schema=ON; INSERT INTO sqlite_master SELECT * FROM kept; PRAGMA writable_schema=RESET;
    DROP TABLE kept;"""
FREED = "CREATE TABLE x (x); INSERT INTO x VALUES (zeroblob(20000)); DROP TABLE x;"


def garble_free_pages(path: Path) -> None:
    changed(FREED)(path)
    data = bytearray(path.read_bytes())
    trunk = 4096 * (int.from_bytes(data[32:36], "big") - 1)
    data[trunk + 8 : trunk + 12] = b"\0\0\xff\xff"
    path.write_bytes(data)


DEEP: dict[str, Make] = {
    "a page of rows": damaged(garble_leaf),
    "a table of another program": page_of("stars"),
    "an index": page_of("starid_idx"),
    "a unique index": page_of("unique_target_idx"),
    "an index of another program": page_of("mine"),
    "an index that lacks a row": changed(BEHIND),
    "the free pages": garble_free_pages,
}


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("option", ["overwrite", "cleanup"])
@pytest.mark.parametrize("name", DEEP)
def test_deeper_damage_is_found_before_the_file_is_rewritten(
    tmp_path: Path, name: str, option: str, in_memory: bool
) -> None:
    """Before `overwrite` and `cleanup` the tables and indexes are checked; a damaged file is not changed."""
    path = tmp_path / "todo.sqlite"
    DEEP[name](path)
    database("UPDATE todolist SET status = 6 WHERE priority = 2")(path)
    before = state(tmp_path)
    with pytest.raises(DamagedFileError, match=r"is damaged: .*Use an undamaged copy"):
        TaskManager(path, load_into_memory=in_memory, **{option: True})  # type: ignore[arg-type]
    assert state(tmp_path) == before
    with closing(TodoLock(path)):
        pass  # nobody holds the lock


def test_deeper_damage_is_found_in_memory(tmp_path: Path) -> None:
    """In memory mode the copy is checked before any work; the file is not changed."""
    path = tmp_path / "todo.sqlite"
    damaged(garble_leaf)(path)
    before = state(tmp_path)
    with pytest.raises(DamagedFileError, match=r"is damaged: .*Use an undamaged copy"):
        TaskManager(path, load_into_memory=True)
    assert state(tmp_path) == before
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 1
    assert "is damaged" in result.output
    assert state(tmp_path) == before


@pytest.mark.parametrize("value", [None, 5, "", b"todo.sqlite", ["todo.sqlite"], "todo\0.sqlite"])
@pytest.mark.parametrize(
    "call",
    [
        TaskManager,
        lambda value: add_targets(value, []),
        lambda value: export_tasks(value, "out.csv"),
        lambda value: export_tasks("todo.sqlite", value),
        lambda value: copy_list("todo.sqlite", value),
        lambda value: list(find_faults(value)),
        build_report,
        get_status,
    ],
)
def test_values_that_are_no_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[Any], object], value: Any
) -> None:
    """A value that is no path raises an error of ours that names the argument, and nothing is created."""
    monkeypatch.chdir(tmp_path)
    make_file(tmp_path / "todo.sqlite", [])
    before = state(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"^(todo_file|todo|target)=.*: a path is expected"):
        call(value)
    assert state(tmp_path) == before
