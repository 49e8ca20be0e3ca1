"""How often intervals of parts of a result hold the true value: calibrated numbers, sites, several tasks, probes of pre-training.

    python tests/benchmarks/coverage_of_parts.py [calibrated | sites | tasks | probes ...] [--sets 300] [--draws 200] [--patients 50 100]

Cohorts are those of coverage.py (`binary`). Calibrated: a temperature from half as many validation patients; the true value is that of this
temperature on the large cohort. Sites: two or four of equal size, in 32 features of which four are shifted at each, and four know the
answer, at the first site four more; how well the site is read, the robustness index, and what is lost at sites held out. Their true value
is the mean over the data sets, of this size. Tasks: differences around a mean, from which they stray by so much. Probes: of two encoders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scipy.special import expit

from tests.benchmarks.coverage import cohort, head, large, line, mark
from trainer.downstream.metrics.equivalence import over_tasks
from trainer.downstream.metrics.recalibrated import CALIBRATED, Recalibration, recalibrated, with_temperature
from trainer.downstream.metrics.statistics import entry
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.sites.analysis import Asked, _robustness, _score, site_area
from trainer.probe import probe

GRID = np.linspace(np.log(0.3), np.log(6), 25)
"""Logarithms of temperatures between whose true values others lie."""
WIDTH, SHIFT = 32, 0.6
STRAY = (0.0, 0.02, 0.05, 0.1)
Cells = dict[str, float]


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
    return {f"calibrated: binary: {m}": fmean(h) for m, h in hits.items()}


def sites(patients: int, images: int, sets: int, draws: int) -> Cells:
    out: Cells = {}
    for number in (2, 4):
        rng, found = (
            np.random.default_rng([patients, images, number, 4]),
            defaultdict[str, list[tuple[float, list[float] | None]]](list),
        )
        for _ in range(sets):
            asked = _of_sites(rng, patients, images, number, draws)
            read, index, lost = site_area(asked, asked.x_ND), _robustness(asked), _score(asked)
            found[f"sites: {'binary' if number == 2 else 'multiclass'}: auc"].append((read["auc"], read["interval"]))
            if number == 2:
                found["held out: binary: auc"].append((lost["difference"], lost["interval"]))
                if index is not None:
                    found["robustness: binary: index"].append((index["index"], index["interval"]))
        for name, each in found.items():
            mean = fmean(v for v, _ in each if v is not None)
            out[name] = fmean(s[0] <= mean <= s[1] for _, s in each if s is not None)
    return out


def _of_sites(rng: np.random.Generator, patients: int, images: int, number: int, draws: int) -> Asked:
    cases = cohort("binary", rng, patients, images)
    of_N = np.unique(cases.patients_N, return_inverse=True)[1]
    site_P, own_PD, yes_P = np.arange(patients) % number, rng.normal(size=(patients, WIDTH)), np.zeros(patients)
    yes_P[of_N] = cases.target
    for site in range(1, number):
        own_PD[site_P == site, 4 * (site - 1) : 4 * site] += SHIFT
    own_PD[:, 16:20] += SHIFT * yes_P[:, None]
    own_PD[:, 20:24] += SHIFT * (yes_P * (site_P == 0))[:, None]
    x_ND = own_PD[of_N] + 0.5 * rng.normal(size=(len(of_N), WIDTH))
    return Asked(x_ND, cases, np.array([f"site {i}" for i in site_P], dtype=object)[of_N], "auc", draws, 0, 0.95)


def tasks(sets: int) -> None:
    """Of the mean difference over so many tasks."""
    line(["tasks", *(f"stray by {s:g}" for s in STRAY)])
    for number in (2, 3, 5, 10):
        cells = []
        for stray in STRAY:
            rng, hits = np.random.default_rng([number, int(100 * stray), 5]), []
            for _ in range(sets):
                error_K = rng.uniform(0.01, 0.05, number)
                difference_K = rng.normal(0.01, stray, number) + error_K * rng.normal(size=number)
                over = over_tasks(difference_K.tolist(), error_K.tolist())
                hits.append(over.low <= 0.01 <= over.high)
            cells.append(mark(fmean(hits), not 0.93 <= fmean(hits) <= 0.97))
        line([str(number), *cells])


def probes(patients: int, kind: Literal["class", "number"], sets: int, draws: int) -> float:
    """Of the difference of two encoders on held-out patients, two seeds each."""

    def made(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        z_P = rng.normal(size=n)
        y_P = (
            (rng.random(n) < expit(1.5 * z_P - 1)).astype(float) if kind == "class" else z_P + 0.7 * rng.normal(size=n)
        )
        one_SP, two_SP = (z_P + e * rng.normal(size=(2, n)) for e in (0.8, 1.6))
        return one_SP, two_SP, y_P

    one_SP, two_SP, y_P = made(np.random.default_rng(6), 100_000)
    measure = probe.METRICS[kind]
    true = float((measure(one_SP, np.stack([y_P] * 2)) - measure(two_SP, np.stack([y_P] * 2))).mean())
    rng, hits = np.random.default_rng([patients, 7]), []
    for _ in range(sets):
        low, high = probe.compare(kind, *made(rng, patients), draws).over_patients
        hits.append(low <= true <= high)
    return fmean(hits)


PARTS: dict[str, Callable[[int, int, int, int], Cells]] = {"calibrated": calibrated, "sites": sites}


def _of_part(part: str, columns: Sequence[tuple[int, int]], args: argparse.Namespace) -> None:
    head(["part"], columns)
    cells = []
    for n, k in columns:
        cells.append(PARTS[part](n, k, args.sets, args.draws))
        for name, share in cells[-1].items() if args.out else ():
            how, of, metric = name.split(": ")
            with args.out.open("a") as file:
                print(
                    json.dumps(
                        {"how": how, "cohort": of, "metric": metric, "size": f"{n}x{k or '1-10'}", "share": share}
                    ),
                    file=file,
                )
    for name in dict.fromkeys(name for c in cells for name in c):
        line([name, *("" if name not in c else mark(c[name], not 0.93 <= c[name] <= 0.97) for c in cells)])


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("parts", nargs="*", default=[*PARTS, "tasks", "probes"])
    p.add_argument("--sets", type=int, default=300)
    p.add_argument("--draws", type=int, default=200)
    p.add_argument("--patients", type=int, nargs="+", default=[50, 100, 200, 500])
    p.add_argument("--images", type=int, nargs="+", default=[1, 0])
    p.add_argument("--out", type=Path, help="a line of JSON a cell, beside the table")
    args = p.parse_args()
    columns = [(n, k) for n in args.patients for k in args.images]
    for part in args.parts:
        if part == "tasks":
            tasks(args.sets)
        elif part == "probes":
            for kind in ("class", "number"):
                shares = [probes(n, kind, args.sets, args.draws) for n in args.patients]
                line([f"probes: {kind}", *(mark(s, not 0.93 <= s <= 0.97) for s in shares)])
        else:
            _of_part(part, columns, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
