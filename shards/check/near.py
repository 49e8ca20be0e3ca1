"""Contents that look alike without being the same bytes: films by a perceptual hash, bags by the patches that they share.

A film that was encoded anew, made smaller or brighter, and a bag of which patches were left out are other contents (witness.py does not
see them). What is found here is a hint, not a proof: two films of one protocol can look alike to a hash, so nothing is refused by it.

Films: the signs of low frequencies. Grey values are averaged to 64 x 64, and of their cosine transform the 16 x 16 lowest coefficients are
compared with their median: 256 bits (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, section 3.2.1, there
8 x 8 of 32 x 32). Two films are near-equal where at most NEAR of the bits differ.

Bags: each row of an array is hashed by its bytes, and a bag keeps the SKETCH smallest of its hashes (Broder, On the resemblance and
containment of documents, 1997). Two bags are near-equal where SHARED of them are the same; rows without variation are left out, as are
rows that stand in the sketches of more than MANY people.

Shape letters: M contents, W words of 64 bits, K hashes of a sketch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shards.check.witness import MANY, is_witness, tells
from shards.format.info import KINDS

if TYPE_CHECKING:
    from shards.read.dataset import Dataset

SIDE, LOW = 64, 16
NEAR = 24
SKETCH, SHARED = 256, 2
THREADS = 4
CHUNK = 1 << 22


@dataclass(frozen=True)
class Signatures:
    """What contents look like: `film_MW` uint64 [M, 4] of the samples `film_M`, `row_M` uint64 hashes of rows and the samples `bag_M`
    that hold them. Samples are numbers in the data set that they were taken of."""

    film_MW: np.ndarray
    film_M: np.ndarray
    row_M: np.ndarray
    bag_M: np.ndarray

    def of(self, samples: np.ndarray) -> Signatures:
        """Those of some samples."""
        films, bags = np.isin(self.film_M, samples), np.isin(self.bag_M, samples)
        return Signatures(self.film_MW[films], self.film_M[films], self.row_M[bags], self.bag_M[bags])


class Pair(NamedTuple):
    """Two samples, the one that is asked about first, and how alike: bits that differ (films), rows that are shared (bags)."""

    mine: int
    theirs: int
    what: str
    how: int


def film_hash(image: np.ndarray) -> np.ndarray:
    """uint64 [4] of an image [H, W] or [H, W, C] of any whole numbers."""
    from PIL import Image
    from scipy.fft import dctn

    grey_HW = image.astype(np.float32) if image.ndim == 2 else image.astype(np.float32).mean(-1)
    small = Image.fromarray(grey_HW).resize((SIDE, SIDE), Image.Resampling.BOX)
    low = dctn(np.asarray(small, np.float64), norm="ortho")[:LOW, :LOW].ravel()
    return np.packbits(low > np.median(low[1:])).view(np.uint64)


def row_hashes(bag: np.ndarray) -> np.ndarray:
    """The SKETCH smallest hashes of the different rows of an array [L, D], uint64 ascending; rows without variation are left out."""
    rows = np.ascontiguousarray(bag[(bag != bag[:, :1]).any(1)])
    if not rows.size:
        return np.empty(0, np.uint64)
    padded = np.zeros((len(rows), -(-rows[0].nbytes // 8) * 8), np.uint8)
    padded[:, : rows[0].nbytes] = rows.view(np.uint8).reshape(len(rows), -1)
    return np.unique(_mixed(padded.view(np.uint64)))[:SKETCH]


def _mixed(word_LW: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row of words: a sum of words by random odd factors, stirred (the finaliser of MurmurHash3)."""
    factor_W = np.random.default_rng(20_261).integers(0, 2**63, word_LW.shape[1], np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    x_L = ((word_LW ^ (word_LW >> np.uint64(29))) * factor_W).sum(1, dtype=np.uint64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x_L = (x_L ^ (x_L >> np.uint64(33))) * np.uint64(factor)
    return np.asarray(x_L ^ (x_L >> np.uint64(33)))


def cost(data: Dataset, samples: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """What `signatures` would read: films, and bytes of bags."""
    films, bags = _fields(data)
    records = [data[int(i)] for i in samples]
    return (
        sum(r.has(n) for r in records for n in films),
        sum(int(r.size(n)) for r in records for n in bags if r.has(n)),
    )


def _fields(data: Dataset) -> tuple[list[str], list[str]]:
    """Names of the films and of the bags."""
    fields = [(n, f) for n, f in sorted(data.info.fields.items()) if is_witness(n, f)]
    films = [n for n, f in fields if KINDS[f.ext] == "image"]
    return films, [n for n, f in fields if n not in films and f.shape is not None and len(f.shape) == 2]


def signatures(data: Dataset, samples: Sequence[int] | np.ndarray) -> Signatures:
    """Of all films and bags of some samples; each is read and decoded once."""
    films, bags = _fields(data)

    def look(sample: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        record = data[sample]
        pictures = [np.asarray(record.read(n)) for n in films if record.has(n)]
        rows = [row_hashes(np.asarray(record.read(n))) for n in bags if record.has(n)]
        return [film_hash(p) for p in pictures if tells(p)], rows

    numbers = [int(i) for i in samples]
    with ThreadPoolExecutor(THREADS) as pool:
        looked = list(pool.map(look, numbers))
    found = [(h, i) for i, (hashes, _) in zip(numbers, looked, strict=True) for h in hashes]
    rows = [(r, i) for i, (_, sketches) in zip(numbers, looked, strict=True) for r in sketches]
    return Signatures(
        np.array([h for h, _ in found], np.uint64).reshape(-1, LOW * LOW // 64),
        np.array([i for _, i in found], np.int64),
        np.concatenate([np.empty(0, np.uint64), *(r for r, _ in rows)]),
        np.concatenate([np.empty(0, np.int64), *(np.full(len(r), i) for r, i in rows)]),
    )


def near_pairs(mine: Signatures, theirs: Signatures, people_N: np.ndarray | None = None) -> list[Pair]:
    """Pairs of samples that look alike, each sample of `mine` with the most alike one of `theirs`.

    Args:
        people_N: of one data set the patient of each sample: two samples of one patient are no pair.
    """
    best: dict[tuple[int, str], Pair] = {}
    for pair in (*_films(mine, theirs), *_bags(mine, theirs)):
        if people_N is not None and people_N[pair.mine] == people_N[pair.theirs]:
            continue
        known = best.get((pair.mine, pair.what))
        closer = known is None or (pair.how < known.how if pair.what == "film" else pair.how > known.how)
        if closer:
            best[pair.mine, pair.what] = pair
    return [best[k] for k in sorted(best)]


def _films(mine: Signatures, theirs: Signatures) -> Iterator[Pair]:
    rows = max(1, CHUNK // max(1, len(theirs.film_MW) * mine.film_MW.shape[1]))
    for start in range(0, len(mine.film_MW), rows):
        differing = mine.film_MW[start : start + rows, None] ^ theirs.film_MW[None]
        bits = np.bitwise_count(differing).sum(2, dtype=np.int64)
        for i, j in np.argwhere(bits <= NEAR):
            yield Pair(int(mine.film_M[start + i]), int(theirs.film_M[j]), "film", int(bits[i, j]))


def _bags(mine: Signatures, theirs: Signatures) -> Iterator[Pair]:
    """Rows in common, where enough are."""
    both = np.intersect1d(mine.row_M, theirs.row_M)
    counts: dict[tuple[int, int], int] = {}
    sides = [(s.row_M[at], s.bag_M[at]) for s in (mine, theirs) for at in [np.isin(s.row_M, both)]]
    (row_a, bag_a), (row_b, bag_b) = ((r[o], b[o]) for r, b in sides for o in [np.argsort(r, kind="stable")])
    for row in both:
        here = [
            bag[slice(*np.searchsorted(rows, [row, row + np.uint64(1)]))]
            for rows, bag in ((row_a, bag_a), (row_b, bag_b))
        ]
        if max(map(len, here)) > MANY:
            continue  # a patch of many people: background
        for i in here[0].tolist():
            for j in here[1].tolist():
                counts[i, j] = counts.get((i, j), 0) + 1
    yield from (Pair(i, j, "bag", n) for (i, j), n in counts.items() if n >= SHARED)
