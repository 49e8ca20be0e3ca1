"""Brightness against words: the regression is scikit-learn's, words are told apart, and what is planted is found on other patients."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.contract import Field, MethodError, Schema
from models.contract.joint import FittedSpace
from models.registry import get_method
from tests.trainer.downstream.planted import planted
from tests.trainer.downstream.test_zeroshot import ALONE, setting
from trainer.downstream.joint.fitted import STRENGTHS, fitted_space, pairs
from trainer.downstream.joint.retrieval import retrieval_predictions
from trainer.downstream.samples import part
from trainer.downstream.task.baselines import check_baseline
from trainer.downstream.task.read import build_task
from trainer.errors import UserError
from trainer.reporting.result_parts import Candidates
from trainer.reporting.words import blind

IMAGE = Field("image", "image", "uint8", None, None, None, None, {})


def method(places: int = 64) -> Any:
    cls = get_method("bag_of_words")
    return cls(cls.Options.parse({"places": places}), Schema({"image": IMAGE}, {}))


def words_of(m: Any, *texts: str) -> np.ndarray:
    return np.stack([m.read_text(t).sample.arrays["words"] for t in texts])


def test_the_regression_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    m, rng = method(32), np.random.default_rng(0)
    pixels_NP, words_NV = rng.random((40, 768)).astype(np.float32), rng.poisson(0.3, (40, 32)).astype(np.float32)
    words_NV[:, 3] = 0
    m.fit(pixels_NP, words_NV)
    m.shrink(0.5)
    told_NV = m._told(torch.from_numpy(words_NV)).numpy()
    away_NP = pixels_NP - pixels_NP.mean(0)
    peer = Ridge(alpha=0.5 * float((away_NP.astype(float) ** 2).sum()) / 768, solver="svd").fit(pixels_NP, told_NV)
    said = m.embed_images({"vector": torch.from_numpy(pixels_NP)})[:, :-1] + m.mean_V
    np.testing.assert_allclose(said.numpy(), peer.predict(pixels_NP), atol=2e-5)
    assert not m.rare_V[3], "a word that training reports lack has no weight"


def test_words_are_read_whatever_stands_between_them() -> None:
    m = method(1024)
    one, same, other = words_of(m, "Two lesions, LEFT.", "left; two lesions", "three lesions left")
    assert (one == same).all()
    assert not (one == other).all()
    assert (m.read_text("Ödem 2").tokens, m.read_text("?!").tokens) == (2, 0)
    assert isinstance(m, FittedSpace)


def test_without_reports_all_are_alike() -> None:
    m = method()
    x_B = m.embed_images({"vector": torch.rand(3, 768)})
    assert (x_B == x_B[:1]).all()
    assert bool((x_B.norm(dim=1) > 0).all())


def test_it_is_probed_or_asked_and_not_trained() -> None:
    for mode in ("linear", "zeroshot"):
        check_baseline(SimpleNamespace(mode=mode, labels=(), time=None, event=None, name="t"), "bag_of_words", {})  # type: ignore[arg-type]
    task, _ = build_task("demo_subtype", [])
    with pytest.raises(UserError, match="has no weights to train"):
        check_baseline(task, "bag_of_words", {})
    cls = get_method("bag_of_words")
    with pytest.raises(MethodError, match="image"):
        cls(cls.Options.parse({}), Schema({}, {}))


def bright(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
    """Reports say which part of the film is bright, one of four, in words of no other use."""
    part, out = i % 4, io.BytesIO()
    pixels = np.full((32, 32), 60, np.uint8)
    pixels[16 * (part // 2) :, 16 * (part % 2) :][:16, :16] = 200
    Image.fromarray(pixels).save(out, "PNG")
    told = ("upper left", "upper right", "lower left", "lower right")[part]
    image = next(k for k in given if k[0] == "image")
    return {**given, image: out.getvalue(), ("report", "txt"): f"bright {told}, film {i}".encode()}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("films") / "set", members=bright, patients=24)


def test_what_is_planted_is_found_on_other_patients(films: Path, tmp_path: Path) -> None:
    """And the test cases take no part in what is fitted, or chosen."""
    made = setting(films, tmp_path, task_name="report_retrieval", method="bag_of_words")
    assert made.reports is not None
    train = pairs(made.data, "train")
    test = made.splits["test"]
    assert not set(train.index_N.tolist()) & set(test.tolist())
    m = made.source.build(0)
    told = fitted_space(m, made.task, made.data, ALONE)
    assert f"fitted to {len(train.texts)} images with reports, strength" in told
    assert float(told.split("strength ")[1].split()[0]) in STRENGTHS
    found, _ = retrieval_predictions(made.task, m, made.data, part(made.data, test, "test"), made.reports, ALONE)
    made.close()
    alike = max(np.bincount([i % 4 for i in test]))
    assert np.median(found.score[:, 0]) <= alike, "one in four reports tells the same part of the film"


def test_a_report_of_retrieval_says_what_a_blind_choice_finds() -> None:
    content = SimpleNamespace(candidates=Candidates(images=8, reports=4, chance={"image_to_report_r1": 0.25}))
    group: Any = SimpleNamespace(name="t", entries=[SimpleNamespace(results=[SimpleNamespace(content=content)] * 2)])
    assert set(blind(group)) == {"t: among 8 images and 4 reports a blind choice finds image_to_report_r1 0.250."}
