"""Encoder and head put together for a setting; what the task's loss cannot reach is frozen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from models.contract import Batch, Method, Record
from models.finetuned import Downstream, FinetuneSettings, unreached
from models.view import Augmentation, RecordView
from shards.errors import DataError, Problem
from shards.order.streams import sample_rng
from shards.read.record import ShardRecord
from trainer.build import HeadParts, head_of
from trainer.downstream.maps.deletion import Kept
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.samples import Realigned
from trainer.downstream.setting import Setting
from trainer.downstream.targets.read import Targets
from trainer.downstream.task.schema import Task


def builder(setting: Setting, targets: Targets, seed: int, train: np.ndarray) -> Callable[[], Downstream]:
    """Gives the method with its initial weights: equal on every rank, a function of the seed."""
    frozen: list[str] | None = None
    first = int(setting.splits[setting.task.data.train][0])

    def build() -> Downstream:
        nonlocal frozen
        if frozen is None:
            trial = assemble(setting, targets, seed, first, ())
            frozen = unreached(trial, _few(setting, trial, train))
        return assemble(setting, targets, seed, first, tuple(frozen))

    return build


def assemble(setting: Setting, targets: Targets, seed: int, first: int, unreached: tuple[str, ...]) -> Downstream:
    """The method with its initial weights; `first` is a sample whose encoding says how wide everything is."""
    task, o = setting.task, setting.task.output
    encoder = setting.source.build(seed)
    encoder.inputs = setting.fields
    fit = FinetuneSettings(
        fields=setting.fields,
        frozen=({"none": (), "encoder": ("",), "genes": encoder.parts("genes")}[task.protocol.freeze]) + unreached,
        frozen_start=task.protocol.freeze_epochs > 0,
        layer_decay=task.protocol.layer_decay,
        encoder_scale=task.protocol.encoder_lr_scale,
        change=Augmentation(**task.augment.model_dump()),
        pad=task.pad,
        masks=task.masks if task.kind == "segmentation" else (),
        mask_absent=task.mask_missing == "empty",
        soft_dice="dice_contig" in setting.metrics,
        mask_loss=o.mask_loss,
        mask_weights=o.mask_weights,
        auxiliary=o.auxiliary,
        ties=o.ties,
        metric=setting.metrics[0],
        higher_is_better=METRICS[setting.metrics[0]].higher_is_better,
    )
    head = head_of(encoder, targets.question, head_parts(task), *widths(setting, encoder, first))

    def answer(record: Record) -> np.ndarray:
        assert isinstance(record, ShardRecord | Realigned | Kept), "a task's samples come from its data set"
        return targets.of(record.index)

    return Downstream(encoder, head, targets.question, fit, answer)


def head_parts(task: Task) -> HeadParts:
    o = task.output
    return HeadParts(
        o.head, o.norm, o.hidden, o.dropout, o.decoder, o.width, o.queries, o.mask_token, auxiliary=o.auxiliary > 0
    )


def widths(setting: Setting, encoder: Method, index: int) -> tuple[int, int, int]:
    """Widths of the pooled vector, of tokens and of gene tokens, from one sample: no method need declare them."""
    encoder.enter("")
    encoder.eval()
    record = setting.data[index] if setting.view is None else setting.view(setting.data[index])
    sample = encoder.sample(RecordView(record, setting.fields), sample_rng(0, 0, index, 0))
    batch = encoder.collate([sample])
    with torch.no_grad():
        encoded = encoder.encode(batch)
        genes = encoded.tokens_of("genes")
    return encoded["pooled_BD"].shape[1], encoded["tokens_BLD"].shape[2], 256 if genes is None else genes[0].shape[2]


def _few(setting: Setting, method: Downstream, train: np.ndarray) -> Batch:
    """A small batch of training samples that can be read."""
    samples = []
    for index in train.tolist():
        try:
            samples.append(method.eval_sample(setting.data[index], sample_rng(0, 0, index, 0)))
        except DataError:
            continue  # the loader will name it when it comes to it
        if len(samples) == 2:
            return method.collate(samples)
    if samples:
        return method.collate(samples)
    raise DataError(
        Problem("no training sample can be read", str(setting.data.path), "run `python -m shards lint` on it")
    )
