"""${message}"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Upgrade a TODO-list to this revision."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Downgrade a TODO-list to the previous revision."""
    ${downgrades if downgrades else "pass"}
