"""Probes: right numbers, no leaks; and the whole of launch/learn.py in a small form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from launch import learn
from shards.read.dataset import Dataset
from trainer.errors import UserError
from trainer.probe.probe import Features, auc, compare, encoders_of, features, fit_probe, probe, spearman, stored_config


def test_metrics_equal_the_references_with_ties() -> None:
    rng = np.random.default_rng(0)
    score_RP = rng.integers(0, 6, (20, 40)).astype(float)
    class_RP, number_RP = rng.integers(0, 2, (20, 40)), rng.integers(0, 9, (20, 40)).astype(float)
    expected = [roc_auc_score(y, s) for y, s in zip(class_RP, score_RP, strict=True)]
    np.testing.assert_allclose(auc(score_RP, class_RP), expected)
    expected = [stats.spearmanr(s, y).statistic for s, y in zip(score_RP, number_RP, strict=True)]
    np.testing.assert_allclose(spearman(score_RP, number_RP), expected)


def test_metrics_of_rows_without_an_answer_are_nan() -> None:
    assert np.isnan(auc(np.arange(4.0)[None], np.ones((1, 4)))).all()
    assert np.isnan(spearman(np.ones((1, 4)), np.arange(4.0)[None])).all()


def people(n: int, slides: int, width: int, seed: int, prefix: str) -> Features:
    """Features whose first column says the label, with noise; the label lies in [0, 1] and is one for all of a patient's slides."""
    rng = np.random.default_rng(seed)
    label_N = np.repeat(rng.random(n), slides)
    x_ND = rng.normal(size=(n * slides, width))
    x_ND[:, 0] += 6 * label_N
    return Features(x_ND, np.repeat([f"{prefix}{i:03d}" for i in range(n)], slides), label_N)


def as_class(f: Features) -> Features:
    return replace(f, label_N=(f.label_N > 0.5).astype(np.int64))


def test_probe_finds_what_is_there_and_nothing_where_nothing_is() -> None:
    train, held_out = people(120, 2, 20, 1, "a"), people(80, 2, 20, 2, "b")
    names_P, score_P, label_P = probe("number", train, held_out)
    assert names_P.tolist() == sorted(set(held_out.patients_N.tolist()))
    np.testing.assert_array_equal(label_P, held_out.label_N[::2])
    assert spearman(score_P[None], label_P[None])[0] > 0.8
    _, score_P, label_P = probe("class", as_class(train), as_class(held_out))
    assert auc(score_P[None], label_P[None])[0] > 0.9
    noise = [replace(f, x_ND=f.x_ND[:, 1:]) for f in (train, held_out)]
    _, score_P, label_P = probe("number", *noise)
    assert abs(spearman(score_P[None], label_P[None])[0]) < 0.3


def test_a_patient_is_scored_by_the_mean_of_its_samples() -> None:
    train, held_out = people(60, 1, 5, 1, "a"), people(30, 3, 5, 2, "b")
    expected = fit_probe("number", train).predict(held_out.x_ND).reshape(30, 3).mean(1)
    np.testing.assert_allclose(probe("number", train, held_out)[1], expected)


def test_held_out_labels_do_not_reach_the_probe() -> None:
    train, held_out = people(60, 1, 5, 1, "a"), people(30, 2, 5, 2, "b")
    turned = replace(held_out, label_N=1 - held_out.label_N)
    np.testing.assert_array_equal(probe("number", train, held_out)[1], probe("number", train, turned)[1])


def test_a_patient_on_both_sides_is_refused() -> None:
    train, held_out = people(40, 1, 5, 1, "a"), people(30, 1, 5, 2, "b")
    held_out.patients_N[3] = train.patients_N[7]
    with pytest.raises(UserError, match="1 patients are both trained and tested on"):
        probe("number", train, held_out)


def test_samples_of_a_patient_that_disagree_are_refused() -> None:
    train, held_out = people(40, 1, 5, 1, "a"), people(30, 2, 5, 2, "b")
    held_out.label_N[0] += 0.5
    with pytest.raises(UserError, match="different labels"):
        probe("number", train, held_out)


def test_the_penalty_is_chosen_across_patients() -> None:
    """Wide noise, every patient twice: judged by its own twin, the weakest penalty would look perfect."""
    rng = np.random.default_rng(0)
    twins = np.repeat(rng.normal(size=(50, 200)), 2, axis=0)
    train = Features(twins, np.repeat(np.arange(50).astype(str), 2), np.repeat(rng.normal(size=50), 2))
    assert fit_probe("number", train).named_steps["model"].alpha >= 1000


def test_compare_sees_a_difference_and_its_intervals() -> None:
    rng = np.random.default_rng(3)
    label_P = rng.random(150)
    good_SP, poor_SP = (label_P + sd * rng.normal(size=(3, 150)) for sd in (0.15, 0.6))
    c = compare("number", good_SP, poor_SP, label_P)
    assert c.better
    assert c.patients == 150
    each = np.array(
        [stats.spearmanr(a, label_P)[0] - stats.spearmanr(b, label_P)[0] for a, b in zip(good_SP, poor_SP, strict=True)]
    )
    assert c.difference == pytest.approx(each.mean())
    assert 0 < c.over_patients[0] < c.difference < c.over_patients[1]
    np.testing.assert_allclose(c.over_seeds, stats.t.interval(0.95, 2, each.mean(), stats.sem(each)))
    worse = compare("number", poor_SP, good_SP, label_P)
    assert not worse.better
    assert worse.over_patients[1] < 0


def test_compare_is_paired() -> None:
    """Equal scores differ by exactly nothing in every resample, and the spread of the patients does not count."""
    score_SP = np.random.default_rng(0).normal(size=(2, 50))
    c = compare("class", score_SP, score_SP, np.arange(50) % 2)
    assert (c.difference, c.over_patients, c.over_seeds, c.better) == (0, (0, 0), (0, 0), False)
    assert compare("class", score_SP[:1], score_SP[:1], np.arange(50) % 2).over_seeds is None


def test_bootstrap_interval_is_as_wide_as_repeated_studies_spread() -> None:
    rng = np.random.default_rng(5)

    def study() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label_P = rng.random(100)
        return label_P + 0.3 * rng.normal(size=(1, 100)), label_P + 0.5 * rng.normal(size=(1, 100)), label_P

    difference = [compare("number", *study(), resamples=2).difference for _ in range(300)]
    low, high = np.mean([compare("number", *study(), resamples=300).over_patients for _ in range(20)], 0)
    assert 0.75 < (high - low) / (3.92 * np.std(difference)) < 1.25


def test_probe_and_held_out_patients_of_the_demo_cohort_are_disjoint(demo_cohort: Path) -> None:
    with Dataset.open(demo_cohort) as data:
        train = set(data.subset("train").patients.tolist())
        held_out = [set(data.subset(s).patients.tolist()) for s in learn.HELD_OUT]
        assert not train & (held_out[0] | held_out[1])
        assert not held_out[0] & held_out[1]
        assert len(train | held_out[0] | held_out[1]) == data.info.patients


@pytest.mark.parametrize("text", ["", "1,1", "0,x", "1.5"])
def test_seeds_are_different_numbers(text: str) -> None:
    with pytest.raises(UserError, match="different whole numbers"):
        learn.seeds_of(text)


def test_only_a_finished_run_is_probed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        stored_config(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_learn_from_end_to_end(demo_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One method, one seed, a few steps: the encoder that is probed is the trained one, on images alone, and all is reported."""
    words = [
        "--methods",
        "mrm_record",
        "--seeds",
        "3",
        "--out",
        str(tmp_path / "runs"),
        "--report",
        str(tmp_path / "learn.json"),
    ]
    status = learn.main([*words, f"data.path={demo_cohort}", "stages.pretrain.epochs=null", "stages.pretrain.steps=8"])
    content = json.loads((tmp_path / "learn.json").read_bytes())
    by_label = content["results"]["mrm_record"]
    assert set(by_label) == {"severity", "subtype"}
    assert status == (0 if by_label["severity"]["better"] else 1)
    with Dataset.open(demo_cohort) as data:
        held_out = {p for s in ("val", "test") for p in data.patients_of(data.subset(s).indices)}
    for result in by_label.values():
        assert result["patients"] == len(held_out)
        assert result["over_patients"][0] <= result["difference"] <= result["over_patients"][1]
        assert -1 <= result["random"][0] <= 1
    assert "held_out" in content
    assert "random start" in capsys.readouterr().out

    data, encoders = encoders_of(tmp_path / "runs" / "mrm_record-3")
    metrics = (tmp_path / "runs" / "mrm_record-3" / "metrics.jsonl").read_text()
    assert '"loss/image"' in metrics
    assert '"val/' not in metrics  # nobody looked at held-out patients
    x = {n: features(m, data.datasets[0], ["val"], ["severity"])["severity"] for n, m in encoders.items()}
    assert x["random"].x_ND.shape == (len(data.datasets[0].subset("val")), encoders["random"].options.image.dim)
    again = features(
        encoders_of(tmp_path / "runs" / "mrm_record-3")[1]["random"], data.datasets[0], ["val"], ["severity"], batch=7
    )["severity"]
    np.testing.assert_allclose(again.x_ND, x["random"].x_ND, atol=1e-5)
    assert np.abs(x["pretrained"].x_ND - x["random"].x_ND).max() > 1e-3
    data.close()
