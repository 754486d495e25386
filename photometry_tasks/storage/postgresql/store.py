"""A TODO-list on a server, which many managers share: each is a worker, with tasks of its own."""

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement

from photometry_tasks import schema
from photometry_tasks.constraints import build_expressions, check_constraints
from photometry_tasks.errors import (
    ServerError,
    ServerLostError,
    TaskOwnedError,
    WorkersAtWorkError,
)
from photometry_tasks.rules.results import Result
from photometry_tasks.sql import transitions
from photometry_tasks.sql.counts import count_by_status
from photometry_tasks.sql.execution import Row, Transaction
from photometry_tasks.sql.transitions import Saved
from photometry_tasks.status import STATUS
from photometry_tasks.storage.connection import SharedConnection
from photometry_tasks.storage.postgresql import claim_statements, save_statements
from photometry_tasks.storage.postgresql.database import PostgreSQL
from photometry_tasks.storage.postgresql.dbapi import describe
from photometry_tasks.storage.postgresql.sending import bind_claim, bind_pending, encode_results, fit
from photometry_tasks.storage.sqlite.pending import build_task

__all__ = ["ServerList"]

T = TypeVar("T")

_logger = logging.getLogger("photometry_tasks")

#: Seconds for which it is at least tried to reach the server.
_SHORTEST_PATIENCE = 5.0


class ServerList:
    """What a manager does to the list that it shares with others; each method is one transaction.

    Parameters
    ----------
    url : str
    lease : float
        Seconds without a sign of life after which others take its tasks.
    max_attempts : int
        How often a task's workers are lost before it becomes an ERROR.

    Attributes
    ----------
    name : str
        The URL, without password and query.
    shared : SharedConnection
    worker : int
        The manager's number among the workers.
    """

    #: Nothing lies on a disk here.
    path = None

    def __init__(self, url: str, *, lease: float, max_attempts: int) -> None:
        self.lease = lease
        self._max_attempts = max_attempts
        self._database = PostgreSQL(url, patience=max(_SHORTEST_PATIENCE, lease / 2))
        self.name = self._database.name
        with ExitStack() as opened:
            opened.callback(self._database.close)
            self._database.repeat(self._check)
            self.shared = SharedConnection(self._database, self.name)
            self._live: dict[int, int] = {}
            self._is_unsure = False
            self._unsure_saves: set[int] = set()
            self.worker = self._register()
            opened.pop_all()

    def _check(self) -> None:
        with self._database.begin(writes=False) as connection:
            if not schema.is_at_head(connection):
                schema.check_current(connection, self.name)

    def _register(self) -> int:
        names = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "slurm_jobid": os.environ.get("SLURM_JOB_ID"),
            "lease": self.lease,
        }
        ((worker,),) = self._database.repeat(lambda: self._database.alone(claim_statements.REGISTER, names))
        return int(worker)

    def prepare(
        self, *, reset: bool, overwrite: bool, cleanup: bool, conditions: Sequence[ColumnElement[bool]]
    ) -> None:
        """Return what was cut short or went wrong to pending; or all, if nobody else is at work."""
        self._database.repeat(self._rescue)
        number = 0
        if overwrite:
            self._database.transact(self._overwrite, is_long=True)
        elif reset:
            number = self.change("open", partial(transitions.reset_interrupted_tasks, conditions=conditions))
        if cleanup or overwrite:
            self._database.repeat(self._database.compact)
        _logger.info("%s: %d tasks that were cut short or went wrong are pending again", self.name, number)

    def _overwrite(self, transaction: Transaction) -> None:
        execute = transaction.connection.execute
        execute(claim_statements.LOCK_WORKERS)
        others = execute(claim_statements.OTHERS, {"worker": self.worker}).all()
        if others:
            names = (f"worker {number} ({host}, process {pid}, {age:.0f} s ago)" for number, host, pid, age in others)
            raise WorkersAtWorkError(path=self.name, found=", ".join(names))
        execute(save_statements.END_ALL_ATTEMPTS)
        transitions.reset_all_tasks(transaction)

    def read(self, method: str, work: Callable[[Transaction], T]) -> T:
        """Return what some work returns that changes nothing."""
        self.shared.check_ready(method)
        return self._database.transact(work)

    #: Return what some work returns, all of which is done or nothing.
    change = read

    def _ask(self, call: Callable[[], T], method: str) -> T:
        self.shared.check_ready(method)
        return self._database.repeat(call)

    # --- handing out -------------------------------------------------------------------------------------

    def next_task(self, constraints: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the next pending task."""
        tasks = self.next_tasks(1, constraints, method="get_task")
        return tasks[0] if tasks else None

    def next_tasks(
        self, limit: int, constraints: Mapping[str, Any], *, method: str = "get_tasks"
    ) -> list[dict[str, Any]]:
        """Return the next pending tasks."""
        sql, values = bind_pending(check_constraints(constraints), limit)

        def call() -> list[Row]:
            rows = self._database.run_alone(sql, values)
            return rows if rows or not self._rescue() else self._database.run_alone(sql, values)

        return list(map(build_task, self._ask(call, method)))

    def claim(self, limit: int, constraints: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start the next pending tasks, and return them with the numbers of their attempts."""
        checked = check_constraints(constraints)
        sql, values = bind_claim(checked, limit, self.worker, waits=True)

        def call() -> list[Row]:
            if self._database.is_unsure or self._is_unsure:
                self._give_back_unheard()
            if rows := self._claim(sql, values):
                return rows
            self._rescue()
            self._give_back_unheard()
            return self._claim(*bind_claim(checked, limit, self.worker, waits=False))

        try:
            rows = self._ask(call, "claim_tasks")
        except BaseException:
            self._is_unsure = True
            raise
        tasks = [{**build_task(row[:-1]), "attempt": row[-1]} for row in rows]
        self._live.update((task["priority"], task["attempt"]) for task in tasks)
        self._is_unsure = False
        return tasks

    def _claim(self, sql: str, values: Row) -> list[Row]:
        """Claim tasks; again while all that are found run, and another program had set them to pending."""
        while rows := self._database.run_alone(sql, values):
            if claimed := [row for row in rows if row[-1] is not None]:
                return claimed
        return []

    def _give_back_unheard(self) -> None:
        """Give back the tasks that this worker was given without being told, since the answer was lost."""
        given = {"worker": self.worker}
        live = self._database.alone(claim_statements.OF_WORKER, given)
        if unheard := [priority for priority, attempt in live if self._live.get(priority) != attempt]:
            self._database.alone(claim_statements.RELEASE, {**given, "priorities": unheard})

    def _rescue(self) -> bool:
        """Take the tasks of silent workers back; return whether there were any such workers."""
        given = {"worker": self.worker, "max_attempts": self._max_attempts}
        dead = self._database.alone(claim_statements.RESCUE, given)
        for worker, host, pid, number in dead:
            message = "%s: worker %d (%s, process %d) is silent: its tasks are taken back, %d of them"
            _logger.warning(message, self.name, worker, host, pid, number)
        return bool(dead)

    def start(self, method: str, priorities: Sequence[int]) -> None:
        """Start tasks; their attempts are this worker's."""
        given = {"priorities": list(priorities), "worker": self.worker}

        def work(transaction: Transaction) -> list[Row]:
            transaction.all(claim_statements.HEARTBEAT, given)
            transaction.all(save_statements.LOCK_FIELD, {**given, "starids": []})
            live = transaction.all(save_statements.LIVE, given)
            for priority, _, worker, host, pid, lease in live:
                if worker != self.worker:
                    raise TaskOwnedError(priority=priority, worker=worker, host=host, pid=pid, lease=lease)
            transitions.start_tasks(transaction, priorities)
            ours = {row[0]: row[1] for row in live}
            new = sorted(set(priorities) - set(ours))
            begun = transaction.all(save_statements.BEGIN_ATTEMPTS, {**given, "priorities": new})
            return [*ours.items(), *begun]

        try:
            self._live.update(self.change(method, work))
        except BaseException:
            self._is_unsure = True
            raise

    def release(self, priorities: Sequence[int]) -> None:
        """Return tasks that this worker has started to pending."""
        given = {"priorities": list(priorities), "worker": self.worker}
        self._ask(lambda: self._database.alone(claim_statements.RELEASE, given), "release_tasks")
        for priority in priorities:
            self._live.pop(priority, None)

    def may_more_come(self, constraints: Mapping[str, Any]) -> bool:
        """Whether tasks may come yet though a claim gave none."""
        statement = claim_statements.may_more_come(build_expressions(check_constraints(constraints)))

        def work(transaction: Transaction) -> bool:
            return bool(transaction.connection.execute(statement, {"worker": self.worker}).scalar_one())

        return self.read("may_more_come", work)

    def heartbeat(self) -> None:
        """Tell that this worker is alive."""
        self._ask(lambda: self._database.alone(claim_statements.HEARTBEAT, {"worker": self.worker}), "heartbeat")

    # --- saving ------------------------------------------------------------------------------------------

    def save(self, method: str, results: Sequence[Result]) -> list[Saved | None]:
        """Save results, and return what became of each; None where its attempt is not, or no longer, the live one."""
        self.shared.check_ready(method)
        results = list(map(fit, results))
        priorities = [result.priority for result in results]
        saved: list[Saved | None] = []
        try:
            if len(results) == 1 and not results[0].skip_targets and self._has(results[0]):
                saved = self._database.repeat(partial(self._save_alone, results[0]))
            if not saved:
                saved = self._database.transact(partial(self._save_all, results))
        except BaseException:
            self._unsure_saves.update(priorities)
            raise
        self._unsure_saves.difference_update(priorities)
        for result, outcome in zip(results, saved, strict=True):
            if outcome is not None and self._has(result):  # else it is known later too that its attempt was lost
                del self._live[result.priority]
        return saved

    def _has(self, result: Result) -> bool:
        """Whether a result is of an attempt that this worker has begun, and not ended."""
        attempt = self._live.get(result.priority)
        return attempt is not None and result.attempt in (None, attempt)

    def _save_alone(self, result: Result) -> list[Saved | None]:
        """Save a result in one statement, as nearly all can be; return nothing if this one cannot."""
        given = {"worker": self.worker, "rows": encode_results([result])}
        if self._database.alone(save_statements.SAVE, given):
            return [_plain(result)]
        if self._database.is_unsure:
            self._unsure_saves.add(result.priority)
        return []

    def _save_all(self, results: Sequence[Result], transaction: Transaction) -> list[Saved | None]:
        """Save results one after the other, those between which nothing depends on the order together."""
        transaction.all(claim_statements.HEARTBEAT, {"worker": self.worker})
        if any(result.skip_targets for result in results):
            self._lock(transaction, results)
        saved: list[Saved | None] = []
        seen: set[int] = set()
        group: dict[int, Result] = {}
        paths: set[str | None] = set()
        for result in results:
            is_alone = bool(result.skip_targets)
            if is_alone or result.priority in group or result.diagnostics["lightcurve"] in paths:
                saved += self._save_group(transaction, group.values(), seen)
                group.clear()
                paths.clear()
            if is_alone:
                saved.append(self._save_one(transaction, result, seen))
            else:
                group[result.priority] = result
                paths |= {result.diagnostics["lightcurve"]} - {None}
        return saved + self._save_group(transaction, group.values(), seen)

    def _save_group(self, transaction: Transaction, group: Iterable[Result], seen: set[int]) -> list[Saved | None]:
        """Save results of different tasks, which skip nobody."""
        results = list(group)
        if not results:
            return []
        given = {"worker": self.worker, "rows": encode_results(results)}
        done = {priority for (priority,) in transaction.all(save_statements.SAVE, given)}
        rest = [result for result in results if result.priority not in done]
        if rest:
            self._lock(transaction, rest)
        saved = [_plain(r) if r.priority in done else self._save_one(transaction, r, seen) for r in results]
        seen |= done
        return saved

    def _lock(self, transaction: Transaction, results: Iterable[Result]) -> None:
        """Keep others from the tasks of some results, and from those of the stars in their apertures."""
        priorities: list[int] = []
        starids: list[int] = []
        for result in results:
            priorities.append(result.priority)
            starids += result.skip_targets
        transaction.all(save_statements.LOCK_FIELD, {"priorities": priorities, "starids": starids})

    def _save_one(self, transaction: Transaction, result: Result, seen: set[int]) -> Saved | None:
        """Save a result whose task is locked, if its attempt is the live one, or nobody works on the task.

        Tasks of which this call has saved a result are noted as seen.
        """
        is_first = result.priority not in seen
        live = transaction.all(save_statements.LIVE, {"priorities": [result.priority]})
        attempt, worker = (live[0][1], live[0][2]) if live else (None, None)
        is_unsure = self._database.is_unsure or result.priority in self._unsure_saves
        if attempt is None and is_first and is_unsure and self._has(result):
            # The answer to a save of this result was lost: if a result has ended its attempt, it was this one.
            own = {"task": result.priority, "number": self._live[result.priority]}
            how, errors = transaction.one(save_statements.END_OF_ATTEMPT, own) or (None, None)
            if how in STATUS.__members__:
                seen.add(result.priority)
                return Saved(STATUS[how], errors, {})
        number = result.attempt
        if number is None and is_first:
            number = self._live.get(result.priority)  # that this manager began, and may have lost meanwhile
        if number != attempt and (number is not None or worker != self.worker):
            return None
        given = {"task": result.priority, "number": attempt, "end": result.status.name, "text": None}
        if attempt is not None and not transaction.change(save_statements.END_ATTEMPT, [given]):
            return None  # it was taken back just now
        (saved,) = transitions.save_results(transaction, [result])
        if attempt is not None:
            transaction.change(
                save_statements.DESCRIBE_END, [{**given, "end": saved.status.name, "text": saved.errors}]
            )
        seen.add(result.priority)
        return saved

    def tell(self) -> None:
        """Tell nothing: others see for themselves how it stands."""

    # --- counting, choosing, closing ---------------------------------------------------------------------

    def count(self) -> Counter[int | None]:
        """Return how many tasks have each status; pending ones as None."""
        return self.read("summary", lambda transaction: count_by_status(transaction.connection))

    def backup(self) -> None:
        """Do nothing: all is on the server."""

    def is_ours(self) -> bool:
        """Whether it is still the list that was opened."""
        return True

    def finish(self) -> None:
        """Give back what was not finished, since this worker works no longer."""
        try:
            self._ask(
                lambda: self._database.alone(claim_statements.SIGN_OFF_AND_RELEASE, {"worker": self.worker}), "close"
            )
        except (ServerError, ServerLostError) as error:
            message = "%s: tasks that are not finished come back in %g s (%s)"
            _logger.warning(message, self.name, self.lease, describe(error))

    def close(self) -> None:
        """Close the connection."""
        self.shared.close()

    def abandon(self) -> None:
        """Sign off, and close the connection."""
        self.finish()
        self.close()


def _plain(result: Result) -> Saved:
    """Return what becomes of a result that concerns no other task."""
    return Saved(result.status, result.errors_text, {})
