"""The tables of TASOC release 6.3 (2023), which the first revision creates. For later additions see models.py."""

from sqlalchemy import (
    DOUBLE_PRECISION,
    REAL,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

_INTEGER = BigInteger().with_variant(Integer(), "sqlite")
_REAL: Double[float] = Double().with_variant(REAL(), "sqlite")
_STATISTIC: Double[float] = DOUBLE_PRECISION()

metadata = MetaData(naming_convention={"fk": "%(table_name)s_%(column_0_name)s_fkey", "pk": "%(table_name)s_pkey"})

Table(
    "todolist",
    metadata,
    Column("priority", _INTEGER, primary_key=True, autoincrement=False),
    Column("starid", _INTEGER, nullable=False),
    Column("sector", _INTEGER, nullable=False),
    Column("datasource", Text, nullable=False, server_default=text("'ffi'")),
    Column("camera", _INTEGER, nullable=False),
    Column("ccd", _INTEGER, nullable=False),
    Column("cadence", _INTEGER, nullable=False),
    Column("method", Text),
    Column("tmag", _REAL),
    Column("status", _INTEGER),
    Column("cbv_area", _INTEGER, nullable=False),
    Index("unique_target_idx", "starid", "datasource", "sector", "camera", "ccd", "cadence", unique=True),
    Index("status_idx", "status"),
    Index("starid_idx", "starid"),
    Index("todolist_datasource_idx", "datasource"),
)

Table(
    "diagnostics",
    metadata,
    Column(
        "priority",
        _INTEGER,
        ForeignKey("todolist.priority", ondelete="CASCADE", onupdate="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("lightcurve", Text),
    Column("method_used", Text, nullable=False),
    Column("elaptime", _REAL, nullable=False),
    Column("worker_wait_time", _REAL),
    *(Column(name, _STATISTIC) for name in ("mean_flux", "variance", "variability", "rms_hour", "ptp")),
    *(Column(name, _REAL) for name in ("pos_row", "pos_column", "contamination")),
    Column("mask_size", _INTEGER),
    Column("edge_flux", _REAL),
    *(Column(name, _INTEGER) for name in ("stamp_width", "stamp_height", "stamp_resizes")),
    Column("errors", Text),
    Index("diagnostics_lightcurve_idx", "lightcurve", unique=True),
)

Table(
    "photometry_skipped",
    metadata,
    *(
        Column(
            name,
            _INTEGER,
            ForeignKey("todolist.priority", ondelete=on_delete, onupdate="CASCADE"),
            nullable=False,
        )
        for name, on_delete in (("priority", "CASCADE"), ("skipped_by", "RESTRICT"))
    ),
)
