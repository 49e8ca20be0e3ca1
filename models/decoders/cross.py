"""MultiMAE's decoder of one modality (Bachmann et al. 2022, section 3.3): its places look at the tokens that were kept of all.

Shape letters: B samples, K kept tokens, S places of all modalities, N of the own one, D width of the encoder, W of the decoder, P values.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.init.first import xavier_linears
from models.layers.attention import attention, merge_heads, split_heads
from models.layers.patches import take
from models.layers.vit_block import EPS, Block, Mlp


class CrossDecoder(nn.Module):
    """Encoder tokens (global token first, then the kept ones) -> values of every place of the modality `own`, [B, N, P].

    Args:
        sizes: {modality: places}, in the order of the places of all.
        fixed: {modality: its fixed positions [N, W]}; the others learn theirs.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        depth: int,
        heads: int,
        values: int,
        sizes: Mapping[str, int],
        own: str,
        fixed: Mapping[str, Tensor],
    ):
        super().__init__()
        self.sizes, self.heads = dict(sizes), heads
        before = list(self.sizes)[: list(self.sizes).index(own)]
        self.start = sum(self.sizes[n] for n in before)
        self.stop = self.start + self.sizes[own]
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.kind_MW = nn.Parameter(torch.randn(len(self.sizes), width) * 0.02)
        for name, N in self.sizes.items():
            if name in fixed:
                self.register_buffer(f"places_{name}", fixed[name].clone(), persistent=False)
            else:
                self.register_parameter(f"places_{name}", nn.Parameter(torch.randn(N, width) * 0.02))
        self.query_norm, self.context_norm, self.out_norm = (nn.LayerNorm(width, eps=EPS) for _ in range(3))
        self.query, self.key_value, self.proj = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.mlp = Mlp(width, 4.0)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.pred = nn.Linear(width, values)
        xavier_linears(self)

    def forward(self, tokens_BLD: Tensor, keep_BK: Tensor) -> Tensor:
        x_BLW = self.embed(tokens_BLD)
        B, W = len(x_BLW), x_BLW.shape[2]
        places = [getattr(self, f"places_{n}").to(x_BLW.dtype) + self.kind_MW[i] for i, n in enumerate(self.sizes)]
        place_SW = torch.cat(places)
        empty_BSW = self.mask_token.to(x_BLW.dtype).expand(B, len(place_SW), -1)
        all_BSW = empty_BSW.scatter(1, keep_BK[..., None].expand(-1, -1, W), x_BLW[:, 1:]) + place_SW
        # The global token has no place and is of no modality.
        context_BLW = torch.cat([x_BLW[:, :1], take(all_BSW, keep_BK)], 1)
        x_BNW = self._looked(all_BSW[:, self.start : self.stop], context_BLW)
        x_BNW = x_BNW + self.mlp(self.out_norm(x_BNW))
        for block in self.blocks:
            x_BNW = block(x_BNW)
        return self.pred(x_BNW)

    def _looked(self, x_BNW: Tensor, context_BLW: Tensor) -> Tensor:
        """Attention of the own places to the context, without a residual: what a place knew of itself is in the context too."""
        q_BNW = self.query(self.query_norm(x_BNW))
        k_BLW, v_BLW = self.key_value(self.context_norm(context_BLW)).chunk(2, -1)
        q, k, v = (split_heads(y, self.heads) for y in (q_BNW, k_BLW, v_BLW))
        return self.proj(merge_heads(attention(q, k, v)))
