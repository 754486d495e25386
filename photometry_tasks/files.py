"""Files of any kind: replace a file as a whole, clear leftover files, translate the system's errors."""

import errno
import fcntl
import logging
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from photometry_tasks.errors import (
    DiskError,
    DiskFullError,
    InvalidArgumentError,
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
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        with os_errors(path):
            raise
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def check_replaceable(argument: str, path: Path, is_ours: Callable[[BinaryIO], bool]) -> None:
    """Check that an output replaces nothing of the user: no file is there, or an empty one, or an earlier output.

    Raises
    ------
    InvalidArgumentError
    """
    file = open_regular(path)
    remedy = None
    if file is None:
        if get_stat(path) is not None:
            remedy = "it is no regular file, and cannot be replaced; give another path"
    else:
        with file:
            if os.fstat(file.fileno()).st_size and not is_ours(file):
                remedy = "it holds something else, and is not replaced; give another path, or `force=True` (`--force`)"
    if remedy is not None:
        raise InvalidArgumentError(argument=argument, value=repr(str(path)), remedy=remedy)


# --- replacing -------------------------------------------------------------------------------------------


def replace_file(
    path: Path,
    write: str | Callable[[Path], object],
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
    write : str or callable
        The new content, or a function that writes it into the given temporary file, which is empty and in the same
        directory.
    check : callable, optional
        Called with the complete temporary file. If it raises, the old file stays.
    like : Path, optional
        The file whose mode and owner the new file gets; by default the old file.
    owner : Path, optional
        The TODO-file, without symlinks, whose lock the caller holds; by default the file belongs to no TODO-file.

    Raises
    ------
    NotWritableError
        If another user has put a file in the place of the temporary file. Its mode and owner stay as they are.
    """
    _check_regular(path)
    like = path if like is None else like
    is_kept = get_stat(like) is not None and not stat.S_ISLNK(like.lstat().st_mode)
    prefix = build_prefix(path, "output-") if owner is None else build_prefix(owner)
    temporary = path.with_name(f"{prefix}{os.urandom(8).hex()}.tmp")
    if owner is None:
        delete_temporaries(filter(is_abandoned, path.parent.glob(f"{prefix}*")))
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 if is_kept else 0o666)
        try:
            with suppress(OSError):  # without locks, a temporary file that a killed writer leaves stays
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if isinstance(write, str):
                with os.fdopen(descriptor, "w", encoding="utf-8", closefd=False) as file:
                    file.write(write)
            else:
                write(temporary)
            if is_kept:
                _take_over(like, descriptor)
            os.fsync(descriptor)
            _check_in_place(temporary, descriptor)
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


def _check_in_place(path: Path, descriptor: int) -> None:
    if not os.path.samestat(path.lstat(), os.fstat(descriptor)):
        raise NotWritableError(path=path, found="another program has replaced it")


def _take_over(path: Path, descriptor: int) -> None:
    """Give an open file the owner, the mode and the access rules of the file that it replaces.

    In a shared directory another user could put a link in the place of its name.
    """
    old, new = path.stat(), os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except OSError:
            with suppress(OSError):
                os.fchown(descriptor, -1, old.st_gid)
            _logger.warning("%s: its owner or group could not be kept; the system does not permit it", path)
    # Last, since changing the owner clears some bits of the mode.
    shutil.copystat(path, descriptor)  # type: ignore[arg-type]  # its functions take a descriptor too
    os.utime(descriptor)


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


def build_prefix(path: Path, kind: str = "") -> str:
    """Return the beginning of the names of a file's temporary files: a checksum, since its name may have any character.

    The directory is left out: it may be renamed, or have several paths.
    """
    return f".photometry_tasks-{kind}{zlib.crc32(os.fsencode(path.name)):08x}-"


def is_abandoned(temporary: Path) -> bool:
    """Whether no writer has a temporary file locked."""
    try:
        with temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def delete_temporaries(temporaries: Iterable[Path]) -> None:
    """Delete the temporary files of killed writers."""
    for temporary in temporaries:
        with suppress(PermissionError):  # another user's file, in a sticky directory
            temporary.unlink(missing_ok=True)


def identify(path: Path) -> tuple[int, int]:
    """Return the device and inode numbers of a file, which change when it is replaced; zeros if it does not exist."""
    status = get_stat(path)
    return (0, 0) if status is None else (status.st_dev, status.st_ino)
