"""A head that draws masks from an encoder's maps. Shape letters: B images, K structures, H x W pixels, L tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor, nn

from models.contract import Encoded, Head, HeadOutput
from models.layers.batch_norm import counted
from models.losses.finetune import batch_dice, class_dice, mask_bce, mask_mse

OwnLoss = Literal["batch_dice", "mse", "class_dice", "cross_entropy"]
LOSSES: Mapping[OwnLoss, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "batch_dice": batch_dice,
    "mse": mask_mse,
    "class_dice": class_dice,
    "cross_entropy": mask_bce,
}


class MapsHead(Head):
    """`decoder`, maps -> logits [B, K, H, W] at the image's size, as the head of a system that draws masks itself.

    Args:
        own_loss: a term of this name in place of the task's loss: soft Dice of the whole batch, squared error of probabilities, Dice of
            object and background of each image, or cross-entropy of pixels.
    """

    def __init__(self, decoder: nn.Module, own_loss: OwnLoss | None = None):
        super().__init__()
        self.decoder, self.own_loss = decoder, own_loss

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        """`target_BT` are masks, 0 and 1, [B, K, H, W]."""
        present_B = encoded["mask_BL"].any(1)
        weight_B = present_B.float() if weight_B is None else weight_B * present_B
        with counted(weight_B):
            logits_BKHW = self.decoder(encoded["maps"])
        if target_BT is None or self.own_loss is None:
            return HeadOutput(logits_BKHW)
        loss = LOSSES[self.own_loss](logits_BKHW, target_BT, weight_B)
        return HeadOutput(logits_BKHW, {self.own_loss: loss}, {self.own_loss: 1.0}, task_weight=0.0)
