"""A metric within groups of test cases (sex, site, age band): each group's value, the worst one, and how far it is from the best.

All groups are seen in the same resamples of test patients, so that a patient with cases in two groups is no two patients. Groups under
the floor (floor.py) have a number of cases and no value. Worst and best are picked on the patients that they are measured on: with many
small groups a gap is there by chance alone. From three groups on its interval knows of the picking (picked.py).

Shape letters: R resamples, N cases, P patients.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from trainer.downstream.metrics.floor import too_few
from trainer.downstream.metrics.metric import Metric
from trainer.downstream.metrics.picked import PICKED, reach_of_picked
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.resampling import weights
from trainer.downstream.metrics.table import metric_of
from trainer.downstream.metrics.tails import Scale, error_of, interval
from trainer.downstream.metrics.weighted import drawn
from trainer.errors import UserError
from trainer.tracking.intervals import BOOTSTRAP


def by_group(
    predictions: Sequence[Predictions], word_of: Mapping[str, str], name: str, draws: int, seed: int, level: float
) -> dict[str, Any]:
    """What a result file holds of a metric within the groups of one label.

    Args:
        predictions: one a seed, of the same cases in the same order.
        word_of: of each case's key its group; "" where it is not known.
    """
    metric, known = metric_of(name, predictions[0].kind), [p.known() for p in predictions]
    word_N = np.array([word_of[k] for k in known[0].keys_N.tolist()], dtype=object)
    found: dict[str, dict[str, Any]] = {}
    judged: dict[str, np.ndarray] = {}
    for word in sorted(set(word_N.tolist()) - {""}):
        inside_N = word_N == word
        parts = [p.take(inside_N) for p in known]
        found[word] = {
            "n": len(parts[0]),
            "patients": len(np.unique(parts[0].patients_N)),
            "value": None,
            "interval": None,
        }
        found[word]["too_few"] = too_few(parts[0])
        each = [metric.compute(p) for p in parts]
        if not found[word]["too_few"] and fmean(each) == fmean(each) and metric.weighted is not None:
            judged[word] = _resampled(known[0], parts, inside_N, metric, draws, seed)
            found[word] |= {
                "value": fmean(each),
                "interval": _interval(fmean(each), judged[word], found[word]["patients"], level, metric.scale),
            }
    return {
        "groups": found,
        "unknown": int((word_N == "").sum()),
        "interval_by": BOOTSTRAP,
        **_gap(found, judged, metric, level),
    }


def _resampled(
    whole: Predictions, parts: Sequence[Predictions], inside_N: np.ndarray, metric: Metric, draws: int, seed: int
) -> np.ndarray:
    """[R] the metric within a group, mean over seeds, in resamples of all patients."""
    assert metric.weighted is not None
    of_N = np.unique(whole.patients_N, return_inverse=True)[1]
    forms, inside = [metric.weighted(p) for p in parts], np.flatnonzero(inside_N)
    each = (drawn(W_RN, inside) for W_RN in weights(of_N, draws, seed))
    return np.concatenate([np.mean([form(W_RN) for form in forms], axis=0) for W_RN in each])


def _gap(
    found: Mapping[str, Mapping[str, Any]], judged: Mapping[str, np.ndarray], metric: Metric, level: float
) -> dict[str, Any]:
    """The worst and the best group, and the difference of both."""
    if len(judged) < 2:
        return {"worst": None, "best": None, "gap": None, "gap_interval": None, "gap_by": None}
    ranked = sorted(judged, key=lambda w: found[w]["value"] * (1 if metric.higher_is_better else -1))
    worst, best = ranked[0], ranked[-1]
    patients = min(found[w]["patients"] for w in (worst, best))
    gap = found[worst]["value"] - found[best]["value"]
    if len(judged) == 2:
        gap_interval = _interval(gap, judged[worst] - judged[best], patients, level, "real")
    else:
        gap_interval = _of_picked(ranked, found, judged, gap, patients - 1, level)
    by = BOOTSTRAP if len(judged) == 2 else PICKED
    return {"worst": worst, "best": best, "gap": gap, "gap_interval": gap_interval, "gap_by": by}


def _of_picked(
    ranked: Sequence[str],
    found: Mapping[str, Mapping[str, Any]],
    judged: Mapping[str, np.ndarray],
    gap: float,
    freedom: float,
    level: float,
) -> list[float] | None:
    """The interval of a gap between the first and the last of several groups."""
    error_G = np.array([error_of(judged[w], found[w]["patients"]) for w in ranked])
    error = float(np.hypot(error_G[0], error_G[-1]))
    if not error > 0 or np.isnan(error_G).any():
        return None if error != error else [gap, gap]
    value_G, value_GR = np.array([found[w]["value"] for w in ranked]), np.stack([judged[w] for w in ranked])
    reach = reach_of_picked(value_G, value_GR, error_G, freedom, level) * error
    return None if reach != reach else [gap - reach, gap + reach]


def _interval(value: float, value_R: np.ndarray, patients: int, level: float, scale: Scale) -> list[float] | None:
    low, high = interval(value, error_of(value_R, patients), patients - 1, level, scale)
    return None if low != low else [low, high]


# ------------------------------------------------------------------------------------------------------------ kept, and told


def write_groups(path: Path, groups: Mapping[str, Mapping[str, str]]) -> None:
    """An .npz of plain arrays: `key`, and of the label number i its name `label-i` and words `word-i`."""
    keys = sorted(next(iter(groups.values())))
    arrays: dict[str, np.ndarray] = {"key": np.array(keys)}
    for i, (name, word_of) in enumerate(groups.items()):
        arrays |= {f"label-{i}": np.array(name), f"word-{i}": np.array([word_of[k] for k in keys], dtype=str)}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_groups(path: Path) -> dict[str, dict[str, str]]:
    """What `write_groups` wrote; nothing in the file is executed.

    Raises:
        UserError: no such file, or none of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            keys, labels = stored["key"].tolist(), [n for n in stored.files if n.startswith("label-")]
            return {
                str(stored[n]): dict(zip(keys, stored[n.replace("label", "word")].tolist(), strict=True))
                for n in labels
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise UserError(f"{path} cannot be read as groups of test cases ({e}); evaluate the run again") from e


def told_of(name: str, found: Mapping[str, Any]) -> list[str]:
    """A label's groups in a line or two, for a person."""
    groups = found["groups"]
    judged = [f"{w} {g['value']:.4f} ({g['patients']} patients)" for w, g in groups.items() if g["value"] is not None]
    few = [f"{w} ({g['too_few'] or 'no value'})" for w, g in groups.items() if g["value"] is None]
    lines = [f"{name}: " + ", ".join(judged)] if judged else []
    if found["gap"] is not None:
        span = "" if found["gap_interval"] is None else " ({:.4f} to {:.4f})".format(*found["gap_interval"])
        lines[0] += f"; worst {found['worst']}, {found['gap']:+.4f}{span} against {found['best']}"
    return lines + [f"{name}: not judged: {'; '.join(few)}"] * bool(few)
