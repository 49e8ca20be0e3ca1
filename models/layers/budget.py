"""Which tokens of several modalities a sample shows, as many in all of every sample (Bachmann et al. 2022, MultiMAE, section 3.2).

Shape letters: B samples, M modalities, N places of one, S places of all, K kept ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def kept_in_budget(
    share_BM: Tensor, noise_BS: Tensor, order_BS: Tensor, present_BM: Tensor, sizes: Sequence[int], budget: int
) -> tuple[Tensor, Tensor]:
    """Places that are kept [B, K], and whether each place is hidden [B, S] (an absent modality's are).

    Of each modality share x K places are to be seen, in a random order; then of all modalities together the first K, those to be seen
    first, in another: so the rounding of shares, and a modality that is shorter than its share, cost no token.

    Args:
        share_BM: sums to 1 a sample, 0 where a modality is absent.
        noise_BS, order_BS: uniform in [0, 1).
    """
    count_BM = (share_BM * budget).round()
    ranks = [x.argsort(stable=True, dim=1) for x in noise_BS.split(list(sizes), 1)]
    seen_BS = torch.cat([rank < count_BM[:, i : i + 1] for i, rank in enumerate(ranks)], 1)
    absent_BS = torch.cat([~present_BM[:, i : i + 1].expand(-1, N) for i, N in enumerate(sizes)], 1)
    last_BS = (~seen_BS).float() + 2.0 * absent_BS
    keep_BK = (last_BS + order_BS).argsort(stable=True, dim=1)[:, :budget]
    return keep_BK, torch.ones_like(seen_BS).scatter(1, keep_BK, False)
