"""The statements: their parameters and rows by name, and their meaning in both dialects."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
import sqlalchemy as sa
from msgspec.structs import asdict
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from photometry_tasks.constraints import build_expressions, check_constraints
from photometry_tasks.errors import InvalidArgumentError
from photometry_tasks.ingest.targets import USED
from photometry_tasks.models import attempts, diagnostics, progress, todolist, workers
from photometry_tasks.rules.results import build_diagnostics, check_result
from photometry_tasks.rules.skipping import Rival
from photometry_tasks.sql import statements, transitions
from photometry_tasks.sql.choices import build_chosen_tasks
from photometry_tasks.sql.execution import compile_statement
from photometry_tasks.status import STATUS
from photometry_tasks.storage.postgresql.dbapi import build_dialect as build_postgresql
from photometry_tasks.storage.sqlite.dbapi import build_dialect as build_sqlite

TARGET = {"starid", "datasource", "sector", "camera", "ccd", "cadence"}
SAID = check_constraints({"camera": 1, "starid": [7, 8], "datasource": "tpf", "tmag_min": 5, "tmag_max": 9})

#: The parameters that callers give to each statement.
PARAMETERS: dict[str, set[str]] = {
    "PENDING_TASK": {"task"},
    "FIRST_PENDING": set(),
    "PRIORITY_RANGE": set(),
    "START_TASK": {"task"},
    "RELEASE_TASK": {"task"},
    "COVERS_OF_TASK": {"task"},
    "STATUS_OF_TASK": {"task"},
    "TASK_OF_RESULT": {"task", "lightcurve"},
    "RIVALS": TARGET,
    "SET_STATUS": {"task", "new_status"},
    "SAVE_STARTED": {"priority", "new_status", *TARGET},
    "INSERT_DIAGNOSTICS": set(diagnostics.columns.keys()),
    "INSERT_SKIP": {"priority", "skipped_by"},
    "INSERT_OWN_SKIP": {"priority", "skipped_by"},
    "HAS_INTERRUPTED_TASKS": set(),
    "COUNT_BY_STATUS": set(),
    "COUNT_BY_CCD": set(),
    "LIVE_ATTEMPTS": set(),
    "TIME": set(),
    "INSERT_PROGRESS": set(progress.columns.keys()),
    "ADD_PROGRESS": set(progress.columns.keys()),
    "PROGRESS": set(),
    "TARGET_OF_TASK": {"task"},
    "LAST_PRIORITY": set(),
    "INSERT_EXTRA": {"priority", "extra"},
    "LAST_WORKER": set(),
    "UNENDED_WORKER": set(),
    "WORKER": {"number"},
    "INSERT_WORKER": set(workers.columns.keys()),
    "END_KILLED_WORKERS": set(),
    "TOUCH_WORKER": {"number", "now", "end"},
    "INSERT_ATTEMPT": set(attempts.columns.keys()),
    "INSERT_SUCCESS": {"priority", "attempt", "worker", "begun", "ended", "how", "peak_memory"},
    "ATTEMPTS_OF_TASK": {"task"},
    "RELEASE_FAILURE": {"task", "number"},
    "COUNT_AGAIN": {"task", "number"},
    "INSERT_UNDO": {"part", "origin", "content"},
    "UNDO_PARTS": {"origin"},
    "UNDO_CONTENT": {"part"},
    "COUNT_RESULTS": set(),
    "COUNT_VERSIONS": set(),
    "COUNT_FAILURES": set(),
    "HAS_VERSIONS": set(),
}
#: Statements with a list of priorities in their text; SQLAlchemy's connection runs them.
OF_PRIORITIES = {
    *("COVERED_BY_ANY", "DELETE_COVERS", "DELETE_VOID_SKIPS", "DELETE_SKIPS_OF", "UNSKIPPED", "NO_LONGER_SKIPPED"),
    *(
        "SKIPPED_AMONG",
        "MEASURED_AMONG",
        "DELETE_DIAGNOSTICS",
        "DELETE_EXTRA",
        "COUNTED_FAILURES",
        "STATUSES",
        "FORGIVE_FAILURES",
        "COUNT_CHOSEN",
        "SET_PENDING",
        "SET_SKIPPED",
        "LOCK_TASKS",
    ),
    "SET_PENDING_OR_STARTED",
}
CONDITIONS = build_expressions(SAID, for_our_schema=True)
BUILT: list[tuple[sa.Executable, set[str]]] = [
    (statements.build_next_tasks(CONDITIONS, {"camera", "starid"}), {"start", "limit"}),
    (statements.build_next_tasks(CONDITIONS, {"camera"}), {"start", "limit"}),
    (statements.build_numbered_task(CONDITIONS), {"number"}),
    (statements.build_count_pending(CONDITIONS), set()),
    (statements.build_count_by_status([None, 1], CONDITIONS), set()),
    (statements.build_interrupted_tasks(CONDITIONS, None), set()),
    (statements.build_interrupted_tasks(CONDITIONS, 2), set()),
    (statements.build_interrupted_tasks(CONDITIONS, 0), set()),
    (statements.build_used_up(2), set()),
    (statements.build_latest_results(5), {"since"}),
    (statements.build_lost_attempts(CONDITIONS), {"number", "worker", "now", "text"}),
    *((statements.build_next_tasks(statements.build_has_failed(has), ()), {"start", "limit"}) for has in (False, True)),
    (statements.build_running_tasks(5), set()),
    (statements.build_failed_tasks(5, [4, 3]), set()),
]


def required(statement: sa.Executable) -> set[str]:
    binds = statement.compile().binds  # type: ignore[attr-defined]  # all our statements have it
    return {name for name, bind in binds.items() if bind.required and not name.startswith("%(")}


def test_every_statement_is_looked_at() -> None:
    """Each statement of the module is in a table of these tests."""
    found = {name for name, value in vars(statements).items() if name.isupper() and isinstance(value, sa.Executable)}
    assert found == PARAMETERS.keys() | OF_PRIORITIES


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    """A statement requires exactly the parameters that its callers give."""
    assert required(getattr(statements, name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(OF_PRIORITIES))
def test_lists_of_priorities(name: str) -> None:
    """A list of priorities is written into the SQL, and is not a parameter of the driver."""
    statement = getattr(statements, name)
    assert required(statement) == {"priorities"}
    for dialect in (build_sqlite(), build_postgresql()):
        state = statement.compile(dialect=dialect).construct_expanded_state({"priorities": [11, 12]})
        assert "IN (11, 12)" in state.statement
        assert not any(name.startswith("priorities") for name in state.positiontup)


def compiled() -> Iterator[tuple[sa.Executable, set[str]]]:
    yield from ((getattr(statements, name), names) for name, names in PARAMETERS.items())
    yield from BUILT
    yield from ((statement, set()) for statement in statements.RESET_EVERYTHING)


@pytest.mark.parametrize(("dialect", "sign"), [(build_sqlite(), r"\?()"), (build_postgresql(), r"\$(\d+)")])
def test_every_parameter_has_its_place(dialect: sa.Dialect, sign: str) -> None:
    """In both dialects the driver gets each value at the position of its name in the statement."""
    if dialect.name == "sqlite":
        by_name = cast(Any, type(dialect))(paramstyle="named")
        pattern = r":(\w+)"
    else:
        by_name = cast(Any, PGDialect_psycopg)(paramstyle="pyformat")
        pattern = r"%\((\w+)\)s"
    for statement, names in compiled():
        sql, arrange = compile_statement(statement, dialect)
        state = statement.compile(dialect=by_name).construct_expanded_state(dict.fromkeys(names, 0))  # type: ignore[attr-defined]
        places = re.findall(pattern, state.statement)
        assert re.sub(sign, "@", sql) == re.sub(pattern, "@", state.statement)
        expected = {**state.parameters, **{name: name.upper() for name in names}}
        values = arrange({name: name.upper() for name in sorted(names, reverse=True)})
        indexes = [int(number) - 1 if number else index for index, number in enumerate(re.findall(sign, sql))]
        assert [values[index] for index in indexes] == [expected[place] for place in places]
        assert set(indexes) == set(range(len(values)))


def test_hints_are_for_sqlite_and_name_indexes() -> None:
    """An index that a statement names on SQLite is in the model; PostgreSQL gets no hint."""
    hints = set()
    for statement, _ in compiled():
        hints |= set(re.findall(r"INDEXED BY (\w+)", compile_statement(statement, build_sqlite())[0]))
        assert "INDEXED" not in compile_statement(statement, build_postgresql())[0]
    assert hints == {"todolist_pending_idx", "starid_idx", "status_idx", "todolist_datasource_idx"}
    assert hints <= {index.name for index in todolist.indexes}


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ({"priority", "camera"}, ""),
        ({"starid", "camera"}, " INDEXED BY starid_idx"),
        ({"camera"}, " NOT INDEXED"),
        (set(), " INDEXED BY todolist_pending_idx"),
    ],
)
def test_the_index_follows_from_the_constraints(names: set[str], hint: str) -> None:
    """For each set of constraints the search for the next task names its index."""
    sql, _ = compile_statement(statements.build_next_tasks([], names), build_sqlite())
    assert f"FROM todolist{hint} WHERE" in " ".join(sql.split())


# --- rows ---


def columns(statement: Any) -> tuple[str, ...]:
    return tuple(statement.selected_columns.keys())


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (transitions._Task._fields, columns(statements.TASK_OF_RESULT)),
        (Rival._fields, columns(statements.RIVALS)),
        (statements.TARGET_NAMES, columns(statements.TARGET_OF_TASK)),
    ],
)
def test_records_name_the_columns_of_their_statement(record: tuple[str, ...], names: tuple[str, ...]) -> None:
    """A record of a row has the columns of its statement, in the same order."""
    assert record == names


def test_a_task_has_the_keys_of_the_contract() -> None:
    """A task has the contract's keys in the same order, from every statement that returns tasks."""
    keys = ["priority", "starid", "method", "sector", "camera", "ccd", "cadence", "datasource", "tmag"]
    assert list(statements.build_task(range(9)).items()) == list(zip(keys, range(9), strict=True))
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        statements.build_task(range(8))
    for statement in (statements.PENDING_TASK, statements.build_next_tasks([], ()), statements.build_numbered_task([])):
        assert list(columns(statement)) == keys
    assert list(columns(statements.build_running_tasks(1))) == [key for key in keys if key != "cadence"]


def test_a_result_gives_what_saving_asks_for() -> None:
    """A checked result has a value for every parameter of the statements that save it."""
    result = check_result({"priority": 1, "status": 1, "method_used": "aperture", "time": 1.0})
    target = asdict(result.target)
    assert build_diagnostics(result).keys() == required(statements.INSERT_DIAGNOSTICS)
    assert {*target, "priority", "new_status"} >= required(statements.SAVE_STARTED)
    assert target.keys() >= required(statements.RIVALS)


def test_a_list_of_targets_fills_every_column() -> None:
    """A target has every column of `todolist` except the status."""
    assert {*USED, "priority", "status"} == set(todolist.columns.keys())


# --- built statements ---


def literal(statement: sa.Select[Any]) -> str:
    given: dict[str, Any] = {"literal_binds": True, "render_postcompile": True}
    return " ".join(str(statement.compile(dialect=build_sqlite(), compile_kwargs=given)).split())


def test_everything_is_reset_in_the_order_of_references() -> None:
    """A reset of the whole list first deletes rows that refer to tasks, and does not update pending tasks."""
    sql = [" ".join(str(statement).split()) for statement in statements.RESET_EVERYTHING]
    tables = ["photometry_tasks_own_skips", "photometry_tasks_extra", "diagnostics", "photometry_skipped"]
    tables.append("photometry_tasks_progress")
    assert [text.split()[2] for text in sql[2:-1]] == tables
    assert sql[-1] == "UPDATE todolist SET status=NULL WHERE todolist.status IS NOT NULL"


@pytest.mark.parametrize(
    ("choice", "conditions"),
    [
        ({"status": STATUS}, ["status IN (0, 1, 2, 3, 4, 5, 6)"]),
        ({"status": 2, "camera": 1}, ["status = 2", "todolist.camera = 1"]),
        (
            {"status": [2, 4], "error_like": "50%_/"},
            ["status IN (2, 4)", "errors LIKE '%' || '50/%/_//' || '%' ESCAPE '/'"],
        ),
        ({"kind": "a.b%"}, ["kind = 'a.b%'", "kind LIKE '%' || '.a.b/%' ESCAPE '/'", "status IN (2, 4)"]),
        ({"made_by": ["1", "2"]}, ["version IN ('1', '2')"]),
        ({"attempts_min": 3}, ["count(*)", ") >= 3"]),
    ],
)
def test_chosen_tasks(choice: dict[str, Any], conditions: Iterable[str]) -> None:
    """Tasks are chosen by status, by a literal text in the errors, by kind and version, and by constraints."""
    sql = literal(build_chosen_tasks(choice))
    assert not [condition for condition in conditions if condition not in sql]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"status": 7}, "status=7"),
        ({"error_like": ""}, "error_like=''"),
        ({"error_like": 5}, "error_like=5"),
        ({"camera": 1.5}, r"camera=1\.5"),
        ({"kind": ["", "a"]}, "kind=''"),
        ({"kind": 5}, "kind=5"),
        ({"made_by": b"1"}, "made_by=b'1'"),
        ({"not_made_by": [None]}, "not_made_by=None"),
        ({"attempts_min": 0}, "attempts_min=0"),
        ({}, r"^No tasks are chosen\. Give "),
    ],
)
def test_wrong_choices(given: dict[str, Any], problem: str) -> None:
    """The error names an invalid status, text, number or constraint."""
    with pytest.raises(InvalidArgumentError, match=problem):
        build_chosen_tasks(given)


def test_the_last_failures_come_first() -> None:
    """The given failed tasks come first, in their order, then the others in descending priority."""
    order = "ORDER BY CASE todolist.priority WHEN 4 THEN 0 WHEN 3 THEN 1 ELSE 2 END, todolist.priority DESC LIMIT 5"
    assert order in literal(statements.build_failed_tasks(5, [4, 3]))
    assert "ORDER BY todolist.priority DESC LIMIT 5" in literal(statements.build_failed_tasks(5, []))


def test_only_a_shared_list_asks_for_attempts() -> None:
    """If a list is shared, the preview of a reset leaves out tasks with a live attempt."""
    chosen = statements.build_interrupted_tasks([], None)
    build = statements.build_skip_chains
    assert "photometry_tasks_attempts" in literal(build(chosen, is_shared=True, has_own_skips=True))
    assert "photometry_tasks_attempts" not in literal(build(chosen, is_shared=False, has_own_skips=True))
