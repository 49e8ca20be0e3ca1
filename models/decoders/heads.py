"""Decoders of masks as heads: they take what an encoder gives, as every head does. The parameters keep the decoders' names.

Shape letters: B images, K structures, H x W pixels, Q gene tokens, E their width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.contract import Encoded, Head, HeadOutput
from models.decoders.setr_pup import SetrPupDecoder
from models.decoders.two_way import TwoWayDecoder
from models.decoders.upernet import FCNHead, LinearMaskHead, UPerNetDecoder

AUXILIARY = "auxiliary"
THIRD = 2  # of the four maps: the one that the auxiliary head sees


class MaskHead(Head):
    """Base: `drawn`, at the images' size, and in training what an auxiliary head draws of the same masks.

    Args:
        side: pixels of the images' side; what follows are the decoder's own arguments.
    """

    def __init__(self, side: int, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.side = side

    def drawn(self, encoded: Encoded) -> Tensor:
        """Logits [B, K, rows, columns] of whatever size."""
        raise NotImplementedError

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        logits_BKHW, also = self._full(self.drawn(encoded)), {}
        beside: FCNHead | None = getattr(self, AUXILIARY, None)
        if beside is not None and self.training:
            also[AUXILIARY] = self._full(beside(encoded["maps"][THIRD]))
        return HeadOutput(logits_BKHW, also=also)

    def _full(self, logits_BKHW: Tensor) -> Tensor:
        return F.interpolate(logits_BKHW.float(), (self.side, self.side), mode="bilinear", align_corners=False)


# `forward` is the head's; the decoder's own is what `drawn` calls. That they take other things is what mypy is told to pass over.


class UPerNetHead(MaskHead, UPerNetDecoder):  # type: ignore[misc]
    def drawn(self, encoded: Encoded) -> Tensor:
        return UPerNetDecoder.forward(self, encoded["maps"])


class SetrPupHead(MaskHead, SetrPupDecoder):  # type: ignore[misc]
    def drawn(self, encoded: Encoded) -> Tensor:
        return SetrPupDecoder.forward(self, encoded["maps"][-1])


class LinearMapHead(MaskHead, LinearMaskHead):  # type: ignore[misc]
    def drawn(self, encoded: Encoded) -> Tensor:
        return LinearMaskHead.forward(self, encoded["maps"][-1])


class TwoWayHead(MaskHead, TwoWayDecoder):  # type: ignore[misc]
    def drawn(self, encoded: Encoded) -> Tensor:
        """Of an encoder that gives no gene tokens, as of one whose genes are missing."""
        image_BDHW = encoded["maps"][-1]
        genes = encoded.tokens_of("genes")
        if genes is None:
            none_BQE = torch.zeros(
                len(image_BDHW), 1, self.gene_dim, dtype=self.image_proj.weight.dtype, device=image_BDHW.device
            )
            genes = none_BQE, torch.zeros(none_BQE.shape[:2], dtype=torch.bool, device=none_BQE.device)
        return TwoWayDecoder.forward(self, image_BDHW, *genes)
