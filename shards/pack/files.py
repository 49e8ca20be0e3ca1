"""The files that a packing reads, in the order in which they are met: their bytes, and a digest of what they are."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from stat import S_ISREG

from isal import isal_zlib

from shards.format.describe import HeaderError

LATELY = 4096
"""Files that are remembered; one that is met again after so many others counts again, in every command alike."""
SLASHES = "write / in place of \\ in the paths, which every system reads"
JPEG = (".jpg", ".jpeg")


class Files:
    """Call `note` for every file.

    Args:
        scratch: of files below it, which each command makes anew, the content counts and not the time.
    """

    def __init__(self, scratch: Path | None = None):
        self.scratch = scratch
        self.bytes = self.jpeg_bytes = 0
        self._sha, self._lately = hashlib.sha256(), dict[Path, int]()

    def note(self, path: Path) -> int:
        """Bytes of a file.

        Raises:
            HeaderError: there is none.
        """
        if (size := self._lately.get(path)) is not None:
            return size
        stat = _stat(path)
        if stat is None or not S_ISREG(stat.st_mode):
            slashes = f"{SLASHES}; " if "\\" in str(path) else ""
            raise HeaderError("no such file", f"{slashes}looked at {path}; paths are relative to the manifest")
        made = self.scratch is not None and path.is_relative_to(self.scratch)
        stamp = [str(path), stat.st_size, isal_zlib.crc32(path.read_bytes()) if made else stat.st_mtime_ns]
        self._sha.update(json.dumps(stamp).encode() + b"\n")
        self.bytes += stat.st_size
        self.jpeg_bytes += stat.st_size if path.suffix.lower() in JPEG else 0
        self._lately[path] = stat.st_size
        if len(self._lately) > LATELY:
            del self._lately[next(iter(self._lately))]
        return stat.st_size

    def digest(self) -> str:
        return self._sha.hexdigest()


def begins_as_film(file: Path) -> bool:
    """DICOM films often have no ending."""
    with open(file, "rb") as f:
        return f.read(132)[128:] == b"DICM"


def _stat(path: Path) -> os.stat_result | None:
    """None where `Path.is_file` says no without an error: nothing there, or a name that no file can have."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as e:
        if e.errno in (errno.EBADF, errno.ELOOP):
            return None
        raise
