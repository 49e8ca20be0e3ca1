"""What a metric is: a number of a set of predictions, with its convention in a sentence and a weighted form for resampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.downstream.metrics import delong, exact
from trainer.downstream.metrics.kinds import Kind
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.tails import Scale
from trainer.downstream.metrics.weighted import Weighted


@dataclass(frozen=True)
class Metric:
    """A number of a set of predictions.

    point      its value on known cases
    weighted   the same for many resamples at once (weighted.py); None: resamples are built and measured one by one
    count      how many cases are right, where the metric is right / n
    slack      how far from 1 (or 0) its value may be where no resample leaves that end (exact.py); None: nothing is known
    decides    whether it looks at decided classes instead of scores
    resampled  whether resampling says how sure it is; false where a resample repeats noise that the metric takes for error
    parts      the numbers, one a case or a patient, that it is the mean of; None: it is no such mean
    scale      where its values lie, on whose scale without ends its interval is symmetric (tails.py)
    areas      the yes-or-no questions whose areas under ROC curves it is the mean of; None: it is none
    ideal      the value that is best, where neither the highest nor the lowest is: such a metric ranks by its distance from there
    """

    name: str
    kinds: tuple[Kind, ...]
    convention: str
    higher_is_better: bool
    point: Callable[[Predictions], float]
    weighted: Callable[[Predictions], Weighted] | None = None
    count: Callable[[Predictions], int] | None = None
    slack: exact.Slack | None = None
    decides: bool = False
    ideal: float | None = None
    resampled: bool = True
    areas: delong.Questions | None = None
    parts: Callable[[Predictions], np.ndarray] | None = None
    scale: Scale = "share"

    def compute(self, p: Predictions) -> float:
        """The value on the whole set; NaN where it has none."""
        assert p.kind in self.kinds, f"{self.name} is no metric of {p.kind} predictions"
        known = p.known()
        return float(self.point(known)) if len(known) else float("nan")

    def right(self, p: Predictions) -> int | None:
        """k of k / n: the right ones among known cases; None where the metric is no such count."""
        return self.count(p.known()) if self.count else None


def alone(form: Callable[[Predictions], Weighted]) -> Callable[[Predictions], float]:
    """A point by the weighted form itself, for what no library has."""
    return lambda p: float(form(p)(np.ones((1, len(p))))[0])


def own(
    name: str, kinds: tuple[Kind, ...], convention: str, form: Callable[[Predictions], Weighted], up: bool = True,
    slack: exact.Slack | None = None, ideal: float | None = None, resampled: bool = True,
    parts: Callable[[Predictions], np.ndarray] | None = None, scale: Scale = "share",
) -> Metric:  # fmt: skip
    return Metric(
        name,
        kinds,
        convention,
        up,
        alone(form),
        form,
        slack=slack,
        ideal=ideal,
        resampled=resampled,
        parts=parts,
        scale=scale,
    )
