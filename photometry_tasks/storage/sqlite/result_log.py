"""The log of a TODO-file in memory: the results that the manager accepted since its last backup.

Each line is a CRC-32 in eight hexadecimal digits, a blank, and a pickle of plain values in base 64. An entry
`{"generation": n, "columns": [...], "worker": {...}}` means that the file of this generation holds all results above
it, and names the manager. An entry `{"results": [...]}` holds results that were saved together, each with its
diagnostics in the order of these columns, and with its attempt. An entry `{"results": [], "reset": [...]}` holds the
priorities of tasks that returned to pending; with `"goes_on": True`, the next entry holds more of the same reset.
Decimal numbers instead of a pickle would take longer than all other steps of a save in memory.
"""

import ast
import io
import os
import pickle
import re
import shutil
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Column

from photometry_tasks.errors import InvalidResultError
from photometry_tasks.files import get_stat, open_regular, os_errors, resolve, share_like, sync_directory
from photometry_tasks.models import attempts, diagnostics, extra, todolist, workers
from photometry_tasks.rules.results import Result
from photometry_tasks.rules.stored_values import TYPES
from photometry_tasks.sql.statements import TARGET_NAMES
from photometry_tasks.status import STATUS

#: The values that identify the target of a row of `todolist`, by column: `statements.TARGET_COLUMNS`.
Target = dict[str, Any]

#: The attempt that a result ends, by column; the result decides the other columns.
Attempt = dict[str, Any]

#: A logged result with its target, and the attempt that it ended; None in a log of an older release.
Logged = tuple[Result, Target, Attempt | None]

_COLUMNS = tuple(diagnostics.columns.keys())


def _get_default(column: Column[Any]) -> Any:
    """Return the constant default of a column, or None."""
    with suppress(AttributeError, SyntaxError, ValueError):  # it has no default, or the default is an expression
        return ast.literal_eval(str(column.server_default.arg))  # type: ignore[union-attr]  # see above
    return None


#: The values of columns that the release of a log did not have.
_DEFAULTS = {column.name: _get_default(column) for column in diagnostics.columns}
_SAID = (*TARGET_NAMES, "tmag")
#: The types of the values in the columns of a record.
_TYPES = {
    column.name: {type(None), *TYPES[column.type.python_type]}
    for column in (*workers.columns, *attempts.columns, *todolist.columns, *diagnostics.columns, extra.c.extra)
}
_pick_target, _pick_row, _pick_said = itemgetter(*TARGET_NAMES), itemgetter(*_COLUMNS), itemgetter(*_SAID)

#: The columns of an attempt that a result does not decide, and the fields of a result beside its diagnostics.
_ATTEMPT = ("priority", "attempt", "worker", "begun", "ended", "peak_memory")
_FIELDS = ("kind", "extra")
_pick_attempt = itemgetter(*_ATTEMPT)

#: Priorities of a reset in one line.
_CHUNK = 100_000

_sync = getattr(os, "fdatasync", os.fsync)

#: The keys of a line's entry.
_KEYS = {"generation", "columns", "worker", "results", "reset", "goes_on"}

#: The beginning of a line, after which a file system may have left zeros.
_TORN = re.compile(rb"[0-9a-f]{0,8}(?: [A-Za-z0-9+/=]{0,1000000})?\0*")

_NOTHING = object()

#: The most bytes of a line: whatever a file holds, a line takes less than 1 GB of memory.
_LONGEST = 2**24

_OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT"),
    *("BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1"),
    *("TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
)


class _PlainValues(pickle._Unpickler):
    """Unpickles numbers, texts and their containers, and knows no other opcode than `_encode` writes.

    A file from an untrusted source must not run code, nor take memory: the unpickler in C allocates 2 GB for 8 bytes.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, name)[0] for name in _OPCODES)},
        pickle.EMPTY_DICT[0]: lambda unpickler: unpickler.append(_Entry()),
    }


class _Entry(dict[str, Any]):
    """A dict with texts as keys: to hash a deeply nested tuple would crash the process."""

    def __setitem__(self, key: str, value: Any) -> None:
        if type(key) is not str:
            raise pickle.UnpicklingError("a key is no text")
        super().__setitem__(key, value)


def _encode(entry: dict[str, Any]) -> bytes:
    text = b2a_base64(pickle.dumps(entry, 5))  # ends with a line feed
    return b"%08x %b" % (zlib.crc32(text), text)


def _encode_results(records: list[tuple[Any, ...]]) -> bytes:
    """Return the line of results, or several lines if it would be too long."""
    line = _encode({"results": records})
    if len(line) <= _LONGEST:
        return line
    if len(records) == 1:
        (_, _, row, *_) = records[0]
        priority, size = dict(zip(_COLUMNS, row, strict=True))["priority"], f"{len(line) / 1e6:.0f} MB"
        remedy = f"the log of results takes at most {_LONGEST / 1e6:.0f} MB; shorten its texts"
        raise InvalidResultError(priority=priority, field="size", value=size, remedy=remedy)
    half = len(records) // 2
    return _encode_results(records[:half]) + _encode_results(records[half:])


def _unpack(line: bytes) -> bytes:
    """Return the pickle of a line; it is empty if the line is torn or damaged."""
    crc, _, text = line.partition(b" ")
    if line.endswith(b"\n") and crc == b"%08x" % zlib.crc32(text):
        with suppress(ValueError):
            return a2b_base64(text)
    return b""


def _decode(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, or None if the line is torn or damaged."""
    try:
        entry = _PlainValues(io.BytesIO(_unpack(line))).load()
    except Exception:  # a pickle of another release or program may raise any error
        return None
    return dict(entry) if isinstance(entry, dict) else None


def _build_record(result: Result, target: Target, attempt: Attempt) -> tuple[Any, ...]:
    row, said = _pick_row(result.diagnostics), _pick_said(result.target)
    own = (*_pick_attempt(attempt), result.kind, result.extra)
    return _pick_target(target), result.status.value, row, result.errors, result.skip_targets, said, own


def _read_record(record: Any, columns: Any) -> Logged | None:
    """Return a result with its target and its attempt, or None if the record has unexpected fields or types.

    If the record's release lacked a column of diagnostics, the column has its default; a record of a release without
    attempts has none.
    """
    try:
        target, status, row, errors, skip_targets, said, *later = record
        if {*map(type, columns)} != {str} or {*map(type, (status, *skip_targets))} != {int}:
            return None  # before any of them is hashed
        parts = [dict(zip(*pair, strict=True)) for pair in ((TARGET_NAMES, target), (columns, row), (_SAID, said))]
        complete = _DEFAULTS | parts[1]
        own = dict(zip((*_ATTEMPT, *_FIELDS), later[0], strict=True)) if later else {}
        parts.append(own)
        has_types = all(type(value) in _TYPES[name] for part in parts for name, value in part.items())
        fields = {name: own.pop(name, None) for name in _FIELDS}
        result = Result(complete["priority"], STATUS(status), complete, errors, tuple(skip_targets), parts[2], **fields)
        is_ours = (
            has_types
            and type(result.priority) is int
            and {*map(type, errors)} <= {str}
            and type(errors) is tuple
            and result.status is not STATUS.STARTED
            and len(later) < 2
        )
    except (KeyError, TypeError, ValueError):
        return None
    return (result, parts[0], own or None) if is_ours else None


def _read_worker(worker: Any) -> dict[str, Any] | None:
    """Return a row of a worker, or None if it has unexpected columns or types."""
    is_ours = isinstance(worker, dict) and worker.keys() == set(workers.columns.keys())
    return dict(worker) if is_ours and all(type(value) in _TYPES[name] for name, value in worker.items()) else None


def _read_reset(priorities: Any) -> list[int] | None:
    is_ours = isinstance(priorities, list) and {*map(type, priorities)} <= {int}
    return priorities if is_ours and all(-(2**63) <= priority < 2**63 for priority in priorities) else None


class ResultLog:
    """The log of results of a TODO-file. A manager that writes it holds the lock of the TODO-file.

    Parameters
    ----------
    todo_file : Path
    is_durable : bool
        Whether a result is on the disk when `append` returns, and not only in the cache of the operating system.
    """

    def __init__(self, todo_file: Path, *, is_durable: bool = False) -> None:
        self._todo_file = resolve(todo_file)
        self.path = self._todo_file.with_name(f"{self._todo_file.name}-results")
        self._is_durable = is_durable
        self._descriptor: int | None = None
        self._size = 0
        self._first_line = b""
        self._is_begun = True
        #: The manager's row of `photometry_tasks_workers`.
        self.worker: dict[str, Any] | None = None

    # --- writing -----------------------------------------------------------------------------------------

    def begin(self, generation: int) -> None:
        """Create or empty the log: the TODO-file, of this generation, holds all results."""
        # Written together with the first result: a log with results always names the generation of their file.
        self._first_line = self._encode_generation(generation)
        self._is_begun = False
        self._empty()

    def _empty(self) -> None:
        if os.fstat(self._open()).st_nlink > 1:
            self.remove()  # it is kept under another name
        os.ftruncate(self._open(), 0)
        self._size = 0
        self._is_begun = True

    def append(self, results: list[Result], targets: list[Target], attempts: list[Attempt]) -> None:
        """Log results, each with its target and its attempt.

        The next opening finds all results of one call, or none, up to 16 MB.

        Raises
        ------
        DiskFullError
            If the disk has no room for the results; the earlier results stay.
        """
        self._append(_encode_results(list(map(_build_record, results, targets, attempts))))

    def append_reset(self, priorities: list[int]) -> None:
        """Log that tasks return to pending; otherwise as `append`."""
        lines = []
        for start in range(0, len(priorities), _CHUNK):
            goes_on = start + _CHUNK < len(priorities)
            lines.append(_encode({"results": [], "reset": priorities[start : start + _CHUNK], "goes_on": goes_on}))
        self._append(b"".join(lines))

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
        self._size = min(self._size, size)
        if self._descriptor is not None:
            with suppress(OSError):  # then the next result overwrites them
                os.ftruncate(self._descriptor, self._size)

    def mark(self, generation: int) -> None:
        """Log that a file of this generation, which is not yet in its place, will hold all results so far."""
        self._write(self._encode_generation(generation), is_durable=True)

    def _encode_generation(self, generation: int) -> bytes:
        return _encode({"generation": generation, "columns": _COLUMNS, "worker": self.worker})

    def close(self) -> None:
        """Close the log, and keep its file."""
        descriptor, self._descriptor = self._descriptor, None  # even if close(2) fails, it is closed
        if descriptor is not None:
            os.close(descriptor)

    def remove(self) -> None:
        """Close and delete the log: the TODO-file holds all results."""
        self.close()
        with os_errors(self.path):
            if get_stat(self.path):
                # After a power cut the log must not be missing while SQLite's deleted journal is there again.
                sync_directory(self.path.parent)
                self.path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._descriptor is None:
            with os_errors(self.path):
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
                try:
                    share_like(descriptor, self._todo_file)
                    sync_directory(self.path.parent)
                    self._size = max((end for end, line in self._lines() if _unpack(line)), default=0)
                except BaseException:
                    os.close(descriptor)
                    raise
            self._descriptor = descriptor
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
        for end, line in self._lines():
            # Only such a line is decoded: that takes longer than all else.
            if b"generation" in _unpack(line) and (_decode(line) or {}).get("generation") == generation:
                start = end
        return start

    def has_results(self) -> bool:
        """Whether the log holds results, resets, or lines that cannot be read."""
        return next(self.iter_results(0), _NOTHING) is not _NOTHING

    def find_worker(self, start: int) -> dict[str, Any] | None:
        """Return the row of the manager that logged the results after an offset, or None."""
        entry = next((_decode(line) for end, line in self._lines() if end == start), None)
        return _read_worker((entry or {}).get("worker"))

    def iter_results(self, start: int) -> Iterator[Logged | list[int] | None]:
        """Yield the results after an offset, the priorities of each reset, and None for a line of another kind.

        A torn last line is ignored: its results were never acknowledged.
        """
        columns = None
        reset: list[int] = []
        for end, line in self._lines():
            if end < start:
                continue
            entry = _decode(line)
            columns = (entry or {}).get("columns", columns)
            if end == start or (entry is None and _TORN.fullmatch(line)):
                continue
            if entry is None or not entry.keys() <= _KEYS:
                yield None
                continue
            if "reset" in entry:
                priorities = _read_reset(entry["reset"])
                reset += priorities or []
                if priorities is None or not entry.get("goes_on"):
                    yield reset if priorities is not None else None
                    reset = []
            records = entry.get("results", [])
            for record in records if isinstance(records, list) else [None]:
                yield _read_record(record, columns)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the end of each line, and the line."""
        file = open_regular(self.path)
        if file is None:
            return
        end = 0
        with file:
            while line := file.readline(_LONGEST + 1):
                end += len(line)
                yield end, line
                if len(line) > _LONGEST:
                    return

    def keep_aside(self) -> Path:
        """Give the log another name too, which no manager reads, and return that path."""
        aside = self.path.with_name(f"{self.path.name}-kept-{os.urandom(4).hex()}")
        with os_errors(aside):
            try:
                aside.hardlink_to(self.path)  # whatever its size
            except OSError:  # the file system has no links
                shutil.copy(self.path, aside)
        return aside
