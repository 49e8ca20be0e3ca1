"""Losses of downstream tasks over the global batch (see models/parallel.py): each is a mean over the samples that count.

A target is float with NaN where it is unknown (classes and grades may be integers, negative where unknown); what is unknown
is left out of sum and count. A batch with nothing known gives 0 with gradient 0. All sums are float32.

Shape letters: B samples of this rank, G of all ranks, K outputs, H x W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.contract import TargetSpec
from models.losses.classes import cross_entropy
from models.losses.failure_time import failure_time_nll, failure_time_risk
from models.losses.survival import intervals_nll, intervals_risk
from models.parallel import gather, global_mean, global_means, global_sum

Reduction = Literal["mean", "sum"]
Ties = Literal["efron", "breslow"]


def of_kind(asked: TargetSpec, logits_BK: Tensor, target_BT: Tensor, weight_B: Tensor, ties: Ties = "efron") -> Tensor:
    """The loss of a task's kind (no segmentation); regression's targets come standardised."""
    if asked.kind == "regression":
        return mse(logits_BK, target_BT, weight_B)
    if asked.kind == "survival" and asked.edges is not None:
        return intervals_nll(logits_BK, target_BT, weight_B, asked.edges, asked.alpha)
    if asked.kind == "survival" and asked.distribution:
        return failure_time_nll(logits_BK, target_BT, weight_B, asked.distribution, asked.log_time)
    if asked.kind == "survival":
        return cox(logits_BK[:, 0], target_BT, weight_B, ties)
    if asked.kind == "multiclass":
        return multiclass(logits_BK, target_BT[:, 0], weight_B)
    if asked.kind == "ordinal":
        return ordinal(logits_BK, target_BT[:, 0], weight_B)
    if asked.third:
        return answers(logits_BK.unflatten(1, (-1, 3)), target_BT, weight_B)
    return bce(logits_BK, target_BT, weight_B)


def survival_risk(asked: TargetSpec, logits_BK: Tensor) -> Tensor:
    """What is reported of survival [B]: higher dies earlier."""
    if asked.distribution:
        return failure_time_risk(logits_BK, asked.distribution)
    return logits_BK[:, 0] if asked.edges is None else intervals_risk(logits_BK)


def bce(logits_BK: Tensor, target_BK: Tensor, weight_B: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Binary cross-entropy of logits; one column (binary) or K independent ones (multilabel).

    "mean" is over all known entries (so a label that is rarely known weighs little); "sum" adds the columns' own means, as
    papers do that report a sum of losses.
    """
    known_BK, target_BK = _known(logits_BK, target_BK)
    # From the logit, not from a probability: log(1 - p) stays finite where p rounds to 1. float32: bf16 logits have steps of
    # 0.03 at 4, which would show in the gradient.
    each_BK = F.binary_cross_entropy_with_logits(_columns(logits_BK).float(), target_BK, reduction="none")
    return _reduced(each_BK, known_BK * weight_B.float()[:, None], reduction)


def clamped_bce(logits_BK: Tensor, target_BK: Tensor, weight_B: Tensor, margin: float) -> Tensor:
    """`bce` of the probability clamped to [margin, 1 - margin], as the code of Ilse et al. 2018 has it: the gradient is 0 beyond."""
    known_BK, target_BK = _known(logits_BK, target_BK)
    # Clamped on purpose where `bce` avoids it: this form exists to equal published numbers.
    p_BK = _columns(logits_BK).float().sigmoid().clamp(margin, 1 - margin)
    return _reduced(
        F.binary_cross_entropy(p_BK, target_BK, reduction="none"), known_BK * weight_B.float()[:, None], "mean"
    )


def answers(logits_BK3: Tensor, target_BK: Tensor, weight_B: Tensor) -> Tensor:
    """Cross-entropy of K labels with three answers each (0 no, 1 yes, 2 uncertain), mean over all known entries."""
    known_BK, target_BK = _known(logits_BK3[..., 0], target_BK)
    each_BK = F.cross_entropy(logits_BK3.float().movedim(2, 1), target_BK.long(), reduction="none")
    return _reduced(each_BK, known_BK * weight_B.float()[:, None], "mean")


def multiclass(logits_BK: Tensor, class_B: Tensor, weight_B: Tensor) -> Tensor:
    """Cross-entropy over K classes."""
    return cross_entropy(logits_BK, _codes(class_B, logits_BK.shape[1]), weight_B)


def ordinal_target(grade_B: Tensor, K: int) -> Tensor:
    """Grade g -> K values whose first g + 1 are 1 (Cheng et al. 2008), NaN where the grade is unknown; [B, K]."""
    grade_B = _codes(grade_B, K)
    # Column 0 is always 1 and teaches nothing; it stays so that K grades have K columns, as in the published code.
    target_BK = (torch.arange(K, device=grade_B.device) <= grade_B[:, None]).float()
    return target_BK.masked_fill(grade_B[:, None] < 0, torch.nan)


def ordinal(logits_BK: Tensor, grade_B: Tensor, weight_B: Tensor) -> Tensor:
    """Binary cross-entropy of K logits, the k-th saying "at least grade k"; the 0-th is always 1."""
    return bce(logits_BK, ordinal_target(grade_B, logits_BK.shape[1]), weight_B)


def mse(value_BK: Tensor, target_BK: Tensor, weight_B: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Squared error; "mean" over all known entries, "sum" of the columns' own means (for z-scored columns: K at chance)."""
    known_BK, target_BK = _known(value_BK, target_BK)
    each_BK = (_columns(value_BK).float() - target_BK).square()
    return _reduced(each_BK, known_BK * weight_B.float()[:, None], reduction)


def cox(log_risk_B: Tensor, target_B2: Tensor, weight_B: Tensor, ties: Ties = "efron") -> Tensor:
    """Negative log partial likelihood of proportional hazards (Cox 1972), divided by the number of events.

    The risk set is the global batch, gathered over ranks with gradient: all samples whose time is not below the event's.
    Accumulating several batches therefore is another loss than one large batch.

    Args:
        log_risk_B: [B] or [B, 1]; higher dies earlier. Only differences matter.
        target_B2: time, and 1 for an event or 0 for a censored case; NaN in either leaves the sample out.
        weight_B: a sample counts where it is above 0 (a weight in a risk set has no agreed meaning).
        ties: of d events at one time, each sees the whole risk set ("breslow"; Breslow 1974), or the k-th
            (k = 0 .. d - 1) the risk set less k/d of the events' own risks ("efron"; Efron 1977).

    Returns:
        0 with gradient 0 where the batch has no event.
    """
    # A risk set is everybody who is still alive, wherever they are: without the other ranks' samples two ranks would train on
    # another likelihood than one.
    r_G = gather(log_risk_B.reshape(len(target_B2)).float())
    target_G2, weight_G = gather(target_B2.float()), gather(weight_B.float())
    counts_G = (weight_G > 0) & ~target_G2.isnan().any(1)
    event_G = counts_G & (target_G2[:, 1] > 0)
    # One sum over every row, so that each rank's gradient exists and the ranks' collective calls match, event or not.
    nothing = r_G.sum() * 0.0
    if not bool(event_G.any()):
        return nothing
    # Falling time makes every risk set a beginning of the list, so that one running log-sum gives all of them. Stable, so that
    # ties come in the same order on every rank.
    order = target_G2[counts_G, 0].argsort(descending=True, stable=True)
    r, time, event = r_G[counts_G][order], target_G2[counts_G, 0][order], event_G[counts_G][order]
    log_sum = _risk_sets(r, time, event, ties)
    return nothing + (log_sum - r[event]).sum() / event.sum()


def _risk_sets(r: Tensor, time: Tensor, event: Tensor, ties: Ties) -> Tensor:
    """log of the sum over the risk set, of each event; samples come with falling time."""
    _, group, size = time.unique_consecutive(return_inverse=True, return_counts=True)
    # A running sum has all with an equal time only at the last of them.
    log_all = r.logcumsumexp(0)[size.cumsum(0) - 1][group][event]
    if ties == "breslow":
        return log_all
    assert ties == "efron", f"ties '{ties}' is neither efron nor breslow"
    group, died = group[event], r[event]
    # The tied events' risks as a share of the whole set's, by a difference of logarithms: exp of a risk alone can overflow.
    share = torch.zeros_like(size, dtype=r.dtype).index_add(0, group, (died - log_all).exp())
    d = torch.bincount(group, minlength=len(size))
    before = torch.arange(len(group), device=r.device) - (d.cumsum(0) - d)[group]
    # share <= 1 and before / d < 1, so the logarithm's argument stays above 0 whatever the scale of the risks.
    return log_all + torch.log1p(-(before / d[group]) * share[group])


# ------------------------------------------------------------------------------------------------------------ segmentation


def mask_bce(logits_BKHW: Tensor, mask_BKHW: Tensor, weight_B: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels and channels of an image, then over images."""
    target_BKHW = _mask(logits_BKHW, mask_BKHW)
    # Over an image's pixels first: a large image in a ragged batch must not weigh more than a small one.
    each = F.binary_cross_entropy_with_logits(logits_BKHW.float(), target_BKHW, reduction="none")
    return _per_image(each.flatten(1).mean(1), weight_B)


def mask_focal(
    logits_BKHW: Tensor, mask_BKHW: Tensor, weight_B: Tensor, gamma: float = 2.0, alpha: float = 0.5
) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 5), mean over an image, then over images.

    alpha is the weight of foreground, 1 - alpha of background (0.25 in the paper).
    """
    target = _mask(logits_BKHW, mask_BKHW)
    # log p_t directly from the logit: 1 - p_t and its logarithm stay exact where p rounds to 0 or 1.
    signed = logits_BKHW.float() * (2 * target - 1)
    alpha_t = alpha * target + (1 - alpha) * (1 - target)
    each = -alpha_t * (-signed).sigmoid() ** gamma * F.logsigmoid(signed)
    return _per_image(each.flatten(1).mean(1), weight_B)


def soft_dice(
    logits_BKHW: Tensor, mask_BKHW: Tensor, weight_B: Tensor, squared: bool = False, smooth: float = 1.0
) -> Tensor:
    """1 - (2 sum p t + s) / (sum p + sum t + s), mean over an image's channels, then over images.

    Args:
        squared: sum p^2 + sum t^2 in the denominator (Milletari et al. 2016).
        smooth: s; above 0 an empty mask that is predicted empty scores 0 loss instead of 0 / 0.
    """
    assert smooth > 0, "soft Dice of an empty mask needs smooth > 0"
    t = _mask(logits_BKHW, mask_BKHW).flatten(2)
    p = logits_BKHW.float().sigmoid().flatten(2)
    # Sums over 448 x 448 pixels in bf16 stop growing at 256; they are float32 since _mask and the sigmoid above are.
    size = (p.square() + t.square() if squared else p + t).sum(2)
    dice_BK = (2 * (p * t).sum(2) + smooth) / (size + smooth)
    return _per_image(1 - dice_BK.mean(1), weight_B)


def mask_mse(logits_BKHW: Tensor, mask_BKHW: Tensor, weight_B: Tensor) -> Tensor:
    """Squared error of the probability, mean over pixels and channels of an image, then over images."""
    each = (logits_BKHW.float().sigmoid() - _mask(logits_BKHW, mask_BKHW)).square()
    return _per_image(each.flatten(1).mean(1), weight_B)


def batch_dice(logits_BKHW: Tensor, mask_BKHW: Tensor, weight_B: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - (2 sum p t + s) / (sum p + sum t + s) with sums over the whole global batch, mean over channels (Buda et al. 2019).

    An image without the object costs little beside one that has it; samples of weight 0 enter no sum.
    """
    on_B = (weight_B > 0).view(-1, 1, 1)
    t = _mask(logits_BKHW, mask_BKHW).flatten(2)
    p = logits_BKHW.float().sigmoid().flatten(2)
    both, size = (torch.where(on_B, x, 0.0).sum((0, 2)) for x in (p * t, p + t))
    both_K, size_K = global_sum(torch.stack([both, size]))
    return 1 - ((2 * both_K + smooth) / (size_K + smooth)).mean()


def class_dice(logits_BKHW: Tensor, mask_BKHW: Tensor, weight_B: Tensor, smooth: float = 0.01) -> Tensor:
    """1 - mean of 2 (sum p t + s) / (sum p + sum t + s) over images, channels, and object and background of each (Oktay et al. 2018).

    A class that is neither there nor drawn scores 2, so that the loss may fall below 0. Two softmax channels are one sigmoid here.
    """
    t = _mask(logits_BKHW, mask_BKHW).flatten(2)
    p = logits_BKHW.float().sigmoid().flatten(2)
    score = torch.stack(
        [2 * ((a * b).sum(2) + smooth) / ((a + b).sum(2) + smooth) for a, b in ((p, t), (1 - p, 1 - t))]
    )
    return _per_image(1 - score.mean((0, 2)), weight_B)


def bce_dice(
    logits_BKHW: Tensor, mask_BKHW: Tensor, weight_B: Tensor, bce_weight: float = 1.0, dice_weight: float = 1.0
) -> Tensor:
    """bce_weight * BCE + dice_weight * soft Dice (1 : 1 here for MGI; 0.2 : 0.8 in ContIG's PALM task)."""
    dice = soft_dice(logits_BKHW, mask_BKHW, weight_B)
    return bce_weight * mask_bce(logits_BKHW, mask_BKHW, weight_B) + dice_weight * dice


def focal_dice(
    logits_BKHW: Tensor, mask_BKHW: Tensor, weight_B: Tensor, focal_weight: float = 2.0, dice_weight: float = 1.0
) -> Tensor:
    """2 focal + soft Dice with squares, the mix of mrm_record's SIIM task.

    Theirs scores two softmax channels; with one logit for foreground the Dice term is the same function, the focal term
    counts each pixel once instead of once a channel.
    """
    dice = soft_dice(logits_BKHW, mask_BKHW, weight_B, squared=True)
    return focal_weight * mask_focal(logits_BKHW, mask_BKHW, weight_B) + dice_weight * dice


# ----------------------------------------------------------------------------------------------------------------- plumbing


def _columns(x: Tensor) -> Tensor:
    return x[:, None] if x.ndim == 1 else x


def _known(value: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Which entries are known, and the targets with 0 for the others; both float32 [B, K]."""
    target_BK = _columns(target).float()
    assert _columns(value).shape == target_BK.shape, f"outputs {tuple(value.shape)}, targets {tuple(target.shape)}"
    # NaN is taken out of the target before any arithmetic: 0 * NaN is NaN, so a weight of 0 would not silence it.
    known_BK = ~target_BK.isnan()
    return known_BK.float(), torch.where(known_BK, target_BK, 0.0)


def _codes(code_B: Tensor, K: int) -> Tensor:
    """Integer codes, -1 where unknown."""
    if code_B.is_floating_point():
        # NaN as an integer is whatever the processor makes of it.
        code_B = torch.where(code_B.isnan(), -1.0, code_B)
    codes_B = code_B.long()
    assert bool((codes_B < K).all()), f"a class of {int(codes_B.max())}, but there are {K} outputs"
    return codes_B


def _reduced(each_BK: Tensor, weight_BK: Tensor, reduction: Reduction) -> Tensor:
    sum_BK = each_BK * weight_BK
    if reduction == "mean":
        return global_mean(sum_BK.sum(), weight_BK.sum())
    assert reduction == "sum", f"reduction '{reduction}' is neither mean nor sum"
    # Each column by its own count of known values over all ranks; a column that nobody knows in this batch adds 0.
    return global_means(sum_BK.sum(0), weight_BK.sum(0)).sum()


def _mask(logits_BKHW: Tensor, mask_BKHW: Tensor) -> Tensor:
    assert logits_BKHW.shape == mask_BKHW.shape, f"logits {tuple(logits_BKHW.shape)}, mask {tuple(mask_BKHW.shape)}"
    return mask_BKHW.float()


def _per_image(loss_B: Tensor, weight_B: Tensor) -> Tensor:
    weight_B = weight_B.float()
    return global_mean((loss_B * weight_B).sum(), weight_B.sum())
