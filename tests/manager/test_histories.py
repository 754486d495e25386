"""All contracts together: random histories of calls, kills and reopenings, compared with a model in plain Python."""

import shutil
import tempfile
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, text

from photometry_tasks import STATUS, TaskManager
from photometry_tasks.errors import TaskFinishedError, TodoError, UnknownTaskError
from photometry_tasks.maintenance.check import find_faults
from tests.support.lists import empty_list, make_file, query, result_of
from tests.support.model import ABORT, ERROR, OK, SKIPPED, STARTED, WARNING, Model, rows_of_a_field, stars
from tests.support.processes import kill, running

#: Arguments for opening a file.
WAYS = st.sampled_from(
    [
        {},
        {"durability": "full"},
        {"load_into_memory": True},
        {"load_into_memory": True, "backup_interval": 4},
        {"load_into_memory": True, "backup_interval": 3, "durability": "full"},
    ]
)

QUERIES = (
    "SELECT priority, status FROM todolist ORDER BY priority",
    "SELECT priority, skipped_by FROM photometry_skipped ORDER BY priority, skipped_by",
    "SELECT priority, mean_flux, method_used, errors FROM diagnostics ORDER BY priority",
)


def serve(connection: Connection, target: str, arguments: dict[str, Any]) -> None:
    """Open a manager, and make the calls that the test sends."""
    with TaskManager(target, **arguments) as manager:
        connection.send(None)
        for name, values, named in iter(connection.recv, "close"):
            try:
                if name == "state":
                    answer: Any = [[tuple(row) for row in manager.session.execute(text(sql))] for sql in QUERIES]
                elif name == "summary":
                    answer = dict(manager.summary)
                else:
                    answer = getattr(manager, name)(*values, **named)
            except TodoError as error:
                answer = error
            connection.send(answer)
    connection.send("closed")


class Histories(RuleBasedStateMachine):
    """A manager in another process, and the model; after each step both are equal.

    A subclass for another database overrides `make`, `begin`, `check_end` and `ways`.
    """

    ways = WAYS
    is_shared = False

    def __init__(self) -> None:
        super().__init__()
        self.claimed: list[tuple[int, int]] = []
        self.folder = Path(tempfile.mkdtemp())
        self.stack = ExitStack()
        self.saved: dict[int, tuple[float, str, str | None]] = {}
        self.count = 0

    def make(self, rows: list[dict[str, Any]]) -> str:
        return str(make_file(self.folder / "todo.sqlite", rows))

    # --- the process ---

    def begin(self, way: dict[str, Any], **arguments: Any) -> None:
        self.process, self.connection = self.stack.enter_context(running(serve, self.target, way | arguments))
        self.connection.recv()

    def call(self, name: str, *values: Any, **named: Any) -> Any:
        self.connection.send((name, values, named))
        return self.connection.recv()

    # --- the calls ---

    @initialize(rows=rows_of_a_field, data=st.data())
    def first_opening(self, rows: list[dict[str, Any]], data: st.DataObject) -> None:
        self.model = Model(rows, is_shared=self.is_shared)
        self.target = self.make(rows)
        self.begin(data.draw(self.ways))

    @rule(ccd=st.sampled_from([None, 1, 2]))
    def get(self, ccd: int | None) -> None:
        task = self.call("get_task", **({} if ccd is None else {"ccd": ccd}))
        expected = self.model.next(ccd)
        assert (task and task["priority"]) == expected
        if task is not None:
            assert {name: self.model.tasks[expected][name] for name in task} == task  # type: ignore[index]

    @rule(number=st.integers(1, 16))
    def start(self, number: int) -> None:
        answer = self.call("start_task", number)
        if number not in self.model.tasks:
            assert isinstance(answer, UnknownTaskError)
        elif self.model.status[number] not in (None, STARTED):
            assert isinstance(answer, TaskFinishedError)
        else:
            assert answer is None
            self.model.start(number)

    @rule(limit=st.integers(1, 20), ccd=st.sampled_from([None, 1, 2]))
    def get_many(self, limit: int, ccd: int | None) -> None:
        tasks = self.call("get_tasks", limit, **({} if ccd is None else {"ccd": ccd}))
        assert [task["priority"] for task in tasks] == self.model.pending(ccd)[:limit]

    @rule(numbers=st.lists(st.integers(1, 16), max_size=6))
    def start_many(self, numbers: list[int]) -> None:
        answer = self.call("start_tasks", numbers)
        unknown = [number for number in numbers if number not in self.model.tasks]
        finished = [number for number in numbers if self.model.status.get(number) not in (None, STARTED)]
        if unknown or finished:
            assert isinstance(answer, UnknownTaskError | TaskFinishedError)
        else:
            assert answer is None
            for number in numbers:
                self.model.start(number)

    @rule(limit=st.integers(1, 6), ccd=st.sampled_from([None, 1, 2]))
    def claim(self, limit: int, ccd: int | None) -> None:
        tasks = self.call("claim_tasks", limit, **({} if ccd is None else {"ccd": ccd}))
        assert [task["priority"] for task in tasks] == self.model.pending(ccd)[:limit]
        for task in tasks:
            self.model.start(task["priority"])
            self.model.attempts[task["priority"]] = task["attempt"]
            self.claimed.append((task["priority"], task["attempt"]))

    @rule(
        which=st.lists(st.integers(0, 10), min_size=1, max_size=4),
        status=st.sampled_from([OK, OK, ERROR]),
        listed=st.lists(stars, max_size=2),
    )
    def save_claimed(self, which: list[int], status: int, listed: list[int]) -> None:
        if not self.claimed:
            return
        chosen = [self.claimed[-1 - number % len(self.claimed)] for number in which]
        self.count += 1
        batch = [
            result_of({"priority": number, "attempt": attempt}, status, skip_targets=listed, mean_flux=self.count / 7)
            for number, attempt in chosen
        ]
        many = len(batch) > 1
        answer = self.call("save_results", batch) if many else [self.call("save_result", batch[0])]
        for (number, attempt), saved in zip(chosen, answer, strict=True):
            if self.model.attempts.get(number) != attempt:
                assert saved is None
                continue
            self.model.save(number, status, listed)
            assert saved.value == self.model.status[number]
            self.saved[number] = (self.count / 7, "aperture", None)

    @rule(
        results=st.lists(
            st.tuples(st.integers(1, 14), st.sampled_from([OK, OK, OK, ERROR]), st.lists(stars, max_size=2)), max_size=8
        )
    )
    def save_many(self, results: list[tuple[int, int, list[int]]]) -> None:
        self.count += 1
        batch = [
            {
                **result_of({"priority": number}, status, skip_targets=listed, mean_flux=self.count / 7),
                **self.model.tasks.get(number, {}),
                "status": status,
                "method_used": "psf",
            }
            for number, status, listed in results
        ]
        answer = self.call("save_results", batch)
        if any(number not in self.model.tasks for number, _, _ in results):
            assert isinstance(answer, UnknownTaskError)
            return
        for (number, status, listed), saved in zip(results, answer, strict=True):
            self.model.save(number, status, listed)
            assert saved.value == self.model.status[number]
            self.saved[number] = (self.count / 7, "psf", None)

    @rule(numbers=st.lists(st.integers(1, 16), max_size=4))
    def release(self, numbers: list[int]) -> None:
        assert self.call("release_tasks", numbers) is None
        for number in self.model.tasks.keys() & set(numbers):
            self.model.end(number)

    @rule(
        number=st.integers(1, 16),
        status=st.sampled_from([OK, OK, WARNING, ERROR, ABORT, SKIPPED]),
        listed=st.lists(stars, max_size=5),
        method=st.text(max_size=8),
        errors=st.lists(st.text(max_size=8), max_size=2),
    )
    def save(self, number: int, status: int, listed: list[int], method: str, errors: list[str]) -> None:
        self.count += 1
        result = result_of({"priority": number}, status, skip_targets=listed, mean_flux=self.count / 7, errors=errors)
        answer = self.call("save_result", {**result, "method_used": method})
        if number not in self.model.tasks:
            assert isinstance(answer, UnknownTaskError)
            return
        self.model.save(number, status, listed)
        assert answer.value == self.model.status[number]
        text = "\n".join(errors) if any(map(str.strip, errors)) else None  # blanks alone are no errors
        self.saved[number] = (self.count / 7, method, text)

    @rule()
    def save_nonsense(self) -> None:
        assert isinstance(self.call("save_result", {"priority": 1, "status": None}), ValueError)

    @rule(numbers=st.sets(st.integers(1, 16), min_size=1, max_size=4))
    def reset(self, numbers: set[int]) -> None:
        chosen = [n for n in numbers - self.model.running if self.model.status.get(n) is not None]
        self.call("reset_tasks", status=list(STATUS), priority=sorted(numbers - self.model.running))
        self.model.started -= set(chosen)
        self.model.reset(chosen)

    @rule()
    def reset_uncovered(self) -> None:
        assert self.call("reset_uncovered_tasks") == 0

    @rule()
    def backup(self) -> None:
        assert self.call("backup") is None

    @rule(data=st.data(), cleanup=st.booleans(), ccd=st.sampled_from([None, None, 1]))
    def reopen(self, data: st.DataObject, cleanup: bool, ccd: int | None) -> None:
        self.connection.send("close")
        assert self.connection.recv() == "closed"
        self.process.join()
        self.begin(data.draw(self.ways), cleanup=cleanup, cleanup_constraints=None if ccd is None else {"ccd": ccd})
        self.model.open(ccd=ccd)

    @rule(data=st.data())
    def overwrite(self, data: st.DataObject) -> None:
        kill(self.process)
        self.begin(data.draw(self.ways), overwrite=True)
        self.model.open(overwrite=True)

    @rule(data=st.data())
    def kill_and_reopen(self, data: st.DataObject) -> None:
        kill(self.process)
        self.begin(data.draw(self.ways))
        self.model.open()

    # --- the invariant ---

    @invariant()
    def both_are_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        statuses, skips, diagnostics = self.call("state")
        assert dict(statuses) == self.model.status
        assert skips == sorted(self.model.skips)
        assert {row[0] for row in diagnostics} == self.model.diagnostics
        for priority, mean_flux, method, errors in diagnostics:
            expected = self.saved[priority]
            assert (mean_flux, method.replace("\\x00", "\0")) == expected[:2]
            assert (errors or "").replace("\\x00", "\0").startswith(expected[2] or "")
        summary = self.call("summary")
        found = list(self.model.status.values())
        assert {status.name: summary[status.name] for status in STATUS} == {
            status.name: found.count(status.value) for status in STATUS
        }

    def teardown(self) -> None:
        self.stack.close()
        if hasattr(self, "model"):
            self.check_end()
        shutil.rmtree(self.folder)

    def check_end(self) -> None:
        TaskManager(self.target, cleanup_constraints=["0"]).close()
        assert {row[0] for row in query(self.target, QUERIES[2])} >= self.model.diagnostics
        assert list(find_faults(self.target)) == []
        assert [path.name for path in self.folder.iterdir()] == ["todo.sqlite"]


class ServerHistories(Histories):
    """Histories on a server, where a killed manager's tasks are rescued after its lease expired."""

    ways = st.just({"max_attempts": 1000})
    is_shared = True
    engine: Engine

    def make(self, rows: list[dict[str, Any]]) -> str:
        return empty_list(self.engine, rows)

    def begin(self, way: dict[str, Any], **arguments: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE photometry_tasks_workers SET seen = seen - interval '1 day'"))
        super().begin(way, **arguments)

    def check_end(self) -> None:
        live = "SELECT count(*) FROM photometry_tasks_attempts WHERE ended IS NULL AND worker < {}"
        ((worker,),) = query(self.target, "SELECT max(worker) FROM photometry_tasks_workers")
        assert query(self.target, live.format(worker)) == [(0,)]
        assert {row[0] for row in query(self.target, QUERIES[2])} == self.model.diagnostics
        assert list(find_faults(self.target)) == []


@pytest.mark.parametrize("examples", [1, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["file", "server"])
def test_histories(kind: str, examples: int, request: pytest.FixtureRequest) -> None:
    """After any calls, kills and reopenings, in any order and mode, manager and model are equal."""
    machine = Histories
    if kind == "server":
        machine = ServerHistories
        ServerHistories.engine = request.getfixturevalue("server_database")
    checks = list(HealthCheck)
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=25, suppress_health_check=checks),
    )
