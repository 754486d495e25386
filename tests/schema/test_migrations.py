"""Alembic's commands on SQLite and PostgreSQL; new and migrated databases are equal."""

import ast
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from click.testing import CliRunner
from sqlalchemy import Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import ProgrammingError

from photometry_tasks import schema
from photometry_tasks.cli.main import main
from photometry_tasks.ingest import add_targets
from photometry_tasks.models import Base
from photometry_tasks.schema import HEAD, tasoc_6_3
from tests.support import old_files
from tests.support.lists import make_file, query
from tests.support.paths import ROOT
from tests.support.processes import wait_until
from tests.support.schemas import describe, read_rows
from tests.support.servers import owned_databases


def alembic(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Alembic in a checkout."""
    variables = {name: value for name, value in os.environ.items() if name != "PHOTOMETRY_TASKS_TODO"}
    return subprocess.run(
        [sys.executable, "-m", "alembic.config", *arguments],
        cwd=cwd,
        env={**variables, **environment},
        capture_output=True,
        text=True,
    )


def succeed(*arguments: str) -> str:
    run = alembic(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def within(chosen: Callable[..., object], *arguments: object, todo: object = None, ini: Path | None = None) -> str:
    """Run a command of Alembic in this process, in a tenth of the time."""
    printed = StringIO()
    options = Namespace(x=[] if todo is None else [f"todo={todo}"])
    config = Config(str(ini or schema.alembic_ini()), stdout=printed, output_buffer=printed, cmd_opts=options)
    with pytest.MonkeyPatch.context() as patch:
        # Alembic's logging configuration would remove pytest's handlers.
        patch.setattr("logging.config.fileConfig", lambda *_, **__: None)
        chosen(config, *arguments)
    return printed.getvalue()


@pytest.fixture
def server(postgresql: Engine) -> Iterator[str]:
    """Return the URL of a new empty database; the user's password needs quoting."""
    with owned_databases(postgresql, "astronomer", "migrations") as url:
        yield url


def test_the_library_knows_the_revisions() -> None:
    """The library finds the revisions of the scripts, in their order, without loading Alembic."""
    scripts = ScriptDirectory.from_config(Config(str(schema.alembic_ini())))
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(schema.REVISIONS)
    assert scripts.get_current_head() == schema.HEAD


def test_every_command(tmp_path: Path) -> None:
    """Each command works, from a TASOC file to head and back to release 6.3."""
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "3.0")
    todo = f"todo={path}"
    before = path.read_bytes()
    assert within(command.current, todo=path) == ""
    assert "not up to date" in alembic("-x", todo, "check").stdout
    assert path.read_bytes() == before
    succeed("-x", todo, "upgrade", "head")
    assert succeed("-x", todo, "current") == f"{HEAD} (head)\n"
    assert "No new upgrade operations detected" in within(command.check, todo=path)
    rows, described = read_rows(path), describe(path)
    succeed("-x", todo, "downgrade", "0001")
    assert within(command.current, todo=path) == "0001\n"
    version = "photometry_tasks_version"
    later = {name: rows.pop(name) for name in Base.metadata.tables if name.startswith("photometry_tasks_")}
    assert read_rows(path) == rows | {version: [{"version_num": "0001"}]}
    rows |= later
    assert describe(path) != described
    within(command.upgrade, "head", todo=path)
    assert (read_rows(path), describe(path)) == (rows, described)
    head = path.read_bytes()
    refused = alembic("-x", todo, "downgrade", "base")
    assert "FAILED: A TODO-list cannot be downgraded below TASOC release 6.3" in refused.stdout
    assert refused.returncode != 0
    assert path.read_bytes() == head
    assert list(tmp_path.iterdir()) == [path]


def test_history() -> None:
    """The history needs no TODO-list."""
    assert succeed("history").startswith(f"{REVISIONS[-2].name[:4]} -> {HEAD} (head), ")


def test_from_nothing(tmp_path: Path) -> None:
    """If the file does not exist, only the command `upgrade` creates it."""
    path = tmp_path / "todo.sqlite"
    assert "does not exist" in alembic("-x", f"todo={path}", "current").stdout
    assert list(tmp_path.iterdir()) == []
    succeed("-x", f"todo={path}", "upgrade", "head")
    assert list(tmp_path.iterdir()) == [path]
    assert describe(path) == describe(make_file(tmp_path / "new.sqlite", []))


def test_what_is_no_todo_file_is_refused(tmp_path: Path) -> None:
    """The command `upgrade` creates no tables in a file of another program or in an empty file."""
    path = tmp_path / "places.sqlite"
    path.touch()
    with pytest.raises(CommandError, match="is not a TODO-file: it is empty"):
        within(command.upgrade, "head", todo=path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    run = alembic("-x", f"todo={path}", "upgrade", "head")
    assert "is not a TODO-file: it has no table todolist" in run.stdout
    assert run.returncode != 0
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [True, False])
def test_autogenerate_writes_nothing(tmp_path: Path, foreign: bool) -> None:
    """A new revision is written only if the models differ from the file; additions of other programs do not count."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "migrations", checkout / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", checkout)
    path = old_files.make_old_file(tmp_path / "todo.sqlite", "6.0")
    if foreign:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("ALTER TABLE todolist ADD COLUMN corr_status INTEGER")
            connection.execute("CREATE TABLE corr_settings (corrector TEXT)")
    arguments = ["-x", f"todo={path}", "revision", "--autogenerate", "-m", "x"]
    assert alembic("-x", f"todo={path}", "upgrade", "head", cwd=checkout).returncode == 0
    run = alembic(*arguments, cwd=checkout)
    assert run.returncode == 0, run.stderr
    assert len(list((checkout / "migrations/versions").glob("*.py"))) == len(schema.REVISIONS)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX status_idx")
    run = alembic(*arguments, cwd=checkout)
    assert run.returncode == 0, run.stderr
    (new,) = (checkout / "migrations/versions").glob("*_x.py")
    assert "op.create_index(" in new.read_text()
    assert "status_idx" in new.read_text()


# --- the path of the TODO-list ---


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    "name", ["to do.sqlite", "a#b", "a?mode=ro", "100%41.sqlite", "%(here)s", "naïve ★ a=b.sqlite"]
)
@pytest.mark.parametrize("prefix", ["", "sqlite:///", "sqlite+pysqlite:///"])
def test_odd_paths(tmp_path: Path, name: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with special characters leads to its file, from each of the three places."""
    path = make_file(tmp_path / "plain.sqlite", []).rename(tmp_path / name)
    target = f"{prefix}{path}"
    ini = tmp_path / "alembic.ini"
    section = f"[alembic]\nscript_location = {ROOT / 'migrations'}\n"

    def check_current(todo: str | None = None) -> None:
        assert within(command.current, todo=todo, ini=ini) == f"{HEAD} (head)\n"

    ini.write_text(section)
    monkeypatch.delenv("PHOTOMETRY_TASKS_TODO", raising=False)
    check_current(target)
    with monkeypatch.context() as patch:
        patch.setenv("PHOTOMETRY_TASKS_TODO", target)
        check_current()
    for written in (target, target.replace("%", "%%")):
        if "%(here)s" not in written or "%%" in written:
            ini.write_text(f"{section}sqlalchemy.url = {written}\n")
            check_current()


@pytest.mark.slow
def test_the_order_of_the_three(tmp_path: Path) -> None:
    """-x takes precedence over the environment variable, and this over alembic.ini."""
    paths = [tmp_path / name for name in ("x.sqlite", "environment.sqlite", "ini.sqlite")]
    for path in paths:
        make_file(path, [])
    ini = tmp_path / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {ROOT / 'migrations'}\nsqlalchemy.url = {paths[2]}\n")
    given: list[list[str]] = [["-x", f"todo={paths[0]}"], [], []]
    variables: list[dict[str, str]] = [{"PHOTOMETRY_TASKS_TODO": str(paths[1])}] * 2 + [{}]
    for number, path in enumerate(paths):
        alembic("-c", str(ini), *given[number], "downgrade", "0001", **variables[number])
        revisions = [query(path, "SELECT * FROM photometry_tasks_version")[0][0] for path in paths]
        assert revisions == ["0001"] * (number + 1) + [HEAD] * (2 - number), path


def test_none_of_the_three() -> None:
    """Without a TODO-list, the error names the three ways to give its path."""
    run = alembic("current")
    assert run.returncode != 0
    for way in ("-x todo=PATH_OR_URL", "PHOTOMETRY_TASKS_TODO", "sqlalchemy.url"):
        assert way in run.stdout


# --- PostgreSQL ---


def test_postgresql(server: str, tmp_path: Path) -> None:
    """Alembic's commands work on PostgreSQL, with a quoted password and next to another program's revisions."""
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('of another program')"))
        connection.execute(text("CREATE TABLE experiments (id INTEGER PRIMARY KEY)"))
    assert succeed("-x", f"todo={server}", "current") == ""
    within(command.upgrade, "head", todo=server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOTOMETRY_TASKS_TODO", server)
        assert within(command.current) == f"{HEAD} (head)\n"
    ini = tmp_path / "alembic.ini"
    for url in (server, server.replace("%", "%%")):
        ini.write_text(f"[alembic]\nscript_location = {ROOT / 'migrations'}\nsqlalchemy.url = {url}\n")
        assert within(command.current, ini=ini) == f"{HEAD} (head)\n"
    assert "No new upgrade operations detected" in within(command.check, todo=server)
    with engine.begin() as connection:
        task = "INSERT INTO todolist VALUES ({}, 1, 1, 'ffi', 1, 1, {}, NULL, NULL, NULL, 111)"
        connection.execute(text(task.format(1, 1800)))
        connection.execute(text(task.format(2, 600)))
        connection.execute(text("INSERT INTO photometry_skipped VALUES (2, 1)"))
    within(command.downgrade, "0001", todo=server)
    with pytest.raises(CommandError, match="cannot be downgraded"):
        within(command.downgrade, "base", todo=server)
    assert within(command.current, todo=server) == "0001\n"
    within(command.upgrade, "head", todo=server)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT * FROM photometry_skipped")).all() == [(2, 1)]
        assert connection.execute(text("SELECT * FROM alembic_version")).all() == [("of another program",)]
    engine.dispose()


def describe_server(engine: Engine) -> dict[str, object]:
    inspector = inspect(engine)
    found: dict[str, object] = {}
    for table in [*Base.metadata.tables, schema.VERSION_TABLE]:
        found[table] = {
            column["name"]: (str(column["type"]), column["nullable"], column["default"])
            for column in inspector.get_columns(table)
        }
        found[f"{table}: key"] = inspector.get_pk_constraint(table)
        found[f"{table}: foreign keys"] = sorted(inspector.get_foreign_keys(table), key=lambda key: str(key["name"]))
        found[f"{table}: indexes"] = sorted(inspector.get_indexes(table), key=lambda index: str(index["name"]))
    with engine.connect() as connection:
        options = connection.execute(text("SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL"))
        found["options"] = {name: sorted(values) for name, values in options}
    return found


def test_new_and_migrated_agree_on_postgresql(server: str) -> None:
    """The models, the migrations and the SQL of --sql create the same schema with wide types."""
    engine = create_engine(server)
    with engine.begin() as connection:
        schema.create_schema(connection)
    new = describe_server(engine)
    types = {column[0] for table in Base.metadata.tables for column in new[table].values()}  # type: ignore[attr-defined]
    assert types == {"BIGINT", "BOOLEAN", "BYTEA", "DOUBLE PRECISION", "TEXT", "TIMESTAMP"}
    assert "fillfactor=70" in new["options"]["todolist"]  # type: ignore[index]
    sql = succeed("-x", f"todo={server}", "upgrade", "head", "--sql")
    for make in (lambda: within(command.upgrade, "head", todo=server), lambda: run_sql(engine, sql)):
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        make()
        assert describe_server(engine) == new
        with engine.connect() as connection:
            options = {"version_table": schema.VERSION_TABLE, "compare_server_default": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, Base.metadata) == []
            assert connection.execute(text("SELECT * FROM photometry_tasks_version")).all() == [(HEAD,)]
    engine.dispose()


def run_sql(engine: Engine, sql: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in filter(str.strip, sql.split(";")):
            connection.exec_driver_sql(statement)


def test_new_and_migrated_agree_on_sqlite(tmp_path: Path) -> None:
    """Alembic finds no difference between the models and a new file or an upgraded file of any release."""
    paths = [make_file(tmp_path / "new.sqlite", [])]
    for release in old_files.RELEASES:
        paths.append(old_files.make_old_file(tmp_path / f"{release}.sqlite", release))
        engine = create_engine(f"sqlite:///{paths[-1]}")
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            schema.upgrade(connection, paths[-1])
            connection.commit()
        engine.dispose()
    for path in paths:
        assert "No new upgrade operations detected" in within(command.check, todo=path), path


def test_the_models_alone_create_the_same_tables(tmp_path: Path) -> None:
    """`create_all` of SQLAlchemy gives the tables and indexes the options of the database too."""
    engine = create_engine(f"sqlite:///{tmp_path / 'models.sqlite'}")
    Base.metadata.create_all(engine)
    engine.dispose()
    sql = "SELECT sql FROM sqlite_master WHERE sql LIKE '%photometry_tasks_attempts%' ORDER BY name"
    assert query(tmp_path / "models.sqlite", sql) == query(make_file(tmp_path / "new.sqlite", []), sql)


def test_sql_is_for_postgresql(tmp_path: Path) -> None:
    """--sql of a SQLite file is refused: an upgrade has to read the file."""
    path = make_file(tmp_path / "todo.sqlite", [])
    assert "--sql is for PostgreSQL" in alembic("-x", f"todo={path}", "upgrade", "head", "--sql").stdout


def test_the_upgrade_command_on_postgresql(server: str) -> None:
    """`photometry-tasks upgrade URL` creates the tables, shows no password, and waits for another upgrade."""
    engine = create_engine(server)
    shown = make_url(server).set(query={}).render_as_string(hide_password=True)
    ours = [sys.executable, "-m", "photometry_tasks.cli", "upgrade", server]
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with engine.connect() as connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(0x70686f74)"))
        processes = [subprocess.Popen(ours, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        wait_until(lambda: connection.execute(waiting).scalar_one() == 2, *processes)
        assert not inspect(connection).has_table("todolist")
    outputs = sorted(process.communicate()[0].splitlines()[-1] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == [f"{shown} is up to date: revision {HEAD}.", f"{shown} is upgraded to revision {HEAD}."]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE photometry_tasks_version"))
    run = subprocess.run(ours, capture_output=True, text=True)
    assert run.returncode == 1
    assert "but no revision in photometry_tasks_version" in run.stderr
    assert "p@ss" not in run.stderr + shown
    assert "p%40" not in run.stderr + shown
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://astronomer:s%40cret@127.0.0.1:1/db", "connection failed"),
        ("mysql://astronomer:s%40cret@h/db", r"url='mysql://astronomer:\*\*\*@h/db': a path, or a URL that"),
        ("a://b:s%40cret@h:x", "is expected"),
        ("postgresql://b:c@s%40cret@h/x", "write the @ in a password as %40"),
    ],
)
def test_a_server_that_is_not_there(url: str, message: str) -> None:
    """If the server does not answer or the URL is wrong, the error does not show the password."""
    with pytest.raises(CommandError, match=message) as caught:
        within(command.upgrade, "head", todo=url)
    result = CliRunner().invoke(main, ["upgrade", url])
    assert result.exit_code == 1
    assert re.search(message, result.output)
    for shown in (str(caught.value), result.output):
        assert "s%40cret" not in shown
        assert "s@cret" not in shown


REVISIONS = sorted((ROOT / "migrations" / "versions").glob("*.py"))


@pytest.mark.parametrize("path", REVISIONS, ids=lambda path: path.stem)
def test_a_revision_is_frozen(path: Path) -> None:
    """A revision imports nothing of the package, which changes later."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.split(".")[0] not in ("alembic", "logging", "sqlalchemy")]


def test_the_baseline_is_the_first_revision(tmp_path: Path) -> None:
    """Older files are converted to the tables that the first revision creates."""
    created, converted = tmp_path / "created.sqlite", tmp_path / "converted.sqlite"
    succeed("-x", f"todo={created}", "upgrade", "0001")
    engine = create_engine(f"sqlite:///{converted}")
    tasoc_6_3.metadata.create_all(engine)
    engine.dispose()
    ours, theirs = describe(created), describe(converted)
    for name in tasoc_6_3.metadata.tables:
        for kind in ("", ": foreign keys", ": indexes"):
            assert theirs[name + kind] == ours[name + kind]


def test_upgrading_a_file_that_another_program_creates(tmp_path: Path) -> None:
    """While `init` creates a file, Alembic's `upgrade` does not replace it by an empty list."""
    path = tmp_path / "todo.sqlite"
    refused = []

    def rows() -> Iterator[dict[str, Any]]:
        yield {"starid": 1, "camera": 1, "ccd": 1, "tmag": 10.0}
        refused.append(alembic("-x", f"todo={path}", "upgrade", "head"))

    add_targets(path, rows(), sector=1)
    assert "in use by another manager" in refused[0].stdout
    assert query(path, "SELECT starid FROM todolist") == [(1,)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_script_does_not_adopt_a_table(server: str) -> None:
    """The SQL script for a new database fails if another program has a table with a name of ours."""
    script = alembic("-x", f"todo={server}", "upgrade", "head", "--sql").stdout
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE diagnostics (priority int, lightcurve text)"))
    with pytest.raises(ProgrammingError, match="already exists"), engine.begin() as connection:
        connection.exec_driver_sql(script)
    engine.dispose()
    assert query(server, "SELECT count(*) FROM pg_tables WHERE tablename = 'photometry_tasks_version'") == [(0,)]
