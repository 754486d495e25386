"""A list behind PgBouncer, in each of its modes, while it is restarted, reconnects, or has no free connection."""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import ServerError
from photometry_tasks.ingest import add_targets
from photometry_tasks.maintenance.status import get_status
from photometry_tasks.storage.postgresql import dbapi
from photometry_tasks.storage.postgresql.database import PostgreSQLDatabase
from tests.support.commands import COMMAND, read_everything
from tests.support.lists import ask, empty_list, many, query, result_of
from tests.support.managers import Disturbance, check_each_once, run_workers
from tests.support.paths import ROOT
from tests.support.servers import Server
from tests.support.target_lists import MIT

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not shutil.which("pgbouncer"), reason="PgBouncer is not installed: apt-get install pgbouncer"),
]

TARGET = {"starid": 1, "tmag": 5.0, "sector": 1, "camera": 1, "ccd": 1, "datasource": "ffi"}

POOLS = pytest.mark.parametrize("mode", ["session", "transaction"])


def find_port() -> int:
    """Return a port of this machine that no program uses."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


class PgBouncer:
    """A PgBouncer in front of a server, which is started again after each change of its settings."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._configuration = server.directory / "pgbouncer.ini"
        (server.directory / "users.txt").write_text('"postgres" ""\n')
        port = find_port()
        self.settings: dict[str, Any] = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": server.directory / "users.txt",
            "admin_users": "postgres",
            "log_connections": 0,
            "log_disconnections": 0,
            "pool_mode": "session",
            "server_login_retry": 0.1,
        }
        self._plain = f"postgresql://postgres@127.0.0.1:{port}"
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        self._process: subprocess.Popen[str] | None = None

    def start(self, **settings: Any) -> None:
        """Kill it, and start it with these settings too."""
        self.kill()
        self.settings |= settings
        lines = [f"{name} = {value}\n" for name, value in self.settings.items()]
        self._configuration.write_text(f"[databases]\n* = host={self.server.directory}\n[pgbouncer]\n{''.join(lines)}")
        command = ["pgbouncer", str(self._configuration)]
        self._process = subprocess.Popen(command, user=self.server.user, stderr=subprocess.PIPE, text=True)
        log = []
        for line in self._process.stderr or ():
            log.append(line)
            if "process up" in line:
                return
        raise AssertionError("".join(log))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def run(self, command: str) -> None:
        """Run a command of its console."""
        with psycopg.connect(
            f"{self._plain}/pgbouncer", autocommit=True, cursor_factory=psycopg.ClientCursor
        ) as console:
            console.execute(command.encode())

    @contextmanager
    def hold(self) -> Iterator[Callable[[], None]]:
        """Keep a connection busy until the block ends, or the function is called."""
        with psycopg.connect(f"{self._plain}/postgres") as connection:
            connection.execute("SELECT 1")
            yield connection.close


@pytest.fixture
def bouncer(server: Server) -> Iterator[PgBouncer]:
    started = PgBouncer(server)
    yield started
    started.kill()


@POOLS
@pytest.mark.parametrize("event", ["nothing", "reconnect", "restart", "crash of the server"])
def test_each_task_once(server: Server, bouncer: PgBouncer, mode: str, event: str) -> None:
    """Whatever cuts the connections of eight workers, each task has one accepted result."""
    number = 400
    url = empty_list(server.engine, [{} for _ in range(number)])
    # In transaction mode, the workers share three connections.
    bouncer.start(pool_mode=mode, default_pool_size=3 if mode == "transaction" else 20)
    events: dict[str, Callable[[], None]] = {
        "reconnect": lambda: bouncer.run("RECONNECT"),
        "restart": bouncer.start,
        "crash of the server": server.restart,
    }
    act = events.get(event)
    disturb = Disturbance(url, number, 3, act) if act else lambda: False
    check_each_once(url, number, run_workers(bouncer.url, [1, 10], disturb))


@POOLS
def test_every_call(server: Server, bouncer: PgBouncer, mode: str, tmp_path: Path) -> None:
    """Each call of a manager, and each command that reads the list, works as without PgBouncer."""
    direct = empty_list(server.engine, many(40))
    bouncer.start(pool_mode=mode, default_pool_size=4)
    assert add_targets(bouncer.url, [TARGET]) == (1, 0)
    with TaskManager(bouncer.url, cleanup=True) as manager, TaskManager(bouncer.url, reset=False) as other:
        for owner in (manager, other) * 6:  # more often than the driver runs a statement before it prepares it
            one, two = owner.claim_tasks(2)
            assert owner.save_result(result_of(one)) is STATUS.OK
            next_star = two["starid"] + 1
            assert owner.save_results([result_of(two, skip_targets=[next_star])]) == [STATUS.OK]
            owner.heartbeat()
        manager.start_task(manager.get_task()["priority"])  # type: ignore[index]
        assert manager.summary["STARTED"] == 1
        assert ask(other, "SELECT count(*) FROM photometry_skipped") == [(12,)]
        assert other.reset_tasks(priority=2) == {"OK": 1, "SKIPPED": 1}
    assert read_everything(bouncer.url, tmp_path / "pooled") == read_everything(direct, tmp_path / "direct")


def test_prepared_statements(server: Server, bouncer: PgBouncer) -> None:
    """Through a pooler, no statement is prepared unless the URL says so: its clients share their sessions."""
    direct = empty_list(server.engine, [{}])
    bouncer.start(pool_mode="session")
    thresholds = {direct: 5, bouncer.url: None, bouncer.url + "?prepare_threshold=3": 3}
    for url, threshold in thresholds.items():
        with closing(PostgreSQLDatabase(url)) as database:
            assert database.dbapi.prepare_threshold == threshold


def test_statement_mode(server: Server, bouncer: PgBouncer) -> None:
    """The statement mode, which has no transactions, is refused with the way out, before anything changed."""
    direct = empty_list(server.engine, [{}])
    bouncer.start(pool_mode="statement")
    for call in (TaskManager, get_status, lambda url: add_targets(url, [TARGET])):
        with pytest.raises(ServerError, match="statement pooling mode; set pool_mode = transaction"):
            call(bouncer.url)
    assert query(direct, "SELECT count(*) FROM photometry_tasks_workers") == [(0,)]


# --- no room ---


def hold_the_only_place(bouncer: PgBouncer, stack: ExitStack, **settings: Any) -> Callable[[], object]:
    bouncer.start(**settings)
    return stack.enter_context(bouncer.hold())


def pause(bouncer: PgBouncer, _stack: ExitStack, **settings: Any) -> Callable[[], object]:
    bouncer.start(**settings)
    bouncer.run("PAUSE")
    return lambda: bouncer.run("RESUME")


def crash_the_server(bouncer: PgBouncer, _stack: ExitStack, **settings: Any) -> Callable[[], object]:
    bouncer.start(**settings)
    with pytest.raises(psycopg.OperationalError), bouncer.hold():
        bouncer.server.run("pg_ctl", "-w", "-D", str(bouncer.server.directory), "-m", "immediate", "stop")
    with pytest.raises(psycopg.OperationalError), bouncer.hold():
        pass  # now it has tried to connect
    return bouncer.server.restart


@pytest.mark.parametrize(
    ("refusal", "make_full", "settings"),
    [
        ("no more connections allowed", hold_the_only_place, {"max_client_conn": 1}),
        ("query_wait_timeout", hold_the_only_place, {"default_pool_size": 1, "query_wait_timeout": 1}),
        ("the server has not answered", hold_the_only_place, {"default_pool_size": 1, "query_wait_timeout": 0}),
        ("timeout expired", pause, {}),
        ("client_login_timeout", pause, {"client_login_timeout": 1}),
        ("server login has been failing", crash_the_server, {"query_wait_timeout": 1}),
    ],
)
def test_a_lack_of_room(
    server: Server,
    bouncer: PgBouncer,
    refusal: str,
    make_full: Callable[..., Callable[[], object]],
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While PgBouncer or the server behind it has no free connection, opening a list is retried until there is one."""
    empty_list(server.engine, [{}])
    url = f"{bouncer.url}?connect_timeout=2"
    monkeypatch.setattr(dbapi, "_LONGEST_SETTING", 3.0)
    with ExitStack() as stack:
        make_room = make_full(bouncer, stack, **settings)
        with pytest.raises(ServerError, match=refusal):
            get_status(url)  # a reader does not retry
        pauses = iter([make_room])
        monkeypatch.setattr("time.sleep", lambda _: next(pauses, lambda: None)())
        with TaskManager(url, reset=False, lease=30) as manager:
            assert manager.claim_tasks(1)
    assert refusal in caplog.text


# --- the guide ---

BLOCKS = re.findall(r"^```console\n(.*?)^```$", (ROOT / "docs/scaling.md").read_text(), re.MULTILINE | re.DOTALL)
DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class User:
    """A user without special rights, who runs blocks of the guide with other names of nodes, ports and directories."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._user = "nobody" if os.geteuid() == 0 else None
        shutil.chown(home, self._user or -1)
        port = str(find_port())
        self._replaced = {
            "/local/$USER/tasks": "$HOME/$NODE",
            "/usr/lib/postgresql/15/bin": str(DEBIAN[-1]),
            "listen_addresses = '*'": "listen_addresses = '127.0.0.1'",
            "streaming_delay = -1": "streaming_delay = -1\nlisten_addresses = '127.0.0.2'",
            "dbnode": "127.0.0.1",
            "readnode": "127.0.0.2",
            "4GB": "32MB",
            "5432": port,
            "6432": str(find_port()),
            "mystars:photometry": "tests.support.functions:good",
            "$ ": "",
        }
        name = self._user or getpass.getuser()
        self.other_spelling = f"postgresql://{name}@localhost:{port}/sector1"
        path = f"/usr/bin:/bin:{Path(COMMAND).parent}"
        self._environment = {"PATH": path, "HOME": str(home), "USER": name, "PGPORT": port, "PYTHONPATH": str(ROOT)}

    def run(self, node: str, word: str) -> list[str]:
        """Run the block with a word on a node, without `sbatch`, and return the output of each of our commands."""
        (block,) = (block for block in BLOCKS if word in block)
        lines = [BLOCKS[0].partition("\n")[0], *block.splitlines()]
        for old, new in self._replaced.items():
            lines = [line.replace(old, new) for line in lines]
        ours = [line for line in lines if line.startswith("photometry-tasks") and "--watch" not in line]
        others = [line for line in lines if not line.startswith(("photometry-tasks", "sbatch"))]
        self._run_script("\n".join(others), node, self._user)
        return [self._run_script(line, node) for line in ours]  # nobody may not read this checkout and its Python

    def _run_script(self, script: str, node: str, user: str | None = None) -> str:
        command, environment = ["bash", "-euc", script], {**self._environment, "NODE": node}
        run = subprocess.run(command, user=user, cwd=self._home, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{script}\n{run.stdout}\n{run.stderr}"
        return run.stdout

    def stop(self) -> None:
        """End all that the user has started."""
        for file in self._home.glob("*/*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text().split()[0]), signal.SIGINT)


@pytest.fixture
def user() -> Iterator[User]:
    if not DEBIAN:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    home = Path(tempfile.mkdtemp(prefix="home"))
    (home / "all_targets_S001_v1.csv").write_text(MIT)
    started = User(home)
    yield started
    started.stop()
    shutil.rmtree(home, ignore_errors=True)


def test_the_guide(user: User) -> None:
    """A user without special rights sets up the server, PgBouncer and the standby as the guide says."""
    added, copied = user.run("dbnode", "initdb")
    assert added.startswith("2 tasks added")
    assert copied.startswith("2 tasks, 0 results")
    with pytest.raises(ServerError, match=r"add a line to ~/\.pgpass, with the host as the URL spells it"):
        get_status(user.other_spelling)
    (worked,) = user.run("dbnode", "pgbouncer -d")
    assert "2 results (0 errors)" in worked
    (shown,) = user.run("readnode", "pg_basebackup")
    assert "OK" in shown
