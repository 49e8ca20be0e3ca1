"""Losses of MRM (Yang et al., ICCV 2023): relation matching (eq. 8-13) and reconstruction (eq. 7), over the global batch.

Shape letters: B samples of this rank, G samples of all ranks, N samples drawn for matching, F features, C width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parallel import gather, global_mean, total

Reduction = Literal["mean", "sum"]
MatchMode = Literal["subset", "index_pairs"]


def cosines(a_NC: Tensor, b_MC: Tensor) -> Tensor:
    """sim(a_i, b_j), [N, M], float32 (eq. 8, 9, 11)."""
    return F.normalize(a_NC.float(), dim=-1) @ F.normalize(b_MC.float(), dim=-1).mT


def squared_error(
    predicted: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    weight: Mapping[str, Tensor],
    reduction: Reduction = "mean",
    logits: frozenset[str] = frozenset(),
) -> Tensor:
    """Squared error over all parts of one modality together (one addend of eq. 7).

    Args:
        predicted, target: {part: [B, F]}.
        weight: {part: [B, F]} or [B, 1]: 0 where a value is unknown, its part absent, or its sample does not count.
        reduction: "mean" divides by the number of known values; "sum" is the squared norm of eq. 7, averaged over the
            samples that have any value.
        logits: parts that hold 0 or 1 and are predicted as logits, with binary cross-entropy instead.
    """
    sum_, count, some_B = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for name, value in predicted.items():
        # The parts' sums are added before dividing: a modality of 8,000 SNPs in 125 parts is one mean over SNPs, not 125 means.
        w = weight[name].float().expand_as(value)
        if name in logits:
            gap = F.binary_cross_entropy_with_logits(value.float(), target[name].float(), reduction="none")
        else:
            gap = (value.float() - target[name].float()).square()
        sum_, count = sum_.to(gap.device) + (gap * w).sum(), count.to(gap.device) + w.sum()
        some_B = some_B.to(gap.device) + w.amax(1)
    return global_mean(sum_, count if reduction == "mean" else some_B.clamp_max(1).sum())


def draw_pairs(draw_B2: Tensor, weight_B: Tensor, n: int, mode: MatchMode) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples whose relations are matched: places i and j in the global batch [N] each, and which of the two count.

    The draws come with the samples, so the choice does not depend on how the batch lies on ranks. `subset` draws n
    samples without replacement, the same for i and j; `index_pairs` draws i and j apart.
    """
    draw_G2, weight_G = gather(draw_B2), gather(weight_B.float())
    # Draws lie in [0, 1): with 2 added, a sample of no weight comes after all that count, and is taken only if they run out.
    late_G2 = draw_G2 + 2.0 * (weight_G == 0)[:, None]
    i = late_G2[:, 0].argsort()[:n]
    j = i if mode == "subset" else late_G2[:, 1].argsort()[:n]
    return i, j, weight_G[i] > 0, weight_G[j] > 0


class Matching:
    """Relation matching over the drawn samples of one global batch.

    Vectors are [B, C] of the intact and the masked pass. Relations that involve genes are averaged over the pairs whose
    members have them.
    """

    def __init__(
        self,
        image: tuple[Tensor, Tensor],
        genes: tuple[Tensor, Tensor] | None,
        draw_B2: Tensor,
        weight_B: Tensor,
        has_genes_B: Tensor,
        n: int = 8,
        mode: MatchMode = "subset",
    ):
        self.i, self.j, self.counts_i, self.counts_j = draw_pairs(draw_B2, weight_B, n, mode)
        self.pairs = mode == "index_pairs"
        # All ranks hold all vectors and compute the same matrix; `gather` sends each rank the gradient of its own rows alone.
        self.image = tuple(gather(z) for z in image)
        self.genes = None if genes is None else tuple(gather(z) for z in genes)
        has_G = gather(has_genes_B)
        self.genes_i, self.genes_j = self.counts_i & has_G[self.i], self.counts_j & has_G[self.j]

    def losses(self, shuffled: bool = False) -> tuple[Tensor, Tensor]:
        """L_self (eq. 10, the factor 1/2 over both terms) and L_cross (eq. 12).

        Shuffled: the masked vectors belong to other samples of the draw, which is the value for features that carry
        nothing of the sample; without gradient it is the yardstick beside the losses.
        """
        i, j = self.i, self.j
        mi, keep_i = _turned(i, self.counts_i) if shuffled else (i, self.counts_i)
        mj, keep_j = _turned(j, self.counts_j) if shuffled else (j, self.counts_j)
        z, zm = self.image
        own = self._gap(cosines(z[i], z[j]), cosines(zm[mi], zm[mj]), keep_i, keep_j)
        # The cross term is 0 with a gradient path, so that logs and backward look alike whether a batch has genes or not.
        if self.genes is None:
            return 0.5 * own, own * 0.0
        g, gm = self.genes
        has_i, has_j = self.genes_i, self.genes_j
        if shuffled:
            has_i, has_j = has_i & _turned(has_i, self.counts_i)[0], has_j & _turned(has_j, self.counts_j)[0]
        twin = self._gap(cosines(g[i], g[j]), cosines(gm[mi], gm[mj]), has_i, has_j)
        cross = self._gap(cosines(z[i], g[j]), cosines(zm[mi], gm[mj]), keep_i, has_j)
        return 0.5 * (own + twin), cross

    def _gap(self, a_NN: Tensor, b_NN: Tensor, counts_i: Tensor, counts_j: Tensor) -> Tensor:
        """Mean squared difference of two relation matrices over the pairs that count."""
        # Pairs, not samples, are averaged: with few gene-bearing samples their relations would otherwise be diluted by zeros.
        gap, both = (a_NN - b_NN).square(), counts_i[:, None] & counts_j[None]
        if self.pairs:
            gap, both = gap.diagonal(), both.diagonal()
        return (gap * both).sum() / both.sum().clamp_min(1)


def _turned(x_N: Tensor, counts_N: Tensor) -> tuple[Tensor, Tensor]:
    """Each of the counting entries (they come first) replaced by the next one, the last by the first."""
    n = counts_N.sum().clamp_min(1)
    places = (torch.arange(len(x_N), device=x_N.device) + 1) % n
    return x_N[places], counts_N


def colour_mean_baseline(target_BPF: Tensor, colours: int, weight_B: Tensor) -> Tensor:
    """The loss of predicting the mean colour of the global batch's images everywhere; without gradient."""
    x = target_BPF.detach().float().unflatten(-1, (-1, colours))
    w = weight_B.float()
    # Sums of colour and of weight travel in one collective call.
    sums = total(torch.stack([torch.einsum("bpkc,b->c", x, w), w.sum().mul(x.shape[1] * x.shape[2]).expand(colours)]))
    mean_C = sums[0] / sums[1].clamp_min(1)
    gap_B = (x - mean_C).square().mean((1, 2, 3))
    return global_mean((gap_B * w).sum(), w.sum())
