"""The two-way decoder of MGI (Zhou et al. 2024, section 2.4 and Fig. 2): genes ask the image, the image asks the genes, and a
mask is the product of what both became. It is the mask decoder of Segment Anything (Kirillov et al. 2023, appendix A) with
genes in the place of prompts; widths, heads and up-sampling, which MGI does not state, are taken from there.

Shape letters: B samples, L image tokens, P patches (grid rows x columns), Q gene tokens, N gene queries, D image width,
E gene width, C width of the decoder, K width of the mask product, H x W places of the logits (4 x the grid).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import MethodError
from models.decoders.maps import LayerNorm2d, patch_tokens
from models.encoders.positions import sincos_2d
from models.layers.attention import attention, merge_heads, split_heads
from models.parallel import total

Missing = Literal["learned", "mean"]
MOMENTUM = 0.9  # of the running mean of gene queries


class CrossAttention(nn.Module):
    """Multi-head attention with projections of their own for queries, keys and values, `inner` wide inside."""

    def __init__(self, dim: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(dim, inner) for _ in range(3))
        self.out = nn.Linear(inner, dim)

    def forward(self, q_BNC: Tensor, k_BPC: Tensor, v_BPC: Tensor) -> Tensor:
        q, k, v = (split_heads(x, self.heads) for x in (self.q(q_BNC), self.k(k_BPC), self.v(v_BPC)))
        return self.out(merge_heads(attention(q, k, v)))


class TwoWayBlock(nn.Module):
    """An attention-interaction module: genes to genes, genes to image, MLP on genes, image to genes.

    Each step is a residual with LayerNorm after it. Where a token enters as query or key its position is added: sine-cosine
    for the image, for a gene query the query as it entered the decoder.

    Args:
        first: the first module's self-attention has no positions: the queries still are their positions.
    """

    def __init__(self, dim: int, heads: int, mlp: int, first: bool):
        super().__init__()
        self.first = first
        self.to_genes = CrossAttention(dim, heads, dim)
        self.to_image = CrossAttention(dim, heads, dim // 2)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp), nn.ReLU(), nn.Linear(mlp, dim))
        self.from_image = CrossAttention(dim, heads, dim // 2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))

    def forward(
        self, gene_BNC: Tensor, image_BPC: Tensor, gene_place_BNC: Tensor, place_PC: Tensor
    ) -> tuple[Tensor, Tensor]:
        asking = gene_BNC if self.first else gene_BNC + gene_place_BNC
        gene_BNC = self.norm1(gene_BNC + self.to_genes(asking, asking, gene_BNC))
        key_BPC = image_BPC + place_PC
        gene_BNC = self.norm2(gene_BNC + self.to_image(gene_BNC + gene_place_BNC, key_BPC, image_BPC))
        gene_BNC = self.norm3(gene_BNC + self.mlp(gene_BNC))
        image_BPC = self.norm4(image_BPC + self.from_image(key_BPC, gene_BNC + gene_place_BNC, gene_BNC))
        return gene_BNC, image_BPC


class GeneQueries(nn.Module):
    """Gene tokens [B, Q, E] and which are real [B, Q] -> queries [B, N (+ 1), C].

    The sequence is cut into N runs and each averaged over its real tokens (adaptive mean pooling). A run without a real
    token, so every run of a sample without genes, becomes an embedding: learned, or the running mean of that query over
    the training samples that have it. A mask token, if any, comes first.
    """

    mean_NE: Tensor
    mean_seen_N: Tensor

    def __init__(self, gene_dim: int, width: int, n_query: int, mask_token: bool, missing: Missing):
        super().__init__()
        self.n_query = n_query
        self.absent_NE = nn.Parameter(torch.randn(n_query, gene_dim) * 0.02) if missing == "learned" else None
        if missing == "mean":
            self.register_buffer("mean_NE", torch.zeros(n_query, gene_dim))
            self.register_buffer("mean_seen_N", torch.zeros(n_query))
        self.proj: nn.Module = nn.Identity() if gene_dim == width else nn.Linear(gene_dim, width)
        self.mask_token_C = nn.Parameter(torch.randn(width) * 0.02) if mask_token else None

    def forward(self, token_BQE: Tensor, real_BQ: Tensor) -> Tensor:
        query_BNE, has_BN = pooled_runs(token_BQE, real_BQ, self.n_query)
        if self.absent_NE is None and self.training:
            self._follow(query_BNE.detach(), has_BN)
        absent_NE = self.mean_NE if self.absent_NE is None else self.absent_NE
        query_BNC = self.proj(torch.where(has_BN[..., None], query_BNE, absent_NE.to(query_BNE.dtype)))
        if self.mask_token_C is None:
            return query_BNC
        return torch.cat([self.mask_token_C.expand(len(query_BNC), 1, -1), query_BNC], 1)

    @torch.no_grad()
    def _follow(self, query_BNE: Tensor, has_BN: Tensor) -> None:
        """Moves the running mean towards the global batch's; alike on all ranks, since it enters the model."""
        count_N = total(has_BN.float().sum(0))
        mean_NE = total((query_BNE.float() * has_BN[..., None]).sum(0)) / count_N.clamp_min(1)[:, None]
        # The first mean is taken as it is; what a batch lacks stays.
        step_N = torch.where(self.mean_seen_N > 0, 1 - MOMENTUM, 1.0) * (count_N > 0)
        self.mean_NE.copy_(self.mean_NE.float().lerp(mean_NE, step_N[:, None]))
        self.mean_seen_N.copy_(torch.maximum(self.mean_seen_N.float(), (count_N > 0).float()))


def pooled_runs(token_BQE: Tensor, real_BQ: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """Means over the real tokens of N runs [B, N, E], 0 where there is none, and which runs have any [B, N].

    Runs are those of adaptive pooling: from floor(i Q / N) to ceil((i + 1) Q / N), so any Q will do.
    """
    # Absent tokens may hold anything, even NaN.
    token_BQE = torch.where(real_BQ[..., None], token_BQE, 0.0)
    sum_BEN = F.adaptive_avg_pool1d(token_BQE.transpose(1, 2), N)
    share_B1N = F.adaptive_avg_pool1d(real_BQ[:, None].float(), N)
    has_BN = share_B1N[:, 0] > 0
    mean_BEN = sum_BEN / torch.where(has_BN[:, None], share_B1N, 1.0).to(sum_BEN.dtype)
    return mean_BEN.transpose(1, 2), has_BN


class TwoWayDecoder(nn.Module):
    """Image tokens and gene tokens -> logits of masks, [B, M, 4 x rows, 4 x columns]; the caller resizes.

    Args:
        width: C; image tokens are brought to it by a Linear, gene tokens where their width is another. K is C / 8.
        n_query: queries that the gene sequence is pooled to. Their mean, after the last MLP, is multiplied with the image.
        mask_token: one learned query beside them, which is multiplied with the image instead (as Segment Anything does).
        gene_missing: what stands in for genes that a sample lacks: the running mean of those present, or learned queries
            (which learn nothing where every training sample has its genes).
        out_channels: M, masks drawn beside each other: the last layer gives a vector for each.

    Raises:
        MethodError: sizes that do not divide, all at once.
    """

    scale = 4  # places of the logits for a patch, along a side

    def __init__(
        self,
        image_dim: int,
        gene_dim: int,
        *,
        width: int = 256,
        heads: int = 8,
        mlp: int = 2048,
        depth: int = 2,
        n_query: int = 16,
        mask_token: bool = False,
        gene_missing: Missing = "mean",
        out_channels: int = 1,
    ):
        super().__init__()
        if problems := list(_problems(width, heads, n_query, gene_missing)):
            raise MethodError(problems)
        self.mask_token, self.gene_dim = mask_token, gene_dim
        self.image_proj = nn.Linear(image_dim, width)
        self.queries = GeneQueries(gene_dim, width, n_query, mask_token, gene_missing)
        self.blocks = nn.ModuleList(TwoWayBlock(width, heads, mlp, first=i == 0) for i in range(depth))
        self.last = CrossAttention(width, heads, width // 2)
        self.last_norm = nn.LayerNorm(width)
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.to_mask = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, out_channels * (width // 8)),
        )  # fmt: skip
        self.out_channels = out_channels

    def forward(
        self, image_tokens_BLD: Tensor, gene_tokens_BQE: Tensor, gene_mask: Tensor, grid: tuple[int, int] | None = None
    ) -> Tensor:
        """
        Args:
            image_tokens_BLD: row by row, with or without a class token in front (it is left out); or a map [B, D, rows, columns].
            gene_mask: bool [B, Q], True where a gene token is real, or [B], for whole samples.
            grid: (rows, columns) of patches; a map has its own.
        """
        if image_tokens_BLD.ndim == 4:
            grid = (image_tokens_BLD.shape[2], image_tokens_BLD.shape[3])
        assert grid is not None, "tokens say nothing of their grid"
        image_BPC = self.image_proj(patch_tokens(image_tokens_BLD, grid))
        place_PC = sincos_2d(*grid, image_BPC.shape[2]).to(image_BPC)
        real_BQ = gene_mask if gene_mask.ndim == 2 else gene_mask[:, None].expand(gene_tokens_BQE.shape[:2])
        gene_BNC = gene_place_BNC = self.queries(gene_tokens_BQE, real_BQ)
        for block in self.blocks:
            gene_BNC, image_BPC = block(gene_BNC, image_BPC, gene_place_BNC, place_PC)
        asked_BNC = self.last(gene_BNC + gene_place_BNC, image_BPC + place_PC, image_BPC)
        gene_BNC = self.last_norm(gene_BNC + asked_BNC)
        map_BKHW = self.upsample(image_BPC.transpose(1, 2).unflatten(2, grid))
        if self.mask_token:
            mask_BK = self.to_mask(gene_BNC[:, 0])
        else:
            mask_BK = self.to_mask(gene_BNC).mean(1)
        return torch.einsum("bmk,bkhw->bmhw", mask_BK.unflatten(1, (self.out_channels, -1)), map_BKHW)


def _problems(width: int, heads: int, n_query: int, missing: str) -> Iterable[str]:
    if width % 8 or (width // 2) % heads:
        yield f"two-way decoder: width {width} must be a multiple of 8, and its half of the {heads} heads; use 256 and 8"
    if n_query < 1:
        yield f"two-way decoder: n_query is {n_query}; it needs at least 1"
    if missing not in ("learned", "mean"):
        yield f"two-way decoder: gene_missing is '{missing}'; use learned or mean"
