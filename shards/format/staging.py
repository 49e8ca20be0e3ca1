"""Changes of a whole data set as one step: made in a folder beside it, which takes its place in one exchange of names.

    .NAME.lock      held by the command that changes NAME; the lock goes with its process
    .NAME.packing   the new data set, as far as it has come; of `pack` its whole shards are kept (format/journal.py)
    .NAME.old       the old one, on its way out

Under the final name stand the old data set or the new one, whole, at every moment in which a command may be killed. Where a file system
cannot exchange two names (NFS), there is an instant in which only .NAME.old stands. What a killed command left is put right by the next
one that takes the lock: .NAME.old gets its name back where that is free, everything else is removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from shards.errors import DataError, Problem, bad

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.EACCES)
# Temporary names of `format.write_atomic`, which a killed command may have left in the data set.
_STRAY = re.compile(r"\.(dataset\.json|address|[\w\-]+\.(csv|npz|txt|idx\.npy))\.[a-z0-9_]{8}")


@contextlib.contextmanager
def disk_errors(place: Path, left: str = "nothing of the data set was left") -> Iterator[None]:
    """Turns what the operating system says while writing (full, read-only, forbidden) into a DataError with a remedy.

    Args:
        left: how things stand after the failure.
    """
    try:
        yield
    except OSError as e:
        fixes = {
            errno.ENOSPC: f"free space on this disk or choose another place; {left}",
            errno.EDQUOT: f"free space in your quota or choose another place; {left}",
            errno.EFBIG: "write smaller shards (--shard-size) or choose a file system that takes large files",
            errno.EROFS: f"the file system is read-only: choose another place; {left}",
            errno.EACCES: f"choose a folder that you may write to, and whose parent you may write to; {left}",
            errno.EPERM: f"choose a folder that you may write to, and whose parent you may write to; {left}",
            errno.ENOTDIR: "a part of this path is a file: choose another --out",
            errno.EBUSY: f"a mount point cannot be replaced: give a folder inside of it; {left}",
            errno.EXDEV: f"a mount point or a layer of an image cannot be replaced: give a copy of the folder; {left}",
        }
        if e.errno is None:
            raise
        fix = fixes.get(e.errno, f"see the message of the operating system; {left}")
        raise bad(f"cannot write: {e.strerror or e}", place, fix) from e


def beside(out: Path, what: str) -> Path:
    """The hidden name `.NAME.what` in the folder that holds `out`."""
    return out.parent / f".{out.name}.{what}"


@contextlib.contextmanager
def locked(out: Path, keep: bool = False) -> Iterator[None]:
    """The only command that changes `out`; what killed ones left is put right first.

    Args:
        keep: leave a folder `.NAME.packing` as it is: the command looks whether it can go on there.

    Raises:
        DataError: another process changes it.
    """
    with alone(out, "another process is writing this data set", "wait for it, or choose another --out"):
        put_right(out, keep)
        yield


@contextlib.contextmanager
def alone(folder: Path, taken: str, fix: str) -> Iterator[None]:
    """Holds `.NAME.lock` beside a folder.

    Raises:
        DataError: another process holds it; `taken` and `fix` are what it says.
    """
    path = beside(folder, "lock")
    fd = _lock(path, bad(taken, folder, fix))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _lock(path: Path, taken: DataError) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise taken from None
        except OSError as e:
            if e.errno not in _NO_LOCKS:
                os.close(fd)
                raise
            return fd  # a file system without locks: nothing can be told there
        # Who held it before may have removed the file between the two calls.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        os.close(fd)


def put_right(out: Path, keep: bool = False) -> None:
    """Ends what a killed command began; under its lock. `keep`: but for the folder `.NAME.packing`."""
    old = beside(out, "old")
    if old.is_dir() and not out.exists():
        os.replace(old, out)
    for left in (old, *([] if keep else [beside(out, "packing")])):
        if left.exists():
            shutil.rmtree(left)


def settle(folder: Path) -> None:
    """Ends what a killed command began, before anything is asked of the data set; the first thing that a changing command does.

    The old data set gets its name back where it was left without one; else what is left of it is removed.

    Raises:
        DataError: another process changes the data set.
    """
    folder = Path(os.path.realpath(folder))
    old = beside(folder, "old")
    if old.is_dir() or (folder.exists() and beside(folder, "packing").is_dir()):
        where = folder if folder.exists() else old
        with disk_errors(folder, f"the data set is {where}"), locked(folder):
            pass


@contextlib.contextmanager
def rewriting(folder: Path) -> Iterator[Path]:
    """A folder with all files of data set `folder`, to be changed; it takes the name `folder` when the block ends without an error.

    Files are hard links where the file system has them, so they must be replaced, never written into.

    Raises:
        DataError: another process changes the data set, or the disk refuses; it is as it was then.
    """
    folder = Path(os.path.realpath(folder))  # a link to a folder elsewhere stays a link
    with disk_errors(folder, "the data set is as it was"), locked(folder):
        staging = beside(folder, "packing")
        try:
            _links(folder, staging)
            yield staging
            sync_tree(staging)
            swap_in(staging, folder)
            sync_folder(folder.parent)
        except DataError as e:  # told of the place that the user knows
            texts = ((p.what, p.where, p.fix) for p in e.problems)
            e.problems[:] = [Problem(*(t.replace(str(staging), str(folder)) for t in three)) for three in texts]
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _links(folder: Path, staging: Path) -> None:
    """Everything in `folder` again, but for temporary files of killed commands."""
    staging.mkdir()
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            _links(Path(entry), staging / entry.name)
        elif not _STRAY.fullmatch(entry.name):
            _link(Path(entry), staging / entry.name)
    shutil.copystat(folder, staging)
    with contextlib.suppress(OSError):  # another user's: only root may give it back
        os.chown(staging, folder.stat().st_uid, folder.stat().st_gid)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        size = source.lstat().st_size
        if size > 1 << 24:
            print(
                f"{source.name} cannot be linked here ({e.strerror}): its {size / 1e6:.0f} MB are copied",
                file=sys.stderr,
            )
        shutil.copy2(source, target, follow_symlinks=False)
        if not target.is_symlink():
            sync_folder(target)


def sync_tree(folder: Path) -> None:
    """Flushes the entries of a folder and of those in it; their files have been flushed as they were written."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            sync_tree(Path(entry))
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def swap_in(new: Path, out: Path) -> None:
    """Gives folder `new` the name `out`; what stood there is removed afterwards. Under the lock of `out`."""
    if not out.exists() or not any(out.iterdir()):
        os.replace(new, out)
        return
    old = beside(out, "old")
    if exchange(new, out):
        os.replace(new, old)
    else:
        os.replace(out, old)  # from here to the next line only this name exists; `put_right` knows it
        os.replace(new, out)
    shutil.rmtree(old)


def exchange(a: Path, b: Path) -> bool:
    """Linux's renameat2(RENAME_EXCHANGE): both names change hands at one instant. False where it does not exist."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    at_cwd, exchange = -100, 2
    return renameat2 is not None and renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0
