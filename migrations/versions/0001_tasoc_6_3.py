"""Schema of TASOC release 6.3.

A new list gets its tables from this revision; a SQLite file of an older release, since 3.0, is converted.
"""

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

revision = "0001"
down_revision = None

_Integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Real: sa.Double[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
_Statistic: sa.Double[float] = sa.DOUBLE_PRECISION()


def upgrade() -> None:
    """Convert the existing tables, and create the missing ones."""
    # A script for a new database must fail on a table of another program.
    is_online = not context.is_offline_mode()
    if is_online:
        # Older files differ in too many ways for a list of operations: a function from env.py converts them.
        context.config.attributes["convert_older_file"](op.get_bind())
    op.create_table(
        "todolist",
        sa.Column("priority", _Integer, autoincrement=False, nullable=False),
        sa.Column("starid", _Integer, nullable=False),
        sa.Column("sector", _Integer, nullable=False),
        sa.Column("datasource", sa.Text, nullable=False, server_default=sa.text("'ffi'")),
        sa.Column("camera", _Integer, nullable=False),
        sa.Column("ccd", _Integer, nullable=False),
        sa.Column("cadence", _Integer, nullable=False),
        sa.Column("method", sa.Text),
        sa.Column("tmag", _Real),
        sa.Column("status", _Integer),
        sa.Column("cbv_area", _Integer, nullable=False),
        sa.PrimaryKeyConstraint("priority", name="todolist_pkey"),
        if_not_exists=is_online,
    )
    target = ["starid", "datasource", "sector", "camera", "ccd", "cadence"]
    op.create_index("unique_target_idx", "todolist", target, unique=True, if_not_exists=is_online)
    op.create_index("status_idx", "todolist", ["status"], if_not_exists=is_online)
    op.create_index("starid_idx", "todolist", ["starid"], if_not_exists=is_online)
    op.create_index("todolist_datasource_idx", "todolist", ["datasource"], if_not_exists=is_online)
    op.create_table(
        "diagnostics",
        sa.Column("priority", _Integer, autoincrement=False, nullable=False),
        sa.Column("lightcurve", sa.Text),
        sa.Column("method_used", sa.Text, nullable=False),
        sa.Column("elaptime", _Real, nullable=False),
        sa.Column("worker_wait_time", _Real),
        *(sa.Column(name, _Statistic) for name in ("mean_flux", "variance", "variability", "rms_hour", "ptp")),
        *(sa.Column(name, _Real) for name in ("pos_row", "pos_column", "contamination")),
        sa.Column("mask_size", _Integer),
        sa.Column("edge_flux", _Real),
        *(sa.Column(name, _Integer) for name in ("stamp_width", "stamp_height", "stamp_resizes")),
        sa.Column("errors", sa.Text),
        sa.PrimaryKeyConstraint("priority", name="diagnostics_pkey"),
        _to_task("diagnostics", "priority", "CASCADE"),
        if_not_exists=is_online,
    )
    op.create_index("diagnostics_lightcurve_idx", "diagnostics", ["lightcurve"], unique=True, if_not_exists=is_online)
    op.create_table(
        "photometry_skipped",
        sa.Column("priority", _Integer, nullable=False),
        sa.Column("skipped_by", _Integer, nullable=False),
        _to_task("photometry_skipped", "priority", "CASCADE"),
        _to_task("photometry_skipped", "skipped_by", "RESTRICT"),
        if_not_exists=is_online,
    )


def _to_task(table: str, column: str, on_delete: str) -> sa.ForeignKeyConstraint:
    name = f"{table}_{column}_fkey"
    return sa.ForeignKeyConstraint([column], ["todolist.priority"], name=name, ondelete=on_delete, onupdate="CASCADE")


def downgrade() -> None:
    """Refuse: there are several older schemas, and none can hold all values of the list."""
    raise CommandError(
        "A TODO-list cannot be downgraded below TASOC release 6.3: there are several older schemas, and none can hold "
        "all values of the list. Use a copy from before the upgrade."
    )
