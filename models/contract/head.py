"""What a task asks, and what a head says of it: logits, and loss terms of its own with their weights.

Shape letters: B samples, D pooled width, L tokens, K outputs, T numbers of a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from models.contract.batch import Encoded

Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "survival", "segmentation", "retrieval"]


@dataclass(frozen=True)
class TargetSpec:
    """What is asked: `outputs` numbers come out of the head; `classes` names them. Regression is standardised by `mean_K`, `std_K`.

    Survival with `edges` is one of `outputs` intervals of time, parted by them (`alpha`: models/losses/survival.py); with `distribution`
    location and log scale of log time less the first of `log_time`, over the second (models/losses/failure_time.py); else Cox's risk.
    Multilabel with three outputs a class: no, yes, uncertain (target 2), as U-MultiClass of Irvin et al. 2019 (CheXpert), section 3.
    """

    kind: Kind
    outputs: int
    classes: tuple[str, ...]
    mean_K: tuple[float, ...] | None = None
    std_K: tuple[float, ...] | None = None
    edges: tuple[float, ...] | None = None
    alpha: float = 0.0
    distribution: Literal["", "weibull", "log_logistic"] = ""
    log_time: tuple[float, float] = (0.0, 1.0)

    @property
    def compares(self) -> bool:
        """Whether the task's loss compares samples: the risk sets of Cox's likelihood are batches."""
        return self.kind == "survival" and self.edges is None and not self.distribution

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each of `outputs`: its class; of a binary task the positive one; else what the number is."""
        if self.kind == "binary":
            return self.classes[-1:] or ("positive",)
        if self.third:
            return tuple(f"{c}: {said}" for c in self.classes for said in ("no", "yes", "uncertain"))
        if len(self.classes) == self.outputs:
            return self.classes
        if self.kind == "survival" and self.distribution:
            return ("location", "log scale")
        if self.kind == "survival":
            return ("risk",) if self.outputs == 1 else tuple(f"interval {i}" for i in range(1, self.outputs + 1))
        if self.kind == "ordinal" and len(self.classes) == self.outputs + 1:
            return tuple(f"above {c}" for c in self.classes[:-1])
        return ("value",) if self.outputs == 1 else tuple(f"output {i}" for i in range(1, self.outputs + 1))

    @property
    def third(self) -> bool:
        """Whether uncertain is an answer of its own."""
        return self.kind == "multilabel" and self.outputs == 3 * len(self.classes)


class HeadOutput(dict[str, Any]):
    """What a head returns; a dict so that ZeRO-3 can hook it.

    logits       [B, K]; of a head that draws masks [B, K, H, W]
    terms        {name: scalar over the global batch}: losses of the head's own (instances of a bag, say), in `weights` order
    weights      {name: weight in the total}; `task_weight` is that of the task's loss on the logits
    also         {term: [B, K, H, W]}: logits of further heads on the same masks, which the task's loss scores too (FCN heads beside a
                 decoder); the task gives their weight
    diagnostics  {name: [B]}: numbers of each sample worth watching that are no losses, without gradient, NaN where a sample has none. The
                 same names on every rank: the log has their means over the samples of all ranks that count
    """

    def __init__(
        self,
        logits_BK: Tensor,
        terms: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, float] | None = None,
        task_weight: float = 1.0,
        diagnostics: Mapping[str, Tensor] | None = None,
        also: Mapping[str, Tensor] | None = None,
    ):
        watched = {n: value_B.detach() for n, value_B in (diagnostics or {}).items()}
        super().__init__(logits=logits_BK, terms=dict(terms or {}), diagnostics=watched, also=dict(also or {}))
        self.weights, self.task_weight = dict(weights or {}), task_weight
        assert self.weights.keys() == self["terms"].keys(), "every term has its weight"
        assert "task" not in self.weights, "`task` is the loss on the logits"

    @property
    def logits(self) -> Tensor:
        return self["logits"]

    def add(self, terms: Mapping[str, Tensor], weight: float) -> None:
        """Further terms, all of one weight."""
        self["terms"].update(terms)
        self.weights.update(dict.fromkeys(terms, weight))

    def losses(self, task: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """{term: value} with the task's loss first, and the weighted total."""
        total = self.task_weight * task if self.task_weight != 1.0 else task
        for name, value in self["terms"].items():
            total = total + self.weights[name] * value
        return {"task": task, **self["terms"]}, total


class Head(nn.Module):
    """From what an encoder made to logits; the only way there. `forward` may add terms in training, where `target_BT` is given."""

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        """
        Args:
            target_BT: class codes, numbers or bits as the task has them, NaN where unknown; None where nobody knows. Of a head that
                draws masks these, 0 and 1, [B, K, H, W].
            weight_B: 1 for a sample that counts, 0 for padding.
        """
        raise NotImplementedError

    def attention_maps(self, encoded: Encoded) -> dict[str, Tensor]:
        """As `Method.attention_maps`, of a head that weighs patches (its branches, or a map an output); left out by all others."""
        return {}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        """As `Method.patch_scores`, of a head that weighs patches."""
        return ()
