"""`build_constraints`: from arguments to expressions on the table of tasks. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, SupportsIndex, TypedDict, Unpack, overload

from sqlalchemy import ColumnElement, Text, and_, bindparam, cast, false, func, literal, literal_column, or_, select

from photometry_tasks.models import todolist
from photometry_tasks.rules.validation import as_items, check_finite, check_integer, invalid_argument

__all__ = [
    "CheckedConstraints",
    "Constraints",
    "Integers",
    "build_conditions",
    "build_constraints",
    "build_expressions",
    "check_constraints",
]

#: Names and plain values of constraints: hashable.
CheckedConstraints = tuple[tuple[str, Any], ...]

#: Conditions on tasks, to be combined with AND.
Expressions = list[ColumnElement[bool]]

#: One integer, or any iterable of them; NumPy's scalars and arrays too.
Integers = SupportsIndex | Iterable[SupportsIndex]


class Constraints(TypedDict, total=False):
    """The arguments of `build_constraints`, as methods that pass them on take them."""

    priority: Integers | None
    starid: Integers | None
    sector: Integers | None
    cadence: Integers | Literal["ffi"] | None
    camera: Integers | None
    ccd: Integers | None
    cbv_area: Integers | None
    datasource: Literal["ffi", "tpf"] | None
    tmag_min: float | None
    tmag_max: float | None


@overload
def build_constraints(*, return_list: Literal[False] = ..., **constraints: Unpack[Constraints]) -> Expressions: ...


@overload
def build_constraints(*, return_list: Literal[True], **constraints: Unpack[Constraints]) -> list[str]: ...


def build_constraints(
    priority: Integers | None = None,
    starid: Integers | None = None,
    sector: Integers | None = None,
    cadence: Integers | Literal["ffi"] | None = None,
    camera: Integers | None = None,
    ccd: Integers | None = None,
    cbv_area: Integers | None = None,
    datasource: Literal["ffi", "tpf"] | None = None,
    tmag_min: float | None = None,
    tmag_max: float | None = None,
    return_list: bool = False,
) -> Expressions | list[str]:
    """Build the conditions that select some of the tasks.

    Parameters
    ----------
    priority, starid, sector, camera, ccd, cbv_area : int or iterable of int, optional
        The values to select; an empty iterable selects nothing.
    cadence : int, iterable of int, or 'ffi', optional
        Seconds between exposures; 'ffi' stands for ``datasource='ffi'``.
    datasource : {'ffi', 'tpf'}, optional
        'tpf' selects every task that is not 'ffi': primary and secondary targets.
    tmag_min, tmag_max : float, optional
        TESS magnitude, a closed interval; either side may be left open. A secondary target
        ('tpf:<starid>') is judged by the magnitude of the primary, the task with that star id and
        datasource 'tpf'; it is left out where there is no such task. A task without a magnitude lies in
        no interval.
    return_list : bool, optional
        Return SQL texts instead, for queries written by hand.

    Returns
    -------
    list of sqlalchemy.ColumnElement or list of str
        Conditions to be combined with AND; empty without arguments. Expressions go into
        ``select(Task).where(*conditions)`` and may be negated (the rest of the tasks) or combined with
        ``or_``. Texts name the table `todolist` and go into ``" AND ".join(conditions)``, on SQLite and on
        PostgreSQL; they are rendered from the expressions.

    Raises
    ------
    ValueError
        If a value is no integer, no finite number or no known datasource.
    """
    checked = check_constraints(
        {
            "priority": priority,
            "starid": starid,
            "sector": sector,
            "cadence": cadence,
            "camera": camera,
            "ccd": ccd,
            "cbv_area": cbv_area,
            "datasource": datasource,
            "tmag_min": tmag_min,
            "tmag_max": tmag_max,
        }
    )
    expressions = build_expressions(checked)
    return [_render(expression) for expression in expressions] if return_list else expressions


def check_constraints(constraints: Mapping[str, Any]) -> CheckedConstraints:
    """Return constraints as plain values, which can be compared and kept.

    Parameters
    ----------
    constraints : mapping
        Arguments of `build_constraints`, except `return_list`.

    Raises
    ------
    TypeError
        If there is no such constraint.
    ValueError
        As `build_constraints`.
    """
    for name in constraints:
        if name not in Constraints.__annotations__:
            raise TypeError(f"{name!r} is no constraint; there are {', '.join(Constraints.__annotations__)}")
    return tuple((name, _check(name, value)) for name, value in constraints.items() if value is not None)


def build_expressions(checked: CheckedConstraints, *, for_our_schema: bool = False) -> Expressions:
    """Build the expressions of constraints that were checked.

    Parameters
    ----------
    for_our_schema : bool, optional
        Whether the table has all our indexes: SQLite is then told which to take, whatever its statistics say.
    """
    values = dict(checked)
    tmag_min, tmag_max = values.pop("tmag_min", None), values.pop("tmag_max", None)
    expressions: Expressions = [_is_one_of(name, value) for name, value in values.items()]
    if tmag_min is not None or tmag_max is not None:
        expressions.append(_tmag_between(tmag_min, tmag_max, for_our_schema))
    return expressions


def _check(name: str, value: Any) -> int | float | str | tuple[int, ...]:
    if name in ("tmag_min", "tmag_max"):
        return check_finite(name, value, "leave it out for an open interval")
    if name == "datasource":
        if not isinstance(value, str) or value not in ("ffi", "tpf"):
            raise invalid_argument(name, value, "'ffi' or 'tpf' is expected")
        return value
    if name == "cadence" and isinstance(value, str):
        if value != "ffi":
            raise invalid_argument(name, value, "an integer, a list of integers or 'ffi' is expected")
        return value
    try:
        items = as_items(value)
    except ValueError:
        return check_integer(name, value)
    if set(map(type, items)) != {int} or min(items) < -(2**63) or max(items) >= 2**63:
        items = [check_integer(name, item) for item in items]
    return tuple(items)


def build_conditions(cleanup_constraints: object) -> Expressions:
    """Build conditions from what `TaskManager` takes: arguments of `build_constraints`, or a list of conditions.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if cleanup_constraints is None:
        return []
    if isinstance(cleanup_constraints, Mapping):
        return build_expressions(check_constraints(cleanup_constraints))
    if isinstance(cleanup_constraints, list | tuple) and all(
        isinstance(condition, str | ColumnElement) for condition in cleanup_constraints
    ):
        # Parentheses, so that an OR in a text stays inside it; literal_column, since text() takes ":" for its own.
        return [
            literal_column(f"({condition})") if isinstance(condition, str) else condition
            for condition in cleanup_constraints
        ]
    remedy = "cleanup_constraints should be dict or list (arguments of build_constraints, or conditions)"
    raise invalid_argument("cleanup_constraints", cleanup_constraints, remedy)


def _is_one_of(name: str, value: int | str | tuple[int, ...]) -> ColumnElement[bool]:
    if isinstance(value, str):
        is_ffi: ColumnElement[bool] = todolist.c.datasource == "ffi"
        return is_ffi if value == "ffi" else ~is_ffi
    if value == ():
        return false()
    column = todolist.c[name]
    if isinstance(value, tuple):
        # Integers go into the statement's text: 100,000 of them are more than a driver takes as parameters.
        return column.in_(bindparam(name, value, unique=True, expanding=True, literal_execute=True))
    return column == value


def _tmag_between(tmag_min: float | None, tmag_max: float | None, for_our_schema: bool) -> ColumnElement[bool]:
    def lies_inside(tmag: ColumnElement[float]) -> ColumnElement[bool]:
        # "IS NOT NULL" makes it false, not unknown, without a magnitude: so that its negation is the rest.
        bounds: list[ColumnElement[bool]] = [tmag.is_not(None)]
        if tmag_min is not None:
            bounds.append(tmag >= tmag_min)
        if tmag_max is not None:
            bounds.append(tmag <= tmag_max)
        return and_(*bounds)

    # The primary's number is made a text, never the text a number: "tpf:" may be followed by anything, and
    # PostgreSQL would fail on it. substr(), since LIKE knows no case on SQLite.
    primary = todolist.alias("primary_target")
    secondaries = select(literal("tpf:") + cast(primary.c.starid, Text)).where(
        primary.c.datasource == "tpf", lies_inside(primary.c.tmag)
    )
    if for_our_schema:
        secondaries = secondaries.with_hint(primary, "INDEXED BY todolist_datasource_idx", "sqlite")
    # What is cheap to look at comes first: millions of rows may be passed over.
    is_secondary = and_(todolist.c.datasource != "ffi", func.substr(todolist.c.datasource, 1, 4) == "tpf:")
    return or_(
        and_(lies_inside(todolist.c.tmag), ~is_secondary),
        and_(is_secondary, todolist.c.datasource.in_(secondaries)),
    )


def _render(condition: ColumnElement[bool]) -> str:
    text = str(condition.compile(compile_kwargs={"literal_binds": True, "render_postcompile": True}))
    return f"({text})"
