"""What a system said of each test case, and what was true: all that a metric or a paired test needs.

Shape letters: N cases, K classes, labels or targets.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from trainer.errors import UserError

Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "survival", "segmentation", "retrieval"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PROBABILITIES = ("binary", "multiclass", "multilabel", "ordinal")
AXES = {
    "binary": (1, 1),
    "multiclass": (1, 2),
    "multilabel": (2, 2),
    "ordinal": (1, 2),
    "survival": (2, 1),
    "retrieval": (1, 2),
}
NAMED_COLUMNS = ("multiclass", "multilabel", "ordinal")
# A softmax in half precision sums to one this closely; scores that are no probabilities do not.
SUM_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores and truth of N test cases. A NaN target is an unknown one; a score must be a number.

    kind                 target; score
    binary               [N] 0 or 1; [N] P(1)
    multiclass           [N] code 0..K-1; [N, K] probabilities
    multilabel           [N, K] 0 or 1; [N, K] probabilities
    ordinal              [N] grade 0..K-1; [N, K], column k is P(at least grade k); column 0 decides nothing
    regression           [N] or [N, K]; the same, both in the labels' own units
    survival             [N, 2] time and event (1 seen, 0 censored); [N] log risk, higher is earlier
    segmentation         [N] true pixels; [N, 2] pixels in the intersection, pixels predicted; a case is a slice or an image.
                         K structures: [N, K]; [N, 2 K], the K intersections first; `classes` names them
    retrieval            [N] how many images are right for the case's report; [N, 2] ranks of its report and of its image, 1 at best

    keys_N and patients_N are strings. `classes` names the columns of multiclass, multilabel and ordinal scores. `scale_K` is the
    standard deviation of each target of a regression over the training split (with `standardise: each_split` over this one); the
    metric `mse` needs it. `soft_N3`, of masks: sums over all pixels and structures of probability x truth, of probability, of
    truth; the metric `dice_contig` needs it. `horizons_H`, of survival: rising times, of training events, at which `c_uno` and
    `time_auc` look; one evaluation's cases have the same, whatever was drawn of them. `survival_NH`: the
    probability to be without event beyond each of them; `integrated_brier` and `horizon_gap` have no value without.
    """

    kind: Kind
    keys_N: np.ndarray
    patients_N: np.ndarray
    target: np.ndarray
    score: np.ndarray
    classes: tuple[str, ...] = ()
    scale_K: np.ndarray | None = None
    soft_N3: np.ndarray | None = None
    horizons_H: np.ndarray | None = None
    survival_NH: np.ndarray | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        for name in ("keys_N", "patients_N"):
            set_(self, name, np.asarray(getattr(self, name), dtype=str))
        for name in ("target", "score"):
            set_(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        set_(self, "classes", tuple(str(c) for c in self.classes))
        if self.scale_K is not None:
            set_(self, "scale_K", np.atleast_1d(np.asarray(self.scale_K, dtype=np.float64)))
        if self.soft_N3 is not None:
            set_(self, "soft_N3", np.asarray(self.soft_N3, dtype=np.float64))
        if self.horizons_H is not None:
            set_(self, "horizons_H", np.atleast_1d(np.asarray(self.horizons_H, dtype=np.float64)))
        if self.survival_NH is not None:
            set_(self, "survival_NH", np.asarray(self.survival_NH, dtype=np.float64))
        wrong = _shape_problems(self) or _value_problems(self)
        assert not wrong, f"{self.kind} predictions: " + "; ".join(wrong)

    def __len__(self) -> int:
        return len(self.keys_N)

    @property
    def targets(self) -> np.ndarray:
        """The target with its columns, one where it has none."""
        return self.target if self.target.ndim == 2 else self.target[:, None]

    @property
    def scores(self) -> np.ndarray:
        """The score with its columns, one where it has none."""
        return self.score if self.score.ndim == 2 else self.score[:, None]

    def take(self, index: np.ndarray, patients: np.ndarray | None = None) -> Predictions:
        """The cases at `index` (with repetition, or a mask), under other patients' names where given."""
        patients = self.patients_N[index] if patients is None else patients
        soft_N3, survival_NH = (None if x is None else x[index] for x in (self.soft_N3, self.survival_NH))
        return replace(
            self, keys_N=self.keys_N[index], patients_N=patients, target=self.target[index], score=self.score[index],
            soft_N3=soft_N3, survival_NH=survival_NH,
        )  # fmt: skip

    def structure(self, name: str) -> Predictions:
        """Of several structures' masks those of one."""
        assert self.kind == "segmentation"
        assert name in self.classes, f"no structure '{name}' among {', '.join(self.classes) or 'one without a name'}"
        k = self.classes.index(name)
        score_N2 = self.score[:, [k, len(self.classes) + k]]
        return replace(self, target=self.target[:, k], score=score_N2, classes=(), soft_N3=None)

    def structures(self) -> list[Predictions]:
        """The masks of each structure by themselves; itself where there is one."""
        return [self.structure(name) for name in self.classes] or [self]

    def known(self) -> Predictions:
        """The cases that have a target. Several labels or targets: at least one; survival: both time and event."""
        nan_NK = np.isnan(self.targets)
        gone_N = nan_NK.any(1) if self.kind == "survival" else nan_NK.all(1)
        return self.take(~gone_N) if gone_N.any() else self

    def truth(self) -> np.ndarray:
        """[N] the true class or grade of known cases, as integers."""
        assert self.kind in ("binary", "multiclass", "ordinal")
        return self.target.astype(np.int64)

    def decided(self) -> np.ndarray:
        """[N] the predicted class or grade.

        binary: P(1) > 0.5; multiclass: the most probable, the first of equals; ordinal: the number of columns over 0.5, less one,
        and 0 at least.
        """
        if self.kind == "binary":
            return (self.score > 0.5).astype(np.int64)
        if self.kind == "multiclass":
            return self.score.argmax(1)
        assert self.kind == "ordinal"
        return np.maximum((self.score > 0.5).sum(1) - 1, 0)

    def save(self, path: Path) -> None:
        """Writes an .npz of plain arrays (key, patient, target, score, classes, kind and, where there is one, scale) at once."""
        arrays: dict[str, Any] = {
            "key": self.keys_N,
            "patient": self.patients_N,
            "target": self.target,
            "score": self.score,
            "classes": np.asarray(self.classes, dtype=str),
            "kind": np.asarray(self.kind),
        }
        if self.scale_K is not None:
            arrays["scale"] = self.scale_K
        if self.soft_N3 is not None:
            arrays["soft"] = self.soft_N3
        if self.horizons_H is not None:
            arrays["horizons"] = self.horizons_H
        if self.survival_NH is not None:
            arrays["survival"] = self.survival_NH
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def load(path: Path) -> Predictions:
        """Reads what `save` wrote; nothing in the file is executed.

        Raises:
            UserError: no such file, or none of ours.
        """
        remedy = "evaluate the run again, or name a file of predictions"
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {n: stored[n] for n in stored.files}
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as e:
            raise UserError(f"{path} cannot be read as predictions ({e}); {remedy}") from e
        if missing := sorted({"key", "patient", "target", "score", "classes", "kind"} - set(arrays)):
            raise UserError(f"{path} holds no array {', '.join(missing)}; {remedy}")
        kind, scale = str(arrays["kind"]), arrays.get("scale")
        try:
            return Predictions(
                kind,  # type: ignore[arg-type]
                arrays["key"],
                arrays["patient"],
                arrays["target"],
                arrays["score"],
                tuple(arrays["classes"].reshape(-1).tolist()),
                scale,
                arrays.get("soft"),
                arrays.get("horizons"),
                arrays.get("survival"),
            )
        except (AssertionError, ValueError, TypeError) as e:
            raise UserError(f"{path} does not hold predictions ({e}); {remedy}") from e


def _shape_problems(p: Predictions) -> list[str]:
    if p.kind not in KINDS:
        return [f"no such kind; there are {', '.join(KINDS)}"]
    N = p.keys_N.size
    if p.keys_N.shape != (N,) or p.patients_N.shape != (N,):
        return [f"keys {p.keys_N.shape} and patients {p.patients_N.shape} are two lists of one length"]
    # One structure's pixels are a list, several ones' have a column each.
    own = (p.target.ndim, 2 if p.kind == "segmentation" else p.target.ndim)
    axes = AXES.get(p.kind, own)
    wrong = [
        f"{name} has shape {x.shape}, for {N} cases"
        for name, x, ndim in zip(("target", "score"), (p.target, p.score), axes, strict=True)
        if x.ndim != ndim or ndim not in (1, 2) or len(x) != N
    ]
    if wrong:
        return wrong
    if p.kind in ("multilabel", "regression") and p.target.shape != p.score.shape:
        wrong.append(f"target {p.target.shape} and score {p.score.shape} differ in shape")
    pair = {"survival": (p.target, 1), "segmentation": (p.score, p.targets.shape[1])}.get(p.kind)
    if pair is not None and pair[0].shape[1] != 2 * pair[1]:
        wrong.append(
            "the target of survival (time, event) and the score of segmentation have two columns (a structure)"
        )
    if p.kind == "segmentation" and len(p.classes) != (p.target.shape[1] if p.target.ndim == 2 else 0):
        wrong.append(f"masks of {p.targets.shape[1]} structures, {len(p.classes)} names of several")
    if p.soft_N3 is not None and p.soft_N3.shape != (N, 3):
        wrong.append(f"soft sums have shape {p.soft_N3.shape}, three numbers a case are needed")
    if p.survival_NH is not None and p.survival_NH.shape != (N, 0 if p.horizons_H is None else p.horizons_H.size):
        wrong.append(f"survival has shape {p.survival_NH.shape}, a column a horizon is needed")
    if p.kind in NAMED_COLUMNS and len(p.classes) != p.score.shape[1]:
        wrong.append(f"{p.score.shape[1]} columns, {len(p.classes)} names of classes")
    return wrong


def _value_problems(p: Predictions) -> list[str]:
    wrong = []
    if not np.isfinite(p.score).all():
        rows_N = ~np.isfinite(p.scores).all(1)
        wrong.append(f"{rows_N.sum()} cases have a score that is not finite ({p.keys_N[rows_N][0]}, ...)")
    elif p.kind in PROBABILITIES and p.score.size and not (p.score.min() >= -1e-6 and p.score.max() <= 1 + 1e-6):
        wrong.append("scores are probabilities, these leave 0..1 (are they logits?)")
    elif p.kind == "multiclass" and (np.abs(p.score.sum(1) - 1) > SUM_TOLERANCE).any():
        wrong.append("the probabilities of a case do not sum to one")
    known = p.target[~np.isnan(p.target)]
    if p.kind in ("binary", "multilabel") and not np.isin(known, (0, 1)).all():
        wrong.append("targets are 0, 1 or NaN")
    if p.kind in ("multiclass", "ordinal") and not np.isin(known, np.arange(p.score.shape[1])).all():
        wrong.append(f"targets are whole numbers from 0 to {p.score.shape[1] - 1}, or NaN")
    if p.kind in ("regression", "survival", "segmentation") and np.isinf(known).any():
        wrong.append("targets are finite, or NaN")
    if p.kind == "survival" and not np.isin(p.target[~np.isnan(p.target[:, 1]), 1], (0, 1)).all():
        wrong.append("events are 0 or 1, or NaN")
    if p.kind == "segmentation" and not _countable(p):
        wrong.append("pixels are counts, and the intersection is no larger than truth or prediction")
    if p.horizons_H is not None and not (
        p.horizons_H.size and np.isfinite(p.horizons_H).all() and (np.diff(p.horizons_H) > 0).all()
    ):
        wrong.append("horizons are one or more rising times")
    if p.survival_NH is not None and not ((p.survival_NH >= 0) & (p.survival_NH <= 1)).all():
        wrong.append("survival over time is a probability")
    if p.scale_K is not None and not (p.scale_K.shape == (p.targets.shape[1],) and (p.scale_K > 0).all()):
        wrong.append("scale has one positive number a target")
    return wrong


def _countable(p: Predictions) -> bool:
    both_NK, predicted_NK = np.hsplit(p.score, 2)
    true_NK = np.where(np.isnan(p.targets), np.inf, p.targets)
    return bool((both_NK >= 0).all() and (both_NK <= predicted_NK).all() and (both_NK <= true_NK).all())
