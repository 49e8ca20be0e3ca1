"""Linear probes: losses by the book, the optimum where there is one, the same bits from the same seed, choice on validation alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score

from trainer.downstream.probes.linear import GridPoint, LinearFit, fit_linear, make_grid, moments
from trainer.downstream.probes.linear_losses import losses, prepare
from trainer.errors import UserError

N, M, D = 600, 400, 12


def features(n: int, seed: int) -> np.ndarray:
    """Columns of very different place and width; the last two never change, or hardly."""
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(size=(n, D)) * np.logspace(-2, 2, D) + np.linspace(-50, 50, D)
    x_ND[:, -2:] = 7.0
    x_ND[:, -1] += 1e-6 * rng.normal(size=n)
    return x_ND.astype(np.float32)


def signal(x_ND: np.ndarray, which: int = 0) -> np.ndarray:
    """A linear function of the features, of mean 0 and deviation about 2."""
    z_ND = (x_ND - np.linspace(-50, 50, D)) / np.logspace(-2, 2, D)
    return z_ND[:, : D - 2] @ np.random.default_rng(which + 10).normal(size=D - 2) * 2 / math.sqrt(D - 2)


def targets(kind: str, x_ND: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    s_N, t_N = signal(x_ND), signal(x_ND, 1)
    noise_N = rng.logistic(size=len(x_ND))
    if kind == "binary":
        return (s_N + noise_N > 0.5).astype(np.int64)
    if kind == "multiclass":
        return np.stack([s_N, t_N, 0 * s_N], 1).__add__(rng.gumbel(size=(len(x_ND), 3))).argmax(1)
    if kind == "multilabel":
        y_NK = np.stack([s_N + noise_N > 0, t_N + noise_N > 1.5], 1).astype(float)
        y_NK[rng.random(y_NK.shape) < 0.2] = np.nan
        return y_NK
    if kind == "ordinal":
        return np.digitize(s_N + noise_N, [-1.5, 0, 1.5])
    if kind == "regression":
        return 60 + 12 * s_N + 3 * rng.normal(size=len(x_ND))
    time_N = rng.exponential(np.exp(-s_N))
    censored_N = rng.exponential(2.0, len(x_ND))
    return np.stack([np.minimum(time_N, censored_N), time_N <= censored_N], 1)


def concordance(risk_N: np.ndarray, y_N2: np.ndarray) -> float:
    """Share of the comparable pairs in which who has the event first has the higher risk."""
    first_NN = (y_N2[:, None, 0] < y_N2[None, :, 0]) & (y_N2[:, None, 1] == 1)
    return float((first_NN & (risk_N[:, None] > risk_N[None])).sum() / first_NN.sum())


def labelled_auc(score_NK: np.ndarray, y_NK: np.ndarray) -> float:
    known = [~np.isnan(y) for y in y_NK.T]
    return float(np.mean([roc_auc_score(y[k], s[k]) for y, s, k in zip(y_NK.T, score_NK.T, known, strict=True)]))


SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "binary": lambda s, y: roc_auc_score(y, s),
    "multiclass": lambda s, y: (s.argmax(1) == y).mean(),
    "multilabel": labelled_auc,
    "ordinal": lambda s, y: -np.abs((s > 0.5).sum(1) - 1 - y).mean(),
    "regression": lambda s, y: r2_score(y, s),
    "survival": concordance,
}
GRID = make_grid((1e-3, 1e-2, 1e-1))


def fit(kind: str, seed: int = 0, **options) -> LinearFit:
    x_ND, v_ND = features(N, 1), features(M, 2)
    words = {"grid": GRID, "epochs": 15, "batch": 64, "score": SCORES[kind]} | options
    return fit_linear(kind, x_ND, targets(kind, x_ND, 3), v_ND, targets(kind, v_ND, 4), seed=seed, **words)


# ----------------------------------------------------------------------------------------------------------------- losses


def literal_cox(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Breslow's partial likelihood, one event after another."""
    terms = [np.log(np.exp(risk[time >= time[i]]).sum()) - risk[i] for i in range(len(time)) if event[i]]
    return float(np.mean(terms)) if terms else 0.0


def literal(kind: str, z_NK: np.ndarray, y: np.ndarray) -> float:
    if kind == "survival":
        return literal_cox(z_NK[:, 0], y[:, 0], y[:, 1])
    if kind == "multiclass":
        p_NK = np.exp(z_NK) / np.exp(z_NK).sum(1, keepdims=True)
        return float(-np.mean([np.log(p[c]) for p, c in zip(p_NK, y, strict=True)]))
    if kind == "regression":
        return float(np.nanmean((z_NK - (y - np.nanmean(y, 0)) / np.nanstd(y, 0)) ** 2, 0).sum())
    if kind == "ordinal":
        y = np.stack([y >= 1, y >= 2, y >= 3], 1).astype(float)
    y_NK = y.reshape(len(y), -1)
    p_NK = 1 / (1 + np.exp(-z_NK))
    return float(-np.nanmean(y_NK * np.log(p_NK) + (1 - y_NK) * np.log(1 - p_NK), 0).sum())


@pytest.mark.parametrize("kind", SCORES)
def test_losses_equal_their_definitions_for_each_grid_point(kind: str) -> None:
    y = targets(kind, features(40, 5), 6)
    if kind == "survival":
        y[:, 0] = np.ceil(y[:, 0] * 4)  # ties, among events and between events and censored
    if kind == "regression":
        y = np.stack([y, y**2], 1)
        y[3:6, 0] = np.nan
    prepared = prepare(kind, y)
    z_NGK = np.random.default_rng(0).normal(size=(40, 3, prepared.outputs)).astype(np.float32)
    found_G = losses(kind, torch.from_numpy(z_NGK), prepared.y, prepared.weight).numpy()
    np.testing.assert_allclose(found_G, [literal(kind, z_NGK[:, g].astype(float), y) for g in range(3)], rtol=2e-5)


@pytest.mark.parametrize("kind", ["multilabel", "survival"])
def test_a_mini_batch_without_anything_known_pulls_nowhere(kind: str) -> None:
    z_NGK = torch.randn(5, 2, 1, requires_grad=True)
    y = torch.zeros(5, 2) if kind == "survival" else torch.zeros(5, 1)
    found_G = losses(kind, z_NGK, y, torch.zeros(5, 1))
    found_G.sum().backward()
    assert found_G.tolist() == [0, 0]
    assert z_NGK.grad is not None
    assert not z_NGK.grad.any()


def test_class_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    for kind in ("binary", "multiclass", "ordinal"):
        y = targets(kind, features(N, 1), 3)
        weight = prepare(kind, y, class_weights="balanced").weight.numpy()
        np.testing.assert_allclose(weight.reshape(N, -1)[:, 0], compute_sample_weight("balanced", y), rtol=1e-6)
    y = targets("multilabel", features(N, 1), 3)
    weight_NK = prepare("multilabel", y, class_weights="balanced").weight.numpy()
    for k in range(2):
        ones, zeros = (weight_NK[y[:, k] == c, k].sum() for c in (1, 0))
        assert ones == pytest.approx(zeros, rel=1e-5)
        assert not weight_NK[np.isnan(y[:, k]), k].any()


# ---------------------------------------------------------------------------------------------------------------- optimum


def standardised(x_ND: np.ndarray, like_ND: np.ndarray) -> np.ndarray:
    mean, std = (t.numpy() for t in moments(torch.from_numpy(like_ND)))
    return (x_ND - mean) / std


def last_epoch() -> Callable[[np.ndarray, np.ndarray], float]:
    """A metric that is better every time: the fit that comes back is the last one, nothing is chosen."""
    count = itertools.count()
    return lambda score, target: float(next(count))


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_long_fit_arrives_at_scikit_learns_optimum(kind: str) -> None:
    x_ND, v_ND = features(N, 1), features(M, 2)
    y, w = targets(kind, x_ND, 3), targets(kind, v_ND, 4)
    decay = 0.01
    best = LogisticRegression(C=1 / (N * decay), max_iter=500).fit(standardised(x_ND, x_ND), y)
    expected = best.predict_proba(standardised(v_ND, x_ND))
    words = {"grid": make_grid((0.1,), (decay,)), "epochs": 200, "batch": N, "score": last_epoch()}
    got = fit_linear(kind, x_ND, y, v_ND, w, **words).predict(v_ND)
    np.testing.assert_allclose(got if kind == "multiclass" else np.stack([1 - got, got], 1), expected, atol=2e-3)


def test_a_regression_is_least_squares_in_the_labels_units() -> None:
    x_ND, v_ND = features(N, 1), features(M, 2)
    y, w = targets("regression", x_ND, 3), targets("regression", v_ND, 4)
    expected = Ridge(alpha=1e-2).fit(standardised(x_ND, x_ND), y).predict(standardised(v_ND, x_ND))
    words = {"grid": make_grid((0.1,)), "epochs": 200, "batch": N, "score": last_epoch()}
    np.testing.assert_allclose(fit_linear("regression", x_ND, y, v_ND, w, **words).predict(v_ND), expected, atol=0.02)
    two = fit_linear("regression", x_ND, np.stack([y, -5 * y], 1), v_ND, np.stack([w, w], 1), **words).predict(v_ND)
    np.testing.assert_allclose(two, np.stack([expected, -5 * expected], 1), atol=0.1)


@pytest.mark.parametrize("kind", SCORES)
def test_every_kind_learns_and_scores_in_its_convention(kind: str) -> None:
    found = fit(kind)
    x_ND = features(M, 9)
    y = targets(kind, x_ND, 10)
    score = found.predict(x_ND)
    shapes = {"multiclass": (M, 3), "multilabel": (M, 2), "ordinal": (M, 4)}
    assert score.shape == shapes.get(kind, (M,))
    if kind == "multiclass":
        np.testing.assert_allclose(score.sum(1), 1, atol=1e-6)
    if kind == "ordinal":
        assert (score[:, 0] == 1).all()
    floors = {
        "binary": 0.8,
        "multiclass": 0.6,
        "multilabel": 0.8,
        "ordinal": -0.75,
        "regression": 0.9,
        "survival": 0.75,
    }
    assert SCORES[kind](score, y) > floors[kind]


@pytest.mark.parametrize("kind", ["binary", "multilabel", "survival"])
def test_nothing_is_found_where_nothing_is(kind: str) -> None:
    x_ND, v_ND, t_ND = features(N, 1), features(M, 2), features(M, 9)
    y, w, u = (targets(kind, features(n, s), s) for n, s in ((N, 21), (M, 22), (M, 23)))
    found = fit_linear(kind, x_ND, y, v_ND, w, grid=GRID, epochs=5, batch=64, score=SCORES[kind])
    assert abs(SCORES[kind](found.predict(t_ND), u) - 0.5) < 0.08


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_a_grid_point_is_as_if_it_were_alone(optimiser: str) -> None:
    together = fit("multilabel", grid=[GridPoint(0.01), GridPoint(0.02, 0.3)], optimiser=optimiser)
    for point, row in zip([GridPoint(0.01), GridPoint(0.02, 0.3)], together.grid_values, strict=True):
        alone = fit("multilabel", grid=[point], optimiser=optimiser)
        assert alone.val == pytest.approx(row["val"], abs=1e-4)
        assert (alone.lr, alone.weight_decay) == (row["lr"], row["weight_decay"])


def test_weight_decay_shrinks_weights_but_not_the_bias() -> None:
    free, held = (fit("binary", grid=[GridPoint(0.01, d)], epochs=30) for d in (0.0, 0.5))
    assert np.abs(held.weight).sum() < 0.5 * np.abs(free.weight).sum()
    assert abs(held.bias[0]) > 0.1


# ----------------------------------------------------------------------------------------------------------------- choice


def test_the_best_point_and_epoch_on_validation_are_chosen() -> None:
    seen: list[float] = []

    def watched(score: np.ndarray, target: np.ndarray) -> float:
        seen.append(roc_auc_score(target, score))
        return seen[-1]

    found = fit("binary", score=watched, epochs=6)
    values_EG = np.array(seen).reshape(6, len(GRID))
    assert found.val == values_EG.max()
    assert [r["val"] for r in found.grid_values] == values_EG.max(0).tolist()
    assert [r["epoch"] for r in found.grid_values] == (values_EG.argmax(0) + 1).tolist()
    best = found.grid_values[int(values_EG.max(0).argmax())]
    assert (found.lr, found.epoch) == (best["lr"], best["epoch"])
    # The weights that are handed back are those of that epoch.
    v_ND = features(M, 2)
    assert roc_auc_score(targets("binary", v_ND, 4), found.predict(v_ND)) == found.val
    worst = fit("binary", score=watched, epochs=6, higher_is_better=False)
    assert worst.val == values_EG.min()


@pytest.mark.parametrize("kind", SCORES)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(kind: str) -> None:
    one, two, other = (fit(kind, seed, epochs=2) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.weight, two.weight)
    np.testing.assert_array_equal(one.bias, two.bias)
    assert (one.weight != other.weight).any()


def test_a_point_that_diverges_is_left_out_and_spoils_no_other() -> None:
    grid = [GridPoint(0.05), GridPoint(3e38)]
    found = fit("regression", grid=grid, optimiser="sgd", batch=N)
    assert found.lr == 0.05
    assert found.grid_values[1]["val"] is None
    np.testing.assert_allclose(
        found.weight, fit("regression", grid=grid[:1], optimiser="sgd", batch=N).weight, rtol=1e-4
    )
    with pytest.raises(UserError, match="all diverged"):
        fit("regression", grid=grid[1:], optimiser="sgd", batch=N)


def test_a_metric_without_a_value_chooses_nothing() -> None:
    with pytest.raises(UserError, match="no learning rate of the grid has a value"):
        fit("binary", score=lambda s, y: math.nan, epochs=1)


def test_tensors_halves_and_read_only_arrays_do_as_well() -> None:
    x_ND, v_ND = features(N, 1), features(M, 2)
    y, w = targets("binary", x_ND, 3), targets("binary", v_ND, 4)
    words = {"grid": GRID, "epochs": 3, "score": SCORES["binary"]}
    plain = fit_linear("binary", x_ND, y, v_ND, w, **words)
    before = x_ND.copy()
    tensors = fit_linear("binary", torch.from_numpy(x_ND), y, torch.from_numpy(v_ND), w, **words)
    np.testing.assert_array_equal(plain.weight, tensors.weight)
    np.testing.assert_array_equal(x_ND, before)
    x_ND.flags.writeable = False
    np.testing.assert_array_equal(plain.weight, fit_linear("binary", x_ND, y, v_ND, w, **words).weight)
    halves = x_ND.astype(np.float16), v_ND.astype(np.float16)
    half = fit_linear("binary", halves[0], y, halves[1], w, **words)
    whole = fit_linear("binary", halves[0].astype(np.float32), y, halves[1].astype(np.float32), w, **words)
    np.testing.assert_array_equal(half.weight, whole.weight)


def test_a_rare_class_that_training_lacks_has_its_column() -> None:
    x_ND, v_ND = features(N, 1), features(M, 2)
    y, w = targets("multiclass", x_ND, 3), targets("multiclass", v_ND, 4)
    found = fit_linear("multiclass", x_ND, y, v_ND, w, epochs=1, score=SCORES["multiclass"], classes=5)
    assert found.predict(v_ND).shape == (M, 5)
    assert found.predict(v_ND)[:, 3:].max() < 0.05


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("kind", "change", "why"),
    [
        ("binary", lambda y: y * 0, "all 600 samples are of class 0"),
        ("binary", lambda y: y + 1, "binary targets are 0 to 1, found \\[2"),
        ("binary", lambda y: np.where(np.arange(N) < 3, np.nan, y), "3 unknown binary targets"),
        ("binary", lambda y: y[:, None], r"are \[N\] for 600 samples, these are \[600, 1\]"),
        ("binary", lambda y: y[:-1], r"these are \[599\]"),
        ("multiclass", lambda y: y - 1, "found \\[-1"),
        ("multiclass", lambda y: y + 0.5, "multiclass targets are 0, 1, 2, ..., found"),
        ("multilabel", lambda y: np.nan * y, "no known value"),
        ("multilabel", lambda y: np.where([True, False], np.nan, y), r"no known value in column \[0\]"),
        ("multilabel", lambda y: 0 * y, "no label has both a 0 and a 1"),
        ("regression", lambda y: 0 * y, "a column is constant"),
        ("regression", lambda y: np.where(np.arange(N) == 1, np.inf, y), "infinite"),
        ("survival", lambda y: y * [1, 0], "no event among 600"),
        ("survival", lambda y: y * [-1, 1], "time >= 0"),
        ("segmentation", lambda y: y, "no probe for kind 'segmentation'"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(kind: str, change: Callable, why: str) -> None:
    x_ND = features(N, 1)
    y = targets(kind, x_ND, 3)
    with pytest.raises(UserError, match=why):
        fit_linear(kind, x_ND, change(y), x_ND, y, score=lambda s, t: 0.0, epochs=1)


def test_features_and_grids_that_cannot_be_used_are_refused() -> None:
    x_ND = features(N, 1)
    y, holed_ND = targets("binary", x_ND, 3), x_ND.copy()
    holed_ND[[4, 9], 2] = np.nan
    words = {"score": lambda s, t: 0.0, "epochs": 1}
    with pytest.raises(UserError, match="training features: 2 samples with non-finite features, the first in row 4"):
        fit_linear("binary", holed_ND, y, x_ND, y, **words)
    with pytest.raises(UserError, match="validation features: 11 wide, the probe is 12 wide"):
        fit_linear("binary", x_ND, y, x_ND[:, :-1], y, **words)
    with pytest.raises(UserError, match="validation features: features are"):
        fit_linear("binary", x_ND, y, x_ND[:0], y[:0], **words)
    with pytest.raises(UserError, match="regression has no classes"):
        fit("regression", class_weights="balanced")
    with pytest.raises(UserError, match=r"(?s)epochs=0.*batch=0.*lr=-1.0"):
        fit("binary", grid=[GridPoint(-1.0)], epochs=0, batch=0)
    with pytest.raises(UserError, match="the grid is empty"):
        fit("binary", grid=[])
