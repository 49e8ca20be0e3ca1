"""An encoder with a head on it, for one task: a method like any other, so that one loop, loader and checkpoint serve both.

The encoder is a method in its deployed form (`enter("")`): nothing masked, nothing augmented but by the task. What the task
asks comes from outside (`answer`), so that no label reaches the encoder.

Shape letters: B samples, D pooled width, K outputs, T numbers of a target, L tokens, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.contract import (
    Batch,
    Encoded,
    Group,
    Head,
    HeadOutput,
    Method,
    MethodError,
    Output,
    Record,
    Sample,
    Stage,
    TargetSpec,
)  # fmt: skip
from models.contract.attention import maps_of, scorers
from models.contract.masks import MaskField
from models.contract.method import IMAGE_SIDE
from models.decoders.build import dense
from models.encoders.layer_decay import layer_scales
from models.encoders.vit import RELATIVE
from models.heads.gated_attention import BagHead
from models.heads.linear import LinearHead
from models.heads.mlp import MLPHead
from models.layers.batch_norm import counted, holds_batch_norm
from models.losses import finetune as losses
from models.parallel import global_mean
from models.view import Augmentation, DrawnAugmentation, RecordView

STAGE = "finetune"
FROZEN = "frozen"
"""The stage before it, where the encoder stands still at first."""


@dataclass(frozen=True)
class FinetuneSettings:
    """How the whole is trained.

    fields         what the encoder may read
    frozen         prefixes of the encoder's parameters that stay as they are
    frozen_start   whether the whole encoder stays as it is in a first stage, FROZEN
    layer_decay    learning-rate factor from one layer to the one below it; the head's is 1
    encoder_scale  the encoder's learning rate in parts of the head's
    pad            whether images are filled up to squares
    masks          segmentation: the structures to draw, a channel each
    mask_absent    whether a mask that a sample lacks is an empty one (else such a sample takes no part)
    soft_dice      whether predictions keep what Dice of unthresholded probabilities needs
    """

    fields: tuple[str, ...]
    frozen: tuple[str, ...] = ()
    frozen_start: bool = False
    layer_decay: float = 1.0
    encoder_scale: float = 1.0
    change: Augmentation = field(default_factory=Augmentation)
    pad: bool = False
    masks: tuple[MaskField, ...] = ()
    mask_absent: bool = False
    soft_dice: bool = False
    mask_loss: Literal["bce_dice", "focal_dice"] = "bce_dice"
    mask_weights: tuple[float, float] | None = None
    auxiliary: float = 0.0
    ties: Literal["efron", "breslow"] = "efron"
    metric: str = "loss/task"
    higher_is_better: bool = False
    balance: bool = False


class Downstream(Method):
    """`encoder` and `head`; see the module's head.

    Args:
        answer: record -> float32 [T], NaN where unknown (segmentation: not called).
    """

    mean_K: Tensor
    std_K: Tensor

    def __init__(
        self,
        encoder: Method,
        head: Head,
        question: TargetSpec,
        fit: FinetuneSettings,
        answer: Callable[[Record], np.ndarray],
    ):
        super().__init__(encoder.options, encoder.schema)
        self.encoder, self.head = encoder, head
        self.question, self.fit, self.answer = question, fit, answer
        self.inputs = fit.fields
        self.side = side_of(encoder) if question.kind == "segmentation" else None
        if question.kind == "regression":
            assert question.mean_K is not None
            assert question.std_K is not None
            self.register_buffer("mean_K", torch.tensor(question.mean_K, dtype=torch.float32))
            self.register_buffer("std_K", torch.tensor(question.std_K, dtype=torch.float32))
        self.enter(STAGE)

    # --------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> tuple[Stage, ...]:
        direction: Literal["max", "min"] = "max" if self.fit.higher_is_better else "min"
        # The risk set of Cox's likelihood is the batch, as are batch statistics: they compare samples.
        compares = self.question.compares or holds_batch_norm(self)
        names = (FROZEN, STAGE) if self.fit.frozen_start else (STAGE,)
        select = (self.fit.metric, direction)
        return tuple(Stage(n, self.fit.fields, compares=compares, select=select, epochs=1) for n in names)

    def enter(self, stage: str) -> None:
        self.stage = stage
        self.encoder.inputs = self.fit.fields
        self.encoder.enter("")
        for name, p in self.encoder.named_parameters():
            if stage == FROZEN or name.startswith(self.fit.frozen):
                p.requires_grad_(False)
        for p in self.head.parameters():
            p.requires_grad_(True)

    def train(self, mode: bool = True) -> Downstream:
        """As usual, but an encoder that is frozen as a whole stays in eval mode: its dropout would only be noise."""
        super().train(mode)
        if not any(p.requires_grad for p in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def param_groups(self) -> list[Group]:
        """Head and encoder, the latter layer by layer when the learning rate decays downwards."""
        keep = set(self.encoder.no_weight_decay())
        scale = layer_scales(self.encoder, self.fit.layer_decay)
        groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
        for name, p in self.named_parameters():
            if not p.requires_grad:
                continue
            part, _, rest = name.partition(".")
            # ds_shape is a parameter's true shape once ZeRO-3 has partitioned it.
            flat = len(getattr(p, "ds_shape", p.shape)) <= 1 or rest in keep or rest.endswith(RELATIVE)
            lr = scale(rest) * self.fit.encoder_scale if part == "encoder" else 1.0
            groups.setdefault((part, lr, 0.0 if flat else 1.0), []).append(p)
        return [Group(f"{n} x{lr:.3g}{'' if d else ' plain'}", ps, lr, d) for (n, lr, d), ps in groups.items()]

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """A training sample: the image changed at random, as the task says."""
        turned = None if self.fit.change == Augmentation() else DrawnAugmentation(self.fit.change, rng)
        return self.eval_sample(record, rng, turned)

    def eval_sample(
        self,
        record: Record,
        rng: np.random.Generator,
        turned: DrawnAugmentation | None = None,
        genes: Record | None = None,
    ) -> Sample:
        """A sample as it is, or turned; with the genes of another record, if one is given."""
        modalities = self.encoder.modalities
        own = tuple(f for m in IMAGE_SIDE for f in modalities.get(m, ()))
        images = modalities.get("image", ())
        view = RecordView(record, self.fit.fields, turned, self.side, genes, self.fit.pad, own, images)
        sample = self.encoder.sample(view, rng)
        sample.arrays["index"] = np.array(getattr(record, "index", -1), np.int64)
        if self.question.kind == "segmentation":
            drawn = [self._mask(record, view, m) for m in self.fit.masks]
            sample.arrays["target_mask"] = drawn[0] if len(drawn) == 1 else np.stack(drawn)
        else:
            sample.arrays["target"] = self.answer(record).astype(np.float32)
        return sample

    def _mask(self, record: Record, view: RecordView, wanted: MaskField) -> np.ndarray:
        if not record.has(wanted.field):
            assert self.fit.mask_absent, f"{record.key} has no {wanted.field} and takes part"
            assert self.side is not None
            return np.zeros((self.side, self.side), np.uint8)
        image, mask = record.shape("image"), record.shape(wanted.field)
        if tuple(image[:2]) != tuple(mask[:2]):
            sizes = f"{mask[0]} x {mask[1]} pixels, its image {image[0]} x {image[1]}"
            raise MethodError([f"sample {record.key}: {wanted.field} is {sizes}; mend it"])
        return view.mask(wanted.field, wanted.values)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        return self.encoder.collate(samples)

    # -------------------------------------------------------------------------------------------------------- forward

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the head says, [B, K] (segmentation: [B, K, H, W]), and the pooled vector it was said of."""
        said, encoded = self._said(batch, None)
        return said.logits, encoded["pooled_BD"]

    def _said(self, batch: Batch, target_BT: Tensor | None) -> tuple[HeadOutput, Encoded]:
        """What the head returns, and what it was given."""
        encoded = self.encoder.encode(batch)
        return self.head(encoded, target_BT, batch.weight_B), encoded

    def forward(self, batch: Batch) -> Output:
        # Batch norms of encoder and head take no statistics of padding; a method that knows more (absent images) says so itself.
        with counted(batch.weight_B):
            return self._forward(batch)

    def _forward(self, batch: Batch) -> Output:
        said, encoded = self._said(batch, self._target(batch))
        said.add({name: self._loss(logits, batch) for name, logits in said["also"].items()}, self.fit.auxiliary)
        terms, total = said.losses(self._loss(said.logits, batch))
        values, counts = watched({**encoded.get("diagnostics", {}), **said["diagnostics"]}, batch.weight_B)
        return Output(terms, total, values, {"pooled": encoded["pooled_BD"].detach()}, counts)

    def _target(self, batch: Batch) -> Tensor:
        return _masks(batch) if self.question.kind == "segmentation" else batch["target"].float()

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        kind, weight_B = self.question.kind, batch.weight_B
        if kind == "segmentation":
            score = losses.bce_dice if self.fit.mask_loss == "bce_dice" else losses.focal_dice
            return score(logits, _masks(batch), weight_B, *(self.fit.mask_weights or ()))
        target_BT = batch["target"].float()
        if kind == "regression":
            target_BT = (target_BT - self.mean_K.float()) / self.std_K.float()
        return losses.of_kind(self.question, logits, target_BT, weight_B, self.fit.ties)

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is reported of a sample, float32: probabilities [B] or [B, K], values in the label's units, log risk [B]; for masks the
        probability of each pixel [B, H, W], of several structures [B, K, H, W]. And the pooled vector [B, D] that it was said of."""
        logits, pooled_BD = self.logits(batch)
        return self._reported(logits.float()), pooled_BD.float()

    def _reported(self, x: Tensor) -> Tensor:
        kind = self.question.kind
        if kind == "segmentation":
            return x[:, 0].sigmoid() if x.shape[1] == 1 else x.sigmoid()
        if kind == "multiclass":
            return x.softmax(1)
        if kind == "regression":
            return x * self.std_K.float() + self.mean_K.float()
        if kind == "survival":
            return losses.survival_risk(self.question, x)
        if self.question.third:
            # P(yes) among yes and no alone, as published: what is uncertain is no answer when measured.
            x_BK3 = x.unflatten(1, (-1, 3))
            return (x_BK3[..., 1] - x_BK3[..., 0]).sigmoid()
        return x[:, 0].sigmoid() if kind == "binary" else x.sigmoid()

    def encode(self, batch: Batch) -> Encoded:
        return self.encoder.encode(batch)

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """What the answer weighs patches by [B, N], by map; in eval mode."""
        return maps_of(self, self.encoder, self.head, batch)

    def patch_scores(self) -> tuple[nn.Module, ...]:
        """What gives the scores that the maps' shares are the softmax of."""
        return scorers(self.encoder, self.head)


# ----------------------------------------------------------------------------------------------------------------- building


def watched(found: Mapping[str, Tensor], weight_B: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of diagnostics [B] the means over the samples of all ranks that count and have a number, and over how many of this rank's."""
    values, counts = {}, {}
    for name, value_B in found.items():
        with torch.no_grad():
            has_B = weight_B.float() * ~value_B.isnan()
            # Not by a product alone: 0 times NaN is NaN.
            values[name] = global_mean((value_B.float().nan_to_num(nan=0.0) * has_B).sum(), has_B.sum())
            counts[name] = has_B.sum()
    return values, counts


def _masks(batch: Batch) -> Tensor:
    """The masks that are to be drawn, 0 and 1, [B, K, H, W]; a batch of one structure has no channel axis."""
    mask = batch["target_mask"]
    return mask if mask.ndim == 4 else mask[:, None]


def side_of(encoder: Method) -> int:
    """Pixels of a side that the encoder's image encoder takes.

    Raises:
        MethodError: the method has no image encoder, or one whose images are not square.
    """
    return dense(encoder).image_size[0]


def image_side(encoder: Method) -> tuple[str, ...]:
    """The fields of an encoder's image side."""
    return encoder.fields_of(*IMAGE_SIDE)


def make_head(
    encoder: Method, target: TargetSpec, pooled: int, tokens: int, *, head: str, norm: bool, hidden: int, dropout: float
) -> Head:
    """A head for pooled vectors (`pooled` wide) or tokens (`tokens` wide); `auto` is the method's own, a linear one where it has none."""
    if head == "auto" and (own := encoder.task_head(target, pooled, tokens)) is not None:
        return own
    if head == "mlp":
        return MLPHead(pooled, target.outputs, hidden, dropout)
    if head == "bag":
        return BagHead(tokens, target.outputs, hidden, dropout)
    return LinearHead(pooled, target.outputs, norm)


def unreached(method: Downstream, batch: Batch) -> list[str]:
    """Encoder parameters that no gradient of the task's loss reaches: they are frozen, since nothing would train them."""
    was = method.training
    method.train()
    method.zero_grad(set_to_none=True)
    method(batch).total.backward()
    names = [n for n, p in method.encoder.named_parameters() if p.requires_grad and p.grad is None]
    method.zero_grad(set_to_none=True)
    method.train(was)
    return names
