"""The log of a TODO-file in memory: the results that the manager accepted since its last backup.

A frame is a head, an entry in MessagePack, and a line feed; the head holds a mark, the length of the entry and its
CRC-32. An entry with a generation means that the file of this generation holds all results above it, and names the
manager. An entry with results holds those that were saved together, each with the target of its task and its attempt.
An entry with a reset holds the priorities of tasks that returned to pending; with `goes_on`, the next entry holds more
of the same reset. The types of an entry are those of its records: a file from an untrusted source gives no other.
"""

import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from msgspec import MsgspecError, Struct, convert
from msgspec.msgpack import Decoder, Encoder
from msgspec.structs import asdict

from photometry_tasks.errors import InvalidResultError
from photometry_tasks.files import get_stat, open_regular, os_errors, resolve, share_like, sync_directory
from photometry_tasks.rules.results import Integer, Result, TaskTarget

#: The head of a frame: its mark, which no text in UTF-8 holds, the length of its entry, and the CRC-32 of its entry.
_HEAD, _MARK, _END = struct.Struct("<4sII"), b"\xc1\xffR1", b"\n"

#: The most bytes of an entry: whatever a file holds, an entry takes less than 1 GB of memory.
_LONGEST = 2**24

#: Priorities of a reset in one entry.
_CHUNK = 100_000

#: Bytes that a search for the next frame reads at once.
_BLOCK = 2**20

#: Bytes by which a reader recognises a log that it has read in part.
_TAIL = 64

_NOTHING = object()

_sync = getattr(os, "fdatasync", os.fsync)


class Attempt(Struct):
    """The attempt that a result ends: columns of `photometry_tasks_attempts` that the result does not decide."""

    attempt: Integer
    worker: Integer
    begun: float | None
    ended: float


class Logged(Struct, omit_defaults=True):
    """A result, the attempt that it ended, and the target of its task unless the result names it."""

    result: Result
    attempt: Attempt
    target: TaskTarget | None = None


class Worker(Struct):
    """A row of `photometry_tasks_workers`."""

    worker: Integer
    host: str
    pid: Integer
    slurm_jobid: str | None
    version: str | None
    lease: float | None
    begun: float
    seen: float
    ended: float | None


class _Entry(Struct, omit_defaults=True, forbid_unknown_fields=True):
    generation: Integer | None = None
    worker: Worker | None = None
    results: list[Logged] = []
    reset: list[Integer] = []
    goes_on: bool = False


_encode, _decode = Encoder().encode, Decoder(_Entry).decode


def _build_frame(entry: _Entry) -> bytes:
    body = _encode(entry)
    return _HEAD.pack(_MARK, len(body), zlib.crc32(body)) + body + _END


def _build_frames(results: list[Logged]) -> bytes:
    """Return the frame of results, or several frames if it would be too long."""
    frame = _build_frame(_Entry(results=results))
    if len(frame) <= _LONGEST:
        return frame
    if len(results) == 1:
        limit = f"the log of results takes at most {_LONGEST / 1e6:.0f} MB; shorten its texts"
        fault = f"size={len(frame) / 1e6:.0f} MB: {limit}"
        raise InvalidResultError(priority=results[0].result.priority, faults=[fault])
    half = len(results) // 2
    return _build_frames(results[:half]) + _build_frames(results[half:])


def _read_frame(file: IO[bytes], start: int) -> bytes | None:
    """Return the entry of a frame, or None if no undamaged frame begins at this offset."""
    file.seek(start)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    mark, length, crc = _HEAD.unpack(head)
    if mark != _MARK or length > _LONGEST:
        return None
    body = file.read(length)
    return body if zlib.crc32(body) == crc and file.read(1) == _END else None


def _find_frame(file: IO[bytes], start: int) -> int | None:
    """Return the offset of the next undamaged frame, or None; a damaged frame has at most `_LONGEST` bytes."""
    last = start + _LONGEST
    while start < last:
        file.seek(start)
        block = file.read(_BLOCK)
        place = block.find(_MARK)
        while place >= 0:
            if _read_frame(file, start + place) is not None:
                return start + place
            place = block.find(_MARK, place + 1)
        if len(block) < _BLOCK:
            break
        start += len(block) - len(_MARK) + 1
    return None


def _is_torn(file: IO[bytes], start: int, size: int) -> bool:
    """Whether the rest of a file is the begin of a frame, after which a file system may have left zeros."""
    file.seek(start)
    head = file.read(_HEAD.size)
    if not head.strip(b"\0"):
        return True
    if len(head) < _HEAD.size:
        return _MARK.startswith(head[: len(_MARK)])
    mark, length, _ = _HEAD.unpack(head)
    if mark != _MARK:
        return _MARK.startswith(mark.rstrip(b"\0"))
    end = start + _HEAD.size + length
    file.seek(size - 1)
    return end >= size or file.read(1) == b"\0"


def _read_entry(body: bytes) -> _Entry | None:
    """Return an entry, or None if another release or program has written it."""
    try:
        return _decode(body)
    except (MsgspecError, RecursionError, UnicodeDecodeError):
        return None


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
        self._first_frame = b""
        self._is_begun = True
        #: The manager's row of `photometry_tasks_workers`.
        self.worker: dict[str, Any] | None = None
        #: The offset after the last entry that `iter_results` has read.
        self.read_end = 0

    # --- writing -----------------------------------------------------------------------------------------

    def begin(self, generation: int) -> None:
        """Create or empty the log: the TODO-file, of this generation, holds all results."""
        # Written together with the first result: a log with results always names the generation of their file.
        self._first_frame = self._build_generation(generation)
        self._is_begun = False
        self._empty()

    def _empty(self) -> None:
        if os.fstat(self._open()).st_nlink > 1:
            self.remove()  # it is kept under another name
        os.ftruncate(self._open(), 0)
        self._size = 0
        self._is_begun = True

    def append(self, results: list[Logged]) -> None:
        """Log results.

        The next opening finds all results of one call, or none, up to 17 MB.

        Raises
        ------
        DiskFullError
            If the disk has no room for the results; the earlier results stay.
        """
        self._append(_build_frames(results))

    def append_reset(self, priorities: list[int]) -> None:
        """Log that tasks return to pending; otherwise as `append`."""
        frames = []
        for start in range(0, len(priorities), _CHUNK):
            chunk = priorities[start : start + _CHUNK]
            frames.append(_build_frame(_Entry(reset=chunk, goes_on=start + _CHUNK < len(priorities))))
        self._append(b"".join(frames))

    def _append(self, frames: bytes) -> None:
        if not self._is_begun:
            self._empty()  # Ctrl-C interrupted `begin`
        self._write(frames if self._size else self._first_frame + frames, is_durable=self._is_durable)

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
        self._write(self._build_generation(generation), is_durable=True)

    def _build_generation(self, generation: int) -> bytes:
        return _build_frame(_Entry(generation=generation, worker=convert(self.worker, Worker | None)))

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
                    self._size = max((end for end, body in self._frames() if body is not None), default=0)
                except BaseException:
                    os.close(descriptor)
                    raise
            self._descriptor = descriptor
        return self._descriptor

    def _write(self, frames: bytes, *, is_durable: bool) -> None:
        descriptor = self._open()
        try:
            # Written after the last accepted frame, not at the end of the file: a torn frame is overwritten.
            written = os.pwrite(descriptor, frames, self._size)
            while written < len(frames):  # the disk had no room for all frames; the next write raises the reason
                written += os.pwrite(descriptor, frames[written:], self._size + written)
            if is_durable:
                _sync(descriptor)
        except OSError:
            with os_errors(self.path):
                raise
        self._size += len(frames)

    # --- reading -----------------------------------------------------------------------------------------

    def find_start(self, generation: int) -> int | None:
        """Return the offset of the results that a file of this generation lacks; None if the log is of another file."""
        start = None
        for end, body in self._frames():
            # Only such an entry is decoded: that takes longer than all else.
            if body and b"generation" in body and (entry := _read_entry(body)) and entry.generation == generation:
                start = end
        return start

    def has_results(self) -> bool:
        """Whether the log holds results, resets, or entries that cannot be read."""
        return next(self.iter_results(0), _NOTHING) is not _NOTHING

    def is_of_older_release(self) -> bool:
        """Whether a release that wrote lines of text has written the log."""
        file = open_regular(self.path)
        if file is None:
            return False
        with file:
            return re.match(rb"[0-9a-f]{8} [A-Za-z0-9+/]", file.read(10)) is not None

    def find_worker(self, start: int) -> dict[str, Any] | None:
        """Return the row of the manager that logged the results after an offset, or None."""
        entry = next((_read_entry(body) for end, body in self._frames() if end == start and body), None)
        return None if entry is None or entry.worker is None else asdict(entry.worker)

    def iter_results(self, start: int) -> Iterator[Logged | list[int] | None]:
        """Yield the results after an offset, the priorities of each reset, and None for each damaged part.

        A torn last frame is ignored: its results were never acknowledged.
        """
        reset: list[int] = []
        self.read_end = start
        for end, body in self._frames(start):
            entry = None if body is None else _read_entry(body)
            if entry is None:
                yield None
            else:
                reset += entry.reset
                if reset and not entry.goes_on:
                    yield reset
                    reset = []
                yield from entry.results
            if not reset:
                self.read_end = end

    def read_tail(self, end: int) -> bytes:
        """Return the last bytes before an offset: other ones after the same offset are not those of the same log."""
        file = open_regular(self.path)
        if file is None:
            return b""
        with file:
            file.seek(max(0, end - _TAIL))
            return file.read(min(end, _TAIL))

    def _frames(self, start: int = 0) -> Iterator[tuple[int, bytes | None]]:
        """Yield the end of each frame after an offset, and its entry; None for a damaged part, whatever its length."""
        file = open_regular(self.path)
        if file is None:
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            while start < size:
                body = _read_frame(file, start)
                if body is not None:
                    start += _HEAD.size + len(body) + len(_END)
                    yield start, body
                    continue
                following = _find_frame(file, start + 1)
                if following is None and _is_torn(file, start, size):
                    return
                start = size if following is None else following
                yield start, None

    def keep_aside(self) -> Path:
        """Give the log another name too, which no manager reads, and return that path."""
        aside = self.path.with_name(f"{self.path.name}-kept-{os.urandom(4).hex()}")
        with os_errors(aside):
            try:
                aside.hardlink_to(self.path)  # whatever its size
            except OSError:  # the file system has no links
                shutil.copy(self.path, aside)
        return aside
