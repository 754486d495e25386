"""Run the migrations on a connection of the library, or on the TODO-list that an Alembic command names."""

import os
from configparser import InterpolationError
from contextlib import closing
from functools import partial
from logging.config import fileConfig
from typing import Any

from alembic import command, context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, Dialect, Float, MetaData, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import SchemaItem

from photometry_tasks.errors import TodoError
from photometry_tasks.models import TABLES, Base, add_options
from photometry_tasks.schema import VERSION_TABLE, convert_older_file
from photometry_tasks.sql.functions import is_server
from photometry_tasks.storage.base import Database
from photometry_tasks.storage.location import parse_location
from photometry_tasks.storage.open import open_database
from photometry_tasks.storage.sqlite.creation import create_todo_file

config = context.config


def run_migrations(dialect: Dialect, **where: Any) -> None:
    """Run the migrations on a connection, or write their SQL for the database of a URL."""
    add_options(dialect)  # for the draft of a revision
    context.configure(
        target_metadata=Base.metadata if is_server(dialect) else build_sqlite_metadata(),
        version_table=VERSION_TABLE,
        transactional_ddl=True,  # on SQLite too: the caller has begun the transaction explicitly
        include_object=is_ours,
        compare_type=differs_in_type,
        compare_server_default=is_server(dialect) or differs_in_default,
        process_revision_directives=drop_empty_revision,
        **where,
    )
    with context.begin_transaction():
        context.run_migrations()


def build_sqlite_metadata() -> MetaData:
    """Return the tables without identity columns, which SQLite lacks: Alembic would report each as a difference."""
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    for table in TABLES:
        for column in table.to_metadata(metadata).columns:
            if column.identity is not None:
                column.identity = column.server_default = None
    return metadata


def is_ours(item: SchemaItem, name: str | None, kind: str, is_reflected: bool, compared: SchemaItem | None) -> bool:  # noqa: ARG001 - Alembic's signature
    """Whether Alembic compares an item: items outside the models belong to other programs."""
    return not is_reflected or compared is not None


def differs_in_type(migration: MigrationContext, _found: Any, _wanted: Any, found: Any, wanted: Any) -> bool | None:
    """Return False for two types of real numbers on SQLite, which has only one, and None otherwise: Alembic decides."""
    both_real = isinstance(found, Float) and isinstance(wanted, Float)
    return False if both_real and migration.dialect.name == "sqlite" else None


def differs_in_default(
    _migration: MigrationContext, _found: Any, _wanted: Any, found: str | None, _default: Any, wanted: str | None
) -> bool | None:
    """Return False for DEFAULT NULL, as in TASOC's files, and no default, and None otherwise: Alembic decides."""
    return False if found in ("NULL", "(NULL)") and wanted is None else None


def drop_empty_revision(_context: Any, _revision: Any, directives: list[MigrationScript]) -> None:
    """Do not write a revision without operations."""
    if getattr(config.cmd_opts, "autogenerate", False):
        directives[:] = [script for script in directives if script.upgrade_ops and not script.upgrade_ops.is_empty()]


def find_target() -> str:
    """Return the path or URL of the TODO-list for a command of Alembic.

    Raises
    ------
    CommandError
        If no TODO-list is given.
    """
    given = context.get_x_argument(as_dictionary=True).get("todo") or os.environ.get("PHOTOMETRY_TASKS_TODO")
    if given:
        return given
    try:
        url = config.get_main_option("sqlalchemy.url")
    except InterpolationError:
        # The URL has a '%' that is not doubled, for example in a quoted password.
        url = config.file_config.get(config.config_ini_section, "sqlalchemy.url", raw=True)
    if not url:
        raise CommandError(
            "No TODO-list is given. Give it as `alembic -x todo=PATH_OR_URL …`, in the environment variable "
            "PHOTOMETRY_TASKS_TODO, or as sqlalchemy.url in alembic.ini."
        )
    return url


def run_command() -> None:
    """Run a command of Alembic."""
    if config.config_file_name is not None and config.file_config.has_section("loggers"):
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    target = find_target()
    location = parse_location(target)
    path = location.path
    if context.is_offline_mode():
        if path is not None:
            raise CommandError("--sql is for PostgreSQL only: an upgrade reads a SQLite file first. Leave --sql out.")
        server = make_url("postgresql+psycopg://")
        run_migrations(server.get_dialect()(), url=server, literal_binds=True)
        return
    is_upgrade = getattr(config.cmd_opts, "cmd", [None])[0] is command.upgrade
    if path is None or not is_upgrade or not create_todo_file(path, lambda database: run_on(database, path)):
        with closing(open_database(location)) as database:
            run_on(database, database.name)


def run_on(database: Database, name: object) -> None:
    """Run the migrations in one transaction on a database; errors show its name."""
    with database.begin_upgrade() as connection:
        run_online(connection, name)


def run_online(connection: Connection, name: object) -> None:
    """Run the migrations in the open transaction of a connection; errors show the name."""
    config.attributes["convert_older_file"] = partial(convert_older_file, path=name)
    run_migrations(connection.dialect, connection=connection)


if "connection" in config.attributes:
    run_online(config.attributes["connection"], config.attributes["path"])
else:
    try:
        run_command()
    except DBAPIError as error:
        raise CommandError(str(error.orig)) from error
    except (TodoError, OSError) as error:
        raise CommandError(str(error)) from error
