"""Reads the Huffman codes of a baseline JPEG from first to last and makes nothing of them: whether all of its pixels are there.

A decoder does that too, and spends its time on one code after another (ITU-T T.81, F.2.2). Here one look-up in a table takes as many codes
as begin within its bits, since where the next one begins is all that is asked. Compiled by numba (extra `numba`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit, types, uint64

LOOK = 12
"""Bits by which a table is asked."""
LENGTH = (
    6  # bits of an entry that hold how many bits of the file it takes; above them by how many coefficients it goes on
)
MOST = 31
"""Bits of the file that one look-up takes at most."""
END = 256  # added to the coefficients where the block ends (EOB)
LARGEST_DC = 11  # bits of a difference of 8-bit samples


_READ_ONLY = types.Array(types.uint8, 1, "C", readonly=True)


# Compiled when this module is loaded, once for all processes that are forked then; the machine code is kept on disk.
@njit(types.int64(_READ_ONLY, types.uint8[::1]), nogil=True, cache=True)
def unstuffed(codes: np.ndarray, out: np.ndarray) -> int:
    """Copies the bytes of a scan without the zeros that stand behind each 255; how many they are, -1 where a marker stands among them."""
    n, i = 0, 0
    while i < len(codes):
        byte = codes[i]
        out[n] = byte
        n += 1
        i += 1
        if byte == 255:
            if i == len(codes) or codes[i] != 0:
                return -1
            i += 1
    return n


@lru_cache(maxsize=64)
def tables(codes: tuple[tuple[bytes, bool], ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Of several tables what `table` gives of each, as rows; None where one of them is not sure."""
    found = [table(code, is_dc) for code, is_dc in codes]
    rest = np.zeros((len(found), 51 + 256), np.int64)
    each = [t for t in found if t is not None]
    for row, t in zip(rest, each, strict=False):
        row[: len(t[2])] = t[2]
    return (np.stack([t[0] for t in each]), np.stack([t[1] for t in each]), rest) if len(each) == len(found) else None


def table(code: bytes, is_dc: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Look-ups of a table as it stands in a DHT segment (16 counts, then the symbols): entries of one code and of several, and, for codes
    longer than `LOOK`, [17, 3] of each length: its first code, how many there are, where their symbols begin; with all symbols.

    None where it is not surely one that decoders take.
    """
    counts, symbols = np.frombuffer(code[:16], np.uint8).astype(np.int64), np.frombuffer(code[16:], np.uint8)
    if counts.sum() != len(symbols) or not len(symbols) or (is_dc and symbols.max() > LARGEST_DC):
        return None
    lengths = np.zeros((17, 3), np.int64)
    first = at = 0
    for n in range(1, 17):
        lengths[n] = first, counts[n - 1], at
        if first + counts[n - 1] > (1 << n) - 1:  # the code of ones alone is kept free
            return None
        first, at = 2 * (first + counts[n - 1]), at + counts[n - 1]
    one, code_bits = _one(lengths, symbols, is_dc)
    rest = np.hstack([lengths.ravel(), symbols]).astype(np.int64)
    return one, one if is_dc else _several(one, code_bits), rest


def _one(lengths: np.ndarray, symbols: np.ndarray, is_dc: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of each of 2^LOOK fronts of the bits: the entry of its code, 0 where that is longer, and the code's own bits."""
    entries, code_bits = np.zeros((2, 1 << LOOK), np.int64)
    for n in range(1, LOOK + 1):
        first, count, at = lengths[n]
        for i in range(count):
            here = slice((first + i) << (LOOK - n), (first + i + 1) << (LOOK - n))
            entries[here], code_bits[here] = _entry(int(symbols[at + i]), n, is_dc), n
    return entries.astype(np.uint16), code_bits


def _entry(symbol: int, code_bits: int, is_dc: bool) -> int:
    run, size = (0, symbol) if is_dc else (symbol >> 4, symbol & 15)
    on = 0 if is_dc else END if size == 0 and run < 15 else run + 1
    return on << LENGTH | code_bits + size


def _several(one: np.ndarray, code_bits: np.ndarray) -> np.ndarray:
    """uint16 [2^LOOK]: as many codes as stand whole in the bits, up to the end of a block."""
    bits, entries, mask = np.arange(1 << LOOK), one.astype(np.int64), (1 << LENGTH) - 1
    for _ in range(LOOK):
        taken = np.minimum(entries & mask, LOOK)
        behind = (bits << taken) & ((1 << LOOK) - 1)
        more = one[behind].astype(np.int64)
        fits = (entries > 0) & (more > 0) & (code_bits[behind] <= LOOK - taken) & (entries >> LENGTH < END)
        fits &= (entries & mask) + (more & mask) <= MOST
        if not fits.any():
            break
        entries = np.where(fits, entries + more, entries)
    return entries.astype(np.uint16)


@njit("i8(i8, i8[::1], b1)", nogil=True, cache=True)
def _long(front: int, rest: np.ndarray, is_dc: bool) -> int:
    """The entry of a code longer than `LOOK` at the front of 16 bits; 0 where there is none."""
    for n in range(LOOK + 1, 17):
        first, count, at = rest[3 * n], rest[3 * n + 1], rest[3 * n + 2]
        code = (front >> (16 - n)) - first
        if 0 <= code < count:
            symbol = rest[51 + at + code]
            if is_dc:
                return n + symbol
            run, size = symbol >> 4, symbol & 15
            return (END if size == 0 and run < 15 else run + 1) << LENGTH | n + size
    return 0


@njit("b1(u4[::1], i8, i8, i8[:, ::1], u2[:, ::1], u2[:, ::1], i8[:, ::1])", nogil=True, cache=True)
def whole(
    words: np.ndarray, bits: int, mcus: int, blocks: np.ndarray, one: np.ndarray, several: np.ndarray, rest: np.ndarray
) -> bool:
    """Whether `bits` bits, less than a byte of filling aside, are the codes of so many MCUs.

    Args:
        words: uint32, the bits from the front on, and two words of anything behind them.
        blocks: int64 [blocks of an MCU, 2], the DC and AC table of each, as rows of `one`, `several` and `rest`.
    """
    held, have, at = uint64(0), 0, 0  # bits that were fetched, how many, and the next word
    for _ in range(mcus):
        for b in range(len(blocks)):
            number, k = blocks[b, 0], 0
            while k < 64:
                if have < 32:
                    if at == len(words):
                        return False
                    held |= uint64(words[at]) << uint64(32 - have)
                    at += 1
                    have += 32
                entry = int(several[number, held >> uint64(64 - LOOK)])
                on = k + (entry >> LENGTH)
                if (
                    entry == 0 or 64 < on < END or on > END + 63
                ):  # a long code, or several of which some are of the next block
                    entry = int(one[number, held >> uint64(64 - LOOK)])
                    if entry == 0:
                        entry = _long(int(held >> uint64(48)), rest[number], k == 0)
                    on = k + (entry >> LENGTH)
                    if entry == 0 or 64 < on < END or on > END + 63:
                        return False
                held <<= uint64(entry & ((1 << LENGTH) - 1))
                have -= entry & ((1 << LENGTH) - 1)
                if k == 0:
                    number, on = blocks[b, 1], 1
                k = on
    return 0 <= bits - (32 * at - have) < 8
