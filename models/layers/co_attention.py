"""Attention of one modality's tokens to another's, with one head.

Shape letters: B samples, L queries, N instances of a bag, P of all bags, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.attention import attention


class CoAttention(nn.Module):
    """Queries [B, L, D], instances [P, D] -> [B, L, D]: softmax(q k^T / sqrt(D)) v and a projection, all with biases; no residual.

    It is ordinary attention with one head; first weights are those of PyTorch's own layer.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        for layer in (self.query, self.key_value):
            # Xavier's bound for query, key and value as one matrix.
            nn.init.uniform_(layer.weight, -((6 / (4 * dim)) ** 0.5), (6 / (4 * dim)) ** 0.5)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.out.bias)
        self.scored = nn.Identity()  # what may be asked for, or changed, between score and softmax

    def forward(self, query_BLD: Tensor, h_PD: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """Instances of all bags, one bag after another, and how many each has; a bag without any gives its queries zeros to project."""
        query_BLD, of_bag = self.query(query_BLD), self.key_value(h_PD).split(lengths)
        found = [self._found(q_LD, *kv_NE.chunk(2, -1)) for q_LD, kv_NE in zip(query_BLD, of_bag, strict=True)]
        return self.out(torch.stack(found))

    def _found(self, q_LD: Tensor, k_ND: Tensor, v_ND: Tensor) -> Tensor:
        if len(k_ND) and not self.training and torch.is_grad_enabled():
            # Where an answer is explained, scores stand in a tensor; elsewhere a kernel keeps them to itself.
            score_NL = self.scored((k_ND @ q_LD.mT).float() * k_ND.shape[-1] ** -0.5)
            return score_NL.softmax(0).to(v_ND.dtype).mT @ v_ND
        if len(k_ND):
            return attention(q_LD[None, None], k_ND[None, None], v_ND[None, None])[0, 0]
        # A softmax over nothing has no value. Zeros that keep queries, keys and values in the graph, as ZeRO needs.
        return q_LD * k_ND.sum(0) + v_ND.sum(0)

    @torch.no_grad()
    def weights(self, query_BLD: Tensor, h_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """Which instance of its bag each query attends to, [B, L, N], float32; rows sum to 1, padding has 0.

        `mask_BN`: real instances; a sample without any attends to the first.
        """
        k_BND = self.key_value(h_BND).chunk(2, -1)[0]
        score_BLN = (self.query(query_BLD) @ k_BND.mT).float() * k_BND.shape[-1] ** -0.5
        return score_BLN.masked_fill(~keys(mask_BN)[:, None], -torch.inf).softmax(-1)


def keys(mask_BN: Tensor) -> Tensor:
    """The real instances, and the first where none is real: a softmax over nothing has no value."""
    first_N = torch.arange(mask_BN.shape[1], device=mask_BN.device) == 0
    return mask_BN | (~mask_BN.any(1, keepdim=True) & first_N)
