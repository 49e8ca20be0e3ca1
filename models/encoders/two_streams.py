"""Two modalities that look at each other layer by layer, each in a stream of its own (METER, Dou et al. 2022; M3AE, Chen et al. 2022).

Shape letters: B samples, L image tokens, S gene tokens, E width of either encoder, D width of the streams.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.report_bert import BertLayer, BertPooler, BertSelf, BertSum
from models.layers.checkpointing import checkpointed

STD = 0.02


class CrossLayer(BertLayer):
    """BERT's layer with attention to other tokens between its two halves, under Hugging Face's names."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float):
        super().__init__(dim, heads, inner, dropout)
        self.crossattention = nn.ModuleDict(
            {"self": BertSelf(dim, heads, dropout), "output": BertSum(dim, dim, dropout)}
        )

    def forward(self, x_BLD: Tensor, real_BL: Tensor, other_BSD: Tensor, real_BS: Tensor) -> Tensor:  # type: ignore[override]
        return checkpointed(self._across, x_BLD, real_BL, other_BSD, real_BS)

    def _across(self, x_BLD: Tensor, real_BL: Tensor, other_BSD: Tensor, real_BS: Tensor) -> Tensor:
        x_BLD = self.attention["output"](self.attention["self"](x_BLD, real_BL)[0], x_BLD)
        found_BLD = self.crossattention["self"](x_BLD, real_BS, other_BSD=other_BSD)[0]
        x_BLD = self.crossattention["output"](found_BLD, x_BLD)
        return self.output(F.gelu(self.intermediate["dense"](x_BLD)), x_BLD)


class TwoStreams(nn.Module):
    """Image tokens [B, L, E], gene tokens [B, S, E'] -> both [B, L, D], [B, S, D]; class tokens first.

    Each layer of a stream looks at what the other stream was before that layer: both are renewed at once.
    """

    def __init__(self, image: int, genes: int, dim: int, depth: int, heads: int, dropout: float):
        super().__init__()
        self.image_proj, self.gene_proj = nn.Linear(image, dim), nn.Linear(genes, dim)
        self.kind_2D = nn.Parameter(torch.empty(2, dim))
        self.image_layers, self.gene_layers = (
            nn.ModuleList(CrossLayer(dim, heads, 4 * dim, dropout) for _ in range(depth)) for _ in range(2)
        )
        self.image_pooler, self.gene_pooler = BertPooler(dim), BertPooler(dim)
        start_as_bert(self)
        nn.init.normal_(self.kind_2D, std=STD)

    def forward(
        self, image_BLE: Tensor, genes_BSE: Tensor, real_BS: Tensor, layers: int | None = None, pooled: bool = False
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            real_BS: gene tokens that are there; the others are looked at by nobody.
            layers: how many of the layers; None for all.
            pooled: of each stream tanh(Linear) of its first token, [B, D], in place of the tokens.
        """
        x_BLD, y_BSD = self.image_proj(image_BLE) + self.kind_2D[1], self.gene_proj(genes_BSE) + self.kind_2D[0]
        real_BL = torch.ones(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device)
        for of_image, of_genes in list(zip(self.image_layers, self.gene_layers, strict=True))[:layers]:
            x_BLD, y_BSD = of_image(x_BLD, real_BL, y_BSD, real_BS), of_genes(y_BSD, real_BS, x_BLD, real_BL)
        return (self.image_pooler(x_BLD), self.gene_pooler(y_BSD)) if pooled else (x_BLD, y_BSD)


def start_as_bert(module: nn.Module) -> None:
    """Matrices from N(0, 0.02), biases 0."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=STD)
            nn.init.zeros_(m.bias)
