"""How a task is learned: length, labels taken, grid, freezing, the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trainer.config.shared import compile_problems, precision_problem, sharding_problem
from trainer.downstream.task.by_encoder import FROZEN

if TYPE_CHECKING:
    from trainer.downstream.task.schema import Task


CLASSES = ("binary", "multiclass", "ordinal")
"""Kinds of which each case has one class."""


def protocol_problems(t: Task) -> Iterator[str]:
    p = t.protocol
    if p.epochs and p.steps and "epochs" in p.model_fields_set:
        yield "protocol.epochs, protocol.steps: give one of them, not both"
    yield from _amount(t)
    yield from _grid(t)
    if p.weight_classes and t.mode != "linear":
        yield f"protocol.weight_classes: mode {t.mode} does not weigh classes; use protocol.balance, or leave it out"
    if p.balance and t.kind not in CLASSES:
        yield f"protocol.balance: equally many of each class; a {t.kind} task has no classes, leave it out"
    yield from _freezing(t)
    yield from _parts(t)
    yield from _engine(t)


def _amount(t: Task) -> Iterator[str]:
    """How many labels are learned from."""
    if not t.protocol.shots:
        return
    if t.protocol.fraction != 1.0:
        yield "protocol.fraction, protocol.shots: give one of them, not both"
    if t.kind not in CLASSES:
        yield f"protocol.shots: so many of each class; a {t.kind} task has no classes, use protocol.fraction"


def _grid(t: Task) -> Iterator[str]:
    """Seeds, learning rates and weight decays."""
    for name in ("seeds", "lr"):
        values = getattr(t.protocol, name)
        if not values or len(set(values)) != len(values):
            yield f"protocol.{name}: {list(values)}: give at least one, each once"
    if any(lr <= 0 for lr in t.protocol.lr):
        yield f"protocol.lr: {list(t.protocol.lr)}: learning rates are above 0"
    if (decays := t.protocol.weight_decays) is not None and (not decays or min(decays) < 0):
        yield f"protocol.weight_decays: {list(decays)}: give one or more, none below 0"
    elif decays and t.protocol.solver == "converged" and 0 in decays:
        yield (
            "protocol.solver=converged, protocol.weight_decays: 0 has no optimum where a plane parts the classes; leave it out"
        )


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


def _parts(t: Task) -> Iterator[str]:
    """Parts that are added to the encoder, where it is never trained."""
    if t.encoder != type(t.encoder)() and t.mode in FROZEN:
        yield f"encoder: mode {t.mode} looks at the encoder as pre-training left it; leave encoder.* out"
    elif (t.encoder.relative_positions or t.encoder.layer_scale) and t.protocol.freeze == "encoder":
        yield (
            "encoder.relative_positions, encoder.layer_scale: protocol.freeze=encoder would never train them; leave them out"
        )


def _engine(t: Task) -> Iterator[str]:
    """Settings of the engine that do not go together."""
    yield from sharding_problem(t.protocol.optimizer, t.zero.stage, t.precision, "protocol.optimizer")
    yield from compile_problems(t.compile, t.zero.stage, t.activation_checkpointing)
    yield from precision_problem(t.precision, t.zero.stage)
