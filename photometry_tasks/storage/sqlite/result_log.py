"""The log of a TODO-file in memory: the results that the manager accepted since its last backup.

Each line is a CRC-32 in eight hexadecimal digits, a blank, and a pickle of plain values in base 64. An entry
`{"generation": n, "columns": [...]}` means that the file of this generation holds all results above it. An entry
`{"results": [...]}` holds results that were saved together, each with its diagnostics in the order of these columns. An
entry `{"results": [], "reset": [...]}` holds the priorities of tasks that returned to pending.
Decimal numbers instead of a pickle would take longer than all other steps of a save in memory.
"""

import ast
import io
import os
import pickle
import shutil
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Column

from photometry_tasks.files import os_errors, share_like, sync_directory
from photometry_tasks.models import diagnostics
from photometry_tasks.rules.results import Result
from photometry_tasks.sql.statements import TARGET_NAMES
from photometry_tasks.status import STATUS

#: The values that identify the target of a row of `todolist`, by column: `statements.TARGET_COLUMNS`.
Target = dict[str, Any]

_COLUMNS = tuple(diagnostics.columns.keys())


def _get_default(column: Column[Any]) -> Any:
    """Return the constant default of a column, or None."""
    with suppress(AttributeError, SyntaxError, ValueError):  # it has no default, or the default is an expression
        return ast.literal_eval(str(column.server_default.arg))  # type: ignore[union-attr]  # see above
    return None


#: The values of columns that the release of a log did not have.
_DEFAULTS = {column.name: _get_default(column) for column in diagnostics.columns}
_SAID = (*TARGET_NAMES, "tmag")
_pick_target, _pick_row, _pick_said = itemgetter(*TARGET_NAMES), itemgetter(*_COLUMNS), itemgetter(*_SAID)

#: Priorities of a reset in one line.
_CHUNK = 100_000

_sync = getattr(os, "fdatasync", os.fsync)


class _PlainValues(pickle.Unpickler):
    """Unpickles numbers, texts and their containers: a file from an untrusted source must not run code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse any other type."""
        raise pickle.UnpicklingError(f"{module}.{name} is not a plain value")


def _encode(entry: dict[str, Any]) -> bytes:
    text = b2a_base64(pickle.dumps(entry, 5))  # ends with a line feed
    return b"%08x %b" % (zlib.crc32(text), text)


def _decode(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, or None if the line is torn or damaged."""
    crc, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(text):
        return None
    try:
        entry = _PlainValues(io.BytesIO(a2b_base64(text))).load()
    except Exception:  # a pickle of another release or program may raise any error
        return None
    return entry if isinstance(entry, dict) else None


def _build_record(result: Result, target: Target) -> tuple[Any, ...]:
    row, said = _pick_row(result.diagnostics), _pick_said(result.target)
    return _pick_target(target), result.status.value, row, result.errors, result.skip_targets, said


def _read_record(record: Any, columns: Any) -> tuple[Result, Target] | None:
    """Return a result with its target, or None if the record has unexpected fields or types.

    If the record's release lacked a column of diagnostics, the column has its default.
    """
    try:
        target, status, row, errors, skip_targets, said = record
        parts = [dict(zip(*pair, strict=True)) for pair in ((TARGET_NAMES, target), (columns, row), (_SAID, said))]
        complete = _DEFAULTS | parts[1]
        result = Result(complete["priority"], STATUS(status), complete, errors, skip_targets, parts[2])
        is_ours = (
            complete.keys() == _DEFAULTS.keys()
            and {*map(type, (*target, *row, *said))} <= {int, float, str, type(None)}
            and {*map(type, (result.priority, *skip_targets))} == {int}
            and {*map(type, errors)} <= {str}
            and type(errors) is tuple
            and result.status is not STATUS.STARTED
        )
    except (KeyError, TypeError, ValueError):
        return None
    return (result, parts[0]) if is_ours else None


class ResultLog:
    """The log of results of a TODO-file. A manager that writes it holds the lock of the TODO-file.

    Parameters
    ----------
    todo_file : Path
    is_durable : bool
        Whether a result is on the disk when `append` returns, and not only in the cache of the operating system.
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
        """Create or empty the log: the TODO-file, of this generation, holds all results."""
        # Written together with the first result: a log with results always names the generation of their file.
        self._first_line = _encode({"generation": generation, "columns": _COLUMNS})
        self._is_begun = False
        self._empty()

    def _empty(self) -> None:
        os.ftruncate(self._open(), 0)
        self._size = 0
        self._is_begun = True

    def append(self, results: list[Result], targets: list[Target]) -> None:
        """Log results, each with its target; the next opening finds all results of one call, or none.

        Raises
        ------
        DiskFullError
            If the disk has no room for the results; the earlier results stay.
        """
        self._append(_encode({"results": list(map(_build_record, results, targets))}))

    def append_reset(self, priorities: list[int]) -> None:
        """Log that tasks return to pending; otherwise as `append`."""
        chunks = (priorities[start : start + _CHUNK] for start in range(0, len(priorities), _CHUNK))
        self._append(b"".join(_encode({"results": [], "reset": chunk}) for chunk in chunks))

    def _append(self, line: bytes) -> None:
        if not self._is_begun:
            self._empty()  # Ctrl-C interrupted `begin`
        self._write(line if self._size else self._first_line + line, is_durable=self._is_durable)

    @property
    def size(self) -> int:
        """The offset of the next result, bytes."""
        return self._size

    def truncate(self, size: int) -> None:
        """Remove the results after an offset, in bytes, since they were not accepted."""
        if self._descriptor is not None and self._size > size:
            os.ftruncate(self._descriptor, size)
            self._size = size

    def mark(self, generation: int) -> None:
        """Log that a file of this generation, which is not yet in its place, will hold all results so far."""
        self._write(_encode({"generation": generation, "columns": _COLUMNS}), is_durable=True)

    def close(self) -> None:
        """Close the log, and keep its file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Close and delete the log: the TODO-file holds all results."""
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
            # Written after the last accepted line, not at the end of the file: a torn line is overwritten.
            written = os.pwrite(descriptor, lines, self._size)
            while written < len(lines):  # the disk had no room for all lines; the next write raises the reason
                written += os.pwrite(descriptor, lines[written:], self._size + written)
            if is_durable:
                _sync(descriptor)
        except OSError:
            with os_errors(self.path):
                raise
        self._size += len(lines)

    # --- reading -----------------------------------------------------------------------------------------

    def find_start(self, generation: int) -> int | None:
        """Return the offset of the results that a file of this generation lacks; None if the log is of another file."""
        start = None
        for end, entry in self._lines():
            if entry is not None and entry.get("generation") == generation:
                start = end
        return start

    def has_results(self) -> bool:
        """Whether the log holds results."""
        return any(entry is not None and "results" in entry for _, entry in self._lines())

    def iter_results(self, start: int) -> Iterator[tuple[Result, Target] | list[int] | None]:
        """Yield the results after an offset, the priorities of each reset, and None for a damaged line or record.

        A torn last line is ignored: its results were never acknowledged.
        """
        is_torn, columns = False, None
        for end, entry in self._lines():
            columns = (entry or {}).get("columns", columns)
            if end <= start:
                continue
            if is_torn:
                yield None
            is_torn = entry is None
            records = (entry or {}).get("results", [])
            if isinstance(reset := (entry or {}).get("reset"), list):
                yield reset if {*map(type, reset)} == {int} else None
            for record in records if isinstance(records, list) else [None]:
                yield _read_record(record, columns)

    def _lines(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield the end of each line, and its entry, which is None for a torn or damaged line."""
        if not self.path.is_file():
            return
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                end += len(line)
                yield end, _decode(line)

    def keep_aside(self) -> Path:
        """Copy the log to a name that no manager reads, and return the path."""
        aside = self.path.with_name(f"{self.path.name}-kept-{os.urandom(4).hex()}")
        with os_errors(aside):
            shutil.copy(self.path, aside)
        return aside
