"""One family of errors. Each docstring is the message and its remedy, filled in with what was found.

Every error is also the builtin that a caller would expect, so that either family can be caught.
"""

__all__ = [
    "ClosedError",
    "InvalidArgumentError",
    "InvalidResultError",
    "InvalidTargetError",
    "NotATodoFileError",
    "OutdatedSchemaError",
    "TaskFinishedError",
    "TodoError",
    "TodoFileNotFoundError",
    "UncommittedChangesError",
    "UnknownTaskError",
    "WrongThreadError",
]


class TodoError(Exception):
    """Something is wrong with the TODO-list."""

    def __init__(self, message: str | None = None, /, **found: object) -> None:
        # A message that is given is one that was filled in before: errors cross processes by pickle.
        template = " ".join((type(self).__doc__ or "").split())
        super().__init__(template.format(**found) if message is None else message)


class InvalidArgumentError(TodoError, ValueError):
    """{argument}={value}: {remedy}."""


class InvalidResultError(TodoError, ValueError):
    """Result of task {priority}: {field}={value}: {remedy}. Nothing was saved."""


class InvalidTargetError(TodoError, ValueError):
    """{where}: {problem}. Nothing was added."""


class TodoFileNotFoundError(TodoError, FileNotFoundError):
    """There is no TODO-file at {path}. Make one with `photometry-tasks init {path} LIST.csv`."""


class NotATodoFileError(TodoError, ValueError):
    """{path} is not a TODO-file: {found}. It was not changed."""


class OutdatedSchemaError(TodoError, RuntimeError):
    """{path} has the schema of an older release ({lacks}), which this release cannot upgrade. It was not changed."""


class UnknownTaskError(TodoError, LookupError):
    """There is no task with priority {priority} in this TODO-list."""


class TaskFinishedError(TodoError, ValueError):
    """Task {priority} is finished (status {status}) and cannot be started.

    Save a new result without starting it, or open the file with `overwrite=True` to begin anew.
    """


class UncommittedChangesError(TodoError, RuntimeError):
    """There are uncommitted changes on `conn`, `cursor` or `session`, which the manager shares.

    Commit them or roll them back, then call {method} again.
    """


class ClosedError(TodoError, RuntimeError):
    """The manager of {path} is closed. Open the file again with TaskManager({path!r})."""


class WrongThreadError(TodoError, RuntimeError):
    """The manager of {path} belongs to another thread or process. Let the one that opened it make the calls."""
