"""Which files some process of this machine has locked. Taking a lock to ask would refuse a run that starts just then."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Locks:
    """Locked files as /proc/locks has them, "major:minor:inode", and by the number of a mount the device of its file system.

    An inode's number alone says nothing: every file system counts its own. The device is that of the mount and not `st_dev`, which on
    btrfs and overlayfs is another number.
    """

    held: frozenset[str] = frozenset()
    devices: dict[str, str] = field(default_factory=dict)

    def on(self, path: Path) -> bool:
        """Whether the file is there and locked."""
        if not self.held:
            return False
        try:
            fd = os.open(path, os.O_PATH)
        except OSError:
            return False
        try:
            about = Path(f"/proc/self/fdinfo/{fd}").read_text().split()
            mount = about[about.index("mnt_id:") + 1]
            return f"{self.devices.get(mount)}:{os.fstat(fd).st_ino}" in self.held
        finally:
            os.close(fd)


def locks() -> Locks:
    """The locks of now; none on a system that does not tell."""
    try:
        locked = Path("/proc/locks").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return Locks()
    held = {cell for line in locked if "FLOCK" in line for cell in line.split() if cell.count(":") == 2}
    devices = {}
    for mount, _, device, *_ in map(str.split, mounts):
        major, minor = map(int, device.split(":"))
        devices[mount] = f"{major:02x}:{minor:02x}"
    return Locks(frozenset(held), devices)
