"""Whether a JPEG is whole, told by its Huffman codes alone: yes where every decoder would decode it, or not known.

Yes is said of what nearly all files are: baseline, one scan of grey or of three components, no restart markers, nothing behind its end.
Of everything else, and of everything that is odd or damaged, nothing is said, and a decoder has to be asked.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from compiled.loading import why_not
from shards.format.jpeg import ALONE, START_OF_SCAN, segment

BASELINE = (0xC0, 0xC1)
TABLES, QUANTA, RESTART, END = 0xC4, 0xDB, 0xDD, b"\xff\xd9"
AC, COMMENT = 0x10, 0xFE
FRAMES = {*range(0xC0, 0xD0)} - {TABLES, 0xC8, 0xCC}
LARGEST = 1 << 25
"""Pixels of a larger file could overflow a decoder's sums of differences, which is its to say."""


@dataclass
class _Head:
    """What stands before the scan."""

    codes: dict[int, bytes] = field(default_factory=dict)
    """Huffman tables by class and number (0x00 to 0x03 DC, 0x10 to 0x13 AC)."""
    quanta: dict[int, bytes] = field(default_factory=dict)
    """Quantization tables by number, in the order of the zigzag."""
    size: tuple[int, int] = (0, 0)
    components: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Number, samples across and down, quantization table."""
    scan: bytes = b""
    begin: int = 0


@dataclass(frozen=True)
class GreyPlan:
    """A grey film of one scan."""

    height: int
    width: int
    across: int
    """Blocks side by side."""
    down: int
    dc: bytes
    ac: bytes
    quanta: np.ndarray
    """int32 [64], in the order of the zigzag."""
    begin: int
    """The byte at which the codes begin."""


@dataclass(frozen=True)
class ColourPlan:
    """A baseline file of one scan."""

    mcus: int
    blocks: tuple[int, ...]
    """Of each block of an MCU, which of `pairs` it has."""
    pairs: tuple[tuple[bytes, bytes], ...]
    """Tables for DC and AC as they stand in the file."""


def why_not_quick() -> str:
    """Why the codes cannot be read by machine code here; empty where they can."""
    return why_not("shards.format.jpeg_whole")


def is_quick() -> bool:
    """Whether the codes can be read by machine code here."""
    return not why_not_quick()


def surely_whole(data: bytes) -> bool:
    """True only where all pixels are there and nothing is wrong with their codes."""
    from shards.format.jpeg_whole import whole

    if (found := _segments(data)) is None:
        return False
    segments, begin = found
    plan = _plan_of(segments)
    return plan is not None and whole(data, begin, plan)


def _segments(data: bytes) -> tuple[bytes, int] | None:
    """What stands before the scan, without what says nothing of pixels (APPn, COM), and where the codes begin; None where it is not plain.

    These are the same of many files of one camera.
    """
    at, size, kept = 2, len(data), [data[:2]]
    while at + 4 <= size:
        mark, marker, length = segment(data, at)
        end = at + 2 + length
        if mark != 0xFF or marker in ALONE or marker == 0xFF or length < 2 or end > size:
            return None
        if not (0xE0 <= marker <= 0xEF or marker == COMMENT):
            kept.append(data[at:end])
        if marker == START_OF_SCAN:
            return b"".join(kept), end
        at = end
    return None


@functools.lru_cache(maxsize=256)
def _plan_of(segments: bytes) -> ColourPlan | None:
    """How files with these segments are laid out; None where they are not plain."""
    head = _head(segments)
    return _plan(head) if head else None


def grey_plan(data: bytes) -> GreyPlan | None:
    """How a grey film is laid out; None of other files, and of what is not plain."""
    head = _head(data)
    plan = _plan(head) if head and len(head.components) == 1 else None
    if head is None or plan is None:
        return None
    ((dc, ac),) = plan.pairs
    number = head.components[0][3]
    height, width = head.size
    return GreyPlan(
        height,
        width,
        -(-width // 8),
        -(-height // 8),
        dc,
        ac,
        np.frombuffer(head.quanta[number], np.uint8).astype(np.int32),
        head.begin,
    )


def _head(data: bytes) -> _Head | None:
    """The segments before the scan; None where one of them is not plain."""
    head, at = _Head(), 2
    if data[:2] != b"\xff\xd8":
        return None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if marker in ALONE or marker == 0xFF or len(segment) != length - 2 or not _take(head, marker, segment):
            return None
        at += 2 + length
        if marker == START_OF_SCAN:
            head.begin = at
            return head
    return None


def _take(head: _Head, marker: int, segment: bytes) -> bool:
    """Notes a segment; False where it is not plain."""
    if marker == TABLES:
        return _take_tables(head, segment)
    if marker == QUANTA:
        while segment:
            kind = segment[0]
            if kind > 3 or len(segment) < 65:
                return False
            head.quanta[kind] = segment[1:65]
            segment = segment[65:]
    elif marker in FRAMES:
        n = segment[5] if len(segment) > 5 else 0
        if (
            marker not in BASELINE
            or head.components
            or segment[:1] != b"\x08"
            or n not in (1, 3)
            or len(segment) != 6 + 3 * n
        ):
            return False
        head.size = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
        parts = [segment[i : i + 3] for i in range(6, len(segment), 3)]
        head.components = [(c, s >> 4, s & 15, q) for c, s, q in parts]
    elif marker == RESTART:
        return segment == b"\0\0"
    elif marker == START_OF_SCAN:
        head.scan = segment
    elif not (0xE0 <= marker <= 0xEF or marker == COMMENT):
        return False
    return True


def _take_tables(head: _Head, segment: bytes) -> bool:
    while segment:
        kind, count = segment[0], sum(segment[1:17])
        if kind & 0xEC or count > 256 or len(segment) < 17 + count:
            return False
        head.codes[kind] = segment[1 : 17 + count]
        segment = segment[17 + count :]
    return True


def _plan(head: _Head) -> ColourPlan | None:
    """None where it is not plain."""
    (height, width), n = head.size, len(head.components)
    scan = [tuple(head.scan[i : i + 2]) for i in range(1, 1 + 2 * n, 2)]
    if (
        not n
        or head.scan[:1] != bytes([n])
        or head.scan[1 + 2 * n :] != b"\0\x3f\0"
        or not 0 < height * width <= LARGEST
    ):
        return None
    if [c for c, _ in scan] != [c for c, *_ in head.components] or len({c for c, _ in scan}) != n:
        return None
    sides = [(h, v) for _, h, v, _ in head.components]
    if not all(1 <= s <= 4 for side in sides for s in side) or any(q not in head.quanta for *_, q in head.components):
        return None
    across, down = (1, 1) if n == 1 else (max(h for h, _ in sides), max(v for _, v in sides))
    each = [1] if n == 1 else [h * v for h, v in sides]
    of = [(t >> 4, AC | t & 15) for _, t in scan]
    if sum(each) > 10 or any(t not in head.codes for pair in of for t in pair):
        return None
    used = sorted({*of})
    blocks = tuple(used.index(pair) for pair, k in zip(of, each, strict=True) for _ in range(k))
    pairs = tuple((head.codes[dc], head.codes[ac]) for dc, ac in used)
    return ColourPlan(-(-width // (8 * across)) * -(-height // (8 * down)), blocks, pairs)
