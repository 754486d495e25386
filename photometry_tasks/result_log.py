"""The results that a manager in memory has accepted since its last backup, in a log beside the TODO-file.

Each line is a CRC-32 in eight hexadecimal digits, a blank, and JSON: either `{"generation": n}`, "the file of that
generation holds all that stands above", or a result with the target that it is of.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from photometry_tasks.results import Result
from photometry_tasks.status import STATUS
from photometry_tasks.todo_file import explained, share_like, sync_directory

__all__ = ["ResultLog", "Target"]

#: What makes a row of `todolist` the same target: starid, datasource, sector, camera, ccd, cadence.
Target = tuple[int, str, int, int, int, int]

_FIELDS = ("priority", "diagnostics", "lightcurve", "errors", "skip_targets", "task")

_to_json = json.JSONEncoder(separators=(",", ":")).encode  # infinity stays, NaN does not come this far
_sync = getattr(os, "fdatasync", os.fsync)


def _encode(entry: dict[str, Any]) -> bytes:
    text = _to_json(entry).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


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

    # --- writing -----------------------------------------------------------------------------------------

    def begin(self, generation: int) -> None:
        """Make the log, or empty it: the TODO-file, of this generation, holds all results."""
        descriptor = self._open()
        os.ftruncate(descriptor, 0)
        self._size = 0
        # Written together with the first result: a log with results always says what they belong to.
        self._first_line = _encode({"generation": generation})

    def append(self, result: Result, target: Target) -> None:
        """Log a result.

        Raises
        ------
        DiskFullError
            If there is no room for it; what was logged before stays.
        """
        fields = {name: getattr(result, name) for name in _FIELDS}
        line = _encode({"target": target, "status": result.status.value, **fields})
        self._write(line if self._size else self._first_line + line, is_durable=self._is_durable)

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
        self.path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._descriptor is None:
            with explained(self.path):
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                share_like(self._descriptor, self._todo_file)
                sync_directory(self.path.parent)
            self._size = max((end for end, entry in self._lines() if entry is not None), default=0)
        return self._descriptor

    def _write(self, lines: bytes, *, is_durable: bool) -> None:
        descriptor = self._open()
        with explained(self.path):
            # Not at the end of the file, but of what was accepted: a line that was torn is written over.
            written = os.pwrite(descriptor, lines, self._size)
            while written < len(lines):  # there was no room for all of it; the next try says why
                written += os.pwrite(descriptor, lines[written:], self._size + written)
            if is_durable:
                _sync(descriptor)
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
        return any(entry is not None and "target" in entry for _, entry in self._lines())

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
            if entry is not None and "target" in entry:
                fields = {name: entry[name] for name in _FIELDS}
                yield Result(status=STATUS(entry["status"]), **fields), tuple(entry["target"])

    def _lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield where each line ends, and what it says; None if it is torn."""
        if not self.path.exists():
            return
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                end += len(line)
                crc, _, text = line.removesuffix(b"\n").partition(b" ")
                is_whole = line.endswith(b"}\n") and crc == b"%08x" % zlib.crc32(text)
                yield end, json.loads(text) if is_whole else None

    def keep_aside(self) -> Path:
        """Copy the log to a name under which nobody looks for it."""
        aside = self.path.with_name(f"{self.path.name}-kept-{os.urandom(4).hex()}")
        with explained(aside):
            shutil.copy(self.path, aside)
        return aside
