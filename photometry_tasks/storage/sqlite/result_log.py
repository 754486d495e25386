"""The results that a manager in memory has accepted since its last backup, in a log beside the TODO-file.

Each line is a CRC-32 in eight hexadecimal digits, a blank, and a pickle of plain values in base 64. The pickle is
either `{"generation": n, "columns": [...]}`, "the file of that generation holds all results above", or
`{"results": [...]}`, the results that were saved together, each with its diagnostics in the order of those columns.
Writing their numbers as decimals would take longer than all the rest of a save in memory.
"""

import io
import os
import pickle
import shutil
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

from photometry_tasks.files import os_errors, share_like, sync_directory
from photometry_tasks.models import diagnostics
from photometry_tasks.rules.results import Result
from photometry_tasks.sql.statements import TARGET_NAMES
from photometry_tasks.status import STATUS

#: What makes a row of `todolist` the same target, by column: `statements.TARGET_COLUMNS`.
Target = dict[str, Any]

_COLUMNS = tuple(diagnostics.columns.keys())
_SAID = (*TARGET_NAMES, "tmag")
_pick_target, _pick_row, _pick_said = itemgetter(*TARGET_NAMES), itemgetter(*_COLUMNS), itemgetter(*_SAID)

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


def _build_record(result: Result, target: Target) -> tuple[Any, ...]:
    row, said = _pick_row(result.diagnostics), _pick_said(result.target)
    return _pick_target(target), result.status.value, row, result.errors, result.skip_targets, said


def _read_record(record: Any, columns: Any) -> tuple[Result, Target] | None:
    """Return a result with its target; None if the record has other fields or values than ours.

    A record may lack a column of diagnostics that its release did not have: the value is NULL.
    """
    try:
        target, status, row, errors, skip_targets, said = record
        parts = [dict(zip(*pair, strict=True)) for pair in ((TARGET_NAMES, target), (columns, row), (_SAID, said))]
        is_ours = (
            set(columns) <= set(_COLUMNS)
            and all(isinstance(value, int | float | str | None) for part in parts for value in part.values())
            and all(isinstance(number, int) for number in (parts[1]["priority"], *skip_targets))
            and all(isinstance(text, str) for text in errors)
        )
        complete: dict[str, Any] = dict.fromkeys(_COLUMNS) | parts[1]
        result = Result(complete["priority"], STATUS(status), complete, errors, skip_targets, parts[2])
    except (KeyError, TypeError, ValueError):
        return None
    return (result, parts[0]) if is_ours else None


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
        self._first_line = _encode({"generation": generation, "columns": _COLUMNS})
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
        line = _encode({"results": list(map(_build_record, results, targets))})
        if not self._is_begun:
            self._empty()  # Ctrl-C had kept `begin` from it
        self._write(line if self._size else self._first_line + line, is_durable=self._is_durable)

    @property
    def size(self) -> int:
        """Where the next result goes, bytes."""
        return self._size

    def truncate(self, size: int) -> None:
        """Remove the results that were logged beyond a size: they were not accepted."""
        if self._descriptor is not None and self._size > size:
            os.ftruncate(self._descriptor, size)
            self._size = size

    def mark(self, generation: int) -> None:
        """Note that a file of this generation, which is not in its place yet, will hold all that was logged."""
        self._write(_encode({"generation": generation, "columns": _COLUMNS}), is_durable=True)

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

    def iter_results(self, start: int) -> Iterator[tuple[Result, Target] | None]:
        """Yield the results from there on; None for a line that is damaged.

        A torn last line is passed over: what it was to hold was never acknowledged.
        """
        is_torn, columns = False, None
        for end, entry in self._lines():
            columns = (entry or {}).get("columns", columns)
            if end <= start:
                continue
            if is_torn:
                yield None
            is_torn = entry is None
            for record in (entry or {}).get("results", ()):
                yield _read_record(record, columns)

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
