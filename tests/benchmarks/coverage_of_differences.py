"""How often 95 % intervals of differences hold the true one: of two systems on the same patients, of one system at two hospitals.

    python tests/benchmarks/coverage_of_differences.py [COHORT ...] [--sets 500] [--draws 200] [--patients 50 100 200 500] [--images 1 0]
    python tests/benchmarks/coverage_of_differences.py --seeds 3 [COHORT ...] [--sets 200]

Cohorts are those of coverage.py, and every metric of their kind is measured on the same data sets. The other system sees less by noise of
its own; the other hospital has twice as many patients of the same population, so that nothing is lost there. With several seeds each
training of a system has another amount of noise: a mean over seeds is to hold the mean of these trainings, here and from here to there,
and a difference of two systems, whose trainings vary alike, what all trainings would give (0).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scipy.special import expit, logit, softmax

from tests.benchmarks.coverage import COHORTS, HORIZONS, PAIRS, cohort, head, large, line, mark, metrics_of
from trainer.downstream.metrics.apart import apart
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import bootstrap, paired
from trainer.downstream.metrics.system import System
from trainer.downstream.metrics.table import metric_of

COHORTS_OF_PAIRS = 12
"""So many of which a true value is averaged over, in survival: one alone is too rough."""
NOISE, VARIES = 0.6, 0.35
"""How much noise a training has, and by how much its logarithm varies from training to training."""
GRID = np.linspace(-1.5, 1.5, 9)
Cells = dict[str, dict[str, float]]
"""{how: {metric: share}}."""


def worse(p: Predictions, rng: np.random.Generator, noise: float = 0.8) -> Predictions:
    """Another system on the same cases."""
    e_N = noise * rng.normal(size=len(p))
    if p.kind == "segmentation":
        both_N = np.floor(p.score[:, 0] * np.exp(-np.abs(e_N) / 3))
        more_N = np.floor((p.score[:, 1] - p.score[:, 0]) * np.exp(noise * rng.normal(size=len(p))))
        return replace(p, score=np.stack([both_N, both_N + more_N], 1))
    if p.kind == "retrieval":
        return replace(p, score=np.floor(p.score * np.exp(np.abs(e_N))[:, None] / 1.5).clip(1))
    if p.kind == "survival":
        said_N = p.score + e_N
        over = np.exp(-np.exp(0.7 * said_N)[:, None] * HORIZONS / 10)
        return replace(p, score=said_N, survival_NH=over)
    if p.kind == "regression":
        return replace(p, score=p.score + 0.6 * e_N.reshape(p.score.shape))
    return replace(p, score=_said(p, rng, e_N, noise))


def _said(p: Predictions, rng: np.random.Generator, e_N: np.ndarray, noise: float) -> np.ndarray:
    """Probabilities after noise; of grades one number a case, so that they stay in order."""
    if p.kind == "binary":
        return np.asarray(expit(0.9 * logit(p.score) + e_N))
    if p.kind == "ordinal":
        return np.c_[p.score[:, :1], expit(logit(p.score[:, 1:]) + e_N[:, None])]
    e_NK = noise * rng.normal(size=p.score.shape)
    if p.kind == "multiclass":
        return np.asarray(softmax(0.9 * np.log(p.score) + e_NK, 1))
    return np.asarray(expit(0.9 * logit(p.score) + e_NK))


def values(p: Predictions, names: Sequence[str]) -> np.ndarray:
    """[M] by the weighted forms."""
    of = System([p], by_form=True)
    return np.array([of.values(metric_of(m, p.kind))[0] for m in names])


def true_of(name: str, images: int, made: Callable[[Predictions, np.random.Generator], np.ndarray]) -> np.ndarray:
    """Mean over large cohorts of what is made of them."""
    found = []
    for seed in range(COHORTS_OF_PAIRS if name == "survival" else 1):
        rng = np.random.default_rng([98, seed + 1])  # not the generator of `large`, whose numbers would be drawn again
        found.append(made(cohort(name, rng, PAIRS, 1) if name == "survival" else large(name, images), rng))
    return np.asarray(np.mean(found, axis=0))


@cache
def true_difference(name: str, images: int) -> np.ndarray:
    """[M] of two systems."""
    names = metrics_of(name)
    return true_of(name, images, lambda p, rng: values(p, names) - values(worse(p, rng), names))


@cache
def true_of_noise(name: str, images: int) -> np.ndarray:
    """[G, M] of trainings with more and more noise."""
    names, noise_G = metrics_of(name), NOISE * np.exp(VARIES * GRID)
    return true_of(name, images, lambda p, rng: np.stack([values(worse(p, rng, e), names) for e in noise_G]))


def compared(name: str, patients: int, images: int, sets: int, draws: int) -> Cells:
    """Coverage of differences, of one training each."""
    names = metrics_of(name)
    true = true_difference(name, images)
    rng, hits = (
        np.random.default_rng([patients, images, 7]),
        defaultdict[str, dict[str, list[bool]]](lambda: defaultdict(list)),
    )
    for _ in range(sets):
        p = cohort(name, rng, patients, images)
        here, other, there = (
            System([x], by_form=True) for x in (p, worse(p, rng), cohort(name, rng, 2 * patients, images))
        )
        for m, is_so in zip(names, true.tolist(), strict=True):
            metric = metric_of(m, p.kind)
            for how, found, t in (
                ("systems", paired(here, other, metric, draws), is_so),
                ("hospitals", apart(here, there, metric, draws), 0.0),
            ):
                if found.low == found.low:
                    hits[how][m].append(found.low <= t <= found.high)
    return _shares(hits)


def _shares(hits: Mapping[str, Mapping[str, Sequence[bool]]]) -> Cells:
    return {how: {m: fmean(h) for m, h in of.items() if h} for how, of in hits.items()}


def over_seeds(name: str, patients: int, images: int, seeds: int, sets: int, draws: int) -> Cells:
    """Coverage of means over so many trainings, and of differences of such."""
    names = metrics_of(name)
    true_GM = true_of_noise(name, images)
    rng, hits = (
        np.random.default_rng([patients, images, seeds, 8]),
        defaultdict[str, dict[str, list[bool]]](lambda: defaultdict(list)),
    )
    for _ in range(sets):
        p, q = cohort(name, rng, patients, images), cohort(name, rng, 2 * patients, images)
        g_2S = rng.normal(size=(2, seeds)).clip(GRID[0], GRID[-1])
        noise_2S = NOISE * np.exp(VARIES * g_2S)
        here, other = (System([worse(p, rng, e) for e in noise_S], by_form=True) for noise_S in noise_2S)
        there = System([worse(q, rng, e) for e in noise_2S[0]], by_form=True)
        for k, m in enumerate(names):
            metric = metric_of(m, p.kind)
            mean = fmean(np.interp(g_2S[0], GRID, true_GM[:, k]))
            for how, found, t in (
                ("seeds", bootstrap(here, metric, draws), mean),
                ("systems of several seeds", paired(here, other, metric, draws), 0.0),
                ("hospitals of several seeds", apart(here, there, metric, draws), 0.0),
            ):
                if found.low == found.low:
                    hits[how][m].append(found.low <= t <= found.high)
    return _shares(hits)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cohorts", nargs="*", default=list(COHORTS))
    p.add_argument("--sets", type=int, default=500)
    p.add_argument("--draws", type=int, default=200)
    p.add_argument("--patients", type=int, nargs="+", default=[50, 100, 200, 500])
    p.add_argument("--images", type=int, nargs="+", default=[1, 0])
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--out", type=Path, help="a line of JSON a cell, beside the tables")
    args = p.parse_args()
    columns = [(n, k) for n in args.patients for k in args.images]
    for name in args.cohorts:
        cells = []
        for n, k in columns:
            of = (args.sets, args.draws)
            cells.append(compared(name, n, k, *of) if args.seeds == 1 else over_seeds(name, n, k, args.seeds, *of))
            if args.out:
                row = {
                    "cohort": name,
                    "size": f"{n}x{k or '1-10'}",
                    "seeds": args.seeds,
                    "sets": args.sets,
                    "cells": cells[-1],
                }
                with args.out.open("a") as file:
                    print(json.dumps(row), file=file)
        for how in cells[0]:
            print(f"\n{name}, {how}\n")
            head(["metric"], columns)
            for m in cells[0][how]:
                line([m, *("" if m not in c[how] else mark(c[how][m], not 0.93 <= c[how][m] <= 0.97) for c in cells)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
