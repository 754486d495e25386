"""Tables of the workers and of their attempts, on PostgreSQL only.

A SQLite file has one manager at a time, and needs no such tables.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_WORKERS, _ATTEMPTS = "photometry_tasks_workers", "photometry_tasks_attempts"
_OFTEN = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000"


def upgrade() -> None:
    """Add the tables, and set the storage parameters of tables whose rows change often."""
    if op.get_context().dialect.name != "postgresql":
        return
    time = sa.DateTime(timezone=True)
    now = sa.func.clock_timestamp()
    op.create_table(
        _WORKERS,
        sa.Column("worker", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("slurm_jobid", sa.Text),
        sa.Column("lease", sa.Double, nullable=False),
        sa.Column("begun", time, nullable=False, server_default=now),
        sa.Column("seen", time, nullable=False, server_default=now),
        sa.Column("ended", time),
        sa.PrimaryKeyConstraint("worker", name=f"{_WORKERS}_pkey"),
        if_not_exists=True,
    )
    is_live = sa.text("ended IS NULL")
    op.create_index(f"{_WORKERS}_live_idx", _WORKERS, ["worker"], postgresql_where=is_live, if_not_exists=True)
    op.create_table(
        _ATTEMPTS,
        sa.Column("priority", sa.BigInteger, autoincrement=False),
        sa.Column("attempt", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("worker", sa.BigInteger, nullable=False),
        sa.Column("begun", time, nullable=False, server_default=now),
        sa.Column("ended", time),
        sa.Column("how", sa.Text),
        sa.Column("errors", sa.Text),
        sa.PrimaryKeyConstraint("priority", "attempt", name=f"{_ATTEMPTS}_pkey"),
        if_not_exists=True,
    )
    op.create_index(
        f"{_ATTEMPTS}_live_idx", _ATTEMPTS, ["priority"], unique=True, postgresql_where=is_live, if_not_exists=True
    )
    op.execute(f"ALTER TABLE {_WORKERS} SET (fillfactor = 50, autovacuum_vacuum_threshold = 1000)")
    op.execute(f"ALTER TABLE {_ATTEMPTS} SET ({_OFTEN})")
    op.execute(f"ALTER TABLE todolist SET (fillfactor = 70, {_OFTEN})")


def downgrade() -> None:
    """Drop the tables, and reset the storage parameters of todolist."""
    if op.get_context().dialect.name != "postgresql":
        return
    op.drop_table(_ATTEMPTS, if_exists=True)
    op.drop_table(_WORKERS, if_exists=True)
    op.execute("ALTER TABLE todolist RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)")
