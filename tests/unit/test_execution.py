"""The driver's cursor: statements by name, counts of rows, and savepoints."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import permutations
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from photometry_tasks.sql.execution import DriverCursor, Transaction, compile_statement
from photometry_tasks.storage.sqlite.dbapi import build_dialect

STARS = sa.Table("stars", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
INSERT = sa.insert(STARS)
ALL = sa.select(STARS).order_by(STARS.c.id)
BY_ID = sa.select(STARS).where(STARS.c.id == sa.bindparam("id"))
RENAME = sa.update(STARS).where(STARS.c.id == sa.bindparam("star")).values(name=sa.bindparam("new_name"))
ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}]
STORED = [(1, "a"), (2, "b"), (3, "c")]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Return a connection with an open transaction and three rows."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE stars (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO stars VALUES (?, ?)", STORED)
        yield connection


@pytest.fixture
def cursor(connection: sqlite3.Connection) -> DriverCursor:
    return DriverCursor(connection.cursor(), build_dialect(), sqlite3.IntegrityError)


# --- parameters ---


def test_parameters_go_by_name(cursor: DriverCursor) -> None:
    """Parameters are found by name, in a dict of any order; other names are ignored."""
    given = {"new_name": "z", "star": 2, "id": 99, "name": "y"}
    for number, names in enumerate(permutations(given)):
        assert cursor.execute(RENAME, {**{name: given[name] for name in names}, "new_name": f"z{number}"}) == 1
        assert cursor.fetch_all(ALL, given) == [(1, "a"), (2, f"z{number}"), (3, "c")]


@pytest.mark.parametrize("given", [{}, {"star": 2}, {"new_name": "z"}])
def test_a_missing_parameter(cursor: DriverCursor, given: dict[str, Any]) -> None:
    """A missing parameter is a KeyError, and no row is changed."""
    with pytest.raises(KeyError):
        cursor.execute(RENAME, given)
    with pytest.raises(KeyError):
        cursor.executemany(RENAME, [{"star": 1, "new_name": "z"}, given])
    with pytest.raises(KeyError):
        cursor.fetch_all(BY_ID.limit(1), given)
    assert cursor.fetch_all(ALL, {}) == STORED


def test_a_statements_own_values(cursor: DriverCursor) -> None:
    """The values of a statement are at their positions between the parameters; each statement has its own values."""
    statements = [
        sa.select(STARS.c.id)
        .where(STARS.c.id >= lowest, STARS.c.name != sa.bindparam("name"), STARS.c.id.in_(listed))
        .limit(sa.bindparam("limit"))
        for lowest, listed in (
            (1, sa.bindparam("x", [3, 2], expanding=True, literal_execute=True)),
            (3, sa.select(sa.literal(3))),
        )
    ]
    assert cursor.fetch_all(statements[0], {"limit": 9, "name": "b"}) == [(3,)]
    assert cursor.fetch_all(statements[0], {"limit": 1, "name": "c"}) == [(2,)]
    assert cursor.fetch_all(statements[1], {"limit": 9, "name": "b"}) == [(3,)]
    assert cursor.execute(sa.update(STARS).where(STARS.c.id == 2).values(name="z"), {}) == 1
    assert cursor.fetch_one(BY_ID, {"id": 2}) == (2, "z")


def test_a_statement_is_compiled_once() -> None:
    """A statement is compiled only once."""
    assert compile_statement(RENAME, build_dialect()) is compile_statement(RENAME, build_dialect())


# --- rows ---


def test_rows(cursor: DriverCursor, connection: sqlite3.Connection) -> None:
    """Fetching returns the first row or None, or all rows; SQL of the driver runs on the same connection."""
    assert cursor.fetch_one(ALL, {}) == (1, "a")
    assert cursor.fetch_one(BY_ID, {"id": 9}) is None
    assert cursor.fetch_all(ALL, {}) == STORED
    assert cursor.fetch_all(BY_ID, {"id": 9}) == []
    assert cursor.run_sql("SELECT count(*) FROM stars").fetchone() == (3,)
    assert connection.in_transaction


@pytest.mark.parametrize("number", [0, 1, 3])
def test_many_rows(cursor: DriverCursor, number: int) -> None:
    """A statement runs once for each mapping of an iterable, and returns the total number of rows."""
    given = [{"name": f"n{number}", "id": number} for number in range(10, 10 + number)]
    assert cursor.executemany(INSERT, iter(given)) == number
    assert cursor.fetch_all(ALL, {}) == STORED + [(row["id"], row["name"]) for row in given]
    assert cursor.executemany(RENAME, [{"star": 1, "new_name": "z"}, {"star": 99, "new_name": "y"}][:number]) == min(
        number, 1
    )


def test_changed_rows_are_counted(cursor: DriverCursor) -> None:
    """A statement that changes no row returns 0."""
    assert cursor.execute(RENAME, {"star": 9, "new_name": "z"}) == 0
    assert cursor.execute(sa.delete(STARS).where(STARS.c.id > 1), {}) == 2


def test_a_closed_cursor(cursor: DriverCursor) -> None:
    """A closed cursor runs no statement; without rows the driver is not called."""
    cursor.close()
    assert cursor.executemany(INSERT, []) == 0
    with pytest.raises(sqlite3.ProgrammingError):
        cursor.fetch_all(ALL, {})


# --- savepoints ---


def test_a_savepoint_keeps_what_is_done(cursor: DriverCursor, connection: sqlite3.Connection) -> None:
    """If the work succeeds, its changes stay in the open transaction."""
    assert cursor.savepoint(lambda: cursor.execute(INSERT, {"id": 4, "name": "d"}) == 1) is True
    assert_no_savepoint_is_left(connection)
    assert cursor.fetch_all(ALL, {}) == [*STORED, (4, "d")]
    connection.rollback()
    assert cursor.fetch_all(ALL, {}) == []


def fail() -> bool:
    raise IntegrityError("INSERT", None, ValueError())


@pytest.mark.parametrize("end", ["False", "a row of the driver", "rows of the driver", "a row of SQLAlchemy"])
def test_a_savepoint_takes_back_what_is_not(cursor: DriverCursor, connection: sqlite3.Connection, end: str) -> None:
    """If the work fails or a row violates a constraint, only the changes of the work are rolled back."""
    ends: dict[str, Callable[[], bool]] = {
        "False": lambda: False,
        "a row of the driver": lambda: cursor.execute(INSERT, {"id": 5, "name": "a"}) == 1,
        "rows of the driver": lambda: cursor.executemany(INSERT, [{"id": 5, "name": "e"}, ROWS[0]]) == 2,
        "a row of SQLAlchemy": fail,
    }
    cursor.execute(RENAME, {"star": 1, "new_name": "kept"})

    def work() -> bool:
        cursor.execute(INSERT, {"id": 4, "name": "d"})
        cursor.execute(RENAME, {"star": 2, "new_name": "a"})
        return ends[end]()

    assert not cursor.savepoint(work)
    assert_no_savepoint_is_left(connection)
    assert cursor.fetch_all(ALL, {}) == [(1, "kept"), *STORED[1:]]


def assert_no_savepoint_is_left(connection: sqlite3.Connection) -> None:
    assert connection.in_transaction
    for command in ("RELEASE", "ROLLBACK TO"):
        with pytest.raises(sqlite3.OperationalError, match="no such savepoint"):
            connection.execute(f"{command} photometry_tasks")


def test_a_savepoint_inside_another(cursor: DriverCursor, connection: sqlite3.Connection) -> None:
    """Of two nested savepoints, each rolls back only its own changes."""

    def work() -> bool:
        cursor.execute(INSERT, {"id": 4, "name": "d"})
        assert cursor.savepoint(lambda: cursor.execute(INSERT, {"id": 5, "name": "e"}) == 0) is False
        return True

    assert cursor.savepoint(work) is True
    assert_no_savepoint_is_left(connection)
    assert cursor.fetch_all(ALL, {}) == [*STORED, (4, "d")]


def test_other_errors_pass(cursor: DriverCursor) -> None:
    """If the work raises another error, the savepoint does not catch it."""
    with pytest.raises(ZeroDivisionError):
        cursor.savepoint(lambda: bool(1 // 0))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        cursor.savepoint(lambda: bool(cursor.run_sql("DELETE FROM planets")))


# --- counting ---


def test_moves_are_counted(cursor: DriverCursor) -> None:
    """A transaction counts changes of status, which add up to 0, and records the lowest task that was reset."""
    transaction = Transaction(cast(Any, None), cursor)
    transaction.count_move(None, 6, 3)
    transaction.count_move(6, 1)
    transaction.count_move(1, 1)
    assert transaction.moved == {None: -3, 6: 2, 1: 1}
    transaction.count_reset([])
    assert transaction.reset_from is None
    for priorities, lowest in (([7, 5], 5), ([6], 5), ([-1, 9], -1), ([], -1)):
        transaction.count_reset(iter(priorities))
        assert transaction.reset_from == lowest
