"""When has a training lost its way? A row of losses far above the ones before, or of steps that are not finite."""

from __future__ import annotations

import math
from statistics import median
from typing import Protocol

from trainer.config.shared import Rollback
from trainer.errors import TrainingError, everywhere


class Readings(Protocol):
    """What the watch keeps in the run's progress, so that a resumed run watches on where it stood."""

    recent: list[float]
    in_row: int
    rollbacks: int


class RollBack(Exception):
    """The run goes back to a checkpoint before step `first` and leaves the steps `first` to `last` out. All ranks raise it together."""

    def __init__(self, first: int, last: int, why: str):
        super().__init__(f"steps {first} to {last}: {why}")
        self.first, self.last, self.why = first, last, why


class Spikes:
    """Judges every step's loss by those before it (trainer/config/shared.py: Rollback)."""

    def __init__(self, settings: Rollback, readings: Readings):
        self.settings, self.readings = settings, readings

    def above(self, loss: float) -> bool:
        """Whether a loss stands apart: further above the median of the last `over` ones than `spike` times their spread.

        The spread is 1.4826 times the median distance from the median, the standard deviation of a normal distribution that a few
        outliers do not move (Hampel 1974), and at least a hundredth of the median itself: losses that hardly vary have no outliers.
        """
        recent = self.readings.recent
        if len(recent) < self.settings.over or not math.isfinite(loss):
            return False
        middle = median(recent)
        spread = max(1.4826 * median(abs(x - middle) for x in recent), 0.01 * abs(middle))
        return loss > middle + self.settings.spike * spread

    def add(self, step: int, loss: float, bad: bool) -> None:
        """Notes a step that was logged; `bad`: its loss stands apart, or it was skipped because it is not finite.

        Raises:
            RollBack: as many bad ones in a row as `steps`.
            TrainingError: the same, after all rollbacks that are allowed.
        """
        readings, settings = self.readings, self.settings
        if not bad:
            readings.in_row = 0
            readings.recent = [*readings.recent, loss][-settings.over :] if math.isfinite(loss) else readings.recent
            return
        readings.in_row += 1
        if readings.in_row < settings.steps:
            return
        first = step - readings.in_row + 1
        why = f"{readings.in_row} steps in a row were not finite or far above the losses before (at last {loss:.4g})"
        if readings.rollbacks >= settings.times:
            done = f"{readings.rollbacks} time{'s' if readings.rollbacks != 1 else ''}"
            raise everywhere(
                TrainingError(
                    f"steps {first} to {step}: {why}, and the run has gone back {done} already (health.rollback.times={settings.times}). "
                    "Lower optim.lr, or look at the samples in left-out.json of the run's folder; a higher health.rollback.times goes on"
                )
            )
        raise RollBack(
            max(1, first - settings.before), step, f"the last {why}" if settings.before and first > 1 else why
        )
