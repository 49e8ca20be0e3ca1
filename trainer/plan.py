"""What a run will do, worked out before it starts: stages, steps, parameters, memory. `--dry-run` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.contract import Method, Stage
from models.registry import get_method
from trainer.config.schema import Config, StageConfig
from trainer.engine.engine import bucket_size, persistence_threshold, split_batch
from trainer.engine.memory import StateBytes, bucket_bytes, predict
from trainer.engine.optimizers import MOMENTS
from trainer.engine.teachers import pairs
from trainer.errors import UserError


@dataclass(frozen=True)
class StagePlan:
    stage: Stage
    epoch_steps: int
    steps: int
    evaluate_every: int
    """Steps between looks at the held-back split."""
    schedule_start: int = 0
    """Steps of the same training in the stage before: order, schedule and best look go on from there, the optimiser starts anew."""
    schedule_steps: int | None = None
    """Steps of the whole training, which the schedule is laid over; None: of this stage."""
    carry: Literal["best", "last"] = "best"
    """The weights that the next stage begins with, where this one selects."""

    def done(self, updates: int) -> float:
        """Share of the updates of the schedule that are made when this stage has made so many."""
        return (self.schedule_start + updates) / (self.schedule_steps or self.steps)


def stage_lengths(config: Config, stages: Sequence[Stage], epoch_steps: Sequence[int]) -> list[StagePlan]:
    """Steps of every stage: `stages.NAME` first, then (for the last stage) `steps` / `epochs`, then the method's own length.

    A recipe may give the length of a stage that the method has, and has not with these options (`left_out`).

    Raises:
        UserError: `stages` names a stage the method does not have.
    """
    names = [s.name for s in stages]
    unknown = [n for n in config.stages if n not in names and n not in left_out(config, stages)]
    if unknown:
        raise UserError(
            [f"stages.{n}: {config.method_name} has no such stage; it has {', '.join(names)}" for n in unknown]
        )
    plans = []
    for i, (stage, per_epoch) in enumerate(zip(stages, epoch_steps, strict=True)):
        own, last = config.stages.get(stage.name), i == len(stages) - 1
        if last and (config.steps or config.epochs):
            steps = config.steps or (config.epochs or 0) * per_epoch
        elif own and own.steps is not None:
            steps = own.steps
        elif own and own.epochs is not None:
            steps = own.epochs * per_epoch
        else:
            steps = stage.epochs * per_epoch
        plans.append(StagePlan(stage, per_epoch, steps, evaluate_every=per_epoch))
    return plans


def left_out(config: Config, stages: Sequence[Stage]) -> list[str]:
    """Stages that the configuration has a section of, and the method's options leave out."""
    names = {s.name for s in stages}
    return [n for n in config.stages if n in get_method(config.method_name).outline and n not in names]


def parameters_by_module(method: Method, stage: str) -> list[tuple[str, int, int]]:
    """(child module, trainable, frozen) parameter counts in a stage."""
    method.enter(stage)
    counts: dict[str, list[int]] = {}
    for name, p in method.named_parameters():
        row = counts.setdefault(name.split(".")[0] if "." in name else "(own)", [0, 0])
        row[0 if p.requires_grad else 1] += p.numel()
    return [(k, a, b) for k, (a, b) in counts.items()]


def state_bytes(method: Method, stage: str, config: Config, world: int) -> StateBytes:
    """Predicted model state of a rank in a stage, which the method enters."""
    method.enter(stage)
    return entered_bytes(method, stage, config, world)


def entered_bytes(method: Method, stage: str, config: Config, world: int) -> StateBytes:
    """The same of a method that has entered the stage, and is whole."""
    params = list(method.parameters())
    trainable = sum(p.numel() for p in params if p.requires_grad)
    threshold = persistence_threshold(trainable)
    persistent = sum(p.numel() for p in params if p.numel() <= threshold)
    frozen = sum(p.numel() for p in params if not p.requires_grad)
    moments = MOMENTS[config.optim_of(stage).kind]
    followed = sum(method.get_parameter(n).numel() for n, *_ in pairs(method, 0.0))
    return predict(trainable, frozen, world, config.zero.stage, config.precision, persistent, moments, followed)


def describe(
    method: Method, plans: Sequence[StagePlan], config: Config, world: int, samples: int, dropped: Sequence[int]
) -> str:
    """The plan for a person."""
    micro, accumulation = split_batch(config, world)
    lines = [f"{config.method_name}: {samples} training samples, {world} rank{'s' if world > 1 else ''}"]
    lines.append(f"global batch {config.global_batch} = micro batch {micro} x accumulation {accumulation} x {world}")
    for gone in left_out(config, [p.stage for p in plans]):
        lines.append(f"\nstage {gone}: left out by the method's options; what stages.{gone} says plays no part")
    for plan, unread in zip(plans, dropped, strict=True):
        name = plan.stage.name
        lines.append(f"\nstage {name}: {plan.steps} steps, {plan.epoch_steps} an epoch, order {plan.stage.order}")
        optim, given = config.optim_of(name), config.stages.get(name, StageConfig()).optim
        per = given.get("lr_batch", config.optim.lr_batch)
        scaled = f" ({given.get('lr', config.optim.lr):g} x {config.global_batch} / {per})" if per else ""
        lines.append(f"  {optim.kind}, peak learning rate {optim.lr:.3g}{scaled}")
        if unread:
            lines.append(f"  {unread} samples of an epoch are left out (the last incomplete global batch)")
        for module, trainable, frozen in parameters_by_module(method, name):
            lines.append(f"  {module:<24}{trainable:>14,} trainable{frozen:>14,} frozen")
        b = state_bytes(method, name, config, world)
        lines.append(
            f"  state of a rank under ZeRO {config.zero.stage}, {config.precision}: {_mb(b.total)} "
            f"(weights {_mb(b.weights)}, gradients {_mb(b.gradients)}, optimizer {_mb(b.optimizer)}"
            + (f", kept whole {_mb(b.persistent)}" if b.persistent else "")
            + (f", float32 averages {_mb(b.averages)}" if b.averages else "")
            + f"); communication buckets {_mb(_buckets(method, config))} and activations come on top"
        )
        if config.checkpoint.background(sum(p.numel() for p in method.parameters())):
            lines.append(f"  checkpoints are written in the background, from copies of {_mb(b.saved)} in host memory")
    return "\n".join(lines)


def _buckets(method: Method, config: Config) -> int:
    trainable = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return bucket_bytes(
        config.zero.bucket or bucket_size(trainable), config.zero.stage, config.precision, overlap=False
    )


def _mb(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
