"""How the cases of another data set differ from those of a run: answers, features, and what the images or bags are like.

Numbers for shift.json and one picture. None of them says that a score may be believed; they say where to look when it fell.

Shape letters: N cases, D width of features, V values of a case.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.read.remote import is_url
from trainer.downstream.external.opened import External
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.predict import EvalOutput
from trainer.downstream.sites.robustness import robustness
from trainer.downstream.targets import said
from trainer.state.files import write_atomic

MOST = 100
"""Cases whose images or bags are looked into, evenly chosen."""
LEVELS = ("mean", "spread", "height", "width")
FOLDS, KEPT = 5, 20


@dataclass
class Shift:
    """`plain` is what shift.json holds; the rest is drawn.

    points  of features the first two principal axes of the run's test cases: (theirs [N, 2], ours [N, 2])
    values  field -> statistic -> (the run's training cases [N], these cases [N])
    """

    plain: dict[str, Any]
    points: tuple[np.ndarray, np.ndarray] | None = None
    values: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)


def shift_of(found: External, output: EvalOutput) -> Shift:
    """Compares the cases with the run's test cases (features) and training cases (answers, images, bags), as far as they are there."""
    out = Shift({"notes": []})
    notes = out.plain["notes"]
    if found.evaluate:
        run = found.trained.result.get("answers", {}).get("counts", {})
        task = found.setting.task
        here = said.counts(task, found.setting.targets, found.setting.splits)[found.split]
        out.plain["answers"] = {"run": run.get(task.data.train, {}), "here": here}
    _features(found, output, out, notes)
    _contents(found, out, notes)
    return out


# ---------------------------------------------------------------------------------------------------------------- features


def _features(found: External, output: EvalOutput, out: Shift, notes: list[str]) -> None:
    path = found.trained.path / "features.npz"
    if not path.is_file():
        notes.append(
            f"features: the run kept none of its test cases ({found.setting.task.kind}), so they are not compared"
        )
        return
    own = Predictions.load(found.trained.path / found.trained.result["predictions"][0])
    with np.load(path, allow_pickle=False) as kept:
        theirs_ND, keys = kept["x_ND"].astype(np.float64), kept["key_N"]
    patient = dict(zip(own.keys_N.tolist(), own.patients_N.tolist(), strict=True))
    ours_ND = output.pooled_ND.astype(np.float64)
    mean, std = theirs_ND.mean(0), theirs_ND.std(0) + 1e-9
    theirs_ND, ours_ND = (theirs_ND - mean) / std, (ours_ND - mean) / std
    _, _, axes = np.linalg.svd(theirs_ND, full_matrices=False)
    out.points = theirs_ND @ axes[:2].T, ours_ND @ axes[:2].T
    groups = [f"run {patient.get(k, k)}" for k in keys.tolist()] + [f"here {p}" for p in output.predictions.patients_N]
    told_by = apart_by(theirs_ND, ours_ND, np.array(groups))
    out.plain["features"] = {
        "run": len(theirs_ND), "here": len(ours_ND), "auc": told_by,
        "means": "area under the curve of a logistic regression on up to 20 principal axes that tells both sets apart, cross-validated "
        "by patient: 0.5 is no difference, 1 a complete one",
    }  # fmt: skip
    out.plain["features"] |= _robustness(
        theirs_ND * std + mean, ours_ND * std + mean, own, keys, output.predictions, np.array(groups)
    )
    if told_by is None:
        notes.append(f"features: fewer than {FOLDS} patients in one of the sets, too few to tell them apart")


def _robustness(
    theirs_ND: np.ndarray,
    ours_ND: np.ndarray,
    own: Predictions,
    keys: np.ndarray,
    here: Predictions,
    groups: np.ndarray,
) -> dict[str, Any]:
    """PathoROB's index of both sets as two sites (sites/robustness.py), where the classes of all cases are known."""
    truth = dict(zip(own.keys_N.tolist(), own.targets[:, 0].tolist(), strict=True))
    class_N = np.concatenate([[truth.get(k, np.nan) for k in keys.tolist()], here.targets[:, 0]])
    if own.kind not in ("binary", "multiclass", "ordinal") or np.isnan(class_N).any():
        return {}
    site_N = np.repeat([0, 1], [len(theirs_ND), len(ours_ND)])
    found = robustness(np.concatenate([theirs_ND, ours_ND]), class_N, site_N, groups)
    if found is None or found.index != found.index:
        return {}
    return {"robustness_index": found.index, "robustness_k": found.k, "robustness_chance": found.chance}


def apart_by(theirs_ND: np.ndarray, ours_ND: np.ndarray, groups: np.ndarray) -> float | None:
    """Area under the curve with which features tell two sets apart, cross-validated by patient; None for too few patients."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x_ND = np.concatenate([theirs_ND, ours_ND])
    y_N = np.repeat([0, 1], [len(theirs_ND), len(ours_ND)])
    if min(len(np.unique(groups[y_N == k])) for k in (0, 1)) < FOLDS:
        return None
    score_N = np.zeros(len(y_N))
    for train, test in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(x_ND, y_N, groups):
        axes = PCA(min(KEPT, *x_ND[train].shape), random_state=0)
        model = make_pipeline(axes, StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        score_N[test] = model.fit(x_ND[train], y_N[train]).decision_function(x_ND[test])
    return float(roc_auc_score(y_N, score_N))


# ---------------------------------------------------------------------------------------------------------- images and bags


def _contents(found: External, out: Shift, notes: list[str]) -> None:
    setting = found.setting
    here = _measured(setting.data, found.indices, setting.fields)
    theirs: Mapping[str, Mapping[str, np.ndarray]] = {}
    path, fingerprint = found.trained.sources[0]
    try:
        if is_url(path) or not Path(path).is_dir():
            raise FileNotFoundError
        with Dataset.open(path) as data:
            if data.fingerprint != fingerprint:
                raise FileNotFoundError
            theirs = _measured(data, data.subset(setting.task.data.train).indices, setting.fields)
    except (DataError, OSError):
        notes.append(f"images and bags: the run's own data ({path}) are not there any more, so they are not compared")
    plain: dict[str, Any] = {}
    for name, statistics in here.items():
        for what, ours_N in statistics.items():
            own_N = theirs.get(name, {}).get(what, np.empty(0))
            out.values.setdefault(name, {})[what] = own_N, ours_N
            plain.setdefault(name, {})[what] = {"run": _five(own_N), "here": _five(ours_N)}
    out.plain["contents"] = plain


def _five(value_N: np.ndarray) -> list[float] | None:
    """Least, quartiles, largest."""
    return [float(f"{v:.6g}") for v in np.quantile(value_N, [0, 0.25, 0.5, 0.75, 1])] if len(value_N) else None


def _measured(data: Dataset, indices: np.ndarray, fields: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """By field what each case's values are like; of up to MOST cases."""
    picked = indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), MOST)).astype(int))]
    out: dict[str, dict[str, list[float]]] = {}
    for index in picked.tolist():
        record = data[index]
        for name in fields:
            if name not in data.info.fields or not record.has(name):
                continue
            for what, value in _of_value(np.asarray(record.read(name)), name).items():
                out.setdefault(name, {}).setdefault(what, []).append(value)
    return {n: {w: np.array(v) for w, v in s.items()} for n, s in out.items()}


def _of_value(value: np.ndarray, name: str) -> dict[str, float]:
    if value.dtype.kind not in "fiub" or not value.size or name.startswith("coords"):
        return {}
    level = {"mean": float(value.mean(dtype=np.float64)), "spread": float(value.std(dtype=np.float64))}
    if value.ndim == 3:
        return {**level, "height": float(value.shape[0]), "width": float(value.shape[1])}
    return {**level, "rows": float(value.shape[0])} if value.ndim == 2 else level


# ----------------------------------------------------------------------------------------------------------------- written


def write_shift(out: Path, shift: Shift) -> None:
    write_atomic(out / "shift.json", json.dumps(shift.plain, indent=1).encode())
    write_atomic(out / "shift.png", picture(shift))


def picture(shift: Shift) -> bytes:
    """A PNG: features on two axes, shares of the answers, and a panel of values for each statistic of a field."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(n, w, *pair) for n, s in shift.values.items() for w, pair in s.items() if _varies(pair)]
    shares = _shares(shift.plain.get("answers", {}))
    count = (shift.points is not None) + bool(shares) + len(panels)
    columns = min(3, max(1, count))
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    place = iter(figure.subplots(rows, columns, squeeze=False).ravel())
    if shift.points is not None:
        axes = next(place)
        for points_N2, label, colour in zip(shift.points, ("run's test cases", "here"), COLOURS, strict=True):
            axes.scatter(points_N2[:, 0], points_N2[:, -1], s=9, alpha=0.7, label=label, color=colour)
        axes.set_title("features, two principal axes", fontsize=9)
        axes.legend(fontsize=8)
    if shares:
        axes, at = next(place), np.arange(len(shares))
        for k, (label, colour) in enumerate(zip(("run, training", "here"), COLOURS, strict=True)):
            axes.bar(at + 0.4 * k - 0.2, [pair[k] for pair in shares.values()], 0.38, label=label, color=colour)
        axes.set_xticks(at, [str(n).replace("$", r"\$") for n in shares], fontsize=8, rotation=20)
        axes.set_title("share of answers", fontsize=9)
        axes.legend(fontsize=8)
    for name, what, own_N, ours_N in panels:
        axes = next(place)
        known = [v for v in (own_N, ours_N) if len(v)]
        bins = np.histogram_bin_edges(np.concatenate(known), 20)
        for value_N, label, colour in zip((own_N, ours_N), ("run, training", "here"), COLOURS, strict=True):
            if len(value_N):
                axes.hist(
                    value_N, bins, weights=np.full(len(value_N), 1 / len(value_N)), alpha=0.6, label=label, color=colour
                )
        axes.set_title(f"{name}: {what}".replace("$", r"\$"), fontsize=9)
        axes.legend(fontsize=8)
    for axes in place:
        axes.set_axis_off()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


COLOURS = ("#2a6fb0", "#d1632a")


def _varies(pair: tuple[np.ndarray, np.ndarray]) -> bool:
    return len(np.unique(np.concatenate(pair))) > 1


def _shares(answers: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Answer -> its share in the run's training cases and here; of yes-or-no labels the share of yes."""
    run, here = answers.get("run", {}), answers.get("here", {})
    if any(isinstance(v, Mapping) for v in here.values()):
        yes = [{k: v["yes"] / max(1, v["yes"] + v["no"]) for k, v in side.items()} for side in (run, here)]
    else:
        yes = [{k: v / max(1, sum(side.values())) for k, v in side.items()} for side in (run, here)]
    return {k: (yes[0].get(k, 0.0), v) for k, v in yes[1].items()}
