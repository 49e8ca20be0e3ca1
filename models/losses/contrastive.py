"""Contrastive losses between two views, over the global batch: equal in value and gradient for any number of ranks.

Every rank gathers all rows and computes the same loss; see models/parallel.py for the gradient.

Shape letters: B samples of this rank, G samples of all ranks, C width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.parallel import gather

SamePatient = Literal["positive", "ignore", "negative"]


class Temperature(nn.Module):
    """1 / tau, learned as its logarithm or fixed; tau never falls below `floor`."""

    log_scale: Tensor

    def __init__(self, tau: float = 0.07, learn: bool = True, floor: float = 0.01):
        super().__init__()
        start = torch.tensor([-math.log(tau)])
        self.most = -math.log(floor)
        if learn:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)

    def forward(self) -> Tensor:
        # The value is clamped, not the gradient, so that a scale at its limit can come down again.
        s = self.log_scale.float()
        return (s + (s.clamp_max(self.most) - s).detach()).exp()


@dataclass(frozen=True)
class Pairs:
    """All pairs of the global batch: similarities / tau, which are positives, which count at all, each [G, G]; rows that count, [G].

    Of views of one kind (`view_pairs`) there are 2 G rows and columns.
    """

    logits_GG: Tensor
    positive_GG: Tensor
    counts_GG: Tensor
    rows: Tensor


def all_pairs(
    a_BC: Tensor,
    b_BC: Tensor,
    scale: Tensor,
    weight_B: Tensor,
    patient_B: Tensor,
    same: SamePatient = "positive",
    text_B: Tensor | None = None,
    same_text: SamePatient = "ignore",
) -> Pairs:
    """Cosine similarities times `scale` between all a and all b of all ranks.

    Args:
        weight_B: 0 for a sample that is padding or lacks a view; it is in no pair.
        patient_B: a number a patient. Pairs of different samples of one patient are positives too, left out, or taken
            as negatives, by `same`.
        text_B: a number a text; pairs of different samples with equal texts are treated likewise, by `same_text`. Where one rule makes
            a pair positive and the other leaves it out, it is left out.
    """
    # Normalised before gathering: each rank does its own rows once. In float32, since a bf16 cosine has steps of 0.004, which a
    # temperature of 0.07 would turn into steps of 0.06 in the logits.
    a_GC, b_GC = (gather(F.normalize(x.float(), dim=-1)) for x in (a_BC, b_BC))
    return compared(a_GC @ b_GC.T * scale, weight_B, patient_B, same, text_B, same_text)


def compared(
    logits_GG: Tensor,
    weight_B: Tensor,
    patient_B: Tensor,
    same: SamePatient,
    text_B: Tensor | None = None,
    same_text: SamePatient = "ignore",
) -> Pairs:
    """Which of all pairs of all ranks, whose similarities are given, are positives and which count; arguments as in `all_pairs`."""
    real_G = gather(weight_B > 0)
    # A sample's own two views are the diagonal on every rank, because gather keeps the order of ranks for a and b alike.
    itself_GG = torch.eye(len(real_G), dtype=torch.bool, device=real_G.device)
    counts_GG, positive_GG = real_G[:, None] & real_G[None], itself_GG
    for number_B, rule in ((patient_B, same), (text_B, same_text)):
        if number_B is None or rule == "negative":
            continue
        number_G = gather(number_B)
        alike_GG = number_G[:, None] == number_G[None]
        if rule == "positive":
            positive_GG = positive_GG | alike_GG
        else:
            counts_GG = counts_GG & (itself_GG | ~alike_GG)
    return Pairs(logits_GG, positive_GG & counts_GG, counts_GG, real_G)


def view_pairs(
    a_BC: Tensor, b_BC: Tensor, scale: float, weight_B: Tensor, patient_B: Tensor, same: SamePatient = "ignore"
) -> Pairs:
    """Cosine similarities times `scale` among all first and second views of all ranks, R = 2 G: first ones, then second ones.

    No view is a candidate for itself. The other view of the same image is its positive; arguments as in `all_pairs`.
    """
    z_RC = torch.cat([gather(F.normalize(x.float(), dim=-1)) for x in (a_BC, b_BC)])
    real_R, patient_R = gather(weight_B > 0).repeat(2), gather(patient_B).repeat(2)
    number_R = torch.arange(len(z_RC) // 2, device=z_RC.device).repeat(2)
    itself_RR = torch.eye(len(z_RC), dtype=torch.bool, device=z_RC.device)
    one_image_RR, one_patient_RR = (x[:, None] == x[None] for x in (number_R, patient_R))
    counts_RR = real_R[:, None] & real_R[None] & ~itself_RR
    positive_RR = one_patient_RR | one_image_RR if same == "positive" else one_image_RR
    if same == "ignore":
        counts_RR = counts_RR & (one_image_RR | ~one_patient_RR)
    return Pairs(z_RC @ z_RC.T * scale, positive_RR & counts_RR, counts_RR, real_R)


def nt_xent(pairs: Pairs) -> Tensor:
    """SimCLR eq. 1, the mean over all views of `view_pairs`; ln(2 G - 1) at chance.

    The published code adds the means over first and over second views, which is twice this number.
    """
    return one_way(pairs)


def one_way(pairs: Pairs) -> Tensor:
    """Cross-entropy a -> b alone: each row of a among all of b that count with it; ln B at chance."""
    logits_GG = pairs.logits_GG.masked_fill(~pairs.counts_GG, -torch.inf)
    return _rows(logits_GG, pairs, 1).sum() / pairs.rows.sum().clamp_min(1)


def symmetric(pairs: Pairs) -> Tensor:
    """Mean of the two cross-entropies a -> b and b -> a (InfoNCE, as in CLIP); ln B at chance.

    A row with several positives has the mean of their log-probabilities.
    """
    return directed(pairs, 0.5)


def directed(pairs: Pairs, a_to_b: float) -> Tensor:
    """a_to_b x cross-entropy of the rows + (1 - a_to_b) x that of the columns (ConVIRT, Zhang et al. 2022); ln B at chance."""
    # What does not count leaves the softmax's denominator too: padding must not make a batch look harder.
    logits_GG = pairs.logits_GG.masked_fill(~pairs.counts_GG, -torch.inf)
    rows = pairs.rows.sum().clamp_min(1)
    a, b = (_rows(logits_GG, pairs, axis).sum() / rows for axis in (1, 0))
    return a_to_b * a + (1 - a_to_b) * b


def _rows(logits_GG: Tensor, pairs: Pairs, axis: int) -> Tensor:
    """-mean over positives of log softmax along `axis`, [G]; 0 for a sample that does not count."""
    # A row without any pair would be a softmax over nothing; it is switched off before, so that no NaN reaches a gradient.
    safe_GG = torch.where(pairs.counts_GG.any(axis, keepdim=True), logits_GG, 0.0)
    log_p_GG = safe_GG.log_softmax(axis)
    # where, not a product: 0 times the -inf of a pair that does not count would be NaN.
    picked_GG = torch.where(pairs.positive_GG, log_p_GG, 0.0)
    return -picked_GG.sum(axis) / pairs.positive_GG.sum(axis).clamp_min(1)


def joint(pairs: Pairs) -> Tensor:
    """MGI eq. 1 with the minus sign and the mean it needs: one softmax over all B^2 pairs.

    -1/B sum_i log( exp(s_ii) / sum_jk exp(s_jk) ): 2 ln B at chance, never below ln B when pairs are one to one.
    Several positives of a sample share its term.
    """
    G = len(pairs.logits_GG)
    flat = pairs.logits_GG.masked_fill(~pairs.counts_GG, -torch.inf).flatten()
    # A softmax over nothing at all; the sum keeps every rank's gradient (of zeros) alive, as the engine expects one.
    if not bool(pairs.counts_GG.any()):
        return pairs.logits_GG.sum() * 0.0
    picked_GG = torch.where(pairs.positive_GG, flat.log_softmax(0).view(G, G), 0.0)
    each_G = -picked_GG.sum(1) / pairs.positive_GG.sum(1).clamp_min(1)
    return each_G.sum() / pairs.rows.sum().clamp_min(1)


@torch.no_grad()
def retrieval(pairs: Pairs) -> dict[str, Tensor]:
    """Share of samples whose nearest other view is a positive, both ways, and mean similarity / tau of both kinds."""
    logits_GG = pairs.logits_GG.masked_fill(~pairs.counts_GG, -torch.inf)
    rows_G, count = pairs.rows, pairs.rows.sum().clamp_min(1)
    there = pairs.positive_GG.gather(1, logits_GG.argmax(1, keepdim=True))[:, 0]
    back = pairs.positive_GG.gather(0, logits_GG.argmax(0, keepdim=True))[0]
    negative_GG = pairs.counts_GG & ~pairs.positive_GG
    return {
        "top1_a_to_b": (there & rows_G).sum() / count,
        "top1_b_to_a": (back & rows_G).sum() / count,
        "positive": (pairs.logits_GG * pairs.positive_GG).sum() / pairs.positive_GG.sum().clamp_min(1),
        "negative": (pairs.logits_GG * negative_GG).sum() / negative_GG.sum().clamp_min(1),
    }


@torch.no_grad()
def chance(pairs: Pairs, whole: bool = False) -> Tensor:
    """The loss of this very batch were all its similarities equal: ln of the candidates of a row, or (`whole`) of all pairs.

    Equal to ln B (2 ln B) for B samples that all count; less where samples are padding or lack a view.
    """
    if whole:
        return pairs.counts_GG.sum().clamp_min(1).float().log()
    # A row that is padding has no candidates; clamped, its logarithm is 0 and its weight is 0 anyway.
    candidates_2G = torch.stack([pairs.counts_GG.sum(axis) for axis in (0, 1)]).float()
    return (candidates_2G.clamp_min(1).log() * pairs.rows).sum() / (2 * pairs.rows.sum().clamp_min(1))
