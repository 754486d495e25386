"""The SQLite file by its path: where it is, and what lies beside it."""

import os
import re
from pathlib import Path

from photometry_tasks.errors import LeftoverLogError, TodoFileInUseError, TodoFileNotFoundError
from photometry_tasks.files import find_temporaries, identify
from photometry_tasks.rules.validation import invalid_argument

#: What a URL begins with; as a Path it has lost a slash.
_URL = re.compile(r"(.*\bpassword=)|\s*([A-Za-z][\w+.-]+://|(postgres|mysql|mariadb|oracle|mssql|sqlite)[\w+.-]*:/)")

#: What lies beside a file while somebody works on it.
_BESIDE = ("-journal", "-wal", "-shm", "-results", "-status")


def locate_todo_file(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a TODO-file, there or not; a directory stands for the `todo.sqlite` in it.

    Raises
    ------
    InvalidArgumentError
        If it is a URL, of which nothing is shown: it may hold a password.
    """
    if _URL.match(os.fsdecode(path)):
        raise invalid_argument("todo_file", "…", "a path is expected here, no URL")
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


def check_no_leftover_log(path: Path) -> None:
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
    logs = [path.with_name(path.name + suffix) for suffix in _BESIDE]
    return [log for log in logs if log.exists()] + find_temporaries(path.parent, path)


def check_summary_place(summary: Path, todo_file: Path) -> None:
    """Check that a summary takes the place of nothing but a summary.

    Raises
    ------
    InvalidArgumentError
    """
    if summary.is_symlink():
        return  # it is replaced itself
    if is_todo_file_or_beside(summary, todo_file):
        raise invalid_argument("summary", str(summary), "this is the TODO-file, or lies beside it; give another path")
    if summary.is_file():
        with summary.open("rb") as file:
            if file.read(1) not in (b"", b"{"):
                raise invalid_argument(
                    "summary", str(summary), "another file is there, and is not replaced; give another path"
                )


def is_todo_file_or_beside(path: Path, todo_file: Path) -> bool:
    """Whether a path is that of a TODO-file, or of what lies beside it."""
    todo_file = todo_file.resolve()
    return path.resolve() in {todo_file.with_name(todo_file.name + suffix) for suffix in ("", "-lock", *_BESIDE)}


class FileIdentity:
    """Where the file was found that is being worked on with a write-ahead log, to see whether it is still there."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._log = self._path.with_name(f"{self._path.name}-wal")
        self._found = identify(self._path)
        self._found_log = (0, 0)

    def is_in_place(self) -> bool:
        """Whether file and log are still those that were found.

        SQLite's locks are gone once any descriptor of the file was closed in this process; the next reader that closes
        the file then takes the log away (https://sqlite.org/howtocorrupt.html, section 2.2).
        """
        if self._found_log == (0, 0):
            self._found_log = identify(self._log)  # it is made with the first change
        return self._found == identify(self._path) and self._found_log in ((0, 0), identify(self._log))

    def remove_log(self) -> None:
        """Delete the log, if the file is another's by now: SQLite leaves it to that."""
        if self._found != identify(self._path) and identify(self._log) == self._found_log != (0, 0):
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
