"""Attention pooling of a bag's tokens into logits, log risks or standardised values.

Shape letters: B samples, L tokens, D width of the encoder, A width of the attention, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.contract import Encoded, Head, HeadOutput
from models.layers.pooling import bag_softmax


class BagHead(Head):
    """Tokens [B, L, D] and which are real [B, L] -> [B, K]: gated attention pooling, then Linear.

    The weight of token h is softmax over the bag of w^T (tanh(V h) * sigmoid(U h)) (Ilse et al. 2018, eq. 9). The order
    of the tokens does not matter; a bag without any real token is pooled to zeros.

    Args:
        hidden: A, the width of V and U (128 in the paper).
        dropout: on the pooled vector.
    """

    def __init__(self, in_dim: int, out_dim: int, hidden: int = 128, dropout: float = 0.0):
        super().__init__()
        self.tanh = nn.Linear(in_dim, hidden)
        self.gate = nn.Linear(in_dim, hidden)
        self.weigh = nn.Linear(hidden, 1)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(in_dim, out_dim)

    def attention(self, tokens_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Weights of the tokens [B, L], float32; they sum to 1 over a bag's real tokens and are 0 elsewhere."""
        gated_BLA = self.tanh(tokens_BLD).tanh() * self.gate(tokens_BLD).sigmoid()
        return bag_softmax(self.weigh(gated_BLA)[..., 0], mask_BL)

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        return HeadOutput(self.score(encoded["tokens_BLD"], encoded["mask_BL"]))

    def score(self, tokens_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        # Padding may hold anything, even NaN, which a weight of 0 would not silence.
        tokens_BLD = tokens_BLD.masked_fill(~mask_BL[..., None], 0.0)
        weight_BL = self.attention(tokens_BLD, mask_BL).to(tokens_BLD.dtype)
        pooled_BD = torch.einsum("bl,bld->bd", weight_BL, tokens_BLD)
        return self.out(self.drop(pooled_BD))
