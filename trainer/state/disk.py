"""What a run cannot do without and a disk refuses: a named error, with the file, the reason and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from shards.terminal import DISK
from trainer.errors import TrainingError, everywhere


@contextlib.contextmanager
def written(path: Path, what: str) -> Iterator[None]:
    """Turns what the system says while `what` is written to `path` into a TrainingError that every rank raises alike.

    Around `from_main(...)`, not inside of it: an error of rank 0 comes out of it on all ranks.
    """
    try:
        yield
    except OSError as e:
        fix = DISK.get(e.errno or 0, "see that this path can be written")
        raise everywhere(
            TrainingError(
                f"{what} could not be written to {path}: {e.strerror or e}; {fix}, then give the same command again: "
                "it goes on from the last checkpoint"
            )
        ) from e
