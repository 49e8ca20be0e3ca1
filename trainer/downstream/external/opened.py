"""A trained run and a data set of another origin, checked against each other before anything is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from models.contract import Method
from models.finetuned import Downstream, image_side
from shards.read.dataset import Dataset
from trainer.data import check_images, schema_of, shard_cache
from trainer.downstream.build import assemble
from trainer.downstream.external.aligned import Aligned, aligned
from trainer.downstream.external.reading import answers_of, external_task
from trainer.downstream.external.trained import Trained
from trainer.downstream.init import check_fields
from trainer.downstream.maps.slides import check_maps
from trainer.downstream.setting import Setting
from trainer.downstream.targets.read import Targets, check_split, targets_of_split, unasked
from trainer.downstream.task.leak import LeakReport, check_external
from trainer.downstream.task.masks import check_masks
from trainer.downstream.task.schema import Task
from trainer.downstream.trial import metric_names
from trainer.errors import UserError
from trainer.runtime import Runtime
from trainer.state.finished import Finished, open_run

WHOLE = "all"
"""What a set is called of which every sample is looked at."""


@dataclass
class External:
    """A data set for a trained run. `setting` is that of the look: its data, targets and one split, `split`.

    evaluate  whether its labels are read
    leaks     what it shares with what the run learned from, as problems
    """

    trained: Trained
    setting: Setting
    split: str
    evaluate: bool
    leaks: list[str]
    notes: tuple[str, ...]

    @property
    def indices(self) -> np.ndarray:
        return self.setting.splits[self.split]

    def close(self) -> None:
        self.setting.close()

    def targets(self, seed: int) -> Targets:
        """With what the training samples of a seed gave: mean and deviation of numbers, edges of intervals, horizons."""
        known = self.trained
        targets = replace(self.setting.targets, question=known.questions[seed], horizons=known.horizons)
        return targets_of_split(self.setting.task, targets, self.indices, self.split) if self.evaluate else targets

    def method(self, seed: int, runtime: Runtime) -> Downstream:
        """The method with the weights that validation chose."""
        method = assemble(self.setting, self.targets(seed), seed, int(self.indices[0]), ())
        if not self.evaluate:
            method.fit = replace(method.fit, mask_absent=True)
        method.load_state_dict(load_file(self.trained.weights[seed]), strict=True)
        return method.to(runtime.device)


def open_external(trained: Trained, given: Mapping[str, Any], out: Path, evaluate: bool, impute: bool) -> External:
    """Opens and checks a data set.

    Args:
        given: `data.path` and what else is said of it (`reading.external_task`).
        evaluate: read its labels, and refuse cases that the run learned from.
        impute: take the training mean of features that it lacks.

    Raises:
        UserError, DataError: what keeps the run from being used on it, all at once where possible.
    """
    question = next(iter(trained.questions.values()))
    task, split = external_task(trained.task, question, given)
    assert task.data.path is not None, "name_of has asked for it"
    data = Dataset.open(task.data.path, cache=shard_cache([task.data.path], task.data.cache, task.data.cache_gb))
    try:
        probe = trained.source.build(0)
        probe.inputs = trained.fields
        check_images([data], trained.fields)
        view, targets, notes = _read(trained, task, data, probe, evaluate, impute)
        name = split or WHOLE
        at = data.subset(split).indices
        at = at[targets.used_N[at]]
        setting = Setting(
            task, trained.source, out, data, replace(targets, notes=(*targets.notes, *notes)), trained.fields, {name: at},
            LeakReport(True, (), (), ""), metric_names(task), 1, view=view.view,
        )  # fmt: skip
        leak, leaks = check_external(trained, *_pretraining(trained), data, at)
        setting.leak = leak
        found = External(trained, setting, name, evaluate, leaks, tuple(setting.targets.notes))
        _check(found)
        if task.output.attention or task.output.gradients:
            check_maps(task, probe, question, data, at)
    except BaseException:
        data.close()
        raise
    return found


def _read(
    trained: Trained, task: Task, data: Dataset, probe: Method, evaluate: bool, impute: bool
) -> tuple[Aligned, Targets, list[str]]:
    """How a record is read so that it has the run's features, what its samples are asked for, and what to tell of both.

    Raises:
        UserError: what is wrong with fields and with labels, together.
    """
    question = next(iter(trained.questions.values()))
    problems, view, notes = list[str](), Aligned(schema_of(data)), list[str]()
    try:
        view = aligned(trained.source.schema, schema_of(data), trained.fields, impute)
        notes = [*view.notes, *check_fields(trained.source, trained.fields, view.schema)]
    except UserError as e:
        problems += e.problems
    needed = trained.fields if probe.needs else image_side(probe)
    there = tuple(n for n in needed if n in data.info.fields)
    targets = unasked(task, data, question, there)
    if evaluate:
        try:
            targets = answers_of(task, data, question, there)
        except UserError as e:
            problems += e.problems
    if problems:
        raise UserError(problems)
    return view, targets, notes


def _check(found: External) -> None:
    """Refuses a split without cases or answers, and leaks where a number would be made of them."""
    setting, name, at = found.setting, found.split, found.indices
    task = setting.task
    if not len(at):
        why = "; ".join(f"{n} samples: {why}" for why, n in setting.targets.left_out.items()) or "it is empty"
        more = (
            "; say which label holds the answers (label=NAME), or leave --evaluate out"
            if found.evaluate and task.labels
            else ""
        )
        raise UserError(f"{setting.data.path}, {name}: no sample that {task.name} can be asked of: {why}{more}")
    if not found.evaluate:
        return
    problems = [p.partition("; split again")[0] for p in check_split(task, setting.targets, at, name)]
    if problems:
        problems.append(f"{setting.data.path}: take more cases, or leave --evaluate out: predictions need no labels")
    if found.leaks and not task.leak.accept:
        problems += found.leaks
    if problems:
        raise UserError(problems)
    if task.kind == "segmentation":
        check_masks(task, setting.data, {name: at})
    targets_of_split(task, setting.targets, at, name)


def _pretraining(trained: Trained) -> tuple[Finished | None, str]:
    """The run that the fine-tune began from, as far as it is there; and why nothing is known of it."""
    kind, path = trained.init["kind"], trained.init.get("path")
    if kind == "file":
        return None, "the patients behind a weights file are not known"
    if kind != "pretrained":
        return None, ""
    if not path or not Path(path).is_dir():
        return None, f"{path}, which it was pre-trained in, is not there"
    run = open_run(Path(path))
    if run.sha256() != trained.init["sha256"]:
        return None, f"{path} holds another run than it was pre-trained in"
    return run, ""
