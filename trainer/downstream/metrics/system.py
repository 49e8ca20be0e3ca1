"""One system on a set of test cases: what it said by each of its seeds, and its metrics and resamples of them, each computed once.

Shape letters: S seeds, R resamples, N known cases, M cases of one question.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.downstream.metrics import delong
from trainer.downstream.metrics.constant import is_constant
from trainer.downstream.metrics.metric import Metric
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.resampling import one_by_one, resampled
from trainer.downstream.metrics.same_cases import aligned
from trainer.downstream.metrics.weighted import Weighted

MOST_KEPT = 5000
"""Resamples of a metric that are kept for its tests against others, at most."""
SAME = 1e-9
"""How far a form and a library may be apart by rounding."""


class System:
    """Predictions of the same test cases by each seed, in the order of their keys.

    Args:
        by_form: values by the metric's weighted form alone, without the library that the form is otherwise compared with. For what
            was measured before and is now measured again: the numbers that are stated are the library's.

    Raises:
        UserError: the seeds predict different cases.
    """

    def __init__(self, predictions: Sequence[Predictions], by_form: bool = False) -> None:
        self.seeds, self.by_form = aligned(predictions), by_form
        self.known = [p.known() for p in self.seeds]
        # Which patient each known case is of, from 0.
        self.of_N = np.unique(self.known[0].patients_N, return_inverse=True)[1]
        self._values: dict[Metric, list[float]] = {}
        self._resamples: dict[tuple[Metric, int, int], np.ndarray] = {}
        self._constant: dict[bool, tuple[bool, ...]] = {}
        self._forms: tuple[Metric, list[Weighted]] | None = None

    @property
    def patients(self) -> int:
        return int(self.of_N.max(initial=-1)) + 1

    def values(self, metric: Metric) -> list[float]:
        """The metric of each seed on the whole set; NaN where it has none."""
        if metric not in self._values:
            formed = self.by_form and metric.weighted is not None
            self._values[metric] = self._of_whole(metric) if formed else [metric.compute(p) for p in self.seeds]
        return self._values[metric]

    def stated(self, metric: Metric, values: Sequence[float]) -> None:
        """Takes values that a library gave before, to the last bit, where the metric's form says the same but for rounding."""
        own = self.values(metric)
        if len(own) == len(values) and all(map(_alike, own, values)):
            self._values[metric] = list(values)

    def constant(self, decided: bool) -> tuple[bool, ...]:
        """Of each seed, whether its answer is the same for all cases (constant.py)."""
        if decided not in self._constant:
            self._constant[decided] = tuple(is_constant(p, decided) for p in self.known)
        return self._constant[decided]

    def resamples(self, metric: Metric, draws: int, seed: int) -> np.ndarray:
        """[R] the mean over seeds of the metric, in the same resamples of patients."""
        key = metric, draws, seed
        if key in self._resamples:
            return self._resamples[key]
        if not len(self.known[0]):
            return np.full(draws, np.nan)
        if not self.by_form:
            whole, values = self._of_whole(metric), self.values(metric)
            assert np.allclose(whole, values, rtol=1e-6, atol=1e-6, equal_nan=True), (metric.name, whole, values)
        found_R = resampled(self._prepared(metric), self.of_N, draws, seed)
        if draws <= MOST_KEPT:
            self._resamples[key] = found_R
        return found_R

    def placements(self, metric: Metric) -> list[np.ndarray]:
        """Of each question whose area the metric is a mean over, [M] the mean over seeds of the placement of every case."""
        assert metric.areas is not None
        return delong.mean_placements(self.known, metric.areas)

    def _of_whole(self, metric: Metric) -> list[float]:
        N = len(self.known[0])
        if not N:
            return [float("nan")] * len(self.seeds)
        return [float(form(np.ones((1, N)))[0]) for form in self._prepared(metric)]

    def _prepared(self, metric: Metric) -> list[Weighted]:
        """What is sorted or counted does not depend on the draw; of one metric at a time, since it is as large as the cases."""
        if self._forms is None or self._forms[0] is not metric:
            of = metric.weighted
            self._forms = metric, [of(p) if of else one_by_one(p, metric, self.of_N) for p in self.known]
        return self._forms[1]


def _alike(a: float, b: float) -> bool:
    return abs(a - b) <= SAME + SAME * abs(b) or (a != a and b != b)


def system(of: Sequence[Predictions] | System) -> System:
    return of if isinstance(of, System) else System(of)
