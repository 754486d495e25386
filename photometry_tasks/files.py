"""Files of any kind: replacing one as a whole, what its writer may leave behind, and what the system's errors mean."""

import errno
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from photometry_tasks.errors import DiskFullError, NotWritableError, TodoError

_logger = logging.getLogger("photometry_tasks")


def check_writable(path: Path) -> None:
    """Check that a file, there or not, and its directory may be written: all that changes it needs both.

    Raises
    ------
    NotWritableError
    """
    _check_regular(path)
    path = path.resolve()
    folder = next(folder for folder in path.parents if folder.exists())  # the first that is there, the others are made
    for place, access in ((path, os.W_OK), (folder, os.W_OK | os.X_OK)):
        if place.exists() and not os.access(place, access, effective_ids=os.access in os.supports_effective_ids):
            raise NotWritableError(path=path, found=f"{place} is read-only")


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Say what can be done about a file that cannot be written."""
    try:
        yield
    except TodoError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(path=path, found=error) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ELOOP, errno.ENXIO):
            raise NotWritableError(path=path, found=error) from error
        raise


# --- replacing -------------------------------------------------------------------------------------------


def replace_file(
    path: Path,
    write: Callable[[Path], None],
    check: Callable[[Path], None] = lambda _temporary: None,
    like: Path | None = None,
    owner: Path | None = None,
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
    like : Path, optional
        Whose mode and owner the file gets; by default its own.
    owner : Path, optional
        The file whose next opening clears what is left if the writer is killed; by default the file itself.
    """
    _check_regular(path)
    like = path if like is None else like
    is_kept = like.exists() and not like.is_symlink()
    temporary = path.with_name(f"{_prefix(owner or path)}{os.urandom(8).hex()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 if is_kept else 0o666)
    try:
        write(temporary)
        if is_kept:
            _take_over(like, temporary)
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
        raise NotWritableError(path=path, found="it is no regular file, and is not replaced by one")


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
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:  # one that may be written, but not read, cannot be synced
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_temporaries(folder: Path, owner: Path) -> None:
    """Delete what was to come into a folder, and was left when the writer was killed; nobody may be writing now."""
    for temporary in find_temporaries(folder, owner):
        temporary.unlink(missing_ok=True)


def find_temporaries(folder: Path, owner: Path) -> list[Path]:
    """Return what was to come into a folder under another name, and has not."""
    return sorted(folder.glob(f"{_prefix(owner)}*"))


def _prefix(path: Path) -> str:
    """How the names of its temporary files begin: of our kind, and of this file, whatever characters it has."""
    return f".photometry_tasks-{zlib.crc32(os.fsencode(path.resolve())):08x}-"


def identify(path: Path) -> tuple[int, int]:
    """Return what tells a file from another that takes its place; zeros if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - half as long as Path.stat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino
