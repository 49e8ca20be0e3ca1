"""Attention pooling of a bag's tokens into logits, log risks or standardised values.

Shape letters: B samples, L tokens, P real tokens of all samples, D width of the encoder, A width of the attention, K outputs.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.contract import Encoded, Head, HeadOutput
from models.contract.bags import Bags
from models.layers.bag_attention import pooled_rows
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
        return bag_softmax(self._scores(tokens_BLD)[..., 0], mask_BL)

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        return HeadOutput(self._said(encoded.bags()))

    def score(self, tokens_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        return self._said(Bags.where(tokens_BLD, mask_BL))

    def _said(self, tokens: Bags) -> Tensor:
        return self.out(self.drop(pooled_rows(tokens, self._scores(tokens.rows_PD))[:, 0]))

    def _scores(self, h_PD: Tensor) -> Tensor:
        return self.weigh(self.tanh(h_PD).tanh() * self.gate(h_PD).sigmoid()).float()
