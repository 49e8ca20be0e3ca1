"""Labels, what their words mean, and the structures of a segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trainer.downstream.task.by_encoder import FROZEN

if TYPE_CHECKING:
    from trainer.downstream.task.schema import Task


def label_problems(t: Task) -> Iterator[str]:
    yield from _given(t)
    yield from _meanings(t)
    if t.standardise == "each_split" and t.kind != "regression":
        yield f"standardise=each_split: a {t.kind} task has no numbers to standardise; leave it out"
    if t.kind == "segmentation":
        yield from _structures(t)


def _given(t: Task) -> Iterator[str]:
    """As many labels as the kind asks for."""
    if t.kind == "survival":
        if not (t.time and t.event):
            yield "time, event: survival needs both labels"
    elif t.kind not in ("segmentation", "retrieval") and t.label is None:
        yield f"label: a {t.kind} task needs one"
    if isinstance(t.label, tuple) and t.kind not in ("multilabel", "regression"):
        yield f"label: a {t.kind} task has one label, not {len(t.label)}"
    if t.kind == "multilabel" and isinstance(t.label, str):
        yield "label: multilabel needs a list of labels"


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
