"""`TodoList`: look at a TODO-list, which may be in use, without changing it."""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from photometry_tasks.constraints import Constraints, build_expressions, check_constraints
from photometry_tasks.errors import ClosedError, TodoError
from photometry_tasks.progress.status_fields import find_overdue, list_running, read_record
from photometry_tasks.reading import tables
from photometry_tasks.reading.columns import EXTRA, check_columns, choose_columns
from photometry_tasks.reading.failures import HAS_FAILED, group_errors
from photometry_tasks.reading.rows import TaskPages, find_own_columns, iter_records
from photometry_tasks.reading.star import read_star
from photometry_tasks.rules.estimate import build_estimate, build_plan, find_pace
from photometry_tasks.rules.validation import check_finite, check_integer, invalid_argument
from photometry_tasks.sql.choices import build_choice
from photometry_tasks.sql.counts import count_by_status
from photometry_tasks.sql.run_times import read_workload
from photometry_tasks.status import STATUS, name_counts
from photometry_tasks.storage.location import Location, parse_location
from photometry_tasks.storage.open import ListReader, OpenList, open_reading_session
from photometry_tasks.text import build_html, describe_tasks

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from astropy.table import Table
    from sqlalchemy.orm import Session

__all__ = ["TodoList"]


class TodoList:
    """Look at a TODO-list without changing it.

    The list may be of any release, in use by a manager on disk or in memory, or on a server. A reader never writes,
    resets or upgrades, and it keeps no manager from working.

    Parameters
    ----------
    todo : str or os.PathLike
        The TODO-file, a directory that holds `todo.sqlite`, or the URL of a list on a server.

    Raises
    ------
    FileNotFoundError, TodoListNotFoundError
        If the file does not exist, or the server has no list.
    NotATodoFileError, DamagedFileError, UnknownRevisionError
        If the file is not a TODO-file, is damaged, or has the schema of a newer release.
    UnsavedResultsError
        If a manager in memory logged results that cannot be read.
    ServerError
        If the server cannot be reached, or refuses the call.

    Notes
    -----
    Each call opens the list, reads it in one transaction, and closes it again. So a later call sees what was saved
    since, also if another file has replaced the first one. Several threads and forked processes can share a reader, and
    a pickled reader works in any process.

    If a manager works in memory, or was killed there, its log of results is read too. The reader then keeps a copy of
    the list in memory for each thread that calls it, and each call adds what was logged since.

    A list of an older release lacks some columns; they hold None.

    The constraints of the methods are the arguments of `build_constraints`: `priority`, `starid`, `sector`, `cadence`,
    `camera`, `ccd`, `cbv_area`, `datasource`, `tmag_min` and `tmag_max`.

    Examples
    --------
    >>> with TodoList("todo.sqlite") as todo:  # doctest: +SKIP
    ...     print(todo.counts())
    ...     for row in todo.select(status=STATUS.OK, columns=["starid", "mean_flux"], tmag_max=12):
    ...         print(row["starid"], row["mean_flux"])
    """

    def __init__(self, todo: str | os.PathLike[str] | Location) -> None:
        self._location = parse_location(todo)
        self._reader = ListReader(self._location)
        self._local = threading.local()
        self._is_open = True
        with self._begin():  # raises an error if there is no list
            pass

    # --- counts ------------------------------------------------------------------------------------------

    def counts(self, **constraints: Unpack[Constraints]) -> dict[str, int]:
        """Count the tasks by status.

        Parameters
        ----------
        **constraints
            Arguments of `build_constraints`; by default all tasks are counted.

        Returns
        -------
        dict
            The number of tasks by the name of the status. Every name is a key; PENDING stands for tasks without a
            status.
        """
        conditions = build_expressions(check_constraints(constraints))
        with self._begin() as opened:
            return name_counts(count_by_status(opened.connection, conditions))

    def __len__(self) -> int:
        """Return the number of tasks."""
        return sum(self.counts().values())

    # --- rows --------------------------------------------------------------------------------------------

    def select(
        self, status: Any = None, columns: Any = None, **constraints: Unpack[Constraints]
    ) -> Iterator[dict[str, Any]]:
        """Return an iterator over tasks with their results, in order of priority.

        The rows are read in pages of some thousand, and no transaction is open between two rows. So the loop may take
        its time; a task that changes meanwhile is seen as it is when its page is read.

        Parameters
        ----------
        status : STATUS, int or str, or an iterable of these, optional
            The statuses of the tasks; None in an iterable stands for pending tasks. By default all tasks.
        columns : str or iterable of str, optional
            Names of columns. By default all: the columns of `todolist` and `diagnostics`, `status_name` (PENDING
            without a status), `skipped_by` (the priority of the brightest task that covers this one), `attempts` (the
            number of attempts that ended; one that was released does not count), `version` (of the pipeline that made
            the result), and `extra_NAME` for each of the pipeline's own values.
        **constraints
            Arguments of `build_constraints`.

        Returns
        -------
        iterator of dict
            One dict a task, with a plain value or None for each column.

        Raises
        ------
        InvalidArgumentError
            If an argument is invalid, or a column does not exist.
        OutdatedSchemaError
            If the list has an older schema, which lacks the column of a constraint.
        UnreadableValueError
            If another program stored a value of a wrong type, which cannot be read as its column's type.
        """
        pages = self._read(status, columns, constraints)
        return (row for batch in pages for row in iter_records(pages.columns, batch))

    def to_table(self, status: Any = None, columns: Any = None, **constraints: Unpack[Constraints]) -> "Table":
        """Return tasks with their results as a table of astropy; the arguments are those of `select`.

        The columns have units and descriptions, and missing values are masked. It needs the extra `astropy`.
        """
        return tables.build_astropy_table(self._read(status, columns, constraints))

    def to_pandas(self, status: Any = None, columns: Any = None, **constraints: Unpack[Constraints]) -> "pd.DataFrame":
        """Return tasks with their results as a frame of pandas; the arguments are those of `select`.

        Missing values are `pandas.NA`, and integers stay integers. `frame.attrs[NAME]` holds the unit and the
        description of a column. It needs the extra `pandas`.
        """
        return tables.build_pandas_frame(self._read(status, columns, constraints))

    def to_arrow(self, status: Any = None, columns: Any = None, **constraints: Unpack[Constraints]) -> "pa.Table":
        """Return tasks with their results as a table of Arrow; the arguments are those of `select`.

        The metadata of each field hold its unit and description. It needs the extra `parquet`.
        """
        return tables.build_arrow_table(self._read(status, columns, constraints))

    def _read(self, status: Any, columns: Any, constraints: Constraints) -> TaskPages:
        conditions = build_choice({"status": status}, with_pending=True)
        conditions += build_expressions(check_constraints(constraints))
        names = check_columns(columns)
        needs_own = names is None or any(name.startswith(EXTRA) for name in names)
        own = find_own_columns(self._begin, conditions) if needs_own else []
        return TaskPages(self._begin, conditions, choose_columns(names, own))

    # --- one star, failures, the time left ---------------------------------------------------------------

    def star(self, starid: int) -> list[dict[str, Any]]:
        """Return the tasks of a star, in order of priority; an empty list if the star is not listed.

        Parameters
        ----------
        starid : int
            Identifier in the TESS Input Catalogue (TIC).

        Returns
        -------
        list of dict
            One dict a task: the columns of `todolist`, `status_name`, and

            - `result` : dict or None, the columns of `diagnostics`, `version`, and `extra`, a dict of the pipeline's
              own values;
            - `covered_by`, `covers` : list of dict, the tasks that cover this one, and the tasks that it covers, the
              brightest first, each with priority, starid, datasource and tmag;
            - `attempts` : list of dict, from the first to the last, each with attempt, worker, host, version, begun,
              ended (datetimes, UTC), how, kind and errors.
        """
        starid = check_integer("starid", starid)
        with self._begin() as opened:
            return read_star(opened, starid)

    def errors(self, **constraints: Unpack[Constraints]) -> list[dict[str, Any]]:
        """Return the failures, grouped by kind and by message without its numbers, the commonest first.

        Parameters
        ----------
        **constraints
            Arguments of `build_constraints`; by default all tasks with status ERROR or ABORT are counted.

        Returns
        -------
        list of dict
            One dict a group: kind (None if none was given or recorded), message (the last line of the errors, with #
            in place of each number), count (of tasks), first and last (the lowest and highest priority), starid (of the
            first), and hosts (a dict with the number of tasks on each host).
        """
        conditions = build_expressions(check_constraints(constraints))
        with self._begin() as opened:
            groups = group_errors(opened, HAS_FAILED, *conditions).groups
        return [
            {
                "kind": group.kind,
                "message": group.message,
                "count": group.count,
                "first": group.first,
                "last": group.last,
                "starid": group.starid,
                "hosts": dict(group.hosts),
            }
            for group in groups
        ]

    def estimate(self, jobs: float | None = None, **constraints: Unpack[Constraints]) -> dict[str, Any]:
        """Return how long the tasks that are left will take.

        A model learns the run times of the results, by datasource, method and magnitude; half magnitudes with few
        results borrow from their neighbours. Of a list with more than 16,384 tasks, a sample is read.

        Parameters
        ----------
        jobs : float, optional
            How many tasks run at once; by default as many as now, or as when the last results were saved.
        **constraints
            Arguments of `build_constraints`; by default all tasks count.

        Returns
        -------
        dict
            tasks (the number of pending and running tasks), cpu_hours (the sum of their run times), cpu_hours_low and
            cpu_hours_high (its interval), cpu_hours_done (the sum of the run times of all results), jobs (how many
            tasks run at once), hours_low and hours_high (the interval of the time until the end). The true value lies
            in an interval in 80 % of cases. cpu_hours and its interval are None if no result has a run time; jobs,
            hours_low and hours_high also if `jobs` is not given and the list has no record of the times of its results.

        Notes
        -----
        Tasks that fail are not counted a second time, although a later run may run them again.
        """
        at_once = None if jobs is None else _check_more_than_zero("jobs", jobs, "a number of workers")
        conditions = build_expressions(check_constraints(constraints))
        with self._begin() as opened:
            workload = read_workload(opened.connection, conditions)
            live = opened.database.find_live_tasks()
            if at_once is None:
                is_in_use = opened.database.find_holder() is not None
                started = count_by_status(opened.connection)[STATUS.STARTED.value]
                record = read_record(opened.connection)
                at_once = find_pace(workload, record, started=started, at_work=live.at_work, is_in_use=is_in_use)
            running = list_running(opened.connection, live, workload.run_times)
            return build_estimate(workload, at_once, find_overdue(running))

    def plan(self, jobs: float, hours: float, **constraints: Unpack[Constraints]) -> dict[str, Any]:
        """Return which tasks a run of some hours will do, in order of priority.

        Parameters
        ----------
        jobs : float
            How many tasks run at once.
        hours : float
            Length of the run.
        **constraints
            Arguments of `build_constraints`; by default all tasks count.

        Returns
        -------
        dict
            jobs, hours, tasks (the number that is left), done_low and done_high (how many of them will be done, as an
            interval that is right in 80 % of cases), priority_low and priority_high (how far the run comes in order of
            priority; None if not beyond the first task), and magnitudes, a list of dicts with tmag (the whole
            magnitude, rounded down; None without a magnitude), tasks, done_low and done_high. The intervals are None if
            no result has a run time.
        """
        at_once = _check_more_than_zero("jobs", jobs, "a number of workers")
        length = _check_more_than_zero("hours", hours, "a number of hours")
        conditions = build_expressions(check_constraints(constraints))
        with self._begin() as opened:
            workload = read_workload(opened.connection, conditions)
            return build_plan(workload, at_once, length)

    # --- opening and closing -----------------------------------------------------------------------------

    @property
    def session(self) -> "Session":
        """A read-only ORM session on the models, always the same within a thread.

        A flush, an INSERT or any other change raises a ReadOnlyError. Each query is read as a whole, and its
        transaction ends with it; the objects stay usable.

        Until its rows are read, a query holds a transaction: no manager can open the file while it reads some millions
        of rows, as `select` never does. `session.begin()`, `session.connection()` and a query with the execution option
        `yield_per` hold it until the next `commit`, `rollback` or `close` of the session. Meanwhile the write-ahead log
        of a file grows, its manager cannot close it completely, and a server cannot vacuum.
        """
        self._check_open()
        found: tuple[int, Session] | None = getattr(self._local, "session", None)
        if found is None or found[0] != os.getpid():  # a forked child does not use the parent's connection
            found = self._local.session = os.getpid(), open_reading_session(self._location)
        return found[1]

    def _begin(self) -> AbstractContextManager[OpenList]:
        """Open the list for one transaction."""
        self._check_open()
        return self._reader.begin()

    def _check_open(self) -> None:
        if not self._is_open:
            raise ClosedError(path=self._location.name, opener="TodoList")

    def close(self) -> None:
        """Close the reader and the session of this thread; a second call does nothing."""
        self._is_open = False
        self._reader.close()
        found: tuple[int, Session] | None = self._local.__dict__.pop("session", None)
        if found is not None and found[0] == os.getpid():
            found[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[Location]]:
        self._check_open()
        return type(self), (self._location,)

    def __repr__(self) -> str:
        return f"<TodoList of {self._location.name!r}: {self._describe()}>"

    def _repr_html_(self) -> str:
        try:
            counts = self.counts()
        except TodoError as error:
            return build_html("TodoList", self._location.name, {}, note=str(error))
        return build_html("TodoList", self._location.name, counts)

    def _describe(self) -> str:
        if not self._is_open:
            return "closed"
        try:
            return describe_tasks({name: number for name, number in self.counts().items() if number})
        except TodoError as error:
            return str(error)


def _check_more_than_zero(argument: str, value: object, meaning: str) -> float:
    if (number := check_finite(argument, value, f"give {meaning}")) <= 0:
        raise invalid_argument(argument, value, f"{meaning} above 0 is expected")
    return number
