"""The index of a shard: where the bytes of every member lie, so that reading is by offset and never by walking a tar."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem
from shards.format import KINDS, index_dtype, index_path, split_member, write_atomic

_CHUNK = 1 << 20
_BLOCK = 512
_NAMES = "name members KEY.FIELD.EXT with EXT one of " + ", ".join(sorted(KINDS))
_ADJACENT = "give every sample a key of its own and keep its members together"
_REPACK = "pack the shard again, or copy it again from its source"


# sample, key, field, ext, offset, size, crc32
Row = tuple[int, str, str, str, int, int, int]


def build(shard: Path) -> np.ndarray:
    """Walks a tar once and returns its index: one row a member, in tar order, `format.index_dtype`.

    Raises:
        DataError: every problem of the shard at once: truncated or not a plain tar, members that are not regular files or not
            KEY.FIELD.EXT of the allow-list, a member twice, a key whose members are not adjacent.
    """
    shard = Path(shard)
    problems: list[Problem] = []
    rows: list[Row] = []
    keys: set[str] = set()
    fields: set[str] = set()
    with open(shard, "rb") as f:
        for name, offset, size in _members(shard, problems):
            parts = split_member(name)
            if parts is None:
                problems.append(Problem(_why_refused(name), f"{shard.name}: {name!r}", _NAMES))
                continue
            key, field, ext = parts
            if not rows or key != rows[-1][1]:
                fields = set()
                if key in keys:
                    problems.append(
                        Problem(f"key '{key}' comes back after other samples", f"{shard.name}: {name}", _ADJACENT)
                    )
                keys.add(key)
            if field in fields:
                problems.append(
                    Problem(f"sample '{key}' has field '{field}' twice", f"{shard.name}: {name}", "keep one of them")
                )
            fields.add(field)
            rows.append((len(keys) - 1, key, field, ext, offset, size, _crc32(f.fileno(), offset, size)))
    if not rows and not problems:
        problems.append(Problem("no member", shard.name, "remove the empty shard and index again"))
    if problems:
        raise DataError(problems)
    return from_rows(rows)


def from_rows(rows: list[Row]) -> np.ndarray:
    """An index from (sample, key, field, ext, offset, size, crc32) of every member."""
    dtype = index_dtype(max(len(r[1]) for r in rows), max(len(r[2]) for r in rows))
    # Keys and fields are ASCII by the format's patterns.
    return np.array([(s, k.encode(), f.encode(), e.encode(), o, n, c) for s, k, f, e, o, n, c in rows], dtype=dtype)


def to_bytes(index: np.ndarray) -> bytes:
    """The file form of an index."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, index, allow_pickle=False)
    return buffer.getvalue()


def save(shard: Path, index: np.ndarray) -> Path:
    """Writes the index beside its shard, atomically."""
    path = index_path(shard)
    write_atomic(path, to_bytes(index))
    return path


def seal_of(index: np.ndarray) -> str:
    """The SHA-256 of the index's file, which `ShardInfo.index_sha256` keeps."""
    return hashlib.sha256(to_bytes(index)).hexdigest()


def _why_refused(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        return "the name leaves the folder"
    if name.rsplit(".", 1)[-1].lower() in ("pickle", "pkl", "pyd", "pth", "pt", "npz", "joblib"):
        return "the kind can carry code and is never read"
    return "the name is not KEY.FIELD.EXT of the allowed kinds"


def _members(shard: Path, problems: list[Problem]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of every regular member; what is wrong with the archive itself goes to `problems`."""
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                if not member.isreg() or member.issparse():
                    problems.append(
                        Problem(
                            "not a plain file (a link, folder, device or sparse file)",
                            f"{shard.name}: {member.name!r}",
                            "store plain files only",
                        )
                    )
                else:
                    yield member.name, member.offset_data, member.size
                tar.members = []  # type: ignore[attr-defined]  # else every header of the shard stays in memory
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError) as e:
        problems.append(Problem(f"truncated, or not an uncompressed tar ({e})", str(shard), _REPACK))
        return
    # tarfile takes a damaged header for the end of the archive; a real end is a block of zeros.
    with open(shard, "rb") as f:
        f.seek(end)
        if f.read(_BLOCK) != bytes(_BLOCK):
            problems.append(
                Problem(f"truncated or damaged: no member and no end mark at byte {end}", str(shard), _REPACK)
            )


def _crc32(fd: int, offset: int, size: int) -> int:
    crc, end = 0, offset + size
    while offset < end:
        data = os.pread(fd, min(_CHUNK, end - offset), offset)
        if not data:
            break
        crc = zlib.crc32(data, crc)
        offset += len(data)
    return crc
