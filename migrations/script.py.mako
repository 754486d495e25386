"""${message}"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Bring a TODO-list to this revision."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Bring it back to the revision before."""
    ${downgrades if downgrades else "pass"}
