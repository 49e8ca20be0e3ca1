"""A claim needs more than one lucky seed and more than a handful of patients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tests.trainer.downstream.cohorts import make
from trainer.downstream.metrics.floor import narrow, patients_needed, too_few
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import paired
from trainer.downstream.metrics.table import METRICS

PATIENTS, SEEDS = 60, 3
TRUTH = np.arange(PATIENTS) % 2


def trained(rng: np.random.Generator, shared_N: np.ndarray, skill: float) -> Predictions:
    """One training: what all trainings see of a patient, and noise of its own."""
    return make("binary", TRUTH, norm.cdf(skill * TRUTH + shared_N + 0.2 * rng.normal(size=PATIENTS)))


def test_one_lucky_seed_of_three_is_no_evidence() -> None:
    """Two of three trainings as good as the opponent's, the third far better: the mean is, the system is not."""
    rng = np.random.default_rng(0)
    shared_N = rng.normal(size=PATIENTS)
    plain = [trained(rng, shared_N, 0.8) for _ in range(SEEDS)]
    lucky = [*(trained(rng, shared_N, 0.8) for _ in range(SEEDS - 1)), trained(rng, shared_N, 4.0)]
    found = paired(lucky, plain, "auc", draws=400)
    assert found.difference > 1.96 * found.error, "over patients alone it would be one"
    assert found.p > 0.2
    assert found.low < 0 < found.high
    alone = paired(lucky[-1:], plain[:1], "auc", draws=400)
    assert alone.p < 0.01, "of one seed nothing is known of others"
    assert alone.seeds == (1, 1)


def test_one_seed_is_taken_to_vary_as_the_opponents_do() -> None:
    """Patients and sd^2 (1 + 1 / n) together, by Satterthwaite with n - 1 degrees of freedom, whichever side has one seed."""
    rng = np.random.default_rng(3)
    shared_N = rng.normal(size=PATIENTS)
    several, one = [trained(rng, shared_N, s) for s in (0.5, 1.5, 2.5)], [trained(rng, shared_N, 2.0)]
    found, turned = paired(several, one, "auc", draws=400), paired(one, several, "auc", draws=400)
    values = [METRICS["auc"].compute(p) for p in several]
    sd = np.std(values, ddof=1)
    assert found.whole_error == pytest.approx(np.sqrt(found.error**2 + sd**2 * (1 + 1 / 3)))
    assert (turned.low, turned.high, turned.p) == pytest.approx((-found.high, -found.low, found.p))
    assert found.p > paired(several[2:], one, "auc", draws=400).p


def test_three_seeds_that_agree_are_evidence() -> None:
    rng = np.random.default_rng(1)
    shared_N = rng.normal(size=PATIENTS)
    better, plain = ([trained(rng, shared_N, s) for _ in range(SEEDS)] for s in (3.0, 0.3))
    found = paired(better, plain, "auc", draws=400)
    assert found.p < 0.02
    turned = paired(plain, better, "auc", draws=400)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_equal_systems_of_unlike_seeds_are_seldom_told_apart() -> None:
    """Trainings whose skill varies more than patients do: 5 % at most may be called different, which patients alone exceed by far."""
    rng, wrong, by_patients = np.random.default_rng(2), 0, 0
    for _ in range(60):
        shared_N = rng.normal(size=PATIENTS)
        a, b = ([trained(rng, shared_N, s) for s in rng.normal(1.5, 1.0, SEEDS).clip(0)] for _ in "ab")
        t = paired(a, b, "auc", draws=200)
        wrong += t.p < 0.05
        by_patients += abs(t.difference) > 1.96 * t.error
    assert wrong <= 6
    assert by_patients > 15


def test_one_system_under_two_names_stays_one() -> None:
    rng = np.random.default_rng(3)
    shared_N = rng.normal(size=PATIENTS)
    seeds = [trained(rng, shared_N, 1.0) for _ in range(SEEDS)]
    same = paired(seeds, seeds[::-1], "auc", draws=100)
    assert (same.difference, same.p, same.degenerate) == (0, 1, True)


def test_two_systems_whose_seeds_have_the_same_numbers_stay_two() -> None:
    """One lucky training of three on either side: over patients they never differ, and other seeds may."""
    rng = np.random.default_rng(4)
    nothing, something = (make("binary", TRUTH, s) for s in (np.full(PATIENTS, 0.1), np.where(TRUTH, 0.9, 0.2)))
    other = [make("binary", TRUTH, p.score * rng.uniform(0.9, 1, PATIENTS)) for p in (nothing, something, nothing)]
    found = paired([something, nothing, nothing], other, "accuracy", draws=100)
    assert found.difference == 0
    assert not found.degenerate
    assert found.low < -0.1 < 0.1 < found.high


def several(kind: object, positives: int, patients: int, per_patient: int = 3) -> Predictions:
    n = patients * per_patient
    yes_N = np.repeat(np.arange(patients) < positives, per_patient)
    if kind == "survival":
        return make("survival", np.stack([np.arange(n) + 1.0, yes_N], 1), np.zeros(n), per_patient=per_patient)
    return make("binary", yes_N, np.full(n, 0.5), per_patient=per_patient)


@pytest.mark.parametrize("kind", ["binary", "survival"])
@pytest.mark.parametrize(
    ("positives", "patients", "says"),
    [
        (10, 20, ""),
        (9, 60, "9 test patients with .*, 10 are needed to rank, about 67 patients at this share"),
        (9, 19, "19 test patients, 20 are needed"),
        (0, 60, "0 test patients with .*, 10 are needed to rank$"),
    ],
)
def test_patients_count_not_their_images(kind: str, positives: int, patients: int, says: str) -> None:
    import re

    assert bool(re.match(says or "$", too_few(several(kind, positives, patients))))


def test_what_would_be_needed_finds_it() -> None:
    """A difference of 2.8 standard errors is found with power 80 %; at half of that four times the patients are needed."""
    assert patients_needed(0.28, 0.1, 50) == pytest.approx(50, abs=1)
    assert patients_needed(-0.14, 0.1, 50) == pytest.approx(200, abs=1)
    assert patients_needed(0.0, 0.1, 50) is None
    assert patients_needed(0.1, 0.0, 50) is None


def test_intervals_that_may_be_too_narrow_say_so() -> None:
    assert narrow(several("binary", 30, 60)) == []
    (few,) = narrow(several("binary", 9, 60))
    assert few.startswith("9 test patients with the rarer answer, 10 are needed to rank")
