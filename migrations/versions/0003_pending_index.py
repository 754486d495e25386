"""Index of todolist on the pending tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the index."""
    is_pending = sa.text("status IS NULL")
    op.create_index(
        "todolist_pending_idx",
        "todolist",
        ["priority"],
        sqlite_where=is_pending,
        postgresql_where=is_pending,
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("todolist_pending_idx", "todolist", if_exists=True)
