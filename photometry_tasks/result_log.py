"""The results that a manager in memory has accepted since its last backup, in a log beside the TODO-file.

Each line is a CRC-32 in eight hexadecimal digits, a blank, and in base 64 a pickle of plain values: either
`{"generation": n}`, "the file of that generation holds all that stands above", or `{"results": [...]}`, those that were
saved together. To write their numbers as decimals would take longer than all else that a save in memory does.
"""

import io
import os
import pickle
import shutil
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from photometry_tasks.files import os_errors, share_like, sync_directory
from photometry_tasks.results import Result
from photometry_tasks.status import STATUS

__all__ = ["ResultLog", "Target"]

#: What makes a row of `todolist` the same target: starid, datasource, sector, camera, ccd, cadence.
Target = tuple[int, str, int, int, int, int]

_sync = getattr(os, "fdatasync", os.fsync)


class _PlainValues(pickle.Unpickler):
    """Reads numbers, texts and what holds them; a file may come from anybody, and must not run anything."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse what is no plain value."""
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def _encode(entry: dict[str, Any]) -> bytes:
    text = b2a_base64(pickle.dumps(entry, 5))  # ends with a line feed
    return b"%08x %b" % (zlib.crc32(text), text)


def _decode(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None if it is torn or damaged."""
    crc, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(text):
        return None
    try:
        entry = _PlainValues(io.BytesIO(a2b_base64(text))).load()
    except Exception:  # whatever a pickle of another release, or of somebody else, may raise
        return None
    return entry if isinstance(entry, dict) else None


def _read_result(logged: Any) -> tuple[Result, Target] | None:
    """Return a result with its target; None if it has other fields than ours."""
    try:
        target, priority, status, row, *others = logged
        return Result(priority, STATUS(status), row, *others), target
    except (TypeError, ValueError):
        return None


class ResultLog:
    """The log beside a TODO-file. Whoever has one holds the lock of the TODO-file.

    Parameters
    ----------
    todo_file : Path
    is_durable : bool
        Whether a result is on the disk when `append` returns, and not only in the care of the system.
    """

    def __init__(self, todo_file: Path, *, is_durable: bool = False) -> None:
        self._todo_file = todo_file.resolve()
        self.path = self._todo_file.with_name(f"{self._todo_file.name}-results")
        self._is_durable = is_durable
        self._descriptor: int | None = None
        self._size = 0
        self._first_line = b""
        self._is_begun = True

    # --- writing -----------------------------------------------------------------------------------------

    def begin(self, generation: int) -> None:
        """Make the log, or empty it: the TODO-file, of this generation, holds all results."""
        # Written together with the first result: a log with results always says what they belong to.
        self._first_line = _encode({"generation": generation})
        self._is_begun = False
        self._empty()

    def _empty(self) -> None:
        os.ftruncate(self._open(), 0)
        self._size = 0
        self._is_begun = True

    def append(self, results: list[Result], targets: list[Target]) -> None:
        """Log results, each with its target; of what was saved together, the next opening finds all or nothing.

        Raises
        ------
        DiskFullError
            If there is no room for it; what was logged before stays.
        """
        pairs = zip(targets, results, strict=True)
        line = _encode({"results": [(target, r[0], r[1].value, *r[2:7]) for target, r in pairs]})
        if not self._is_begun:
            self._empty()  # Ctrl-C had kept `begin` from it
        self._write(line if self._size else self._first_line + line, is_durable=self._is_durable)

    def position(self) -> int:
        """Return where the next result goes."""
        return self._size

    def take_back(self, position: int) -> None:
        """Forget what was logged from a position on: it was not accepted after all."""
        if self._descriptor is not None and self._size > position:
            os.ftruncate(self._descriptor, position)
            self._size = position

    def mark(self, generation: int) -> None:
        """Note that a file of this generation, which is not in its place yet, will hold all that was logged."""
        self._write(_encode({"generation": generation}), is_durable=True)

    def close(self) -> None:
        """Close it, and leave it where it is."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Close and delete it: the TODO-file holds all results."""
        self.close()
        with os_errors(self.path):
            self.path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._descriptor is None:
            with os_errors(self.path):
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
                share_like(self._descriptor, self._todo_file)
                sync_directory(self.path.parent)
            self._size = max((end for end, entry in self._lines() if entry is not None), default=0)
        return self._descriptor

    def _write(self, lines: bytes, *, is_durable: bool) -> None:
        descriptor = self._open()
        try:
            # Not at the end of the file, but of what was accepted: a line that was torn is written over.
            written = os.pwrite(descriptor, lines, self._size)
            while written < len(lines):  # there was no room for all of it; the next try says why
                written += os.pwrite(descriptor, lines[written:], self._size + written)
            if is_durable:
                _sync(descriptor)
        except OSError:
            with os_errors(self.path):
                raise
        self._size += len(lines)

    # --- reading -----------------------------------------------------------------------------------------

    def find_start(self, generation: int) -> int | None:
        """Return where that begins which a file of this generation lacks; None if the log is of another file."""
        start = None
        for end, entry in self._lines():
            if entry is not None and entry.get("generation") == generation:
                start = end
        return start

    def has_results(self) -> bool:
        """Whether any stand in it."""
        return any(entry is not None and "results" in entry for _, entry in self._lines())

    def results(self, start: int) -> Iterator[tuple[Result, Target] | None]:
        """Yield the results from there on; None for a line that is damaged.

        A torn last line is passed over: what it was to hold was never acknowledged.
        """
        is_torn = False
        for end, entry in self._lines():
            if end <= start:
                continue
            if is_torn:
                yield None
            is_torn = entry is None
            if entry is not None:
                yield from map(_read_result, entry.get("results", ()))

    def _lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield where each line ends, and what it says; None if it is torn."""
        if not self.path.is_file():
            return
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                end += len(line)
                yield end, _decode(line)

    def keep_aside(self) -> Path:
        """Copy the log to a name under which nobody looks for it."""
        aside = self.path.with_name(f"{self.path.name}-kept-{os.urandom(4).hex()}")
        with os_errors(aside):
            shutil.copy(self.path, aside)
        return aside
