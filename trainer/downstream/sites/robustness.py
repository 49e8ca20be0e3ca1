"""The robustness index of PathoROB: whether the nearest neighbours of a case share its class or its site.

Koemen et al., "Towards robust foundation models for digital pathology", arXiv 2507.17845 (index after de Jong et al., arXiv 2501.18055).
Features are scaled to length 1. Of each case the k nearest others are taken, none of its own patient (there: of its own slide). With SO
neighbours of the same class and another site, and OS of another class and the same site, summed over all cases and all k neighbours,

    index = SO / (SO + OS)

from 0 (the site alone decides who is near) to 1 (the class alone). k is the number of neighbours whose majority tells the class with the
highest balanced accuracy, of equal ones the smallest; of equal votes the first class is taken. This is their form over all classes and
sites at once. Their sets have equally many cases of each class from each site, where an index of 0.5 stands for features that say
nothing; elsewhere it depends on how many of each there are, so the value of random neighbours (`chance`) stands beside it.

Shape letters: N cases, D width of the features, K neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.downstream.metrics.weighted import ratio

FIRST, STEP, MOST = (1, 3, 5, 7, 9), 10, 600
"""Numbers of neighbours to try: these, then 11, 21, ... below 600, as PathoROB does on CAMELYON."""
CHUNK = 512


@dataclass(frozen=True)
class Robustness:
    """index and chance from 0 to 1, NaN where no neighbour differs in just one of class and site. `near_NK` are the k nearest of
    each case; `so_NK` says which share its class alone, `os_NK` which its site alone."""

    index: float
    chance: float
    k: int
    balanced_accuracy: float
    near_NK: np.ndarray
    so_NK: np.ndarray
    os_NK: np.ndarray

    def resampled(self, of_N: np.ndarray, count_RP: np.ndarray) -> np.ndarray:
        """[R] the index where patients count so often, each as one who has neighbours and as one who is a neighbour.

        A pair of cases counts by the product: with the first alone the index would seem to vary half as much as it does (a mean over pairs
        is a U-statistic of degree 2; Hoeffding, Annals of Mathematical Statistics 19, 1948). Neighbours stay those that they are.

        Args:
            of_N: the patient of each case, from 0.
        """
        so_R, os_R = (self._pairs(kind_NK, of_N, count_RP) for kind_NK in (self.so_NK, self.os_NK))
        return ratio(so_R, so_R + os_R)

    def _pairs(self, kind_NK: np.ndarray, of_N: np.ndarray, count_RP: np.ndarray) -> np.ndarray:
        from scipy.sparse import coo_array

        case_M, at_M = np.nonzero(kind_NK)
        ends = of_N[case_M], of_N[self.near_NK[case_M, at_M]]
        pairs_PP = coo_array((np.ones(len(case_M)), ends), shape=(count_RP.shape[1],) * 2).tocsr()
        return np.asarray((count_RP * (count_RP @ pairs_PP)).sum(1))


def robustness(x_ND: np.ndarray, class_N: np.ndarray, site_N: np.ndarray, patient_N: np.ndarray) -> Robustness | None:
    """The index of features.

    Args:
        x_ND: features.
        class_N, site_N, patient_N: anything that can be compared, of each case.

    Returns:
        None where some patient has all the cases.
    """
    class_N, site_N, patient_N = (np.unique(v, return_inverse=True)[1] for v in (class_N, site_N, patient_N))
    near_NK = neighbours(x_ND, patient_N, MOST)
    if not near_NK.shape[1]:
        return None
    tried = [k for k in (*FIRST, *range(11, MOST, STEP)) if k <= near_NK.shape[1]]
    told = [_balanced_accuracy(_majority(class_N[near_NK[:, :k]]), class_N) for k in tried]
    k = tried[int(np.argmax(told))]
    so_NK, os_NK = _mixed(near_NK[:, :k], class_N, site_N)
    index, chance = _index(so_NK.sum(), os_NK.sum()), _chance(class_N, site_N, patient_N)
    return Robustness(index, chance, k, max(told), near_NK[:, :k], so_NK, os_NK)


def neighbours(x_ND: np.ndarray, patient_N: np.ndarray, most: int) -> np.ndarray:
    """[N, K] the nearest cases of other patients by cosine, nearest first; K is what every case has, and `most` at most."""
    norm_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    z_ND = np.asarray(x_ND, np.float64) / np.where(norm_N1 > 0, norm_N1, 1)
    K = min(most, int(len(z_ND) - np.bincount(patient_N).max()))
    rows = [np.empty((0, K), np.int64)]
    for start in range(0, len(z_ND), CHUNK):
        far_BN = 1 - z_ND[start : start + CHUNK] @ z_ND.T
        far_BN[patient_N[start : start + CHUNK, None] == patient_N[None]] = np.inf
        rows.append(np.argsort(far_BN, axis=1, kind="stable")[:, :K])
    return np.concatenate(rows)


def _index(so: float, os: float) -> float:
    return float(so / (so + os)) if so + os else float("nan")


def _mixed(near_NK: np.ndarray, class_N: np.ndarray, site_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which neighbours of each case share its class alone, and which its site alone."""
    same_class_NK, same_site_NK = (v[near_NK] == v[:, None] for v in (class_N, site_N))
    return same_class_NK & ~same_site_NK, ~same_class_NK & same_site_NK


def _chance(class_N: np.ndarray, site_N: np.ndarray, patient_N: np.ndarray) -> float:
    """The index where all cases of other patients are equally near."""
    so = os = 0
    for start in range(0, len(class_N), CHUNK):
        at = slice(start, start + CHUNK)
        same_class, same_site, own = (v[at, None] == v[None] for v in (class_N, site_N, patient_N))
        so += int((same_class & ~same_site & ~own).sum())
        os += int((~same_class & same_site & ~own).sum())
    return _index(so, os)


def _majority(class_NK: np.ndarray) -> np.ndarray:
    votes_NC = np.stack([(class_NK == c).sum(1) for c in range(int(class_NK.max()) + 1)], 1)
    return np.asarray(votes_NC.argmax(1))


def _balanced_accuracy(said_N: np.ndarray, class_N: np.ndarray) -> float:
    right_N = said_N == class_N
    return float(np.mean([right_N[class_N == c].mean() for c in np.unique(class_N)]))
