"""What a mode cannot do, and what it has no use for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.downstream.task.by_encoder import FROZEN

if TYPE_CHECKING:
    from trainer.downstream.task.schema import Task


ZEROSHOT = ("binary", "multiclass", "multilabel", "ordinal", "retrieval")
"""Kinds whose answers can be said in words."""


def mode_problems(t: Task) -> Iterator[str]:
    yield from _tests(t)
    yield from _sites(t)
    yield from _calibration(t)
    if t.pad and t.mode in FROZEN:
        yield f"pad: mode {t.mode} looks at images as pre-training did; leave it out"
    if t.controls and t.inputs != "multimodal":
        yield "controls: there are no genes to shuffle or to miss; set inputs: multimodal"
    if t.mode == "zeroshot":
        yield from _zeroshot(t)
    yield from _kinds(t)


def _kinds(t: Task) -> Iterator[str]:
    """Kinds that a mode has no form for; those of zero-shot are told with its other keys."""
    if t.kind == "retrieval" and t.mode != "zeroshot":
        yield f"mode: {t.mode} has no retrieval form, it is measured without training; use --mode zeroshot"
    if t.mode in ("linear", "knn") and t.kind == "segmentation":
        yield f"mode: {t.mode} works on pooled vectors, not on pixels; use finetune with protocol.freeze=encoder"
    if t.mode == "knn" and t.kind in ("multilabel", "survival"):
        yield f"mode: knn has no {t.kind} form; use linear"


def _zeroshot(t: Task) -> Iterator[str]:
    """Keys of labels that are learned from, and kinds without words."""
    if t.kind not in ZEROSHOT:
        yield f"mode: zeroshot has no {t.kind} form, only {', '.join(ZEROSHOT)}; use --mode linear or --mode finetune"
    if t.kind == "retrieval" and t.prompts is not None:
        yield "prompts: a retrieval task has no classes, reports are its words; leave it out"
    if t.protocol.shots or t.protocol.fraction != 1.0:
        yield "protocol.fraction, protocol.shots: mode zeroshot learns from no label; leave them out"


def _tests(t: Task) -> Iterator[str]:
    """Other data sets of a probe, which has no weights of its own; names that are no folder's."""
    if t.tests and t.mode in FROZEN:
        yield (
            f"tests: mode {t.mode} keeps no weights to look at other data with; use mode=finetune (protocol.freeze=encoder trains the head "
            "alone), or leave it out"
        )
    if strange := [n for n in t.tests if not re.fullmatch(r"\w[\w.-]*", n)]:
        yield f"tests: {', '.join(map(repr, strange))}: a name has letters, digits, dots and dashes alone"


def _sites(t: Task) -> Iterator[str]:
    if t.hold_out is not None and t.site is None:
        yield "hold_out: of which label is it a value? Give site=LABEL too"
    if t.site is not None and t.site in t.labels:
        yield f"site: {t.site} is the answer that is asked for; give the label of the hospital, or leave it out"
    if t.hold_out is not None and not t.learns:
        yield "hold_out: mode zeroshot learns from no site; leave it out"


def _calibration(t: Task) -> Iterator[str]:
    """Temperatures of what is no probability, or without a validation split to fit them on."""
    if t.calibration == "none":
        return
    if t.kind not in ("binary", "multiclass", "multilabel", "ordinal"):
        yield f"calibration=temperature: a {t.kind} task says no probabilities of classes; leave it out"
    if t.mode == "zeroshot":
        yield "calibration=temperature: mode zeroshot looks at no validation split; leave it out"


def recalibrates(t: Task) -> bool:
    """Whether something is fitted on the validation split once the weights are chosen: a baseline of survival, or a temperature."""
    return t.learns and (t.kind == "survival" or t.calibration != "none")
