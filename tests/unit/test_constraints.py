"""Constraints: checking to plain values, and building expressions and texts."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, select

from photometry_tasks.constraints import (
    Constraints,
    build_conditions,
    build_constraints,
    build_expressions,
    check_constraints,
)
from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.models import todolist
from photometry_tasks.sql.execution import compile_statement
from photometry_tasks.storage.postgresql.dbapi import build_dialect as build_postgresql
from photometry_tasks.storage.sqlite.dbapi import build_dialect as build_sqlite

NAMES = ("priority", "starid", "sector", "cadence", "camera", "ccd", "cbv_area", "datasource", "tmag_min", "tmag_max")
INTEGERS = NAMES[:7]

whole_numbers = st.integers(-(2**63), 2**63 - 1)
magnitudes = st.floats(-1e300, 1e300) | st.integers(-3, 20) | st.just(1e-300)
constraints = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(INTEGERS, whole_numbers | st.lists(whole_numbers, min_size=1, max_size=3)),
        "cadence": st.just("ffi") | whole_numbers,
        "datasource": st.sampled_from(["ffi", "tpf"]),
        "tmag_min": magnitudes,
        "tmag_max": magnitudes,
    },
).filter(lambda given: float(given.get("tmag_min", -math.inf)) <= float(given.get("tmag_max", math.inf)))


def render(expression: ColumnElement[bool], dialect: Any) -> str:
    given: dict[str, Any] = {"literal_binds": True, "render_postcompile": True}
    return str(expression.compile(dialect=dialect, compile_kwargs=given))


@settings(max_examples=15)
@given(arguments=constraints)
def test_a_text_is_the_rendered_expression(arguments: Any) -> None:
    """Each text is its expression in parentheses, as both SQLite and PostgreSQL render it."""
    texts = build_constraints(**arguments, return_list=True)
    for dialect in (build_sqlite(), build_postgresql()):
        assert texts == [f"({render(expression, dialect)})" for expression in build_constraints(**arguments)]


@settings(max_examples=25)
@given(arguments=constraints)
def test_checked_constraints_can_be_kept(arguments: Any) -> None:
    """Checked constraints are hashable, have plain values, and do not change if they are checked again."""
    checked = check_constraints(arguments)
    assert check_constraints(dict(checked)) == checked
    assert len({checked, check_constraints(dict(checked))}) == 1
    values = [item for _, value in checked for item in (value if isinstance(value, tuple) else [value])]
    assert set(map(type, values)) <= {int, float, str}
    in_arrays = {
        name: np.array(value) if name in INTEGERS and value != "ffi" else value for name, value in arguments.items()
    }
    assert check_constraints(in_arrays) == checked


def test_names() -> None:
    """The constraints are those of the contract, in its order; a constraint that is None is left out."""
    assert tuple(Constraints.__annotations__) == NAMES
    assert check_constraints(dict.fromkeys(NAMES)) == ()
    build: Callable[..., list[str]] = build_constraints
    texts = build(1, 2, 3, 4, 5, 6, 7, "tpf", 8, 9, True)
    in_order = [f"(todolist.{name} = {number})" for number, name in enumerate(INTEGERS, start=1)]
    assert texts[:8] == [*in_order, "(todolist.datasource != 'ffi')"]
    assert "todolist.tmag >= 8.0 AND todolist.tmag <= 9.0" in texts[8]


@pytest.mark.parametrize("values", [[], (), set(), range(0), np.array([]), np.array([], dtype=np.int64), iter(())])
@pytest.mark.parametrize("name", ["starid", "cadence"])
def test_an_empty_iterable_matches_nothing(name: Any, values: Any) -> None:
    """An empty iterable is a constraint that no task matches."""
    checked = check_constraints({name: values})
    assert checked == ((name, ()),)
    (expression,) = build_expressions(checked)
    assert render(expression, build_postgresql()) == "false"
    empty: Any = {name: []}
    assert build_constraints(**empty, return_list=True) == ["(false)"]


def test_a_hundred_thousand_ids() -> None:
    """100,000 star ids need no parameter of the driver; each is in the text."""
    numbers = range(10**9, 10**9 + 100_000)
    (text,) = build_constraints(starid=numbers, return_list=True)
    assert text == f"(todolist.starid IN ({', '.join(map(str, numbers))}))"
    statement = select(todolist.c.priority).where(*build_constraints(starid=np.arange(numbers.start, numbers.stop)))
    sql, arrange = compile_statement(statement, build_postgresql())
    assert sql.endswith(text[1:-1])
    assert arrange({}) == ()


@pytest.mark.parametrize("arguments", [{"cameras": 1}, {"cameras": None}, {"camera": 1, "return_list": True}])
def test_misspelt_names(arguments: dict[str, Any]) -> None:
    """An unknown name is a TypeError that lists the constraints, even if its value is None."""
    for check in (check_constraints, build_conditions):
        with pytest.raises(TypeError, match=r"is not a constraint; use priority, starid, .*, tmag_max"):
            check(arguments)


@pytest.mark.parametrize(
    ("name", "values", "shown"),
    [
        ("starid", [1, 2**63], "9223372036854775808"),
        ("starid", [-(2**63) - 1], "-9223372036854775809"),
        ("starid", np.array([2**63], dtype=np.uint64), "9223372036854775808"),
        ("starid", [1, True], "True"),
        ("starid", np.ma.masked_array([1, 2], mask=[False, True]), "None"),
        ("starid", [[1]], "[1]"),
        ("cadence", ["ffi"], "'ffi'"),
    ],
)
def test_one_wrong_item(name: str, values: Any, shown: str) -> None:
    """If an item of an iterable is not an integer of 64 bits, the error names the constraint and the item."""
    with pytest.raises(InvalidArgumentError) as caught:
        check_constraints({name: values})
    assert str(caught.value).startswith(f"{name}={shown}: an integer ")


def test_the_index_of_primaries() -> None:
    """The index that finds the primaries is prescribed to SQLite only if the table has our indexes."""
    checked = check_constraints({"tmag_min": 5})
    hint = "INDEXED BY todolist_datasource_idx"
    for dialect, has_hint in ((build_sqlite(), True), (build_postgresql(), False)):
        for for_our_schema in (False, True):
            expressions = build_expressions(checked, for_our_schema=for_our_schema)
            sql, _ = compile_statement(select(todolist.c.priority).where(*expressions), dialect)
            assert (hint in sql) is (has_hint and for_our_schema)


def test_conditions() -> None:
    """Conditions may be constraints, expressions, or texts; a text keeps its colons and gets parentheses."""
    expression = todolist.c.camera == 1
    assert build_conditions([expression])[0] is expression
    found = build_conditions(("a = 1 OR b = 2", "c = ':x %s'"))
    assert [render(condition, build_sqlite()) for condition in found] == ["(a = 1 OR b = 2)", "(c = ':x %s')"]
    assert [render(condition, build_sqlite()) for condition in build_conditions({"ccd": 2})] == ["todolist.ccd = 2"]
    assert build_conditions(None) == build_conditions({}) == build_conditions([]) == []
    for value in ("camera = 1", {"camera = 1"}, iter(["camera = 1"]), [1], [None], [b"camera = 1"], 5):
        with pytest.raises(InvalidArgumentError, match=r"^cleanup_constraints should be dict or list$"):
            build_conditions(value)
