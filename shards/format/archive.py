"""A tar walked once: its plain files with the place of their bytes, by names as their makers meant them.

Everyday tars hold more than files: the folders themselves (`tar -C dir .`), `./` before each name, the `._*` twins and `.DS_Store` that
macOS adds. These are passed over and counted. Links, devices, sparse files and names that leave the folder are refused by name.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from shards.errors import Problem

_BLOCK = 512
_COPY = "pack the shard again, or copy it again from its source"
# What is given instead of a plain tar, by its first bytes: members can be read by offset in none of them.
PACKED = (
    (b"\x1f\x8b", "gzip", "mv {0} {0}.gz && gunzip {0}.gz"),
    (b"BZh", "bzip2", "mv {0} {0}.bz2 && bunzip2 {0}.bz2"),
    (b"\xfd7zXZ", "xz", "mv {0} {0}.xz && unxz {0}.xz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "mv {0} {0}.zst && unzstd --rm {0}.zst"),
    (b"PK\x03\x04", "zip", "unzip {0} -d FOLDER && tar --sort=name -cf NEW.tar -C FOLDER ."),
    (b"7z\xbc\xaf", "7z", "7z x {0} -oFOLDER && tar --sort=name -cf NEW.tar -C FOLDER ."),
)
_LINKS = {
    tarfile.SYMTYPE: ("a symbolic link", "store the file itself: tar --dereference"),
    tarfile.LNKTYPE: ("a hard link to another member", "store the file itself: tar --hard-dereference"),
}
FOLDERS, TWINS, MACOS = "folders", "._* twins of macOS", "further files of macOS"


def walk(shard: Path, problems: list[Problem], passed: Counter[str]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of every plain member, the name without `./` before it.

    Args:
        problems: gets what is wrong with the archive itself and with members that are no plain files.
        passed: counts what was passed over.
    """
    if problem := _packed(shard):
        problems.append(problem)
        return
    try:
        with open(shard, "rb") as f, tarfile.open(fileobj=cast(Any, _Bounded(f)), mode="r:") as tar:
            reached = 0
            while (member := tar.next()) is not None:
                _check_place(member, f)
                if member.offset_data < reached or tar.offset <= member.offset:
                    raise tarfile.ReadError(f"the member at byte {member.offset} ends before it begins")
                reached = member.offset_data + member.size
                name = _plain_name(member.name)
                if kind := _passed(member, name):
                    passed[kind] += 1
                elif not member.isreg() or member.issparse():
                    problems.append(_refused(member, shard))
                else:
                    yield name, member.offset_data, member.size
                tar.members = []  # type: ignore[attr-defined]  # else every header of the shard stays in memory
            end = tar.offset
    # Damaged numbers and names in headers end in exceptions of several families within tarfile.
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as e:
        problems.append(Problem(f"truncated, or not an uncompressed tar ({e})", str(shard), _COPY))
        return
    # tarfile takes a damaged header for the end of the archive; a real end is a block of zeros.
    with open(shard, "rb") as f:
        f.seek(end)
        if f.read(_BLOCK) != bytes(_BLOCK):
            problems.append(
                Problem(f"truncated or damaged: no member and no end mark at byte {end}", str(shard), _COPY)
            )


class _Bounded:
    """The file of a tar as tarfile reads it: sizes and places are numbers that stand in it, and lead nowhere outside."""

    def __init__(self, f: BinaryIO):
        self._f, self._end = f, os.fstat(f.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        left = max(self._end - self._f.tell(), 0)
        return self._f.read(left if size < 0 else min(size, left))

    def seek(self, to: int, whence: int = 0) -> int:
        if whence == 0 and not 0 <= to <= self._end:
            raise tarfile.ReadError("a member ends outside of the file")
        return self._f.seek(to, whence)

    def tell(self) -> int:
        return self._f.tell()


def _check_place(member: tarfile.TarInfo, f: BinaryIO) -> None:
    if member.size < 0 or member.offset_data + member.size > os.fstat(f.fileno()).st_size:
        raise tarfile.ReadError(f"{member.name!r} ends outside of the file")


def leaves(name: str) -> bool:
    """Whether a member's name leads out of the folder."""
    return name.startswith("/") or ".." in name.split("/")


def is_twin(name: str) -> bool:
    """Whether macOS made the file beside another one, to hold what its own file systems know of it."""
    return name.rsplit("/", 1)[-1].startswith("._")


def no_twins(paths: Iterable[Path]) -> list[Path]:
    """Files of a folder in order, without the ._* twins that macOS makes where it writes to disks that are not its own."""
    return sorted(p for p in paths if not is_twin(p.name))


def _packed(shard: Path) -> Problem | None:
    with open(shard, "rb") as f:
        head = f.read(8)
    for magic, kind, remedy in PACKED:
        if head.startswith(magic):
            what = f"is packed by {kind}, not an uncompressed tar: its members cannot be read by offset"
            return Problem(what, str(shard), remedy.format(shard.name))
    return None


def _plain_name(name: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _passed(member: tarfile.TarInfo, name: str) -> str | None:
    """What kind of passed-over thing a member is; None for what counts. A folder with a name that leaves is no matter: none is made."""
    if member.isdir():
        return FOLDERS
    if not member.isreg() or leaves(name):
        return None
    if is_twin(name):
        return TWINS
    return MACOS if name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1] == ".DS_Store" else None


def _refused(member: tarfile.TarInfo, shard: Path) -> Problem:
    what, fix = _LINKS.get(member.type, ("a device or a sparse file", "store plain files only (tar without --sparse)"))
    target = f" to {member.linkname!r}" if member.issym() else ""
    return Problem(f"not a plain file: {what}{target}", f"{shard.name}: {member.name!r}", fix)
