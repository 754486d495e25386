"""Which tasks to reset or to export: by status, errors, kind of failure, version of the pipeline, number of attempts.

Pure: no execution.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from photometry_tasks.constraints import Constraints, build_expressions, check_constraints
from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.models import attempts, diagnostics, todolist, workers
from photometry_tasks.rules.validation import check_positive, check_statuses, check_text, check_texts
from photometry_tasks.sql.statements import IS_LAST_RESULT
from photometry_tasks.status import FAILED, NOT_GIVEN, RELEASED

_task, _try = todolist.c, attempts.c
_IS_TRIED = sa.and_(_try.ended.is_not(None), _try.how != RELEASED)


class Choice(Constraints, total=False):
    """The arguments that choose tasks by their results, and those of `build_constraints`; all must hold.

    Attributes
    ----------
    status : STATUS, int or str, or an iterable of these
        The statuses of the tasks.
    error_like : str
        A part of the errors of the tasks.
    kind : str or iterable of str
        The kinds of the tasks' failures; the last part of a class with its module is enough.
    made_by, not_made_by : str or iterable of str
        The versions of the pipeline that made the tasks' results, and versions that did not. A result of an unknown
        version is `not_made_by` any.
    attempts_min : int
        The least number of attempts at each task; a task that was only released was not attempted.
    """

    status: Any
    error_like: str | None
    kind: Any
    made_by: Any
    not_made_by: Any
    attempts_min: int | None


#: The names of the arguments that are not constraints.
CHOICES = tuple(name for name in Choice.__annotations__ if name not in Constraints.__annotations__)


def build_choice(given: Mapping[str, Any], *, with_pending: bool = False) -> list[sa.ColumnElement[bool]]:
    """Return conditions on `todolist` for the arguments of `Choice`; without any, an empty list.

    Parameters
    ----------
    given : mapping
    with_pending : bool, optional
        Whether `status` may hold None, which stands for pending tasks.

    Raises
    ------
    InvalidArgumentError
    """
    if unknown := sorted(set(given) - set(Choice.__annotations__)):
        raise TypeError(f"{unknown[0]!r} chooses no tasks; use {', '.join(Choice.__annotations__)}")
    own = {name: given[name] for name in CHOICES if given.get(name) is not None}
    constraints = {name: value for name, value in given.items() if name not in CHOICES}
    conditions = build_expressions(check_constraints(constraints))
    if "status" in own:
        values = check_statuses(own["status"], with_pending=with_pending)
        if len(values) == 1:
            conditions.append(_task.status == values[0])
        else:
            chosen = _task.status.in_([value for value in values if value is not None])
            conditions.append(sa.or_(chosen, _task.status.is_(None)) if None in values else chosen)
    if "error_like" in own:
        text = check_text("error_like", own["error_like"])
        conditions.append(_has(diagnostics.c.priority, diagnostics.c.errors.contains(text, autoescape=True)))
    if "kind" in own:
        kinds = [_is_of_kind(kind) for kind in check_texts("kind", own["kind"])]
        failed = _task.status.in_([status.value for status in FAILED])
        conditions += [failed, _has(_try.priority, _try.counts.is_not(None), sa.or_(*kinds), IS_LAST_RESULT)]
    if "made_by" in own:
        conditions += [_has(diagnostics.c.priority), _is_made_by(check_texts("made_by", own["made_by"]))]
    if "not_made_by" in own:
        conditions += [_has(diagnostics.c.priority), ~_is_made_by(check_texts("not_made_by", own["not_made_by"]))]
    if "attempts_min" in own:
        least = check_positive("attempts_min", own["attempts_min"])
        number = sa.select(sa.func.count()).where(_try.priority == _task.priority, _IS_TRIED).correlate(todolist)
        conditions.append(number.scalar_subquery() >= least)
    return conditions


def build_chosen_tasks(given: Mapping[str, Any], *, everything: bool = False) -> sa.Select[Any]:
    """Select the priorities of the tasks to reset: those that are not pending and match the arguments of `Choice`.

    Raises
    ------
    InvalidArgumentError
        If an argument is invalid, or no argument chooses tasks, or `everything` stands beside such arguments.
    """
    conditions = build_choice(given)
    if everything and conditions:
        raise InvalidArgumentError("everything=True: other arguments choose only some tasks. Leave one of the two out.")
    if not everything and not conditions:
        remedy = "Give `status`, `kind` or a constraint such as `camera`; `everything=True` chooses every task"
        raise InvalidArgumentError(f"No tasks are chosen. {remedy}.")
    return sa.select(_task.priority).where(_task.status.is_not(None), *conditions)


def _has(priority: sa.ColumnElement[int], *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether a task has a row that meets conditions; looked up by its key, so that a page of tasks costs no more."""
    return sa.exists().where(priority == _task.priority, *conditions).correlate(todolist)


def _is_of_kind(kind: str) -> sa.ColumnElement[bool]:
    if kind == NOT_GIVEN:
        return _try.kind.is_(None)
    return sa.or_(_try.kind == kind, _try.kind.endswith(f".{kind}", autoescape=True))


def _is_made_by(versions: list[str]) -> sa.ColumnElement[bool]:
    ours = sa.select(workers.c.worker).where(workers.c.version.in_(versions)).correlate(None)
    return _has(_try.priority, _try.worker.in_(ours), IS_LAST_RESULT)
