"""Files of any kind: replace a file as a whole, clear leftover files, translate the system's errors."""

import errno
import logging
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from photometry_tasks.errors import (
    DiskError,
    DiskFullError,
    NotWritableError,
    PathTooLongError,
    TodoError,
    TooManyFilesError,
)

_logger = logging.getLogger("photometry_tasks")

#: No permission; or a directory, a loop of symlinks or a pipe in the place of the file.
_NOT_WRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL),
}


def check_writable(path: Path) -> None:
    """Check that a file, if it exists, and its directory are writable: every change needs both.

    Raises
    ------
    NotWritableError
    """
    _check_regular(path)
    path = resolve(path)
    folder = next(folder for folder in path.parents if get_stat(folder))  # missing folders are created later
    for place, access in ((path, os.W_OK), (folder, os.W_OK | os.X_OK)):
        if get_stat(place) and not os.access(place, access, effective_ids=os.access in os.supports_effective_ids):
            raise NotWritableError(path=path, found=f"{place} is read-only")


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn a system error about a file into a TodoError that names the remedy."""
    try:
        yield
    except TodoError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(path=path, found=error) from error
        if error.errno in _NOT_WRITABLE:
            raise NotWritableError(path=path, found=error) from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise TooManyFilesError(path=path, found=error) from error
        if error.errno == errno.ENAMETOOLONG:
            raise PathTooLongError(path=path, found=error) from error
        if error.errno in (errno.EIO, errno.ESTALE):
            raise DiskError(path=path, found=error) from error
        raise


def check_descriptors(path: Path) -> None:
    """Check that this process can open more files, after a file could not be opened for a reason that is not known.

    Raises
    ------
    TooManyFilesError
    """
    descriptors: list[int] = []
    try:
        with os_errors(path):
            for _ in range(4):  # more than a library opens at once
                descriptors.append(os.open("/", os.O_RDONLY))  # not the file: closing it would release SQLite's locks
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


# --- looking ---------------------------------------------------------------------------------------------


def get_stat(path: Path) -> os.stat_result | None:
    """Return the status of a file, or None if it does not exist.

    Any other error is raised as by `os_errors`: `Path.exists`, in some releases of Python, takes a failing disk for a
    missing file.
    """
    try:
        return os.stat(path)  # noqa: PTH116 - takes half the time of Path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no file has a NUL in its name
        return None
    except OSError:
        with os_errors(path):
            raise


def get_mode(path: Path) -> int:
    """Return the type and the permissions of a file, for the module `stat`; 0 if it does not exist."""
    found = get_stat(path)
    return 0 if found is None else found.st_mode


def resolve(path: Path) -> Path:
    """Return a path without symlinks; `Path.resolve` alone takes a symlink that cannot be read for a file."""
    with os_errors(path):
        return path.resolve(strict=get_stat(path) is not None)


def open_regular(path: Path) -> BinaryIO | None:
    """Open a regular file for reading, or return None: a pipe in its place would block, a device would never end."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


# --- replacing -------------------------------------------------------------------------------------------


def replace_file(
    path: Path,
    write: Callable[[Path], object],
    check: Callable[[Path], None] = lambda _temporary: None,
    like: Path | None = None,
    owner: Path | None = None,
) -> None:
    """Replace a file as a whole: every reader sees the complete old file or the complete new file.

    Parameters
    ----------
    path : Path
        The file. It keeps its mode and extended attributes and, if the system permits it, its owner and group. A
        symlink is replaced, not the file that it points to.
    write : callable
        Writes the new content into the given temporary file, which is empty and in the same directory.
    check : callable, optional
        Called with the complete temporary file. If it raises, the old file stays.
    like : Path, optional
        The file whose mode and owner the new file gets; by default the old file.
    owner : Path, optional
        The file whose next opening deletes the temporary file of a killed writer; by default `path`.
    """
    _check_regular(path)
    like = path if like is None else like
    is_kept = get_stat(like) is not None and not stat.S_ISLNK(like.lstat().st_mode)
    temporary = path.with_name(f"{_prefix(owner or path)}{os.urandom(8).hex()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 if is_kept else 0o666)
    try:
        try:
            write(temporary)
            if is_kept:
                _take_over(like, temporary)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # may report a failed write
        check(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # then the next opening deletes it
            temporary.unlink()
        raise
    sync_directory(path.parent)


def _check_regular(path: Path) -> None:
    mode = get_mode(path)
    if mode and not stat.S_ISREG(mode):
        raise NotWritableError(path=path, found="it is not a regular file")


def _take_over(path: Path, temporary: Path) -> None:
    """Give the temporary file the owner, the mode and the access rules of the file that it replaces."""
    old, new = path.stat(), temporary.stat()
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.chown(temporary, old.st_uid, old.st_gid)
        except OSError:
            with suppress(OSError):
                os.chown(temporary, -1, old.st_gid)
            _logger.warning("%s: its owner or group could not be kept; the system does not permit it", path)
    shutil.copystat(path, temporary)  # last, since changing the owner clears some bits of the mode
    os.utime(temporary)


def share_like(descriptor: int, path: Path) -> None:
    """Give an open file the write permissions and the group of `path`, whatever the umask: another user may need it."""
    status = get_stat(path)
    if status is not None:
        with suppress(OSError):  # the file belongs to another user, whose manager has set the mode
            os.fchmod(descriptor, status.st_mode & 0o666)
            os.fchown(descriptor, -1, status.st_gid)


def sync_directory(directory: Path) -> None:
    """Write a directory to disk, so that a new name in it survives a power cut."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:  # a directory without read permission cannot be synced
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_temporaries(folder: Path, owner: Path) -> None:
    """Delete the temporary files of killed writers in a folder; no writer of `owner` may be running."""
    for temporary in find_temporaries(folder, owner):
        temporary.unlink(missing_ok=True)


def find_temporaries(folder: Path, owner: Path) -> list[Path]:
    """Return the temporary files of `owner` in a folder."""
    with os_errors(owner):
        return sorted(folder.glob(f"{_prefix(owner)}*"))


def _prefix(path: Path) -> str:
    """Return the prefix of a file's temporary files: a checksum, since the path may have any characters."""
    return f".photometry_tasks-{zlib.crc32(os.fsencode(resolve(path))):08x}-"


def identify(path: Path) -> tuple[int, int]:
    """Return the device and inode numbers of a file, which change when it is replaced; zeros if it does not exist."""
    status = get_stat(path)
    return (0, 0) if status is None else (status.st_dev, status.st_ino)
