"""What the plots draw, against independent computations."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.reporting.runs import features, predictions, write
from trainer.downstream.metrics.predictions import Predictions
from trainer.errors import UserError
from trainer.reporting.collect import collect
from trainer.reporting.curves import GRID_G, mean_confusion, mean_roc
from trainer.reporting.groups import Amount, Group, group
from trainer.reporting.pictures import examples
from trainer.reporting.pictures import features as tsne
from trainer.reporting.survival import logrank, risk_thirds

NAMES = np.array([f"k{i}" for i in range(6)])


def only(root: Path) -> Group:
    (g,) = group(collect([root]).results)
    return g


def test_the_mean_roc_has_the_mean_area() -> None:
    made = [predictions("binary", 1.0, s, cases=200) for s in range(3)]
    by_pairs = [np.mean(p.score[p.target == 1][:, None] > p.score[p.target == 0]) for p in made]
    tpr_G = mean_roc(made)
    assert tpr_G is not None
    assert np.trapezoid(tpr_G, GRID_G) == pytest.approx(np.mean(by_pairs), abs=0.005)


def test_a_label_with_one_class_or_unknown_cases_takes_no_part() -> None:
    target = np.array([[0, 0], [1, 0], [np.nan, 0], [0, 0], [1, 0], [0, np.nan]])
    score = np.array([[0.1, 0.5], [0.9, 0.5], [0.0, 0.5], [0.2, 0.5], [0.8, 0.5], [0.3, 0.5]])
    tpr_G = mean_roc([Predictions("multilabel", NAMES, NAMES, target, score, ("a", "b"))])
    assert tpr_G is not None
    assert (tpr_G == 1).all()  # the one label left is perfect
    assert mean_roc([Predictions("binary", NAMES, NAMES, np.zeros(6), np.full(6, 0.5))]) is None


def test_confusion_counts_each_known_case_once_a_seed() -> None:
    target = np.array([0, 0, 1, 2, 2, np.nan])
    at_least = np.array([[1, 0.1, 0.1], [1, 0.9, 0.1], [1, 0.9, 0.2], [1, 0.8, 0.7], [1, 0.4, 0.2], [1, 0.9, 0.9]])
    first = Predictions("ordinal", NAMES, NAMES, target, at_least, ("no", "mild", "severe"))
    second = Predictions("ordinal", NAMES, NAMES, target, np.tile([1.0, 0.9, 0.9], (6, 1)), ("no", "mild", "severe"))
    counts_KK, names = mean_confusion([first, second])
    assert names == ("no", "mild", "severe")
    assert counts_KK.tolist() == [[0.5, 0.5, 1.0], [0, 0.5, 0.5], [0.5, 0, 1.5]]


def test_risk_thirds_join_seeds_by_rank_and_cases_by_patient() -> None:
    patients_N = np.array(["a", "a", "b", "c", "d", "e"])
    target = np.array([[5, 1], [5, 1], [3, 0], [9, 1], [1, 1], [2, np.nan]])
    first = Predictions("survival", NAMES, patients_N, target, np.array([0.0, 1, 2, 3, 4, 9]))
    second = Predictions("survival", NAMES, patients_N, target, 1000 * first.score - 7)  # another scale, the same order
    found = risk_thirds([first, second])
    assert found is not None
    time_P, event_P, third_P = found
    assert time_P.tolist() == [5, 3, 9, 1]  # a b c d; e's event is unknown
    assert event_P.tolist() == [1, 0, 1, 1]
    assert third_P.tolist() == [0, 0, 1, 2]
    equal = Predictions("survival", NAMES, patients_N, target, np.zeros(6))
    assert len(set(risk_thirds([equal])[2].tolist())) == 1, "equal risks never part"
    torn = target.copy()
    torn[1] = (6, 1)  # two cases of one patient, two times: neither is the patient's
    assert risk_thirds([Predictions("survival", NAMES, patients_N, torn, first.score)]) is None


def test_log_rank_of_three_is_lifelines() -> None:
    from lifelines.statistics import multivariate_logrank_test

    for seed in range(20):
        rng = np.random.default_rng(seed)
        time_P = np.ceil(rng.exponential(8, 40))  # ties
        event_P, group_P = (rng.random(40) < 0.6).astype(float), rng.integers(0, 2 + seed % 2, 40)
        peer = multivariate_logrank_test(time_P, group_P, event_P).p_value
        assert logrank(time_P, event_P, group_P) == pytest.approx(peer, rel=1e-8), seed
    assert np.isnan(logrank(time_P, np.zeros(40), group_P))
    assert np.isnan(logrank(time_P, event_P, np.zeros(40)))


def picture(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def test_example_masks_are_outlined_where_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "segmentation", seeds=(0,))
    dark = np.zeros((32, 32, 3), np.uint8)
    truth, predicted = np.zeros((2, 32, 32), np.uint8)
    truth[:, :8] = 255  # touches the border
    for name in ("examples/case-0.npz", "examples/case-1.npz"):
        np.savez(folder / name, image_HWC=dark, truth_HW=truth, predicted_HW=predicted)
    image = picture(examples(only(tmp_path), Amount())[0].uri)
    cyan = (image[..., 0] < 80) & (image[..., 1] > 180) & (image[..., 2] > 200)
    magenta = (image[..., 0] > 200) & (image[..., 1] < 100) & (image[..., 2] > 150)
    assert cyan.sum() > 100
    assert not magenta.any(), "nothing was predicted"


@pytest.mark.parametrize("wrong", ["size", "missing", "array"])
def test_a_wrong_example_is_named(tmp_path: Path, wrong: str) -> None:
    folder = write(tmp_path / "a", "segmentation", seeds=(0,))
    path = folder / "examples/case-1.npz"
    if wrong == "missing":
        path.unlink()
    else:
        arrays: dict[str, Any] = {
            "image_HWC": np.zeros((32, 32, 3), np.uint8),
            "truth_HW": np.zeros((32, 32), np.uint8),
        }
        more: dict[str, Any] = {"predicted_HW": np.zeros((16, 16), np.uint8)} if wrong == "size" else {}
        np.savez(path, **arrays, **more)
    with pytest.raises(UserError, match=r"case-1\.npz.*run the fine-tune again"):
        examples(only(tmp_path), Amount())


def test_features_are_drawn_where_they_lie_and_refused_when_wrong(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", seeds=(0,))
    assert tsne(only(tmp_path), Amount(), 0) == []
    features(folder)
    (plot,) = tsne(only(tmp_path), Amount(), 0)
    assert picture(plot.uri).std() > 5
    np.savez(folder / "features.npz", x_ND=np.full((20, 3), np.nan), label_N=np.zeros(20))
    with pytest.raises(UserError, match=r"features\.npz.*not finite"):
        tsne(only(tmp_path), Amount(), 0)
