"""The declarative models of the three tables, with their names, keys and indexes.

The tables and columns are those of the TASOC pipeline (release 6.3): other programs read them with plain SQL.
The models describe; the statements that the library runs are Core statements on their tables (statements.py).
"""

from typing import Annotated

from sqlalchemy import (
    DOUBLE_PRECISION,
    REAL,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Base", "Diagnostics", "Progress", "Skip", "Task"]

# As TASOC's files declare them; SQLite makes only a column that is declared INTEGER the alias of its row id.
# PostgreSQL needs 64 bits for both: star ids, and magnitudes as they were given.
_Integer = BigInteger().with_variant(Integer(), "sqlite")
_Real: Double[float] = Double().with_variant(REAL(), "sqlite")
_Statistic = Annotated[float, mapped_column(DOUBLE_PRECISION())]


_IS_PENDING = text("status IS NULL")


class Base(DeclarativeBase):
    """The models' common base: types and naming convention."""

    type_annotation_map = {int: _Integer, float: _Real, str: Text()}  # noqa: RUF012 - SQLAlchemy's own hook
    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_name)s_idx",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )


class Task(Base):
    """A row of `todolist`: one star to be measured in one sector, on one CCD, at one cadence.

    Attributes
    ----------
    priority : int
        Key and order: the lowest pending one is handed out first.
    starid : int
        Identifier in the TESS Input Catalogue (TIC).
    datasource : str
        'ffi' (full-frame images), 'tpf' (the primary target of a target pixel file), or 'tpf:<starid>' (a
        secondary target in the pixel file of that star).
    cadence : int
        Time between exposures, seconds.
    method : str or None
        The photometric method to use; None leaves the choice to the pipeline.
    tmag : float or None
        TESS magnitude.
    status : int or None
        A value of `STATUS`; None while the task is pending.
    cbv_area : int
        Area of the CCD whose cotrending basis vectors apply: camera*100 + ccd*10 + area, where area 0 means
        that none was assigned.
    """

    __tablename__ = "todolist"

    priority: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    starid: Mapped[int]
    sector: Mapped[int]
    datasource: Mapped[str] = mapped_column(server_default=text("'ffi'"))
    camera: Mapped[int]
    ccd: Mapped[int]
    cadence: Mapped[int]
    method: Mapped[str | None]
    tmag: Mapped[float | None]
    status: Mapped[int | None]
    cbv_area: Mapped[int]

    __table_args__ = (
        Index("unique_target_idx", "starid", "datasource", "sector", "camera", "ccd", "cadence", unique=True),
        Index("status_idx", "status"),
        Index("starid_idx", "starid"),
        Index("todolist_datasource_idx", "datasource"),
        # The next task, however many are finished.
        Index("todolist_pending_idx", "priority", sqlite_where=_IS_PENDING, postgresql_where=_IS_PENDING),
    )


class Diagnostics(Base):
    """A row of `diagnostics`: what is kept of the result of one task.

    Fluxes are in electrons per second, positions and sizes in pixels, times in seconds; `rms_hour` and `ptp`
    are in parts per million per hour, as the pipeline gave them.
    """

    __tablename__ = "diagnostics"

    priority: Mapped[int] = mapped_column(
        ForeignKey("todolist.priority", ondelete="CASCADE", onupdate="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    lightcurve: Mapped[str | None]
    method_used: Mapped[str]
    elaptime: Mapped[float]
    worker_wait_time: Mapped[float | None]
    mean_flux: Mapped[_Statistic | None]
    variance: Mapped[_Statistic | None]
    variability: Mapped[_Statistic | None]
    rms_hour: Mapped[_Statistic | None]
    ptp: Mapped[_Statistic | None]
    pos_row: Mapped[float | None]
    pos_column: Mapped[float | None]
    contamination: Mapped[float | None]
    mask_size: Mapped[int | None]
    edge_flux: Mapped[float | None]
    stamp_width: Mapped[int | None]
    stamp_height: Mapped[int | None]
    stamp_resizes: Mapped[int | None]
    errors: Mapped[str | None]

    __table_args__ = (Index("diagnostics_lightcurve_idx", "lightcurve", unique=True),)


class Skip(Base):
    """A row of `photometry_skipped`: task `priority` need not be run, since `skipped_by` covers it."""

    __tablename__ = "photometry_skipped"

    priority: Mapped[int] = mapped_column(ForeignKey("todolist.priority", ondelete="CASCADE", onupdate="CASCADE"))
    skipped_by: Mapped[int] = mapped_column(ForeignKey("todolist.priority", ondelete="RESTRICT", onupdate="CASCADE"))

    __table_args__ = (
        # Every save asks both ways; without these, each would read the whole table.
        Index("photometry_skipped_priority_idx", "priority"),
        Index("photometry_skipped_skipped_by_idx", "skipped_by"),
    )
    # The table has no primary key (older files hold duplicate rows); the mapper needs columns to go by.
    __mapper_args__ = {"primary_key": [priority, skipped_by]}  # noqa: RUF012 - SQLAlchemy's own hook


class Progress(Base):
    """A row of `photometry_tasks_progress`: what was saved in one minute. TASOC's tables hold no times.

    Attributes
    ----------
    minute : int
        When it began, seconds since 1970 (UTC): a manager's first when that was opened. There is none for a minute in
        which nothing was saved.
    saved : int
        Results saved.
    errors : int
        Those of them with status ERROR.
    elaptime : float
        What the results took together, seconds.
    last_error : int or None
        The priority of the last task that became an ERROR.
    """

    __tablename__ = "photometry_tasks_progress"

    minute: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    saved: Mapped[int]
    errors: Mapped[int]
    elaptime: Mapped[float]
    last_error: Mapped[int | None]


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)  # noqa: S101 - tells mypy what SQLAlchemy's type leaves open
    return table


todolist = _table(Task)
diagnostics = _table(Diagnostics)
photometry_skipped = _table(Skip)
progress = _table(Progress)
