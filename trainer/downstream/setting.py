"""A task and an encoder, opened and checked against each other before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.contract import Method
from models.decoders.build import decoder_of, make_decoder
from models.finetuned import image_side, side_of
from models.layers.batch_norm import holds_batch_norm
from models.registry import baseline_names, get_method
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from trainer.data import check_images, demo_folder, schema_of, shard_cache
from trainer.downstream.code import code_hash
from trainer.downstream.init import Init, check_fields
from trainer.downstream.joint.prompts import ReadPrompts, read_prompts
from trainer.downstream.joint.retrieval import Reports, read_reports
from trainer.downstream.joint.run import check_joint, check_reports
from trainer.downstream.maps.slides import check_maps
from trainer.downstream.results import hash_of
from trainer.downstream.samples import COX, NORMS, Realigned, check_batch
from trainer.downstream.targets import said
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import Targets, check_split, fitted, read_targets, targets_of_split, with_horizons
from trainer.downstream.targets.values import check_groups, check_site, words_of
from trainer.downstream.task.baselines import check_baseline
from trainer.downstream.task.by_encoder import FROZEN, KINDS
from trainer.downstream.task.leak import LeakReport, check_task
from trainer.downstream.task.masks import check_masks
from trainer.downstream.task.schema import Task
from trainer.downstream.task.sections import Encoder
from trainer.downstream.trial import batch_size, check_thaw, engine_config, length, metric_names
from trainer.engine.giants import refuse_giants
from trainer.errors import UserError
from trainer.runtime import check_precision

# What says how, not what: it may change without making another result.
FREE = ("out", "checkpoint", "health", "log", "resume", "leak", "reference", "activation_checkpointing", "tests")


@dataclass
class Setting:
    """A task and an encoder, checked against each other; nothing is trained yet.

    splits   {split: the samples that take part}; of mode zeroshot, which neither learns nor chooses, the test split alone
    new      weights of the encoder that no file holds
    prompts  mode zeroshot: what is said of an image of each class
    reports  retrieval: the reports to choose among
    """

    task: Task
    source: Init
    out: Path
    data: Dataset
    targets: Targets
    fields: tuple[str, ...]
    splits: dict[str, np.ndarray]
    leak: LeakReport
    metrics: list[str]
    world: int
    new: tuple[str, ...] = ()
    prompts: ReadPrompts | None = None
    reports: Reports | None = None
    view: Callable[[ShardRecord], Realigned] | None = None
    """How a record of data of another origin is read: with the features that the encoder was trained on, in their order."""

    def close(self) -> None:
        self.data.close()

    @property
    def first_line(self) -> str:
        """What a reader must see first."""
        own = (
            "STANDARDISED ON EACH SPLIT: test targets are scaled and filled by the test cases' own numbers (standardise=each_split): "
            "to be set beside ContIG's alone"
        )
        return "; ".join([*[own] * (self.task.standardise == "each_split"), *filter(None, [self.leak.first_line])])

    @property
    def meaning(self) -> list[str]:
        """Which words of the labels mean what, and how many there are in each split."""
        return said.lines(self.task, self.targets, self.splits)

    @property
    def finetunes(self) -> bool:
        return self.task.mode in ("finetune", "scratch")

    @property
    def decoder(self) -> str | None:
        """What draws the masks, by name, a system's own as the system is called; None where nothing is drawn."""
        if self.task.kind != "segmentation":
            return None
        return decoder_of(get_method(self.source.method_name), self.task.output.decoder)

    def steps(self, seed: int) -> int:
        """Length of a training of this seed, whose share of the labels may have more samples than another's."""
        samples = len(labelled(self.task, self.data, self.targets, self.splits[self.task.data.train], seed))
        return length(self.task, samples, batch_size(self.task, samples, self.world))

    def hashes(self) -> dict[str, Any]:
        return {
            "config": hash_of(self.about()),
            "data": self.data.fingerprint,
            "checkpoint": self.source.sha256(),
            "code": code_hash(self.source.method_name),
        }

    def init(self) -> dict[str, Any]:
        """Where the encoder's weights come from, and which come from nowhere."""
        return self.source.describe() | ({"new": list(self.new)} if self.new else {})

    def groups(self) -> dict[str, dict[str, str]]:
        """Of each label of `groups` what the test cases have, by their keys; "" where it is not known."""
        return {n: self.words_of_test(n) for n in self.task.groups}

    def words_of_test(self, label: str) -> dict[str, str]:
        """What the test cases have of a label, by their keys; "" where it is not known."""
        test = self.splits[self.task.data.test]
        return dict(zip(self.data.keys_of(test), words_of(self.data, label)[test].tolist(), strict=True))

    def in_one_split(self, least: int) -> dict[str, str]:
        """Sites of so many patients or more that lie in one split alone, and in which."""
        if self.task.site is None or self.task.hold_out is not None:
            return {}
        word_N = words_of(self.data, self.task.site)
        found: dict[str, list[str]] = {}
        for split, at in self.splits.items():
            for word in sorted(set(word_N[at].tolist()) - {""}):
                if len(set(self.data.patients_of(at[word_N[at] == word]))) >= least:
                    found.setdefault(word, []).append(split)
        there = {w: [s for s, at in self.splits.items() if w in word_N[at]] for w in found}
        return {w: splits[0] for w, splits in there.items() if len(splits) == 1 and len(self.splits) > 1}

    def about(self) -> dict[str, Any]:
        """All that decides the result but data and weights, which have hashes of their own."""
        task = self.task.model_dump(mode="json", exclude=set(FREE))
        task["data"] = {k: task["data"][k] for k in ("train", "val", "test")}
        for key in ("image_size", *KINDS):
            del task[key]  # what came of them for this encoder stands in the sections that they speak of
        task["method"], task["encoder"] = dict(self.source.changes), self.source.parts.model_dump(mode="json")
        if self.prompts:
            task["prompts"] = self.prompts.prompts.plain()
        else:
            del task["prompts"]  # a task of other modes is what it was before there was such a key
        for shown in ("attention", "gradients"):
            del task["output"][shown]  # what is shown of a result decides none of it
        for key in ("groups", "site", "hold_out"):
            if not task[key]:
                del task[key]  # a task without it is what it was before there was such a key
        if self.task.calibration == "none":
            del task["calibration"]  # the same
        if self.task.matmul == "torch":
            del task["matmul"]  # the same
        if self.task.compile == "off":
            del task["compile"]  # the same
        if self.source.parts == Encoder():
            del task["encoder"]  # a task without it is what it was before there was such a section
        # Of a task that draws nothing what stood there before there was `auto`, so that its results stay its own.
        task["output"]["decoder"] = self.decoder or decoder_of(Method, self.task.output.decoder)
        if self.task.output.survival == "cox":
            for key in ("survival", "intervals", "alpha"):
                del task["output"][key]  # a task without them is what it was before there were such keys
        elif self.task.output.survival != "intervals":
            for key in ("intervals", "alpha"):
                del task["output"][key]
        if task["kind"] == "segmentation" and len(self.task.masks) > 1:
            task["structures"] = [m.name for m in self.task.masks]  # a mapping's order is a channel's number
        return {
            "task": task,
            "method": self.source.method_name,
            "options": self.source.hashed_options(),
            "inputs": list(self.fields),
        }


def open_task_data(task: Task) -> Dataset:
    """The task's data set, or the demo cohort."""
    if task.data.path is not None:
        return Dataset.open(task.data.path, cache=shard_cache([task.data.path], task.data.cache, task.data.cache_gb))
    from shards.demo import ensure

    return Dataset.open(ensure(demo_folder()))


def _check_own_head(task: Task, encoder: Method) -> None:
    """Refuses sizes for a head that is the method's own."""
    own = task.output.head == "auto" and type(encoder).task_head is not Method.task_head
    if own and (given := sorted(task.output.model_fields_set & {"norm", "hidden", "dropout"})):
        raise UserError(
            f"output.{', output.'.join(given)}: {encoder.name} has a head of its own, which takes none of them; "
            "give output.head=linear, mlp or bag, or leave them out"
        )


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


def _splits(task: Task, data: Dataset, targets: Targets) -> dict[str, np.ndarray]:
    """{split: samples with a target}.

    Raises:
        UserError: two splits that are one, or one without what the task needs.
    """
    splits, problems = {}, []
    for which in (*((task.data.train, task.data.val) if task.learns else ()), task.data.test):
        at = data.subset(which).indices
        at = at[targets.used_N[at]]
        splits[which] = at if task.hold_out is None else _held_out(task, data, at, which)
        problems += check_split(task, targets, splits[which], which)
    if task.learns and len(splits) < 3:
        problems.append(f"data.train, data.val, data.test: {', '.join(splits)}: three different splits are needed")
    if problems:
        raise UserError(problems)
    for which in (task.data.val, task.data.test) if task.learns else ():
        targets_of_split(task, targets, splits[which], which)
    return splits


def _held_out(task: Task, data: Dataset, at: np.ndarray, which: str) -> np.ndarray:
    """Of the test split the cases of the site that is held out, of the others all other cases."""
    assert task.site is not None
    there_N = words_of(data, task.site)[at] == task.hold_out
    return at[there_N if which == task.data.test else ~there_N]


def _check_own_decoder(task: Task, encoder: Method) -> list[str]:
    """What of `output` is left out for a decoder that is the method's own, as lines.

    Raises:
        UserError: keys of another decoder.
    """
    o = task.output
    if not encoder.draws_masks:
        return []
    decoder_of(type(encoder), o.decoder)
    if o.auxiliary:
        raise UserError(
            f"output.auxiliary: the decoder of {encoder.name} is its own and has none; set output.auxiliary=0"
        )
    # A task's file gives a width for all systems that are compared on it.
    given = "width" in o.model_fields_set
    return [f"output.width: left out, {encoder.name} draws masks with a decoder of its own"] * given


def prepare(task: Task, source: Init, data: Dataset, out: Path, world: int) -> Setting:
    """Checks everything that can be known before training, and refuses all of it at once where possible.

    Raises:
        UserError: modalities that the method or the data lack, labels with unknown values, one-class splits, a leak.
    """
    cls = get_method(source.method_name)
    check_baseline(task, source.method_name, source.options)
    if (
        not cls.outline
        and source.method_name not in baseline_names()
        and (task.mode in FROZEN or task.protocol.freeze == "encoder")
    ):
        asked = f"mode: {task.mode}" if task.mode in FROZEN else "protocol.freeze=encoder"
        raise UserError(
            f"{asked}: {source.method_name} learns from a task's labels alone, its frozen encoder would be a random one; "
            "use mode=finetune without protocol.freeze"
        )
    if task.mode not in FROZEN:
        check_precision(task.precision)
    refuse_giants(cls, cls.Options.parse(source.options), source.schema)
    probe, new = source.build_and_name(0)
    side = image_side(probe)
    if not side:
        raise UserError(f"{source.method_name} reads {', '.join(probe.inputs)}: it has no image side")
    if not task.learns:
        check_joint(source, probe)
    without = list[str]()
    if task.kind == "segmentation":
        side_of(probe)
        without = _check_own_decoder(task, probe)
    else:
        _check_own_head(task, probe)
    fields = _fields(task, probe, side)
    check_images([data], fields)
    not_compared = check_fields(source, fields, schema_of(data))
    metrics = metric_names(task)
    targets = read_targets(task, data, fields if probe.needs else side)
    targets = replace(targets, notes=(*targets.notes, *not_compared, *source.left_out, *without))
    prompts = reports = None
    if task.kind == "retrieval":
        check_reports(data)
        reports, targets = read_reports(data, task.data.test, targets, probe)
    elif not task.learns:
        prompts = read_prompts(task, targets.question, probe)
        targets = replace(targets, notes=(*targets.notes, *prompts.notes))
    check_groups(task, data)
    check_site(task, data)
    splits = _splits(task, data, targets)
    if task.learns:
        targets = with_horizons(task, targets, splits[task.data.train])
    if task.kind == "segmentation":
        check_masks(task, data, splits)
    if task.output.attention or task.output.gradients:
        check_maps(task, probe, targets.question, data, splits[task.data.test])
    leak = check_task(task, data, splits, source.run if source.pretrained else None, source.kind == "file")
    setting = Setting(task, source, out, data, targets, fields, splits, leak, metrics, world, new, prompts, reports)
    if task.learns:
        _check_trainable(setting, probe)
    return setting


def _check_trainable(setting: Setting, probe: Method) -> None:
    task, train = setting.task, setting.splits[setting.task.data.train]
    cox = task.kind == "survival" and task.output.survival == "cox"
    compares = COX if cox else NORMS if _norms(task, probe) else None
    for seed in task.protocol.seeds:
        chosen = labelled(task, setting.data, setting.targets, train, seed)
        if wrong := check_split(task, setting.targets, chosen, task.data.train):
            raise UserError(wrong)
        fitted(task, setting.targets, chosen)
        if setting.finetunes:
            batch = batch_size(task, len(chosen), setting.world)
            config = engine_config(
                task,
                setting.source.method_name,
                setting.out,
                seed,
                task.protocol.lr[0],
                batch,
                1,
                str(setting.data.path),
            )
            check_batch(config, compares, setting.world)
            check_thaw(task, len(chosen) // batch, length(task, len(chosen), batch))
    if task.protocol.freeze == "genes" and not probe.parts("genes"):
        raise UserError(
            f"protocol.freeze=genes: the encoder of {setting.source.method_name} has no gene side; use none or encoder"
        )


def _norms(task: Task, probe: Method) -> bool:
    """Whether batch norms are trained, in the encoder or in what draws its masks; nothing is written yet.

    Raises:
        MethodError: no decoder of the task's can be made for this encoder.
    """
    encoder = task.protocol.freeze != "encoder" and holds_batch_norm(probe)
    if task.kind != "segmentation":
        return encoder
    o = task.output
    decoder = make_decoder(
        probe, o.decoder, width=o.width, queries=o.queries, mask_token=o.mask_token, gene_dim=8, outputs=len(task.masks)
    )
    return encoder or holds_batch_norm(decoder)
