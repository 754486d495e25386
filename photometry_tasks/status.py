"""The states of a task."""

import enum

__all__ = ["FINISHED", "MEASURED", "RESET_AT_OPENING", "STATUS"]


class STATUS(enum.Enum):
    """What became of a task; a pending task has none (NULL in the database).

    The values are those of the TASOC pipeline. UNKNOWN is the result of a pipeline that could not tell: it
    is not pending.
    """

    UNKNOWN = 0
    OK = 1
    ERROR = 2
    WARNING = 3
    ABORT = 4
    SKIPPED = 5
    STARTED = 6


#: A task with one of these is not run again in a run.
FINISHED = (STATUS.OK, STATUS.WARNING, STATUS.ERROR, STATUS.ABORT, STATUS.SKIPPED)

#: A task with one of these has a result; one that is SKIPPED or ABORT may have none.
MEASURED = (STATUS.OK, STATUS.WARNING, STATUS.ERROR)

#: Opening a TODO-list returns these tasks to pending: they were interrupted, or they failed.
RESET_AT_OPENING = (STATUS.STARTED, STATUS.ABORT, STATUS.ERROR)
