"""Whether two modalities are of one sample, where some samples are given another's (ITM: Chen et al. 2020, UNITER; Chen et al. 2022, M3AE).

Shape letters: B samples of this rank, G samples of all ranks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parallel import gather, global_mean, own_rows


@torch.no_grad()
def partners(
    draw_B: Tensor, counts_B: Tensor, patient_B: Tensor, same_patient: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each sample whose second modality it is given: half of those that count keep their own, the others get another's.

    Args:
        draw_B: a random number of each sample, which decides; ranks make no difference.
        counts_B: samples that have both modalities and count.
        patient_B: a number a patient.
        same_patient: whether another sample of the same patient may be given, as if it were another's.

    Returns:
        Places [B] among all ranks' samples, whether they are the own ones [B], and whether the sample is asked [B]: not where the batch
        holds no other that it could be given.
    """
    draw_G, counts_G, patient_G = (gather(x) for x in (draw_B.float(), counts_B, patient_B))
    G = len(draw_G)
    itself_G = torch.arange(G, device=draw_G.device)
    # Places in the order of the draws, those that do not count at the end.
    order_G = torch.where(counts_G, draw_G, torch.inf).argsort(stable=True)
    place_G = torch.empty_like(order_G).scatter(0, order_G, itself_G)
    keeps_G = place_G < counts_G.sum() // 2
    other_GG = itself_G[:, None] != itself_G if same_patient else patient_G[:, None] != patient_G
    fits_GG = counts_G[:, None] & counts_G & other_GG
    # The next one in that order, around its end.
    ahead_GG = torch.where(fits_GG, (place_G - place_G[:, None]) % G, G)
    given_G = torch.where(keeps_G | ~fits_GG.any(1), itself_G, ahead_GG.argmin(1))
    asked_G = counts_G & (keeps_G | fits_GG.any(1))
    return own_rows(given_G), own_rows(keeps_G), own_rows(asked_G)


def matched(logits_B2: Tensor, own_B: Tensor, asked_B: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of (another's, own) over the samples of all ranks that are asked, ln 2 at chance; and the share told right."""
    cost_B = F.cross_entropy(logits_B2.float(), own_B.long(), reduction="none")
    right_B, weight_B = (logits_B2.argmax(1) == own_B).float(), asked_B.float()
    return global_mean((cost_B * weight_B).sum(), weight_B.sum()), global_mean(
        (right_B * weight_B).sum().detach(), weight_B.sum()
    )
