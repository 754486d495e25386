"""Contract 3: build_constraints."""

import math
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, and_, create_engine, insert, not_, or_, select, text

from photometry_tasks import build_constraints, taskmanager
from photometry_tasks.models import Base, Task, todolist
from tests.support.lists import fill

DATASOURCES = ["ffi", "tpf", "tpf:3", "tpf:4", "tpf:77", "tpf:abc", "tpf:", "TPF:3", "FFI", "tpf:99999999999999999999"]


def random_field() -> list[dict[str, Any]]:
    """Return tasks of twelve stars, with secondaries whose primary is listed once, twice, never, or is no star."""
    rng = random.Random(7)
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    while len(rows) < 300:
        row = {
            "starid": rng.randint(1, 12),
            "sector": rng.randint(1, 3),
            "datasource": rng.choice(DATASOURCES),
            "camera": rng.randint(1, 4),
            "ccd": rng.randint(1, 4),
            "cadence": rng.choice([20, 120, 600, 1800]),
            "tmag": rng.choice([None, *(m / 2 for m in range(-2, 30))]),
            "cbv_area": rng.choice([110, 111, 421]),
        }
        rows.setdefault(
            (row["starid"], row["datasource"], row["sector"], row["camera"], row["ccd"], row["cadence"]), row
        )
    return fill(list(rows.values()))


FIELD = random_field()


@pytest.fixture(scope="module")
def databases(postgresql: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Connection]]:
    """Return connections to SQLite and PostgreSQL with the same field."""
    engines = [create_engine(f"sqlite:///{tmp_path_factory.mktemp('field')}/todo.sqlite"), postgresql]
    for engine in engines:
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(insert(todolist), FIELD)
    connections = [engine.connect() for engine in engines]
    yield connections
    for connection, engine in zip(connections, engines, strict=True):
        connection.close()
        Base.metadata.drop_all(engine)
        engine.dispose()


def expected(arguments: dict[str, Any]) -> set[int]:
    """Return the priorities that the contract selects, in plain Python."""
    low = arguments.get("tmag_min", -np.inf)
    high = arguments.get("tmag_max", np.inf)

    def is_inside(row: dict[str, Any]) -> bool:
        return row["tmag"] is not None and low <= row["tmag"] <= high

    primaries = {f"tpf:{row['starid']}" for row in FIELD if row["datasource"] == "tpf" and is_inside(row)}

    def is_chosen(row: dict[str, Any]) -> bool:
        for name, wanted in arguments.items():
            if name in ("tmag_min", "tmag_max"):
                is_secondary = row["datasource"].startswith("tpf:")
                fits = row["datasource"] in primaries if is_secondary else is_inside(row)
            elif name == "datasource":
                fits = (row["datasource"] == "ffi") == (wanted == "ffi")
            elif name == "cadence" and wanted == "ffi":
                fits = row["datasource"] == "ffi"
            else:
                fits = row[name] in (wanted if np.iterable(wanted) else [wanted])
            if not fits:
                return False
        return True

    return {row["priority"] for row in FIELD if is_chosen(row)}


def one_or_more(low: int, high: int) -> st.SearchStrategy[Any]:
    number = st.integers(low, high)
    numbers = st.lists(number, max_size=5)
    return st.one_of(
        number,
        number.map(np.int64),
        number.map(np.uint8),
        number.map(np.array),
        numbers,
        numbers.map(tuple),
        numbers.map(set),
        numbers.map(lambda items: np.array(items, dtype=np.int32)),
        number.map(lambda item: range(item, item + 3)),
    )


magnitudes = st.one_of(st.integers(-3, 16), st.floats(-3, 16), st.floats(-3, 16, width=32).map(np.float32))
constraints = st.fixed_dictionaries(
    {},
    optional={
        "priority": one_or_more(1, 200),
        "starid": one_or_more(0, 13),
        "sector": one_or_more(0, 4),
        "cadence": st.one_of(st.just("ffi"), st.lists(st.sampled_from([20, 120, 200, 600, 1800]))),
        "camera": one_or_more(1, 4),
        "ccd": one_or_more(1, 4),
        "cbv_area": st.sampled_from([110, [111, 421], 5]),
        "datasource": st.sampled_from(["ffi", "tpf"]),
        "tmag_min": magnitudes,
        "tmag_max": magnitudes,
    },
).filter(lambda given: float(given.get("tmag_min", -math.inf)) <= float(given.get("tmag_max", math.inf)))


@given(arguments=constraints)
def test_texts_and_expressions_select_what_the_contract_says(
    databases: list[Connection], arguments: dict[str, Any]
) -> None:
    """Expressions and texts select the same tasks on SQLite and PostgreSQL, and their negations all other tasks."""
    wanted = expected(arguments)
    everything = {row["priority"] for row in FIELD}
    conditions = build_constraints(**arguments)
    texts = build_constraints(**arguments, return_list=True)
    for connection in databases:
        chosen = connection.execute(select(todolist.c.priority).where(*conditions)).scalars()
        assert set(chosen) == wanted
        others = connection.execute(select(todolist.c.priority).where(not_(and_(True, *conditions)))).scalars()
        assert set(others) == everything - wanted
        written = connection.exec_driver_sql("SELECT priority FROM todolist WHERE " + " AND ".join(["1=1", *texts]))
        assert set(written.scalars()) == wanted


@given(first=constraints, second=constraints)
def test_expressions_combine_with_or(
    databases: list[Connection], first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Two lists of expressions can be combined with or_, also in an ORM query."""
    either = or_(*(and_(True, *build_constraints(**arguments)) for arguments in (first, second)))
    for connection in databases:
        chosen = connection.execute(select(Task.priority).where(either)).scalars()
        assert set(chosen) == expected(first) | expected(second)


def test_no_constraints_give_an_empty_list() -> None:
    """Without arguments the list of conditions is empty, in both modes."""
    assert build_constraints() == []
    assert build_constraints(return_list=True) == []


def test_both_import_paths_give_the_same_function() -> None:
    """`photometry_tasks.taskmanager` has build_constraints too, like TASOC's module."""
    assert taskmanager.build_constraints is build_constraints


def test_texts_name_the_table() -> None:
    """A text works in a query that joins other tables."""
    texts = build_constraints(camera=1, ccd=[2, 3], datasource="tpf", return_list=True)
    assert texts == ["(todolist.camera = 1)", "(todolist.ccd IN (2, 3))", "(todolist.datasource != 'ffi')"]


def test_empty_list_matches_nothing(databases: list[Connection]) -> None:
    """An empty list of stars selects no task, also as a text."""
    for connection in databases:
        assert connection.execute(select(todolist.c.priority).where(*build_constraints(starid=[]))).all() == []
        (sql,) = build_constraints(starid=[], return_list=True)
        assert connection.execute(text("SELECT priority FROM todolist WHERE " + sql)).all() == []


def test_hundred_thousand_stars(databases: list[Connection]) -> None:
    """100,000 star ids in one constraint work, as expressions and as a text."""
    for connection in databases:
        conditions = build_constraints(starid=range(3, 100_003))
        number = len(connection.execute(select(todolist.c.priority).where(*conditions)).all())
        assert number == sum(row["starid"] >= 3 for row in FIELD)
        (sql,) = build_constraints(starid=range(3, 100_003), return_list=True)
        assert len(connection.exec_driver_sql("SELECT priority FROM todolist WHERE " + sql).all()) == number


def test_a_generator_is_read_once() -> None:
    """Any iterable is accepted, even if it can be read only once."""
    assert build_constraints(camera=(n for n in (1, 2)), return_list=True) == ["(todolist.camera IN (1, 2))"]


def test_the_callers_list_is_free() -> None:
    """Later changes to the caller's list do not change the constraint."""
    cameras = [1, 2]
    conditions = build_constraints(camera=cameras)
    cameras.append(3)
    sql = str(conditions[0].compile(compile_kwargs={"literal_binds": True}))
    assert sql == "todolist.camera IN (1, 2)"
    conditions.clear()
    assert len(build_constraints(camera=[1, 2])) == 1


@pytest.mark.parametrize(
    ("argument", "value", "shown"),
    [
        ("priority", 1.0, "1.0"),
        ("starid", "123", "'123'"),
        ("starid", b"123", "b'123'"),
        ("starid", [1, "2"], "'2'"),
        ("starid", [1, None], "None"),
        ("starid", np.array([1.5]), "1.5"),
        ("starid", np.array([[1, 2], [3, 4]]), "array"),
        ("starid", {1: 2}, "{1: 2}"),
        ("tmag_min", np.ma.masked, "masked"),
        ("starid", 2**63, "9223372036854775808"),
        ("sector", True, "True"),
        ("sector", float("nan"), "nan"),
        ("cadence", "tpf", "'tpf'"),
        ("cadence", [120, "ffi"], "'ffi'"),
        ("camera", np.bool_(True), "True"),
        ("ccd", object(), "object"),
        ("cbv_area", {}.keys, "built-in met"),
        ("datasource", "tpf:123", "'tpf:123'"),
        ("datasource", "ffi' OR 1=1 --", "OR 1=1"),
        ("datasource", ["ffi"], "ffi"),
        ("datasource", 1, "1"),
        ("tmag_min", float("nan"), "nan"),
        ("tmag_max", np.float32("inf"), "inf"),
        ("tmag_max", "10", "'10'"),
        ("tmag_max", [10], "10"),
        ("tmag_min", 1j, "1j"),
        ("tmag_min", 10**400, "100"),
    ],
)
def test_bad_values_are_named(argument: str, value: object, shown: str) -> None:
    """An invalid value raises a ValueError with the argument and the value."""
    with pytest.raises(ValueError, match=argument) as caught:
        build_constraints(**{argument: value})  # type: ignore[arg-type]
    assert shown in str(caught.value)


def test_a_misspelt_argument_is_a_type_error() -> None:
    """An unknown argument is a TypeError."""
    with pytest.raises(TypeError, match="cameras"):
        build_constraints(cameras=1)  # type: ignore[call-overload]


def test_texts_are_portable(tmp_path: Path) -> None:
    """The texts run on a plain SQLite connection."""
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as connection:
        connection.execute("CREATE TABLE todolist (starid, datasource, tmag, camera)")
        connection.executemany("INSERT INTO todolist VALUES (?, ?, ?, 1)", [(5, "tpf", 8.0), (6, "tpf:5", 12.0)])
        where = " AND ".join(build_constraints(camera=[1], tmag_max=10, datasource="tpf", return_list=True))
        assert connection.execute(f"SELECT starid FROM todolist WHERE {where}").fetchall() == [(5,), (6,)]
