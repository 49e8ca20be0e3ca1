"""What each hidden patch is asked for where a tokenizer names patches by codes: a mixture of several (mc-BEiT, Li et al. 2022).

Shape letters: B images, N patches, M hidden ones, D width, V codes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mixed_codes(
    logits_BNV: Tensor,
    tokens_BND: Tensor,
    masked_BM: Tensor,
    omega: float,
    temperature: float,
    similarity_temperature: float = 1.0,
) -> Tensor:
    """The codes to be named at hidden places, as shares that sum to 1, [B, M, V].

    p = softmax(logits / temperature) is what the tokenizer says of each place. A place takes omega of its target from all places of the
    image, weighed by softmax(cosine / similarity_temperature) of the transformer's tokens, and the rest from its own p.
    """
    p_BNV = (logits_BNV.float() / temperature).softmax(-1)
    unit_BND = F.normalize(tokens_BND.float(), dim=-1)
    cosine_BMN = unit_BND.take_along_dim(masked_BM[..., None], 1) @ unit_BND.mT
    others_BMV = (cosine_BMN / similarity_temperature).softmax(-1) @ p_BNV
    return omega * others_BMV + (1 - omega) * p_BNV.take_along_dim(masked_BM[..., None], 1)


def code_cost(made_BMV: Tensor, target_BMV: Tensor) -> Tensor:
    """Cross-entropy of logits with the asked shares, [B, M]; ln V at chance, and never below the shares' own entropy."""
    return -(target_BMV * made_BMV.float().log_softmax(-1)).sum(-1)
