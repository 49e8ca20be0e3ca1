"""GroupMSA, the gene encoder of GiMP (Jin et al. 2023, section 2.1): attention in groups of genes, then across.

Shape letters: B samples, G genes, N groups, P fragments in a group, F genes in a fragment, C width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import MethodError
from models.encoders.snn import SNN, Act
from models.layers.transformer import Block
from models.transforms.expression import ExpressionOptions

# 60,480 genes in fragments of 84 make 720, the recommended layout. With fewer genes fragments keep about that length:
# all fragments share one projection, which cannot tell one gene of a few from another.
FRAGMENTS, SHORTEST = 720, 64


class GroupMsaOptions(ExpressionOptions):
    """Of the gene encoder."""

    encoder: Literal["group_msa", "snn", "none"] = "group_msa"
    """Gene encoder: the paper's, the ablation's SNN, or none (slides alone)."""
    groups: int = Bounded(24, ge=1)
    """Gene groups of GroupMSA (N_gr)."""
    fragment: int | None = Bounded(None, ge=1)
    """Genes in a fragment; None: as many as make 720 fragments (84 of 60,480 genes), but at least 64."""
    depth: int = Bounded(1, ge=1)
    """Transformer blocks inside the groups, and as many across them."""
    act: Act = "elu"
    """`encoder=snn`: activation. ELU as published codes have it, or SELU, whose constants AlphaDropout has."""

    def build(self, genes: int, dim: int, heads: int, dropout: float) -> GroupMSA | SNN:
        """The encoder of so many genes; the SNN has a dropout of its own."""
        assert self.encoder != "none", "there is no gene encoder to build"
        if self.encoder == "snn":
            return SNN(genes, dim, act=self.act)
        return GroupMSA(genes, dim, heads, self.groups, self.fragment, self.depth, dropout=dropout)


def fragments_per_group(genes: int, groups: int, fragment: int | None) -> tuple[int, int]:
    """(P, F): fragments in a group and genes in a fragment, covering all; `fragment` None derives the length.

    Raises:
        MethodError: more groups than genes.
    """
    if groups > genes:
        raise MethodError([f"groups is {groups} but there are only {genes} genes; set groups to {genes} or less"])
    in_group = -(-genes // groups)
    if fragment is not None:
        return -(-in_group // fragment), fragment
    per_group = min(-(-FRAGMENTS // groups), max(1, in_group // SHORTEST))
    return per_group, -(-in_group // per_group)


def gene_layout(genes: int, groups: int, per_group: int, fragment: int) -> Tensor:
    """Which gene stands at each place of the N x P x F layout, flat; `genes` means padding.

    Groups are runs of the genes' own order whose lengths differ by at most one, so padding is spread over all groups;
    when the numbers divide there is none and the layout is the identity.
    """
    bounds = torch.arange(groups + 1) * genes // groups
    place_S = torch.arange(per_group * fragment)
    gene_NS = bounds[:-1, None] + place_S
    return gene_NS.masked_fill(gene_NS >= bounds[1:, None], genes).flatten()


class GroupMSA(nn.Module):
    """Genes [B, G] -> (class token [B, C], group tokens [B, N, C]).

    Fragments share one linear projection; every group has a learnable token that attends to its fragments (groups
    folded into the batch, weights shared); the group tokens and a class token then attend to one another.
    """

    def __init__(
        self,
        genes: int,
        dim: int,
        heads: int = 8,
        groups: int = 24,
        fragment: int | None = None,
        depth: int = 1,
        ffn_ratio: float = 2.0,
        dropout: float = 0.1,
        mask_token: bool = False,
    ):
        super().__init__()
        self.layout: Tensor
        self.groups = groups
        self.per_group, self.fragment = fragments_per_group(genes, groups, fragment)
        self.register_buffer("layout", gene_layout(genes, groups, self.per_group, self.fragment), persistent=False)
        self.project = nn.Linear(self.fragment, dim)
        self.position_NPC = nn.Parameter(torch.randn(groups, self.per_group, dim) * 0.02)
        self.group_token_NC = nn.Parameter(torch.randn(groups, dim) * 0.02)
        self.class_token_C = nn.Parameter(torch.randn(dim) * 0.02)
        self.mask_token_C = nn.Parameter(torch.randn(dim) * 0.02) if mask_token else None
        self.drop = nn.Dropout(dropout)
        self.intra = nn.ModuleList(Block(dim, heads, ffn_ratio, dropout) for _ in range(depth))
        self.inter = nn.ModuleList(Block(dim, heads, ffn_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def fragments(self, genes_BG: Tensor) -> Tensor:
        """The genes as they are laid out, [B, N x P, F], 0 where no gene is."""
        padded = torch.cat([genes_BG, genes_BG.new_zeros(len(genes_BG), 1)], 1)
        return padded[:, self.layout].view(len(genes_BG), -1, self.fragment)

    def forward(self, genes_BG: Tensor, hidden_BS: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`hidden_BS`: fragments [B, N x P] in whose place a learned token stands (`mask_token`)."""
        B, N, P = len(genes_BG), self.groups, self.per_group
        x_BSC = self.project(self.fragments(genes_BG))
        if hidden_BS is not None:
            assert self.mask_token_C is not None, "fragments can be hidden where there is a mask token"
            x_BSC = torch.where(hidden_BS[..., None], self.mask_token_C.to(x_BSC.dtype), x_BSC)
        x_BNPC = x_BSC.view(B, N, P, -1) + self.position_NPC
        token_BN1C = self.group_token_NC[:, None].expand(B, N, 1, -1)
        x_BNC = self._within(self.drop(torch.cat([token_BN1C, x_BNPC], 2)).flatten(0, 1)).view(B, N, -1)
        x_BLC = torch.cat([self.class_token_C.expand(B, 1, -1), x_BNC], 1)
        for block in self.inter:
            x_BLC = block(x_BLC)
        x_BLC = self.norm(x_BLC)
        return x_BLC[:, 0], x_BLC[:, 1:]

    def _within(self, x_SLC: Tensor) -> Tensor:
        """Attention inside groups (S = B x N of them); the updated group tokens, [S, C]."""
        for block in self.intra:
            x_SLC = block(x_SLC)
        return x_SLC[:, 0]
