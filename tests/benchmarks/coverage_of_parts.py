"""How often intervals of parts of a result hold the true value: gaps between groups, how well a site is read, calibrated numbers.

    python tests/benchmarks/coverage_of_parts.py [gaps | calibrated | sites ...] [--sets 300] [--draws 200] [--patients 50 100 200 500]

Cohorts are those of coverage.py (`binary`). Gaps: of the area under the ROC curve, between the groups that look worst and best among two
and among four of equal size and skill, so that the true gap is 0. Calibrated: a temperature from half as many validation patients; the
true value is that of this temperature on the large cohort. Sites: two of equal size, read by the linear probe from 32 features, of which
four are shifted; the true value is the mean, over 30 data sets of this size, of the areas of the folds' probes on 4,000 new cases.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.coverage import cohort, head, large, line, mark
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.recalibrated import CALIBRATED, Recalibration, recalibrated, with_temperature
from trainer.downstream.metrics.statistics import entry
from trainer.downstream.metrics.subgroups import by_group
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.probes.converged import fit_converged
from trainer.downstream.sites.analysis import Asked, site_area
from trainer.downstream.sites.folds import DECAY, FOLDS, by_patient

GRID = np.linspace(np.log(0.3), np.log(6), 25)
"""Logarithms of temperatures between whose true values others lie."""
WIDTH, SHIFTED, SHIFT = 32, 4, 0.6
NEW, TRUE_OF = 4_000, 30
"""New cases, and data sets whose probes are asked about them."""
Cells = dict[str, float]


def gaps(patients: int, images: int, sets: int, draws: int) -> Cells:
    out: Cells = {}
    for groups in (2, 4):
        rng, hits = np.random.default_rng([patients, images, groups]), []
        for _ in range(sets):
            p = cohort("binary", rng, patients, images)
            word_of = {
                k: f"g{int(w[1:]) % groups}" for k, w in zip(p.keys_N.tolist(), p.patients_N.tolist(), strict=True)
            }
            found = by_group([p], word_of, "auc", draws, 0, 0.95)
            if found["gap_interval"] is not None:
                hits.append(found["gap_interval"][0] <= 0 <= found["gap_interval"][1])
        if 2 * len(hits) >= sets:  # else most groups lie under the floor, and have no gap
            out[f"gap of {groups} groups: auc"] = fmean(hits)
    return out


def calibrated(patients: int, images: int, sets: int, draws: int) -> Cells:
    names = [m for m in CALIBRATED if METRICS[m].resampled]
    whole, rng = large("binary", images), np.random.default_rng([patients, images, 3])
    whole = whole.take(np.arange(len(whole)) < 40_000)
    at_T = [with_temperature(whole, Recalibration(0, float(np.exp(t)))) for t in GRID]
    true = {m: [METRICS[m].compute(p) for p in at_T] for m in names}
    hits: dict[str, list[bool]] = {m: [] for m in names}
    for _ in range(sets):
        fit = recalibrated(cohort("binary", rng, patients // 2, images))
        assert fit.temperature is not None
        divided = with_temperature(cohort("binary", rng, patients, images), fit)
        for m in names:
            interval = entry([divided], m, draws, 0, 0.95)["interval"]
            if interval is not None:
                is_so = float(np.interp(np.log(fit.temperature), GRID, true[m]))
                hits[m].append(interval[0] <= is_so <= interval[1])
    return {f"calibrated: {m}": fmean(h) for m, h in hits.items()}


def sites(patients: int, images: int, sets: int, draws: int) -> Cells:
    rng = np.random.default_rng([patients, images, 4])
    spans: list[list[float] | None] = []
    true: list[float] = []
    for i in range(sets):
        cases, site_N, x_ND = _two_sites(rng, patients, images)
        names_N = np.array(["north", "south"], dtype=object)[site_N]
        spans.append(site_area(Asked(x_ND, cases, names_N, "auc", draws, 0, 0.95), x_ND)["interval"])
        if i < TRUE_OF:
            true += _of_new(i, cases, site_N, x_ND)
    mean = fmean(true)
    return {"sites: auc": fmean(s[0] <= mean <= s[1] for s in spans if s is not None)}


def _two_sites(rng: np.random.Generator, patients: int, images: int) -> tuple[Predictions, np.ndarray, np.ndarray]:
    cases = cohort("binary", rng, patients, images)
    of_N = np.unique(cases.patients_N, return_inverse=True)[1]
    site_P, own_PD = np.arange(patients) % 2, rng.normal(size=(patients, WIDTH))
    own_PD[:, :SHIFTED] += SHIFT * site_P[:, None]
    return cases, site_P[of_N], own_PD[of_N] + 0.5 * rng.normal(size=(len(of_N), WIDTH))


def _of_new(seed: int, cases: Predictions, site_N: np.ndarray, x_ND: np.ndarray) -> Iterator[float]:
    """Areas of the folds' probes on cases that nobody has seen."""
    told, y_M, x_MD = _two_sites(np.random.default_rng([5, seed]), NEW, 1)
    flat = Predictions("binary", cases.keys_N, cases.patients_N, site_N, np.zeros(len(cases)))
    new = Predictions("binary", told.keys_N, told.patients_N, y_M, np.zeros(NEW))
    fold_N = by_patient(flat, FOLDS, site_N)
    for fold in np.unique(fold_N):
        x, y = x_ND[fold_N != fold], flat.target[fold_N != fold]
        fit = fit_converged("binary", x, y, x, y, score=lambda *_: 0.0, decays=(DECAY,), classes=None)
        said = Predictions("binary", new.keys_N, new.patients_N, y_M, fit.predict(x_MD))
        yield METRICS["auc"].compute(said)


PARTS: dict[str, Callable[[int, int, int, int], Cells]] = {"gaps": gaps, "calibrated": calibrated, "sites": sites}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("parts", nargs="*", default=list(PARTS))
    p.add_argument("--sets", type=int, default=300)
    p.add_argument("--draws", type=int, default=200)
    p.add_argument("--patients", type=int, nargs="+", default=[50, 100, 200, 500])
    p.add_argument("--images", type=int, nargs="+", default=[1, 0])
    args = p.parse_args()
    columns = [(n, k) for n in args.patients for k in args.images]
    head(["part"], columns)
    for part in args.parts:
        cells = [PARTS[part](n, k, args.sets, args.draws) for n, k in columns]
        for name in dict.fromkeys(name for c in cells for name in c):
            line([name, *("" if name not in c else mark(c[name], not 0.93 <= c[name] <= 0.97) for c in cells)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
