"""What a PNG's pixels take before compression, and whether all of them are there (PNG specification, 3rd edition, 7.2, 8 and 10)."""

from __future__ import annotations

import struct
import zlib

# Deflate makes at most 1032 bytes of one (a match of 258 bytes in two bits).
MAX_RATIO = 1032
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; a palette's indices are one
# (first column, first row, step across, step down) of the seven passes of interlaced pictures.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_STEP = 1 << 20


def raw_bytes(width: int, height: int, depth: int, colour: int, interlaced: bool = False) -> int:
    """Bytes of all rows, each with its filter byte."""
    bits = _CHANNELS.get(colour, 1) * depth
    parts = [(width, height)]
    if interlaced:
        parts = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _ADAM7]
    return sum(h * (1 + -(-w * bits // 8)) for w, h in parts if w > 0 and h > 0)


def missing_bytes(data: bytes) -> int:
    """How many bytes of pixels the file lacks; 0 for a whole one, and for one that a decoder refuses anyway."""
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    wanted = raw_bytes(width, height, depth, colour, interlaced=len(data) > 28 and data[28] == 1)
    inflate, at, found = zlib.decompressobj(), 8, 0
    try:
        while at + 12 <= len(data) and found < wanted:
            size, kind = struct.unpack_from(">I4s", data, at)
            if kind == b"IDAT":
                rest = data[at + 8 : at + 8 + size]
                while rest and not inflate.eof:
                    found += len(inflate.decompress(rest, _STEP))
                    rest = inflate.unconsumed_tail
            at += 12 + size
        return max(0, wanted - found - len(inflate.flush()))
    except zlib.error:
        return 0
