"""One at a time: the lock beside a TODO-file."""

import errno
import os
import re
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from photometry_tasks.errors import MountWithoutLocksError, TodoFileInUseError
from photometry_tasks.files import os_errors, share_like

#: Seconds that the holder is given to end.
_PATIENCE = 3.0


class TodoLock:
    """The right to change a TODO-file, or to make one, held until it is closed or its holder is dead.

    It is a lock (flock(2)) on a file beside the TODO-file. Those that SQLite takes on the file itself go when any
    other descriptor of it is closed in the process, and do not hold for a file that is put in its place. A child
    process has no part in it.

    Attributes
    ----------
    mount : Mount
        What the TODO-file lies on.

    Raises
    ------
    TodoFileInUseError
        If somebody else has it, and keeps it for three seconds more; it says who.
    MountWithoutLocksError, NotWritableError, DiskFullError
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock, Timeout

        path = path.resolve()
        self.mount = find_mount(path)
        check_locks(path, self.mount)
        self._path = _place(path)
        self._lock = FileLock(
            self._path,
            timeout=_PATIENCE,
            thread_local=False,  # a manager that nobody closed is closed in any thread
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
        """Let others have it. On a local file system nothing stays beside the TODO-file."""
        if self.mount.is_local and self._lock.is_locked:
            # While it is held: who waits sees that this file has lost its name, and makes another. Other nodes
            # might see that too late.
            with suppress(OSError):
                self._path.unlink()
        self._lock.release()


def _write_holder(descriptor: int, path: Path) -> None:
    share_like(descriptor, path)
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    with suppress(OSError):  # on a full disk it is held all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)


def find_holder(path: Path) -> str | None:
    """Say who works on a TODO-file; None if nobody does. Nothing is locked or written for that."""
    import fcntl

    place = _place(path.resolve())
    try:
        with place.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # until it is closed here
    except BlockingIOError:
        return _read_holder(place)
    except OSError:
        return None
    return None


def _place(path: Path) -> Path:
    return path.with_name(f"{path.name}-lock")


def _read_holder(place: Path) -> str:
    try:
        return place.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


#: File systems of one machine, whose processes can share memory. Any other may be seen from several.
_LOCAL = {
    *("apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfs", "jfs", "nilfs2"),
    *("ntfs", "ntfs3", "overlay", "reiserfs", "tmpfs", "ufs", "vfat", "xfs", "zfs"),
}

#: Options with which a lock is not taken at all, or is not seen by other nodes: of NFS (nfs(5)), Lustre
#: (mount.lustre(8)) and SMB (mount.cifs(8)).
_WITHOUT_LOCKS = re.compile(r"nolock|local_lock=(?!none$).*|localflock|noflock|nobrl")


class Mount(NamedTuple):
    """A file system in its place: its directory, its kind, and the options that it was mounted with."""

    point: str
    kind: str
    options: str

    @property
    def is_local(self) -> bool:
        """Whether it is known to be of this machine alone."""
        return self.kind in _LOCAL


def find_mount(path: Path) -> Mount:
    """Return the mount that a file lies on; of the kind 'unknown' where the system does not tell."""
    import psutil

    folder = path.resolve().parent
    found = Mount("?", "unknown", "")
    for partition in psutil.disk_partitions(all=True):
        # The longest leads to the file; of several in one place, the last lies on top.
        if folder.is_relative_to(partition.mountpoint) and len(partition.mountpoint) >= len(found.point):
            found = Mount(partition.mountpoint, partition.fstype, partition.opts)
    return found


def check_locks(path: Path, mount: Mount) -> None:
    """Check that a lock on this mount keeps everybody else out.

    Raises
    ------
    MountWithoutLocksError
    """
    options = mount.options.split(",")
    if mount.kind == "fuse.sshfs" or (not mount.is_local and any(map(_WITHOUT_LOCKS.fullmatch, options))):
        raise MountWithoutLocksError(path=path, **mount._asdict())
