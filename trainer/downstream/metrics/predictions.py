"""What a system said of each test case, and what was true: all that a metric or a paired test needs.

Shape letters: N cases, K classes, labels or targets.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.downstream.metrics.kinds import Kind
from trainer.downstream.metrics.prediction_problems import problems_of
from trainer.errors import UserError
from trainer.state.files import write_atomic

ALWAYS = {"key": "keys_N", "patient": "patients_N", "target": "target", "score": "score"}
OPTIONAL = {"scale": "scale_K", "soft": "soft_N3", "horizons": "horizons_H", "survival": "survival_NH"}
"""Names of arrays in a file, and of the fields that they are."""


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
        for name in OPTIONAL.values():
            if (given := getattr(self, name)) is not None:
                x = np.asarray(given, dtype=np.float64)
                set_(self, name, np.atleast_1d(x) if name in ("scale_K", "horizons_H") else x)
        wrong = problems_of(self)
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
        given = {name: getattr(self, own) for name, own in (ALWAYS | OPTIONAL).items()}
        arrays: dict[str, Any] = {name: x for name, x in given.items() if x is not None}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays, classes=np.asarray(self.classes, dtype=str), kind=np.asarray(self.kind))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content.getvalue())

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
        if missing := sorted({*ALWAYS, "classes", "kind"} - set(arrays)):
            raise UserError(f"{path} holds no array {', '.join(missing)}; {remedy}")
        given: dict[str, Any] = {own: arrays.get(name) for name, own in (ALWAYS | OPTIONAL).items()}
        classes = tuple(arrays["classes"].reshape(-1).tolist())
        try:
            return Predictions(str(arrays["kind"]), classes=classes, **given)  # type: ignore[arg-type]
        except (AssertionError, ValueError, TypeError) as e:
            raise UserError(f"{path} does not hold predictions ({e}); {remedy}") from e
