"""Everything that can be known of a setting before training, asked in one place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.contract import Method
from models.finetuned import image_side, side_of
from models.registry import get_method
from shards.read.dataset import Dataset
from trainer.data import check_images, demo_folder, schema_of, shard_cache
from trainer.downstream.init import Init, check_fields
from trainer.downstream.joint.prompts import ReadPrompts, read_prompts
from trainer.downstream.joint.retrieval import Reports, read_reports
from trainer.downstream.joint.run import check_joint, check_reports
from trainer.downstream.maps.slides import check_maps
from trainer.downstream.setting.checks import check_learns, check_own_decoder, check_own_head, check_trainable
from trainer.downstream.setting.setting import Setting
from trainer.downstream.setting.splits import splits_of
from trainer.downstream.targets.read import Targets, read_targets, with_horizons
from trainer.downstream.targets.values import check_groups, check_site
from trainer.downstream.task.baselines import check_baseline
from trainer.downstream.task.by_encoder import FROZEN
from trainer.downstream.task.leak import check_task
from trainer.downstream.task.masks import check_masks
from trainer.downstream.task.schema import Task
from trainer.downstream.trial import metric_names
from trainer.engine.giants import refuse_giants
from trainer.errors import UserError
from trainer.runtime import check_precision


def open_task_data(task: Task) -> Dataset:
    """The task's data set, or the demo cohort."""
    if task.data.path is not None:
        return Dataset.open(task.data.path, cache=shard_cache([task.data.path], task.data.cache, task.data.cache_gb))
    from shards.demo import ensure

    return Dataset.open(ensure(demo_folder()))


def prepare(task: Task, source: Init, data: Dataset, out: Path, world: int, planned: bool = False) -> Setting:
    """Checks everything that can be known before training, and refuses all of it at once where possible.

    `planned`: nothing is started now, and this machine's devices need not do (`check_device`).

    Raises:
        UserError: modalities that the method or the data lack, labels with unknown values, one-class splits, a leak.
    """
    check_device(task, planned)
    probe, new = _encoder(task, source)
    side, left_out = _image_side(task, source, probe)
    fields = _fields(task, probe, side)
    check_images([data], fields)
    not_compared = check_fields(source, fields, schema_of(data))
    metrics = metric_names(task)
    targets = read_targets(task, data, fields if probe.needs else side)
    targets = replace(targets, notes=(*targets.notes, *not_compared, *source.left_out, *left_out))
    targets, prompts, reports = _words(task, data, targets, probe)
    check_groups(task, data)
    check_site(task, data)
    splits = splits_of(task, data, targets)
    if task.learns:
        targets = with_horizons(task, targets, splits[task.data.train])
    if task.kind == "segmentation":
        check_masks(task, data, splits)
    if task.output.attention or task.output.gradients:
        check_maps(task, probe, targets.question, data, splits[task.data.test])
    leak = check_task(task, data, splits, source.run if source.pretrained else None, source.kind == "file")
    setting = Setting(task, source, out, data, targets, fields, splits, leak, metrics, world, new, prompts, reports)
    if task.learns:
        check_trainable(setting, probe)
    return setting


def check_device(task: Task, planned: bool) -> list[str]:
    """`check_precision` where an encoder is trained."""
    return [] if task.mode in FROZEN else check_precision(task.precision, planned)


def _encoder(task: Task, source: Init) -> tuple[Method, tuple[str, ...]]:
    """The encoder as a training would begin with it, and its weights that no file holds; data are not looked at yet."""
    cls = get_method(source.method_name)
    check_baseline(task, source.method_name, source.options)
    check_learns(task, cls, source.method_name)
    refuse_giants(cls, cls.Options.parse(source.options), source.schema)
    return source.build_and_name(0)


def _image_side(task: Task, source: Init, probe: Method) -> tuple[tuple[str, ...], list[str]]:
    """Fields of the image side, and what of the task's output the encoder leaves out, as lines."""
    side = image_side(probe)
    if not side:
        raise UserError(f"{source.method_name} reads {', '.join(probe.inputs)}: it has no image side")
    if not task.learns:
        check_joint(source, probe)
    if task.kind == "segmentation":
        side_of(probe)
        return side, check_own_decoder(task, probe)
    check_own_head(task, probe)
    return side, []


def _words(
    task: Task, data: Dataset, targets: Targets, probe: Method
) -> tuple[Targets, ReadPrompts | None, Reports | None]:
    """The prompts or the reports of a task that learns from no label, and its targets with what is to be said of these."""
    if task.kind == "retrieval":
        check_reports(data)
        reports, targets = read_reports(data, task.data.test, targets, probe)
        return targets, None, reports
    if task.learns:
        return targets, None, None
    prompts = read_prompts(task, targets.question, probe)
    return replace(targets, notes=(*targets.notes, *prompts.notes)), prompts, None


def _fields(task: Task, probe: Method, side: tuple[str, ...]) -> tuple[str, ...]:
    """What the encoder may read.

    Raises:
        UserError: the task wants less than the method needs, or more than it has.
    """
    # A fused system has no answer from a part of what it needs: it reads all, unless a task insists on less.
    if probe.needs and task.inputs == "image" and "inputs" in task.model_fields_set:
        raise UserError(
            f"inputs: image: {probe.name} needs {' and '.join(probe.needs)} together; set inputs=multimodal, or leave it out"
        )
    fields = probe.inputs if probe.needs or task.inputs == "multimodal" else side
    if task.inputs == "multimodal" and fields == side:
        raise UserError(
            f"{probe.name} encodes {', '.join(side)} alone: inputs: multimodal needs a method with more; use inputs=image"
        )
    return fields
