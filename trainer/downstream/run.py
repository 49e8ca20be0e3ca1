"""A setting from task and encoder to result.json: seeds, learning rates, one look at the test split.

OUT/config.json            task, encoder, what they resolved to; there from the start
OUT/seed-S/lr-R/           a training (trial.py)
OUT/predictions/seed-S.npz what was said of every test case
OUT/features.npz           pooled vectors of test cases, of the first seed, to be drawn in two dimensions
OUT/result.json            written last
OUT/trained.json, ...      what launch/predict.py needs (external/trained.py)
OUT/attention/             output.attention: tables and pictures of what patches count, of the first seed (maps/write.py)
OUT/gradients/             output.gradients: of what places of a case add to its answer (maps/cases.py)
OUT/control-shuffled/      the same weights with another patient's genes; control-missing/: without
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from models.finetuned import STAGE, Downstream
from shards.check.near import Signatures
from shards.read.dataset import Dataset
from trainer.config.schema import by_todays_names
from trainer.downstream.build import builder
from trainer.downstream.code import tree_hash
from trainer.downstream.external.tests import look_at_tests
from trainer.downstream.external.trained import keep, kept
from trainer.downstream.joint.retrieval import about_candidates, told
from trainer.downstream.joint.run import Joint, joint_predictions
from trainer.downstream.maps.made import asks_for_maps, make_maps
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.recalibrated import Recalibration, recalibrated
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.predict import EvalOutput, Example, Look, look_at
from trainer.downstream.probes.run import Frozen, frozen_predictions
from trainer.downstream.results import hash_of, keep_features, reusable, summary, write_result
from trainer.downstream.samples import TaskSamples, part, with_answers
from trainer.downstream.setting import Setting
from trainer.downstream.sites.analysis import Asked, site_report
from trainer.downstream.sites.folds import FOLDS
from trainer.downstream.targets import said
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import Targets, fitted, targets_of_split
from trainer.downstream.task.near import looked_for, unlooked, within
from trainer.downstream.task.rules import recalibrates
from trainer.downstream.trial import Training, Trial
from trainer.engine.choice import Look as Chance
from trainer.engine.choice import chosen
from trainer.errors import UserError
from trainer.runtime import Runtime, StopFlag, agree_on_data, barrier, from_main
from trainer.state.finished import about as terms_of
from trainer.state.run_folder import RunFolder, versions

# ------------------------------------------------------------------------------------------------------------------- a run


def run_setting(setting: Setting, runtime: Runtime, stop: StopFlag) -> dict[str, Any]:
    """Trains what is not trained yet, tests once, writes and returns the result.

    Raises:
        Stopped: a stop was asked for; what is done is kept, the same command goes on.
    """
    folder = RunFolder(setting.out)
    try:
        before = from_main(lambda: _claim(folder, setting))
        agree_on_data(setting.data.fingerprint)
        hashes = from_main(setting.hashes)
        accept = setting.task.resume.accept_code
        found = from_main(lambda: reusable(setting.out, hashes, accept, before))
        if found is not None:
            same = found["hashes"]["code"] == hashes["code"]
            code = "and code" if same else f"but by code {found['hashes']['code']} (resume.accept_code=true)"
            runtime.say(f"{setting.out}: measured already, from the same data, weights, configuration {code}")
            _keep_maps(setting, runtime, found["chosen"])
            from_main(lambda: kept(setting, found["chosen"]))
            runtime.say(summary(found, setting.out))
            look_at_tests(setting, runtime)
            return found
        # A result that stands stays as it is, configuration included: its hash is of the names that options had then.
        from_main(lambda: folder.record(_resolved(setting), versions()))
        with folder.note_of_its_end():
            result = _measure(setting, runtime, stop, hashes)
        look_at_tests(setting, runtime)
        return result
    finally:
        folder.release()


def _resolved(setting: Setting) -> dict[str, Any]:
    return {
        "about": setting.about(),
        "init": setting.init(),
        "data": {"path": str(setting.data.path), "set": terms_of(setting.data)},
    }


def _claim(folder: RunFolder, setting: Setting) -> str | None:
    """Takes the folder; the hash that its configuration had under the names of before, if that is the same as this one."""
    resolved = _resolved(setting)
    folder.claim(setting.task.resume, resolved)
    stored = folder.stored()
    if stored is None or hash_of(by_todays_names(stored)["about"]) != hash_of(resolved["about"]):
        return None
    return hash_of(stored["about"])


def _measure(setting: Setting, runtime: Runtime, stop: StopFlag, hashes: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    task = setting.task
    near, looks = from_main(partial(_near, setting))
    for line in _first_lines(setting, near):
        runtime.say(line)
    measure = _by_training if setting.finetunes else _zeroshot if not task.learns else _frozen
    measured = measure(setting, runtime, stop)
    about = {
        "method": setting.source.method_name,
        "title": setting.source.title,
        "mode": "finetune" if setting.finetunes else task.mode,
        "init": setting.init(),
        "inputs": list(setting.fields),
        "decoder": setting.decoder,
        "leak": setting.leak.plain(),
        "first_line": setting.first_line,
        "meaning": setting.meaning,
        "standardise": task.standardise,
        "seeds": [c["seed"] for c in measured.chosen],
        "n": _counts(setting, measured.train),
        "chosen": measured.chosen,
        "hashes": hashes,
        "code_tree": tree_hash(),
        "code_accepted": sorted(measured.code - {hashes["code"]}),
        "left_out": dict(setting.targets.left_out),
        **({"prompts": setting.prompts.prompts.plain()} if setting.prompts else {}),
        **({"candidates": about_candidates(setting.reports, _tested(setting))} if setting.reports else {}),
        "answers": {"words": said.plain(setting.targets), "counts": said.counts(task, setting.targets, setting.splits)},
    }
    _keep_maps(setting, runtime, measured.chosen)
    result: dict[str, Any] = {}
    sites = from_main(lambda: _sites(setting, measured))
    # Trainings tell their own time, whichever processes spent it; the rest was spent in this one.
    wall_s = measured.trained_s + time.monotonic() - began - measured.here_s

    def write() -> dict[str, Any]:
        for control, predictions in measured.controls.items():
            content = {**about, "control": control, "wall_s": wall_s}
            write_result(
                setting.out / f"control-{control}", task, content, predictions, setting.metrics, groups=setting.groups(),
                fits=measured.fits,
            )  # fmt: skip
        content = {**about, **sites, "near": near, "control": None, "wall_s": wall_s}
        keep_features(setting.out, measured.predictions[0], measured.pooled_ND)
        keep(setting, measured.chosen, looks)
        return write_result(
            setting.out, task, content, measured.predictions, setting.metrics, measured.examples, setting.groups(), measured.fits
        )  # fmt: skip

    result = from_main(write)
    runtime.say(summary(result, setting.out))
    return result


def _first_lines(setting: Setting, near: Mapping[str, Any]) -> Iterator[str]:
    """Before anything is trained: what a reader must not overlook."""
    yield from filter(None, (setting.first_line, *setting.meaning))
    if setting.new:
        yield f"{len(setting.new)} tensors of the encoder are new, in no file: {', '.join(setting.new[:3])}, ..."
    for why, n in setting.targets.left_out.items():
        yield f"{n} samples take no part: {why}"
    yield from setting.targets.notes
    if setting.reports:
        yield from told(about_candidates(setting.reports, _tested(setting)))
    yield from filter(None, (setting.leak.texts.note,))
    yield from filter(None, (near["note"], *near["warnings"]))


def _near(setting: Setting) -> tuple[dict[str, Any], Signatures | None]:
    """What test cases look like, against those that are learned from; and what those look like, to be kept."""
    task, splits = setting.task, setting.splits
    learned = np.concatenate(
        [splits[s] for s in (task.data.train, task.data.val) if task.learns] or [_tested(setting)[:0]]
    )
    test = _tested(setting)
    found, why = looked_for(setting.data, np.concatenate([learned, test]), task.leak.near)
    if found is None:
        return unlooked(why), None
    return within(setting.data, found, learned, test), found.of(learned)


def _sites(setting: Setting, measured: Measured) -> dict[str, Any]:
    """What of result.json speaks of sites; nothing where the task names no label of them."""
    task = setting.task
    if task.site is None:
        return {}
    if task.hold_out is not None:
        return {"hold_out": task.hold_out}
    if measured.pooled_ND is None:
        return {}
    cases, b = measured.predictions[0], task.bootstrap
    site_of = setting.words_of_test(task.site)
    site_N = np.array([site_of[k] for k in cases.keys_N.tolist()], dtype=object)
    asked = Asked(measured.pooled_ND, cases, site_N, setting.metrics[0], b.draws, b.seed, b.level)
    return {"sites": site_report(task.site, asked, setting.in_one_split(FOLDS))}


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


def _counts(setting: Setting, train: int) -> dict[str, int]:
    test = setting.splits[setting.task.data.test]
    return {
        "train": train,
        "val": len(setting.splits[setting.task.data.val]) if setting.task.learns else 0,
        "test": len(test),
        "test_patients": len(set(setting.data.patients_of(test))),
    }


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


def _tested(setting: Setting) -> np.ndarray:
    return setting.splits[setting.task.data.test]


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
        training, targets = _training(setting, seed)
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


def _training(setting: Setting, seed: int) -> tuple[Training, Targets]:
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
    """The one look at the test split, with the best weights of the best learning rate."""
    task, data = setting.task, setting.data
    method = _trained(setting, training, best.seed, best.lr, runtime)
    if recalibrates(task):
        held_back = part(data, setting.splits[task.data.val], task.data.val)
        reads = Look(data, held_back, task.protocol.eval_batch, task.data.workers)
        done.fits.append(recalibrated(look_at(reads, method, targets, runtime).predictions))
    subset = part(data, setting.splits[task.data.test], task.data.test)
    targets = targets_of_split(task, targets, subset.indices, task.data.test)

    def look(genes: Callable[[int], int | None] | None = None, examples: bool = False) -> EvalOutput:
        reads = Look(data, subset, task.protocol.eval_batch, task.data.workers, genes)
        return look_at(reads, method, targets, runtime, examples)

    first = not done.predictions
    found = look(examples=first)
    done.predictions.append(found.predictions)
    if first:
        done.examples, done.pooled_ND = found.examples, found.pooled_ND
    for control in task.controls:
        genes = (lambda i: None) if control == "missing" else _strangers(data, subset.indices, best.seed)
        done.controls[control].append(look(genes).predictions)
    barrier()


def _trained(setting: Setting, training: Training, seed: int, lr: float, runtime: Runtime) -> Downstream:
    """The method with the weights that validation chose of a training."""
    weights = setting.out / f"seed-{seed}" / f"lr-{lr:g}" / "stages" / f"{STAGE}.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights}: no such file, and the training is done; bring it back, or give another out=FOLDER")
    method = training.build()
    method.load_state_dict(load_file(weights), strict=True)
    return method.to(runtime.device)


def _keep_maps(setting: Setting, runtime: Runtime, chosen: Sequence[dict[str, Any]]) -> None:
    """Maps of the first seed, also of a result that stands: they need its weights alone."""
    if not asks_for_maps(setting.task):
        return
    training, _ = _training(setting, chosen[0]["seed"])
    method = _trained(setting, training, chosen[0]["seed"], chosen[0]["lr"], runtime)
    made = make_maps(setting.task, method, setting.data, _tested(setting), runtime.device)
    from_main(lambda: made.write(setting.out))
    for line in made.told(setting.out, "test"):
        runtime.say(line)


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
