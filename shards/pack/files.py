"""The files that a packing reads, in the order in which they are met: their bytes, and a digest of what they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from isal import isal_zlib

from shards.format.describe import HeaderError

LATELY = 4096
"""Files that are remembered; one that is met again after so many others counts again, in every command alike."""
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
        if not path.is_file():
            raise HeaderError("no such file", f"looked at {path}; paths are relative to the manifest")
        stat = path.stat()
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
