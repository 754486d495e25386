"""Workers and attempts in files too, with versions, kinds and memory; tables of extra values and of the last reset."""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_WORKERS, _ATTEMPTS = "photometry_tasks_workers", "photometry_tasks_attempts"
_EXTRA, _UNDO = "photometry_tasks_extra", "photometry_tasks_undo"
_Integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

#: A time in a file: seconds since 1970 (UTC).
_NOW = sa.text("((julianday('now') - 2440587.5) * 86400.0)")


def upgrade() -> None:
    """Add the tables, and on a server the new columns of its existing tables."""
    if op.get_context().dialect.name == "sqlite":
        _create_tables_of_files()
    else:
        op.add_column(_WORKERS, sa.Column("version", sa.Text))
        op.alter_column(_WORKERS, "lease", nullable=True)
        for column in _build_columns():
            op.add_column(_ATTEMPTS, column)
        op.alter_column(_ATTEMPTS, "begun", nullable=True)
    _create_partial_index(_ATTEMPTS, "kind_idx", ["kind", "worker"], "counts IS NOT NULL")
    op.create_table(
        _EXTRA,
        sa.Column("priority", _Integer, autoincrement=False),
        sa.Column("extra", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("priority", name=f"{_EXTRA}_pkey"),
        sa.ForeignKeyConstraint(
            ["priority"],
            ["diagnostics.priority"],
            name=f"{_EXTRA}_priority_fkey",
            ondelete="CASCADE",
            onupdate="CASCADE",
        ),
        if_not_exists=True,
    )
    op.create_table(
        _UNDO,
        sa.Column("part", _Integer, autoincrement=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("part", name=f"{_UNDO}_pkey"),
        if_not_exists=True,
    )


def _build_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("kind", sa.Text),
        sa.Column("peak_memory", _Integer),
        sa.Column("counts", sa.Boolean),
    ]


def _create_tables_of_files() -> None:
    op.create_table(
        _WORKERS,
        sa.Column("worker", sa.Integer),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("slurm_jobid", sa.Text),
        sa.Column("lease", sa.REAL),
        sa.Column("begun", sa.REAL, nullable=False, server_default=_NOW),
        sa.Column("seen", sa.REAL, nullable=False, server_default=_NOW),
        sa.Column("ended", sa.REAL),
        sa.Column("version", sa.Text),
        sa.PrimaryKeyConstraint("worker", name=f"{_WORKERS}_pkey"),
        if_not_exists=True,
    )
    op.create_table(
        _ATTEMPTS,
        sa.Column("priority", sa.Integer, autoincrement=False),
        sa.Column("attempt", sa.Integer),
        sa.Column("worker", sa.Integer, nullable=False),
        sa.Column("begun", sa.REAL, server_default=_NOW),
        sa.Column("ended", sa.REAL),
        sa.Column("how", sa.Text),
        sa.Column("errors", sa.Text),
        *_build_columns(),
        sa.PrimaryKeyConstraint("priority", "attempt", name=f"{_ATTEMPTS}_pkey"),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    _create_partial_index(_WORKERS, "live_idx", ["worker"], "ended IS NULL")
    _create_partial_index(_ATTEMPTS, "live_idx", ["priority"], "ended IS NULL", unique=True)


def _create_partial_index(table: str, name: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(
        f"{table}_{name}",
        table,
        columns,
        unique=unique,
        sqlite_where=where,
        postgresql_where=where,
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop the tables, and on a server the new columns."""
    message = "The history of attempts in a file, versions, kinds of failure, extra values and the undo are deleted"
    logging.getLogger("alembic.runtime.migration").warning(message)  # it is shown as Alembic's messages are
    op.drop_table(_UNDO, if_exists=True)
    op.drop_table(_EXTRA, if_exists=True)
    if op.get_context().dialect.name == "sqlite":
        op.drop_table(_ATTEMPTS, if_exists=True)
        op.drop_table(_WORKERS, if_exists=True)
        return
    workers = sa.table(_WORKERS, sa.column("lease"))
    attempts = sa.table(_ATTEMPTS, sa.column("begun"), sa.column("ended"))
    op.execute(workers.update().where(workers.c.lease.is_(None)).values(lease=0))
    op.execute(attempts.update().where(attempts.c.begun.is_(None)).values(begun=attempts.c.ended))
    op.alter_column(_WORKERS, "lease", nullable=False)
    op.alter_column(_ATTEMPTS, "begun", nullable=False)
    op.drop_index(f"{_ATTEMPTS}_kind_idx", _ATTEMPTS, if_exists=True)
    for column in _build_columns():
        op.drop_column(_ATTEMPTS, column.name)
    op.drop_column(_WORKERS, "version")
