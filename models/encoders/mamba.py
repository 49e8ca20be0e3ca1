"""Mamba over genes: an expression vector as a sequence, in the order of the data set's vocabulary.

Shape letters: B samples, G genes, L tokens, K genes in a chunk, C width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.layers.checkpointing import checkpointed
from models.layers.mamba import MambaBlock
from models.transforms.expression import ExpressionOptions

Tokens = Literal["chunk", "per_gene"]


class MambaOptions(ExpressionOptions):
    """Of the gene encoder."""

    tokens: Tokens = "chunk"
    """A token is a run of genes through one projection, or a single gene."""
    chunk: int = Bounded(64, ge=1)
    """Genes in a chunk."""
    dim: int = Bounded(256, ge=4)
    """Width of the gene encoder."""
    depth: int = Bounded(4, ge=1)
    """Its Mamba blocks."""
    states: int = Bounded(16, ge=1)
    """States of a channel of the scan."""
    conv: int = Bounded(4, ge=1)
    """Kernel of the causal convolution."""
    expand: int = Bounded(2, ge=1)
    """Inner width of a Mamba block, in multiples of `dim`."""
    bidirectional: bool = False
    """A second Mamba in each block reads the genes from the end; their order is arbitrary."""

    def build(self, genes: int) -> GeneMamba:
        """The encoder of so many genes."""
        return GeneMamba(
            genes,
            dim=self.dim,
            depth=self.depth,
            states=self.states,
            kernel=self.conv,
            expand=self.expand,
            tokens=self.tokens,
            chunk=self.chunk,
            bidirectional=self.bidirectional,
        )


class ChunkTokens(nn.Module):
    """Runs of K genes -> one token each, by a shared projection plus a learned place; the last run is zero-padded."""

    def __init__(self, genes: int, chunk: int, dim: int):
        super().__init__()
        self.chunk, self.count = chunk, -(-genes // chunk)
        self.padding = self.count * chunk - genes
        self.proj = nn.Linear(chunk, dim)
        self.place_LC = nn.Parameter(torch.randn(self.count, dim) * 0.02)

    def forward(self, genes_BG: Tensor) -> Tensor:
        return self.proj(F.pad(genes_BG, (0, self.padding)).unflatten(1, (self.count, self.chunk))) + self.place_LC


class GeneTokens(nn.Module):
    """One token a gene: value * w + b + the gene's own embedding."""

    def __init__(self, genes: int, dim: int):
        super().__init__()
        self.count = genes
        self.weight_C = nn.Parameter(torch.randn(dim) * 0.02)
        self.bias_C = nn.Parameter(torch.zeros(dim))
        self.place_LC = nn.Parameter(torch.randn(genes, dim) * 0.02)

    def forward(self, genes_BG: Tensor) -> Tensor:
        return torch.addcmul(self.place_LC + self.bias_C, genes_BG[..., None], self.weight_C)


class GeneMamba(nn.Module):
    """Genes [B, G] -> tokens [B, L, C] after the final norm, through pre-norm Mamba blocks.

    Args:
        tokens: `chunk` (L = G / chunk) or `per_gene` (L = G; each block is recomputed in the backward pass).
    """

    def __init__(
        self,
        genes: int,
        *,
        dim: int = 256,
        depth: int = 4,
        states: int = 16,
        kernel: int = 4,
        expand: int = 2,
        tokens: Tokens = "chunk",
        chunk: int = 64,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.embed = ChunkTokens(genes, chunk, dim) if tokens == "chunk" else GeneTokens(genes, dim)
        self.blocks = nn.ModuleList(
            MambaBlock(dim, states, kernel, expand, bidirectional, recompute=tokens == "per_gene") for _ in range(depth)
        )
        self.norm = nn.RMSNorm(dim, eps=1e-5)

    @property
    def count(self) -> int:
        """Tokens of a sample."""
        return self.embed.count

    def forward(self, genes_BG: Tensor) -> Tensor:
        x_BLC = self.embed(genes_BG)
        for block in self.blocks:
            x_BLC = block(x_BLC)
        return self.norm(x_BLC)


class PooledGenes(nn.Module):
    """Encoder and pooling in one, [B, G] -> [B, C], a few samples at a time.

    micro: samples encoded at once, None for all. Each part is recomputed in the backward pass, so that memory does not
        grow with the batch, which a contrastive loss needs whole.
    """

    def __init__(self, encoder: GeneMamba, pool: nn.Module, micro: int | None = None):
        super().__init__()
        self.encoder, self.pool, self.micro = encoder, pool, micro

    def forward(self, genes_BG: Tensor) -> Tensor:
        if self.micro is None or self.micro >= len(genes_BG):
            return self._part(genes_BG)
        return torch.cat([checkpointed(self._part, part, always=True) for part in genes_BG.split(self.micro)])

    def tokens(self, genes_BG: Tensor) -> Tensor:
        """The encoder's tokens [B, L, C], before they are pooled; a few samples at a time as well."""
        if self.micro is None or self.micro >= len(genes_BG):
            return self.encoder(genes_BG)
        return torch.cat([checkpointed(self.encoder, part, always=True) for part in genes_BG.split(self.micro)])

    def _part(self, genes_BG: Tensor) -> Tensor:
        return self.pool(self.encoder(genes_BG))
