"""What a result says of sites: `sites` of result.json, lines for a person, and warnings.

It looks at the pooled features of the test cases, of the first seed; more than MOST cases are thinned out, the largest sites first and
each evenly, so that a small site stays. Nothing in it changes the result that it stands in.

Shape letters: N cases, D width of the features, R resamples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.resampling import patient_draws
from trainer.downstream.metrics.simulated import LEVEL, outside
from trainer.downstream.metrics.table import metric_of
from trainer.downstream.metrics.tails import Scale, error_of, interval
from trainer.downstream.sites.folds import DECAY, FOLDS, Folded, answered, by_patient, by_site, folded
from trainer.downstream.sites.robustness import robustness

MOST = 2000
OF_CLASSES = ("binary", "multiclass", "ordinal")
PROBED = (*OF_CLASSES, "multilabel", "regression", "survival")
FEW = f"under {FOLDS} test patients"


@dataclass(frozen=True)
class Asked:
    """A look at sites: features of the test cases and what is true of them, each case's site, the metric, and how to resample."""

    x_ND: np.ndarray
    cases: Predictions
    site_N: np.ndarray
    metric: str
    draws: int
    seed: int
    level: float

    def take(self, index: np.ndarray) -> Asked:
        return replace(self, x_ND=self.x_ND[index], cases=self.cases.take(index), site_N=self.site_N[index])


def site_report(label: str, asked: Asked, alone: Mapping[str, str]) -> dict[str, Any]:
    """The section of a result.

    Args:
        label: the label that says the site.
        asked: with "" for cases of no known site.
        alone: sites that lie in one split only, and which.
    """
    used, about = _used(asked)
    found: dict[str, Any] = {"label": label, **about, "one_split": dict(alone), "not_judged": "", "warnings": []}
    if len(found["sites"]) < 2:
        only = ", ".join(found["sites"]) or "no site"
        found["not_judged"] = f"the test cases are of {only} alone (of {FOLDS} patients or more): nothing to tell apart"
    else:
        found |= _judged(used)
    found["warnings"] = list(_warnings(found, asked.metric, used.cases.kind in OF_CLASSES))
    if not found["not_judged"] and asked.level == LEVEL:
        found["warnings"] += [f"{label}: {line}" for line in _simulated(found, used)]
    return found | {"lines": list(_lines(found, asked.metric))}


def _simulated(found: Mapping[str, Any], used: Asked) -> Iterator[str]:
    """What simulation says of the intervals."""
    if found["read"]["interval"] is not None:
        yield from outside(_site_of_each(used), ["auc"], "sites")
    if (found.get("robustness") or {}).get("interval") is not None:
        yield from outside(used.cases, ["index"], "robustness")
    if (found.get("score") or {}).get("interval") is not None:
        yield from outside(used.cases, [used.metric], "held out")


def _used(asked: Asked) -> tuple[Asked, dict[str, Any]]:
    """The cases that are looked at, and how many others there are."""
    names, of_N = np.unique(asked.site_N, return_inverse=True)
    patients = [len(np.unique(asked.cases.patients_N[of_N == i])) for i in range(len(names))]
    enough = np.array([n >= FOLDS and name != "" for name, n in zip(names, patients, strict=True)])
    kept = np.flatnonzero(enough[of_N])
    kept = kept[_thinned(of_N[kept])]
    sites = {
        str(name): {"cases": int((of_N == i).sum()), "patients": patients[i]}
        for i, name in enumerate(names)
        if enough[i]
    }
    few = {str(n): p for n, p, ok in zip(names, patients, enough, strict=True) if not ok and n != ""}
    about = {"sites": sites, "few": few, "unknown": int((asked.site_N == "").sum()), "cases": len(kept)}
    return asked.take(kept), about


def _thinned(of_M: np.ndarray) -> np.ndarray:
    """Which cases stay, from the number of each one's site: as many of every site at most as leave MOST in all, and FOLDS at least."""
    sites, size_S = np.unique(of_M, return_counts=True)
    left = [np.minimum(size_S, most).sum() for most in range(MOST + 1)]
    most = max(FOLDS, int(np.searchsorted(left, MOST, side="right")) - 1)
    each = [np.flatnonzero(of_M == site) for site in sites]
    evenly = [at[np.linspace(0, len(at) - 1, min(len(at), most)).astype(int)] for at in each]
    return np.sort(np.concatenate([np.empty(0, np.int64), *evenly]))


def _judged(asked: Asked) -> dict[str, Any]:
    out: dict[str, Any] = {
        "probe": f"linear, brought to its optimum at weight decay {DECAY:g} of standardised features"
    }
    out["read"] = site_area(asked, asked.x_ND)
    classes = asked.cases.kind in OF_CLASSES
    if classes:
        out["read_from_answer"] = site_area(asked, np.eye(int(asked.cases.target.max()) + 1)[asked.cases.truth()])[
            "auc"
        ]
        out["association"] = cramers_v(asked.cases.truth(), asked.site_N)
        out["robustness"] = _robustness(asked)
    if asked.cases.kind in PROBED:
        out["score"] = _score(asked)
    return out


def site_area(asked: Asked, x_ND: np.ndarray) -> dict[str, Any]:
    """How well the site is told from features, as an area under the curve, of cases whose patients the probe was not fitted on."""
    sites = _site_of_each(asked)
    fold_N = by_patient(sites, FOLDS, sites.truth())
    said, has_N = answered(x_ND, sites, fold_N)
    found = folded(said.take(has_N), fold_N[has_N], metric_of("auc", sites.kind), asked.draws, asked.seed)
    return {
        "auc": _plain(found.value),
        "interval": _interval(found.value, found.value_R, asked, "share", len(found.each)),
    }


def _site_of_each(asked: Asked) -> Predictions:
    """The cases with their site as the answer, about which nothing is said yet."""
    names, code_N = np.unique(asked.site_N, return_inverse=True)
    cases = asked.cases
    if len(names) == 2:
        return Predictions("binary", cases.keys_N, cases.patients_N, code_N, np.zeros(len(cases)))
    flat = np.full((len(cases), len(names)), 1 / len(names))
    return Predictions("multiclass", cases.keys_N, cases.patients_N, code_N, flat, tuple(names))


def _robustness(asked: Asked) -> dict[str, Any] | None:
    """PathoROB's index, with an interval over patients at the same k."""
    found = robustness(asked.x_ND, asked.cases.truth(), asked.site_N, asked.cases.patients_N)
    if found is None or found.index != found.index:
        return None
    names_P, of_N = np.unique(asked.cases.patients_N, return_inverse=True)
    drawn = patient_draws(len(names_P), len(asked.cases), asked.draws, asked.seed)
    value_R = np.concatenate([found.resampled(of_N, count_RP) for count_RP in drawn])
    return {
        "index": found.index, "interval": _interval(found.index, value_R, asked, "share"), "chance": _plain(found.chance), "k": found.k,
        "balanced_accuracy": found.balanced_accuracy, "so": int(found.so_NK.sum()), "os": int(found.os_NK.sum()),
    }  # fmt: skip


def _score(asked: Asked) -> dict[str, Any]:
    """The primary metric of a probe by folds of patients and by folds of sites, each mean over folds, and what is lost.

    Where for some fold nothing can be learned (the other sites have one class), there is no value: it would be of other cases.
    """
    metric, cases = metric_of(asked.metric, asked.cases.kind), asked.cases
    site_fold_N = by_site(asked.site_N)
    F = len(np.unique(site_fold_N))
    strata_N = cases.truth() if cases.kind in OF_CLASSES else np.zeros(len(cases))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a class of fewer cases than folds: some folds lack it, and count for nothing
        fold_N = by_patient(cases, F, strata_N)
    both = {}
    for name, at_N in (("random", fold_N), ("by_site", site_fold_N)):
        said, has_N = answered(asked.x_ND, cases, at_N)
        both[name] = folded(said, at_N, metric, asked.draws, asked.seed) if has_N.all() else None
    random, held_out = both["random"], both["by_site"]
    out: dict[str, Any] = {"folds": F, "higher_is_better": metric.higher_is_better}
    out |= {n: None if f is None else _plain(f.value) for n, f in both.items()}
    out["without_value"] = {n: [] if f is None else list(f.without) for n, f in both.items()}
    if random is None or held_out is None or not np.isfinite(held_out.value - random.value):
        return out | {"difference": None, "interval": None}
    lost_R = held_out.value_R - random.value_R if len(held_out.value_R) == len(random.value_R) else np.array([np.nan])
    difference = held_out.value - random.value
    lost = {"difference": difference, "interval": _interval(difference, lost_R, asked, "real", F)}
    return out | lost | {"each": _each(asked, site_fold_N, held_out)}


def _each(asked: Asked, fold_N: np.ndarray, found: Folded) -> dict[str, float | None]:
    """The value on each fold of sites, by their names."""
    return {"+".join(np.unique(asked.site_N[fold_N == f])): _plain(v) for f, v in found.each.items()}


def cramers_v(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Cramer's V of two groupings, from 0 (independent) to 1 (one is known from the other); without a correction for few cases."""
    _, a_N = np.unique(a_N, return_inverse=True)
    _, b_N = np.unique(b_N, return_inverse=True)
    table = np.zeros((a_N.max() + 1, b_N.max() + 1))
    np.add.at(table, (a_N, b_N), 1)
    if min(table.shape) < 2:
        return 0.0
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return float(np.sqrt(((table - expected) ** 2 / expected).sum() / table.sum() / (min(table.shape) - 1)))


def _interval(value: float, value_R: np.ndarray, asked: Asked, scale: Scale, folds: int = 0) -> list[float] | None:
    """Of a number from its resamples over patients; None where it has none, or no resample differs (at an end of its scale).

    folds: of a mean over so many folds: a patient who is tested in one is learned from in the others, which resamples of what was said do
        not see. The variance is that of independent folds times (1 / J + n_test / n_train) / (1 / J), as corrected by Nadeau and Bengio
        (Machine Learning 52, 2003, equation 15).
    """
    patients = len(np.unique(asked.cases.patients_N))
    more = math.sqrt(1 + folds / (folds - 1)) if folds > 1 else 1.0
    low, high = interval(value, more * error_of(value_R, patients), patients - 1, asked.level, scale)
    return None if low != low or low == high else [low, high]


def _plain(x: float) -> float | None:
    return None if x != x else float(x)


# ------------------------------------------------------------------------------------------------------------------- told


def _warnings(found: Mapping[str, Any], metric: str, classes: bool) -> list[str]:
    label, out = found["label"], []
    if found["one_split"]:
        named = ", ".join(f"{s} in {split}" for s, split in list(found["one_split"].items())[:5])
        out.append(
            f"{label}: {len(found['one_split'])} sites lie in one split alone ({named}): their cases are not compared like with like"
        )
    if classes and found.get("association", 0) > 0.999:
        out.append(
            f"{label} and the answer say the same in the test cases: whatever tells the site tells the answer, and no number here can part "
            "them. Take sites that have all classes"
        )
    score = found.get("score") or {}
    if score.get("difference") is not None and score["interval"] is not None:
        low, high = score["interval"]
        if (high < 0) if score["higher_is_better"] else (low > 0):
            out.append(
                f"{label}: {metric} of a probe of these features is {score['random']:.3f} by folds of patients and "
                f"{score['by_site']:.3f} at sites that it was not fitted on ({score['difference']:+.3f}, {low:+.3f} to {high:+.3f}); the "
                f"site is read from the features with an area of {found['read']['auc']:.3f}. The score leans on the site: expect less at "
                "another hospital"
            )
    return out


def _lines(found: Mapping[str, Any], metric: str) -> list[str]:
    label, sites = found["label"], found["sites"]
    lines = [f"{label}: {len(sites)} sites among {found['cases']} test cases"]
    if found["few"]:
        lines[0] += f"; not looked at: {', '.join(found['few'])} ({FEW})"
    if found["unknown"]:
        lines[0] += f"; {found['unknown']} cases of no known site"
    if found["not_judged"]:
        return [*lines, f"  not judged: {found['not_judged']}"]
    read = found["read"]
    if read["auc"] is not None:
        beside = found.get("read_from_answer")
        known = "" if beside is None else f"; from the answer alone {beside:.3f}"
        lines.append(f"  read from the features: area {read['auc']:.3f}{_span(read['interval'])}{known}")
    if "robustness" in found:
        r = found["robustness"]
        lines.append(
            "  robustness index: no value, no neighbour differs in just one of class and site"
            if r is None
            else f"  robustness index {r['index']:.3f}{_span(r['interval'])} at k = {r['k']}, of random neighbours {r['chance']:.3f}"
        )
    if score := found.get("score"):
        a, b = ("no value" if score[k] is None else f"{score[k]:.3f}" for k in ("random", "by_site"))
        lost = "" if score["difference"] is None else f", {score['difference']:+.3f}{_span(score['interval'], True)}"
        lines.append(f"  {metric} of a probe of them: {a} by folds of patients, {b} at sites held out{lost}")
        lines += _without_value(score)
    return lines


def _without_value(score: Mapping[str, Any]) -> Iterator[str]:
    """Which folds a mean leaves out: both means are then of other cases."""
    folds, left_out = score["folds"], score["without_value"]
    if n := len(left_out["random"]):
        yield f"    by folds of patients: a mean of {folds - n} of {folds} folds; the others have no value (cases of one class, say)"
    if n := len(left_out["by_site"]):
        named = ", ".join(name for name, value in score.get("each", {}).items() if value is None)
        yield (
            f"    at sites held out: a mean of {folds - n} of {folds} folds; {named or 'the others'} has no value (cases of one class, "
            "say), and its cases count by folds of patients alone"
        )


def _span(interval: list[float] | None, sign: bool = False) -> str:
    if interval is None:
        return ""
    return " ({} to {})".format(*(f"{v:+.3f}" if sign else f"{v:.3f}" for v in interval))
