"""TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide Image Classification (Shao et al., NeurIPS 2021,
arXiv 2106.00908).

A slide is a bag of patch features in the order of its file. Two layers of Nystrom self-attention with a class token let patches look at
each other; between them, convolutions over the patches laid out as a square tell their places (PPEG). It learns from a task's labels
alone: there is nothing to pre-train. docs/methods/transmil.md says where the official code differs and what `conventions` chooses.

Shape letters: B bags, N instances, F patch feature width, C width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Head, MethodError, Options, Schema, TargetSpec
from models.encoders.transmil import TransMilNetwork
from models.heads.linear import LinearHead
from models.layers.pooling import shared_out
from models.methods.slides._bag import BagMethod, exact_problems, one_by_one
from models.registry import register


class TransMilOptions(Options):
    unsaid: ClassVar = {"attention": "nystrom", "exact_tokens": 0}

    conventions: Literal["recommended", "published"] = "recommended"
    """Attention, unless `nystrom` says it: `recommended` as `exact_short`, `published` as `library`."""
    dim: int = Bounded(512, ge=1)
    """Width C that a patch is embedded to (Linear, ReLU)."""
    heads: int = Bounded(8, ge=1)
    """Attention heads."""
    landmarks: int = Bounded(256, ge=1)
    """Landmarks of the Nystrom attention."""
    pinv_iterations: int = Bounded(6, ge=1)
    """Iterations of the pseudo-inverse."""
    nystrom: Literal["exact_short", "library", "library_009"] | None = None
    """`exact_short`: nothing is padded, bags of no more tokens than landmarks get exact attention. `library`: the package
    nystrom-attention 0.0.14, whose zeros in front take part in the softmax. `library_009`: 0.0.9, which the official repository pins and
    which gives a token the output of one some places earlier. Null: as `conventions` says."""
    attention: Literal["nystrom", "auto"] = "nystrom"
    """`auto`: exact for bags of up to `exact_tokens` and else Nystrom, which is another network; of `nystrom: exact_short` alone, since
    the package's zeros and misplaced rows are of its approximation."""
    exact_tokens: int = Bounded(0, ge=0)
    """Of `auto`: the longest bag with exact attention, its class token and repeated patches counted. Stated, never measured by a run."""
    square: Literal["repeat", "fill"] = "repeat"
    """Patches that are repeated to fill PPEG's square are tokens of both layers (the official code), or only fill the square."""
    ppeg: bool = True
    """Convolutional positions between the layers."""
    conv_kernel: int | None = Bounded(33, ge=1)
    """Taps of the convolution of the values; odd. Null leaves it out."""
    dropout: float = Bounded(0.1, ge=0, lt=1)
    """Behind each attention."""


@register("transmil")
class TransMil(BagMethod):
    """The pooled vector is the class token behind the last LayerNorm."""

    Options = TransMilOptions
    paper = "Shao et al., TransMIL: Transformer based Correlated Multiple Instance Learning, NeurIPS 2021"
    options: TransMilOptions

    def __init__(self, options: TransMilOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        problems = []
        if o.dim % o.heads:
            problems.append(f"method.dim: {o.dim} is not a multiple of method.heads ({o.heads}); make it one")
        if o.conv_kernel and o.conv_kernel % 2 == 0:
            problems.append(f"method.conv_kernel: {o.conv_kernel} is even and has no centre; use {o.conv_kernel + 1}")
        nystrom = o.nystrom or ("library" if o.conventions == "published" else "exact_short")
        problems += exact_problems(o.attention, o.exact_tokens, o.landmarks)
        if o.attention == "auto" and nystrom != "exact_short":
            problems.append(
                f"method.attention=auto: method.nystrom is {nystrom}, the package's form, of which there is no exact one; set "
                "method.nystrom=exact_short"
            )
        if problems:
            raise MethodError(problems)
        self.network = TransMilNetwork(
            self.features,
            o.dim,
            heads=o.heads,
            landmarks=o.landmarks,
            iterations=o.pinv_iterations,
            conv_kernel=o.conv_kernel,
            nystrom=nystrom,
            exact_tokens=o.exact_tokens,
            repeat=o.square == "repeat",
            ppeg=o.ppeg,
            dropout=o.dropout,
        )

    def encode(self, batch: Batch) -> Encoded:
        """Tokens [B, N, C], pooled the class token [B, C]; zero where a slide has no patches."""
        class_BC, tokens = one_by_one(self.rows(batch), self.network)
        return Encoded.of_bags(tokens, class_BC.masked_fill(~batch.present["patches"][:, None], 0.0))

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """What the class token gives to patches in the last layer, without what it gives to itself. Not of the convolution of values."""
        x_BNF, mask_BN = self.bags(batch)
        return {"class token": shared_out(self.network.class_row(x_BNF, mask_BN.sum(1).clamp_min(1)), mask_BN)}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.network.weight.scored,)

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """One linear layer on the class token, with PyTorch's first weights as in the official code."""
        return LinearHead(pooled, target.outputs, norm=False, std=None)
