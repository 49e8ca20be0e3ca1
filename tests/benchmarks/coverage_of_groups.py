"""How often 95 % intervals within groups of test patients, and of the gap between the worst and the best group, hold the true value.

    python tests/benchmarks/coverage_of_groups.py [COHORT ...] [--sets 300] [--draws 200] [--patients 50 100 200 500] [--images 1 0]

Cohorts are those of coverage.py, their patients in two, four or eight groups of equal size; by the metrics that tasks are mostly judged
by. Of a gap the true value is the true difference of the two groups that look worst and best: 0 where all groups are alike; where the
first one is worse (`one worse`), what the large cohort loses. Within a group a row's patients are those of the group.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.coverage import cohort, head, line, mark
from tests.benchmarks.coverage_of_differences import true_of, values, worse
from trainer.downstream.metrics import subgroups
from trainer.downstream.metrics.floor import too_few
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import metric_of

IN_GROUPS: dict[str, tuple[str, ...]] = {
    "binary": ("auc", "accuracy", "average_precision"), "strong": ("auc", "accuracy"), "rare": ("auc", "average_precision"),
    "multiclass": ("auc", "accuracy", "balanced_accuracy"), "multilabel": ("auc", "average_precision"),
    "ordinal": ("kappa_quadratic", "auc"), "regression": ("mae", "r2", "spearman"), "survival": ("c_index", "time_auc"),
    "segmentation": ("dice_patient", "dice_positive"),
}  # fmt: skip
SETTINGS = {
    "gap of 2 groups": (2, False), "gap of 4 groups": (4, False), "gap of 4 groups, one worse": (4, True), "gap of 8 groups": (8, False)
}  # fmt: skip
Hits = defaultdict[tuple[str, str, int], list[bool]]


@cache
def within(name: str, images: int) -> np.ndarray:
    """[2, M] true values in a group like all, and in one that is worse."""
    names = IN_GROUPS[name]
    return true_of(name, images, lambda p, rng: np.stack([values(p, names), values(worse(p, rng), names)]))


def harmed(p: Predictions, q: Predictions, these_N: np.ndarray) -> Predictions:
    """`p` with what `q` says of these cases."""
    if p.survival_NH is not None and q.survival_NH is not None:
        p = replace(p, survival_NH=np.where(these_N[:, None], q.survival_NH, p.survival_NH))
    return replace(p, score=np.where(these_N.reshape(-1, *[1] * (p.score.ndim - 1)), q.score, p.score))


def judged(
    p: Predictions, group_N: np.ndarray, name: str, draws: int
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """As `by_group`, values by the weighted form."""
    metric, found, drawn = metric_of(name, p.kind), {}, {}
    for g in np.unique(group_N):
        part = p.take(group_N == g)
        value = values(part, [name])[0]
        if not too_few(part) and value == value:
            found[str(g)] = {"value": float(value), "patients": len(np.unique(part.patients_N))}
            drawn[str(g)] = subgroups._resampled(p, [part], group_N == g, metric, draws, 0)
    return found, drawn


def one(name: str, how: str, p: Predictions, group_N: np.ndarray, true_2M: np.ndarray, draws: int, hits: Hits) -> None:
    """What one data set says."""
    patients = len(np.unique(p.patients_N))
    for k, m in enumerate(IN_GROUPS[name]):
        metric = metric_of(m, p.kind)
        found, drawn = judged(p, group_N, m, draws)
        of = {w: float(true_2M[int(how.endswith("worse") and w == "0"), k]) for w in found}
        if how == "gap of 2 groups" and "0" in found:
            size = found["0"]["patients"]
            low_high = subgroups._interval(found["0"]["value"], drawn["0"], int(size), 0.95, metric.scale)
            if low_high is not None:
                hits["group", m, patients // 2].append(low_high[0] <= of["0"] <= low_high[1])
        gap = subgroups._gap(found, drawn, metric, 0.95)
        if len(found) == SETTINGS[how][0] and gap["gap_interval"] is not None:
            low, high = gap["gap_interval"]
            hits[how, m, patients].append(low <= of[gap["worst"]] - of[gap["best"]] <= high)


def held(name: str, patients: int, images: int, sets: int, draws: int, hows: Sequence[str]) -> Hits:
    hits: Hits = defaultdict(list)
    for how in hows:
        groups, one_worse = SETTINGS[how]
        if patients // groups < 25:  # under the floor: no gap
            continue
        rng, true_2M = np.random.default_rng([patients, images, groups, 9]), within(name, images)
        for _ in range(sets):
            p = cohort(name, rng, patients, images)
            group_N = np.unique(p.patients_N, return_inverse=True)[1] % groups
            p = harmed(p, worse(p, rng), group_N == 0) if one_worse else p
            one(name, how, p, group_N, true_2M, draws, hits)
    # Where most data sets have too few of the rarer answer, no gap is judged.
    return defaultdict(list, {key: h for key, h in hits.items() if 2 * len(h) >= sets})


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cohorts", nargs="*", default=list(IN_GROUPS))
    p.add_argument("--sets", type=int, default=300)
    p.add_argument("--draws", type=int, default=200)
    p.add_argument("--patients", type=int, nargs="+", default=[100, 200, 500])
    p.add_argument("--images", type=int, nargs="+", default=[1, 0])
    p.add_argument("--how", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    p.add_argument("--out", type=Path, help="a line of JSON a cell, beside the table")
    args = p.parse_args()
    sizes = sorted(set(args.patients) | {n // 2 for n in args.patients})
    columns = [(n, k) for n in sizes for k in args.images]
    head(["part"], columns)
    for name in args.cohorts:
        cells: dict[tuple[str, str], dict[tuple[int, int], list[bool]]] = defaultdict(dict)
        for n in args.patients:
            for k in args.images:
                for (how, m, size), h in held(name, n, k, args.sets, args.draws, args.how).items():
                    cells[how, m][size, k] = h
                    if args.out:
                        row = {
                            "how": how,
                            "cohort": name,
                            "metric": m,
                            "size": f"{size}x{k or '1-10'}",
                            "sets": len(h),
                            "share": fmean(h),
                        }
                        with args.out.open("a") as file:
                            print(json.dumps(row), file=file)
        for (how, m), of in cells.items():
            shares = [fmean(of[c]) if c in of else None for c in columns]
            line([f"{how}: {name}: {m}", *("" if s is None else mark(s, not 0.93 <= s <= 0.97) for s in shares)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
