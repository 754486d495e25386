"""One at a time: the lock beside a TODO-file."""

import errno
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from photometry_tasks.errors import MountWithoutLocksError, TodoFileInUseError
from photometry_tasks.files import os_errors, share_like
from photometry_tasks.mounts import check_locks, find_mount

__all__ = ["TodoLock", "find_holder"]

#: Seconds that the holder is given to end.
_PATIENCE = 3.0


class TodoLock:
    """The right to change a TODO-file, or to make one, held until it is closed or its holder is dead.

    It is a lock (flock(2)) on a file beside the TODO-file. Those that SQLite takes on the file itself go when any
    other descriptor of it is closed in the process, and do not hold for a file that is put in its place. A child
    process has no part in it.

    Attributes
    ----------
    mount : Mount
        What the TODO-file lies on.

    Raises
    ------
    TodoFileInUseError
        If somebody else has it, and keeps it for three seconds more; it says who.
    MountWithoutLocksError, NotWritableError, DiskFullError
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock, Timeout

        path = path.resolve()
        self.mount = find_mount(path)
        check_locks(path, self.mount)
        self._path = _place(path)
        self._lock = FileLock(
            self._path,
            timeout=_PATIENCE,
            thread_local=False,  # a manager that nobody closed is closed in any thread
            fallback_to_soft=False,
            on_acquired=lambda descriptor: _write_holder(descriptor, path),
        )
        try:
            with os_errors(path):
                self._lock.acquire()
        except Timeout as error:
            raise TodoFileInUseError(path=path, found=_read_holder(self._path)) from error
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise MountWithoutLocksError(path=path, **self.mount._asdict()) from error
            raise

    def close(self) -> None:
        """Let others have it. On a local file system nothing stays beside the TODO-file."""
        if self.mount.is_local and self._lock.is_locked:
            # While it is held: who waits sees that this file has lost its name, and makes another. Other nodes
            # might see that too late.
            with suppress(OSError):
                self._path.unlink()
        self._lock.release()


def _write_holder(descriptor: int, path: Path) -> None:
    share_like(descriptor, path)
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    with suppress(OSError):  # on a full disk it is held all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)


def find_holder(path: Path) -> str | None:
    """Say who works on a TODO-file; None if nobody does. Nothing is locked or written for that."""
    import fcntl

    place = _place(path.resolve())
    try:
        with place.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # until it is closed here
    except BlockingIOError:
        return _read_holder(place)
    except OSError:
        return None
    return None


def _place(path: Path) -> Path:
    return path.with_name(f"{path.name}-lock")


def _read_holder(place: Path) -> str:
    try:
        return place.read_text().strip() or "unknown"
    except OSError:
        return "unknown"
