"""An index opened and checked: is it the sealed one, does every row make sense, does the tar say the same.

A wrong row would give one patient's bytes another's name, so nothing of an index is used before it has been looked at whole. Nothing
is allocated by a number that was read: the file is mapped, and counts are compared with its size first.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from shards.errors import BrokenSeal, Problem, bad, typed
from shards.format.info import FIELD, KEY, KINDS, ShardInfo, index_dtype, index_path
from shards.format.npy import NpyError, header_fields, header_length

FIX_SEAL = "run `python -m shards seal` on the folder: it builds indexes anew from tars that are as they were sealed"
BLOCK = 512
LARGE = 8 << 30
"""Bytes from which on a tar's header has its size in another form; the checksum is left to tell then."""
MAX_NAME = 4096
"""Longest key or field of a row; no file system takes a longer name."""


class IndexFile:
    """The index file of a shard, mapped.

    Raises:
        DataError: no such file, or it cannot be read.
    """

    def __init__(self, shard: Path):
        self.path, self._mend = index_path(shard), f"run `python -m shards index {typed(shard.parent)}`"
        try:
            with open(self.path, "rb") as f:
                self.seen = os.fstat(f.fileno())
                self._data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if self.seen.st_size else b""
        except FileNotFoundError as e:
            raise bad("the shard has no index", self.path, self._mend) from e
        except (ValueError, OSError) as e:
            raise bad(f"the index cannot be opened ({e})", self.path, self._mend) from e

    def check_seal(self, sealed: str | None) -> None:
        """Raises BrokenSeal unless the file has the SHA-256 `sealed` (None: it was never sealed)."""
        if sealed is not None and hashlib.sha256(self._data).hexdigest() != sealed:
            what = "the index is not the one that the data set was sealed with (hash mismatch)"
            raise BrokenSeal(Problem(what, str(self.path), FIX_SEAL))

    def rows(self) -> np.ndarray:
        """Its rows, read-only. Raises BrokenSeal where the file is no index."""
        try:
            return _rows(self._data)
        except NpyError as e:
            raise BrokenSeal(Problem(f"not an index: {e}", str(self.path), self._mend)) from e


def open_index(shard: Path, sealed: str | None = None) -> np.ndarray:
    """The index of a shard, memory-mapped and read-only; its rows are not looked at yet (`faults`).

    Args:
        sealed: the SHA-256 that it must have (`ShardInfo.index_sha256`).

    Raises:
        DataError: no index, or it cannot be read.
        BrokenSeal: not an index, or another one than the sealed one.
    """
    file = IndexFile(shard)
    file.check_seal(sealed)
    return file.rows()


def _rows(data: mmap.mmap | bytes) -> np.ndarray:
    """The rows of an index file.

    Raises:
        NpyError: not an NPY of the columns that `index_dtype` names, or longer or shorter than its header says.
    """
    start = header_length(data[:12])
    fields = header_fields(data[:start])
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    widths = [
        int(width) for name in ("key", "field") for width in re.findall(rf"'{name}', '\|S([0-9]{{1,9}})'", str(descr))
    ]
    if len(widths) != 2 or not isinstance(shape, tuple) or len(shape) != 1:
        raise NpyError(f"it has columns {descr}, shape {shape!r}")
    (count,) = shape
    if not all(0 < w <= MAX_NAME for w in widths) or count < 1 or fortran is not False:
        raise NpyError(f"its header says {widths} characters, shape {shape!r}, order {fortran!r}")
    dtype = index_dtype(*widths)
    if descr != np.lib.format.dtype_to_descr(dtype):
        raise NpyError(f"it has columns {descr}")
    if start + count * dtype.itemsize != len(data):
        raise NpyError(f"{count} rows need {start + count * dtype.itemsize} bytes, the file has {len(data)}")
    return np.frombuffer(data, dtype, count, start)


def faults(index: np.ndarray, samples: int | None, tar_bytes: int) -> Iterator[str]:
    """What cannot be true of the index of a tar of `tar_bytes` bytes and `samples` samples (None: of any number).

    Rows are in tar order, so samples count up by one, and no member begins before the one before it has ended.
    """
    if why := _wrong_words(index):
        yield why  # nothing below can be said of it
        return
    sample = index["sample"].astype(np.int64)
    step = np.diff(sample, prepend=-1)
    first = step != 0
    if sample[0] != 0 or not np.isin(step, (0, 1)).all() or samples not in (None, int(sample[-1]) + 1):
        yield f"its rows are not those of {samples or 'so many'} samples, one after the other (the last is {sample.max()})"
        return
    keys = index["key"][first]
    if (at := np.flatnonzero(index["key"] != keys[sample])).size:
        row = index[at[0]]
        own, other = keys[sample[at[0]]].decode(), row["key"].decode()
        yield f"row {at[0]} gives a member of '{other}' to sample '{own}' ({at.size} such rows)"
    if len(np.unique(keys)) != len(keys):
        yield "a key stands for two samples"
    names, of = np.unique(index["field"], return_inverse=True)
    codes = sample * len(names) + of
    seen, counts = np.unique(codes, return_counts=True)
    if (counts > 1).any():
        twice = int(seen[counts > 1][0])
        key, name = keys[twice // len(names)].decode(), names[twice % len(names)].decode()
        yield f"sample '{key}' has field '{name}' twice ({int((counts > 1).sum())} such)"
    yield from _wrong_places(index, tar_bytes)


def _wrong_words(index: np.ndarray) -> str | None:
    """A key, field or extension that no member can have."""
    for column, valid in (("key", KEY.fullmatch), ("field", FIELD.fullmatch), ("ext", KINDS.__contains__)):
        for word in np.unique(index[column]).tolist():
            if not word.isascii() or not valid(word.decode()):
                return f"{column} {word!r}"
    # What stands behind a shorter word's end is not read, and so never compared.
    return None


def _wrong_places(index: np.ndarray, tar_bytes: int) -> Iterator[str]:
    offset, size = index["offset"], index["size"]
    limit = np.uint64(tar_bytes)
    outside = (offset > limit) | (size > limit) | (offset % BLOCK != 0)
    if not outside.any():
        outside = offset + size > limit
    if outside.any():
        row = index[int(np.argmax(outside))]
        yield f"{_name(row)} lies at {row['offset']}, {row['size']} bytes long, in a tar of {tar_bytes} bytes"
        return
    ends = offset + (size + np.uint64(BLOCK - 1)) // np.uint64(BLOCK) * np.uint64(BLOCK)
    over = np.flatnonzero(offset[1:] < ends[:-1] + np.uint64(BLOCK))
    if over.size or offset[0] < BLOCK:
        at = int(over[0]) + 1 if over.size else 0
        yield f"{_name(index[at])} begins inside of the member before it"


def _name(row: np.void) -> str:
    return ".".join(row[c].decode() for c in ("key", "field", "ext"))


def not_in_headers(fd: int, index: np.ndarray) -> Iterator[str]:
    """Rows that say something else than the tar's own headers: the check for indexes that nobody sealed."""
    at = 0
    for row in index:
        name, size, offset = _name(row), int(row["size"]), int(row["offset"])
        while at < offset - BLOCK and (length := _of_extra_header(os.pread(fd, BLOCK, at))) is not None:
            at += BLOCK + -(-length // BLOCK) * BLOCK
        header = os.pread(fd, BLOCK, offset - BLOCK)
        stored = header[:100].rstrip(b"\0").decode("ascii", "replace")
        if at != offset - BLOCK:
            yield f"a member of the tar before {name} is not in it"
        # A longer name stands in an extra header, and the first 100 characters of it here.
        elif stored != name[:100] or (_octal(header) != size and size < LARGE):
            yield f"{name} of {size} bytes is '{stored[:100]}' in the tar's header"
        at = offset + -(-size // BLOCK) * BLOCK
    if os.pread(fd, BLOCK, at).strip(b"\0"):
        yield "a member of the tar after the last is not in it"


def _octal(header: bytes) -> int | None:
    """The size in a tar's header; those of LARGE and more stand in another form."""
    try:
        return int(header[124:136].rstrip(b"\0 "), 8)
    except ValueError:
        return None


def _of_extra_header(header: bytes) -> int | None:
    """How much belongs to a header that only adds to the next one (a long name, PAX records); None for any other."""
    return _octal(header) if header[156:157] in (b"x", b"g", b"L", b"K") else None


def check_index(index: np.ndarray, shard: Path, info: ShardInfo, fd: int) -> None:
    """Refuses an index that cannot be that of the open tar `fd`.

    Raises:
        BrokenSeal: see `faults`; for an index that was not sealed also `not_in_headers`.
    """
    found = list(faults(index, info.samples, info.bytes))
    if not found and info.index_sha256 is None:
        found = list(not_in_headers(fd, index))
    if found:
        raise broken(found, shard)


def broken(found: Sequence[str], shard: Path) -> BrokenSeal:
    """The error for an index with these faults."""
    rest = f", and {len(found) - 3} more" if len(found) > 3 else ""
    what = f"the index does not describe the shard: {'; '.join(found[:3])}{rest}"
    return BrokenSeal(Problem(what, str(index_path(shard)), FIX_SEAL))
