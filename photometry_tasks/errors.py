"""The errors. Each docstring is the message: which argument or file, its fault, and the remedy.

Values take the place of names in braces. Every error is also the builtin that a caller expects, so that either family
can be caught.
"""

import errno as _errno
from collections.abc import Iterable


class TodoError(Exception):
    """A TODO-list cannot be used."""

    def __init__(self, message: str | None = None, /, **found: object) -> None:
        # Errors cross processes by pickle, which gives the complete message.
        # With -OO Python drops docstrings; the values then stand alone.
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
    """Result of task {priority}: {found}. Nothing was saved."""

    def __init__(self, message: str | None = None, /, *, faults: Iterable[str] = (), **found: object) -> None:
        #: All that is wrong with the result: each field with its value, and what is expected.
        self.faults = list(faults)
        super().__init__(message, found="; ".join(self.faults), **found)


class InvalidTargetError(TodoError, ValueError):
    """{where}: {problem}. No target was added. Correct it, then try again."""


class TargetListNotFoundError(TodoError, FileNotFoundError):
    """No such file or directory: {path!r}. Check the name of the target list, then try again."""


class TodoFileNotFoundError(TodoError, FileNotFoundError):
    """{path} does not exist. Create a TODO-file with `photometry-tasks init {quoted} LIST.csv`."""


class TodoFileInUseError(TodoError, BlockingIOError):
    """{path} is in use by another manager or program ({found}). Close it there, then try again."""


class LeftoverLogError(TodoError, FileExistsError):
    """{log} belongs to a TODO-file that was deleted. Delete it too, then try again."""


class MountWithoutLocksError(TodoError, OSError):
    """{path} is on the mount {point} ({kind}, options {options}), whose locks do not reach other nodes.

    Two managers could overwrite each other's results. Mount it with locks, or move the file to another file system.
    """


class DiskError(TodoError, OSError):
    """{path} cannot be read or written ({found}).

    The call was rolled back. Call again; if it fails again, repair the disk.
    """

    errno = _errno.EIO


class DiskFullError(DiskError):
    """{path} cannot be written ({found}): the disk is full, or a quota or a limit on file sizes is reached.

    Nothing was changed. Free some space, then call again. For a TODO-file, SQLite needs space in SQLITE_TMPDIR, TMPDIR
    or /var/tmp too.
    """

    errno = _errno.ENOSPC


class SQLiteError(TodoError, OSError):
    """{path}: SQLite refuses the call: {found}. The call was rolled back. Remove the cause, then call again."""


class BackupError(TodoError, OSError):
    """{path}: the backup failed ({found}). The results are safe in memory and in the log.

    Remove the cause, then call backup() again; the next automatic backup and close() try it too.
    """


class FileChangedError(TodoError, OSError):
    """{path} was changed by another program after it was opened, and is not overwritten. {remedy}."""


#: The remedy of a FileChangedError while the manager is open.
CLOSING_SAVES = "Close the manager: it saves everything under another name"


class NotATodoFileError(TodoError, ValueError):
    """{path} is not a TODO-file: {found}. It was not changed.

    A TODO-file is a SQLite database with the tables of the TASOC pipeline, of any release since 3.0. To create a file
    or a list on a server from target lists, run `photometry-tasks init`.
    """


class DamagedFileError(TodoError, OSError):
    """{path} is damaged: {found}.

    Use an undamaged copy, or rescue the readable rows with `sqlite3 {quoted} .recover | sqlite3 rescued.sqlite`.
    """


class InterruptedWriteError(TodoError, OSError):
    """{path} has the journal of a killed writer, and this command only reads.

    Roll the interrupted write back with `photometry-tasks upgrade {quoted}`, then try again.
    """


class NotWritableError(TodoError, PermissionError):
    """{path} cannot be opened ({found}). Check the permissions of the file and of its directory."""


class ForeignFileError(TodoError, PermissionError):
    """{path} cannot be opened: {file} in its directory belongs to the user {owner}.

    Ask {owner} to run `photometry-tasks upgrade {quoted}` if {file} belongs to this TODO-file, and otherwise to delete
    it; or move the TODO-file to a directory of your own.
    """


class TooManyFilesError(TodoError, OSError):
    """{path} cannot be opened ({found}). Close some files, or raise the limit (`ulimit -n`), then try again."""

    errno = _errno.EMFILE


class PathTooLongError(TodoError, OSError):
    """{path} is too long ({found}). Use a shorter path, then try again."""

    errno = _errno.ENAMETOOLONG


class UnknownRevisionError(TodoError, RuntimeError):
    """{path} has the schema revision {found}; this release of photometry_tasks ({release}) knows {known}.

    A newer release wrote it. Install that with `pip install --upgrade photometry_tasks`. The list was not changed.
    """


class OutdatedSchemaError(TodoError, RuntimeError):
    """{path} has an older schema (among others: {change}). It was not changed.

    Upgrade it with `photometry-tasks upgrade {quoted}`; with `--check` the command only lists the changes.
    """


class OtherVersionError(TodoError, RuntimeError):
    """{path} holds results of other versions of the pipeline than {version!r}: {found}.

    Leave `only_version` (--only-version) out to mix versions, or first reset these results with
    `photometry-tasks reset {quoted} --not-made-by {quoted_version}`. The list was not changed.
    """


class CannotUpgradeError(TodoError, ValueError):
    """{path} cannot be upgraded: {problem}. {remedy} It was not changed."""


class CopyError(TodoError, ValueError):
    """{source} cannot be copied to {target}: {problem}. Nothing was written. Correct the source, then try again."""


class UnreadableValueError(TodoError, ValueError):
    """{path}: {found}. Correct this value, then try again; `photometry-tasks check {quoted}` lists all such values."""


class ValuesChangedError(TodoError, RuntimeError):
    """{path}: {found}: a run saved it meanwhile. Nothing was written. Call again."""


class ReadOnlyError(TodoError, PermissionError):
    """{path} is open for reading, and {found} would change it. Open it with TaskManager({path!r}) to change it."""


class RowRefusedError(TodoError, ValueError):
    """{path} refuses a row of {table}: {found}. No row was added. Correct the row, then try again."""


class UnsavedResultsError(TodoError, RuntimeError):
    """{path} lacks results that a killed manager logged in {log}, and they cannot be read from there ({found}).

    Save the readable results with `photometry-tasks upgrade {quoted}`, which keeps the log, then try again.
    """


class CannotUndoError(TodoError, RuntimeError):
    """{path}: the last reset cannot be undone: {found}. Nothing was changed.

    To get results again, run the pending tasks.
    """


class UnknownTaskError(TodoError, LookupError):
    """Task {priority} does not exist in this TODO-list. Use a priority that `get_task` returned."""


class TaskFinishedError(TodoError, ValueError):
    """Task {priority} is finished (status {status}) and cannot be started.

    Save a new result without starting it, or return it to pending with `reset_tasks(priority={priority})`.
    """


class TaskCoveredError(TaskFinishedError):
    """Task {priority} is SKIPPED, because task {cover} covers its star, and cannot be started.

    Get another task with `get_task`. To measure this one, reset task {cover}: `reset_tasks(priority={cover})`.
    """


class TaskOwnedError(TodoError, ValueError):
    """Task {priority} is running on worker {worker} ({host}, process {pid}) and cannot be started here.

    Get another task. This one comes back by itself if that worker sends no heartbeat for {lease:g} s.
    """


class TodoListNotFoundError(TodoError, LookupError):
    """{path} has no TODO-list.

    Create a list with `photometry-tasks init URL LIST.csv`, or copy one with `photometry-tasks copy todo.sqlite URL`.
    """


class ListInUseError(TodoError, BlockingIOError):
    """{path} is in use by {found}. Stop these managers, then try again."""


class UnsupportedOnServerError(TodoError, AttributeError):
    """`{name}` exists for TODO-files only, and {path} is on a server. Use `session`."""


class ServerError(TodoError, OSError):
    """{path}: the server refuses the call: {found}. The call was rolled back. Remove the cause, then call again."""


class ServerUnreachableError(TodoError, ConnectionError):
    """{path}: the server did not do the call within {seconds:.0f} s ({found}).

    Call again when the server is back: a call that it did after all is not done twice.
    """


class DriverMissingError(TodoError, ImportError):
    """psycopg, the driver of PostgreSQL, is missing ({found}). Run: pip install 'photometry_tasks[postgresql]'."""


class LibraryMissingError(TodoError, ImportError):
    """{name} is missing ({found}). Run: pip install 'photometry_tasks[{extra}]'."""


class UncommittedChangesError(TodoError, RuntimeError):
    """{method} found uncommitted changes on `conn`, `cursor` or `session`, which the manager shares. {remedy}."""


class UnreadRowsError(TodoError, RuntimeError):
    """{path}: rows on `conn`, `cursor` or `session` are unread, and another program has written since.

    Read these rows to the end, or close their cursor, then call again.
    """


class ClosedError(TodoError, RuntimeError):
    """The {opener} of {path} is closed. Open it again with {opener}({path!r})."""


class WrongThreadError(TodoError, RuntimeError):
    """The manager of {path} belongs to another thread or process. Make the call from the one that opened it."""


class WorkerError(TodoError, ChildProcessError):
    """The worker processes cannot run the function: {found}."""


class UnguardedScriptError(WorkerError):
    """{path} runs its tasks when it is imported, as each worker does. Move them under `if __name__ == "__main__":`."""


class WorkerDiedError(TodoError, ChildProcessError):
    """The task was not finished: {found}."""

    def __init__(self, message: str | None = None, /, *, kind: str = "", elapsed: float = 0.0, **found: object) -> None:
        super().__init__(message, **found)
        #: Kind of the failure.
        self.kind = kind
        #: Run time of the task, seconds.
        self.elapsed = elapsed


class TooManyErrorsError(TodoError, ChildProcessError):
    """{tasks} in a row failed in the same way on {host} ({kind}). The last, task {priority}, with: {found}.

    All tasks that failed so in a row are pending again; `photometry-tasks errors {quoted} --priority {priority}` shows
    the error. Correct the cause, then run again; with `--max-errors-in-a-row 0` (`max_errors_in_a_row=0`) the run goes
    on regardless.
    """
