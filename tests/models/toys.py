"""Small CNN methods for tests of the contract itself: the same network with plain batch norm, which breaks it, and with the global one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from models.contract import (
    Batch,
    Encoded,
    Head,
    Method,
    Options,
    Output,
    Record,
    Sample,
    Schema,
    Stage,
    TargetSpec,
)
from models.finetuned import STAGE
from models.layers.batch_norm import counted, globalised
from models.methods.segmentation._net import LevelOptions
from models.methods.segmentation.unet import UNet
from models.parallel import global_mean


class PlainCnn(Method):
    """Two rotated views of a picture are to be alike (a loss that compares no samples), through a convolution and a batch norm."""

    name = "plain_cnn"
    paper = "a test"
    inputs = ("image",)

    def __init__(self, options: Options, schema: Schema):
        super().__init__(options, schema)
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=4, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 8, bias=False),
        )
        self.out = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 5))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", ("image",), compares=True),)

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        present = record.has("image")
        image = record.read("image") if present else np.zeros((24, 24, 3), np.uint8)
        image = image[:24, :24] if image.shape[2] == 3 else np.repeat(image[:24, :24], 3, 2)
        return Sample({"image": np.ascontiguousarray(image)}, {"image": present})

    def pixels(self, batch: Batch) -> torch.Tensor:
        return batch["image"].permute(0, 3, 1, 2).to(self.dtype) / 255

    def through(self, x: torch.Tensor, weight_B: torch.Tensor) -> torch.Tensor:
        return self.out(self.net(x))

    def forward(self, batch: Batch) -> Output:
        x, weight_B = self.pixels(batch), batch.weight_B * batch.present["image"]
        a, b = self.through(x, weight_B), self.through(x.flip(-1), weight_B)

        loss = global_mean(((a - b).float().square().mean(1) * weight_B).sum(), weight_B.sum())
        loss = loss + 0.1 * global_mean(((a.float().abs().mean(1) - 1).square() * weight_B).sum(), weight_B.sum())

        return Output({"alike": loss}, loss, {}, {"pooled": a.detach()})

    def encode(self, batch: Batch) -> Encoded:
        pooled_BD = self.net(self.pixels(batch)) * batch.present["image"][:, None]
        return Encoded(pooled_BD[:, None], batch.present["image"][:, None], pooled_BD)


class GlobalCnn(PlainCnn):
    """The same over all ranks, without padding."""

    name = "global_cnn"

    def __init__(self, options: Options, schema: Schema):
        super().__init__(options, schema)
        globalised(self)

    def through(self, x: torch.Tensor, weight_B: torch.Tensor) -> torch.Tensor:
        with counted(weight_B):
            return super().through(x, weight_B)

    def encode(self, batch: Batch) -> Encoded:
        with counted(batch.weight_B * batch.present["image"]):
            return super().encode(batch)


class SmallUNet(LevelOptions):
    image_size: int = 32
    features: int = 2


class GlobalNet(UNet):
    """A U-Net, which learns from masks alone."""

    name = "global_net"
    Options = SmallUNet


class PlainNet(GlobalNet):
    """The same with torch's own batch norms."""

    name = "plain_net"

    def __init__(self, options: SmallUNet, schema: Schema):
        super().__init__(options, schema)
        plain(self)

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head | None:
        head = super().task_head(target, pooled, tokens)
        return head if head is None else plain(head)


def plain(module: nn.Module) -> Any:
    """`module` with torch's batch norms in place of the global ones."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.BatchNorm2d(child.num_features))
        plain(child)
    return module


TOYS: dict[str, type[Method]] = {c.name: c for c in (PlainCnn, GlobalCnn, PlainNet, GlobalNet)}
TOY_STAGES = [
    (kind, f"{kind}_{toy}", stage)
    for toy, stage in (("cnn", "pretrain"), ("cnn", STAGE), ("net", STAGE))
    for kind in ("plain", "global")
]
"""What each toy is asked: pre-training, a question with two classes, a mask."""
