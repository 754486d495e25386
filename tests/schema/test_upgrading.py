"""Contract 10: a file of any release since 3.0 opens, with the necessary changes and no others."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import OutdatedSchemaError, TodoFileInUseError
from photometry_tasks.models import Base
from photometry_tasks.schema import HEAD, VERSION_TABLE
from photometry_tasks.schema.table_rebuild import build_table_sql
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.storage.sqlite.opening import upgrade_schema
from tests.support import old_files
from tests.support.lists import make_file, query, result_of
from tests.support.paths import SHARED
from tests.support.schemas import describe, read_rows

Rows = list[dict[str, Any]]

LEGACY = ["3.0", "4.4", "5.0", "6.0"]

#: Additions of other programs to a file.
FOREIGN = """
    ALTER TABLE todolist ADD COLUMN corr_status INTEGER DEFAULT NULL;
    ALTER TABLE todolist ADD COLUMN "Weird, (name)" TEXT COLLATE NOCASE DEFAULT 'a,b)'
        CHECK (length("Weird, (name)") < 9);
    ALTER TABLE todolist ADD COLUMN bright INTEGER GENERATED ALWAYS AS (tmag < 10) VIRTUAL;
    ALTER TABLE diagnostics ADD COLUMN dataval INTEGER NOT NULL DEFAULT 0; -- a comment, with a comma
    UPDATE todolist SET corr_status = priority % 7, "Weird, (name)" = 'x' || priority;
    UPDATE diagnostics SET dataval = priority * 3;
    CREATE INDEX corr_status_idx ON todolist (corr_status);
    CREATE INDEX whole_magnitude ON todolist (round(tmag), abs(starid));
    CREATE INDEX unfinished ON todolist (priority) WHERE status IS NULL;
    CREATE TABLE diagnostics_corr (priority INTEGER PRIMARY KEY NOT NULL, lightcurve TEXT, elaptime REAL NOT NULL,
        FOREIGN KEY (priority) REFERENCES todolist(priority) ON DELETE CASCADE ON UPDATE CASCADE);
    INSERT INTO diagnostics_corr SELECT priority, 'corr', 0.5 FROM todolist WHERE status = 1;
    CREATE TABLE corr_settings (corrector TEXT);
    INSERT INTO corr_settings VALUES ('ensemble');
    CREATE TABLE starclass_features (priority INTEGER REFERENCES diagnostics(priority) ON DELETE CASCADE, freq BLOB);
    INSERT INTO starclass_features SELECT priority, x'00ff' FROM diagnostics LIMIT 5;
    CREATE TABLE history (priority INTEGER, status INTEGER);
    CREATE VIEW measured AS SELECT t.starid, d.* FROM todolist t JOIN diagnostics d USING (priority);
    CREATE TRIGGER keep_history AFTER UPDATE OF status ON todolist
        BEGIN INSERT INTO history VALUES (new.priority, new.status); END;
    CREATE TRIGGER reset_corr AFTER DELETE ON diagnostics
        BEGIN UPDATE todolist SET corr_status = NULL WHERE priority = old.priority; END;
"""


def by_priority(rows: Rows) -> dict[int, dict[str, Any]]:
    return {row["priority"]: row for row in rows}


def read_sql(path: Path) -> set[tuple[str, str]]:
    """Return the SQL of the objects of other programs, as written."""
    ours = {*Base.metadata.tables, VERSION_TABLE}
    return {
        (name, sql)
        for name, sql in query(path, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        if name not in ours
        and not name.startswith("sqlite_")
        and name not in INDEXES | {"priority_idx", "starid_datasource_idx"}
    }


INDEXES = {str(index.name) for table in Base.metadata.tables.values() for index in table.indexes}


def check_sound(path: Path) -> None:
    """Check that SQLite finds no damage, and that the closed file left no other files."""
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA foreign_key_check") == []
    assert not list(path.parent.glob(f"{path.name}-*"))


def check_upgraded(path: Path, before: dict[str, Rows], *, opened_by_tasoc: bool = False) -> None:
    """Compare each value with the old file or, if it had none, with the rule."""
    after = read_rows(path)
    assert after.keys() - before.keys() <= {*Base.metadata.tables, VERSION_TABLE}
    tasks, old_tasks = by_priority(after["todolist"]), by_priority(before["todolist"])
    assert tasks.keys() == old_tasks.keys()
    for priority, task in tasks.items():
        old = old_tasks[priority]
        assert task == {"cadence": old_files.expected_cadence(old)} | old
    results, old_results = by_priority(after.get("diagnostics", [])), by_priority(before.get("diagnostics", []))
    assert results.keys() == old_results.keys()
    for priority, result in results.items():
        old = old_results[priority]
        method_used = old_files.expected_method_used(old_tasks[priority], old["errors"])
        added = {"method_used": method_used, "worker_wait_time": None, "edge_flux": None}
        # todolist has the same star id.
        assert result == added | {name: value for name, value in old.items() if name != "starid"}
    for table in before.keys() - {"todolist", "diagnostics"}:
        assert after[table] == before[table], table
    assert not opened_by_tasoc or all("cadence" in row for row in before["todolist"])


def upgrade(path: Path) -> list[str]:
    with closing(SQLiteDatabase.open(path)) as database:
        return upgrade_schema(database)


def use(path: Path, *, in_memory: bool) -> None:
    """Use an upgraded file as a pipeline does, and open it again."""
    with TaskManager(path, load_into_memory=in_memory) as manager:
        task = manager.get_task()
        assert task is not None
        manager.start_task(task["priority"])
        manager.save_result(result_of(task, filepath_lightcurve=f"lc/new{task['priority']}.fits"))
        manager.backup()
        done = manager.summary["OK"]
    with TaskManager(path, cleanup=True, load_into_memory=in_memory) as manager:
        assert manager.summary["OK"] == done
        assert manager.get_number_tasks() == manager.summary["numtasks"] - sum(
            manager.summary[status.name] for status in STATUS
        )
    assert query(path, f"SELECT status, lightcurve FROM todolist JOIN diagnostics USING (priority) "
                       f"WHERE priority = {task['priority']}") == [(1, f"lc/new{task['priority']}.fits")]  # fmt: skip


# --- every release ---


@pytest.fixture(params=[*old_files.RELEASES, *(f"legacy {name}" for name in LEGACY)])
def old_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Create a file of a release, or copy a real file."""
    kind, _, release = request.param.rpartition(" ")
    path = tmp_path / "todo.sqlite"
    if not kind:
        return old_files.make_old_file(path, release)
    legacy = SHARED / f"data/legacy/todo-v{release}.sqlite"
    if not legacy.is_file():
        pytest.skip(f"the old TODO-files are not at {legacy.parent}")
    path.write_bytes(legacy.read_bytes())
    return path


@pytest.mark.sample(5)
@pytest.mark.parametrize("foreign", [False, True], ids=["", "foreign"])
@pytest.mark.parametrize("by_tasoc", [False, True], ids=["", "opened by TASOC"])
def test_every_release_is_upgraded(old_file: Path, foreign: bool, by_tasoc: bool) -> None:
    """A file of any release gets the current schema; values and objects of other programs are kept."""
    if by_tasoc:
        old_files.open_as_tasoc(old_file)
    if foreign:
        with closing(sqlite3.connect(old_file)) as connection:
            connection.executescript(FOREIGN)
    before, sql = read_rows(old_file), read_sql(old_file)
    assert upgrade(old_file)
    check_upgraded(old_file, before, opened_by_tasoc=by_tasoc)
    check_sound(old_file)
    assert read_sql(old_file) == sql
    assert upgrade(old_file) == []
    use(old_file, in_memory=False)
    use(old_file, in_memory=True)
    check_sound(old_file)
    assert not foreign or len(read_rows(old_file)["history"]) >= 2


@pytest.mark.sample(3)
@pytest.mark.parametrize("by_tasoc", [False, True], ids=["", "opened by TASOC"])
def test_an_upgraded_file_is_as_a_new_one(old_file: Path, by_tasoc: bool) -> None:
    """Names, types, defaults, keys, foreign keys and indexes equal those of a new file."""
    if by_tasoc:
        old_files.open_as_tasoc(old_file)
    upgrade(old_file)
    assert describe(old_file) == describe(make_file(old_file.with_name("new.sqlite"), []))


@pytest.mark.sample(5)
@pytest.mark.parametrize("release", old_files.RELEASES)
@pytest.mark.parametrize("by_tasoc", [False, True], ids=["", "opened by TASOC"])
def test_a_list_that_was_never_opened(tmp_path: Path, release: str, by_tasoc: bool) -> None:
    """If a file has only todolist, the upgrade adds the tables of results."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", release, results=False)
    before = read_rows(path)
    if by_tasoc:
        old_files.open_as_tasoc(path)
    upgrade(path)
    check_upgraded(path, before)
    assert describe(path) == describe(make_file(tmp_path / "new.sqlite", []))
    use(path, in_memory=False)


@pytest.mark.parametrize("lacking", ["DROP INDEX status_idx", "DROP TABLE photometry_skipped", "DROP INDEX {0}idx"])
@pytest.mark.parametrize("release", ["3.0", "5.0", "6.3"])
def test_half_way_files(tmp_path: Path, release: str, lacking: str) -> None:
    """If a table or an index was dropped by hand, the upgrade creates it."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", release)
    index = {"3.0": "priority_", "5.0": "unique_target_", "6.3": "diagnostics_lightcurve_"}[release]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(lacking.format(index))
        if release == "3.0":
            connection.execute("ALTER TABLE diagnostics ADD COLUMN edge_flux REAL")
    before = read_rows(path)
    upgrade(path)
    check_upgraded(path, before)
    check_sound(path)
    assert describe(path) == describe(make_file(tmp_path / "new.sqlite", []))


@pytest.mark.parametrize("release", ["3.0", "6.3"])
def test_case_does_not_matter(tmp_path: Path, release: str) -> None:
    """The case of column names is ignored, as in SQLite."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", release)
    with closing(sqlite3.connect(path)) as connection:
        for table, column in (("todolist", "tmag"), ("todolist", "priority"), ("diagnostics", "lightcurve")):
            connection.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO {column.upper()}")
    tmag = query(path, "SELECT tmag FROM todolist ORDER BY priority")
    upgrade(path)
    assert query(path, "SELECT tmag FROM todolist ORDER BY priority") == tmag
    assert upgrade(path) == []
    use(path, in_memory=False)


@pytest.mark.parametrize("setting", ["encoding='UTF-16'", "page_size=512", "auto_vacuum=1", "journal_mode=WAL"])
def test_other_kinds_of_file(tmp_path: Path, setting: str) -> None:
    """Files with other encodings, page sizes and modes are upgraded too."""
    path = tmp_path / "todo.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA {setting}")
        connection.execute("CREATE TABLE corr_settings (corrector TEXT)")
    old_files.make_old_file(path, "3.0")
    before = read_rows(path)
    upgrade(path)
    check_upgraded(path, before)
    check_sound(path)


def test_a_cadence_that_is_known_stays(tmp_path: Path) -> None:
    """The rule gives a cadence only if the cadence is NULL."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "5.0")
    old_files.open_as_tasoc(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE todolist SET cadence = 20 WHERE priority = 2")
        connection.execute("UPDATE todolist SET cadence = NULL WHERE priority = 1")
        connection.commit()
    upgrade(path)
    assert query(path, "SELECT cadence FROM todolist WHERE priority IN (1, 2, 4)") == [(1800,), (20,), (600,)]


def test_rows_that_refer_to_nothing_stay(tmp_path: Path) -> None:
    """Rows that refer to missing rows are kept and do not prevent the upgrade."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "3.0")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM todolist WHERE priority = 11")
        connection.commit()
    dangling = query(path, 'SELECT "table", parent FROM pragma_foreign_key_check')
    assert dangling
    upgrade(path)
    assert query(path, 'SELECT "table", parent FROM pragma_foreign_key_check') == dangling


def test_the_caller_gets_foreign_keys(tmp_path: Path) -> None:
    """Foreign keys are off during the upgrade, and on again on the manager's connection."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "3.0")
    with TaskManager(path) as manager:
        assert manager.conn.execute("PRAGMA foreign_keys").fetchone()[0] == 1
        assert manager.conn.execute("PRAGMA legacy_alter_table").fetchone()[0] == 0


# --- opening ---


def test_upgrade_false_refuses(tmp_path: Path) -> None:
    """With upgrade=False an older file is refused with the command to run, and not changed; a current file opens."""
    path = old_files.make_old_file(tmp_path / "to do.sqlite", "6.0")
    before = path.read_bytes()
    with pytest.raises(OutdatedSchemaError, match=r"photometry-tasks upgrade '.*/to do.sqlite'"):
        TaskManager(path, upgrade=False)
    assert path.read_bytes() == before
    TaskManager(path).close()
    TaskManager(path, upgrade=False).close()


def test_in_memory_the_file_is_upgraded_at_once(tmp_path: Path) -> None:
    """In memory mode too, opening upgrades the file on disk, before any result is accepted."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "3.0")
    with TaskManager(path, load_into_memory=True) as manager:
        assert query(path, "SELECT version_num FROM photometry_tasks_version") == [(HEAD,)]
        task = manager.get_task()
        assert task is not None
        assert task["cadence"] == 600 if task["sector"] == 27 else 1800


def test_targets_can_be_added_to_an_old_file(tmp_path: Path) -> None:
    """Adding targets upgrades the file first."""
    from photometry_tasks.ingest import add_targets

    path = old_files.make_old_file(tmp_path / "todo.sqlite", "3.0")
    assert add_targets(path, [{"starid": 1, "sector": 1, "camera": 1, "ccd": 1, "tmag": 9}]) == (1, 0)
    assert query(path, "SELECT cadence FROM todolist WHERE starid = 1") == [(1800,)]


def test_a_table_that_another_program_made_anew(todo: Callable[..., Path]) -> None:
    """If TASOC's overwriting created tables again without our indexes, opening completes them."""
    path = todo({})
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"DROP TABLE photometry_skipped; {old_files.build_skipped('6.3')}; DROP TABLE diagnostics"
        )
    with pytest.raises(OutdatedSchemaError, match="table diagnostics is created"):
        TaskManager(path, upgrade=False)
    TaskManager(path).close()
    assert describe(path) == describe(make_file(path.with_name("new.sqlite"), []))


@pytest.mark.parametrize("lost", ["DROP TABLE photometry_tasks_version", "DELETE FROM photometry_tasks_version"])
def test_a_lost_revision(todo: Callable[..., Path], lost: str) -> None:
    """If the revision of a current file is lost, the file is upgraded like an older file and gets its revision back."""
    path = todo({})
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(lost)
    TaskManager(path).close()
    assert query(path, "SELECT * FROM photometry_tasks_version") == [(HEAD,)]
    assert describe(path) == describe(make_file(path.with_name("new.sqlite"), []))


# --- rebuilding a table ---

NEW = "CREATE TABLE t (\n\ta INTEGER NOT NULL, \n\tb TEXT, \n\tCONSTRAINT t_pkey PRIMARY KEY (a)\n)"


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ("CREATE TABLE t (a INT, b TEXT)", []),
        ("CREATE TABLE t (a INT PRIMARY KEY, b TEXT DEFAULT 'x,)' NOT NULL)", []),
        ("CREATE TABLE t (a INT CHECK (a > 0), b TEXT)", ["CHECK (a > 0)"]),
        ("CREATE TABLE t (a INT CONSTRAINT positive CHECK (a > 0) NOT NULL, b)", ["CONSTRAINT positive CHECK (a > 0)"]),
        ("CREATE TABLE t (a INT, b TEXT COLLATE NOCASE UNIQUE)", ["b TEXT COLLATE NOCASE UNIQUE"]),
        ("CREATE TABLE t (a INT, b TEXT REFERENCES m(n) ON DELETE SET NULL)", ["REFERENCES m(n) ON DELETE SET NULL"]),
        ("CREATE TABLE t (a INT REFERENCES [todolist] (priority), b TEXT)", []),
        (
            "CREATE TABLE t (a INT, b TEXT, c TEXT DEFAULT ')' CHECK (c <> ','))",
            ["c TEXT DEFAULT ')' CHECK (c <> ',')"],
        ),
        ("CREATE TABLE t (a, b, c AS (a + 1) STORED)", ["c AS (a + 1) STORED"]),
        ('CREATE TABLE "t" ("a" INT, [b] TEXT, `c "d"` REAL, "e,""f" INT)', ['`c "d"` REAL', '"e,""f" INT']),
        ("CREATE TABLE t (a INT /* a, */, b TEXT -- (b\n, c INT -- the end\n)", ["c INT -- the end"]),
        ("CREATE TABLE t (a, b, c, CHECK (a < b), UNIQUE (b, c))", ["CHECK (a < b)", "UNIQUE (b, c)"]),
        ("CREATE TABLE t (a, b, c, FOREIGN KEY (c) REFERENCES todolist (priority))", ["FOREIGN KEY (c) REFERENCES"]),
        ("CREATE TABLE t (a, b, CONSTRAINT f FOREIGN KEY (a) REFERENCES todolist (priority), PRIMARY KEY (a))", []),
        ("CREATE TABLE t (a, b, FOREIGN KEY (b) REFERENCES m (n))", ["FOREIGN KEY (b) REFERENCES m (n)"]),
        ("CREATE TABLE t (A INT, B TEXT, größe REAL)", ["größe REAL"]),
    ],
)
def test_what_is_kept_of_a_table(old: str, kept: list[str]) -> None:
    """The new table has the new columns and constraints, and the additions of the old table."""
    sql = build_table_sql(old, NEW, ())
    for text in kept:
        assert text in sql
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE todolist (priority INTEGER PRIMARY KEY)")
        connection.execute(sql)
        columns = connection.execute("SELECT name, pk, \"notnull\" FROM pragma_table_xinfo('t')").fetchall()
        assert columns[:2] == [("a", 1, 1), ("b", 0, 0)]
    if not kept:
        assert sql.replace("\n\t, ", ", \n\t") == NEW
    assert build_table_sql(sql, NEW, ()) == sql


@pytest.mark.parametrize(
    ("old", "problem"),
    [
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT) WITHOUT ROWID", "WITHOUT ROWID"),
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT) STRICT, WITHOUT ROWID", "STRICT , WITHOUT ROWID"),
        ("CREATE TABLE t (a INT, b TEXT AS (a || '') STORED)", "the generated column b"),
        ("CREATE VIRTUAL TABLE t USING fts5 (a, b)", "a virtual table"),
    ],
)
def test_what_cannot_be_kept_of_a_table(old: str, problem: str) -> None:
    """If a part of the old table cannot be kept, the error names it."""
    with pytest.raises(ValueError, match=problem):
        build_table_sql(old, NEW, ())


# --- kills and concurrent upgrades ---

_OPEN = """
import sys
from contextlib import closing
from pathlib import Path
import alembic.command
from photometry_tasks.storage.sqlite.database import SQLiteDatabase
from photometry_tasks.errors import TodoFileInUseError
from photometry_tasks.models import Base
from photometry_tasks.storage.sqlite.opening import upgrade_schema
print("ready", flush=True)
sys.stdin.readline()
try:
    with closing(SQLiteDatabase.open(Path(sys.argv[1]))) as database:
        print(len(upgrade_schema(database)), flush=True)
except TodoFileInUseError:
    print("refused", flush=True)
"""


def start_upgrade(path: Path) -> subprocess.Popen[str]:
    """Start a process that upgrades the file when `go` is called."""
    arguments = [sys.executable, "-c", _OPEN, str(path)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def fingerprint(path: Path) -> list[tuple[Any, ...]]:
    """Return counts and sums that differ between two states of a file."""
    return query(
        path,
        "SELECT count(*), sum(priority * starid % 9973), total(tmag), sum(status) FROM todolist UNION ALL "
        "SELECT count(*), sum(priority), total(mean_flux), count(errors) FROM diagnostics UNION ALL "
        "SELECT count(*), sum(priority), sum(skipped_by), NULL FROM photometry_skipped",
    )


def sweep_kills(tmp_path: Path, rows: int, kills: int) -> None:
    from time import perf_counter

    old = old_files.make_old_file(tmp_path / "old.sqlite", "3.0", rows)
    content = fingerprint(old)
    path = tmp_path / "todo.sqlite"
    shutil.copy(old, path)
    process = start_upgrade(path)
    start = perf_counter()
    go(process)
    process.communicate()
    assert process.returncode == 0
    duration = perf_counter() - start
    assert fingerprint(path) == content
    states = []
    for number in range(kills):
        shutil.copy(old, path)
        process = start_upgrade(path)
        timer = threading.Timer(duration * (number + 0.5) / kills, process.send_signal, [signal.SIGKILL])
        timer.start()
        go(process)
        process.communicate()
        timer.cancel()
        names = {name for (name,) in query(path, "SELECT name FROM sqlite_master")}
        states.append("photometry_tasks_version" in names)
        assert ("priority_idx" in names) != states[-1]
        assert "photometry_tasks_old" not in names
        assert fingerprint(path) == content
        assert upgrade(path) or states[-1]
        assert fingerprint(path) == content
        check_sound(path)
    assert not all(states), "no kill came before the end"


def test_a_killed_upgrade(tmp_path: Path) -> None:
    """If an upgrade of 10,000 rows is killed at any moment, the file is the old or the new file, and opens."""
    sweep_kills(tmp_path, 10_000, 2)


@pytest.mark.slow
def test_an_upgrade_killed_often(tmp_path: Path) -> None:
    """After 60 kills of upgrades of 200,000 rows, the file is the old or the new file, and opens."""
    sweep_kills(tmp_path, 200_000, 60)


def test_two_upgrades_at_once(tmp_path: Path) -> None:
    """If two processes open an old file at the same time, one upgrades it; the other waits or is refused."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "3.0", 20_000)
    content = fingerprint(path)
    processes = [start_upgrade(path), start_upgrade(path)]
    for process in processes:
        go(process)
    answers = sorted(process.communicate()[0].strip() for process in processes)
    assert answers[0] in ("0", "refused")
    assert int(answers[-1] if answers[0] == "0" else answers[0] if answers[0].isdigit() else answers[1]) > 0
    assert fingerprint(path) == content
    check_sound(path)


def test_an_upgrade_waits_for_nobody_for_ever(tmp_path: Path) -> None:
    """While another program writes, an upgrade is refused after SQLite's timeout."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "3.0")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer, closing(SQLiteDatabase.open(path)) as database:
        writer.execute("BEGIN IMMEDIATE")
        database.dbapi.execute("PRAGMA busy_timeout=10")
        with pytest.raises(TodoFileInUseError, match="is in use by another manager or program"):
            upgrade_schema(database)
        writer.execute("ROLLBACK")
        assert upgrade_schema(database)


# --- other programs after the upgrade ---


def test_other_programs_keep_working(tmp_path: Path) -> None:
    """After an upgrade and a run, the plain SQL of other TASOC programs works."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "4.4")
    use(path, in_memory=False)
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        execute = connection.execute
        execute("PRAGMA foreign_keys=ON")
        assert execute("PRAGMA journal_mode=TRUNCATE").fetchone()[0] == "truncate"
        execute("ALTER TABLE todolist ADD COLUMN corr_status INTEGER DEFAULT NULL")
        execute("CREATE INDEX corr_status_idx ON todolist (corr_status)")
        execute(
            "CREATE TABLE diagnostics_corr (priority INTEGER PRIMARY KEY ASC NOT NULL, lightcurve TEXT, "
            "FOREIGN KEY (priority) REFERENCES todolist(priority) ON DELETE CASCADE ON UPDATE CASCADE)"
        )
        execute("CREATE UNIQUE INDEX IF NOT EXISTS diagnostics_lightcurve_idx ON diagnostics (lightcurve)")
        execute(
            "INSERT INTO diagnostics_corr SELECT priority, lightcurve FROM diagnostics WHERE lightcurve IS NOT NULL"
        )
        row = execute(
            "SELECT todolist.*, diagnostics.method_used, diagnostics.mean_flux FROM todolist "
            "INNER JOIN diagnostics ON todolist.priority = diagnostics.priority "
            "WHERE status IN (1, 3) AND cadence = 120 ORDER BY todolist.priority LIMIT 1"
        ).fetchone()
        assert row["datasource"].startswith("tpf")
        assert row["method_used"] in old_files.METHODS
        priority = row["priority"]
        execute("DELETE FROM photometry_skipped WHERE skipped_by = ?", (priority,))
        execute("DELETE FROM todolist WHERE priority = ?", (priority,))
        for table in ("diagnostics", "diagnostics_corr"):
            assert execute(f"SELECT count(*) FROM {table} WHERE priority = ?", (priority,)).fetchone()[0] == 0
        execute(
            "INSERT INTO todolist (priority, starid, sector, datasource, camera, ccd, cadence, tmag, cbv_area) "
            "VALUES (?, 17, 1, 'tpf', 1, 1, 120, 9.9, 111)",
            (priority,),
        )
        with pytest.raises(sqlite3.IntegrityError):
            execute("INSERT INTO diagnostics (priority, method_used, elaptime) VALUES (99999, 'psf', 1)")
        connection.commit()
    with TaskManager(path) as manager:
        task = manager.get_task(starid=17)
        assert task is not None
        assert task["priority"] == priority
    check_sound(path)
