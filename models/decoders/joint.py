"""One light decoder for what is hidden of several modalities (Geng et al. 2022): all their places look at each other.

Shape letters: B samples, L encoder tokens, N places of a modality, S of all, K kept ones, n places that are asked for, D width of the
encoder, W of the decoder, F values of a place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.init.first import xavier_linears
from models.layers.vit_block import EPS, Block, Gelu


class JointDecoder(nn.Module):
    """Encoder tokens (class token first, then the kept places of each modality) -> values of the places that are asked for.

    Args:
        places: {modality: fixed positions of its places [N, W]}, in the order of the encoder's tokens.
        values: {modality: F}.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        depth: int,
        heads: int,
        places: Mapping[str, Tensor],
        values: Mapping[str, int],
        gelu: Gelu = "none",
    ):
        super().__init__()
        self.names = tuple(places)
        self.embed = nn.Linear(dim, width)
        self.mask_MW, self.kind_MW = (nn.Parameter(torch.randn(len(places), width) * 0.02) for _ in range(2))
        for name, place_NW in places.items():
            self.register_buffer(f"places_{name}", place_NW.clone(), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        for block in self.blocks:
            block.mlp.gelu = gelu  # type: ignore[union-attr]
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.heads = nn.ModuleDict({n: nn.Linear(width, values[n]) for n in places})
        xavier_linears(self)

    def forward(
        self,
        tokens_BLD: Tensor,
        keep: Mapping[str, Tensor],
        seen: Mapping[str, Tensor],
        real: Mapping[str, Tensor],
        asked: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Of each modality [n, F], sample by sample in the order of places.

        Args:
            keep: places of the encoder's tokens, [B, K].
            seen: whether a place is among them, [B, N]; of others a token says nothing.
            real: whether a place may be looked at, [B, N].
            asked: whether it is to be said what is there, [B, N].
        """
        x_BLW = self.embed(tokens_BLD)
        own = x_BLW[:, 1:].split([keep[n].shape[1] for n in self.names], 1)
        parts = [
            self._placed(i, name, x_BKW, keep[name], seen[name])
            for i, (name, x_BKW) in enumerate(zip(self.names, own, strict=True))
        ]
        x_BSW = torch.cat([x_BLW[:, :1], *parts], 1)
        real_BS = torch.cat([real[self.names[0]].new_ones(len(x_BSW), 1), *(real[n] for n in self.names)], 1)
        for block in self.blocks:
            x_BSW = block(x_BSW, real_BS[:, None, None])
        said = self.norm(x_BSW)[:, 1:].split([p.shape[1] for p in parts], 1)
        return {n: self.heads[n](x_BNW[asked[n]]) for n, x_BNW in zip(self.names, said, strict=True)}

    def _placed(self, i: int, name: str, x_BKW: Tensor, keep_BK: Tensor, seen_BN: Tensor) -> Tensor:
        """All places of a modality [B, N, W]: what the encoder made of them, or the vector of what is hidden."""
        hidden_BNW = self.mask_MW[i].expand(*seen_BN.shape, -1).to(x_BKW.dtype)
        laid_BNW = hidden_BNW.scatter(1, keep_BK[..., None].expand_as(x_BKW), x_BKW)
        x_BNW = torch.where(seen_BN[..., None], laid_BNW, hidden_BNW)
        return x_BNW + getattr(self, f"places_{name}").to(x_BNW.dtype) + self.kind_MW[i]
