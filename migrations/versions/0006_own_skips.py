"""Table photometry_tasks_own_skips, with the skips that results of the skipped tasks state."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_TABLE = "photometry_tasks_own_skips"
_Integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _build_key(name: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [name], [target], name=f"{_TABLE}_{name}_fkey", ondelete="CASCADE", onupdate="CASCADE"
    )


def upgrade() -> None:
    """Add the table. The skips in older lists are regarded as those of the covering task."""
    op.create_table(
        _TABLE,
        sa.Column("priority", _Integer, autoincrement=False),
        sa.Column("skipped_by", _Integer, nullable=False),
        sa.PrimaryKeyConstraint("priority", name=f"{_TABLE}_pkey"),
        _build_key("priority", "diagnostics.priority"),
        _build_key("skipped_by", "todolist.priority"),
        if_not_exists=True,
    )
    op.create_index(f"{_TABLE}_skipped_by_idx", _TABLE, ["skipped_by"], if_not_exists=True)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table(_TABLE, if_exists=True)
