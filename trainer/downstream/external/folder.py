"""A folder of results that is whole or is not there: made beside its place under a hidden name, and renamed when all of it is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from trainer.errors import UserError
from trainer.state.files import sync


def begin(out: Path) -> Path:
    """An empty hidden folder beside `out`; what a killed command left of one is taken away.

    Raises:
        UserError: `out` is there, or cannot be written.
    """
    making = out.with_name(f".{out.name}.making")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is there already: give another --out, or remove it")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
    except OSError as e:
        raise UserError(f"{out}: cannot be written ({e.strerror}); give another --out") from e
    return making


def finish(making: Path, out: Path) -> None:
    """Makes `making` the folder `out`.

    Raises:
        UserError: it cannot be written.
    """
    try:
        for path in sorted(making.rglob("*")):
            sync(path)
        sync(making)
        if out.exists():
            out.rmdir()
        os.rename(making, out)
        sync(out.parent)
    except OSError as e:
        raise UserError(f"{out}: cannot be written ({e.strerror}); free space, or give another --out") from e


def discard(making: Path) -> None:
    shutil.rmtree(making, ignore_errors=True)
