"""What nobody closed is closed when the interpreter exits."""

import atexit
import logging
import weakref
from typing import Protocol

__all__ = ["close_at_exit"]

_logger = logging.getLogger("photometry_tasks")


class _Closable(Protocol):
    def __del__(self) -> None: ...


_open: weakref.WeakSet[_Closable] = weakref.WeakSet()


def close_at_exit(opened: _Closable) -> None:
    """Let what has been opened be collected at exit at the latest; if it is closed by then, that does nothing."""
    _open.add(opened)
    # The last is the first to run: before filelock, which was loaded since, lets go of the locks.
    atexit.unregister(_close)
    atexit.register(_close)


def _close() -> None:
    for opened in list(_open):
        try:
            opened.__del__()
        except ResourceWarning:
            pass  # made an error by -W error; it comes when it has been closed
        except Exception:
            # One that cannot be closed must not keep the others from it.
            _logger.exception("%r was not closed, and could not be", opened)
