"""Sessions that another program or an administrator has changed, URLs, clocks, and other programs' transactions."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import InvalidArgumentError, ServerError, UncommittedChangesError
from photometry_tasks.export import export_tasks
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.status import get_attempts, get_status
from photometry_tasks.progress import throughput
from photometry_tasks.storage.postgresql import database
from tests.support.lists import ask, execute_sql, query, result_of
from tests.support.servers import owned_databases

PLACE = {"sector": 1, "camera": 1, "ccd": 1, "datasource": "ffi"}
TARGETS = [{"starid": number, "tmag": 5 + number / 7, **PLACE} for number in range(1, 17)]


@pytest.fixture
def url(postgresql: Engine) -> Iterator[str]:
    """Create a role with an empty database, and return the URL."""
    with owned_databases(postgresql, "guest", "sessions") as url:
        yield url


def with_parameters(url: str, **parameters: str) -> str:
    return make_url(url).update_query_dict(parameters).render_as_string(hide_password=False)


def run_sql(url: str, *statements: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
        for sql in statements:
            connection.execute(sql.encode())


# --- prepared statements ---


def discard_all(manager: TaskManager, _url: str) -> None:
    """Reset the session, as a pooler does between two transactions."""
    manager._store._database.dbapi.pgconn.exec_(b"DISCARD ALL")  # type: ignore[union-attr]


def deallocate_all(manager: TaskManager, _url: str) -> None:
    execute_sql(manager, "DO 'BEGIN DEALLOCATE ALL; END'")


def change_types(_manager: TaskManager, url: str) -> None:
    """Change the types of integers and texts, each time to another type."""
    ((kind,),) = query(url, "SELECT data_type FROM information_schema.columns WHERE column_name = 'camera'")
    integer, varying = ("bigint", "text") if kind == "integer" else ("integer", "varchar")
    run_sql(
        url,
        f"ALTER TABLE todolist ALTER camera TYPE {integer}, ALTER datasource TYPE {varying}",
        f"ALTER TABLE photometry_tasks_workers ALTER pid TYPE {integer}, ALTER host TYPE {varying}",
    )


def rebuild(_manager: TaskManager, url: str) -> None:
    run_sql(
        url,
        "DROP INDEX todolist_pending_idx",
        "CREATE INDEX todolist_pending_idx ON todolist (priority) WHERE status IS NULL",
        "ALTER TABLE todolist ADD IF NOT EXISTS corr_status bigint",
        "VACUUM FULL todolist",
    )


@pytest.mark.sample(3)
@pytest.mark.parametrize("change", [discard_all, deallocate_all, change_types, rebuild])
def test_outdated_plans(url: str, change: Callable[[TaskManager, str], None]) -> None:
    """If another program changes the tables, or a pooler resets the session, each call works nevertheless."""
    add_targets(url, TARGETS)
    with TaskManager(with_parameters(url, prepare_threshold="0"), reset=False) as manager:
        tasks = iter(manager.claim_tasks(10))
        more = iter(range(11, 16))
        calls: list[Callable[[], Any]] = [
            manager.get_task,
            lambda: manager.claim_tasks(1, priority=next(more)),
            lambda: manager.release_tasks([next(tasks)["priority"]]),
            lambda: manager.start_task(next(tasks)["priority"]),
            lambda: manager.save_result(result_of(next(tasks))),
            lambda: manager.save_result(result_of(next(tasks), skip_targets=[14])),
            lambda: manager.save_results([result_of(next(tasks), STATUS.ERROR)]),
            lambda: manager.reset_tasks(status=STATUS.ERROR),
            lambda: manager.has_tasks_elsewhere(),
            manager.get_random_task,
            manager.get_number_tasks,
            manager.heartbeat,
            lambda: manager.summary,
        ]
        for call in calls:
            call()
            change(manager, url)
            call()
            ask(manager, "SELECT 1")
        manager.heartbeat()
        change(manager, url)
        manager.heartbeat()
        counts = "SELECT count(*) FILTER (WHERE status = 1), count(*) FILTER (WHERE status = 6) FROM todolist"
        assert ask(manager, counts) == [(4, 4)]
        assert ask(manager, "SHOW enable_seqscan") == [("off",)]


# --- transactions of the session ---

CHANGE = text("UPDATE todolist SET tmag = 0 WHERE priority = 16")
CHANGED = "SELECT count(*) FROM todolist WHERE tmag = 0"


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"])
def test_an_isolation_level_of_the_session(url: str, level: str) -> None:
    """A session gets the isolation level that it asks for, and the manager's calls stay transactions of their own."""
    add_targets(url, TARGETS)
    with TaskManager(url, reset=False) as manager:
        for number in (1, 2):
            manager.session.connection(execution_options={"isolation_level": level})
            expected = "read committed" if level == "AUTOCOMMIT" else level.lower()
            assert ask(manager, "SHOW transaction_isolation") == [(expected,)]
            manager.session.execute(CHANGE)
            manager.session.rollback()
            assert query(url, CHANGED) == [(int(level == "AUTOCOMMIT"),)]
            (task,) = manager.claim_tasks(1)
            assert query(url, "SELECT count(*) FROM todolist WHERE status = 6") == [(1,)]
            assert manager.save_result(result_of(task)) is STATUS.OK
            assert query(url, "SELECT count(*) FROM todolist WHERE status = 1") == [(number,)]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_sql_that_ends_a_transaction(url: str, end: str) -> None:
    """After COMMIT or ROLLBACK as SQL, later changes of the session still need a commit."""
    add_targets(url, TARGETS)
    with TaskManager(url, reset=False) as manager:
        manager.session.execute(text(end))
        manager.session.execute(CHANGE)
        with pytest.raises(UncommittedChangesError):
            manager.claim_tasks(1)
        manager.session.rollback()
        assert query(url, CHANGED) == [(0,)]
        assert len(manager.claim_tasks(1)) == 1


# --- settings ---

SETTINGS = {
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "German",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-10",
    "idle_in_transaction_session_timeout": "50ms",
    "intervalstyle": "sql_standard",
    "jit": "on",
    "lock_timeout": "1ms",
    "plan_cache_mode": "force_generic_plan",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "search_path": "elsewhere, public",
    "standard_conforming_strings": "off",
    "statement_timeout": "100ms",
    "timezone": "Asia/Kathmandu",
    "transform_null_equals": "on",
}
_OPTIONS = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in SETTINGS.items())


def run_campaign(url: str, listed: Path) -> list[Any]:
    """Claim tasks, save results, and read the list in each way; return the answers."""
    answers: list[Any] = []
    with TaskManager(url, reset=False) as manager:
        tasks = manager.claim_tasks(4)
        answers += [{**task, "attempt": None} for task in tasks]
        manager.save_result(result_of(tasks[0], skip_targets=[2, 9], mean_flux=1 / 3, errors=["σ \\ 'naïve' é\\n"]))
        manager.save_results([result_of(tasks[1], STATUS.WARNING, mean_flux=1e300 / 3), result_of(tasks[3])])
        manager.save_result(result_of({"priority": 5, "cadence": 1800}, STATUS.ERROR, filepath_lightcurve="a\\b'"))
        answers += [manager.get_number_tasks(tmag_min=6.0), manager.summary["SKIPPED"]]
        with pytest.raises(ValueError, match="tmag"):
            manager.get_task(tmag_min="x")  # type: ignore[arg-type]
        answers += [ask(manager, "SELECT pg_sleep(0.15), tmag FROM todolist WHERE priority = 2")]
    answers += [(row["how"], row["errors"], row["begun"].utcoffset()) for row in get_attempts(url, 1)]
    answers += [{name: value for name, value in get_status(url).items() if name not in ("time", "rate", "todo_file")}]
    export_tasks(url, listed)
    return [*answers, listed.read_text()]


@pytest.fixture(scope="module")
def expected(postgresql: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Run the campaign with the settings of the server."""
    with owned_databases(postgresql, "usual", "usual") as url:
        add_targets(url, TARGETS)
        return run_campaign(url, tmp_path_factory.mktemp("usual") / "tasks.csv")


@pytest.mark.sample(3)
@pytest.mark.parametrize("way", ["role", "environment", "url"])
def test_settings(
    url: str, expected: list[Any], way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql: Engine
) -> None:
    """Settings of the role, of the environment or of the URL change no answer, and end no call."""
    add_targets(url, TARGETS[:1])
    run_sql(url, "CREATE SCHEMA elsewhere", "CREATE TABLE elsewhere.todolist (x integer)")
    if way == "role":
        with postgresql.begin() as connection:
            for name, value in SETTINGS.items():
                quoted = value if name == "search_path" else f"'{value}'"
                connection.execute(text(f"ALTER ROLE guest SET {name} = {quoted}"))
    if way == "environment":
        monkeypatch.setenv("PGOPTIONS", _OPTIONS)
    if way == "url":
        url = with_parameters(url, options=_OPTIONS)
    add_targets(url, TARGETS[1:])
    assert run_campaign(url, tmp_path / "tasks.csv") == expected


def test_a_client_that_connects_slowly(url: str, postgresql: Engine) -> None:
    """A limit of the role for idle transactions ends no session before our settings lift it."""
    add_targets(url, TARGETS)
    with postgresql.begin() as connection:
        connection.execute(text("ALTER ROLE guest SET idle_in_transaction_session_timeout = '1ms'"))
    is_done = threading.Event()

    def be_busy() -> None:
        while not is_done.is_set():  # the thread that connects waits for the interpreter after each answer
            pass

    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(be_busy)
        try:
            get_status(url)
        finally:
            is_done.set()
        busy.result()


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("path", "home"),
    [
        ("public, elsewhere", "public"),
        ("elsewhere, public", "public"),
        ("nowhere, elsewhere, guest", "guest"),
        ('"$user", public', "guest"),
        ("nowhere", "public"),
    ],
)
def test_where_a_list_is_created(url: str, path: str, home: str) -> None:
    """A list is created in the first schema of the search path without a `todolist` of another program."""
    run_sql(url, "CREATE SCHEMA guest", "CREATE SCHEMA elsewhere", "CREATE TABLE elsewhere.todolist (x integer)")
    run_sql(url, f"ALTER DATABASE sessions SET search_path = {path}")
    add_targets(url, TARGETS)
    with TaskManager(url, reset=False) as manager:
        assert len(manager.claim_tasks(2)) == 2
    assert get_status(url)["numtasks"] == len(TARGETS)
    assert query(url, f"SELECT count(*) FROM {home}.todolist") == [(len(TARGETS),)]


def test_a_database_that_is_read_only(url: str) -> None:
    """If the role cannot write, the error says why; the list can be read."""
    add_targets(url, TARGETS)
    run_sql(url, "ALTER DATABASE sessions SET default_transaction_read_only = on")
    for call in (lambda: TaskManager(url), lambda: add_targets(url, [{**TARGETS[0], "starid": 99}])):
        with pytest.raises(
            ServerError, match="use the primary server, and a role without default_transaction_read_only"
        ):
            call()
    assert get_status(url)["numtasks"] == len(TARGETS)


def test_a_database_without_temporary_tables(url: str, postgresql: Engine) -> None:
    """If the role cannot create temporary tables, the error names the privilege, and no list is created."""
    with postgresql.begin() as connection:
        connection.execute(text("REVOKE TEMPORARY ON DATABASE sessions FROM PUBLIC, guest"))
    with pytest.raises(ServerError, match="let the owner of the database grant TEMPORARY to this role"):
        add_targets(url, TARGETS)
    assert query(url, "SELECT to_regclass('todolist') IS NULL") == [(True,)]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP", "MULE_INTERNAL"])
def test_encodings(postgresql: Engine, encoding: str) -> None:
    """A database that cannot hold every text is refused with its encoding, before a list is made or opened."""
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS encoded"))
        connection.execute(text(f"CREATE DATABASE encoded ENCODING {encoding} TEMPLATE template0 LOCALE 'C'"))
    url = postgresql.url.set(database="encoded").render_as_string(hide_password=False)
    for call in (lambda: add_targets(url, TARGETS), lambda: TaskManager(url), lambda: get_status(url)):
        with pytest.raises(InvalidArgumentError, match=f"is {encoding}, not UTF8; create one with `createdb --enc"):
            call()


# --- URLs ---


def test_forms_of_a_url(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each form of a URL of libpq and of SQLAlchemy opens the list, with the parameters of libpq."""
    add_targets(url, TARGETS)
    parsed = make_url(url)
    directory = parsed.query["host"]
    login, place = f"guest:{url.partition('guest:')[2].partition('@')[0]}", str(directory).replace("/", "%2F")
    services = tmp_path / "services"
    services.write_text(f"[astro]\nhost={directory}\nuser=guest\ndbname=sessions\napplication_name=mine\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    given = "connect_timeout=5&application_name=mine&options=-c%20work_mem%3D8MB&sslmode=prefer&keepalives=1"
    forms = {
        f"postgres://{login}@{place}/sessions": "photometry_tasks",
        f"postgresql://{login}@{place}:5432/sessions?prepare_threshold=none": "photometry_tasks",
        f"postgresql+psycopg://{login}@%2Fnowhere:1,{place}:5432/sessions": "photometry_tasks",
        f"postgresql://{login}@/sessions?host=/nowhere&host={place}&{given}": "mine",
        f"postgresql://{login}@{place}/sessions?target_session_attrs=read-write&{given}": "mine",
        "postgresql://?service=astro": "mine",
    }
    for form, name in forms.items():
        assert get_status(form)["numtasks"] == len(TARGETS)
        with TaskManager(form, reset=False) as manager:
            assert len(manager.claim_tasks(1)) == 1
            assert ask(manager, "SELECT current_setting('application_name')") == [(name,)]
            connection: Any = manager._store._database.dbapi  # type: ignore[union-attr]
            assert connection.prepare_threshold == (None if "none" in form else 5)


# --- clocks ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("ahead", [86_400.0, 300.0, -300.0, -86_400.0])
def test_a_node_with_another_clock(url: str, ahead: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the clock of the manager's node or of the reader's node is wrong, the rate is that of the server's clock."""
    add_targets(url, TARGETS)
    monkeypatch.setattr(throughput, "_INTERVAL", 0.0)
    real = time.time
    with monkeypatch.context() as patch, TaskManager(url, reset=False) as manager:
        patch.setattr(time, "time", lambda: real() + ahead)
        manager.save_results(map(result_of, manager.claim_tasks(5)))
        seen_there = get_status(url)
        patch.undo()
        seen_here = get_status(url)
    for found in (seen_there, seen_here):
        assert abs(found["time"] - real()) < 60
        assert 5 / 60 < found["rate"] <= 5
    ((minute,),) = query(url, "SELECT minute FROM photometry_tasks_progress")
    assert 0 <= seen_here["time"] - minute < 60


def test_ages(url: str) -> None:
    """If the server's clock is set back, no age and no run time is negative."""
    add_targets(url, TARGETS)
    with TaskManager(url, reset=False) as manager, TaskManager(url, reset=False) as other:
        (task,) = manager.claim_tasks(1)
        future = "clock_timestamp() + interval '1 h'"
        execute_sql(
            manager,
            f"UPDATE photometry_tasks_attempts SET begun = {future}, ended = NULL",
            f"UPDATE photometry_tasks_workers SET seen = {future}",
        )
        with pytest.raises(OSError, match="last heartbeat 0 s ago"):
            TaskManager(url, overwrite=True)
        execute_sql(manager, "UPDATE photometry_tasks_workers SET seen = seen - interval '2 h' WHERE worker = 1")
        other._store._max_attempts = 1  # type: ignore[union-attr]
        assert [found["priority"] for found in other.claim_tasks(1)] == [2]
        kept = ask(other, "SELECT priority, elaptime FROM diagnostics")
    assert kept == [(task["priority"], 0.0)]


# --- other programs' transactions ---


def test_the_oldest_transaction(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` names a transaction of minutes that keeps old row versions, and no other session."""
    add_targets(url, TARGETS)
    plain = url.replace("+psycopg", "", 1)
    with (
        psycopg.connect(plain, application_name="holds nothing") as idle,
        psycopg.connect(plain.replace("/sessions", "/postgres"), application_name="elsewhere") as elsewhere,
        psycopg.connect(plain, application_name="writer") as writer,
        psycopg.connect(plain, application_name="reader") as reader,
    ):
        idle.execute("SELECT FROM todolist")
        for connection in (elsewhere, reader):
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT FROM pg_class")
        writer.execute("UPDATE todolist SET tmag = 3 WHERE priority = 1")
        assert get_status(url)["oldest_transaction"] is None
        monkeypatch.setattr(database, "_LONG_TRANSACTION", 0.0)
        names = []
        while found := get_status(url)["oldest_transaction"]:
            names.append(found.pop("application_name"))
            assert found.pop("age") >= 0
            ended = {"reader": reader, "writer": writer}[names[-1]]
            assert found == {"pid": ended.info.backend_pid}
            ended.rollback()
        assert names == ["reader", "writer"]
