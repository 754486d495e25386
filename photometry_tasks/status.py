"""The statuses of a task."""

import enum
from collections.abc import Mapping

__all__ = [
    "COVERS_NONE",
    "FAILED",
    "FINISHED",
    "GIVEN_UP",
    "LOST",
    "MEASURED",
    "NOT_GIVEN",
    "RELEASED",
    "RESET_AT_OPENING",
    "RETRIES",
    "STATUS",
    "name_counts",
    "name_status",
]


class STATUS(enum.Enum):
    """The status of a task; a pending task has none (NULL in the database).

    The values are those of the TASOC pipeline. A task is UNKNOWN if the pipeline could not determine its status;
    it is not pending.
    """

    UNKNOWN = 0
    OK = 1
    ERROR = 2
    WARNING = 3
    ABORT = 4
    SKIPPED = 5
    STARTED = 6


#: An attempt with one of these outcomes is a failure.
FAILED = (STATUS.ERROR, STATUS.ABORT)

#: How an attempt without a result ended. LOST is also the kind of a failure: the worker can no longer be reached.
LOST, RELEASED, GIVEN_UP = "lost", "released", "given up"

#: The word for the kind of a failure that the pipeline did not give.
NOT_GIVEN = "not given"

#: Failures of a task that a run retries, unless it is told otherwise.
RETRIES = 2

#: A run does not run a task with one of these statuses again.
FINISHED = (STATUS.OK, STATUS.WARNING, STATUS.ERROR, STATUS.ABORT, STATUS.SKIPPED)

#: A task with one of these statuses has a result; a SKIPPED or ABORT task may have none.
MEASURED = (STATUS.OK, STATUS.WARNING, STATUS.ERROR)

#: A result with one of these statuses covers no other task: its star was not measured.
COVERS_NONE = (STATUS.ERROR, STATUS.ABORT, STATUS.SKIPPED)

#: Opening a TODO-list returns tasks with these statuses to pending: they were interrupted or failed.
RESET_AT_OPENING = (STATUS.STARTED, STATUS.ABORT, STATUS.ERROR)

_NAMES: dict[int | None, str] = {None: "PENDING", **{status.value: status.name for status in STATUS}}


def name_status(status: int | None) -> str:
    """Return the name of a status; a number outside STATUS, which another program wrote, is UNKNOWN."""
    return _NAMES.get(status, STATUS.UNKNOWN.name)


def name_counts(counts: Mapping[int | None, int]) -> dict[str, int]:
    """Return counts by the name of the status: every name is a key, and pending is PENDING."""
    named = dict.fromkeys(_NAMES.values(), 0)
    for status, number in counts.items():
        named[name_status(status)] += number
    return named
