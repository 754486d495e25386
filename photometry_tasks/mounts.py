"""Which file system a file lies on, and whether the locks there hold."""

import re
from pathlib import Path
from typing import NamedTuple

from photometry_tasks.errors import MountWithoutLocksError

__all__ = ["Mount", "check_locks", "find_mount"]

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
