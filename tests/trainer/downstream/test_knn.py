"""Nearest neighbours: equal to scikit-learn's and to a literal vote, whatever the blocks; k chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from trainer.downstream.probes import knn
from trainer.downstream.probes.knn import fit_knn, neighbours
from trainer.errors import UserError

N, M, D = 120, 260, 6
KS = (1, 3, 10, 40)


def features(n: int, seed: int, kinds: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Directions around three axes, of any length, and which axis it was."""
    rng = np.random.default_rng(seed)
    code_N = rng.integers(0, kinds, n)
    x_ND = np.eye(D)[code_N] + 0.4 * rng.normal(size=(n, D))
    return (x_ND * rng.uniform(0.1, 10, (n, 1))).astype(np.float32), code_N


def targets(kind: str, code_N: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "binary":
        return (code_N > 0).astype(np.int64)
    if kind == "multilabel":
        y_NK = np.stack([code_N == 0, code_N == 2], 1).astype(float)
        y_NK[rng.random(y_NK.shape) < 0.3] = np.nan
        return y_NK
    if kind == "regression":
        y_N = 40 + 10 * code_N + rng.normal(size=len(code_N))
        y_N[::9] = np.nan
        return y_N
    return code_N


def known(metric: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda s, y: float(metric(y[~np.isnan(y)], s[~np.isnan(y)]))


SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "binary": lambda s, y: roc_auc_score(y, s),
    "multiclass": lambda s, y: accuracy_score(y, s.argmax(1)),
    "multilabel": known(roc_auc_score),
    "ordinal": lambda s, y: accuracy_score(y, (s > 0.5).sum(1) - 1),
    "regression": known(r2_score),
}


def fit(kind: str, **options):
    (x_MD, code_M), (v_ND, code_N) = features(M, 1), features(N, 2)
    words = {"score": SCORES[kind], "ks": KS} | options
    return fit_knn(kind, x_MD, targets(kind, code_M, 3), v_ND, targets(kind, code_N, 4), **words)


# ------------------------------------------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize(("queries", "bases"), [(1024, 8192), (7, 50), (50, 7), (1, 1)])
def test_neighbours_are_scikit_learns_whatever_the_blocks(monkeypatch, queries: int, bases: int) -> None:
    monkeypatch.setattr(knn, "QUERIES", queries)
    monkeypatch.setattr(knn, "BASES", bases)
    x_ND, base_MD = features(N, 1)[0], features(M, 2)[0]
    distance_NJ, index_NJ = NearestNeighbors(n_neighbors=20, metric="cosine").fit(base_MD).kneighbors(x_ND)
    cosine_NJ, found_NJ = neighbours(torch.from_numpy(x_ND), F.normalize(torch.from_numpy(base_MD)), 20)
    np.testing.assert_array_equal(found_NJ.numpy(), index_NJ)
    np.testing.assert_allclose(cosine_NJ.numpy(), 1 - distance_NJ, atol=1e-6)


def test_a_row_of_zeros_has_neighbours_too() -> None:
    cosine_NJ, _ = neighbours(torch.zeros(2, 3), F.normalize(torch.randn(5, 3)), 4)
    assert not cosine_NJ.any()


def test_no_matrix_of_all_pairs_is_made(monkeypatch) -> None:
    sizes = []
    monkeypatch.setattr(torch.Tensor, "topk", _noting(torch.Tensor.topk, sizes))
    neighbours(torch.randn(3000, 2), F.normalize(torch.randn(20000, 2)), 3)
    assert max(sizes) == knn.QUERIES * knn.BASES


def _noting(call: Callable, sizes: list[int]) -> Callable:
    def noted(x, *args, **words):
        sizes.append(x.numel())
        return call(x, *args, **words)

    return noted


# ------------------------------------------------------------------------------------------------------------------ votes


def literal(kind: str, x_D: np.ndarray, base_MD: np.ndarray, y: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """One sample's score, vote by vote."""
    cosine_M = base_MD @ x_D / np.linalg.norm(base_MD, axis=1) / np.linalg.norm(x_D)
    nearest = np.argsort(-cosine_M)[:k]
    columns = {
        "multiclass": lambda v: [v == c for c in range(3)],
        "ordinal": lambda v: [v >= c for c in range(3)],
    }.get(kind, np.atleast_1d)
    K = len(columns(y[0]))
    votes, weights = np.zeros(K), np.zeros(K)
    for i in nearest:
        for c, value in enumerate(columns(y[i])):
            if not np.isnan(float(value)):
                weight = 1.0 if kind == "regression" else math.exp(cosine_M[i] / temperature)
                votes[c] += weight * value
                weights[c] += weight
    return votes / weights


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_scores_equal_a_literal_vote(kind: str, temperature: float) -> None:
    found = fit(kind, ks=(15,), temperature=temperature)
    base_MD, code_M = features(M, 1)
    x_ND = features(30, 7)[0]
    expected = [
        literal(kind, x.astype(float), base_MD.astype(float), targets(kind, code_M, 3), 15, temperature) for x in x_ND
    ]
    score = found.predict(x_ND)
    assert score.shape == {"multiclass": (30, 3), "multilabel": (30, 2), "ordinal": (30, 3)}.get(kind, (30,))
    np.testing.assert_allclose(score.reshape(30, -1), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", SCORES)
def test_every_kind_finds_what_is_there(kind: str) -> None:
    found = fit(kind)
    x_ND, code_N = features(400, 9)
    y = targets(kind, code_N, 10)
    floors = {"binary": 0.85, "multiclass": 0.75, "multilabel": 0.85, "ordinal": 0.7, "regression": 0.6}
    assert SCORES[kind](found.predict(x_ND), y) > floors[kind]


def test_two_regressions_at_once_are_each_by_itself() -> None:
    (x_MD, code_M), (v_ND, code_N) = features(M, 1), features(N, 2)
    y, w = (np.stack([targets("regression", c, s), -c], 1) for c, s in ((code_M, 3), (code_N, 4)))
    found = fit_knn("regression", x_MD, y, v_ND, w, ks=(5,), score=lambda s, t: 0.0)
    np.testing.assert_allclose(found.predict(v_ND)[:, 0], fit("regression", ks=(5,)).predict(v_ND))


def test_where_no_neighbour_knows_the_training_mean_answers() -> None:
    x_MD = features(M, 1)[0]
    y_M = np.where(np.arange(M) < 2, [3.0, 5.0, *[0.0] * (M - 2)], np.nan)
    found = fit_knn("regression", x_MD, y_M, x_MD, y_M, ks=(1,), score=lambda s, t: 0.0)
    np.testing.assert_allclose(found.predict(x_MD), [3, 5, *[4.0] * (M - 2)])


# ----------------------------------------------------------------------------------------------------------------- choice


def test_the_best_k_on_validation_is_chosen_the_smallest_of_equal_ones() -> None:
    values = iter([0.2, 0.9, 0.9, 0.1])
    found = fit("multiclass", score=lambda s, y: next(values))
    assert (found.k, found.val) == (3, 0.9)
    rows = [{"k": k, "val": v, "val_loss": None} for k, v in zip(KS, [0.2, 0.9, 0.9, 0.1], strict=True)]
    assert found.grid_values == rows
    values = iter([0.2, math.nan, 0.1, 0.1])
    found = fit("multiclass", score=lambda s, y: next(values), higher_is_better=False)
    assert (found.k, found.grid_values[1]["val"]) == (10, None)


@pytest.mark.parametrize("kind", SCORES)
def test_the_chosen_value_is_that_of_predict(kind: str) -> None:
    """Also where every training sample is there twice, with another label."""
    (x_MD, code_M), (v_ND, code_N) = features(M, 1), features(N, 2)
    x_MD, y = np.concatenate([x_MD, x_MD]), targets(kind, np.concatenate([code_M, np.roll(code_M, 1)]), 3)
    w = targets(kind, code_N, 4)
    found = fit_knn(kind, x_MD, y, v_ND, w, ks=(1, 5, 9), score=SCORES[kind])
    assert SCORES[kind](found.predict(v_ND), w) == found.val


def test_more_neighbours_than_samples_are_left_out() -> None:
    assert [row["k"] for row in fit("binary", ks=(5, 1, M, M + 1)).grid_values] == [1, 5, M]


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ks": (M + 1,)}, "more neighbours than the 260 training samples"),
        ({"ks": ()}, "give numbers of neighbours"),
        ({"ks": (0, 5)}, "give numbers of neighbours"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"score": lambda s, y: math.nan}, "no value on the validation split"),
    ],
)
def test_what_cannot_be_chosen_is_refused(options: dict, why: str) -> None:
    with pytest.raises(UserError, match=why):
        fit("binary", **options)


def test_targets_and_features_that_cannot_be_used_are_refused() -> None:
    x_MD, code_M = features(M, 1)
    words = {"score": lambda s, y: 0.0}
    with pytest.raises(UserError, match="no survival"):
        fit_knn("survival", x_MD, np.ones((M, 2)), x_MD, np.ones((M, 2)), **words)
    with pytest.raises(UserError, match="of class 0"):
        fit_knn("binary", x_MD, 0 * code_M, x_MD, code_M > 0, **words)
    with pytest.raises(UserError, match="5 wide, the probe is 6 wide"):
        fit_knn("multiclass", x_MD, code_M, x_MD[:, 1:], code_M, **words)
    with pytest.raises(UserError, match="non-finite"):
        fit("multiclass").predict(x_MD * np.inf)
