"""The declarative models of the tables, with their names, keys and indexes.

The first three tables are those of the TASOC pipeline (release 6.3): other programs read them with plain SQL.
The library itself runs Core statements on these tables: see `sql/statements.py`. Options of one database are stated in
`info`, and `add_options` adds them: with arguments such as `sqlite_where` the models would load its dialect.
A column of the first two tables has its unit in `info` and its description in `doc`: exports and tables state them.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["Attempt", "Base", "Diagnostics", "Extra", "OwnSkip", "Progress", "Skip", "Task", "Undo", "Worker"]

# On SQLite the types of TASOC's files; only a column declared INTEGER becomes the alias of the row id.
# On PostgreSQL both need 64 bits: for star ids, and for unchanged magnitudes.
_Integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Real: sa.Double[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
_Statistic = Annotated[float, mapped_column(sa.DOUBLE_PRECISION())]


class _SecondsSince1970(sa.TypeDecorator[datetime]):
    """A time as seconds since 1970 (UTC); a value that is no time is stored and read unchanged."""

    impl = sa.REAL
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """Return a time as it is stored."""
        return value.timestamp() if isinstance(value, datetime) else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        """Return a stored time."""
        try:
            return datetime.fromtimestamp(value, UTC) if type(value) in (float, int) else value
        except (OverflowError, OSError, ValueError):
            return value


#: A time with its zone. SQLite has no type for it: a text would take 26 bytes, a number 8.
_Time = sa.DateTime(timezone=True).with_variant(_SecondsSince1970(), "sqlite")


class current_time(FunctionElement[datetime]):  # noqa: N801 - used as a function
    """The time of the call, by the clock of the database, as a column of times stores it."""

    type = _Time
    inherit_cache = True


@compiles(current_time)
def _from_julian_day(_element: current_time, _compiler: Any, **_given: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(current_time, "postgresql")
def _from_clock(_element: current_time, _compiler: Any, **_given: Any) -> str:
    return "clock_timestamp()"


_TYPES = {int: _Integer, float: _Real, str: sa.Text(), bytes: sa.LargeBinary(), datetime: _Time}

_NAMES = {
    "ix": "%(table_name)s_%(column_0_name)s_idx",
    "uq": "%(table_name)s_%(column_0_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}


#: Storage parameters of PostgreSQL for tables whose rows change often, in the tables' `info` (SQLAlchemy 2.0 has no
#: `postgresql_with`): vacuum runs after 1 % of the rows have changed, not 20 %. With more dead rows each search for the
#: next task takes longer. A fillfactor leaves room on a page for new versions of its rows.
_OFTEN = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000"


class Base(DeclarativeBase):
    """The base of the models of every TODO-list: types and naming convention."""

    type_annotation_map = _TYPES
    metadata = sa.MetaData(naming_convention=_NAMES)


class Task(Base):
    """A row of `todolist`: the measurement of one star in one sector, on one CCD, at one cadence."""

    __tablename__ = "todolist"

    priority: Mapped[int] = mapped_column(
        primary_key=True,
        autoincrement=False,
        doc="Key and order of the task: the pending task with the lowest priority comes first",
    )
    starid: Mapped[int] = mapped_column(doc="Identifier in the TESS Input Catalogue (TIC)")
    sector: Mapped[int] = mapped_column(doc="Sector of TESS")
    datasource: Mapped[str] = mapped_column(
        server_default=sa.text("'ffi'"),
        doc="'ffi' (full-frame images), 'tpf' (the primary target of a target pixel file), or 'tpf:<starid>' (a"
        " secondary target in the pixel file of that star)",
    )
    camera: Mapped[int] = mapped_column(doc="Camera of TESS")
    ccd: Mapped[int] = mapped_column(doc="CCD of the camera")
    cadence: Mapped[int] = mapped_column(info={"unit": "s"}, doc="Time between exposures")
    method: Mapped[str | None] = mapped_column(
        doc="The photometric method to use; none leaves the choice to the pipeline"
    )
    tmag: Mapped[float | None] = mapped_column(info={"unit": "mag"}, doc="TESS magnitude")
    status: Mapped[int | None] = mapped_column(doc="A value of STATUS; none while the task is pending")
    cbv_area: Mapped[int] = mapped_column(
        doc="Area of the CCD whose cotrending basis vectors apply: camera*100 + ccd*10 + area; area 0 means that no"
        " area was assigned"
    )

    __table_args__ = (
        sa.Index("unique_target_idx", "starid", "datasource", "sector", "camera", "ccd", "cadence", unique=True),
        sa.Index("status_idx", "status"),
        sa.Index("starid_idx", "starid"),
        sa.Index("todolist_datasource_idx", "datasource"),
        # Finds the next task equally fast however many tasks are finished.
        sa.Index("todolist_pending_idx", "priority", info={"where": "status IS NULL"}),
        {"info": {"storage": f"fillfactor = 70, {_OFTEN}"}},
    )


class Diagnostics(Base):
    """A row of `diagnostics`: the stored part of the result of one task."""

    __tablename__ = "diagnostics"

    priority: Mapped[int] = mapped_column(
        sa.ForeignKey("todolist.priority", ondelete="CASCADE", onupdate="CASCADE"),
        primary_key=True,
        autoincrement=False,
        doc="Priority of the task",
    )
    lightcurve: Mapped[str | None] = mapped_column(doc="Path of the light curve")
    method_used: Mapped[str] = mapped_column(doc="The photometric method that was used")
    elaptime: Mapped[float] = mapped_column(info={"unit": "s"}, doc="Run time")
    worker_wait_time: Mapped[float | None] = mapped_column(
        info={"unit": "s"}, doc="Time that the worker waited for the task"
    )
    mean_flux: Mapped[_Statistic | None] = mapped_column(
        info={"unit": "electron / s"}, doc="Mean flux of the light curve"
    )
    variance: Mapped[_Statistic | None] = mapped_column(
        info={"unit": "electron2 / s2"}, doc="Variance of the flux of the light curve"
    )
    variability: Mapped[_Statistic | None] = mapped_column(
        doc="Variability of the light curve, as the pipeline defines it"
    )
    rms_hour: Mapped[_Statistic | None] = mapped_column(
        doc="Scatter on the time scale of an hour, parts per million per hour as the pipeline gives it"
    )
    ptp: Mapped[_Statistic | None] = mapped_column(
        doc="Scatter from point to point, parts per million per hour as the pipeline gives it"
    )
    pos_row: Mapped[float | None] = mapped_column(info={"unit": "pix"}, doc="Row of the star's centroid")
    pos_column: Mapped[float | None] = mapped_column(info={"unit": "pix"}, doc="Column of the star's centroid")
    contamination: Mapped[float | None] = mapped_column(doc="Share of the flux in the aperture that other stars give")
    mask_size: Mapped[int | None] = mapped_column(info={"unit": "pix"}, doc="Size of the aperture")
    edge_flux: Mapped[float | None] = mapped_column(
        info={"unit": "electron / s"}, doc="Flux in the aperture at the edge of the stamp"
    )
    stamp_width: Mapped[int | None] = mapped_column(info={"unit": "pix"}, doc="Width of the stamp")
    stamp_height: Mapped[int | None] = mapped_column(info={"unit": "pix"}, doc="Height of the stamp")
    stamp_resizes: Mapped[int | None] = mapped_column(doc="How often the stamp was resized")
    errors: Mapped[str | None] = mapped_column(doc="Errors and warnings of the result, one a line")

    __table_args__ = (sa.Index("diagnostics_lightcurve_idx", "lightcurve", unique=True),)


class Skip(Base):
    """A row of `photometry_skipped`: task `priority` is skipped because task `skipped_by` covers it."""

    __tablename__ = "photometry_skipped"

    priority: Mapped[int] = mapped_column(sa.ForeignKey("todolist.priority", ondelete="CASCADE", onupdate="CASCADE"))
    skipped_by: Mapped[int] = mapped_column(sa.ForeignKey("todolist.priority", ondelete="RESTRICT", onupdate="CASCADE"))

    __table_args__ = (
        # Each save looks up both columns; without the indexes it would read the whole table.
        sa.Index("photometry_skipped_priority_idx", "priority"),
        sa.Index("photometry_skipped_skipped_by_idx", "skipped_by"),
    )
    # The table has no primary key (older files have duplicate rows), but the mapper needs one.
    __mapper_args__ = {"primary_key": [priority, skipped_by]}  # noqa: RUF012 - SQLAlchemy's own hook


class OwnSkip(Base):
    """A row of `photometry_tasks_own_skips`: a skip that the result of the skipped task itself states.

    It ends with that result. A skip without such a row ends with the result of the task that covers the skipped one.
    """

    __tablename__ = "photometry_tasks_own_skips"

    priority: Mapped[int] = mapped_column(
        sa.ForeignKey("diagnostics.priority", ondelete="CASCADE", onupdate="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    skipped_by: Mapped[int] = mapped_column(
        sa.ForeignKey("todolist.priority", ondelete="CASCADE", onupdate="CASCADE"), index=True
    )


class Progress(Base):
    """A row of `photometry_tasks_progress`: the results saved in one minute. TASOC's tables store no times.

    Attributes
    ----------
    minute : int
        Start of the minute, seconds since 1970 (UTC); a manager's first minute starts at its opening. A minute without
        a saved result has no row.
    saved : int
        Number of saved results.
    errors : int
        Number of these results with status ERROR.
    elaptime : float
        Sum of the run times of these results, seconds.
    last_error : int or None
        Priority of the last task that became an ERROR.
    """

    __tablename__ = "photometry_tasks_progress"

    minute: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    saved: Mapped[int]
    errors: Mapped[int]
    elaptime: Mapped[float]
    last_error: Mapped[int | None]


class Extra(Base):
    """A row of `photometry_tasks_extra`: the pipeline's own values in the result of one task.

    Attributes
    ----------
    extra : str
        A JSON object without nesting.
    """

    __tablename__ = "photometry_tasks_extra"

    priority: Mapped[int] = mapped_column(
        sa.ForeignKey("diagnostics.priority", ondelete="CASCADE", onupdate="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    extra: Mapped[str]


class Worker(Base):
    """A row of `photometry_tasks_workers`: a manager that has, or had, the list open.

    Attributes
    ----------
    worker : int
        Number of the manager; a number is never used again.
    host, pid : str, int
        Host and process number.
    slurm_jobid : str or None
        Job of the batch system.
    lease : float or None
        Seconds without a heartbeat after which other managers rescue its tasks; None for the manager of a file.
    begun, seen, ended : datetime
        Times of opening, last heartbeat, and closing or expiry of the lease, by the clock of the database. If a manager
        returns after its lease expired, `ended` is NULL again.
    version : str or None
        Version of the pipeline, as the manager's caller gave it.
    """

    __tablename__ = "photometry_tasks_workers"

    worker: Mapped[int] = mapped_column(sa.Identity(always=True), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    slurm_jobid: Mapped[str | None]
    lease: Mapped[float | None]
    begun: Mapped[datetime] = mapped_column(server_default=current_time())
    seen: Mapped[datetime] = mapped_column(server_default=current_time())
    ended: Mapped[datetime | None]
    version: Mapped[str | None]

    __table_args__ = (
        # Each claim looks for expired leases. `seen` is not in the index: a heartbeat then updates no index.
        sa.Index("photometry_tasks_workers_live_idx", "worker", info={"where": "ended IS NULL"}),
        {"info": {"storage": "fillfactor = 50, autovacuum_vacuum_threshold = 1000"}},
    )


class Attempt(Base):
    """A row of `photometry_tasks_attempts`: one try at one task.

    On a server a row begins with the claim of the task. In a file it is written when the attempt ends.

    Attributes
    ----------
    priority : int
        Priority of the task.
    attempt : int
        Number of the attempt, which a result of the attempt states. A number is never used again.
    worker : int
        Number of the manager that claimed the task.
    begun, ended : datetime
        Times by the clock of the database; the attempt is live while `ended` is NULL. `begun` is NULL if the manager of
        a file was killed.
    how : str or None
        How the attempt ended: the name of the task's new status, 'lost' (the manager was killed, or its lease expired),
        'released' (the task was returned to pending), or 'given up' (lost, as earlier attempts at the same task).
    kind : str or None
        Kind of the failure: the class of an exception, 'timeout', 'out of memory', 'signal SIGSEGV', 'exit 3',
        'invalid result', 'lost', or as the pipeline gave it.
    errors : str or None
        Errors of the result, or the reason why the attempt was lost.
    peak_memory : int or None
        Largest resident memory of the worker process until the attempt ended, bytes.
    counts : bool or None
        For a failure: whether it counts for the limit of retries, until the task is reset by hand. None if the attempt
        did not fail.
    """

    __tablename__ = "photometry_tasks_attempts"

    priority: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(sa.Identity(always=True), primary_key=True)
    worker: Mapped[int]
    begun: Mapped[datetime | None] = mapped_column(server_default=current_time())
    ended: Mapped[datetime | None]
    how: Mapped[str | None]
    errors: Mapped[str | None]
    kind: Mapped[str | None]
    peak_memory: Mapped[int | None] = mapped_column(info={"unit": "byte"})
    counts: Mapped[bool | None]

    __table_args__ = (
        # The database itself ensures that no task has two live attempts.
        sa.Index("photometry_tasks_attempts_live_idx", "priority", unique=True, info={"where": "ended IS NULL"}),
        # Only failures take space in it.
        sa.Index("photometry_tasks_attempts_kind_idx", "kind", "worker", info={"where": "counts IS NOT NULL"}),
        {"info": {"storage": _OFTEN, "with_rowid": False}},
    )
    # No foreign keys: the attempts at a deleted task stay, and each key would cost a look-up per attempt.


class Undo(Base):
    """A row of `photometry_tasks_undo`: a part of what the last reset deleted.

    Attributes
    ----------
    part : int
        Number of the part; part 0 describes the reset.
    origin : str
        The table of the deleted rows.
    content : bytes
        See `sql/undo.py`.
    """

    __tablename__ = "photometry_tasks_undo"

    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str]
    content: Mapped[bytes]


def _table(model: type[Base]) -> sa.Table:
    table = model.__table__
    assert isinstance(table, sa.Table)  # noqa: S101 - narrows the type for mypy
    return table


todolist = _table(Task)
diagnostics = _table(Diagnostics)
photometry_skipped = _table(Skip)
own_skips = _table(OwnSkip)
progress = _table(Progress)
extra = _table(Extra)
workers = _table(Worker)
attempts = _table(Attempt)
undo = _table(Undo)

#: The tables, in an order in which each row comes after the rows that it refers to.
TABLES: list[sa.Table] = Base.metadata.sorted_tables


def add_options(dialect: sa.Dialect) -> None:
    """Add the options of a dialect to the tables and indexes, which state them in `info`."""
    for table in TABLES:
        if dialect.name == "sqlite":
            table.dialect_options["sqlite"]["with_rowid"] = table.info.get("with_rowid", True)
        for index in table.indexes:
            if "where" in index.info:
                index.dialect_options[dialect.name]["where"] = sa.text(index.info["where"])


@sa.event.listens_for(Base.metadata, "before_create")
def _add_options(_metadata: sa.MetaData, connection: sa.Connection, **_: Any) -> None:
    add_options(connection.dialect)
