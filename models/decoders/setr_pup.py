"""SETR-PUP: a mask drawn by progressive upsampling (Zheng et al., CVPR 2021, section 3.3).

The map of the last tokens goes through convolutions and doublings in turn, so that no step grows it by more than 2: four of them for
patches of 16. Batch norm is replaced by group norm, as in models/decoders/upernet.py.

Shape letters: B images, L tokens, D width, C decoder width, K channels of the mask, H x W places.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import MethodError
from models.decoders.maps import token_map
from models.decoders.upernet import FCNHead, group_norm


class SetrPupDecoder(nn.Module):
    """The last tokens -> logits [B, K, rows x patch, columns x patch], the image's own size.

    A stage is a 3 x 3 convolution, a norm, ReLU and bilinear doubling; there are log2(patch) of them, then a 1 x 1 convolution.

    Args:
        channels: C (256 in the paper).
        auxiliary: whether `auxiliary`, an FCN head on the tokens after two thirds of the blocks, learns the same masks beside it. (The
            paper has one at each of several depths.)
        auxiliary_dim: channels of the map before the last, which that head sees; None: as many.

    Raises:
        MethodError: a patch that is no power of two.
    """

    auxiliary: FCNHead | None

    def __init__(
        self,
        dim: int,
        patch: int,
        out_channels: int = 1,
        channels: int = 256,
        auxiliary: bool = False,
        auxiliary_dim: int | None = None,
    ):
        super().__init__()
        stages = patch.bit_length() - 1
        if patch != 1 << stages:
            raise MethodError(
                [
                    f"output.decoder=setr_pup doubles the map until a patch is whole: patches of {patch} are no power of two; "
                    "use upernet, or a method with patches of 8 or 16"
                ]
            )
        self.scale = patch
        self.auxiliary = FCNHead(auxiliary_dim or dim, out_channels) if auxiliary else None
        self.convs = nn.ModuleList(
            nn.Conv2d(dim if i == 0 else channels, channels, 3, padding=1, bias=False) for i in range(stages)
        )
        self.norms = nn.ModuleList(group_norm(channels) for _ in range(stages))
        self.out = nn.Conv2d(channels if stages else dim, out_channels, 1)

    def forward(self, tokens_BLD: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        x_BCHW, last = token_map(tokens_BLD, grid), len(self.convs) - 1
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x_BCHW = F.relu(norm(conv(x_BCHW)))
            # Doubling and a 1 x 1 convolution commute: the last doubling is of K channels instead of C, at a quarter of the memory.
            x_BCHW = _doubled(self.out(x_BCHW) if i == last else x_BCHW)
        return x_BCHW if last >= 0 else self.out(x_BCHW)


def _doubled(x_BCHW: Tensor) -> Tensor:
    return F.interpolate(x_BCHW, scale_factor=2, mode="bilinear", align_corners=False)
