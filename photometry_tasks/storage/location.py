"""The location of a TODO-list: the path of a SQLite file, or the URL of a database on a server."""

import errno
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from photometry_tasks.files import check_replaceable, get_mode, identify, os_errors, replace_file, resolve
from photometry_tasks.rules.validation import check_path, invalid_argument
from photometry_tasks.storage.postgresql.url import hide_password
from photometry_tasks.storage.sqlite.paths import (
    find_leftovers,
    find_todo_file,
    is_todo_file_or_beside,
    locate_todo_file,
)

_URL = re.compile(r"(?P<file>sqlite(\+\w+)?:///)|[\w+]+://")


@dataclass(frozen=True)
class Location:
    """The location of a TODO-list.

    Attributes
    ----------
    name : str
        The path as given, or the URL without its password.
    path : Path or None
        The absolute path of the file, which need not exist; None on a server.
    url : str
        The URL with its password; empty for a file.
    """

    name: str
    path: Path | None = None
    url: str = field(default="", repr=False)

    def find_file(self) -> Path | None:
        """Return the path of the file, which exists; None on a server.

        Raises
        ------
        TodoFileNotFoundError
        """
        return None if self.path is None else find_todo_file(self.path)

    def find_leftovers(self) -> list[Path]:
        """Return the files that a TODO-file has only while a program writes it; none on a server."""
        path = self.find_file()
        return [] if path is None else find_leftovers(path)

    def read_published_status(self) -> dict[str, Any] | None:
        """Return the status that a manager published for its file, as `get_status` returns it, or None."""
        from photometry_tasks.storage.sqlite.status_file import read_status_file  # loads SQLAlchemy

        path = self.find_file()
        return None if path is None else read_status_file(path)

    def write_output(
        self,
        output: Path,
        write: str | Callable[[Path], object],
        is_ours: Callable[[BinaryIO], bool],
        *,
        force: bool,
    ) -> None:
        """Write an output file as a whole, through a symlink; of existing files, only its own kind is replaced.

        Parameters
        ----------
        output : Path
        write : str or callable
            The content, or a function that writes it into an empty file; its argument is the path.
        is_ours : callable
            Whether an existing file has the content of an earlier output; an empty file is replaced too.
        force : bool
            Replace any file.

        Raises
        ------
        InvalidArgumentError, FileNotFoundError, NotWritableError, DiskFullError
        """
        if self.path is not None and (
            is_todo_file_or_beside(output, self.path) or identify(output) == identify(self.path) != (0, 0)
        ):
            raise invalid_argument("output", str(output), "this is the TODO-file or belongs to it; give another path")
        output = resolve(output)
        if not stat.S_ISDIR(get_mode(output.parent)):
            raise FileNotFoundError(errno.ENOENT, "This directory does not exist; create it first", str(output.parent))
        with os_errors(output):
            if not force:
                check_replaceable("output", output, is_ours)
            replace_file(output, write)


def parse_location(target: "str | os.PathLike[str] | Location", argument: str = "todo") -> Location:
    """Parse the path or the URL of a TODO-list.

    Parameters
    ----------
    target : str, os.PathLike or Location
        A path; a directory stands for the `todo.sqlite` in it. Or a URL: postgresql+psycopg://user:password@host/database,
        or sqlite:/// and a path without percent-encoding.
    argument : str, optional
        Its name for the user.

    Raises
    ------
    InvalidArgumentError
        If the target is any other URL, is empty, or is not a path.
    """
    if isinstance(target, Location):
        return target
    text = check_path(argument, target)
    url = _URL.match(text)
    if url is None:
        return Location(text, locate_todo_file(text))
    if url["file"]:
        return Location(text, locate_todo_file(check_path(argument, text[url.end() :])))
    return Location(hide_password(text), url=text)
