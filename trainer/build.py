"""From a configuration and its data to a method with weights, and to the lengths of its stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.contract import Method, Options, Stage
from models.layers.batch_norm import holds_batch_norm
from models.registry import get_method
from trainer.config.schema import Config
from trainer.data import Data
from trainer.errors import UserError
from trainer.plan import StagePlan, stage_lengths
from trainer.runtime import seed_everything


def resolve(config: Config) -> tuple[type[Method], Options, dict[str, Any]]:
    """The method class, its parsed options, and the whole configuration with every default filled in."""
    cls = get_method(config.method_name)
    options = cls.Options.parse(config.method)
    resolved = {**config.model_dump(mode="json"), "method": options.model_dump(mode="json")}
    return cls, options, resolved


def build_method(config: Config, data: Data, seed_offset: int = 0) -> Method:
    """The method with its initial weights, a function of the seed alone: equal on every rank."""
    cls, options, _ = resolve(config)
    seed_everything(config.seed, 0, seed_offset)
    return cls(options, data.schema)


def make_plans(config: Config, data: Data, method: Method) -> list[StagePlan]:
    """The lengths of all stages.

    Raises:
        UserError: a loss that compares samples, and batches of one.
    """
    named = [s.name for s in method.stages() if s.compares]
    if named and config.global_batch < 2:
        raise UserError(
            f"global_batch={config.global_batch}: stage {', '.join(named)} of {config.method_name} compares the samples of a batch with "
            "each other, and one has no other; use global_batch=2 or more (losses of this kind need many)"
        )
    stages = [_with_batch_norm(s, method) for s in method.stages()]
    return stage_lengths(config, stages, [data.plan(config, s).steps_per_epoch for s in stages])


def _with_batch_norm(stage: Stage, method: Method) -> Stage:
    """Batch statistics compare samples, whatever the loss does: of accumulated parts they would be others."""
    method.enter(stage.name)
    return replace(stage, compares=stage.compares or holds_batch_norm(method))
