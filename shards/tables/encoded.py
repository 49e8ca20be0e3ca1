"""Names that repeat, such as those of patients, by dictionary encoding: each once, in ascending order, and 4 bytes where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from shards.tables.columns import Cells, Texts

WIDEST = 128
"""Bytes of the longest name up to which names are put in order as rows of equal width."""
PART = 1 << 14


class Encoded(Cells):
    """`names`: the different ones, ascending; `code_N` int32: which of them stands at each place."""

    def __init__(self, names: Iterable[str]):
        texts = names if isinstance(names, Texts) else Texts(names)
        if (width := _width(texts)) is None:
            self.names, self.code_N = _of_words(texts)
            return
        name_N, order_N = _sorted(_rows(texts, width))
        del texts
        self.names, self.code_N = _coded(name_N, order_N)

    def __len__(self) -> int:
        return len(self.code_N)

    def cell(self, at: int) -> str:
        return self.names[int(self.code_N[at])]

    def __iter__(self) -> Iterator[str]:
        for at in range(0, len(self), PART):
            yield from map(self.names.cell, self.code_N[at : at + PART].tolist())


def _width(texts: Texts) -> int | None:
    """Bytes of the longest name; None where names are too unlike in length for rows of it, or hold zeros."""
    bytes_B, end_N = texts.as_arrays()
    width = int(np.diff(end_N, prepend=end_N.dtype.type(0)).max(initial=1))
    return width if width <= WIDEST and bytes_B.all() else None


def _rows(texts: Texts, width: int) -> np.ndarray:
    """uint8 [N, W]: names with zeros behind them."""
    bytes_B, end_N = texts.as_arrays()
    rows_NW = np.zeros((len(end_N), width), np.uint8)
    for at in range(0, len(end_N), PART):
        begin, end_P = int(end_N[at - 1]) if at else 0, end_N[at : at + PART]
        size_P = np.diff(end_P, prepend=end_N.dtype.type(begin))
        rows_NW[at : at + PART][np.arange(width) < size_P[:, None]] = bytes_B[begin : int(end_P[-1])]
    return rows_NW


def _sorted(rows_NW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names in ascending order (that of UTF-8 is that of its characters), and the place of each before."""
    name_N = rows_NW.view(f"S{rows_NW.shape[1]}")[:, 0]
    order_N = np.argsort(name_N, kind="stable").astype(np.int32 if len(name_N) >> 31 == 0 else np.int64)
    return name_N[order_N], order_N


def _coded(name_N: np.ndarray, order_N: np.ndarray) -> tuple[Texts, np.ndarray]:
    begins_N = np.ones(len(name_N), bool)
    begins_N[1:] = name_N[1:] != name_N[:-1]
    code_N = np.empty(len(name_N), np.int32)
    code_N[order_N] = np.cumsum(begins_N, dtype=np.int32) - np.int32(1)
    return Texts(name.decode("utf-8", "surrogatepass") for name in name_N[begins_N]), code_N


def _of_words(texts: Texts) -> tuple[Texts, np.ndarray]:
    words = sorted({*texts})
    place = {word: i for i, word in enumerate(words)}
    return Texts(words), np.fromiter((place[t] for t in texts), np.int32, len(texts))
