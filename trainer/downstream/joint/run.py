"""The mode zeroshot: what a joint space says of the test cases, without any label and any training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.contract import Method
from models.contract.joint import FittedSpace, JointSpace
from models.registry import joint_names
from shards.read.dataset import Dataset
from trainer.downstream.init import Init
from trainer.downstream.joint.fitted import fitted_space
from trainer.downstream.joint.prompts import ReadPrompts
from trainer.downstream.joint.retrieval import Reports, retrieval_predictions
from trainer.downstream.joint.zeroshot import zeroshot_scores
from trainer.downstream.predict import as_predictions
from trainer.downstream.probes.run import Probed, stop_if_asked
from trainer.downstream.samples import part
from trainer.downstream.targets.read import Targets
from trainer.downstream.task.schema import Task
from trainer.downstream.task.texts import FIELD
from trainer.errors import UserError
from trainer.runtime import Runtime, StopFlag


def check_joint(source: Init, encoder: Method) -> None:
    """Refuses a method, or a model of one, whose images and texts were never compared.

    Raises:
        UserError: with the methods that do.
    """
    name = source.method_name
    if not isinstance(encoder, JointSpace):
        has = ", ".join(joint_names())
        raise UserError(
            f"mode: zeroshot compares images with texts, and {name} has no space of both (these have one: {has}); give a run of one of "
            "them, or use --mode linear"
        )
    if why := encoder.joint_problem():
        raise UserError(f"mode: zeroshot compares images with texts, which this {name} cannot: {why}")
    if source.kind == "file":
        raise UserError(
            f"mode: zeroshot and the weights of {source.file}, an image encoder alone; give the folder of a run of {name} instead"
        )


def check_reports(data: Dataset) -> None:
    """Raises UserError: a data set without reports."""
    if FIELD not in data.info.fields:
        has = ", ".join(sorted(data.info.fields))
        raise UserError(
            f"{data.path} has no field '{FIELD}' (it has: {has}): pack images with their reports, or take another data set"
        )


@dataclass(frozen=True)
class Joint:
    """What is said without training: a task, and an encoder with a joint space.

    test     the samples that take part
    words    what is said of an image of each class, or the reports to choose among
    """

    task: Task
    source: Init
    data: Dataset
    targets: Targets
    fields: tuple[str, ...]
    test: np.ndarray
    words: ReadPrompts | Reports


def joint_predictions(about: Joint, runtime: Runtime, stop: StopFlag) -> Probed:
    """What is said of each test case; once, or from random weights once a seed.

    Raises:
        Stopped: a stop was asked for.
    """
    out, task, data = Probed([], [], 0), about.task, about.data
    subset = part(data, about.test, task.data.test)
    seeds = task.protocol.seeds
    if about.source.pretrained and len(seeds) > 1:
        runtime.say(f"zero-shot: nothing is drawn or trained, so the first of seeds {list(seeds)} stands for all")
        seeds = seeds[:1]
    for seed in seeds:
        stop_if_asked(stop, runtime)
        method = about.source.build(seed)
        method.inputs = about.fields
        method.to(runtime.device)
        if isinstance(method, FittedSpace):
            runtime.say(fitted_space(method, task, data, runtime))
        if isinstance(about.words, Reports):
            found, image_NC = retrieval_predictions(task, method, data, subset, about.words, runtime)
        else:
            score, image_NC = zeroshot_scores(task, method, data, subset, about.words, runtime)
            found = as_predictions(about.targets, data, subset.indices, score)
        out.predictions.append(found)
        out.chosen.append({"seed": seed})
        if out.pooled_ND is None:
            out.pooled_ND = image_NC
    return out
