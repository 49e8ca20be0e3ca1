"""What an encoder knows: linear probes on frozen features, and a pre-trained encoder against its own random start.

A probe is a linear model on standardised pooled features, fitted on the patients of the training split; how strongly it is
regularised is chosen by cross-validation over these patients. Its number is taken once, on held-out patients: a patient's score is
the mean over the patient's samples. Both encoders of a comparison meet the same patients, so that they can be resampled together.

Shape letters: N samples, D width of the features, P held-out patients, S seeds, R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from safetensors.torch import load_file

from models.contract import Method
from models.contract.method import IMAGE_SIDE
from shards.check.readable import unreadable
from shards.load.loader import Loader
from shards.order.mix import make_plan
from shards.read.dataset import Dataset
from shards.tables.identity import person
from trainer.build import build_method
from trainer.config.schema import Config, by_todays_names, parse
from trainer.data import Data, open_data, sampler
from trainer.errors import UserError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Kind = Literal["class", "number"]
FOLDS = 5
PENALTIES = np.logspace(0, 5, 11)


@dataclass(frozen=True)
class Features:
    """Pooled features x_ND of some samples, their patients' names and their label."""

    x_ND: np.ndarray
    patients_N: np.ndarray
    label_N: np.ndarray


# ---------------------------------------------------------------------------------------------------------------- features


def stored_config(out: Path) -> Config:
    """The configuration of a finished run.

    Raises:
        UserError: `out` holds no finished run.
    """
    if not (out / "weights.safetensors").is_file() or not (out / "config.json").is_file():
        raise UserError(f"{out} holds no finished run (no weights.safetensors and config.json); finish it first")
    return parse(by_todays_names(json.loads((out / "config.json").read_bytes())["config"]))


def encoders_of(out: Path) -> tuple[Data, dict[str, Method]]:
    """The data of a finished run and its encoder, `pretrained` and as it was at the run's start (`random`, same seed).

    Raises:
        UserError: no finished run, or its data set is another one by now.
    """
    config = stored_config(out)
    data = open_data(config)
    trained_on = json.loads((out / "method.json").read_bytes())["data"]["fingerprint"]
    if data.fingerprint != trained_on:
        raise UserError(f"{out} was trained on data with fingerprint {trained_on}, {data.paths} has {data.fingerprint}")
    pretrained = build_method(config, data)
    pretrained.load_state_dict(load_file(out / "weights.safetensors"), strict=True)
    return data, {"pretrained": pretrained, "random": build_method(config, data)}


@torch.no_grad()
def features(
    method: Method, data: Dataset, splits: Sequence[str], labels: Sequence[str], batch: int = 32
) -> dict[str, Features]:
    """Pooled features of `method.encode` on the image side alone, for every sample of `splits`, with each of `labels`.

    Nothing is masked or augmented. `method` is left in its deployed form.

    Raises:
        UserError: the method reads no image, or samples lack a label.
    """
    fields = method.fields_of(*IMAGE_SIDE)
    if not fields:
        raise UserError(f"{method.name} reads {', '.join(method.inputs)}: there is no image side to probe")
    subsets = [data.subset(s) for s in splits]
    values = {n: np.concatenate([s.labels[n] for s in subsets]) for n in labels}
    for name, v in values.items():
        if missing := int(np.isnan(v).sum() if v.dtype.kind == "f" else (v < 0).sum()):
            raise UserError(f"{missing} samples of {data.path} have no label '{name}': probe another one")
    method.inputs = fields
    method.enter("")
    method.eval()
    x_ND = np.concatenate([_pooled(method, data, s, batch) for s in splits])
    patients_N = np.concatenate([data.patients_of(s.indices) for s in subsets])
    return {n: Features(x_ND, patients_N, v) for n, v in values.items()}


def _pooled(method: Method, data: Dataset, split: str, batch: int) -> np.ndarray:
    plan = make_plan(data, split, "sequential", 0, min(batch, len(data.subset(split))))
    loader = Loader(data, plan, sampler(method), method.collate, workers=0)
    try:
        parts = [method.encode(b)["pooled_BD"][b.weight_B > 0].float().numpy() for b in loader.evaluate()]
    finally:
        loader.close()
    return np.concatenate(parts)


# ------------------------------------------------------------------------------------------------------------------- probe


def fit_probe(kind: Kind, train: Features) -> Pipeline:
    """A scikit-learn pipeline: standardisation, then L2-regularised logistic or linear regression."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    # A sample's other slides never judge the penalty that it helped to fit.
    folds = GroupKFold(FOLDS)
    if kind == "class":
        model, grid = LogisticRegression(max_iter=2000), {"model__C": 1 / PENALTIES}
        scoring = "roc_auc"
    else:
        model, grid = Ridge(), {"model__alpha": PENALTIES}
        scoring = "r2"
    pipeline = Pipeline([("scale", StandardScaler()), ("model", model)])
    search = GridSearchCV(pipeline, grid, scoring=scoring, cv=folds)
    return search.fit(train.x_ND, train.label_N, groups=train.patients_N).best_estimator_


def probe(kind: Kind, train: Features, held_out: Features) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(names, scores, labels) of the held-out patients, each [P]; the probe saw the training patients only.

    Raises:
        UserError: features that are not finite; too few patients, or one on both sides; not two classes; samples of a patient
            that disagree on the label.
    """
    learned = {person(p) for p in train.patients_N.tolist()}
    if shared := sorted(p for p in set(held_out.patients_N.tolist()) if person(p) in learned):
        raise UserError(f"{len(shared)} patients are both trained and tested on ({shared[0]}, ...): split by patient")
    if kind == "class" and not set(np.unique(train.label_N)) == set(np.unique(held_out.label_N)) == {0, 1}:
        raise UserError("a probe of a class label needs two classes, both among training and held-out patients")
    for part, where in ((train, "training"), (held_out, "held-out")):
        if why := unreadable(part.x_ND, distinct=1):
            raise UserError(f"the {where} features cannot be probed: {why}")
    if (patients := len(np.unique(train.patients_N))) < FOLDS:
        raise UserError(f"a probe is chosen over {FOLDS} folds of patients, there are {patients} to train on")
    model = fit_probe(kind, train)
    score_N = model.decision_function(held_out.x_ND) if kind == "class" else model.predict(held_out.x_ND)
    names_P, of_N = np.unique(held_out.patients_N, return_inverse=True)
    count_P = np.bincount(of_N)
    label_P = np.bincount(of_N, held_out.label_N) / count_P
    if not np.allclose(label_P[of_N], held_out.label_N):
        raise UserError("samples of one patient have different labels: a patient's score would have no answer")
    return names_P, np.bincount(of_N, score_N) / count_P, label_P


# ------------------------------------------------------------------------------------------------------------------ metric


def auc(score_RP: np.ndarray, label_RP: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each row, ties count one half (Mann-Whitney U); NaN for a row of one class."""
    from scipy.stats import rankdata

    ones_R = label_RP.sum(-1)
    zeros_R = label_RP.shape[-1] - ones_R
    u_R = (rankdata(score_RP, axis=-1) * label_RP).sum(-1) - ones_R * (ones_R + 1) / 2
    with np.errstate(invalid="ignore"):
        return u_R / (ones_R * zeros_R)


def spearman(score_RP: np.ndarray, label_RP: np.ndarray) -> np.ndarray:
    """Rank correlation of each row, ties at their mean rank; NaN for a row without variance."""
    from scipy.stats import rankdata

    a, b = (rankdata(v, axis=-1) for v in (score_RP, label_RP))
    a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


METRICS = {"class": auc, "number": spearman}
METRIC_NAMES = {"class": "AUC", "number": "Spearman"}


@dataclass(frozen=True)
class Comparison:
    """A pre-trained encoder against its random start.

    pretrained, random   the metric on held-out patients, one value a seed
    difference           its mean difference over seeds
    over_patients        95 % interval of `difference`: percentiles over resampled held-out patients, the same ones in both
                         encoders and all seeds; the seeds are taken as they are
    over_seeds           95 % interval of `difference`: Student's t over the seeds, the patients are taken as they are;
                         None for one seed
    """

    metric: str
    patients: int
    pretrained: list[float]
    random: list[float]
    difference: float
    over_patients: tuple[float, float]
    over_seeds: tuple[float, float] | None

    @property
    def better(self) -> bool:
        """Above the random start in every seed, and over resampled patients."""
        return self.over_patients[0] > 0 and all(a > b for a, b in zip(self.pretrained, self.random, strict=True))


def compare(
    kind: Kind,
    pretrained_SP: np.ndarray,
    random_SP: np.ndarray,
    label_P: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compares scores of the same held-out patients, one row a seed. label_P: 0 or 1, or numbers."""
    metric, (S, P) = METRICS[kind], pretrained_SP.shape
    label_SP = np.broadcast_to(label_P, (S, P))
    one, two = metric(pretrained_SP, label_SP), metric(random_SP, label_SP)
    pick_RP = np.random.default_rng(seed).integers(0, P, (resamples, P))
    label_RP = label_P[pick_RP]
    each_SR = [
        metric(a[pick_RP], label_RP) - metric(b[pick_RP], label_RP)
        for a, b in zip(pretrained_SP, random_SP, strict=True)
    ]
    low, high = np.nanpercentile(np.mean(each_SR, 0), [2.5, 97.5])
    return Comparison(
        METRIC_NAMES[kind], P, one.tolist(), two.tolist(), float((one - two).mean()), (float(low), float(high)), _t(one - two)
    )  # fmt: skip


def _t(difference_S: np.ndarray) -> tuple[float, float] | None:
    from scipy.stats import t

    S = len(difference_S)
    if S < 2:
        return None
    half = float(t.ppf(0.975, S - 1) * difference_S.std(ddof=1) / np.sqrt(S))
    mean = float(difference_S.mean())
    return mean - half, mean + half
