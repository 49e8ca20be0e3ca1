"""The network of TransMIL (Shao et al., NeurIPS 2021, arXiv 2106.00908): patch features -> class token and patch tokens.

Shape letters: B bags, N patches, F patch feature width, C width, L places of the sequence.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.encoders.aggregator import PPEG, Layer, PatchWeight, sides
from models.layers.nystrom import LongAttention
from models.layers.nystrom_library import LibraryAttention

Nystrom = Literal["exact_short", "library", "library_009"]


class TransMilNetwork(nn.Module):
    """Patches [B, N, F] -> (class token [B, C], patch tokens [B, N, C]), both behind the last LayerNorm.

    The sequence is a class token, the patches, and (`repeat`) the first patches again until they fill a square; two layers of
    x + Attention(LN(x)) with PPEG between them. Each bag has the square of its own length.

    Args:
        nystrom: `exact_short` is models/layers/nystrom.py; `library` and `library_009` are models/layers/nystrom_library.py.
        exact_tokens: of `exact_short`: bags of up to so many tokens have exact attention, as those of no more than landmarks.
        repeat: the repeated patches are tokens of both layers (the official code), or fill PPEG's square alone.
    """

    def __init__(
        self,
        features: int,
        dim: int,
        *,
        heads: int,
        landmarks: int,
        iterations: int,
        conv_kernel: int | None,
        nystrom: Nystrom,
        exact_tokens: int = 0,
        repeat: bool,
        ppeg: bool,
        dropout: float,
    ):
        super().__init__()
        self.repeat = repeat
        self.project = nn.Sequential(nn.Linear(features, dim), nn.ReLU())
        self.class_token_C = nn.Parameter(torch.randn(dim))
        self.layers = nn.ModuleList(
            Layer(dim, _attention(dim, heads, landmarks, iterations, conv_kernel, nystrom, exact_tokens), dropout)
            for _ in range(2)
        )
        self.ppeg = PPEG(dim) if ppeg else None
        self.norm = nn.LayerNorm(dim)
        self.weight = PatchWeight()

    def forward(self, x_BNF: Tensor, patches_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`patches_B`: real patches of each bag, 1 or more, which stand first; None when all are."""
        log_weight_BL = None if patches_B is not None else self._weights(x_BNF)
        x_BLC, lengths_B = self._half_way(x_BNF, patches_B, log_weight_BL)
        x_BLC = self.norm(self.layers[1](x_BLC, lengths_B, log_weight_BL))
        return x_BLC[:, 0], x_BLC[:, 1 : x_BNF.shape[1] + 1]

    def _weights(self, x_BNF: Tensor) -> Tensor | None:
        """Of the tokens of whole bags (`PatchWeight`); a patch that is repeated has its weight at both places."""
        log_weight_BL = self.weight.of(x_BNF)
        if log_weight_BL is None or not self.repeat:
            return log_weight_BL
        patch_BN1, _ = squared(log_weight_BL[:, 1:, None], None)
        return torch.cat([log_weight_BL[:, :1], patch_BN1[..., 0]], 1)

    def _half_way(
        self, x_BNF: Tensor, patches_B: Tensor | None, log_weight_BL: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the last layer is given [B, L, C], and how many tokens of it are real."""
        h_BNC = self.project(x_BNF)
        if self.repeat:
            h_BNC, patches_B = squared(h_BNC, patches_B)
        x_BLC = torch.cat([self.class_token_C.expand(len(h_BNC), 1, -1), h_BNC], 1)
        lengths_B = None if patches_B is None else patches_B + 1
        x_BLC = self.layers[0](x_BLC, lengths_B, log_weight_BL)
        if self.ppeg is not None:
            x_BLC = torch.cat([x_BLC[:, :1], self.ppeg(x_BLC[:, 1:], patches_B)], 1)
        return x_BLC, lengths_B

    def class_row(self, x_BNF: Tensor, patches_B: Tensor | None = None) -> Tensor:
        """What the class token gives to each patch in the last layer, mean over heads [B, N]; a repeated patch gets both parts."""
        B, N = x_BNF.shape[:2]
        x_BLC, lengths_B = self._half_way(x_BNF, patches_B)
        row_BL = self.layers[1].attn.first_row(self.layers[1].norm(x_BLC), lengths_B).mean(1)[:, 1:]  # type: ignore[union-attr, operator]
        n_B1 = torch.full((B, 1), N, device=row_BL.device) if patches_B is None else patches_B[:, None]
        place_BL = torch.arange(row_BL.shape[1], device=row_BL.device) % n_B1
        return row_BL.new_zeros(B, N).scatter_add(1, place_BL, row_BL)


def squared(h_BNC: Tensor, patches_B: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Each bag with its first patches repeated behind it until it fills a square, and the new lengths (None: all equal)."""
    n_B1 = torch.full((len(h_BNC), 1), h_BNC.shape[1], device=h_BNC.device)
    if patches_B is not None:
        n_B1 = patches_B[:, None]
    area_B1 = sides(n_B1).square()
    place_BL = torch.arange(int(area_B1.max()), device=h_BNC.device) % n_B1
    return h_BNC.gather(1, place_BL[..., None].expand(-1, -1, h_BNC.shape[2])), None if patches_B is None else area_B1[
        :, 0
    ]


def _attention(
    dim: int, heads: int, landmarks: int, iterations: int, kernel: int | None, nystrom: Nystrom, exact_tokens: int
) -> nn.Module:
    if nystrom == "exact_short":
        return LongAttention(dim, heads, landmarks, iterations, kernel, exact_tokens)
    assert not exact_tokens, "the package's form has no exact one"
    return LibraryAttention(dim, heads, landmarks, iterations, kernel, first_rows=nystrom == "library_009")
