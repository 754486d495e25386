"""Table photometry_tasks_progress, with the number of results saved in each minute."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_Integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Real: sa.Double[float] = sa.Double().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "photometry_tasks_progress",
        sa.Column("minute", _Integer, autoincrement=False),
        sa.Column("saved", _Integer, nullable=False),
        sa.Column("errors", _Integer, nullable=False),
        sa.Column("elaptime", _Real, nullable=False),
        sa.Column("last_error", _Integer),
        sa.PrimaryKeyConstraint("minute", name="photometry_tasks_progress_pkey"),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("photometry_tasks_progress", if_exists=True)
