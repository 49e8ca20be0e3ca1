"""From a configuration and its data to a method with weights, and to the lengths of its stages; the head of a fine-tune."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from models.contract import Head, Method, Options, Stage, TargetSpec
from models.decoders.build import make_decoder
from models.finetuned import make_head
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


@dataclass(frozen=True)
class HeadParts:
    """How the head of a fine-tune is built; as keys of a task's `output` (docs/tasks.md), with `auxiliary` whether there is one."""

    head: str
    norm: bool
    hidden: int
    dropout: float
    decoder: str
    width: int
    queries: int
    mask_token: bool
    auxiliary: bool


def head_of(encoder: Method, question: TargetSpec, o: HeadParts, pooled: int, tokens: int, genes: int) -> Head:
    """A head with random weights.

    Args:
        pooled, tokens, genes: widths of the pooled vector, of tokens and of gene tokens.
    """
    if question.kind != "segmentation":
        return make_head(
            encoder, question, pooled, tokens, head=o.head, norm=o.norm, hidden=o.hidden, dropout=o.dropout
        )
    return make_decoder(
        encoder,
        o.decoder,
        width=o.width,
        queries=o.queries,
        mask_token=o.mask_token,
        gene_dim=genes,
        auxiliary=o.auxiliary,
        outputs=question.outputs,
    )
