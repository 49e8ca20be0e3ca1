"""The two parallel passes of MRM (section 3.2, "Reconstruction with relation masking"): one set of weights, once as deployed
and once with self- and cross-modality relation masking in chosen blocks.

Shape letters: B samples, L image tokens, S gene tokens, C image width, D gene width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.encoders.gene_tokens import GeneTokens, GeneVector
from models.encoders.vit import ViT
from models.layers.checkpointing import checkpointed
from models.layers.relation import CrossRelation, Masking, masked_self_attention

Cascade = Literal["per_block", "self_then_cross"]


@dataclass(frozen=True)
class MaskPlan:
    """Which relations each block masks in the masked pass; without `cross` there are none to the other modality."""

    blocks: tuple[int, ...]
    cascade: Cascade
    image: Masking
    genes: Masking
    cross: bool = True

    def masks_self(self, i: int, alone: bool) -> bool:
        """Whether block i masks self relations; an image without a partner has no cross blocks, so all do."""
        return i in self.blocks and (alone or self.cascade == "per_block" or i == self.blocks[0])

    def masks_cross(self, i: int) -> bool:
        return self.cross and i in self.blocks and (self.cascade == "per_block" or i != self.blocks[0])


class TwoPass(nn.Module):
    """Image and gene encoders, and the cross attention that only the masked pass has.

    The intact pass has no cross attention: it is the image encoder as it will be used, and its gene twin.
    """

    def __init__(self, vit: ViT, genes: GeneTokens | GeneVector | None, plan: MaskPlan, heads: int, gene_dim: int):
        super().__init__()
        self.vit, self.genes, self.plan = vit, genes, plan
        # A single gene token has no relation that could be masked, within or across: its one key would always go.
        self.tokens = isinstance(genes, GeneTokens)
        crossed = [str(i) for i in plan.blocks if self.tokens and plan.masks_cross(i)]
        self.cross_image = nn.ModuleDict({i: CrossRelation(vit.dim, gene_dim, heads) for i in crossed})
        self.cross_genes = nn.ModuleDict({i: CrossRelation(gene_dim, vit.dim, heads) for i in crossed})

    def forward(
        self,
        image_BCHW: Tensor,
        values: dict[str, Tensor],
        image_real_BL: Tensor | None,
        real_BS: Tensor | None,
    ) -> dict[str, dict[str, Tensor]]:
        """
        Args:
            values: genetic vectors by modality, numbers where a sample has none.
            image_real_BL, real_BS: True where an image or a gene token is real; None: all are.

        Returns:
            tokens  image, image_masked [B, L, C]; genes, genes_masked [B, S, D]: final-norm tokens of the passes
            kept    kept mass [B] of self_image, self_genes, cross_image, cross_genes, mean over the blocks
        """
        assert self.vit.plain, (
            "the masked pass knows neither relative positions nor layer scale: they come with fine-tuning"
        )
        x, g = self.vit.embed(image_BCHW), self.genes.embed(values) if self.genes is not None else None
        xm, gm = x, g
        kept: dict[str, list[Tensor]] = {}
        last = max(self.plan.blocks) + 1
        genes = self._gene_tokens()
        for i in range(last):
            x = self.vit.blocks[i](x)
            if genes is not None:
                g = genes.blocks[i](g, real_BS)
            xm, gm = self._masked_block(i, xm, gm, image_real_BL, real_BS, kept)
        x, xm = _rest(self.vit.blocks[last:], self.vit.norm, x, xm)
        tokens = {"image": x, "image_masked": xm}
        if self.genes is not None and g is not None:
            if genes is not None:
                g, gm = _rest(genes.blocks[last:], self.genes.norm, g, gm, real_BS)
            else:
                g = gm = self.genes.norm(g)
            tokens |= {"genes": g, "genes_masked": gm}
        return {"tokens": tokens, "kept": {n: torch.stack(k).mean(0) for n, k in kept.items()}}

    def _gene_tokens(self) -> GeneTokens | None:
        """The genes' branch where genes are tokens, with blocks of its own."""
        return self.genes if isinstance(self.genes, GeneTokens) else None

    def _masked_block(
        self,
        i: int,
        x: Tensor,
        g: Tensor | None,
        image_real_BL: Tensor | None,
        real_BS: Tensor | None,
        kept: dict[str, list[Tensor]],
    ) -> tuple[Tensor, Tensor | None]:
        """Block i of the masked pass: self-masked attention, cross-masked attention, MLP, in both branches."""
        block, genes = self.vit.blocks[i], self._gene_tokens()
        if i not in self.plan.blocks:
            return block(x), g if genes is None else genes.blocks[i](g, real_BS)
        gene_block = None if genes is None else genes.blocks[i]
        if self.plan.masks_self(i, alone=genes is None):
            x, mass = checkpointed(masked_self_attention, block, x, self.plan.image)
            kept.setdefault("self_image", []).append(mass)
            if gene_block is not None and g is not None:
                g, mass = checkpointed(masked_self_attention, gene_block, g, self.plan.genes, real_BS)
                kept.setdefault("self_genes", []).append(mass)
        if genes is not None and self.plan.masks_cross(i):
            before, plan = x, self.plan  # both directions start from the self-masked tokens z^S
            x, mass = checkpointed(self.cross_image[str(i)], x, g, plan.image, image_real_BL, real_BS)
            kept.setdefault("cross_image", []).append(mass)
            g, mass = checkpointed(self.cross_genes[str(i)], g, before, plan.genes, real_BS, image_real_BL)
            kept.setdefault("cross_genes", []).append(mass)
        x = _feed_forward(block, x)
        return x, g if gene_block is None else _feed_forward(gene_block, g)


def _feed_forward(block: nn.Module, x: Tensor | None) -> Tensor:
    return x + block.drop_path(block.mlp(block.norm2(x)))  # type: ignore[operator]


def _rest(
    blocks: Sequence[nn.Module] | nn.ModuleList,
    norm: nn.Module,
    x: Tensor,
    xm: Tensor | None,
    real: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The remaining blocks, the same for both passes, so that they take them as one batch: weights are gathered once."""
    assert xm is not None
    both = torch.cat([x, xm])
    more = () if real is None else (torch.cat([real, real]),)
    for block in blocks:
        both = block(both, *more)
    first, second = norm(both).chunk(2)
    return first, second
