"""Metrics of ranks: where the right report of an image stands among all, and the right image of a report.

A case's score is (rank of its report, rank of its image), 1 at best; ties stand at their mean rank. A resample draws cases of patients, not
candidates: the question stays which of these reports, asked of other patients.

Shape letters: R resamples, N cases.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from trainer.downstream.metrics import exact
from trainer.downstream.metrics.kinds import Kind
from trainer.downstream.metrics.metric import Metric, own
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.weighted import Weighted, ratio

SIDES = ("image_to_report", "report_to_image")
AT = (1, 5, 10)
NAMES = tuple(f"{side}_{what}" for side in SIDES for what in (*(f"r{k}" for k in AT), "median_rank"))


def metrics() -> list[Metric]:
    """Recall at 1, 5 and 10 and the median rank, of both directions."""
    kinds: tuple[Kind, ...] = ("retrieval",)
    made = []
    for column, side in enumerate(SIDES):
        of, among = side.split("_to_")
        for k in AT:
            right = partial(_right, column=column, k=k)
            said = f"share of {of}s of which a right {among} is among the {k} nearest (k/n); reports of equal words are one"
            made.append(
                Metric(
                    f"{side}_r{k}", kinds, said, True, _share(right), partial(_recall, right), _count(right), exact.of_cases
                )
            )  # fmt: skip
        said = f"median over {of}s of the rank of the nearest right {among}, 1 is best; reports of equal words are one"
        made.append(own(f"{side}_median_rank", kinds, said, partial(_median, column), up=False, scale="error"))
    return made


def _right(p: Predictions, column: int, k: int) -> np.ndarray:
    return p.score[:, column] <= k


def _share(right: Callable[[Predictions], np.ndarray]) -> Callable[[Predictions], float]:
    return lambda p: float(right(p).mean())


def _count(right: Callable[[Predictions], np.ndarray]) -> Callable[[Predictions], int]:
    return lambda p: int(right(p).sum())


def _recall(right: Callable[[Predictions], np.ndarray], p: Predictions) -> Weighted:
    right_N = right(p).astype(np.float64)
    return lambda W_RN: ratio(W_RN @ right_N, W_RN.sum(1))


def _median(column: int, p: Predictions) -> Weighted:
    """The median of a set in which case n stands W_RN[r, n] times; of evenly many the mean of the middle two."""
    order = np.argsort(p.score[:, column], kind="stable")
    rank_N = p.score[order, column]

    def of(W_RN: np.ndarray) -> np.ndarray:
        upto_RN = W_RN[:, order].cumsum(1)
        if not upto_RN.shape[1]:
            return np.full(len(W_RN), np.nan)
        total_R = upto_RN[:, -1]
        low_R, high_R = (rank_N[(upto_RN > at_R[:, None]).argmax(1)] for at_R in ((total_R - 1) // 2, total_R // 2))
        return np.where(total_R > 0, (low_R + high_R) / 2, np.nan)

    return of
