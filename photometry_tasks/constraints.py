"""Build constraints, which are boolean expressions on the table of tasks. Pure."""

from collections.abc import Mapping
from typing import Literal, Unpack, overload

from sqlalchemy import ColumnElement, Text, and_, bindparam, cast, false, func, literal, literal_column, or_, select

from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.models import todolist
from photometry_tasks.rules.constraints import CheckedConstraints, Constraints, Integers, check_constraints

__all__ = [
    "CheckedConstraints",
    "Constraints",
    "Integers",
    "build_conditions",
    "build_constraints",
    "build_expressions",
    "check_constraints",
]

#: Conditions on tasks, for combining with AND.
Expressions = list[ColumnElement[bool]]


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
    """Build conditions that select tasks.

    Parameters
    ----------
    priority, starid, sector, camera, ccd, cbv_area : int or iterable of int, optional
        The values to select; an empty iterable selects nothing.
    cadence : int, iterable of int, or 'ffi', optional
        Seconds between exposures; 'ffi' stands for ``datasource='ffi'``.
    datasource : {'ffi', 'tpf'}, optional
        'tpf' selects every task that is not 'ffi': primary and secondary targets.
    tmag_min, tmag_max : float, optional
        Limits of the TESS magnitude, both inclusive; either may be left out. For a secondary target
        ('tpf:<starid>') the magnitude of the primary counts, which is the task with that star id and
        datasource 'tpf'. A task is not selected if this magnitude or the primary is missing.
    return_list : bool, optional
        Return SQL texts instead, for hand-written queries.

    Returns
    -------
    list of sqlalchemy.ColumnElement or list of str
        Conditions for combining with AND; empty without arguments. Use expressions in
        ``select(Task).where(*conditions)``. They may be combined with ``or_`` or negated; the negation selects
        all other tasks. Texts are the SQL of these expressions, for SQLite and PostgreSQL; they name the table
        `todolist`. Use them in ``" AND ".join(conditions)``.

    Raises
    ------
    InvalidArgumentError
        If a value is not an integer, not a finite number, or not one of the datasources.
    """
    given = dict(locals())
    del given["return_list"]
    expressions = build_expressions(check_constraints(given))
    return [_render(expression) for expression in expressions] if return_list else expressions


def build_expressions(checked: CheckedConstraints, *, for_our_schema: bool = False) -> Expressions:
    """Build the expressions of checked constraints.

    Parameters
    ----------
    for_our_schema : bool, optional
        Whether the table has all indexes of the models. The index to use is then prescribed to SQLite, whose
        statistics may mislead its planner.
    """
    values = dict(checked)
    tmag_min, tmag_max = values.pop("tmag_min", None), values.pop("tmag_max", None)
    expressions: Expressions = [_is_one_of(name, value) for name, value in values.items()]
    if tmag_min is not None or tmag_max is not None:
        expressions.append(_tmag_between(tmag_min, tmag_max, for_our_schema))
    return expressions


def build_conditions(cleanup_constraints: object) -> Expressions:
    """Build conditions from `cleanup_constraints`: arguments of `build_constraints`, or a list of conditions.

    Raises
    ------
    InvalidArgumentError
        If it is neither.
    """
    if cleanup_constraints is None:
        return []
    if isinstance(cleanup_constraints, Mapping):
        return build_expressions(check_constraints(cleanup_constraints))
    if isinstance(cleanup_constraints, list | tuple) and all(
        isinstance(condition, str | ColumnElement) for condition in cleanup_constraints
    ):
        # Parentheses keep an OR inside its text. literal_column() leaves ":" alone; text() would see a parameter.
        return [
            literal_column(f"({condition})") if isinstance(condition, str) else condition
            for condition in cleanup_constraints
        ]
    raise InvalidArgumentError("cleanup_constraints should be dict or list")  # pipelines compare TASOC's text


def _is_one_of(name: str, value: int | str | tuple[int, ...]) -> ColumnElement[bool]:
    if isinstance(value, str):
        is_ffi: ColumnElement[bool] = todolist.c.datasource == "ffi"
        return is_ffi if value == "ffi" else ~is_ffi
    if value == ():
        return false()
    column = todolist.c[name]
    if isinstance(value, tuple):
        # The integers are written into the SQL: a driver does not accept 100,000 parameters.
        return column.in_(bindparam(name, value, unique=True, expanding=True, literal_execute=True))
    return column == value


def _tmag_between(tmag_min: float | None, tmag_max: float | None, for_our_schema: bool) -> ColumnElement[bool]:
    def lies_inside(tmag: ColumnElement[float]) -> ColumnElement[bool]:
        # Without a magnitude, IS NOT NULL makes the condition false, not NULL: its negation then selects the task.
        bounds: list[ColumnElement[bool]] = [tmag.is_not(None)]
        if tmag_min is not None:
            bounds.append(tmag >= tmag_min)
        if tmag_max is not None:
            bounds.append(tmag <= tmag_max)
        return and_(*bounds)

    # The star id is cast to a text, never the text to a number: any text may follow "tpf:", and the cast would fail
    # on PostgreSQL. substr(), since LIKE ignores case on SQLite.
    primary = todolist.alias("primary_target")
    secondaries = select(literal("tpf:") + cast(primary.c.starid, Text)).where(
        primary.c.datasource == "tpf", lies_inside(primary.c.tmag)
    )
    if for_our_schema:
        secondaries = secondaries.with_hint(primary, "INDEXED BY todolist_datasource_idx", "sqlite")
    # The cheap conditions come first: the query may pass over millions of rows.
    is_secondary = and_(todolist.c.datasource != "ffi", func.substr(todolist.c.datasource, 1, 4) == "tpf:")
    return or_(
        and_(lies_inside(todolist.c.tmag), ~is_secondary),
        and_(is_secondary, todolist.c.datasource.in_(secondaries)),
    )


def _render(condition: ColumnElement[bool]) -> str:
    text = str(condition.compile(compile_kwargs={"literal_binds": True, "render_postcompile": True}))
    return f"({text})"
