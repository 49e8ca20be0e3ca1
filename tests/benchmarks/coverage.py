"""How often 95 % intervals hold the true value, and how often a paired test claims what is not so, in simulation.

    python tests/benchmarks/coverage.py [--sets 200] [--draws 300] [--patients 50 100 200 500] [--images 1 10]

A cohort has patients of a common truth with so many images each, whose scores share their patient's effect. True values come from one
cohort of 200,000 patients. Claims: two systems of three seeds each, whose trainings vary and whose true skill is the same (false claims)
or not (power). The table is printed as Markdown; a cell outside 93 to 97 % (claims: above 5 %) is marked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scipy.special import expit

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import bootstrap, paired
from trainer.downstream.metrics.table import METRICS

LARGE = 200_000
BINARY = ("auc", "accuracy", "balanced_accuracy", "average_precision", "f1_macro", "brier", "ece", "calibration_intercept",
          "calibration_slope")  # fmt: skip
SURVIVAL = ("c_index", "c_uno", "time_auc")
HORIZONS = np.arange(2.0, 14.0, 3.0)


def named(patients: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    of_N = np.repeat(np.arange(patients), images)
    return np.array([f"c{i:07d}" for i in range(len(of_N))]), np.array([f"p{i:06d}" for i in of_N])


def binary(rng: np.random.Generator, patients: int, images: int) -> Predictions:
    """A third has it; what is said is a little too extreme."""
    odds_P = rng.normal(-1.0, 1.5, patients)
    truth_P = rng.random(patients) < expit(odds_P)
    said_N = np.repeat(1.2 * odds_P, images) + 0.7 * rng.normal(size=patients * images)
    keys_N, patients_N = named(patients, images)
    return Predictions("binary", keys_N, patients_N, np.repeat(truth_P, images), expit(said_N))


def survival(rng: np.random.Generator, patients: int, images: int) -> Predictions:
    """Exponential times whose hazard the risk knows in part, censored evenly up to 30."""
    risk_P = rng.normal(size=patients)
    time_P, end_P = rng.exponential(10 * np.exp(-risk_P)), rng.uniform(0, 30, patients)
    target_P2 = np.stack([np.minimum(time_P, end_P), time_P <= end_P], 1)
    said_N = np.repeat(risk_P, images) + rng.normal(size=patients * images)
    keys_N, patients_N = named(patients, images)
    return Predictions("survival", keys_N, patients_N, np.repeat(target_P2, images, 0), said_N, horizons_H=HORIZONS)


def truths(rng: np.random.Generator) -> dict[str, float]:
    """By one image a patient: several change no true value. Pairs of survival are too many to count for all."""
    large, mid = binary(rng, LARGE, 1), survival(rng, LARGE // 20, 1)
    return {m: METRICS[m].compute(large if m in BINARY else mid) for m in (*BINARY, *SURVIVAL)}


def covered(
    rng: np.random.Generator, patients: int, images: int, sets: int, draws: int, true: dict[str, float]
) -> dict[str, float]:
    hits: dict[str, list[bool]] = {m: [] for m in true}
    for _ in range(sets):
        for names, made in ((BINARY, binary), (SURVIVAL, survival)):
            p = made(rng, patients, images)
            for m in names:
                i = bootstrap([p], m, draws=draws)
                hits[m].append(bool(i.low <= true[m] <= i.high))
    return {m: float(np.mean(h)) for m, h in hits.items()}


def claimed(rng: np.random.Generator, patients: int, sets: int, draws: int, gain: float) -> float:
    """Share of paired tests with p < 0.05 of two systems of three seeds, one better by `gain` log odds a unit."""
    found = []
    for _ in range(sets):
        base = binary(rng, patients, 1)
        known_N = np.log(base.score / (1 - base.score))
        signal_N = np.where(base.target == 1, 0.5, -0.5)
        seeds = [
            [
                Predictions(
                    "binary", base.keys_N, base.patients_N, base.target,
                    expit(known_N + (g + rng.normal(0, 0.3)) * signal_N + 0.3 * rng.normal(size=patients)),
                )
                for _ in range(3)
            ]
            for g in (gain, 0.0)
        ]  # fmt: skip
        found.append(paired(*seeds, "auc", draws=draws).p < 0.05)
    return float(np.mean(found))


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sets", type=int, default=200)
    p.add_argument("--draws", type=int, default=300)
    p.add_argument("--patients", type=int, nargs="+", default=[50, 100, 200, 500])
    p.add_argument("--images", type=int, nargs="+", default=[1, 10])
    args = p.parse_args()
    rng = np.random.default_rng(0)
    true = truths(rng)
    columns = [(n, k) for n in args.patients for k in args.images]
    cells = [covered(rng, n, k, args.sets, args.draws, true) for n, k in columns]
    print("| metric | true | " + " | ".join(f"{n} x {k}" for n, k in columns) + " |")
    print("|---" * (2 + len(columns)) + "|")
    for m, value in true.items():
        marks = (f"{100 * c[m]:.1f}" + " !" * (not 0.93 <= c[m] <= 0.97) for c in cells)
        print(f"| {m} | {value:.4f} | " + " | ".join(marks) + " |")
    for gain in (0.0, 1.0, 2.0):
        shares = (claimed(rng, n, args.sets, args.draws, gain) for n, _ in columns)
        print(
            f"| claimed, gain {gain:g} | | "
            + " | ".join(f"{100 * s:.1f}" + " !" * (gain == 0 and s > 0.05) for s in shares)
            + " |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
