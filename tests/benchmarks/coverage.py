"""How often 95 % intervals hold the true value, and how often a paired test claims what is not so, in simulation.

    python tests/benchmarks/coverage.py [KIND ...] [--sets 500] [--draws 300] [--patients 50 100 200 500] [--images 1 0]
    python tests/benchmarks/coverage.py claims [--sets 500] [--seeds 1 3 5]

A cohort has patients of a common truth with so many images each (0: from 1 to 10, at random), whose scores share their patient's effect.
KIND is one of the cohorts below; `strong` are binary answers of a system that is nearly always right, `rare` ones with 8 % positives.
True values come from one large cohort. The table is printed as Markdown, a cell outside 93 to 97 % is marked. Claims: two systems whose
trainings vary, of the same skill (false claims, marked above 5 %) or not (power).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scipy.special import expit, softmax

from trainer.downstream.metrics.kinds import Kind
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.resampling import patient_draws
from trainer.downstream.metrics.statistics import paired
from trainer.downstream.metrics.table import DEFAULTS, METRICS
from trainer.downstream.metrics.tails import error_of, interval

HORIZONS = np.arange(2.0, 14.0, 3.0)
CUTS = np.array([-1.0, 0.3, 1.5])
LARGE, PAIRS, MASKS = 200_000, 12_000, 60_000
"""Patients of the cohort that true values come from; pairs of survival, and masks, are counted over fewer."""
Made = Callable[[np.random.Generator, np.ndarray], tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]]


def answers(spread: float, mean: float, extreme: float) -> Made:
    """Binary: log odds of patients, and what is said of them, too extreme by a factor."""

    def made(rng: np.random.Generator, of_N: np.ndarray) -> tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]:
        odds_P = rng.normal(mean, spread, of_N[-1] + 1)
        truth_P = rng.random(len(odds_P)) < expit(odds_P)
        return "binary", truth_P[of_N], expit(extreme * odds_P[of_N] + 0.7 * rng.normal(size=len(of_N))), ()

    return made


def multiclass(rng: np.random.Generator, of_N: np.ndarray) -> tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]:
    odds_PK = rng.normal(0, 1.5, (of_N[-1] + 1, 3)) + np.array([0, -0.5, -1])
    truth_P = (odds_PK + rng.gumbel(size=odds_PK.shape)).argmax(1)
    said_NK = softmax(1.2 * odds_PK[of_N] + 0.7 * rng.normal(size=(len(of_N), 3)), 1)
    return "multiclass", truth_P[of_N], said_NK, ("a", "b", "c")


def multilabel(rng: np.random.Generator, of_N: np.ndarray) -> tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]:
    odds_PK = rng.normal(0, 1.5, (of_N[-1] + 1, 3)) + np.array([0, -0.5, -1.5])
    truth_PK = rng.random(odds_PK.shape) < expit(odds_PK)
    said_NK = expit(1.2 * odds_PK[of_N] + 0.7 * rng.normal(size=(len(of_N), 3)))
    return "multilabel", truth_PK[of_N], said_NK, ("a", "b", "c")


def ordinal(rng: np.random.Generator, of_N: np.ndarray) -> tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]:
    odds_P = rng.normal(0, 1.5, of_N[-1] + 1)
    grade_P = (odds_P[:, None] + rng.logistic(size=(len(odds_P), 1)) > CUTS).sum(1)
    said_N = 1.2 * odds_P[of_N] + 0.7 * rng.normal(size=len(of_N))
    return "ordinal", grade_P[of_N], np.c_[np.ones(len(of_N)), expit(said_N[:, None] - CUTS)], tuple("abcd")


def regression(rng: np.random.Generator, of_N: np.ndarray) -> tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]:
    mean_P = rng.normal(size=of_N[-1] + 1)
    value_P = mean_P + rng.normal(0, 0.7, len(mean_P))
    return "regression", value_P[of_N], mean_P[of_N] + 0.4 * rng.normal(size=len(of_N)), ()


def survival(rng: np.random.Generator, of_N: np.ndarray) -> tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Exponential times whose hazard the risk knows in part, censored evenly up to 30."""
    risk_P = rng.normal(size=of_N[-1] + 1)
    time_P, end_P = rng.exponential(10 * np.exp(-risk_P)), rng.uniform(0, 30, len(risk_P))
    target_P2 = np.stack([np.minimum(time_P, end_P), time_P <= end_P], 1)
    return "survival", target_P2[of_N], risk_P[of_N] + rng.normal(size=len(of_N)), ()


def segmentation(rng: np.random.Generator, of_N: np.ndarray) -> tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]:
    """A fifth of the slices without truth, some of them with predicted pixels."""
    N = len(of_N)
    skill_N = rng.normal(1.0, 0.7, of_N[-1] + 1)[of_N] + 0.5 * rng.normal(size=N)
    true_N = np.where(rng.random(N) < 0.8, np.exp(rng.normal(7, 0.6, N)), 0).round()
    both_N = (true_N * expit(skill_N)).round()
    more_N = (np.exp(rng.normal(5, 0.8, N)) * (rng.random(N) < 0.7)).round()
    return "segmentation", true_N, np.stack([both_N, both_N + more_N], 1), ()


def retrieval(rng: np.random.Generator, of_N: np.ndarray) -> tuple[Kind, np.ndarray, np.ndarray, tuple[str, ...]]:
    far_N = rng.normal(1.5, 1, of_N[-1] + 1)[of_N]
    rank_N2 = np.floor(np.exp(np.clip(far_N[:, None] + rng.normal(size=(len(of_N), 2)), 0, 8)))
    return "retrieval", np.ones(len(of_N)), rank_N2.clip(1), ()


COHORTS: dict[str, Made] = {
    "binary": answers(1.5, -1.0, 1.2), "strong": answers(5.0, -1.0, 0.8), "rare": answers(1.2, -2.7, 1.0),
    "multiclass": multiclass, "multilabel": multilabel, "ordinal": ordinal, "regression": regression,
    "survival": survival, "segmentation": segmentation, "retrieval": retrieval,
}  # fmt: skip


def cohort(name: str, rng: np.random.Generator, patients: int, images: int) -> Predictions:
    counts_P = rng.integers(1, 11, patients) if images == 0 else np.full(patients, images)
    of_N = np.repeat(np.arange(patients), counts_P)
    kind, target, score, classes = COHORTS[name](rng, of_N)
    keys_N, names_N = np.array([f"c{i:07d}" for i in range(len(of_N))]), np.array([f"p{i:06d}" for i in of_N])
    scale = np.array([1.2]) if kind == "regression" else None
    over: dict[str, np.ndarray] = {}
    if kind == "survival":
        # A little too sure of what the risk says, as a system is.
        over = {"horizons_H": HORIZONS, "survival_NH": np.exp(-np.exp(0.7 * score)[:, None] * HORIZONS / 10)}
    return Predictions(kind, keys_N, names_N, target, score, classes, scale, **over)


def large(name: str, images: int) -> Predictions:
    """Several images change no true value but of masks, whose volumes are a patient's."""
    patients = {"survival": PAIRS, "segmentation": MASKS}.get(name, LARGE)
    return cohort(name, np.random.default_rng(99), patients, images if name == "segmentation" else 1)


def metrics_of(name: str) -> list[str]:
    """Every one with an interval of the cohort's kind, but those that are for comparison alone; a kind's own first."""
    kind: Kind = name if name in DEFAULTS else "binary"
    more = [
        m.name
        for m in METRICS.values()
        if kind in m.kinds and m.name not in DEFAULTS[kind] and not m.name.endswith("_contig")
    ]
    return [m for m in (*DEFAULTS[kind], *more) if METRICS[m].resampled]


# ----------------------------------------------------------------------------------------------------------------- intervals


def intervals(p: Predictions, names: Sequence[str], draws: int) -> dict[str, tuple[float, float]]:
    """What `bootstrap` gives for each metric, from one drawing of patients for all; none where it has no value, or an exact bound."""
    known = p.known()
    names_P, of_N = np.unique(known.patients_N, return_inverse=True)
    forms = {m: METRICS[m].weighted(known) for m in names}  # type: ignore[misc]
    drawn: dict[str, list[np.ndarray]] = {m: [] for m in names}
    for count_RP in patient_draws(len(names_P), len(known), draws, 0):
        W_RN = count_RP[:, of_N].astype(float)
        for m, form in forms.items():
            drawn[m].append(form(W_RN))
    found = {}
    for m, form in forms.items():
        error = error_of(np.concatenate(drawn[m]), len(names_P))
        if error > 0:
            value = float(form(np.ones((1, len(known))))[0])
            found[m] = interval(value, error, len(names_P) - 1, 0.95, METRICS[m].scale)
    return found


def covered(
    name: str, patients: int, images: int, sets: int, draws: int, true: Mapping[str, float]
) -> dict[str, float]:
    rng, hits = np.random.default_rng([patients, images]), {m: list[bool]() for m in true}
    for _ in range(sets):
        for m, (low, high) in intervals(cohort(name, rng, patients, images), list(true), draws).items():
            hits[m].append(low <= true[m] <= high)
    return {m: fmean(h) for m, h in hits.items() if h}


# -------------------------------------------------------------------------------------------------------------------- claims


def claimed(patients: int, images: int, seeds: int, sets: int, draws: int, gain: float, metric: str) -> float:
    """Share of paired tests with p < 0.05 of two systems of so many seeds, the first better by `gain` log odds in truth."""
    rng, found = np.random.default_rng([patients, images, seeds, int(10 * gain)]), []
    for _ in range(sets):
        base = cohort("binary", rng, patients, images)
        known_N, signal_N = np.log(base.score / (1 - base.score)), np.where(base.target == 1, 0.5, -0.5)

        def trained(g: float, known_N: np.ndarray = known_N, signal_N: np.ndarray = signal_N) -> np.ndarray:
            return expit(known_N + (g + rng.normal(0, 0.3)) * signal_N + 0.3 * rng.normal(size=len(known_N)))

        better, other = ([replace(base, score=trained(g)) for _ in range(seeds)] for g in (gain, 0.0))
        found.append(paired(better, other, metric, draws=draws).p < 0.05)
    return fmean(found)


# -------------------------------------------------------------------------------------------------------------------- tables


def line(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def head(first: Sequence[str], columns: Sequence[tuple[int, int]]) -> None:
    line([*first, *(f"{n} x {k or '1-10'}" for n, k in columns)])
    line(["---"] * (len(first) + len(columns)))


def mark(share: float, wrong: bool) -> str:
    return f"{100 * share:.1f}" + " !" * wrong


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kinds", nargs="*", default=[*COHORTS, "claims"])
    p.add_argument("--sets", type=int, default=500)
    p.add_argument("--draws", type=int, default=300)
    p.add_argument("--patients", type=int, nargs="+", default=[50, 100, 200, 500])
    p.add_argument("--images", type=int, nargs="+", default=[1, 0])
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5])
    p.add_argument("--metrics", nargs="*", default=[], help="these alone")
    args = p.parse_args()
    columns = [(n, k) for n in args.patients for k in args.images]
    for name in args.kinds:
        print(f"\n{name}\n")
        if name == "claims":
            head(["metric", "seeds", "gain"], columns)
            for metric, seeds, gain in [(m, s, g) for m in ("auc", "accuracy") for s in args.seeds for g in (0.0, 1.0)]:
                shares = (claimed(n, k, seeds, args.sets, args.draws, gain, metric) for n, k in columns)
                line([metric, str(seeds), f"{gain:g}", *(mark(s, gain == 0 and s > 0.05) for s in shares)])
            continue
        by_images = {k: large(name, k) for k in args.images}
        names = [m for m in metrics_of(name) if not args.metrics or m in args.metrics]
        truths = [{m: METRICS[m].compute(by_images[k]) for m in names} for _, k in columns]
        cells = [covered(name, n, k, args.sets, args.draws, t) for (n, k), t in zip(columns, truths, strict=True)]
        head(["metric", "true"], columns)
        for m in cells[0]:
            line([m, f"{truths[0][m]:.4f}", *(mark(c[m], not 0.93 <= c[m] <= 0.97) for c in cells)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
