"""The paths of a TODO-file and of the files that belong to it."""

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from photometry_tasks.errors import (
    ForeignFileError,
    LeftoverLogError,
    PathTooLongError,
    TodoFileInUseError,
    TodoFileNotFoundError,
)
from photometry_tasks.files import build_prefix, get_mode, get_stat, identify, is_abandoned, os_errors, resolve
from photometry_tasks.rules.validation import invalid_argument
from photometry_tasks.storage.sqlite.lock import find_holder

#: The beginning of a URL; as a Path it has lost a slash.
_URL = re.compile(r"(.*\bpassword=)|\s*([A-Za-z][\w+.-]+://|(postgres|mysql|mariadb|oracle|mssql|sqlite)[\w+.-]*:/)")

#: Bytes of a path: SQLite's limit, https://sqlite.org/c3ref/vfs.html (mxPathname), without the suffix of its journal.
_LONGEST = 504

#: Bytes of the name of a temporary file, at most.
_TEMPORARY = 60

#: The suffixes of the files that belong to a TODO-file while a program works on it.
_BESIDE = ("-journal", "-wal", "-shm", "-results", "-status")


def locate_todo_file(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a TODO-file, which need not exist; a directory stands for the `todo.sqlite` in it.

    Raises
    ------
    InvalidArgumentError
        If the path is a URL. The error does not show the URL, which may hold a password.
    """
    if _URL.match(os.fsdecode(path)):
        raise invalid_argument("todo_file", "…", "this is not a path; give a path, or a postgresql+psycopg:// URL")
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve() would follow a symlink
    return absolute / "todo.sqlite" if stat.S_ISDIR(get_mode(absolute)) else absolute


def find_todo_file(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of an existing TODO-file; otherwise as `locate_todo_file`.

    Raises
    ------
    TodoFileNotFoundError
    """
    absolute = locate_todo_file(path)
    if not stat.S_ISREG(get_mode(absolute)):
        raise TodoFileNotFoundError(path=absolute)
    return absolute


def check_length(path: Path, *, has_temporaries: bool = False) -> None:
    """Check that a path is not too long for SQLite, which does not report this reason.

    Parameters
    ----------
    path : Path
    has_temporaries : bool, optional
        Whether SQLite also opens temporary files in the same directory.

    Raises
    ------
    PathTooLongError
    """
    path = resolve(path)
    name = max(len(os.fsencode(path.name)), _TEMPORARY if has_temporaries else 0)
    length = len(os.fsencode(path.parent)) + 1 + name
    if length > _LONGEST:
        raise PathTooLongError(path=path, found=f"SQLite opens at most {_LONGEST} bytes, and it needs {length}")


def check_no_leftover_log(path: Path) -> None:
    """Check that a file has no write-ahead log or journal: SQLite would apply it to a file that replaces this one.

    Raises
    ------
    TodoFileInUseError, LeftoverLogError
    """
    path = resolve(path)
    for suffix in ("-wal", "-journal"):
        log = path.with_name(path.name + suffix)
        if get_stat(log):
            if get_stat(path) is None:
                raise LeftoverLogError(log=log)
            raise TodoFileInUseError(path=path, found=f"{log.name} exists")


@contextmanager
def owner_errors(path: Path) -> Iterator[None]:
    """Open a TODO-file; name the owner of a file next to it that this user must not use, or cannot use.

    In a shared directory any user can put a file there: SQLite and the next opening would take it for ours.

    Raises
    ------
    ForeignFileError
    """
    path = resolve(path)
    found = get_stat(path)
    if found is not None and not found.st_mode & 0o022:  # no other user works on the TODO-file
        _check_owners(path, _BESIDE, {0, os.geteuid(), found.st_uid})
    try:
        yield
    except PermissionError:
        _check_owners(path, ("-lock", *_BESIDE), {os.geteuid()})
        raise


def _check_owners(path: Path, suffixes: Iterable[str], trusted: Collection[int]) -> None:
    import pwd

    for suffix in suffixes:
        with os_errors(path), suppress(FileNotFoundError):
            user = os.lstat(f"{path}{suffix}").st_uid
            if user not in trusted:
                names = [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == user]
                raise ForeignFileError(path=path, file=f"{path.name}{suffix}", owner=names[0] if names else user)


def find_leftovers(path: Path) -> list[Path]:
    """Return the files that a TODO-file has while a program writes it, and that should not remain."""
    path = resolve(path)
    logs = [path.with_name(path.name + suffix) for suffix in _BESIDE]
    return [log for log in logs if get_stat(log)] + find_temporaries(path)


def find_temporaries(path: Path) -> list[Path]:
    """Return the temporary files next to a TODO-file, also of outputs, that no other program is writing.

    A killed manager may have written them for a TODO-file that was renamed since: only a list that is locked has a
    writer.
    """
    path = resolve(path)
    with os_errors(path):
        outputs = filter(is_abandoned, path.parent.glob(".photometry_tasks-output-*.tmp"))
        found = sorted([*path.parent.glob(".photometry_tasks-[0-9a-f]*.tmp"), *outputs])
        locks = [lock.name.removesuffix("-lock") for lock in path.parent.glob("*-lock")] if found else []
    others = [path.with_name(name) for name in locks if name not in ("", path.name)]
    written = tuple(build_prefix(other) for other in others if find_holder(other) is not None)
    return [temporary for temporary in found if not temporary.name.startswith(written)]


def check_summary_place(summary: Path, todo_file: Path) -> None:
    """Check that a summary does not overwrite a TODO-file or a file that belongs to it.

    Raises
    ------
    InvalidArgumentError
    """
    if summary.is_symlink():
        return  # the symlink itself is replaced
    if is_todo_file_or_beside(summary, todo_file):
        raise invalid_argument("summary", str(summary), "this is the TODO-file or belongs to it; give another path")


def is_todo_file_or_beside(path: Path, todo_file: Path) -> bool:
    """Whether a path leads to a TODO-file or to a file that belongs to it."""
    todo_file = resolve(todo_file)
    return resolve(path) in {todo_file.with_name(todo_file.name + suffix) for suffix in ("", "-lock", *_BESIDE)}


class FileIdentity:
    """The identity of an open file and of its write-ahead log, to find out whether either was replaced or deleted."""

    def __init__(self, path: Path) -> None:
        self._path = resolve(path)
        self._log = self._path.with_name(f"{self._path.name}-wal")
        self._found = identify(self._path)
        self._found_log = (0, 0)

    def is_in_place(self) -> bool:
        """Whether neither the file nor the log was replaced or deleted.

        If this process closes any descriptor of the file, SQLite's locks are lost. The next reader that closes the file
        then deletes the log (https://sqlite.org/howtocorrupt.html, section 2.2).
        """
        if self._found_log == (0, 0):
            self._found_log = identify(self._log)  # the first change creates it
        return self._found == identify(self._path) and self._found_log in ((0, 0), identify(self._log))

    def remove_log(self) -> None:
        """Delete the log if the file was replaced or deleted: SQLite would leave it to the file that took its place."""
        if self._found != identify(self._path) and identify(self._log) == self._found_log != (0, 0):
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
