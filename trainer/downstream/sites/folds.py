"""A probe of features by folds of patients, and by folds of whole sites: what is left of a score at a site that it was not fitted on.

In each fold a linear probe is brought to its optimum (probes/converged.py) on the other folds' cases, at one weight decay that nothing
is chosen by, and the metric is taken on the fold's own cases; the score is the mean over folds that have a value. Both kinds of folds are
equally many, so that both probes learn from about equally many cases. Resamples of patients weigh the cases that were tested; the
probes are not fitted again, so what other training cases would give is not in an interval.

Shape letters: N cases, D width of the features, F folds, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from trainer.downstream.metrics.metric import Metric
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.resampling import patient_draws
from trainer.downstream.probes.converged import fit_converged
from trainer.errors import UserError

DECAY = 0.1
"""Weight decay of every probe here, on standardised features."""
FOLDS = 5


@dataclass(frozen=True)
class Folded:
    """A metric by folds: its mean, each fold's value (NaN where it has none), and the mean in resamples of patients [R]."""

    value: float
    each: Mapping[int, float]
    value_R: np.ndarray

    @property
    def without(self) -> tuple[int, ...]:
        """The folds that have no value: their cases are of one class, say. They are in no mean."""
        return tuple(f for f, value in self.each.items() if value != value)


def by_patient(predictions: Predictions, folds: int, strata_N: np.ndarray) -> np.ndarray:
    """[N] the fold of each case: all cases of a patient in one, the strata spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    return _numbered(StratifiedGroupKFold(folds, shuffle=True, random_state=0), strata_N, predictions.patients_N)


def by_site(site_N: np.ndarray) -> np.ndarray:
    """[N] the fold of each case: a site is a fold, or of more than FOLDS sites several are, of about equal size."""
    from sklearn.model_selection import GroupKFold

    return _numbered(GroupKFold(min(FOLDS, len(np.unique(site_N)))), np.zeros(len(site_N)), site_N)


class _Splitter:  # sklearn's own classes have no common type that says so
    split: Callable[..., Iterator[tuple[np.ndarray, np.ndarray]]]


def _numbered(splitter: _Splitter, strata_N: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    fold_N = np.zeros(len(group_N), np.int64)
    for number, (_, tested) in enumerate(splitter.split(np.zeros((len(group_N), 1)), strata_N, group_N)):
        fold_N[tested] = number
    return fold_N


def answered(x_ND: np.ndarray, predictions: Predictions, fold_N: np.ndarray) -> tuple[Predictions, np.ndarray]:
    """What probes say of the cases that they were not fitted on, and which cases [N] have an answer: none where nothing could be
    learned from the other folds."""
    score, has_N = np.zeros_like(predictions.score), np.zeros(len(fold_N), bool)
    many = predictions.score.shape[1] if predictions.kind in ("multiclass", "ordinal") else None
    for fold in np.unique(fold_N):
        tested_N, learned_N = fold_N == fold, fold_N != fold
        y = predictions.target[learned_N]
        x = x_ND[learned_N]
        try:
            fit = fit_converged(predictions.kind, x, y, x, y, score=lambda *_: 0.0, decays=(DECAY,), classes=many)
        except UserError:
            continue
        score[tested_N], has_N[tested_N] = fit.predict(x_ND[tested_N]), True
    if predictions.kind in ("multiclass", "ordinal") and not has_N.all():
        score[~has_N, 0] = 1.0  # no case stands without a valid score; these are left out by whoever asks
    return replace(predictions, score=score, soft_N3=None), has_N


def folded(said: Predictions, fold_N: np.ndarray, metric: Metric, draws: int, seed: int) -> Folded:
    """The mean over folds of a metric, on the whole set and in resamples of patients."""
    each = {int(f): metric.compute(said.take(fold_N == f)) for f in np.unique(fold_N)}
    known = [f for f, value in each.items() if value == value]
    if not known:
        return Folded(float("nan"), each, np.full(draws, np.nan))
    return Folded(fmean(each[f] for f in known), each, _resampled(said, fold_N, known, metric, draws, seed))


def _resampled(
    said: Predictions, fold_N: np.ndarray, known: Sequence[int], metric: Metric, draws: int, seed: int
) -> np.ndarray:
    """[R] the same in resamples of all patients; a fold without a value in a resample leaves that one undefined."""
    if metric.weighted is None:
        return np.full(draws, np.nan)
    names_P, of_N = np.unique(said.patients_N, return_inverse=True)
    forms = [(metric.weighted(said.take(fold_N == f)), fold_N == f) for f in known]
    found = []
    for count_RP in patient_draws(len(names_P), len(said), draws, seed):
        W_RN = count_RP[:, of_N].astype(np.float64)
        found.append(np.mean([form(W_RN[:, inside_N]) for form, inside_N in forms], axis=0))
    return np.concatenate(found)
