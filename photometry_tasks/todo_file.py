"""The SQLite file as a file: finding it, and replacing it as a whole."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from photometry_tasks.errors import LeftoverLogError, TodoFileInUseError, TodoFileNotFoundError

__all__ = ["check_unused", "find_leftovers", "find_todo_file", "locate_todo_file", "replace_file"]

#: How the names of our temporary files begin.
_TEMPORARY = ".photometry_tasks-"


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
    logs = [path.with_name(path.name + suffix) for suffix in ("-journal", "-wal", "-shm")]
    return [log for log in logs if log.exists()] + sorted(path.parent.glob(f"{_TEMPORARY}*.tmp"))


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Replace a file as a whole: whoever looks sees the old one or the new one, complete.

    Parameters
    ----------
    path : Path
        The file; a symlink stays one, and the mode of what it leads to stays too.
    write : callable
        Writes the new content into the file that it is given: an empty one in the same directory.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "This is no regular file, and is not replaced by one", str(path))
    mode = path.stat().st_mode & 0o7777 if path.exists() else None
    temporary = path.with_name(f"{_TEMPORARY}{os.urandom(8).hex()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    try:
        write(temporary)
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make the new name survive a power cut too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
