"""Recognise a TODO-list's schema, and bring it to the one of this release: the only caller of Alembic."""

import ast
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select
from sqlalchemy.schema import CreateTable

from photometry_tasks.errors import NotATodoFileError, OutdatedSchemaError, TodoListNotFoundError, UnknownRevisionError
from photometry_tasks.models import Base, ServerBase
from photometry_tasks.schema.layout import TableLayout, find_lacking_indexes, find_problems, read_layout
from photometry_tasks.sql.functions import is_server, is_sqlite

#: Not Alembic's usual name: a PostgreSQL database may hold other programs' tables too, and their revision.
VERSION_TABLE = "photometry_tasks_version"

# As Alembic makes it.
_version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def alembic_ini() -> Path:
    """Return the path of `alembic.ini`, beside `migrations/`: in a checkout, or in the installed package."""
    package = Path(__file__).parents[1]
    installed = package / "alembic.ini"
    return installed if installed.is_file() else package.parent / "alembic.ini"


#: The scripts of the revisions by their numbers, oldest first. Alembic need not be loaded to know.
REVISIONS = {path.name[:4]: path for path in sorted((alembic_ini().parent / "migrations/versions").glob("[0-9]*.py"))}
HEAD = list(REVISIONS)[-1]

#: Alembic keeps the environment that it runs in a global variable.
_alembic_lock = threading.Lock()


def create_schema(connection: Connection, fill: Callable[[], None] = lambda: None) -> None:
    """Make the tables of this release in an empty database.

    Parameters
    ----------
    fill : callable, optional
        Called before the indexes are made: they are made faster of all rows at once.
    """
    tables = _find_tables(connection)
    for table in tables:
        connection.execute(CreateTable(table))
        if is_server(connection.dialect) and "storage" in table.info:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} SET ({table.info['storage']})")
    fill()
    for table in tables:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            index.create(connection)
    _version.create(connection)
    connection.execute(insert(_version).values(version_num=HEAD))


def _find_tables(connection: Connection) -> list[Table]:
    """Return the tables that a TODO-list of this release has, in an order in which they can be made."""
    tables = list(Base.metadata.sorted_tables)
    return tables + ServerBase.metadata.sorted_tables if is_server(connection.dialect) else tables


def is_current(layout: Mapping[str, TableLayout]) -> bool:
    """Whether the tables of a TODO-file with the revision of this release are as the models describe them."""
    return all(
        table.name in layout
        and not any(find_problems(layout[table.name], table))
        and not find_lacking_indexes(layout[table.name], table)
        for table in Base.metadata.sorted_tables
    )


def is_at_head(connection: Connection) -> bool:
    """Whether there is a list with the revision of this release: who joins a run need not look any closer."""
    inspector = inspect(connection)
    has_revision = inspector.has_table("todolist") and inspector.has_table(VERSION_TABLE)
    return has_revision and connection.execute(select(_version.c.version_num)).scalars().all() == [HEAD]


def find_changes(connection: Connection, path: object) -> list[str]:
    """Say what `upgrade` would change in a TODO-list, a line for each thing; it is only read.

    Returns
    -------
    list of str
        Empty if it has the schema of this release.

    Raises
    ------
    NotATodoFileError, UnknownRevisionError
    """
    inspector = inspect(connection)
    tables = set(inspector.get_table_names())
    revision = _read_revision(connection, tables, path)
    known = list(REVISIONS)
    lacking = known if revision is None else known[known.index(revision) + 1 :]
    later = [f"revision {name}: {_describe_revision(name)}" for name in lacking]
    if revision is None and not is_sqlite(connection.dialect):
        check_names_are_free(connection, path)
        return later  # from nothing; the server's database may hold what it likes besides
    if "todolist" not in tables:
        tables.discard(VERSION_TABLE)
        found = f"it has the tables {', '.join(sorted(tables))}, but no todolist" if tables else "it has no tables"
        raise NotATodoFileError(path=path, found=found)
    if revision is None:
        from photometry_tasks.schema import legacy

        return legacy.find_changes(connection, path) + later
    tables_then = _find_tables(connection) if revision == HEAD else _find_tasoc_tables()
    return _find_lost(connection, tables_then, revision, path) + later


def check_names_are_free(connection: Connection, path: object) -> None:
    """Check that a database without a TODO-list has no tables with the names of ours.

    Raises
    ------
    NotATodoFileError
    """
    ours = (table.name for table in _find_tables(connection))
    if taken := sorted(set(inspect(connection).get_table_names()).intersection(ours)):
        found = f"it has tables named {', '.join(taken)}, but no revision in {VERSION_TABLE}"
        raise NotATodoFileError(path=path, found=found)


def _describe_revision(revision: str) -> str:
    """Return the first line of a revision's docstring."""
    docstring = ast.get_docstring(ast.parse(REVISIONS[revision].read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].removesuffix(".")


def _find_tasoc_tables() -> list[Table]:
    from photometry_tasks.schema.tasoc_6_3 import metadata

    return metadata.sorted_tables


def _find_lost(connection: Connection, tables: list[Table], revision: str, path: object) -> list[str]:
    """Say what a TODO-list of a revision lacks: other programs may have dropped it, or created a table their way."""
    layout = read_layout(connection, [table.name for table in tables])
    lost: list[str] = []
    problems: list[str] = []
    for table in tables:
        if table.name in layout:
            problems += find_problems(layout[table.name], table)
            lost += [f"index {index.name} is made" for index in find_lacking_indexes(layout[table.name], table)]
        else:
            lost.append(f"table {table.name} is made")
    if problems:
        raise NotATodoFileError(path=path, found=f"it has revision {revision}, but {'; '.join(problems)}")
    return lost


def has_list(connection: Connection) -> bool:
    """Whether there is a TODO-list at all."""
    return inspect(connection).has_table("todolist")


def check_exists(connection: Connection, path: object) -> None:
    """Check that there is a TODO-list.

    Raises
    ------
    TodoListNotFoundError
    """
    if not has_list(connection):
        raise TodoListNotFoundError(path=path)


def check_current(connection: Connection, path: object) -> None:
    """Check that there is a TODO-list with the schema of this release; it is only read.

    Raises
    ------
    TodoListNotFoundError, OutdatedSchemaError, NotATodoFileError, UnknownRevisionError
    """
    changes = find_changes(connection, path)
    check_exists(connection, path)
    if changes:
        raise OutdatedSchemaError(path=path, change=changes[0])


def find_foreign(connection: Connection) -> list[str]:
    """Name the tables, and the columns of our tables, that other programs have added."""
    inspector = inspect(connection)
    # In a SQLite file the case of names means nothing.
    fold: Callable[[str], str] = str.lower if is_sqlite(connection.dialect) else str
    ours = {*Base.metadata.tables, *ServerBase.metadata.tables, VERSION_TABLE}
    foreign = [f"table {name}" for name in sorted(inspector.get_table_names()) if fold(name) not in ours]
    for table in Base.metadata.sorted_tables:
        names = (str(column["name"]) for column in inspector.get_columns(table.name))
        foreign += [f"column {table.name}.{name}" for name in names if fold(name) not in table.columns]
    return foreign


def check_upgradable(connection: Connection, path: object) -> None:
    """Check that nothing keeps a TODO-list from being upgraded; it is only read.

    Raises
    ------
    CannotUpgradeError
    """
    tables = set(inspect(connection).get_table_names())
    if _read_revision(connection, tables, path) is None:
        from photometry_tasks.schema import legacy

        legacy.check_upgradable(connection, path)


def convert_older_file(connection: Connection, path: object) -> None:
    """Bring a file without a revision to the schema of TASOC 6.3; what is empty stays so. The first revision calls it.

    Raises
    ------
    NotATodoFileError, CannotUpgradeError
        If it is no TODO-file, or cannot be upgraded, or if a server's database has tables of these names.
    """
    if not is_sqlite(connection.dialect):
        check_names_are_free(connection, path)
    elif set(inspect(connection).get_table_names()) - {VERSION_TABLE}:
        from photometry_tasks.schema import legacy

        legacy.upgrade(connection, path)


def upgrade(connection: Connection, path: object) -> None:
    """Bring a TODO-list to the schema of this release, in a transaction that the caller began for it.

    Raises
    ------
    CannotUpgradeError
    """
    from alembic import command
    from alembic.config import Config

    config = Config(str(alembic_ini()))
    config.attributes.update(connection=connection, path=path)
    with _alembic_lock:
        command.upgrade(config, "head")
    _complete(connection)


def _read_revision(connection: Connection, tables: set[str], path: object) -> str | None:
    if VERSION_TABLE not in tables:
        return None
    found = connection.execute(select(_version.c.version_num)).scalars().all()
    if not found:
        return None
    if len(found) > 1 or found[0] not in REVISIONS:
        known = ", ".join(REVISIONS)
        release = version("photometry_tasks")
        raise UnknownRevisionError(path=path, found=" and ".join(map(str, found)), release=release, known=known)
    return str(found[0])


def _complete(connection: Connection) -> None:
    """Create again the tables and indexes that other programs have dropped."""
    tables = _find_tables(connection)
    layout = read_layout(connection, [table.name for table in tables])
    for table in tables:
        if table.name not in layout:
            table.create(connection)
            continue
        for index in find_lacking_indexes(layout[table.name], table):
            index.drop(connection, checkfirst=True)
            index.create(connection)
