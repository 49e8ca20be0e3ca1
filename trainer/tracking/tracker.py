"""What a run leaves to look at: metrics.jsonl (always), TensorBoard, lines or a progress bar on the terminal. Rank 0 only."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trainer.runtime import Runtime
from trainer.state import fence
from trainer.state.disk import written
from trainer.state.files import write_atomic
from trainer.tracking.board import Board
from trainer.tracking.metrics_file import read_metrics

if TYPE_CHECKING:
    import numpy as np
    from rich.progress import Progress


def loss_text(value: float) -> str:
    """Four decimals, or two digits and a power of ten where these would hide the value."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 or not math.isfinite(value) else f"{value:.1e}"


class Tracker:
    """Writes what the loop reports; a no-op on other ranks, so that the loop has no rank in it.

    Args:
        step: the step the run goes on from; lines after it, of a life that was lost, are taken out, so that each step
            stands in the file once. That is done with the first step: a run that is refused before leaves its folder as it was.
    """

    def __init__(self, out: Path, runtime: Runtime, step: int, total: int, every: int, tensorboard: bool):
        self.main, self.total, self.every, self.out = runtime.main, total, every, out
        self.undrawn = False
        """A picture could not be drawn, and it was said."""
        if not self.main:
            return
        self.file: TextIO | None = None
        self.begins = step
        self.board = Board(out / "tensorboard", step, runtime.say) if tensorboard else None
        self.bar = self._bar(step) if sys.stderr.isatty() else None

    def _bar(self, step: int) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.task = bar.add_task("", total=self.total, completed=step)
        bar.start()
        return bar

    def _begun(self) -> TextIO:
        if self.file is None:
            path = self.out / "metrics.jsonl"
            kept = [r for r in read_metrics(self.out) if r["step"] <= self.begins]
            write_atomic(path, "".join(json.dumps(r) + "\n" for r in kept).encode())
            self.file = open(path, "a")  # noqa: SIM115  (lives as long as the run)
        return self.file

    def step(self, row: dict[str, Any]) -> None:
        """One finished step: a line of metrics.jsonl, scalars of TensorBoard, now and then a line on the terminal."""
        if not self.main:
            return
        fence.check(self.out)
        # JSON has no NaN: a value that is not finite is written as null.
        clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in row.items()}
        with written(self.out / "metrics.jsonl", "the log of steps"):
            file = self._begun()
            file.write(json.dumps(clean) + "\n")
            file.flush()
        if self.board:
            numbers = {k: v for k, v in clean.items() if isinstance(v, (int, float)) and k != "step"}
            self.board.scalars({f"{row['stage']}/{k}": v for k, v in numbers.items()}, row["step"])
        if self.bar:
            self.bar.update(self.task, completed=row["step"], description=self._text(row))
        elif row["step"] % self.every == 0 or row["step"] == self.total or row["skipped"]:
            print(f"step {row['step']}/{self.total}  {self._text(row)}", flush=True)

    @staticmethod
    def _text(row: dict[str, Any]) -> str:
        terms = [f"{k.removeprefix('loss/')} {loss_text(v)}" for k, v in row.items() if k.startswith("loss/")]
        val = [f"{k} {loss_text(v)}" for k, v in row.items() if k.startswith("val/loss/")]
        tail = [f"lr {row['lr']:.1e}", f"{row['samples_per_s']:.1f} samples/s", f"data {row['data_wait']:.0%}"]
        return "  ".join(
            [row["stage"], f"loss {row['loss']:.4f}", *terms, *val, *tail] + (["SKIPPED"] if row["skipped"] else [])
        )

    def images(self, name: str, image_HWC: np.ndarray, step: int) -> None:
        """A picture (uint8) for TensorBoard."""
        if self.main and self.board:
            self.board.image(name, image_HWC, step)

    def png(self, name: str, picture: bytes, step: int) -> None:
        """A picture that is a PNG already."""
        if self.main and self.board:
            import io

            import numpy as np
            from PIL import Image

            self.board.image(name, np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")), step)

    def close(self) -> None:
        if not self.main:
            return
        if self.file is not None:
            with contextlib.suppress(OSError):  # a disk that was full is told by the step that met it
                self.file.close()
        if self.board:
            self.board.close()
        if self.bar:
            self.bar.stop()
