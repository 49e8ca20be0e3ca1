"""What a run cannot do without and a disk refuses: a named error, with the file, the reason and what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import TrainingError, everywhere

_FIXES = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space in your quota",
    errno.EROFS: "the file system is read-only: mount it for writing, or copy the run's folder and give the copy as out=FOLDER",
    errno.EACCES: "give the run's user the right to write there",
    errno.EPERM: "give the run's user the right to write there",
    errno.EFBIG: "the file is larger than may be written there (ulimit -f): raise the limit",
    errno.EIO: "the disk failed: copy the run's folder to another one and give that as out=FOLDER",
}


@contextlib.contextmanager
def written(path: Path, what: str) -> Iterator[None]:
    """Turns what the system says while `what` is written to `path` into a TrainingError that every rank raises alike.

    Around `from_main(...)`, not inside of it: an error of rank 0 comes out of it on all ranks.
    """
    try:
        yield
    except OSError as e:
        fix = _FIXES.get(e.errno or 0, "see that this path can be written")
        raise everywhere(
            TrainingError(
                f"{what} could not be written to {path}: {e.strerror or e}; {fix}, then give the same command again: "
                "it goes on from the last checkpoint"
            )
        ) from e
