"""ended.json: how a run that has no product yet was left, for who lists runs; a run that is killed writes none.

The next start of the run takes it away, so it speaks of the last one.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from trainer.errors import Stopped, UserError
from trainer.state.fence import Fenced

NAME = "ended.json"
LONGEST = 500


def note(folder: Path, error: BaseException) -> None:
    """Keeps what ended the run in `folder`. What is refused (exit status 2) left the folder as it was and leaves no note."""
    if isinstance(error, UserError | Fenced) or hasattr(error, "problems"):
        return
    from trainer.state.files import write_atomic  # who only reads notes loads nothing else

    state = "stopped" if isinstance(error, Stopped) else "failed"
    why = str(error) if state == "stopped" else f"{type(error).__name__}: {error}"
    content = {"state": state, "why": why[:LONGEST], "time": time.time()}
    # A full disk, or a later life in this folder, has been said already: the note is lost, not what it is of.
    with contextlib.suppress(OSError, Fenced):
        write_atomic(folder / NAME, json.dumps(content).encode())


def forget(folder: Path) -> None:
    (folder / NAME).unlink(missing_ok=True)
