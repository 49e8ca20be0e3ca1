"""The light image decoder of a masked autoencoder (He et al. 2022, section 3): from visible tokens to hidden pixels.

Shape letters: B images, N patches, K kept and M masked ones, D width of the encoder, C width of the decoder, P values of
a target patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.positions import sincos_2d
from models.encoders.vit import EPS, Block
from models.init.first import xavier_linears


class MaskedImageDecoder(nn.Module):
    """Encoder tokens (class token, kept patches) -> values of the masked patches, [B, M, P].

    Attention does not know an order, so tokens stay shuffled: kept ones first, then one mask token for every masked
    patch, each with the position of its patch. Nothing is sorted back, and only what was masked is predicted.
    """

    pos_embed: Tensor

    def __init__(self, dim: int, grid: tuple[int, int], width: int, depth: int, heads: int, values: int):
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_buffer("pos_embed", F.pad(sincos_2d(*grid, width), (0, 0, 1, 0))[None])
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.pred = nn.Linear(width, values)
        self._initialise()

    def _initialise(self) -> None:
        """As MAE: Xavier-uniform matrices, zero biases, mask token N(0, 0.02)."""
        xavier_linears(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens_BLD: Tensor, keep_BK: Tensor, masked_BM: Tensor) -> Tensor:
        x_BLC = self.embed(tokens_BLD)
        B, M = masked_BM.shape
        x_BLC = torch.cat([x_BLC, self.mask_token.to(x_BLC.dtype).expand(B, M, -1)], 1)
        places_BL = F.pad(torch.cat([keep_BK, masked_BM], 1) + 1, (1, 0))
        x_BLC = x_BLC + self.pos_embed[0].to(x_BLC.dtype)[places_BL]
        for block in self.blocks:
            x_BLC = block(x_BLC)
        return self.pred(self.norm(x_BLC[:, -M:]))
