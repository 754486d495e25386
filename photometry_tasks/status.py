"""The states of a task."""

import enum

__all__ = ["STATUS"]


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


#: Opening a TODO-file returns these to pending: they were cut short, or went wrong.
RESET_AT_OPENING = (STATUS.STARTED, STATUS.ABORT, STATUS.ERROR)
