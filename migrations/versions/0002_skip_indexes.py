"""Indexes of photometry_skipped on priority and on skipped_by."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the two indexes."""
    op.create_index("photometry_skipped_priority_idx", "photometry_skipped", ["priority"], if_not_exists=True)
    op.create_index("photometry_skipped_skipped_by_idx", "photometry_skipped", ["skipped_by"], if_not_exists=True)


def downgrade() -> None:
    """Drop the two indexes."""
    op.drop_index("photometry_skipped_skipped_by_idx", "photometry_skipped", if_exists=True)
    op.drop_index("photometry_skipped_priority_idx", "photometry_skipped", if_exists=True)
