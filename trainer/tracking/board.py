"""TensorBoard's file, which a run can do without: a disk that refuses it is said once, and the run goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter


class Board:
    """Curves and pictures in `folder`; after a first failure nothing more is written.

    The file is made with the first of them: a run that is refused after this leaves its folder as it was.

    Args:
        step: the step the run goes on from: what an earlier life wrote after it is not shown.
        say: told of the failure.
    """

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]):
        self.folder, self._say = folder, say
        self._from, self._open = step, True
        self._made: SummaryWriter | None = None

    @property
    def _writer(self) -> SummaryWriter:
        if self._made is None:
            from torch.utils.tensorboard import SummaryWriter

            _quiet_writers()
            self._made = SummaryWriter(str(self.folder), purge_step=self._from + 1)
        return self._made

    def scalars(self, values: dict[str, float], step: int) -> None:
        def write() -> None:
            """All curves of a step as one event: one each costs four times the time."""
            from tensorboard.compat.proto.summary_pb2 import Summary
            from torch.utils.tensorboard.summary import scalar

            made = [scalar(name, value).value[0] for name, value in values.items()]
            self._writer.file_writer.add_summary(Summary(value=made), step)  # type: ignore[attr-defined]  # declared as None

        if self._open:
            self._guarded(write)

    def image(self, name: str, image_HWC: np.ndarray, step: int) -> None:
        if self._open:
            self._guarded(lambda: self._writer.add_image(name, image_HWC, step, dataformats="HWC"))

    def close(self) -> None:
        if self._open and self._made is not None:
            self._guarded(self._made.close)
        self._open, self._made = False, None

    def _guarded(self, write: Callable[[], None]) -> None:
        """Whatever TensorBoard raises: a run of days does not end for a curve."""
        try:
            write()
        except Exception as e:
            self._open = False
            why = (e.strerror or str(e)) if isinstance(e, OSError) else f"{type(e).__name__}: {e}"
            self._say(
                f"TensorBoard: {self.folder} cannot be written ({why}); no more curves and pictures in this life of the run, "
                "metrics.jsonl goes on. Free space there, or set log.tensorboard=false"
            )


def _quiet_writers() -> None:
    """TensorBoard writes from a thread of its own, whose error comes up at the next write: its traceback would be told twice."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        ours = type(args.thread).__module__.startswith("tensorboard.")
        if not (ours and issubclass(args.exc_type, OSError)):
            before(args)

    if getattr(before, "__name__", "") != "_without_tensorboard":
        hook.__name__ = "_without_tensorboard"
        threading.excepthook = hook
