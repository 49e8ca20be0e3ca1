"""What is measured of a setting: predictions of the test split by frozen encoders, by words, or by trainings over seeds and rates.

OUT/seed-S/lr-R/ is a training (trial.py); of the rates that validation did not choose the weights go, and their metrics stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from models.finetuned import STAGE, Downstream
from shards.read.dataset import Dataset
from trainer.downstream.build import builder
from trainer.downstream.joint.run import Joint, joint_predictions
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.recalibrated import Recalibration, recalibrated
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.predict import EvalCases, EvalOutput, Example, evaluated
from trainer.downstream.probes.run import Frozen, frozen_predictions
from trainer.downstream.results import hash_of
from trainer.downstream.samples import TaskSamples, part, with_answers
from trainer.downstream.setting import Setting
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import Targets, fitted, targets_of_split
from trainer.downstream.task.rules.modes import recalibrates
from trainer.downstream.trial import Training, Trial
from trainer.engine.choice import Evaluation as Chance
from trainer.engine.choice import chosen
from trainer.errors import UserError
from trainer.runtime import Runtime, StopFlag, barrier, from_main


@dataclass
class Measured:
    predictions: list[Predictions]
    chosen: list[dict[str, Any]]
    controls: dict[str, list[Predictions]]
    examples: list[Example]
    train: int
    pooled_ND: np.ndarray | None = None
    """Pooled vectors of the test cases, of the first seed."""
    code: set[str] = field(default_factory=set)
    """Versions of the code that the trainings were made by."""
    trained_s: float = 0.0
    """Seconds of all steps of all trainings."""
    here_s: float = 0.0
    """Seconds that this process spent on them."""
    fits: list[Recalibration] = field(default_factory=list)
    """What the validation split says of how scores are to be read, by seed; none where nothing asks for it."""


def measure(setting: Setting, runtime: Runtime, stop: StopFlag) -> Measured:
    """Trains what is not trained yet, and looks at the test split once.

    Raises:
        Stopped: a stop was asked for; what is done is kept.
    """
    if setting.finetunes:
        return _by_training(setting, runtime, stop)
    return (_frozen if setting.task.learns else _zeroshot)(setting, runtime, stop)


def tested(setting: Setting) -> np.ndarray:
    return setting.splits[setting.task.data.test]


def _frozen(setting: Setting, runtime: Runtime, stop: StopFlag) -> Measured:
    about = Frozen(
        setting.task,
        setting.source,
        setting.data,
        setting.targets,
        setting.fields,
        setting.splits,
        primary=setting.metrics[0],
        cache=setting.out.parent / ".features",
    )
    found = frozen_predictions(about, runtime, stop)
    return Measured(found.predictions, found.chosen, {}, [], found.train, found.pooled_ND, fits=found.fits)


def _zeroshot(setting: Setting, runtime: Runtime, stop: StopFlag) -> Measured:
    words = setting.prompts or setting.reports
    assert words is not None
    test = setting.splits[setting.task.data.test]
    about = Joint(setting.task, setting.source, setting.data, setting.targets, setting.fields, test, words)
    found = joint_predictions(about, runtime, stop)
    return Measured(found.predictions, found.chosen, {}, [], 0, found.pooled_ND)


def _by_training(setting: Setting, runtime: Runtime, stop: StopFlag) -> Measured:
    task, done = setting.task, Measured([], [], {c: [] for c in setting.task.controls}, [], 0)
    for seed in task.protocol.seeds:
        training, targets = training_of(setting, seed)
        done.train = training.data.samples
        began = time.monotonic()
        points = [
            training.run(setting.out / f"seed-{seed}" / f"lr-{lr:g}", seed, lr, runtime, stop)
            for lr in task.protocol.lr
        ]
        done.here_s += time.monotonic() - began
        done.code |= {c for p in points for c in p.code}
        done.trained_s += sum(p.seconds for p in points)
        best = _best(points, setting.metrics[0])
        done.chosen.append(
            {
                "seed": seed, "lr": best.lr, "val": best.val, "epoch": best.epoch, "step": best.step, "val_loss": best.val_loss,
                "look": best.look,
                "looks": best.looks, "flat": best.flat,
                "grid": [{"lr": p.lr, "val": p.val, "epoch": p.epoch, "val_loss": p.val_loss} for p in points],
            }
        )  # fmt: skip
        _test(setting, training, targets, best, runtime, done)
        from_main(partial(_drop_losers, setting.out / f"seed-{seed}", points, best))
    return done


def _best(points: Sequence[Trial], metric: str) -> Trial:
    """The best on validation; of equal ones the one with the smaller loss, of equal losses the first of the grid."""
    at = chosen([Chance(p.val, p.val_loss) for p in points], "max" if METRICS[metric].higher_is_better else "min")
    assert at is not None, "a point has a value"
    return points[at]


def _drop_losers(folder: Path, points: Sequence[Trial], best: Trial) -> None:
    """Weights of learning rates that were not chosen; their metrics stay."""
    for p in points:
        if p is not best:
            (folder / f"lr-{p.lr:g}" / "stages" / f"{STAGE}.safetensors").unlink(missing_ok=True)


def training_of(setting: Setting, seed: int) -> tuple[Training, Targets]:
    task, data = setting.task, setting.data
    train = labelled(task, data, setting.targets, setting.splits[task.data.train], seed)
    targets = fitted(task, setting.targets, train)
    subset = part(data, train, f"{task.name}, {task.data.train}")
    if task.protocol.balance:
        subset = with_answers(subset, targets.value_NT[train, 0], targets.question.classes)
    samples = TaskSamples(
        data, setting.source.schema, [str(data.path)], None, False, task.data.train,
        train=subset, val_subset=part(data, setting.splits[task.data.val], task.data.val),
        balance=task.protocol.balance, look_batch=task.protocol.eval_batch,
    )  # fmt: skip
    build = builder(setting, targets, seed, train)
    # All that decides the result's hashes decides a training's: one that another version made is not taken for this one's.
    made_of = {k: v for k, v in setting.hashes().items() if k != "config"}
    about = {**setting.about(), **made_of, "train": hash_of(train.tolist())}
    for measured_later in ("controls", "groups", "site", "calibration"):
        about["task"].pop(measured_later, None)
    return Training(task, setting.source.method_name, samples, targets, build, about), targets


def _test(
    setting: Setting, training: Training, targets: Targets, best: Trial, runtime: Runtime, done: Measured
) -> None:
    """The one evaluation on the test split, with the best weights of the best learning rate."""
    task, data = setting.task, setting.data
    method = trained(setting, training, best.seed, best.lr, runtime)
    if recalibrates(task):
        validation = part(data, setting.splits[task.data.val], task.data.val)
        reads = EvalCases(data, validation, task.protocol.eval_batch, task.data.workers)
        done.fits.append(recalibrated(evaluated(reads, method, targets, runtime).predictions))
    subset = part(data, setting.splits[task.data.test], task.data.test)
    targets = targets_of_split(task, targets, subset.indices, task.data.test)

    def evaluate(genes: Callable[[int], int | None] | None = None, examples: bool = False) -> EvalOutput:
        reads = EvalCases(data, subset, task.protocol.eval_batch, task.data.workers, genes)
        return evaluated(reads, method, targets, runtime, examples)

    first = not done.predictions
    found = evaluate(examples=first)
    done.predictions.append(found.predictions)
    if first:
        done.examples, done.pooled_ND = found.examples, found.pooled_ND
    for control in task.controls:
        genes = (lambda i: None) if control == "missing" else _strangers(data, subset.indices, best.seed)
        done.controls[control].append(evaluate(genes).predictions)
    barrier()


def trained(setting: Setting, training: Training, seed: int, lr: float, runtime: Runtime) -> Downstream:
    """The method with the weights that validation chose of a training."""
    weights = setting.out / f"seed-{seed}" / f"lr-{lr:g}" / "stages" / f"{STAGE}.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights}: no such file, and the training is done; bring it back, or give another out=FOLDER")
    method = training.build()
    method.load_state_dict(load_file(weights), strict=True)
    return method.to(runtime.device)


def _strangers(data: Dataset, indices: np.ndarray, seed: int) -> Callable[[int], int]:
    """Each sample -> a sample of another patient, all samples of a patient the same one."""
    names_P, of_N = np.unique(data.patients_of(indices), return_inverse=True)
    if len(names_P) < 2:
        raise UserError("controls: shuffled needs two test patients or more")
    order_P = np.random.default_rng([seed, 90_210]).permutation(len(names_P))
    # Each patient gets the genes of the next on a random circle: nobody gets their own.
    next_P = np.empty_like(order_P)
    next_P[order_P] = np.roll(order_P, -1)
    first_P = np.array([int(indices[np.flatnonzero(of_N == p)[0]]) for p in range(len(names_P))])
    given = {int(i): int(first_P[next_P[p]]) for i, p in zip(indices, of_N, strict=True)}
    return lambda i: given[int(i)]
