"""The SQLite file as a file: finding it, replacing it as a whole, and what a killed program left beside it."""

import errno
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from photometry_tasks.errors import (
    DiskFullError,
    LeftoverLogError,
    NotWritableError,
    TodoFileInUseError,
    TodoFileNotFoundError,
)

__all__ = [
    "check_unused",
    "check_writable",
    "clear_temporaries",
    "explained",
    "find_leftovers",
    "find_todo_file",
    "locate_todo_file",
    "replace_file",
    "share_like",
    "sync_directory",
]

_logger = logging.getLogger("photometry_tasks")


def locate_todo_file(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a TODO-file, there or not; a directory stands for the `todo.sqlite` in it."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve() would follow a symlink
    return absolute / "todo.sqlite" if absolute.is_dir() else absolute


def find_todo_file(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a TODO-file that is there; otherwise as `locate_todo_file`.

    Raises
    ------
    TodoFileNotFoundError
    """
    absolute = locate_todo_file(path)
    if not absolute.is_file():
        raise TodoFileNotFoundError(path=absolute)
    return absolute


def check_writable(path: Path) -> None:
    """Check that a file, there or not, and its directory may be written: all that changes it needs both.

    Raises
    ------
    NotWritableError, FileExistsError
    """
    _check_regular(path)
    path = path.resolve()
    for place, access in ((path, os.W_OK), (path.parent, os.W_OK | os.X_OK)):
        if place.exists() and not os.access(place, access, effective_ids=os.access in os.supports_effective_ids):
            raise NotWritableError(path=path, found=f"{place} is read-only")


def check_unused(path: Path) -> None:
    """Check that no log lies beside a file: it would be laid over whatever is put in the file's place.

    Raises
    ------
    TodoFileInUseError, LeftoverLogError
    """
    path = path.resolve()
    for suffix in ("-wal", "-journal"):
        log = path.with_name(path.name + suffix)
        if log.exists() and not path.exists():
            raise LeftoverLogError(log=log)
        if log.exists():
            raise TodoFileInUseError(path=path, found=f"{log.name} lies beside it")


def find_leftovers(path: Path) -> list[Path]:
    """Return what lies beside a file while it is written, and should be gone afterwards."""
    path = path.resolve()
    logs = [path.with_name(path.name + suffix) for suffix in ("-journal", "-wal", "-shm", "-results")]
    return [log for log in logs if log.exists()] + _find_temporaries(path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what can be done about a file that cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(path=path, found=error) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NotWritableError(path=path, found=error) from error
        raise


# --- replacing -------------------------------------------------------------------------------------------


def replace_file(
    path: Path, write: Callable[[Path], None], check: Callable[[Path], None] = lambda _temporary: None
) -> None:
    """Replace a file as a whole: whoever looks sees the old one or the new one, complete.

    Parameters
    ----------
    path : Path
        The file, which keeps its mode, extended attributes and, where the system lets us, its owner and group; a
        symlink is replaced itself.
    write : callable
        Writes the new content into the file that it is given: an empty one in the same directory.
    check : callable, optional
        Called with that file when it is ready; what it raises keeps the old one.
    """
    _check_regular(path)
    is_kept = path.exists() and not path.is_symlink()
    temporary = path.with_name(f"{_prefix(path)}{os.urandom(8).hex()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 if is_kept else 0o666)
    try:
        write(temporary)
        if is_kept:
            _take_over(path, temporary)
        os.fsync(descriptor)
        check(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "This is no regular file, and is not replaced by one", str(path))


def _take_over(path: Path, temporary: Path) -> None:
    """Give a file the owner, the mode and the access rules of the one whose place it takes."""
    old, new = path.stat(), temporary.stat()
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.chown(temporary, old.st_uid, old.st_gid)
        except OSError:
            with suppress(OSError):
                os.chown(temporary, -1, old.st_gid)
            _logger.warning("%s: the system does not let us keep its owner or group", path)
    shutil.copystat(path, temporary)  # the last: another owner takes some bits of the mode
    os.utime(temporary)


def share_like(descriptor: int, path: Path) -> None:
    """Let those who may write a file write what lies beside it too, whatever the umask: one may have to go on."""
    if path.exists():
        status = path.stat()
        with suppress(OSError):  # it is another user's, who has done it
            os.fchmod(descriptor, status.st_mode & 0o666)
            os.fchown(descriptor, -1, status.st_gid)


def sync_directory(directory: Path) -> None:
    """Make a new name survive a power cut too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_temporaries(path: Path) -> None:
    """Delete what was to replace a file, and was left when its writer was killed; nobody may be writing it now."""
    for temporary in _find_temporaries(path):
        temporary.unlink(missing_ok=True)


def _find_temporaries(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{_prefix(path)}*"))


def _prefix(path: Path) -> str:
    """How the names of its temporary files begin: of our kind, and of this file, whatever characters it has."""
    return f".photometry_tasks-{zlib.crc32(os.fsencode(path.name)):08x}-"
