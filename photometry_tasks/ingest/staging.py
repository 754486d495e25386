"""The temporary table of listed targets, and the statements that turn them into tasks. The database sorts them."""

import sqlalchemy as sa

from photometry_tasks.ingest.targets import USED
from photometry_tasks.models import todolist
from photometry_tasks.sql.functions import is_server
from photometry_tasks.sql.statements import TARGET_COLUMNS

#: The brightest targets saturate in full-frame images: only halo photometry measures them.
_HALO_TMAG = 2.0

_task = todolist.c

#: The listed targets in the order of their lists. NULL stands for the default of a cadence, a method and an area.
listed = sa.Table(
    "photometry_tasks_listed",
    sa.MetaData(),
    sa.Column("number", _task.priority.type, sa.Identity(), primary_key=True),
    *(sa.Column(name, _task[name].type) for name in USED),
    prefixes=["TEMPORARY"],
)

_row = listed.c


def create_table(connection: sa.Connection) -> None:
    """Create the table; it ends with the connection, on a server with the transaction: a pooler keeps connections."""
    if is_server(connection.dialect):  # as an argument of the table, it would load the dialect
        listed.dialect_options["postgresql"]["on_commit"] = "DROP"
    listed.create(connection)


_is_ffi = _row.datasource == "ffi"
#: The times between TESS's exposures, seconds.
_cadence = sa.case((~_is_ffi, 120), (_row.sector < 27, 1800), (_row.sector < 56, 600), else_=200)
_halo = sa.case((_is_ffi & (_row.tmag <= _HALO_TMAG), "halo"))
_values = {
    **{name: _row[name] for name in USED},
    "cadence": sa.func.coalesce(_row.cadence, _cadence),
    "method": sa.func.coalesce(_row.method, _halo),
    "tmag": _row.tmag + 0.0,  # never -0.0, which only some databases keep
    "cbv_area": sa.func.coalesce(_row.cbv_area, _row.camera * 100 + _row.ccd * 10),
}

_target = [_values[column.name] for column in TARGET_COLUMNS]
_place = sa.func.row_number().over(partition_by=_target, order_by=_row.number).label("place")
_places = sa.select(_row.number, _place).subquery()
#: If a target is listed twice, the first counts.
DELETE_REPEATED = sa.delete(listed).where(_row.number.in_(sa.select(_places.c.number).where(_places.c.place > 1)))
DELETE_KNOWN = sa.delete(listed).where(
    sa.exists().where(*(column == value for column, value in zip(TARGET_COLUMNS, _target, strict=True)))
)

#: Brightest first, ties by star id and datasource; without a magnitude last.
_order = _row.tmag.is_(None), _row.tmag, _row.starid, _row.datasource


def build_add_tasks(last: int | None) -> sa.Insert:
    """Insert the listed targets as tasks, with priorities after `last`.

    None stands for the highest priority in a file. SQLite numbers the rows itself then, in half of the time.
    """
    values = dict(_values)
    if last is not None:
        values["priority"] = sa.func.row_number().over(order_by=_order) + last
    return sa.insert(todolist).from_select(
        list(values), sa.select(*values.values()).order_by(*_order), include_defaults=False
    )
