"""Recognise and upgrade the schema of a TODO-list: the only caller of Alembic."""

import ast
import threading
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)
from sqlalchemy.schema import CreateTable

from photometry_tasks.errors import NotATodoFileError, OutdatedSchemaError, TodoListNotFoundError, UnknownRevisionError
from photometry_tasks.models import TABLES, add_options
from photometry_tasks.schema.comparison import TableLayout, find_lacking_indexes, find_problems, read_layout
from photometry_tasks.sql.functions import is_server, is_sqlite

#: Not Alembic's default name: another program in the same PostgreSQL database may use that for its own revision.
VERSION_TABLE = "photometry_tasks_version"

# As Alembic creates it.
_version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def alembic_ini() -> Path:
    """Return the path of `alembic.ini`, in a checkout or in the installed package; `migrations/` is next to it."""
    package = Path(__file__).parents[1]
    installed = package / "alembic.ini"
    return installed if installed.is_file() else package.parent / "alembic.ini"


#: The scripts of the revisions by their numbers, oldest first, found without loading Alembic.
REVISIONS = {path.name[:4]: path for path in sorted((alembic_ini().parent / "migrations/versions").glob("[0-9]*.py"))}
HEAD = list(REVISIONS)[-1]

#: Alembic stores its running environment in a global variable: one thread at a time.
_alembic_lock = threading.Lock()


def create_schema(connection: Connection, fill: Callable[[], Collection[Index]] = tuple) -> None:
    """Create the tables of this release in an empty database.

    Parameters
    ----------
    fill : callable, optional
        Adds rows before the indexes are created: building an index from all rows at once is faster. It returns the
        indexes that it has created itself.
    """
    add_options(connection.dialect)
    for table in TABLES:
        connection.execute(CreateTable(table))
        if is_server(connection.dialect) and "storage" in table.info:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} SET ({table.info['storage']})")
    created = fill()
    for table in TABLES:
        for index in sorted(table.indexes.difference(created), key=lambda index: str(index.name)):
            index.create(connection)
    _version.create(connection)
    connection.execute(insert(_version).values(version_num=HEAD))


def is_current(layout: Mapping[str, TableLayout]) -> bool:
    """Whether the tables of a TODO-file with the revision of this release match the models."""
    return all(
        table.name in layout
        and not any(find_problems(layout[table.name], table))
        and not find_lacking_indexes(layout[table.name], table)
        for table in TABLES
    )


def is_at_head(connection: Connection) -> bool:
    """Whether there is a list with the revision of this release: a manager that joins a run checks no more."""
    inspector = inspect(connection)
    has_revision = inspector.has_table("todolist") and inspector.has_table(VERSION_TABLE)
    return has_revision and connection.execute(select(_version.c.version_num)).scalars().all() == [HEAD]


def find_changes(connection: Connection, path: object) -> list[str]:
    """Return a line for each change that `upgrade` would make to a TODO-list. The list is only read.

    Returns
    -------
    list of str
        Empty if the list has the schema of this release.

    Raises
    ------
    NotATodoFileError, UnknownRevisionError
    """
    inspector = inspect(connection)
    tables = set(inspector.get_table_names())
    revision = _read_revision(connection, tables, path)
    revisions = list(REVISIONS)
    lacking = revisions if revision is None else revisions[revisions.index(revision) + 1 :]
    later = [f"revision {name}: {_describe_revision(name)}" for name in lacking]
    if revision is None and not is_sqlite(connection.dialect):
        check_names_are_free(connection, path)
        return later  # a new list; other tables in the database do not matter
    if "todolist" not in tables:
        tables.discard(VERSION_TABLE)
        found = f"it has no table todolist, only {', '.join(sorted(tables))}" if tables else "it has no tables"
        raise NotATodoFileError(path=path, found=found)
    if revision is None:
        from photometry_tasks.schema import legacy

        return legacy.find_changes(connection, path) + later
    tables_then = TABLES if revision == HEAD else _find_tasoc_tables()
    return _find_lost(connection, tables_then, revision, path) + later


def check_names_are_free(connection: Connection, path: object) -> None:
    """Check that a database without a TODO-list has no tables with the names of a TODO-list's tables.

    Raises
    ------
    NotATodoFileError
    """
    ours = (table.name for table in TABLES)
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
    """Return a line for each table or index to create: another program may have dropped it or created its own."""
    layout = read_layout(connection, [table.name for table in tables])
    lost: list[str] = []
    problems: list[str] = []
    for table in tables:
        if table.name in layout:
            problems += find_problems(layout[table.name], table)
            lost += [f"index {index.name} is created" for index in find_lacking_indexes(layout[table.name], table)]
        else:
            lost.append(f"table {table.name} is created")
    if problems:
        raise NotATodoFileError(path=path, found=f"it has revision {revision}, but {'; '.join(problems)}")
    return lost


def has_list(connection: Connection) -> bool:
    """Whether the database has a TODO-list, with any schema."""
    return inspect(connection).has_table("todolist")


def check_exists(connection: Connection, path: object) -> None:
    """Check that the database has a TODO-list.

    Raises
    ------
    TodoListNotFoundError
    """
    if not has_list(connection):
        raise TodoListNotFoundError(path=path)


def check_current(connection: Connection, path: object) -> None:
    """Check that the database has a TODO-list with the schema of this release. The list is only read.

    Raises
    ------
    TodoListNotFoundError, OutdatedSchemaError, NotATodoFileError, UnknownRevisionError
    """
    changes = find_changes(connection, path)
    check_exists(connection, path)
    if changes:
        raise OutdatedSchemaError(path=path, change=changes[0])


def find_foreign(connection: Connection) -> list[str]:
    """Return the names of the tables, and of the columns in TODO-list tables, that other programs added."""
    inspector = inspect(connection)
    # SQLite ignores the case of names.
    fold: Callable[[str], str] = str.lower if is_sqlite(connection.dialect) else str
    ours = {*(table.name for table in TABLES), VERSION_TABLE}
    foreign = [f"table {name}" for name in sorted(inspector.get_table_names()) if fold(name) not in ours]
    for table in TABLES:
        names = (str(column["name"]) for column in inspector.get_columns(table.name))
        foreign += [f"column {table.name}.{name}" for name in names if fold(name) not in table.columns]
    return foreign


def check_upgradable(connection: Connection, path: object) -> None:
    """Check that a TODO-list can be upgraded. The list is only read.

    Raises
    ------
    CannotUpgradeError
    """
    tables = set(inspect(connection).get_table_names())
    if _read_revision(connection, tables, path) is None:
        from photometry_tasks.schema import legacy

        legacy.check_upgradable(connection, path)


def convert_older_file(connection: Connection, path: object) -> None:
    """Upgrade a file without a revision to the schema of TASOC 6.3; an empty file stays empty.

    The first revision calls this function.

    Raises
    ------
    NotATodoFileError, CannotUpgradeError
        If the file is not a TODO-file or cannot be upgraded, or if a database on a server has tables of these names.
    """
    if not is_sqlite(connection.dialect):
        check_names_are_free(connection, path)
    elif set(inspect(connection).get_table_names()) - {VERSION_TABLE}:
        from photometry_tasks.schema import legacy

        legacy.upgrade(connection, path)


def upgrade(connection: Connection, path: object) -> None:
    """Upgrade a TODO-list to the schema of this release, in a transaction of the caller.

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
    """Create the tables and indexes again that other programs dropped."""
    add_options(connection.dialect)
    layout = read_layout(connection, [table.name for table in TABLES])
    for table in TABLES:
        if table.name not in layout:
            table.create(connection)
            continue
        for index in find_lacking_indexes(layout[table.name], table):
            index.drop(connection, checkfirst=True)
            index.create(connection)
