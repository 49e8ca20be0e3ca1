"""Grey JPEGs with any Huffman tables and any coefficients, written code by code (ITU-T T.81, F.1.2): what no encoder would make."""

from __future__ import annotations

import numpy as np


def table(rng: np.random.Generator, symbols: list[int], shortest: int) -> tuple[bytes, dict[int, tuple[int, int]]]:
    """(as in a DHT segment, symbol -> code and its bits): symbols in any order, codes of `shortest` to 16 bits."""
    counts, codes, code, left = [0] * 17, {}, 0, [int(s) for s in rng.permutation(symbols)]
    order = list(left)
    for n in range(1, 17):
        free = (1 << n) - 1 - code  # the code of ones alone is kept free
        while left and n >= shortest and free > 0:
            # As many as leave room for the others.
            if (n < 16 and (free - 1) << (16 - n) < len(left)) or (n < 16 and rng.random() < 0.5):
                break
            codes[left.pop(0)] = code, n
            counts[n], code, free = counts[n] + 1, code + 1, free - 1
        code <<= 1
    assert not left
    return bytes(counts[1:]) + bytes(order), codes


def coded(blocks: np.ndarray, across: int, quanta: int, rng: np.random.Generator, shortest: int = 1) -> bytes:
    """A JPEG of blocks int [N, 64] (DC as differences, then AC in the order of the zigzag), `across` of them side by side."""
    dc, dc_codes = table(rng, list(range(12)), 1 if shortest == 1 else 4)
    ac, ac_codes = table(rng, [r << 4 | s for r in range(16) for s in range(1, 11)] + [0x00, 0xF0], shortest)
    bits: list[str] = []

    def put(code: tuple[int, int], value: int, size: int) -> None:
        bits.append(format(code[0], f"0{code[1]}b"))
        if size:
            bits.append(format(value if value > 0 else value + (1 << size) - 1, f"0{size}b"))

    for block in blocks.tolist():
        put(dc_codes[abs(block[0]).bit_length()], block[0], abs(block[0]).bit_length())
        run = 0
        for value in block[1 : 1 + max((i for i in range(1, 64) if block[i]), default=0)]:
            if value == 0:
                run += 1
                continue
            while run > 15:
                put(ac_codes[0xF0], 0, 0)
                run -= 16
            size = abs(value).bit_length()
            put(ac_codes[run << 4 | size], value, size)
            run = 0
        if block[63] == 0:
            put(ac_codes[0x00], 0, 0)
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width = 8 * len(blocks) // across, 8 * across
    frame = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\x01\x01\x11\0"
    segments = [(0xDB, b"\0" + bytes([quanta]) * 64), (0xC0, frame), (0xC4, b"\0" + dc), (0xC4, b"\x10" + ac)]
    segments.append((0xDA, b"\x01\x01\0\0\x3f\0"))
    head = b"".join(bytes([0xFF, m]) + (len(s) + 2).to_bytes(2, "big") + s for m, s in segments)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"
