"""The metrics of tasks, each with its convention in a sentence: computed over the whole set, never per batch.

Values come from scikit-learn and SciPy where they have the metric; a second, weighted form (trainer/downstream/metrics/weighted.py) serves
resampling. A case with an unknown target (NaN) is left out; a set in which a metric has no value (one class, no case, no
comparable pair, no truth) gives NaN, never an error. A score that is not a number is refused where `Predictions` are made.

Shape letters: N cases, K classes, labels or targets, M cases known in one column, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache

import numpy as np

from trainer.downstream.metrics import calibration, exact, legacy, retrieval, survival, survival_probability, weighted
from trainer.downstream.metrics import segmentation as masks
from trainer.downstream.metrics.kinds import KINDS, Kind
from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.weighted import Weighted
from trainer.errors import UserError

__all__ = ["DEFAULTS", "KINDS", "METRICS", "Kind", "Metric", "Predictions", "metric_of"]

Column = Callable[[np.ndarray, np.ndarray], float]
_PROBABILISTIC: tuple[Kind, ...] = ("binary", "multiclass", "multilabel", "ordinal")
_CLASSES: tuple[Kind, ...] = ("binary", "multiclass", "ordinal")


# --------------------------------------------------------------------------------------------------------- points by libraries


def _both(truth_M: np.ndarray) -> bool:
    return len(truth_M) > 0 and bool(truth_M.any()) and not bool(truth_M.all())


def _roc(truth_M: np.ndarray, score_M: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(truth_M, score_M) if _both(truth_M) else np.nan


def _precision(truth_M: np.ndarray, score_M: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    return average_precision_score(truth_M, score_M) if truth_M.any() else np.nan


def _macro(one: Column) -> Callable[[Predictions], float]:
    return lambda p: _mean([one(truth_M, score_M) for _, truth_M, score_M in weighted.columns(p)])


def _mean(values: list[float]) -> float:
    return float(weighted.defined_mean(np.asarray(values, dtype=np.float64)))


def _accuracy(p: Predictions) -> float:
    from sklearn.metrics import accuracy_score

    return accuracy_score(p.truth(), p.decided())


def _balanced_accuracy(p: Predictions) -> float:
    from sklearn.metrics import recall_score

    return recall_score(p.truth(), p.decided(), labels=np.unique(p.truth()), average="macro")


def _f1(p: Predictions) -> float:
    from sklearn.metrics import f1_score

    if p.kind != "multilabel":
        return f1_score(p.truth(), p.decided(), average="macro")
    pairs = [(truth_M, score_M > 0.5) for _, truth_M, score_M in weighted.columns(p)]
    return _mean([f1_score(t, yes) if (t | yes).any() else np.nan for t, yes in pairs])


def _kappa(p: Predictions) -> float:
    from sklearn.metrics import cohen_kappa_score

    seen = np.union1d(p.truth(), p.decided())
    if len(seen) < 2:
        return np.nan  # no disagreement by chance either: 0 / 0
    return cohen_kappa_score(p.truth(), p.decided(), labels=np.arange(p.score.shape[1]), weights="quadratic")


def _over_targets(one: Column, varying: bool = True) -> Callable[[Predictions], float]:
    """The mean of `one` over those targets that are known and, if asked, vary."""

    def point(p: Predictions) -> float:
        parts = [(y[~np.isnan(y)], s[~np.isnan(y)]) for y, s in zip(p.targets.T, p.scores.T, strict=True)]
        return _mean([one(y, s) if len(y) > varying and not (varying and np.ptp(y) == 0) else np.nan for y, s in parts])

    return point


def _r2(y_M: np.ndarray, s_M: np.ndarray) -> float:
    from sklearn.metrics import r2_score

    return r2_score(y_M, s_M)


def _mae(y_M: np.ndarray, s_M: np.ndarray) -> float:
    from sklearn.metrics import mean_absolute_error

    return mean_absolute_error(y_M, s_M)


def _spearman(y_M: np.ndarray, s_M: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return spearmanr(y_M, s_M).statistic if np.ptp(s_M) > 0 else np.nan


def _pearson(y_M: np.ndarray, s_M: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return pearsonr(y_M, s_M).statistic if np.ptp(s_M) > 0 else np.nan


# --------------------------------------------------------------------------------------------------------------------- table


def _right(p: Predictions) -> int:
    return int((p.truth() == p.decided()).sum())


def _weighted_f1(p: Predictions) -> Weighted:
    return weighted.f1_labels(p) if p.kind == "multilabel" else weighted.confusion(p, weighted.f1_macro)


def _classification() -> list[Metric]:
    w = weighted
    return [
        Metric(
            "accuracy", _CLASSES,
            "right cases / cases (k/n); decided by P(1) > 0.5, by the largest probability, or for grades by the number of "
            "P(at least grade) over 0.5",
            True, _accuracy, lambda p: w.confusion(p, w.accuracy), _right, exact.of_cases, decides=True,
            parts=lambda p: (p.truth() == p.decided()).astype(np.float64),
        ),
        Metric(
            "balanced_accuracy", _CLASSES, "mean recall of the classes that have a true case",
            True, _balanced_accuracy, lambda p: w.confusion(p, w.balanced_accuracy), slack=exact.of_classes, decides=True,
        ),
        Metric(
            "auc", _PROBABILISTIC,
            "area under the ROC curve, ties one half; mean over classes against the rest, over labels (unknown ones left out), or "
            "over thresholds of a grade, of those that have positives and negatives",
            True, _macro(_roc), lambda p: w.macro([w.roc_auc(*c) for c in w.columns(p)]), slack=exact.of_columns,
            areas=w.columns,
        ),
        Metric(
            "auc_micro", ("multiclass", "multilabel"),
            "area under one ROC curve of all (case, class) pairs, unknown ones left out",
            True, lambda p: _roc(*w.pooled(p)[1:]), lambda p: w.roc_auc(*w.pooled(p)), slack=exact.of_pooled,
            areas=lambda p: [w.pooled(p)],
        ),
        Metric(
            "auc_any", ("ordinal",), "area under the ROC curve of grade 1 or more against grade 0, scored by P(at least grade 1)",
            True, lambda p: _roc(*w.columns(p)[0][1:]), lambda p: w.roc_auc(*w.columns(p)[0]), slack=exact.of_first_column,
            areas=lambda p: w.columns(p)[:1],
        ),
        Metric(
            "average_precision", _PROBABILISTIC,
            "sum over distinct scores of precision x recall gained, no interpolation; mean over classes, labels or thresholds that "
            "have a positive",
            True, _macro(_precision), lambda p: w.macro([w.average_precision(*c) for c in w.columns(p)]),
        ),
        Metric(
            "f1_macro", _PROBABILISTIC,
            "mean F1 of the classes (for labels: of the positive class of each, at 0.5) that are true or predicted of some case",
            True, _f1, _weighted_f1, decides=True,
        ),
        Metric(
            "kappa_quadratic", ("ordinal", "multiclass"),
            "Cohen's kappa with squared distances of the classes' numbers, one confusion matrix of the whole set",
            True, _kappa, lambda p: w.confusion(p, w.kappa_quadratic), decides=True, scale="correlation",
        ),
    ]  # fmt: skip


def _numbers() -> list[Metric]:
    kinds: tuple[Kind, ...] = ("regression",)
    return [
        own(
            "mse", kinds,
            "mean squared error in units of the target's deviation over the training split, summed over targets: predicting the mean "
            "scores about the number of targets",
            weighted.mse, up=False, scale="error",
        ),
        Metric(
            "mae", kinds, "mean absolute error in the label's own units, mean over targets",
            False, _over_targets(_mae, varying=False), weighted.mae, scale="error",
        ),
        Metric(
            "r2", kinds, "1 - squared error / squared deviation from the test cases' mean, mean over targets that vary",
            True, _over_targets(_r2), weighted.r2, scale="below_one",
        ),
        Metric(
            "spearman", kinds, "rank correlation, ties at their mean rank, mean over targets of which truth and prediction vary",
            True, _over_targets(_spearman), lambda p: weighted.correlation(p, ranks=True), scale="correlation",
        ),
        Metric(
            "pearson", kinds, "correlation, mean over targets of which truth and prediction vary",
            True, _over_targets(_pearson), lambda p: weighted.correlation(p, ranks=False), scale="correlation",
        ),
        own(
            "c_index", ("survival",),
            "Harrell's C over comparable pairs, equal risks one half; of equal times a pair counts when just one is an event",
            survival.c_index,
        ),
    ]  # fmt: skip


def _segmentation() -> list[Metric]:
    kinds: tuple[Kind, ...] = ("segmentation",)
    return [
        own(
            "dice_patient", kinds,
            "Dice of each patient's volume (pixels summed over its slices), mean over patients with any true or predicted pixel; a "
            "patient with neither is left out",
            masks.over_structures(lambda p: masks.mean_over_patients(p, masks.dice_of_patients(p))), slack=exact.of_volumes,
            parts=masks.of_one(masks.dice_of_patients),
        ),
        own(
            "dice_positive", kinds, "Dice of each slice that has truth, mean over these slices",
            masks.over_structures(lambda p: masks.mean_over_cases(masks.dice_of_positives(p))), slack=exact.of_positives,
            parts=masks.of_one(masks.dice_of_positives),
        ),
        own(
            "dice_all", kinds,
            "Dice of each slice, mean over all slices; no truth and no prediction is 1, no truth and any prediction is 0",
            masks.over_structures(lambda p: masks.mean_over_cases(masks.dice_of_all(p))), slack=exact.of_cases,
            parts=masks.of_one(masks.dice_of_all),
        ),
        own(
            "iou_patient", kinds,
            "intersection over union of each patient's volume, mean over patients with any true or predicted pixel",
            masks.over_structures(lambda p: masks.mean_over_patients(p, masks.iou_of_patients(p))), slack=exact.of_volumes,
            parts=masks.of_one(masks.iou_of_patients),
        ),
        Metric(
            "image_auc", kinds, "area under the ROC curve of slices with truth against slices without, scored by the pixels predicted",
            True, _macro(_roc), lambda p: weighted.macro([weighted.roc_auc(*c) for c in weighted.columns(p)]),
            slack=exact.of_columns, areas=weighted.columns,
        ),
    ]  # fmt: skip


def _legacy() -> list[Metric]:
    where = "of each batch of 16 cases in the data set's order, mean over batches that have one"
    return [
        Metric(
            "kappa_contig", ("ordinal",),
            f"for comparison only, as ContIG's code has it: quadratic kappa {where}; grades by logits above 0.5, -1 without any",
            True, legacy.over_batches(legacy.kappa), decides=True, scale="correlation",
        ),
        Metric(
            "auc_contig", ("multilabel",), f"for comparison only, as ContIG's code has it: micro-averaged area under the ROC curve {where}",
            True, legacy.over_batches(legacy.auc_micro),
        ),
        own(
            "dice_contig", ("segmentation",),
            "for comparison only, as ContIG's code has it: 2 sum p t / (sum p + sum t) over all pixels of all structures of the whole set "
            "at once, p probabilities that are not thresholded, on the encoder's grid",
            legacy.soft_dice,
        ),
    ]  # fmt: skip


STRUCTURED = tuple(m.name for m in _segmentation())
"""Metrics that each of several structures has by itself, too: dice_patient/disc."""


class _Table(dict[str, Metric]):
    """Metrics by name; NAME/STRUCTURE is made when it is asked for."""

    def __missing__(self, name: str) -> Metric:
        if name not in self:
            raise KeyError(name)
        return _of_structure(name)

    def __contains__(self, name: object) -> bool:
        whole, slash, part = str(name).partition("/")
        return super().__contains__(name) or bool(slash and part and whole in STRUCTURED)


@lru_cache
def _of_structure(name: str) -> Metric:
    whole, _, part = name.partition("/")
    base = METRICS[whole]
    form = base.weighted
    assert form is not None
    said, slack = f"of {part} alone: {base.convention}", base.slack
    alone: exact.Slack | None = None if slack is None else lambda p, level: slack(p.structure(part), level)
    return own(name, base.kinds, said, lambda p: form(p.structure(part)), base.higher_is_better, alone)


METRICS = _Table(
    {
        m.name: m
        for m in (
            *_classification(),
            *calibration.metrics(),
            *_numbers(),
            *survival.metrics(),
            *survival_probability.metrics(),
            *_segmentation(),
            *retrieval.metrics(),
            *_legacy(),
        )
    }
)

# The metrics of a kind that a result holds; the first one is primary unless the task names another.
DEFAULTS: dict[Kind, tuple[str, ...]] = {
    "binary": (
        "auc", "accuracy", "balanced_accuracy", "average_precision", "f1_macro", "brier", "ece", "calibration_intercept",
        "calibration_slope",
    ),
    "multiclass": ("auc", "accuracy", "balanced_accuracy", "auc_micro", "average_precision", "f1_macro", "brier", "ece"),
    "multilabel": ("auc", "auc_micro", "average_precision", "f1_macro", "brier", "ece"),
    "ordinal": ("kappa_quadratic", "accuracy", "balanced_accuracy", "auc", "auc_any", "f1_macro", "brier", "ece"),
    "regression": ("mae", "mse", "r2", "spearman", "pearson"),
    "survival": ("c_index", "c_uno", "time_auc", "integrated_brier", "horizon_gap"),
    "segmentation": ("dice_patient", "dice_positive", "dice_all", "iou_patient", "image_auc"),
    "retrieval": retrieval.NAMES,
}  # fmt: skip


def metric_of(name: str, kind: Kind) -> Metric:
    """The metric called `name`, for predictions of `kind`.

    Raises:
        UserError: there is none.
    """
    fitting = [m.name for m in METRICS.values() if kind in m.kinds]
    if name in fitting or (name in METRICS and kind in METRICS[name].kinds):
        return METRICS[name]
    near = get_close_matches(name, fitting, 1)
    remedy = f"did you mean '{near[0]}'?" if near else f"choose among {', '.join(fitting)}"
    raise UserError(f"there is no metric '{name}' of a {kind} task; {remedy}")
