"""What a save writes, as it stands at one step: taken while all ranks wait, written then or later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from torch import Tensor

Hashes = dict[str, str]
ENGINE = "engine"
"""The folder of DeepSpeed's files in a checkpoint."""
AVERAGES = "averages.pt"
TENSORS = "tensors"
"""Of state.json: the hash of every parameter and buffer of rank 0."""
OWN = "buffers"
"""Of a rank's file: its buffers that are not those of rank 0."""


@dataclass
class Taken:
    """Of one rank. Nothing in it changes while training goes on, or nobody trains until it is written."""

    step: int
    state: Mapping[str, Any]
    """For state.json."""
    best: IO[bytes] | None
    """The best weights so far, opened: later ones take their name, and not their bytes."""
    random: dict[str, Any]
    hashes: Callable[[], Hashes]
    """Hash of every tensor; all ranks must call."""
    buffers: dict[str, Tensor]
    files: dict[str, object]
    """Content by path below the checkpoint's folder."""
    errors: list[str] = field(default_factory=list)


class Recorder(TorchCheckpointEngine):
    """Given to DeepSpeed in place of its writer: keeps what it would write, and an error for all ranks to hear of.

    An exception inside DeepSpeed's save would leave the other ranks waiting at its barrier.
    """

    def __init__(self, root: Path, keep: Callable[[object], object]) -> None:
        super().__init__()
        self.root, self.keep = root, keep
        self.files: dict[str, object] = {}
        self.errors: list[str] = []

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Whoever writes a file makes its folder."""

    def save(self, state_dict: object, path: str) -> None:
        with kept_error(self.errors):
            self.files[str(Path(path).relative_to(self.root))] = self.keep(state_dict)


@contextmanager
def kept_error(errors: list[str]) -> Iterator[None]:
    """One rank's error, kept for all ranks to hear of: raised by itself it would leave the others in a collective."""
    try:
        yield
    except Exception as e:
        # All that torch's writer says is at which byte its file was shorter than it should be.
        short = isinstance(e, RuntimeError) and "inline_container" in str(e)
        why = "a file could not be written to its end: no space left, a quota, or a limit on the size of files"
        errors.append(why if short else f"{type(e).__name__}: {e}")
