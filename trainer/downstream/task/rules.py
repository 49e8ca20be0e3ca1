"""What a task may not ask at once, in words for its author."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trainer.config.schema import address_problems
from trainer.config.shared import compile_problems, precision_problem, sharding_problem
from trainer.downstream.task.by_encoder import FROZEN, key_problems

if TYPE_CHECKING:
    from trainer.downstream.task.schema import Task


TWO_WAY = ("queries", "mask_token")
"""Keys of `output` that are the two-way decoder's alone."""


def problems_of(t: Task) -> Sequence[str]:
    out = address_problems([t.data.path] if t.data.path else [])
    if t.kind == "survival":
        out += [] if t.time and t.event else ["time, event: survival needs both labels"]
    elif t.kind not in ("segmentation", "retrieval") and t.label is None:
        out.append(f"label: a {t.kind} task needs one")
    if isinstance(t.label, tuple) and t.kind not in ("multilabel", "regression"):
        out.append(f"label: a {t.kind} task has one label, not {len(t.label)}")
    if t.kind == "multilabel" and isinstance(t.label, str):
        out.append("label: multilabel needs a list of labels")
    out += [*_meanings(t), *key_problems(t)]
    if t.standardise == "each_split" and t.kind != "regression":
        out.append(f"standardise=each_split: a {t.kind} task has no numbers to standardise; leave it out")
    if t.protocol.epochs and t.protocol.steps and "epochs" in t.protocol.model_fields_set:
        out.append("protocol.epochs, protocol.steps: give one of them, not both")
    if t.protocol.shots and t.protocol.fraction != 1.0:
        out.append("protocol.fraction, protocol.shots: give one of them, not both")
    if t.protocol.shots and t.kind not in ("binary", "multiclass", "ordinal"):
        out.append(f"protocol.shots: so many of each class; a {t.kind} task has no classes, use protocol.fraction")
    for name in ("seeds", "lr"):
        values = getattr(t.protocol, name)
        if not values or len(set(values)) != len(values):
            out.append(f"protocol.{name}: {list(values)}: give at least one, each once")
    if any(lr <= 0 for lr in t.protocol.lr):
        out.append(f"protocol.lr: {list(t.protocol.lr)}: learning rates are above 0")
    if (decays := t.protocol.weight_decays) is not None and (not decays or min(decays) < 0):
        out.append(f"protocol.weight_decays: {list(decays)}: give one or more, none below 0")
    elif decays and t.protocol.solver == "converged" and 0 in decays:
        out.append(
            "protocol.solver=converged, protocol.weight_decays: 0 has no optimum where a plane parts the classes; leave it out"
        )
    if t.protocol.weight_classes and t.mode != "linear":
        out.append(
            f"protocol.weight_classes: mode {t.mode} does not weigh classes; use protocol.balance, or leave it out"
        )
    out += [*_intervals(t), *_maps(t), *_freezing(t), *(_structures(t) if t.kind == "segmentation" else [])]
    if t.output.mask_weights and (min(t.output.mask_weights) < 0 or not any(t.output.mask_weights)):
        out.append(f"output.mask_weights: {list(t.output.mask_weights)}: two weights from 0 up, not both 0")
    out += [*_decoding(t), *_tests(t), *_sites(t), *_calibration(t)]
    if t.encoder != type(t.encoder)() and t.mode in FROZEN:
        out.append(f"encoder: mode {t.mode} looks at the encoder as pre-training left it; leave encoder.* out")
    elif (t.encoder.relative_positions or t.encoder.layer_scale) and t.protocol.freeze == "encoder":
        out.append(
            "encoder.relative_positions, encoder.layer_scale: protocol.freeze=encoder would never train them; leave them out"
        )
    if t.pad and t.mode in FROZEN:
        out.append(f"pad: mode {t.mode} looks at images as pre-training did; leave it out")
    if t.controls and t.inputs != "multimodal":
        out.append("controls: there are no genes to shuffle or to miss; set inputs: multimodal")
    out += _zeroshot(t) if t.mode == "zeroshot" else []
    if t.kind == "retrieval" and t.mode != "zeroshot":
        out.append(f"mode: {t.mode} has no retrieval form, it is measured without training; use --mode zeroshot")
    if t.mode in ("linear", "knn") and t.kind == "segmentation":
        out.append(f"mode: {t.mode} works on pooled vectors, not on pixels; use finetune with protocol.freeze=encoder")
    if t.mode == "knn" and t.kind in ("multilabel", "survival"):
        out.append(f"mode: knn has no {t.kind} form; use linear")
    return out + list(_engine(t))


def _engine(t: Task) -> Iterator[str]:
    """Settings of the engine that do not go together."""
    yield from sharding_problem(t.protocol.optimizer, t.zero.stage, t.precision, "protocol.optimizer")
    yield from compile_problems(t.compile, t.zero.stage, t.activation_checkpointing)
    yield from precision_problem(t.precision, t.zero.stage)


ZEROSHOT = ("binary", "multiclass", "multilabel", "ordinal", "retrieval")
"""Kinds whose answers can be said in words."""


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


def recalibrates(t: Task) -> bool:
    """Whether something is fitted on the validation split once the weights are chosen: a baseline of survival, or a temperature."""
    return t.learns and (t.kind == "survival" or t.calibration != "none")


def _calibration(t: Task) -> Iterator[str]:
    """Temperatures of what is no probability, or without a validation split to fit them on."""
    if t.calibration == "none":
        return
    if t.kind not in ("binary", "multiclass", "multilabel", "ordinal"):
        yield f"calibration=temperature: a {t.kind} task says no probabilities of classes; leave it out"
    if t.mode == "zeroshot":
        yield "calibration=temperature: mode zeroshot looks at no validation split; leave it out"


def _maps(t: Task) -> Sequence[str]:
    """Maps of patches, asked for where nothing weighs them, and contributions to an answer that no trained head gives."""
    if t.output.gradients and (t.kind in ("segmentation", "retrieval") or t.mode in FROZEN):
        what = f"mode {t.mode}" if t.mode in FROZEN else f"a {t.kind} task"
        return [f"output.gradients: {what} has no trained answer of a whole case; leave it out", *_weighs(t)]
    return _weighs(t)


def _weighs(t: Task) -> list[str]:
    if not t.output.attention:
        return []
    if t.kind == "segmentation" or t.mode in FROZEN:
        what = "a segmentation task" if t.kind == "segmentation" else f"mode {t.mode}"
        return [f"output.attention: {what} weighs no patches; leave it out"]
    if t.output.head == "bag":
        return [
            "output.attention, output.head=bag: that head weighs tokens, which are patches in some systems alone; use output.head=auto"
        ]
    return []


def _decoding(t: Task) -> Iterator[str]:
    """Keys of a decoder that is not the one asked for; `auto` is known with the method alone."""
    o, masks = t.output, t.kind == "segmentation"
    if o.auxiliary and not (masks and o.decoder in ("auto", "upernet", "setr_pup")):
        yield "output.auxiliary: only the upernet and setr_pup decoders of a segmentation task have one; set it to 0"
    given = [k for k in TWO_WAY if getattr(o, k) != type(o).model_fields[k].default]
    if given and not (masks and o.decoder == "two_way"):
        yield (
            f"output.{', output.'.join(given)}: only the two-way decoder of a segmentation task asks that; set output.decoder=two_way, or "
            f"leave {'it' if len(given) == 1 else 'them'} out"
        )


def _intervals(t: Task) -> Sequence[str]:
    """Keys of other survival losses than Cox's, given where nothing asks for them."""
    given, loss = sorted(t.output.model_fields_set & {"intervals", "alpha"}), t.output.survival
    if loss != "cox" and t.kind != "survival":
        return [f"output.survival={loss}: a {t.kind} task has no times; leave it out"]
    if loss != "cox" and t.mode in ("linear", "knn"):
        return [f"output.survival={loss}: mode {t.mode} has Cox's likelihood alone; use mode=finetune, or leave it out"]
    if loss != "intervals" and given:
        return [
            f"output.{', output.'.join(given)}: only output.survival=intervals has intervals; set it, or leave them out"
        ]
    return []


def _meanings(t: Task) -> Sequence[str]:
    """Keys that say what words mean, given to a kind that does not ask."""
    asks = {
        "event_value": ("survival",), "censored": ("survival",), "positive": ("binary", "multilabel"), "uncertain": ("multilabel",),
        "blank": ("multilabel",), "grades": ("ordinal",), "classes": ("binary", "multiclass", "ordinal"),
    }  # fmt: skip
    out = [
        f"{key}: a {t.kind} task does not ask that ({' and '.join(kinds)} do); leave it out"
        for key, kinds in asks.items()
        if getattr(t, key) != type(t).model_fields[key].get_default() and t.kind not in kinds
    ]
    if t.event_value and t.censored:
        out.append("event_value, censored: each says which value is the event; give one of them")
    if t.kind == "binary" and isinstance(t.positive, dict):
        out.append("positive: a binary task has one positive class; write its name")
    for key in ("positive", "uncertain"):
        value = getattr(t, key)
        if isinstance(value, dict) and (strange := sorted(set(value) - set(t.labels))):
            out.append(f"{key}: {', '.join(strange)}: no label of the task ({', '.join(t.labels)})")
    if t.mode in FROZEN and "class" in (
        t.uncertain,
        *(t.uncertain.values() if isinstance(t.uncertain, dict) else ()),
    ):
        out.append(f"uncertain=class: mode {t.mode} has no third answer; use ignore, ones or zeros, or mode finetune")
    if t.kind == "multiclass" and t.classes is None and "kappa_quadratic" in (t.metric, *t.metrics):
        out.append(
            "kappa_quadratic: classes have no order by themselves; list them in `classes` from the lowest, or take kind ordinal"
        )
    if t.protocol.balance and t.kind not in ("binary", "multiclass", "ordinal"):
        out.append(f"protocol.balance: equally many of each class; a {t.kind} task has no classes, leave it out")
    return out


def _structures(t: Task) -> Sequence[str]:
    fields, names, out = t.mask_fields, [m.name for m in t.masks], []
    if not names:
        return ["mask, mask_values: a segmentation needs one structure or more"]
    if len(set(names)) < len(names):
        out.append(f"mask: {', '.join(fields)}: give each field once (mask_NAME and NAME are both called NAME)")
    if isinstance(t.mask_values, dict):
        if len(fields) > 1 and (strange := sorted(set(t.mask_values) - set(names))):
            out.append(f"mask_values: {', '.join(strange)}: the structures of several fields are {', '.join(names)}")
        if empty := [n for n, v in t.mask_values.items() if not v]:
            out.append(f"mask_values: {', '.join(empty)}: name one value or more")
    if bad := [n for n in names if not n or set(n) & set("/, ")]:
        out.append(f"mask_values: {bad}: a structure's name has no slash, comma or space")
    if t.mask_missing == "leave_out" and len(fields) == 1:
        out.append("mask_missing=leave_out: with one mask field that is so anyway; it speaks of several, leave it out")
    return out


def _freezing(t: Task) -> Sequence[str]:
    p, out = t.protocol, []
    if not p.freeze_epochs:
        return ["protocol.thaw_lr: nothing thaws; set protocol.freeze_epochs too"] if p.thaw_lr != 1.0 else []
    if t.mode in FROZEN:
        out.append(f"protocol.freeze_epochs: mode {t.mode} never trains the encoder; leave it out")
    if p.freeze == "encoder":
        out.append("protocol.freeze_epochs, protocol.freeze=encoder: the encoder would stay frozen; give one of them")
    if p.epochs and not p.steps and p.freeze_epochs >= p.epochs:
        out.append(
            f"protocol.freeze_epochs={p.freeze_epochs} of {p.epochs} epochs: nothing is left to train the encoder in; "
            "give fewer, or protocol.freeze=encoder"
        )
    return out
