"""The lock of a TODO-file, which one manager at a time can hold."""

import errno
import os
import re
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from photometry_tasks.errors import MountWithoutLocksError, TodoFileInUseError
from photometry_tasks.files import open_regular, os_errors, resolve, share_like

#: Seconds to wait for the holder to release the lock.
_PATIENCE = 3.0

#: Bytes of a lock file that are read.
_LONGEST = 400


class TodoLock:
    """The right to change or create a TODO-file, held until the lock is closed or the process of its holder ends.

    The lock is a flock(2) on another file in the same directory. SQLite's own locks on the TODO-file do not suffice:
    the process loses them when it closes any other descriptor of the file, and they do not cover a file that replaces
    it. Child processes do not share the lock.

    Attributes
    ----------
    mount : Mount
        The mount that holds the TODO-file.

    Raises
    ------
    TodoFileInUseError
        If another manager has the lock, and keeps it for three more seconds. The error names the holder.
    MountWithoutLocksError, NotWritableError, DiskFullError
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock, Timeout

        path = resolve(path)
        with os_errors(path):
            self.mount = find_mount(path)
        check_locks(path, self.mount)
        self._path = _place(path)
        self._lock = FileLock(
            self._path,
            timeout=_PATIENCE,
            thread_local=False,  # any thread may have to close an unclosed manager
            fallback_to_soft=False,
            on_acquired=lambda descriptor: _write_holder(descriptor, path),
        )
        try:
            with os_errors(path):
                self._lock.acquire()
        except Timeout as error:
            raise TodoFileInUseError(path=path, found=_read_holder(self._path)) from error
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise MountWithoutLocksError(path=path, **self.mount._asdict()) from error
            raise

    def close(self) -> None:
        """Release the lock. On a local file system its file is deleted."""
        if self.mount.is_local and self._lock.is_locked:
            # Deleted while it is held: a waiting manager sees that this file has lost its name, and creates another.
            # Other nodes might see that too late.
            with suppress(OSError):
                self._path.unlink()
        try:
            self._lock.release()
        except OSError:  # it is still held
            self._lock.release()


def _write_holder(descriptor: int, path: Path) -> None:
    share_like(descriptor, path)
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    with suppress(OSError):  # on a full disk the lock is held nevertheless
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)


def find_holder(path: Path) -> str | None:
    """Return the process that works on a TODO-file, or None, without taking its lock or writing a file."""
    import fcntl

    place = _place(resolve(path))
    try:
        file = open_regular(place)
        if file is not None:
            with file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released when the file is closed
    except BlockingIOError:
        return _read_holder(place)
    except PermissionError:
        return "unknown"
    return None


def find_readers(index: Path) -> str:
    """Return the processes that read a file in WAL mode, given its -shm file: " (process 7, 9)", or "" if unknown."""
    with suppress(OSError):  # only Linux lists the locks
        # A reader has a lock on one of five bytes (https://sqlite.org/walformat.html, section 2.3.1).
        lock = rf"POSIX +\S+ +READ +(\d+) \S+:{index.stat().st_ino} 12[3-7] 12[3-8]$"
        readers = re.findall(lock, Path("/proc/locks").read_text(), re.MULTILINE)
        return f" (process {', '.join(sorted(set(readers)))})" if readers else ""
    return ""


def _place(path: Path) -> Path:
    return path.with_name(f"{path.name}-lock")


def _read_holder(place: Path) -> str:
    with suppress(OSError):
        file = open_regular(place)
        if file is not None:
            with file:
                return file.read(_LONGEST).decode(errors="replace").strip("\0\n ") or "unknown"
    return "unknown"


#: File systems of one machine, whose processes can share memory. Several machines may see any other.
_LOCAL = {
    *("apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfs", "jfs", "nilfs2"),
    *("ntfs", "ntfs3", "overlay", "reiserfs", "tmpfs", "ufs", "vfat", "xfs", "zfs"),
}

#: Options with which a lock is not taken at all, or is invisible to other nodes: of NFS (nfs(5)), Lustre
#: (mount.lustre(8)) and SMB (mount.cifs(8)).
_WITHOUT_LOCKS = re.compile(r"nolock|local_lock=(?!none$).*|localflock|noflock|nobrl")


class Mount(NamedTuple):
    """A mounted file system: its mount point, its kind, and its mount options."""

    point: str
    kind: str
    options: str

    @property
    def is_local(self) -> bool:
        """Whether the file system belongs to this machine alone."""
        return self.kind in _LOCAL


def find_mount(path: Path) -> Mount:
    """Return the mount that holds a file; its kind is 'unknown' if the system does not list it."""
    import psutil

    folder = resolve(path).parent
    found = Mount("?", "unknown", "")
    for partition in psutil.disk_partitions(all=True):
        # The longest mount point leads to the file; of several equal ones, the last is on top.
        if folder.is_relative_to(partition.mountpoint) and len(partition.mountpoint) >= len(found.point):
            found = Mount(partition.mountpoint, partition.fstype, partition.opts)
    return found


def check_locks(path: Path, mount: Mount) -> None:
    """Check that a lock on this mount reaches all other nodes.

    Raises
    ------
    MountWithoutLocksError
    """
    options = mount.options.split(",")
    if mount.kind == "fuse.sshfs" or (not mount.is_local and any(map(_WITHOUT_LOCKS.fullmatch, options))):
        raise MountWithoutLocksError(path=path, **mount._asdict())
