"""The declarative models of the tables, with their names, keys and indexes.

The first three are those of the TASOC pipeline (release 6.3): other programs read them with plain SQL.
The models describe; the statements that the library runs are Core statements on their tables (statements.py).
"""

from datetime import datetime
from typing import Annotated

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Attempt", "Base", "Diagnostics", "Progress", "ServerBase", "Skip", "Task", "Worker"]

# As TASOC's files declare them; SQLite makes only a column that is declared INTEGER the alias of its row id.
# PostgreSQL needs 64 bits for both: star ids, and magnitudes as they were given.
_Integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Real: sa.Double[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
_Statistic = Annotated[float, mapped_column(sa.DOUBLE_PRECISION())]


_IS_PENDING = sa.text("status IS NULL")

_TYPES = {int: _Integer, float: _Real, str: sa.Text(), datetime: sa.DateTime(timezone=True)}

_NAMES = {
    "ix": "%(table_name)s_%(column_0_name)s_idx",
    "uq": "%(table_name)s_%(column_0_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}


#: How PostgreSQL keeps a table whose rows change often is in its `info` (SQLAlchemy 2.0 has no `postgresql_with`): room
#: for new versions of a row on its page, and vacuum after a hundredth of the rows has changed, not a fifth. With more
#: dead rows every search for the next task takes longer.
_OFTEN = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000"


class Base(DeclarativeBase):
    """The base of the models that every TODO-list has: types and naming convention."""

    type_annotation_map = _TYPES
    metadata = sa.MetaData(naming_convention=_NAMES)


class ServerBase(DeclarativeBase):
    """The base of the models that only a list on a server has, which many managers share."""

    type_annotation_map = _TYPES
    metadata = sa.MetaData(naming_convention=_NAMES)


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
    datasource: Mapped[str] = mapped_column(server_default=sa.text("'ffi'"))
    camera: Mapped[int]
    ccd: Mapped[int]
    cadence: Mapped[int] = mapped_column(info={"unit": "s"})
    method: Mapped[str | None]
    tmag: Mapped[float | None] = mapped_column(info={"unit": "mag"})
    status: Mapped[int | None]
    cbv_area: Mapped[int]

    __table_args__ = (
        sa.Index("unique_target_idx", "starid", "datasource", "sector", "camera", "ccd", "cadence", unique=True),
        sa.Index("status_idx", "status"),
        sa.Index("starid_idx", "starid"),
        sa.Index("todolist_datasource_idx", "datasource"),
        # The next task, however many are finished.
        sa.Index("todolist_pending_idx", "priority", sqlite_where=_IS_PENDING, postgresql_where=_IS_PENDING),
        {"info": {"storage": f"fillfactor = 70, {_OFTEN}"}},
    )


class Diagnostics(Base):
    """A row of `diagnostics`: what is kept of the result of one task.

    Fluxes are in electrons per second, positions and sizes in pixels, times in seconds; `rms_hour` and `ptp`
    are in parts per million per hour, as the pipeline gave them.
    """

    __tablename__ = "diagnostics"

    priority: Mapped[int] = mapped_column(
        sa.ForeignKey("todolist.priority", ondelete="CASCADE", onupdate="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    lightcurve: Mapped[str | None]
    method_used: Mapped[str]
    elaptime: Mapped[float] = mapped_column(info={"unit": "s"})
    worker_wait_time: Mapped[float | None] = mapped_column(info={"unit": "s"})
    mean_flux: Mapped[_Statistic | None] = mapped_column(info={"unit": "electron / s"})
    variance: Mapped[_Statistic | None]
    variability: Mapped[_Statistic | None]
    rms_hour: Mapped[_Statistic | None]
    ptp: Mapped[_Statistic | None]
    pos_row: Mapped[float | None] = mapped_column(info={"unit": "pix"})
    pos_column: Mapped[float | None] = mapped_column(info={"unit": "pix"})
    contamination: Mapped[float | None]
    mask_size: Mapped[int | None] = mapped_column(info={"unit": "pix"})
    edge_flux: Mapped[float | None] = mapped_column(info={"unit": "electron / s"})
    stamp_width: Mapped[int | None] = mapped_column(info={"unit": "pix"})
    stamp_height: Mapped[int | None] = mapped_column(info={"unit": "pix"})
    stamp_resizes: Mapped[int | None]
    errors: Mapped[str | None]

    __table_args__ = (sa.Index("diagnostics_lightcurve_idx", "lightcurve", unique=True),)


class Skip(Base):
    """A row of `photometry_skipped`: task `priority` need not be run, since `skipped_by` covers it."""

    __tablename__ = "photometry_skipped"

    priority: Mapped[int] = mapped_column(sa.ForeignKey("todolist.priority", ondelete="CASCADE", onupdate="CASCADE"))
    skipped_by: Mapped[int] = mapped_column(sa.ForeignKey("todolist.priority", ondelete="RESTRICT", onupdate="CASCADE"))

    __table_args__ = (
        # Every save asks both ways; without these, each would read the whole table.
        sa.Index("photometry_skipped_priority_idx", "priority"),
        sa.Index("photometry_skipped_skipped_by_idx", "skipped_by"),
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


class Worker(ServerBase):
    """A row of `photometry_tasks_workers`: a manager that works, or has worked, on the list. None is ever deleted.

    Attributes
    ----------
    worker : int
        Its number, which no other ever gets.
    host, pid : str, int
        Where it runs.
    slurm_jobid : str or None
        In which job of the batch system.
    lease : float
        Seconds without a sign of life after which its tasks are taken back.
    begun, seen, ended : datetime
        By the server's clock: when it opened the list, gave its last sign of life, and closed it or was given up. One
        that was given up, and comes back, has not ended.
    """

    __tablename__ = "photometry_tasks_workers"

    worker: Mapped[int] = mapped_column(sa.Identity(always=True), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    slurm_jobid: Mapped[str | None]
    lease: Mapped[float]
    begun: Mapped[datetime] = mapped_column(server_default=sa.func.clock_timestamp())
    seen: Mapped[datetime] = mapped_column(server_default=sa.func.clock_timestamp())
    ended: Mapped[datetime | None]

    __table_args__ = (
        # Every claim looks for those that have fallen silent. `seen` is not in it: so its updates touch no index.
        sa.Index("photometry_tasks_workers_live_idx", "worker", postgresql_where=sa.text("ended IS NULL")),
        {"info": {"storage": "fillfactor = 50, autovacuum_vacuum_threshold = 1000"}},
    )


class Attempt(ServerBase):
    """A row of `photometry_tasks_attempts`: one try at one task. None is ever deleted.

    Attributes
    ----------
    priority : int
        The task.
    attempt : int
        Its number, which no other ever gets: whoever brings the result shows it.
    worker : int
        The worker that made it.
    begun, ended : datetime
        By the server's clock; it is live as long as it has not ended.
    how : str or None
        How it ended: the name of the status that its result brought, 'lost' (its worker fell silent), 'released'
        (it was given back), or 'given up' (its worker was lost, as others were before it with the same task).
    errors : str or None
        What was stored with the result, or why it was lost.
    """

    __tablename__ = "photometry_tasks_attempts"

    priority: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(sa.Identity(always=True), primary_key=True)
    worker: Mapped[int]
    begun: Mapped[datetime] = mapped_column(server_default=sa.func.clock_timestamp())
    ended: Mapped[datetime | None]
    how: Mapped[str | None]
    errors: Mapped[str | None]

    __table_args__ = (
        # No task has two live attempts, whatever goes wrong elsewhere.
        sa.Index(
            "photometry_tasks_attempts_live_idx", "priority", unique=True, postgresql_where=sa.text("ended IS NULL")
        ),
        {"info": {"storage": _OFTEN}},
    )
    # No foreign keys: what was tried stays known when a task is deleted, and each would cost a look-up per attempt.


def _table(model: type[Base | ServerBase]) -> sa.Table:
    table = model.__table__
    assert isinstance(table, sa.Table)  # noqa: S101 - tells mypy what SQLAlchemy's type leaves open
    return table


todolist = _table(Task)
diagnostics = _table(Diagnostics)
photometry_skipped = _table(Skip)
progress = _table(Progress)
workers = _table(Worker)
attempts = _table(Attempt)
