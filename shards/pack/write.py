"""Writes a data set: deterministic tars with their index, in a staging folder that takes its place in one rename.

Same samples, same bytes: ustar headers with time, owner and mode fixed, members of a sample sorted by field. Nothing under the
final name changes until everything is on disk, so an interrupted or failed write never leaves half a data set.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

from shards.errors import bad
from shards.format.describe import FieldTally
from shards.format.flush import begin_flush, write_all
from shards.format.image_tally import ImageTally
from shards.format.index import to_bytes
from shards.format.info import KINDS, DatasetInfo, ShardInfo, index_path, save_info, split_member
from shards.format.journal import Done, Journal
from shards.format.member_rows import MemberRows
from shards.format.staging import beside, disk_errors, locked, swap_in, sync_folder, sync_tree

SHARD_BYTES = 256 << 20
BLOCK = tarfile.BLOCKSIZE
MAX_NAME = 100  # ustar: a longer name would need a slash to split it at
MAX_MEMBER = 8 << 30  # ustar: eleven octal digits
SMALL = 16 << 10
"""Bytes of a member that is copied rather than handed on."""
FLUSHED = 64 << 20
"""Bytes that the disk is told to begin with, so that little is left to wait for when a shard is whole."""
_ZEROS = bytes(BLOCK)
Members = Mapping[tuple[str, str], bytes]  # (field, ext) -> the member's bytes


def _blank_header() -> bytes:
    """The ustar header of a member without name and size, as Python writes it, with blanks for its checksum."""
    member = tarfile.TarInfo()
    member.mode, member.mtime = 0o644, 0
    block = member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return b"".join((bytes(MAX_NAME), block[MAX_NAME:_SUM], b" " * 8, block[_SUM + 8 :]))


_SIZE, _SUM = 124, 148  # where size and checksum stand in a header
_BLANK = _blank_header()
_BLANK_SUM = sum(_BLANK) - 11 * ord("0")


def tar_header(name: str, size: int) -> bytes:
    """One ustar header block whose bytes depend on nothing but name and size (up to `MAX_NAME` characters, less than `MAX_MEMBER`)."""
    front, digits = name.encode("ascii"), b"%011o" % size
    checksum = b"%06o\0 " % (_BLANK_SUM + sum(front) + sum(digits))
    before, after = _BLANK[MAX_NAME:_SIZE], _BLANK[_SIZE + 11 : _SUM]
    return b"".join((front.ljust(MAX_NAME, b"\0"), before, digits, after, checksum, _BLANK[_SUM + 8 :]))


@dataclass(frozen=True)
class Laid:
    """A sample as it stands in a tar.

    places: (field, ext, offset from the sample's begin, size, CRC-32) of each member. parts: its bytes, `size` in all, one after the
    other; none where they lie at byte `at` of memory that the processes share.
    """

    key: str
    places: tuple[tuple[str, str, int, int, int], ...]
    size: int
    parts: tuple[bytes | memoryview, ...]
    at: int | None = None


def lay(key: str, members: Members) -> Laid:
    """Lays a sample out: its members sorted, each with its header before it and zeros behind it up to a whole block.

    Raises:
        DataError: names and sizes that a tar, or this format, does not take.
    """
    parts: list[bytes] = []
    places, at, small = [], 0, b""
    for field, ext in sorted(members):
        data, name = members[field, ext], f"{key}.{field}.{ext}"
        _check_member(name, len(data), f"sample '{key}'")
        places.append((field, ext, at + BLOCK, len(data), isal_zlib.crc32(data)))
        header, rest = tar_header(name, len(data)), -len(data) % BLOCK
        if len(data) < SMALL:  # joined: fewer calls for it
            small = b"".join((small, header, data, _ZEROS[:rest]))
        else:
            parts += [small + header, data]
            small = _ZEROS[:rest]
        at += BLOCK + len(data) + rest
    return Laid(key, tuple(places), at, (*parts, small))


def _check_member(name: str, size: int, where: str) -> None:
    if split_member(name) is None or len(name) > MAX_NAME:
        fix = f"KEY.FIELD.EXT of at most {MAX_NAME} characters, the extension one of {', '.join(KINDS)}"
        raise bad(f"'{name}' cannot be a member's name", where, fix)
    if size >= MAX_MEMBER:
        raise bad(f"'{name}' has {size:,} bytes", where, "a member may have at most 8 GiB: split the sample")


class _Shard:
    """One tar being written: hashes its bytes and notes where each member lies."""

    def __init__(self, path: Path):
        self.path, self.sha = path, hashlib.sha256()
        self.file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by `close`, or by the writer when it gives up
        self.offset, self.samples, self._begun = 0, 0, 0
        self._rows = MemberRows()

    def _put(self, parts: Sequence[bytes | memoryview]) -> None:
        write_all(self.file, parts)
        for part in parts:
            self.sha.update(part)
            self.offset += len(part)
        if self.offset - self._begun >= FLUSHED:
            begin_flush(self.file.fileno(), self._begun, self.offset - self._begun)
            self._begun = self.offset

    def add(self, laid: Laid) -> None:
        self._rows.add(laid.key, self.offset, laid.places)
        self._put(laid.parts)
        self.samples += 1

    def close(self) -> ShardInfo:
        self._put([bytes(2 * BLOCK)])
        os.fsync(self.file.fileno())
        self.file.close()
        data = to_bytes(self._rows.index())
        with open(index_path(self.path), "wb") as f:
            f.write(data)
            _flush(f)
        return ShardInfo(
            name=self.path.name,
            samples=self.samples,
            bytes=self.offset,
            sha256=self.sha.hexdigest(),
            index_sha256=hashlib.sha256(data).hexdigest(),
        )


def _flush(f: BinaryIO) -> None:
    f.flush()
    os.fsync(f.fileno())


def npy_bytes(array: np.ndarray) -> bytes:
    """The NPY form of an array, C order, never pickled."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def staging_of(out: Path) -> Path:
    """Where a data set stands while it is written."""
    return beside(Path(os.path.realpath(out)), "packing")


class Keys:
    """Keys one after the other, as a digest: whether two lists of them are the same."""

    def __init__(self, keys: Iterable[str] = ()):
        self._sha = hashlib.sha256()
        for key in keys:
            self.add(key)

    def add(self, key: str) -> None:
        self._sha.update(key.encode() + b"\n")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self._sha.digest() == other._sha.digest()

    __hash__ = None  # type: ignore[assignment]


class DatasetWriter:
    """Context manager that writes a data set folder.

    Samples go to `.NAME.packing` beside `out`; `finish` renames that folder to `out`. Leaving the context without `finish` (an
    error, an interrupt) removes it. A folder that a killed process left behind is taken over.

    Args:
        out: the data set's folder; refused when it exists and is not empty, unless `overwrite`.
        shard_bytes: a shard is closed before it grows over this (a single larger sample gets a shard of its own).
        shard_samples: a shard is closed after so many samples.
        overwrite: the old folder stays in place, untouched, until the new one is complete.
        journal: with it a shard that is whole outlives a kill or an interrupt, and the next writer of the same content goes on after
            it: `done` says what it found, `anew` what had changed where nothing of the content could be used.

    Raises:
        DataError: `out` is in use, another process writes it, the disk is full or read-only.
    """

    def __init__(
        self,
        out: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        shard_samples: int | None = None,
        overwrite: bool = False,
        journal: Journal | None = None,
    ):
        self.out = Path(os.path.realpath(out))  # a link to a folder elsewhere stays a link
        self.staging = staging_of(out)
        self.shard_bytes, self.shard_samples, self.overwrite = shard_bytes, shard_samples or 2**63, overwrite
        self.shards: list[ShardInfo] = []
        self.keys = Keys()
        self._shard: _Shard | None = None
        self._journal, self.done = journal, Done()
        self.anew: list[str] = []

    def __enter__(self) -> DatasetWriter:
        with contextlib.ExitStack() as opened, disk_errors(self.out):
            if self.out.parent.exists() and not self.out.parent.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            self.out.parent.mkdir(parents=True, exist_ok=True)
            opened.enter_context(locked(self.out, keep=self._journal is not None))
            refuse_used(self.out, self.overwrite)
            self._begin()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shard is not None:
            with contextlib.suppress(OSError):
                self._shard.file.close()
        if not (kind is KeyboardInterrupt and self._journal and self.shards):
            shutil.rmtree(self.staging, ignore_errors=True)
        self._opened.close()

    def _begin(self) -> None:
        """The staging folder, new, or with the whole shards of a writer of the same content that was killed."""
        changed = self._journal.changed() if self._journal else None
        if self._journal and changed == []:
            self.done = self._journal.found()
            self.shards = [*self.done.shards]
            return
        self.anew = changed or []
        if self.staging.exists():
            shutil.rmtree(self.staging)
        self.staging.mkdir()
        if self._journal:
            self._journal.begin()

    def add(self, key: str, members: Members) -> None:
        """Appends one sample: its members by (field, ext)."""
        self.put(lay(key, members))

    def put(self, laid: Laid) -> None:
        """Appends one sample that was laid out."""
        with disk_errors(self.out):
            self._room_for(laid.size).add(laid)
        self.keys.add(laid.key)

    def counted(self, stop: int, fields: FieldTally, images: ImageTally) -> None:
        """All samples before `stop` were appended, and this was seen of those since the last call: for the journal."""
        if self._journal:
            self._journal.counted(stop, fields, images)

    def _room_for(self, size: int) -> _Shard:
        shard = self._shard
        if shard and (shard.samples >= self.shard_samples or shard.offset + size + 2 * BLOCK > self.shard_bytes):
            self._close_shard()
            shard = None
        if shard is None:
            shard = self._shard = _Shard(self.staging / f"shard-{len(self.shards):06d}.tar")
        return shard

    def _close_shard(self) -> None:
        assert self._shard is not None
        self.shards.append(self._shard.close())
        self._shard = None
        if self._journal:
            self._journal.shard(self.shards[-1], sum(s.samples for s in self.shards))

    def close_shards(self) -> list[ShardInfo]:
        """Ends the last shard; from here on the staging folder's shards can be read."""
        with disk_errors(self.out):
            if self._shard is not None:
                self._close_shard()
        return self.shards

    def finish(self, info: DatasetInfo) -> DatasetInfo:
        """Writes dataset.json, then moves the staging folder to its final name; returns the sealed description."""
        assert self._shard is None, "close_shards() comes first"
        with disk_errors(self.out):
            if self._journal:
                self._journal.end()
            sealed = save_info(self.staging, info)
            sync_tree(self.staging)
            swap_in(self.staging, self.out)
            sync_folder(self.out.parent)
        return sealed


def refuse_used(out: Path, overwrite: bool) -> None:
    """A DataError when `out` is a file, or a folder with anything in it that may not be overwritten."""
    if out.exists() and not out.is_dir():
        raise bad("is a file, not a folder", out, "choose another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise bad("the folder is not empty", out, "choose another --out, or give --overwrite to replace a data set")
    if not (out / "dataset.json").is_file():
        raise bad(
            "--overwrite replaces data sets only, and this folder has no dataset.json", out, "choose another --out"
        )
