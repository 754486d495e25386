"""One family of errors. Each docstring is the message and its remedy, filled in with what was found.

Every error is also the builtin that a caller would expect, so that either family can be caught.
"""

import errno as _errno

__all__ = [
    "BackupError",
    "CannotUpgradeError",
    "ClosedError",
    "CopyError",
    "DamagedFileError",
    "DiskError",
    "DiskFullError",
    "DriverMissingError",
    "FileChangedError",
    "InterruptedWriteError",
    "InvalidArgumentError",
    "InvalidResultError",
    "InvalidTargetError",
    "LeftoverLogError",
    "ListInUseError",
    "MountWithoutLocksError",
    "NotATodoFileError",
    "NotWritableError",
    "OutdatedSchemaError",
    "RowRefusedError",
    "ServerError",
    "ServerUnreachableError",
    "TaskFinishedError",
    "TaskOwnedError",
    "TodoError",
    "TodoFileInUseError",
    "TodoFileNotFoundError",
    "TodoListNotFoundError",
    "TooManyWorkerDeathsError",
    "UncommittedChangesError",
    "UnknownRevisionError",
    "UnknownTaskError",
    "UnreadRowsError",
    "UnsavedResultsError",
    "UnsupportedOnServerError",
    "WorkerDiedError",
    "WorkerError",
    "WrongThreadError",
]


class TodoError(Exception):
    """Something is wrong with the TODO-list."""

    def __init__(self, message: str | None = None, /, **found: object) -> None:
        # A message that is given is one that was filled in before: errors cross processes by pickle.
        # Python leaves docstrings out with -OO; the values then stand alone.
        docstring = type(self).__doc__ or " ".join(f"{name}={{{name}}}" for name in found)
        template = " ".join(docstring.split())
        found["quoted"] = _quote(str(found.get("path")))  # for commands that can be pasted
        super().__init__(template.format(**found) if message is None else message)


def _quote(path: str) -> str:
    try:
        import shlex  # only errors need it
    except OSError:  # as when too many files are open
        return repr(path)
    return shlex.quote(path)


class InvalidArgumentError(TodoError, ValueError):
    """{argument}={value}: {remedy}."""


class InvalidResultError(TodoError, ValueError):
    """Result of task {priority}: {field}={value}: {remedy}. Nothing was saved."""


class InvalidTargetError(TodoError, ValueError):
    """{where}: {problem}. Nothing was added."""


class TodoFileNotFoundError(TodoError, FileNotFoundError):
    """There is no TODO-file at {path}. Make one with `photometry-tasks init {quoted} LIST.csv`."""


class TodoFileInUseError(TodoError, BlockingIOError):
    """{path} is in use by another manager or program ({found}). Close it there, then try again."""


class LeftoverLogError(TodoError, FileExistsError):
    """{log} was left by a TODO-file that was deleted. Delete it too, then try again."""


class MountWithoutLocksError(TodoError, OSError):
    """{path} lies on {point} ({kind}, mounted with {options}), where a lock does not keep other nodes out.

    Two managers could overwrite each other. Mount it with locks, or put the file on another file system.
    """


class DiskError(TodoError, OSError):
    """{path} cannot be read or written ({found}). What was being done is undone; mend that, then call again."""


class DiskFullError(DiskError):
    """{path} cannot be written ({found}): the disk is full, or a quota or a limit on the size of files is reached.

    What was being done is undone. Make room, then call again.
    """

    errno = _errno.ENOSPC


class BackupError(TodoError, OSError):
    """The backup of {path} failed ({found}). The results are in memory and logged.

    Mend that, then call backup() again; the next automatic one and close() try it too.
    """


class FileChangedError(TodoError, OSError):
    """{path} was changed by another program since it was read, and is not overwritten. {remedy}."""


#: What is to be done about a FileChangedError while the manager is open.
CLOSING_SAVES = "Closing the manager saves all under another name"


class NotATodoFileError(TodoError, ValueError):
    """{path} is not a TODO-file: {found}. It was not changed.

    A TODO-file is a SQLite database with the tables of the TASOC pipeline, of any release since 3.0; one is made from
    target lists with `photometry-tasks init`, and so is a list on a server.
    """


class DamagedFileError(TodoError, OSError):
    """{path} is damaged: {found}.

    Take an undamaged copy of it, or save what can be read with `sqlite3 {quoted} .recover | sqlite3 rescued.sqlite`.
    """


class InterruptedWriteError(TodoError, OSError):
    """{path} was being written when its writer was killed, and is only read here.

    Opening it for work takes back what was left undone: `photometry-tasks upgrade {quoted}`.
    """


class NotWritableError(TodoError, PermissionError):
    """{path} cannot be opened for writing ({found}). Check the permissions of the file and of its directory."""


class UnknownRevisionError(TodoError, RuntimeError):
    """{path} has the schema revision {found}; this release of photometry_tasks ({release}) knows {known}.

    It comes from a newer release: `pip install --upgrade photometry_tasks`. It was not changed.
    """


class OutdatedSchemaError(TodoError, RuntimeError):
    """{path} has an older schema (among others, {change}), and was not changed.

    To upgrade it: `photometry-tasks upgrade {quoted}`. With `--check` that says what would be changed.
    """


class CannotUpgradeError(TodoError, ValueError):
    """{path} cannot be upgraded: {problem}. {remedy} It was not changed."""


class CopyError(TodoError, ValueError):
    """{source} cannot be copied to {target}: {problem}. Nothing was copied; mend that in the source, then try again."""


class RowRefusedError(TodoError, ValueError):
    """{path} refuses a row of {table}: {found}. Nothing was added; correct the row, then try again."""


class UnsavedResultsError(TodoError, RuntimeError):
    """{path} lacks results of a killed manager, which are in {log}. Nothing was copied.

    To take them in: `photometry-tasks upgrade {quoted}`. Then try again.
    """


class UnknownTaskError(TodoError, LookupError):
    """There is no task with priority {priority} in this TODO-list."""


class TaskFinishedError(TodoError, ValueError):
    """Task {priority} is finished (status {status}) and cannot be started.

    Save a new result without starting it, or open the file with `overwrite=True` to begin anew.
    """


class TaskOwnedError(TodoError, ValueError):
    """Task {priority} is being run by worker {worker} ({host}, process {pid}), and cannot be started here.

    Get another one. It comes back by itself if that worker gives no sign of life for {lease:g} s.
    """


class TodoListNotFoundError(TodoError, LookupError):
    """There is no TODO-list at {path}.

    Make one with `photometry-tasks init URL LIST.csv`, or copy one there with `photometry-tasks copy todo.sqlite URL`.
    """


class ListInUseError(TodoError, BlockingIOError):
    """{path} is being worked on by {found}. Stop them, then try again."""


class UnsupportedOnServerError(TodoError, AttributeError):
    """`{name}` is of TODO-files only, and {path} is on a server. Use `session`."""


class ServerError(TodoError, OSError):
    """The server of {path} refuses: {found}. What was being done is undone; mend that, then call again."""


class ServerUnreachableError(TodoError, ConnectionError):
    """The server of {path} could not be reached, or could not do it, for {seconds:.0f} s ({found}).

    Call again when it is back: what may have been done is not done twice.
    """


class DriverMissingError(TodoError, ImportError):
    """A list on a server needs psycopg ({found}): pip install 'photometry_tasks[postgresql]'."""


class UncommittedChangesError(TodoError, RuntimeError):
    """There are uncommitted changes on `conn`, `cursor` or `session`, which the manager shares.

    Commit them or roll them back, then call {method} again.
    """


class UnreadRowsError(TodoError, RuntimeError):
    """Rows of {path} were left unread on `conn`, `cursor` or `session`, and another program has written since.

    Read them to the end, or close that cursor, then call again.
    """


class ClosedError(TodoError, RuntimeError):
    """The manager of {path} is closed. Open the file again with TaskManager({path!r})."""


class WrongThreadError(TodoError, RuntimeError):
    """The manager of {path} belongs to another thread or process. Let the one that opened it make the calls."""


class WorkerError(TodoError, ChildProcessError):
    """The workers cannot run the function: {found}."""


class WorkerDiedError(TodoError, ChildProcessError):
    """The task was not finished: {found}."""

    def __init__(self, message: str | None = None, /, *, elapsed: float = 0.0, **found: object) -> None:
        super().__init__(message, **found)
        #: Seconds that it had run.
        self.elapsed = elapsed


class TooManyWorkerDeathsError(TodoError, ChildProcessError):
    """{number} tasks were not finished, one after the other, and none besides. The last: {found}.

    What was done is saved, these as ERROR. Mend that, or give each worker more room with fewer `jobs`, then run again.
    """
