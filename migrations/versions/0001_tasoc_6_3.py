"""TASOC release 6.3: from nothing, and on SQLite from the file of any release since 3.0."""

import sqlalchemy as sa
from alembic import context, op
from alembic.operations.ops import CreateIndexOp, CreateTableOp

from photometry_tasks import legacy, tasoc
from photometry_tasks.backends import holds_tasoc_files
from photometry_tasks.errors import DowngradeError, NotATodoFileError
from photometry_tasks.schema import VERSION_TABLE

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, or add to those that are there what they lack."""
    tables = set() if context.is_offline_mode() else set(sa.inspect(op.get_bind()).get_table_names()) - {VERSION_TABLE}
    path = context.config.attributes.get("path")
    if tables and holds_tasoc_files(op.get_bind()):
        legacy.upgrade(op.get_bind(), path)
        return
    if "todolist" in tables:
        raise NotATodoFileError(path=path, found=f"it has a todolist, but no revision in {VERSION_TABLE}")
    for table in tasoc.metadata.sorted_tables:
        op.invoke(CreateTableOp.from_table(table))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            op.invoke(CreateIndexOp.from_index(index))


def downgrade() -> None:
    """Refuse: there are several older schemas, and none has a place for all that the file holds."""
    raise DowngradeError
