"""Plain baselines for the tasks on the real samples: same data sets, same labelled patients, same test patients, same statistics.

    OMP_NUM_THREADS=1 python tests/real/floors.py OUT [--only WORD] [--splits 50]

OUT is the folder of tests/real/campaign.py; its data sets are enough. Results go to OUT/floors/NAME-HOW-PERCENT in the form of
launch/finetune.py, so that `launch/compare.py OUT/finetune OUT/floors` puts a floor into the table of its task and tests it against
the encoders. Minutes.

mean     a slide's mean region feature        rna    expression, z-scores clipped to 3 (some are in the thousands)
pixels   the image as 32 x 32 grey values     none   training mean or median, whatever the patient
relative the same less each image's mean, over its deviation: what a method that standardises every image can see of it
bright   an image's mean grey value; of masks: pixels of a slice above a threshold
dark   pixels darker than their surroundings by a threshold
place    the training masks' mean above a threshold
local    logistic regression on a pixel's value, its blurs of four widths and the training masks' mean there, above a threshold

Classes: logistic regression (one for each threshold of an ordinal label), numbers: ridge regression, survival: Cox on ten principal
components; features standardised, penalties chosen by cross-validation over training patients. Thresholds are those with the best
Dice in training. Then, for the two-class floors, the same on --splits random splits of all patients: how far a split alone
moves the number.

Shape letters: N samples, F features, K grades, H x W pixels.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.view import shaped_mask
from shards.read.dataset import Dataset
from tests.real.campaign import FINETUNE
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.results import summary, write_result
from trainer.downstream.targets import said
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import Targets, fitted, read_targets, with_horizons
from trainer.downstream.task.read import build_task
from trainer.downstream.task.schema import Task
from trainer.downstream.trial import metric_names

SIDE = 96  # of the masks, as the encoders give them
PIXELS = 100_000  # of training images, for logistic regression on pixels
# name of the setting in campaign.py: what is measured on its test patients
FLOORS = {
    "subtype": ("mean", "rna"),
    "glioma": ("mean", "rna"),
    "survival": ("mean",),
    "age-slides": ("mean", "none"),
    "covid": ("pixels", "relative", "bright"),
    "viral": ("pixels", "relative", "bright"),
    "dr": ("pixels", "relative", "bright"),
    "age-films": ("pixels", "none"),
    "lgg": ("bright", "place", "local"),
    "vessels": ("dark", "place", "local"),
}


@dataclass(frozen=True)
class Case:
    """A task on a data set, and the samples of its splits."""

    task: Task
    data: Dataset
    targets: Targets
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def predictions(self, target: np.ndarray, score: np.ndarray, **more: Any) -> Predictions:
        keys, patients = self.data.keys_of(self.test), self.data.patients_of(self.test)
        return Predictions(self.task.kind, np.asarray(keys), np.asarray(patients), target, score, **more)


def case_of(name: str, out: Path, fraction: float) -> Case:
    task_name, _, _, data_set, _ = FINETUNE[name]
    task, _ = build_task(task_name, [f"data.path={out / 'data' / data_set}", f"protocol.fraction={fraction}"])
    data = Dataset.open(out / "data" / data_set)
    targets = read_targets(task, data, ("image",) if "image" in data.info.fields else ("patches",))
    train, val, test = (at[targets.used_N[at]] for at in (data.subset(s).indices for s in ("train", "val", "test")))
    targets = with_horizons(task, targets, train)
    return Case(task, data, targets, labelled(task, data, targets, train, 0), val, test)


# ---------------------------------------------------------------------------------------------------------------- features


def features(data: Dataset, how: str) -> np.ndarray:
    """[N, F] of all samples of a data set."""
    return np.stack([_of_sample(data[i], how) for i in range(len(data))])


def _of_sample(record: Any, how: str) -> np.ndarray:
    if how == "none":
        return np.zeros(1)
    if how == "mean":
        return np.asarray(record.read("patches"), np.float64).mean(0)
    if how == "rna":
        return np.asarray(record.read("rna"), np.float64).clip(-3, 3)
    x = np.asarray(_grey(record).resize((32, 32), Image.Resampling.BOX), np.float64).ravel()
    if how == "bright":
        return x.mean(keepdims=True)
    assert how in ("pixels", "relative")
    return x if how == "pixels" else (x - x.mean()) / max(x.std(), 1e-6)


def _grey(record: Any) -> Image.Image:
    image = np.asarray(record.read("image"))
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("L")


# ------------------------------------------------------------------------------------------------------------------ models


def logistic(x_NF: np.ndarray, y_N: np.ndarray, patients_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """x -> P(1). The penalty by up to five folds, a patient in one; where a class has fewer than two patients, a strong one."""
    if len(np.unique(y_N)) < 2:
        return lambda x: np.full(len(x), y_N.mean())
    fewest = min(len(np.unique(patients_N[y_N == c])) for c in (0, 1))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=2000))
    if fewest >= 2:
        folds = StratifiedGroupKFold(min(5, fewest), shuffle=True, random_state=0)
        grid = {"logisticregression__C": np.logspace(-5, 1, 7)}
        model = GridSearchCV(model, grid, cv=list(folds.split(x_NF, y_N, patients_N)), scoring="neg_log_loss")
    model.fit(x_NF, y_N)
    return lambda x: model.predict_proba(x)[:, 1]


def classes(case: Case, x_NF: np.ndarray) -> Predictions:
    y_N = case.targets.value_NT[:, 0]
    who_N = np.asarray(case.data.patients_of(case.train))
    if case.task.kind == "binary":
        score = logistic(x_NF[case.train], y_N[case.train], who_N)(x_NF[case.test])
        return case.predictions(y_N[case.test], score, classes=case.targets.question.classes)
    columns = [np.ones(len(case.test))]
    for grade in range(1, len(case.targets.question.classes)):
        above = (y_N[case.train] >= grade).astype(float)
        columns.append(logistic(x_NF[case.train], above, who_N)(x_NF[case.test]))
    return case.predictions(y_N[case.test], np.stack(columns, 1), classes=case.targets.question.classes)


def number(case: Case, x_NF: np.ndarray) -> Predictions:
    y_N = case.targets.value_NT[:, 0]
    scale = fitted(case.task, case.targets, case.train).question.std_K
    if x_NF.shape[1] == 1:
        score = np.full(len(case.test), np.median(y_N[case.train]))
    else:
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 13)))
        score = model.fit(x_NF[case.train], y_N[case.train]).predict(x_NF[case.test])
    return case.predictions(y_N[case.test], score, scale_K=np.asarray(scale))


def survival(case: Case, x_NF: np.ndarray) -> Predictions:
    import pandas as pd
    from lifelines import CoxPHFitter
    from sklearn.decomposition import PCA

    y_NT = case.targets.value_NT
    reduce = make_pipeline(StandardScaler(), PCA(10, random_state=0), StandardScaler()).fit(x_NF[case.train])
    frame = pd.DataFrame(reduce.transform(x_NF[case.train])).add_prefix("c")
    frame["time"], frame["event"] = y_NT[case.train].T
    model = CoxPHFitter(penalizer=0.1).fit(frame, "time", "event")
    there = pd.DataFrame(reduce.transform(x_NF[case.test])).add_prefix("c")
    return case.predictions(
        y_NT[case.test],
        np.log(model.predict_partial_hazard(there).to_numpy()),
        horizons_H=np.array(case.targets.horizons),
    )


def masks(case: Case, how: str) -> Predictions:
    """A map of each image, and the threshold that has the best Dice in training."""
    known = [_maps_and_mask(case.data[int(i)]) for i in case.train]
    truth = np.stack([m for _, m in known])
    map_of = _map_of(how, [x for x, _ in known], truth)
    maps = np.stack([map_of(x) for x, _ in known])
    who = np.asarray(case.data.patients_of(case.train))

    def mean_dice(t: float) -> float:
        both, said, true = (a.sum((1, 2)) for a in ((maps > t) & truth, maps > t, truth))
        volumes = [2 * both[who == p].sum() / max(1, (said + true)[who == p].sum()) for p in np.unique(who)]
        return float(np.mean(volumes))

    threshold = max(np.quantile(maps, np.linspace(0.5, 0.995, 60)), key=mean_dice)
    counts, true = [], []
    for x, mask_HW in (_maps_and_mask(case.data[int(i)]) for i in case.test):
        said = map_of(x) > threshold
        counts.append([(said & mask_HW).sum(), said.sum()])
        true.append(mask_HW.sum())
    return case.predictions(np.array(true, float), np.array(counts, float))


def _map_of(how: str, known: Sequence[np.ndarray], truth_NHW: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What is compared with a threshold, [H, W], of an image's maps [F, H, W]."""
    place_HW = truth_NHW.mean(0)
    if how == "place":
        return lambda x: place_HW
    if how == "bright":
        return lambda x: x[0]
    if how == "dark":
        return lambda x: x[3] - x[1]

    def columns(x_FHW: np.ndarray) -> np.ndarray:
        return np.concatenate([x_FHW, place_HW[None]]).reshape(len(x_FHW) + 1, -1).T

    each = max(1, PIXELS // len(known))
    picks = [np.random.default_rng(i).integers(0, SIDE * SIDE, each) for i in range(len(known))]
    rows = np.concatenate([columns(x)[p] for x, p in zip(known, picks, strict=True)])
    answers = np.concatenate([m.ravel()[p] for m, p in zip(truth_NHW, picks, strict=True)])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(rows, answers)
    return lambda x: model.decision_function(columns(x)).reshape(SIDE, SIDE)


def _maps_and_mask(record: Any) -> tuple[np.ndarray, np.ndarray]:
    """The grey (of a colour image: green) value, standardised, as it is and blurred, [5, SIDE, SIDE]; and the mask."""
    image = np.asarray(record.read("image"))
    plane = Image.fromarray(image[..., image.shape[-1] // 2]).resize((SIDE, SIDE), Image.Resampling.BOX)
    maps = [plane, *(plane.filter(ImageFilter.GaussianBlur(r)) for r in (1, 2, 6, 12))]
    x_FHW = np.stack([np.asarray(m, np.float64) for m in maps])
    mask = shaped_mask(record.read("mask"), None, SIDE).astype(bool)
    return (x_FHW - x_FHW[0].mean()) / (x_FHW[0].std() + 1e-6), mask


# ------------------------------------------------------------------------------------------------------------------- running


def measure(name: str, how: str, fraction: float, out: Path) -> None:
    folder = out / "floors" / f"{name}-{how}-{round(100 * fraction)}"
    if (folder / "result.json").is_file():
        return
    case = case_of(name, out, fraction)
    if case.task.kind == "segmentation":
        found = masks(case, how)
    else:
        model = {"regression": number, "survival": survival}.get(case.task.kind, classes)
        found = model(case, features(case.data, how))
    about: dict[str, Any] = {
        "method": f"plain: {how}", "mode": "plain", "init": {"kind": "scratch", "path": None, "sha256": None},
        "inputs": {"mean": ["patches"], "rna": ["rna"], "none": []}.get(how, ["image"]), "control": None,
        "leak": {"checked": True, "shared": 0, "ids": [], "note": "nothing was pre-trained"}, "first_line": "", "seeds": [0],
        "n": {"train": len(case.train), "val": len(case.val), "test": len(case.test),
              "test_patients": len(set(case.data.patients_of(case.test)))},
        "hashes": {"data": case.data.fingerprint}, "wall_s": None, "meaning": said.lines(case.task, case.targets, {"test": case.test}),
        "answers": {"words": said.plain(case.targets)},
    }  # fmt: skip
    result = write_result(folder, case.task, about, [found], metric_names(case.task))
    print(summary(result, folder), flush=True)
    case.data.close()


def other_splits(name: str, how: str, out: Path, splits: int) -> Iterator[float]:
    """The floor's first metric with all labels, on other splits of the same sizes."""
    case = case_of(name, out, 1.0)
    x_NF, everyone = features(case.data, how), np.sort(np.concatenate([case.train, case.val, case.test]))
    who = np.asarray(case.data.patients_of(everyone))
    names = np.unique(who)
    for k in range(splits):
        order = np.random.default_rng(k).permutation(names)
        test = everyone[np.isin(who, order[: len(names) // 4])]
        train = everyone[np.isin(who, order[-round(0.6 * len(names)) :])]
        y = case.targets.value_NT[:, 0]
        if len(np.unique(y[test])) == 2 and len(np.unique(y[train])) == 2:
            found = classes(Case(case.task, case.data, case.targets, train, case.val, test), x_NF)
            yield METRICS[metric_names(case.task)[0]].compute(found)
    case.data.close()


def main() -> int:
    p = argparse.ArgumentParser(description="Plain baselines on the real samples.")
    p.add_argument("out", type=Path)
    p.add_argument("--only", default="")
    p.add_argument(
        "--splits", type=int, default=50, help="random splits for the spread of two-class floors; 0 for none"
    )
    args = p.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    chosen = {n: hows for n, hows in FLOORS.items() if args.only in n}
    for name, hows in chosen.items():
        for how in hows:
            for fraction in (1.0, 0.1):
                measure(name, how, fraction, args.out)
    for name in [n for n in chosen if n in ("subtype", "glioma", "covid", "viral") and args.splits]:
        for how in FLOORS[name]:
            v = np.array(list(other_splits(name, how, args.out, args.splits)))
            low, high = np.percentile(v, [2.5, 97.5])
            print(
                f"{name}, {how}: {len(v)} random splits, AUC {v.mean():.3f}, middle 95 % {low:.3f} to {high:.3f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
