"""The book of a folder of work: which samples a killed command had converted, so that the next one goes on after them.

    OUT-work/.medpair-work      digest of the layout, the root and the options that decide what a picture becomes
    OUT-work/begun/000012.json  written when the samples of a part are converted: what they were made from, what was made, what films told

A page counts where sources (by size and time), cells, and what was made of them (by size and CRC-32) are what it says. So a picture that
was half written, or that was changed after its page (films that are turned over when the bits of all are known), is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from isal import isal_zlib

from shards.errors import DataError, bad
from shards.format.info import write_atomic
from shards.format.staging import alone, disk_errors

MARK, FOLDER = ".medpair-work", "begun"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room for a file."""
SHORT = "requested and"
"""NumPy's words for an array of which a part was written; it gives no number."""
FORM = 2
"""Counts up with what is made of the same files."""


def digest(*said: object) -> str:
    return hashlib.sha256(json.dumps([FORM, *said], sort_keys=True).encode()).hexdigest()


def is_begun(work: Path | None) -> bool:
    """Whether a folder of work holds what a later command goes on after."""
    return work is not None and (work / FOLDER).is_dir()


def lacks_room(e: BaseException | None) -> bool:
    """Whether a command ended because the disk, a quota or a limit has no room; also where that was said in other words."""
    if isinstance(e, OSError) and (e.errno in FULL or (e.errno is None and SHORT in str(e))):
        return True
    return e is not None and lacks_room(e.__cause__)


def no_room(e: OSError, work: Path) -> DataError:
    """What is to be done about a folder of work that has no room to grow, by what was kept in it."""
    kept, what = is_begun(work), f"no room for converted images: {os.strerror(e.errno or errno.ENOSPC)}"
    free = shutil.disk_usage(next(p for p in (work, *work.absolute().parents) if p.is_dir())).free
    what += f" ({free / 1e6:,.0f} MB are free on this disk"
    if not kept:
        fix = (
            "free space on this disk, or give a folder on another one (--work DIR); nothing that was converted is kept"
        )
        return bad(f"{what})", work, fix)
    taken = sum(p.stat().st_size for p in work.rglob("*") if p.is_file())
    fix = "free space on this disk, or move the folder to another one and say so (--work DIR): the same command goes on after them"
    return bad(f"{what}, {taken / 1e6:,.0f} MB are taken by the images that are converted, which are kept)", work, fix)


def remove(work: Path) -> None:
    """Removes a folder of work, its mark last: what a kill leaves of it is known for what it is."""
    if work.is_dir():
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != MARK:
                path.unlink()
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def converting(work: Path) -> Iterator[None]:
    """The only command that converts into a folder of work, until all is packed.

    Raises:
        DataError: another process does.
    """
    with ExitStack() as held:
        with disk_errors(work.parent, "nothing was converted"):
            work.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(
                alone(work, "another process is converting into this folder", "wait for it, or give another --work")
            )
        yield


def begin_anew(work: Path) -> None:
    """A folder of work without what a killed command has left in it.

    Raises:
        DataError: something else lies in the folder.
    """
    if (work / MARK).is_file():
        remove(work)
    Begun(work, "")


class Begun:
    """A folder of work: new, or with what a killed command of the same settings has made."""

    def __init__(self, work: Path, settings: str):
        """
        Raises:
            DataError: something else lies in the folder.
        """
        self.work, self.found = work, 0
        mark = work / MARK
        if mark.is_file() and mark.read_text() != settings:
            remove(work)
        if work.exists() and not mark.is_file() and (not work.is_dir() or any(work.iterdir())):
            raise bad(
                "the folder for converted images is not empty", work, "remove it, or give another one with --work"
            )
        work.mkdir(parents=True, exist_ok=True)
        mark.write_text(settings)

    def page(self, number: int, stamp: str) -> dict[str, Any] | None:
        """What a killed command noted of a part, if all of it is still so."""
        try:
            page = json.loads(self._path(number).read_bytes())
            if page["stamp"] != stamp or any(self._made(self.work / name) != made for name, *made in page["made"]):
                return None
            return dict(page["said"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, number: int, stamp: str, made: Iterable[Path], said: dict[str, Any]) -> None:
        """A part is converted: `made` are its files, `said` what is to be known of it."""
        files = [[path.relative_to(self.work).as_posix(), *self._made(path)] for path in made]
        path = self._path(number)
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, json.dumps({"stamp": stamp, "made": files, "said": said}).encode(), again=True)

    def _path(self, number: int) -> Path:
        return self.work / FOLDER / f"{number:06d}.json"

    @staticmethod
    def _made(path: Path) -> list[int]:
        data = path.read_bytes()
        return [len(data), isal_zlib.crc32(data)]
