"""The rows of an index while its shard is written: 26 bytes a member and the key of each sample once, where tuples took 400."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from shards.format.info import index_dtype


class MemberRows:
    """Members of samples, one sample after the other."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._kinds: dict[tuple[str, str], int] = {}
        self._sample, self._kind = array("I"), array("H")
        self._offset, self._size, self._crc32 = array("Q"), array("Q"), array("I")
        self._samples = 0

    def add(self, key: str, begin: int, places: Iterable[tuple[str, str, int, int, int]]) -> None:
        """A sample that begins at byte `begin`; of its members field, extension, offset from there, size, CRC-32."""
        self._keys += key.encode() + b"\n"
        for field, ext, at, size, crc32 in places:
            self._sample.append(self._samples)
            self._kind.append(self._kinds.setdefault((field, ext), len(self._kinds)))
            self._offset.append(begin + at)
            self._size.append(size)
            self._crc32.append(crc32)
        self._samples += 1

    def index(self) -> np.ndarray:
        """All of them, in the form of the file."""
        sample = np.frombuffer(self._sample, np.uint32)
        keys = np.array(bytes(self._keys).split(b"\n")[:-1] or [b""])
        fields, exts = (np.array([k[part].encode() for k in self._kinds] or [b""]) for part in (0, 1))
        index = np.empty(len(sample), index_dtype(keys.itemsize, fields.itemsize))
        kind = np.frombuffer(self._kind, np.uint16)
        index["sample"], index["key"] = sample, keys[sample] if len(sample) else b""
        index["field"], index["ext"] = fields[kind], exts[kind]
        for name in ("offset", "size", "crc32"):
            index[name] = getattr(self, f"_{name}")
        return index
