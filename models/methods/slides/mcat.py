"""MCAT: Multimodal Co-Attention Transformer for survival prediction in gigapixel whole slide images (Chen et al., ICCV 2021).

Sets of genes, each encoded by a network of its own, attend to the patches of the slide; what they found and what they are pass through a
small transformer each, are pooled, and fused. It learns from a task's labels alone: there is nothing to pre-train. docs/methods/mcat.md
says where the official code differs and what `conventions` chooses.

Shape letters: B samples, N instances, F patch feature width, S gene sets, D width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Head, MethodError, Schema, TargetSpec
from models.contract.assets import Asset
from models.encoders.snn import SNN
from models.heads.linear import LinearHead
from models.layers.bag_attention import BagAttention, pooled
from models.layers.co_attention import CoAttention
from models.layers.fusion import JoinFusion, KroneckerFusion, Side
from models.layers.transformer import PostNormBlock
from models.methods.slides._fused import FusedMethod, FusedOptions
from models.registry import register
from models.transforms.gene_sets import contiguous, joined, read_sets


class McatOptions(FusedOptions):
    gene_sets: Asset = None
    """File of gene sets: `.gmt` (MSigDB's form) or `.json` ({name: [genes]}), genes named as in the data set. Null: `contiguous`."""
    contiguous: int = Bounded(6, ge=1)
    """Without `gene_sets`: so many runs of consecutive genes, which mean nothing."""
    unknown_genes: Literal["refuse", "leave_out"] = "refuse"
    """Genes of a set that the data set lacks; a set without any gene is refused always."""
    fusion: Literal["concat", "bilinear"] = "concat"
    """Both sides joined and two layers, or the product of all their numbers, each side gated by both."""
    reduce: int = Bounded(8, ge=1)
    """`fusion=bilinear`: each side has `width` / `reduce` numbers in the product."""
    width: int = Bounded(256, ge=1)
    """Width D of everything."""
    layers: int = Bounded(2, ge=1)
    """Transformer layers on each side."""
    heads: int = Bounded(8, ge=1)
    """Their attention heads."""
    inner: int = Bounded(512, ge=1)
    """Their width inside."""
    dropout: float = Bounded(0.25, ge=0, lt=1)
    """Everywhere but in the co-attention."""


class TokenPool(nn.Module):
    """A few tokens [B, S, D] -> [B, D]: transformer layers, gated attention pooling, ReLU(Linear)."""

    def __init__(self, dim: int, layers: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.blocks = nn.Sequential(*(PostNormBlock(dim, heads, inner, dropout) for _ in range(layers)))
        self.attention = BagAttention(dim, dim, 1, True, dropout)
        self.rho = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x_BSD: Tensor) -> Tensor:
        x_BSD = self.blocks(x_BSD)
        real_BS = torch.ones(x_BSD.shape[:2], dtype=torch.bool, device=x_BSD.device)
        return self.rho(pooled(x_BSD, self.attention(x_BSD), real_BS)[:, 0])


@register("mcat")
class Mcat(FusedMethod):
    """The pooled vector is what the fusion gives; tokens are what each set found on the slide, then the sets themselves."""

    Options = McatOptions
    paper = "Chen et al., Multimodal Co-Attention Transformer for Survival Prediction in Gigapixel Whole Slide Images, ICCV 2021"
    options: McatOptions
    members_M: Tensor

    def __init__(self, options: McatOptions, schema: Schema):
        super().__init__(options, schema)
        o, p, D = options, options.dropout, options.width
        if D % o.heads:
            raise MethodError([f"method.width: {D} is not a multiple of method.heads ({o.heads}); make it one"])
        sets, self.set_names = self._sets(schema)
        self.sizes = [len(s) for s in sets]
        self.register_buffer("members_M", torch.from_numpy(np.concatenate(sets)))
        self.embed = nn.Sequential(nn.Linear(self.features, D), nn.ReLU(), nn.Dropout(p))
        self.gene = nn.ModuleList(SNN(n, D, (D,), p, o.gene_act, start="torch") for n in self.sizes)
        self.co_attention = CoAttention(D)
        self.path, self.omic = (TokenPool(D, o.layers, o.heads, o.inner, p) for _ in range(2))
        self.fusion: nn.Module = JoinFusion((D, D), D)
        if o.fusion == "bilinear":
            self.gated = (True, True)
            side = Side(D, max(1, D // o.reduce), True)
            self.fusion = KroneckerFusion(side, side, D, "none", dropout=p, encoder_dropout=p)

    def _sets(self, schema: Schema) -> tuple[list[np.ndarray], tuple[str, ...]]:
        """Places of each set's genes among those that are read, and the sets' names."""
        o, G = self.options, len(self.gene_index_G)
        if o.gene_sets is None:
            if o.contiguous > G:
                raise MethodError([f"method.contiguous: {o.contiguous} sets of {G} genes; give fewer"])
            return contiguous(G, o.contiguous), tuple(f"genes run {i}" for i in range(1, o.contiguous + 1))
        words = schema.need("rna").vocabulary
        if words is None:
            raise MethodError([f"method.gene_sets: genes of {schema.source} have no names; pack it with a vocabulary"])
        names = [words[i] for i in self.gene_index_G.tolist()]
        sets = read_sets(o.gene_sets)
        return joined(sets, names, o.unknown_genes, o.gene_sets, schema.source), tuple(sets)

    def encode(self, batch: Batch) -> Encoded:
        """Tokens: what each set found, then the sets, [B, 2 S, D]; pooled [B, D]. Zero where slide or genes are missing."""
        bags, sets_BSD = self.rows(batch), self.sets(batch)
        found_BSD = self.co_attention(sets_BSD, self.embed(bags.rows_PD), bags.lengths)
        fused_BD, gates = self.answers(batch, *self.fusion(self.path(found_BSD), self.omic(sets_BSD)))
        real_BL = self.answerable(batch)[:, None].expand(-1, 2 * sets_BSD.shape[1])
        tokens_BLD = torch.cat([found_BSD, sets_BSD], 1).masked_fill(~real_BL[..., None], 0.0)
        return Encoded(tokens_BLD, real_BL, fused_BD, diagnostics=gates)

    def sets(self, batch: Batch) -> Tensor:
        """Each gene set's vector, [B, S, D]."""
        genes_BM = self.genes(batch)[:, self.members_M]
        return torch.stack([net(x)[0] for net, x in zip(self.gene, genes_BM.split(self.sizes, 1), strict=True)], 1)

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """Of each gene set, what it attends to on the slide."""
        x_BNF, mask_BN = self.bags(batch)
        weight_BSN = self.co_attention.weights(self.sets(batch), self.embed(x_BNF), mask_BN) * mask_BN[:, None]
        return {name: weight_BSN[:, s] for s, name in enumerate(self.set_names)}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.co_attention.scored,)

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """One linear layer, with PyTorch's first weights as in the official code."""
        return LinearHead(pooled, target.outputs, norm=False, std=None)
