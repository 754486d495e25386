"""The results that a manager in memory has accepted since its last backup, in a log beside the TODO-file.

Each line is a CRC-32 in eight hexadecimal digits, a blank, and JSON: either `{"generation": n}`, "the file of that
generation holds all that stands above", or the results that were saved together. Most of their numbers are packed
(little-endian doubles in hexadecimal digits, NaN for NULL): to write them as decimals would take longer than all else.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from photometry_tasks.files import os_errors, share_like, sync_directory
from photometry_tasks.results import REALS, Result
from photometry_tasks.status import STATUS

__all__ = ["ResultLog", "Target"]

#: What makes a row of `todolist` the same target: starid, datasource, sector, camera, ccd, cadence.
Target = tuple[int, str, int, int, int, int]

_NAN = float("nan")
_NO_TASK = (None,) * 7

_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode  # infinity stays
_sync = getattr(os, "fdatasync", os.fsync)


def _encode(entry: dict[str, Any]) -> bytes:
    text = _to_json(entry).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _encode_results(results: Sequence[tuple[Result, Target]]) -> bytes:
    entries: list[Any] = []
    reals: list[float | None] = []
    for (priority, status, row, lightcurve, errors, skip_targets, task), target in results:
        others = row[0], row[REALS.stop :], lightcurve, errors, skip_targets
        entries.append((target, priority, status.value, *others, task if skip_targets else None))
        reals += row[REALS]
    packed = struct.pack(f"<{len(reals)}d", *[_NAN if real is None else real for real in reals])
    return _encode({"results": entries, "reals": packed.hex()})


def _decode_results(entry: dict[str, Any]) -> Iterator[tuple[Result, Target]]:
    packed = bytes.fromhex(entry["reals"])
    reals = [None if real != real else real for real in struct.unpack(f"<{len(packed) // 8}d", packed)]
    number = REALS.stop - REALS.start
    for position, logged in enumerate(entry["results"]):
        target, priority, status, method_used, others, lightcurve, errors, skip_targets, task = logged
        row = (method_used, *reals[position * number : (position + 1) * number], *others)
        yield Result(priority, STATUS(status), row, lightcurve, errors, skip_targets, task or _NO_TASK), tuple(target)


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

    def append(self, results: list[tuple[Result, Target]]) -> None:
        """Log results; of what was saved together, the next opening finds all or nothing.

        Raises
        ------
        DiskFullError
            If there is no room for it; what was logged before stays.
        """
        line = _encode_results(results)
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
            if entry is not None and "results" in entry:
                try:
                    yield from list(_decode_results(entry))
                except (KeyError, TypeError, ValueError, struct.error):
                    yield None  # of another release

    def _lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield where each line ends, and what it says; None if it is torn."""
        if not self.path.is_file():
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
        with os_errors(aside):
            shutil.copy(self.path, aside)
        return aside
