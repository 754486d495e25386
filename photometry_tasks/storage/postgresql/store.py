"""A TODO-list on a server, which many managers share: each manager is a worker, which owns the tasks that it claims."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Self, TypeVar

from msgspec.structs import replace

from photometry_tasks import schema
from photometry_tasks.constraints import CheckedConstraints, check_constraints
from photometry_tasks.errors import ListInUseError, ServerError, ServerUnreachableError, TaskOwnedError
from photometry_tasks.rules.results import INVALID_RESULT, Result
from photometry_tasks.sql import transitions
from photometry_tasks.sql.counts import count_by_status
from photometry_tasks.sql.execution import Row, Transaction
from photometry_tasks.sql.history import build_end, describe_worker
from photometry_tasks.sql.statements import build_task
from photometry_tasks.sql.transitions import Saved, build_saved
from photometry_tasks.status import STATUS
from photometry_tasks.storage.base import OpenOptions, TaskStore
from photometry_tasks.storage.connection import ManagerConnection
from photometry_tasks.storage.postgresql import claim_statements, save_statements
from photometry_tasks.storage.postgresql.database import PostgreSQLDatabase
from photometry_tasks.storage.postgresql.dbapi import describe_error
from photometry_tasks.text import count_of

T = TypeVar("T")

_logger = logging.getLogger("photometry_tasks")

#: The shortest time for which calls are retried, with any lease, seconds.
_SHORTEST_PATIENCE = 5.0

#: Seconds between two searches for pending tasks from the beginning of the list. Each passes the index entries of all
#: tasks that were claimed since the last vacuum; the claims between them start at the last claimed task.
_SEARCH_INTERVAL = 1.0

#: Run times of which an attempt's begin is computed, seconds: an interval cannot hold every number.
_LONGEST_TASK = 1e9

#: Bytes. An index entry takes at most a third of a page: https://www.postgresql.org/docs/current/btree.html.
_LONGEST_PATH = 2600


class _Place(NamedTuple):
    """Where the next claim of a manager starts its search: a claim has found no other task before this place.

    Attributes
    ----------
    asked : tuple
        The constraints of these claims, and their `has_failed`.
    last : int or None
        The last claimed priority; None before the first claim.
    begun : int
        `PostgreSQLDatabase.count_begun` at these claims: a later transaction may have returned tasks to pending.
    end : float
        The time of the next search from the beginning, by `monotonic`.
    """

    asked: tuple[CheckedConstraints, bool | None]
    last: int | None
    begun: int
    end: float


class PostgreSQLStore(TaskStore):
    """The list that a manager shares with other managers; each method is one transaction.

    Attributes
    ----------
    name : str
        The URL, without password and query.
    returned : dict
    connection : ManagerConnection
    lease : float
        Seconds without a heartbeat after which other managers rescue its tasks.
    worker : int
        The manager's number among the workers.
    """

    def __init__(self, database: PostgreSQLDatabase, options: OpenOptions) -> None:
        self.name = database.name
        self.lease: float | None = options.lease
        self._max_attempts = options.max_attempts
        self._database = database
        self.connection = ManagerConnection(database, self.name)
        self.returned: dict[str, int] = {}
        # The live attempts of this manager, as far as it has received answers, by priority.
        self._live: dict[int, int] = {}
        # Whether the answer to a claim or a start was lost; and the tasks whose save was not answered.
        self._is_unsure = False
        self._unsure_saves: set[int] = set()
        self._place: _Place | None = None
        self.worker = self._register(options.version)

    @classmethod
    def open(cls, url: str, options: OpenOptions) -> Self:
        """Open a list, register as a worker, and return interrupted and failed tasks to pending as the options say."""
        with ExitStack() as opened:
            database = PostgreSQLDatabase(url, patience=max(_SHORTEST_PATIENCE, options.lease / 2))
            opened.callback(database.close)
            database.with_retry(partial(_check_schema, database))
            store = cls(database, options)
            opened.callback(store.finish)
            store._prepare(options)
            opened.pop_all()
        return store

    def _register(self, version: str | None) -> int:
        names = {**describe_worker(version), "lease": self.lease}
        ((worker,),) = self._database.with_retry(lambda: self._database.run_alone(claim_statements.REGISTER, names))
        return int(worker)

    def _prepare(self, options: OpenOptions) -> None:
        self._database.with_retry(self._rescue)
        if options.overwrite:
            self._database.run_in_transaction(partial(self._overwrite, forget=options.forget), is_long=True)
        elif options.reset:
            reset = partial(transitions.reset_interrupted_tasks, conditions=options.conditions, retries=options.retries)
            self.returned = self.run_in_transaction("open", reset, writes=True).name_returned()
        if options.cleanup or options.overwrite:
            self._database.with_retry(self._database.compact)

    def _overwrite(self, transaction: Transaction, *, forget: bool) -> None:
        execute = transaction.connection.execute
        execute(claim_statements.LOCK_WORKERS)
        others = execute(claim_statements.OTHERS, {"worker": self.worker}).all()
        if others:
            names = (
                f"worker {number} ({host}, process {pid}, last heartbeat {age:.0f} s ago)"
                for number, host, pid, age in others
            )
            raise ListInUseError(path=self.name, found=", ".join(names))
        execute(save_statements.END_ALL_ATTEMPTS)
        transitions.reset_all_tasks(transaction, forget=forget, worker=self.worker)

    def run_in_transaction(self, method: str, work: Callable[[Transaction], T], *, writes: bool) -> T:  # noqa: ARG002 - both kinds are retried alike
        """Return the result of `work`, whose changes are committed as a whole."""
        self.connection.check_ready(method)
        return self._database.run_in_transaction(work)

    def _with_retry(self, method: str, call: Callable[[], T]) -> T:
        self.connection.check_ready(method)
        self._place = None  # the call may return tasks to pending
        return self._database.with_retry(call)

    # --- handing out -------------------------------------------------------------------------------------

    def get_task(self, constraints: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the next pending task, or None."""
        tasks = self.get_tasks(1, constraints, method="get_task")
        return tasks[0] if tasks else None

    def get_tasks(
        self, limit: int, constraints: Mapping[str, Any], *, method: str = "get_tasks"
    ) -> list[dict[str, Any]]:
        """Return the next pending tasks, at most `limit`."""
        statement = claim_statements.build_pending(check_constraints(constraints), limit)

        def call() -> list[Row]:
            rows = self._database.run_alone(statement, {})
            return rows if rows or not self._rescue() else self._database.run_alone(statement, {})

        return list(map(build_task, self._with_retry(method, call)))

    def claim_tasks(
        self, limit: int, constraints: Mapping[str, Any], has_failed: bool | None = None
    ) -> list[dict[str, Any]]:
        """Start the next pending tasks, and return them with the numbers of their attempts."""
        asked = check_constraints(constraints), has_failed

        def call() -> list[dict[str, Any]]:
            if self._database.is_unsure or self._is_unsure:
                self._release_unheard()
            if tasks := self._claim(asked, limit, waits=True):
                return tasks
            self._rescue()
            self._release_unheard()
            return self._claim(asked, limit, waits=False)

        self.connection.check_ready("claim_tasks")
        try:
            tasks = self._database.with_retry(call)
        except BaseException:
            self._is_unsure = True
            raise
        self._live.update((task["priority"], task["attempt"]) for task in tasks)
        self._is_unsure = False
        return tasks

    def _claim(self, asked: tuple[CheckedConstraints, bool | None], limit: int, *, waits: bool) -> list[dict[str, Any]]:
        """Claim tasks; repeat the claim if another program has set all of them to pending while they run."""
        place, begun, now = self._place, self._database.count_begun(), monotonic()
        if place is None or place.asked != asked or place.begun != begun or now >= place.end:
            place = _Place(asked, None, begun, now + _SEARCH_INTERVAL)
        self._place = None
        statement = claim_statements.build_claim(*asked, limit, waits=waits, continues=place.last is not None)
        while rows := self._database.run_alone(statement, {"worker": self.worker, "last": place.last}):
            tasks = [dict(zip(claim_statements.CLAIMED, row, strict=True)) for row in rows]
            if claimed := [task for task in tasks if task["attempt"] is not None]:
                self._place = place._replace(last=tasks[-1]["priority"])
                return claimed
        return []

    def _release_unheard(self) -> None:
        """Release the tasks that this worker claimed or started in a call whose answer was lost."""
        given = {"worker": self.worker}
        live = self._database.run_alone(claim_statements.OF_WORKER, given)
        if unheard := [priority for priority, attempt in live if self._live.get(priority) != attempt]:
            self._database.run_alone(claim_statements.RELEASE, {**given, "priorities": unheard})

    def _rescue(self) -> bool:
        """Return the tasks of workers whose lease has expired to pending; return whether there were such workers."""
        given = {"worker": self.worker, "max_attempts": self._max_attempts}
        dead = self._database.run_alone(claim_statements.RESCUE, given)
        for worker, host, pid, number in dead:
            message = "%s: the lease of worker %d (%s, process %d) has expired; %s rescued"
            _logger.warning(message, self.name, worker, host, pid, count_of(number, "task"))
        return bool(dead)

    def start_tasks(self, method: str, priorities: Sequence[int]) -> None:
        """Mark tasks as STARTED, and begin attempts of this worker at them."""
        given = {"priorities": list(priorities), "worker": self.worker}

        def work(transaction: Transaction) -> list[Row]:
            transaction.fetch_all(claim_statements.HEARTBEAT, given)
            transaction.fetch_all(save_statements.LOCK_FIELD, {**given, "starids": []})
            live = transaction.fetch_all(save_statements.LIVE, given)
            for priority, _, worker, host, pid, lease in live:
                if worker != self.worker:
                    raise TaskOwnedError(priority=priority, worker=worker, host=host, pid=pid, lease=lease)
            transitions.start_tasks(transaction, priorities)
            ours = {row[0]: row[1] for row in live}
            new = sorted(set(priorities) - set(ours))
            begun = transaction.fetch_all(save_statements.BEGIN_ATTEMPTS, {**given, "priorities": new})
            return [*ours.items(), *begun]

        try:
            self._live.update(self.run_in_transaction(method, work, writes=True))
        except BaseException:
            self._is_unsure = True
            raise

    def release_tasks(self, priorities: Sequence[int]) -> None:
        """Return tasks that this worker has started to pending."""
        given = {"priorities": list(priorities), "worker": self.worker}
        self._with_retry("release_tasks", lambda: self._database.run_alone(claim_statements.RELEASE, given))
        for priority in priorities:
            self._live.pop(priority, None)

    def has_tasks_elsewhere(self, constraints: Mapping[str, Any]) -> bool:
        """Whether other managers run or lock tasks that may come back."""
        statement = claim_statements.build_has_tasks_elsewhere(check_constraints(constraints))

        def call() -> bool:
            ((has_tasks,),) = self._database.run_alone(statement, {"worker": self.worker})
            return bool(has_tasks)

        return self._with_retry("has_tasks_elsewhere", call)

    def heartbeat(self) -> None:
        """Send a heartbeat."""
        given = {"worker": self.worker}
        self._with_retry("heartbeat", lambda: self._database.run_alone(claim_statements.HEARTBEAT, given))

    # --- saving ------------------------------------------------------------------------------------------

    def save_results(self, method: str, results: Sequence[Result]) -> list[Saved | None]:
        """Save results, and return the outcome of each; None if its attempt is not, or no longer, the live one."""
        self.connection.check_ready(method)
        results = list(map(_shorten_path, results))
        priorities = [result.priority for result in results]
        saved: list[Saved | None] = []
        try:
            if self._are_independent(results):
                saved = self._database.with_retry(partial(self._save_at_once, results))
            if not saved:
                saved = self._database.run_in_transaction(partial(self._save_all, results))
        except BaseException:
            self._unsure_saves.update(priorities)
            raise
        self._unsure_saves.difference_update(priorities)
        for result, outcome in zip(results, saved, strict=True):
            # A lost attempt stays, so that later results of it are refused too.
            if outcome is not None and self._has(result):
                del self._live[result.priority]
        return saved

    def _has(self, result: Result) -> bool:
        """Whether a result belongs to an attempt that this worker has begun, and not ended."""
        attempt = self._live.get(result.priority)
        return attempt is not None and result.attempt in (None, attempt)

    def _are_independent(self, results: Sequence[Result]) -> bool:
        """Whether results of attempts of this worker concern neither other tasks nor one another."""
        priorities = {result.priority for result in results if self._has(result) and not result.details.skip_targets}
        paths = [path for result in results if (path := result.details.filepath_lightcurve) is not None]
        return 0 < len(results) == len(priorities) and len(paths) == len(set(paths))

    def _save_at_once(self, results: Sequence[Result]) -> list[Saved | None]:
        """Save results in one statement; return an empty list if they need more statements."""
        rows = save_statements.encode_results(results)
        given = {"worker": self.worker, "rows": rows, "number": len(results)}
        statement = save_statements.SAVE if len(results) == 1 else save_statements.SAVE_ALL
        if self._database.run_alone(statement, given):
            return list(map(build_saved, results))
        if self._database.is_unsure:
            self._unsure_saves.update(result.priority for result in results)
        return []

    def _save_all(self, results: Sequence[Result], transaction: Transaction) -> list[Saved | None]:
        """Save results in their order; group consecutive results that do not depend on each other."""
        transaction.fetch_all(claim_statements.HEARTBEAT, {"worker": self.worker})
        if any(result.details.skip_targets for result in results):
            self._lock(transaction, results)
        saved: list[Saved | None] = []
        seen: set[int] = set()
        group: dict[int, Result] = {}
        paths: set[str | None] = set()
        for result in results:
            is_alone = bool(result.details.skip_targets)
            if is_alone or result.priority in group or result.details.filepath_lightcurve in paths:
                saved += self._save_group(transaction, group.values(), seen)
                group.clear()
                paths.clear()
            if is_alone:
                saved.append(self._save_one(transaction, result, seen))
            else:
                group[result.priority] = result
                paths |= {result.details.filepath_lightcurve} - {None}
        return saved + self._save_group(transaction, group.values(), seen)

    def _save_group(self, transaction: Transaction, group: Iterable[Result], seen: set[int]) -> list[Saved | None]:
        """Save results of different tasks, without skips."""
        results = list(group)
        if not results:
            return []
        given = {"worker": self.worker, "rows": save_statements.encode_results(results)}
        done = {priority for (priority,) in transaction.fetch_all(save_statements.SAVE, given)}
        rest = [result for result in results if result.priority not in done]
        if rest:
            self._lock(transaction, rest)
        saved = [build_saved(r) if r.priority in done else self._save_one(transaction, r, seen) for r in results]
        seen |= done
        return saved

    def _lock(self, transaction: Transaction, results: Iterable[Result]) -> None:
        """Lock the tasks of results, and the tasks of the stars in their apertures."""
        priorities: list[int] = []
        starids: list[int] = []
        for result in results:
            priorities.append(result.priority)
            starids += result.details.skip_targets
        transaction.fetch_all(save_statements.LOCK_FIELD, {"priorities": priorities, "starids": starids})

    def _save_one(self, transaction: Transaction, result: Result, seen: set[int]) -> Saved | None:
        """Save a result whose task is locked, if its attempt is the live one or the task has no live attempt.

        `seen` collects the tasks whose results this call has saved.
        """
        is_first = result.priority not in seen
        live = transaction.fetch_all(save_statements.LIVE, {"priorities": [result.priority]})
        attempt, worker = (live[0][1], live[0][2]) if live else (None, None)
        is_unsure = self._database.is_unsure or result.priority in self._unsure_saves
        if attempt is None and is_first and is_unsure and self._has(result):
            # The answer to a save of this result was lost: if a result has ended the attempt, it was this result.
            own = {"task": result.priority, "number": self._live[result.priority]}
            how, errors, kind = transaction.fetch_one(save_statements.END_OF_ATTEMPT, own) or (None, None, None)
            if how in STATUS.__members__:
                seen.add(result.priority)
                return Saved(STATUS[how], errors, None, kind)
        number = result.attempt
        if number is None and is_first:
            number = self._live.get(result.priority)  # another manager may have rescued the task since
        if number != attempt and (number is not None or worker != self.worker):
            return None
        expected = build_end(build_saved(result))
        if attempt is None and is_first and is_unsure and result.attempt is None:
            last = transaction.fetch_one(save_statements.LAST_ATTEMPT, {"task": result.priority})
            covered = {**expected, "how": STATUS.SKIPPED.name, "kind": None, "counts": None}
            if last in ((self.worker, *expected.values()), (self.worker, *covered.values())):
                seen.add(result.priority)  # this result, which needs no attempt, was saved
                return Saved(STATUS[last[1]], last[2], None, last[3])
        given = {
            "task": result.priority,
            "number": attempt,
            "worker": self.worker,
            "memory": result.peak_memory,
            "elaptime": result.time if 0 <= result.time < _LONGEST_TASK else None,
            **_as_parameters(expected),
        }
        if attempt is not None and not transaction.execute(save_statements.END_ATTEMPT, given):
            return None  # another manager has just rescued the task
        (saved,) = transitions.save_results(transaction, [result])
        end = build_end(saved)
        if attempt is None:
            transaction.execute(save_statements.ADD_ATTEMPT, {**given, **_as_parameters(end)})
        elif end != expected:
            transaction.execute(save_statements.DESCRIBE_END, {**given, **_as_parameters(end)})
        seen.add(result.priority)
        return saved

    # --- counting, choosing, closing ---------------------------------------------------------------------

    def count_by_status(self) -> Counter[int | None]:
        """Return how many tasks have each status, with None for pending."""
        count = self.run_in_transaction
        return count("summary", lambda transaction: count_by_status(transaction.connection), writes=False)

    def finish(self) -> None:
        """Release the unfinished tasks, and end this worker."""
        given = {"worker": self.worker}
        try:
            self._with_retry("close", lambda: self._database.run_alone(claim_statements.SIGN_OFF_AND_RELEASE, given))
        except (ServerError, ServerUnreachableError) as error:
            message = "%s: unfinished tasks could not be released (%s); other managers rescue them after %g s"
            _logger.warning(message, self.name, describe_error(error), self.lease)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def abort(self) -> None:
        """Release the tasks, end this worker, and close the connection."""
        self.finish()
        self.close()


def _as_parameters(end: Mapping[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in end.items()}


def _check_schema(database: PostgreSQLDatabase) -> None:
    with database.begin(writes=False) as connection:
        if not schema.is_at_head(connection):
            schema.check_current(connection, database.name)


def _shorten_path(result: Result) -> Result:
    """Return a result that a server can store: if its path is too long for the index, an ERROR without a path."""
    path = result.details.filepath_lightcurve
    if path is None or len(path) < _LONGEST_PATH // 4:
        return result
    length = len(path.encode())
    if length <= _LONGEST_PATH:
        return result
    problem = f"The light-curve path has {length} bytes; use at most {_LONGEST_PATH} bytes in a list on a server"
    errors = (*result.details.errors, problem)
    details = replace(result.details, filepath_lightcurve=None, errors=errors, kind=INVALID_RESULT)
    return replace(result, status=STATUS.ERROR, details=details)
