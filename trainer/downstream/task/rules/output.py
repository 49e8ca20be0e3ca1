"""Heads, decoders, losses of survival, maps: keys of `output` that stand beside a kind or mode that does not ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trainer.downstream.task.by_encoder import FROZEN

if TYPE_CHECKING:
    from trainer.downstream.task.schema import Task


TWO_WAY = ("queries", "mask_token")
"""Keys of `output` that are the two-way decoder's alone."""


def output_problems(t: Task) -> Iterator[str]:
    yield from _intervals(t)
    yield from _maps(t)
    if t.output.mask_weights and (min(t.output.mask_weights) < 0 or not any(t.output.mask_weights)):
        yield f"output.mask_weights: {list(t.output.mask_weights)}: two weights from 0 up, not both 0"
    yield from _decoding(t)


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
