"""TODO-files of the TASOC pipeline since release 3.0 (2019), and how they come by the schema of release 6.3.

A file does not say of which release it is. It is looked at: what it has is kept, and what it lacks is added; so a
file that somebody else has upgraded half-way is nothing special.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from photometry_tasks.errors import CannotUpgradeError, NotATodoFileError
from photometry_tasks.schema.layout import TableLayout, find_lacking_indexes, find_unfilled, read_layout
from photometry_tasks.schema.table_rebuild import quote, rebuild_table
from photometry_tasks.schema.tasoc_6_3 import metadata

# --- how older releases differ ---------------------------------------------------------------------------

#: Columns that every release has; the others can be added.
_REQUIRED = {
    "todolist": {*metadata.tables["todolist"].columns.keys()} - {"cadence"},
    "diagnostics": {*metadata.tables["diagnostics"].columns.keys()} - {"method_used", "worker_wait_time", "edge_flux"},
    "photometry_skipped": {"priority", "skipped_by"},
}

#: Columns that went with release 5.0: todolist has the same.
_GONE: dict[str, set[str]] = {"diagnostics": {"starid"}}

#: Indexes of releases before 5.0, in whose place others came.
_GONE_INDEXES = {"priority_idx", "starid_datasource_idx"}

# Exposures of full-frame images took 1800 s in the first two years of TESS and 600 s in the next two. Pixel files
# had 120 s only; from sector 27 on there are some of 20 s too, and the list alone does not tell which.
_CADENCE = (
    "CASE WHEN datasource = 'ffi' AND sector < 27 THEN 1800 "
    "WHEN datasource = 'ffi' AND sector BETWEEN 27 AND 55 THEN 600 "
    "WHEN datasource <> 'ffi' AND sector < 27 THEN 120 END"
)

# The method that was asked for is the one that was used, unless the pipeline changed over by itself.
_METHOD_USED = (
    "coalesce(nullif((SELECT t.method FROM todolist AS t WHERE t.priority = diagnostics.priority "
    "AND t.method IN ('aperture', 'halo', 'psf', 'linpsf')), 'aperture'), "
    "CASE WHEN instr(errors, 'Automatically switched to Halo photometry') THEN 'halo' ELSE 'aperture' END)"
)

#: What no two rows may share, and how to say that they do.
_DISTINCT: dict[str, dict[tuple[str, ...], str]] = {
    "todolist": {
        ("priority",): "of the same priority",
        ("starid", "datasource", "sector", "camera", "ccd", "cadence"): "of the same target",
    },
    "diagnostics": {("priority",): "of the same task", ("lightcurve",): "with the same light-curve path"},
}

_RULES = {"todolist": {"cadence": _CADENCE}, "diagnostics": {"method_used": _METHOD_USED}}


#: What helps where another program's things cannot be kept.
_REMEDY = "Drop it, upgrade, and make it again as fits the new tables."


# --- looking at a file -----------------------------------------------------------------------------------


def _read(connection: Connection) -> dict[str, TableLayout]:
    return read_layout(connection, metadata.tables)


def _build_wanted() -> dict[str, TableLayout]:
    """Return the tables of release 6.3 as SQLite has them."""
    with _open_scratch() as scratch:
        metadata.create_all(scratch)
        return _read(scratch)


@contextmanager
def _open_scratch() -> Iterator[Connection]:
    """Open an empty database in memory."""
    with create_engine("sqlite://", poolclass=NullPool).connect() as connection:
        yield connection


# --- what upgrading changes ------------------------------------------------------------------------------


def find_changes(connection: Connection, path: object) -> list[str]:
    """Say what `upgrade` would change, a line for each thing.

    Raises
    ------
    NotATodoFileError
        If this is the file of no release.
    """
    lines: list[str] = []
    problems: list[str] = []
    layout = _read(connection)
    for name, table in _build_wanted().items():
        found = layout.get(name)
        if found is None and name == "todolist":
            problems.append("it has no table todolist")
        elif found is None:
            lines.append(f"table {name} is made")
        else:
            problems += _find_problems(name, found, table)
            lines += _find_column_changes(name, found, table)
            lacking = find_lacking_indexes(found, metadata.tables[name])
            lines += [f"index {index.name} is made" for index in lacking]
            lines += [f"index {index} goes" for index in sorted(_GONE_INDEXES & found.indexes.keys())]
    if problems:
        raise NotATodoFileError(path=path, found="; ".join(problems))
    return lines


def _find_problems(name: str, found: TableLayout, wanted: TableLayout) -> Iterator[str]:
    """Say what the file of no release has."""
    for column in sorted(_REQUIRED[name] - found.columns.keys()):
        yield f"{name} has no column {column}"
    for column, has in found.columns.items():
        if column in wanted.columns and has.is_generated:
            yield f"{name}.{column} is a generated column"
        if has.key and column != "priority" and name != "photometry_skipped":
            yield f"{name}.{column} is in the key"
    yield from find_unfilled(found.columns, {*wanted.columns, *_GONE.get(name, ())}, name)


def _find_column_changes(name: str, found: TableLayout, wanted: TableLayout) -> Iterator[str]:
    for column, should in wanted.columns.items():
        has = found.columns.get(column)
        if has is None:
            yield f"{name}.{column} is added"
        elif has != should:
            yield f"{name}.{column} becomes {should}"
    for column in sorted(_GONE.get(name, set()) & found.columns.keys()):
        yield f"{name}.{column} goes; todolist has it too"
    if found.references != wanted.references:
        yield f"{name} refers to todolist as it should"


# --- upgrading -------------------------------------------------------------------------------------------


def upgrade(connection: Connection, path: object) -> None:
    """Give a file of any release the schema of 6.3, in a transaction of the caller with foreign keys off.

    Raises
    ------
    NotATodoFileError, CannotUpgradeError
        If it cannot be; nothing was written then.
    """
    check_upgradable(connection, path)
    try:
        _change(connection)
    except ValueError as error:
        raise CannotUpgradeError(path=path, problem=error, remedy=_REMEDY) from error


def check_upgradable(connection: Connection, path: object) -> None:
    """Check that nothing keeps a file from being upgraded; it is only read.

    Raises
    ------
    NotATodoFileError, CannotUpgradeError
    """
    find_changes(connection, path)
    wanted = _build_wanted()
    for name, found in _read(connection).items():
        _check_values(connection, path, name, found, wanted[name])
        _check_duplicates(connection, path, name, found)
    _rehearse(connection, path)


def _check_values(connection: Connection, path: object, name: str, found: TableLayout, wanted: TableLayout) -> None:
    for column, should in wanted.columns.items():
        has = found.columns.get(column)
        is_sound = has is not None and has.is_required and (has == should or not should.key)
        if not should.is_required or is_sound or column == "method_used":
            continue  # the rule for method_used leaves nothing open
        value = _build_value(name, column, found)
        is_wrong = f"typeof({value}) <> 'integer'" if should.key else f"{value} IS NULL"
        rows = connection.exec_driver_sql(
            f"SELECT priority FROM {name} WHERE {is_wrong} LIMIT 4"  # noqa: S608 - nothing of it comes from outside
        )
        if not (priorities := rows.scalars().all()):
            continue
        problem = f"{name}.{column} is unknown in the rows with priority {_show(priorities)}"
        remedy = "Give them a value, then try again."
        if column == "cadence":
            problem += ", and does not follow from their datasource and sector"
            remedy = "The file must be made anew from its target list, with `photometry-tasks init`."
        raise CannotUpgradeError(path=path, problem=problem, remedy=remedy)


def _check_duplicates(connection: Connection, path: object, name: str, found: TableLayout) -> None:
    for columns, are in _DISTINCT.get(name, {}).items():
        held = [set(index.columns) for index in found.indexes.values() if index.is_unique and not index.is_partial]
        held += [{"priority"}] if found.columns["priority"].key else []
        if any(unique <= set(columns) for unique in held) or not set(columns) & found.columns.keys():
            continue
        # Most rows differ in the first two columns already, and older files have an index on these.
        first = ", ".join(columns[:2])
        values = ", ".join(_build_value(name, column, found) for column in columns)
        groups = connection.exec_driver_sql(
            f"SELECT group_concat(priority, ', ') FROM {name} "  # noqa: S608 - nothing of it comes from outside
            f"WHERE ({first}) IN (SELECT {first} FROM {name} GROUP BY {first} HAVING count(*) > 1) "
            f"GROUP BY {values} HAVING count(*) > 1 LIMIT 4"
        )
        if shown := groups.scalars().all():
            problem = f"{name} has rows {are}: those with priority {'; '.join(shown[:3])}{'; …' * (len(shown) > 3)}"
            remedy = "Delete all but one of them, then try again."
            raise CannotUpgradeError(path=path, problem=problem, remedy=remedy)


def _show(priorities: Sequence[object]) -> str:
    return ", ".join(map(str, priorities[:3])) + ", …" * (len(priorities) > 3)


def _rehearse(connection: Connection, path: object) -> None:
    """Upgrade a copy without rows, and look whether all that other programs made still works."""
    objects = connection.exec_driver_sql(
        """SELECT type, name, lower(tbl_name) AS "table", sql FROM sqlite_master
        WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!'
        ORDER BY type <> 'table', type <> 'index', type <> 'view', rowid"""
    ).all()
    with _open_scratch() as scratch:
        for thing in objects:
            try:
                scratch.exec_driver_sql(thing.sql)
            except DatabaseError as error:
                if thing.table in metadata.tables:
                    problem = f"{thing.type} {thing.name} could not be made again ({error.orig})"
                    raise CannotUpgradeError(path=path, problem=problem, remedy=_REMEDY) from None
        before = dict(_find_broken(scratch))
        try:
            _change(scratch)
        except (ValueError, DatabaseError) as error:
            problem = str(error.orig if isinstance(error, DatabaseError) else error)
            raise CannotUpgradeError(path=path, problem=problem, remedy=_REMEDY) from None
        for broken, reason in _find_broken(scratch):
            if broken not in before:
                problem = f"{broken} would no longer work ({reason})"
                raise CannotUpgradeError(path=path, problem=problem, remedy=_REMEDY)


def _find_broken(connection: Connection) -> Iterator[tuple[str, str]]:
    """Say which views, triggers and foreign keys do not work, and why."""
    execute = connection.exec_driver_sql
    tries = [
        (f"{kind} {name}", statement)
        for kind, name in execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table')").all()
        for statement in (
            f"SELECT * FROM {quote(name)} LIMIT 0",  # noqa: S608 - quoted
            f"PRAGMA foreign_key_check({quote(name)})",
        )
    ]
    for table, triggers in execute(
        "SELECT tbl_name, group_concat(name, ', ') FROM sqlite_master WHERE type = 'trigger' GROUP BY lower(tbl_name)"
    ).all():
        columns = execute("SELECT name FROM pragma_table_xinfo(?) WHERE NOT hidden", (table,)).scalars()
        changes = ", ".join(f"{quote(column)} = {quote(column)}" for column in columns)
        tries += [
            (f"trigger {triggers} of {table}", f"EXPLAIN {statement}")
            for statement in (
                f"INSERT INTO {quote(table)} DEFAULT VALUES",
                f"UPDATE {quote(table)} SET {changes}",  # noqa: S608 - quoted
                f"DELETE FROM {quote(table)}",  # noqa: S608 - quoted
            )
        ]
    for thing, statement in tries:
        try:
            execute(statement).close()
        except DatabaseError as error:
            yield thing, str(error.orig)


def _change(connection: Connection) -> None:
    wanted, layout = _build_wanted(), _read(connection)
    ours = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    for table in metadata.sorted_tables:
        found = layout.get(table.name)
        if found is None:
            table.create(connection)
        elif any(_find_column_changes(table.name, found, wanted[table.name])):
            values = {column: _build_value(table.name, column, found) for column in wanted[table.name].columns}
            rebuild_table(connection, table, values, _GONE.get(table.name, set()), _GONE_INDEXES | ours)
    for name, found in _read(connection).items():
        # Only those of our tables: another program's table may have an index of the same name.
        lacking = find_lacking_indexes(found, metadata.tables[name])
        for index in sorted(found.indexes.keys() & {*_GONE_INDEXES, *(str(index.name) for index in lacking)}):
            connection.exec_driver_sql(f"DROP INDEX {index}")
        for new in lacking:
            new.create(connection)


def _build_value(table: str, column: str, found: TableLayout) -> str:
    """Return the SQL expression for a column of the new table."""
    rule = _RULES.get(table, {}).get(column, "NULL")
    if column not in found.columns:
        return rule
    return quote(column) if rule == "NULL" else f"coalesce({quote(column)}, {rule})"
