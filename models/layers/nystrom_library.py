"""Nystrom attention as the package nystrom-attention computes it, for systems whose published numbers were made with it.

Three things decide its numbers and are not of the method (models/layers/nystrom.py has it without them): zeros stand in front up to a
multiple of the landmarks and take part in every softmax, as keys of score 0 and value 0; the pseudo-inverse starts from the largest norm
of all heads; and version 0.0.9 gives back the first rows, not the last, so that a token receives the output of one some places earlier.
Here each bag is padded and started by itself, so that it has in any batch the output that the package gives it alone.

Shape letters: B bags, L tokens, H heads, D width of a head, C = H x D model width, P tokens with the zeros in front, m landmarks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.attention import attention, merge_heads, split_heads
from models.layers.checkpointing import checkpointed
from models.layers.nystrom import HeadConv, nystrom_row, pseudo_inverse, segment_means


def fronted(x_BLC: Tensor, lengths_B: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Real tokens behind zeros up to a multiple of m, [B, P, C], zeros after them; and how many stand in front [B]."""
    front_B = -lengths_B % m
    P = int((lengths_B + front_B).max())
    place_BP = torch.arange(P, device=x_BLC.device) - front_B[:, None]
    real_BP = (place_BP >= 0) & (place_BP < lengths_B[:, None])
    rows_BPC = place_BP.clamp(0, x_BLC.shape[1] - 1)[..., None].expand(-1, -1, x_BLC.shape[2])
    return x_BLC.gather(1, rows_BPC).masked_fill(~real_BP[..., None], 0.0), front_B


def padded_attention(
    q_HPD: Tensor, k_HPD: Tensor, v_HPD: Tensor, m: int, iterations: int, log_weight_1P: Tensor | None = None
) -> Tensor:
    """Of one bag whose length is a multiple of m, zeros included, [H, P, D]."""
    q, k, v = q_HPD[None], k_HPD[None], v_HPD[None]
    ql, kl = (segment_means(x, m, log_weight_BL=log_weight_1P) for x in (q, k))
    with torch.autocast(q.device.type, enabled=False):
        work = torch.promote_types(q.dtype, torch.float32)
        a_BHmm = ((ql.to(work) * q.shape[-1] ** -0.5) @ kl.to(work).mT).softmax(-1)
    values = (
        pseudo_inverse(a_BHmm, iterations, heads_together=True)
        @ attention(ql, k, v, key_bias_BS=log_weight_1P).to(work)
    ).to(v.dtype)
    return attention(q, kl, values)[0]


class LibraryAttention(nn.Module):
    """Multi-head self-attention with the parameters of `models.layers.nystrom.LongAttention` and the package's numbers.

    Args:
        first_rows: give back the first rows of the padded output, as version 0.0.9 does; else the last, as from 0.0.10.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        landmarks: int,
        iterations: int = 6,
        conv_kernel: int | None = 33,
        first_rows: bool = False,
    ):
        super().__init__()
        assert dim % heads == 0, f"width {dim} is not a multiple of {heads} heads"
        self.heads, self.landmarks, self.iterations, self.first_rows = heads, landmarks, iterations, first_rows
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.conv = HeadConv(heads, conv_kernel) if conv_kernel else None

    def forward(self, x_BLC: Tensor, lengths_B: Tensor | None = None, log_weight_BL: Tensor | None = None) -> Tensor:
        """`lengths_B`: real tokens of each bag, which stand first; None when all are. `log_weight_BL`: `nystrom_attention`."""
        if lengths_B is None:
            lengths_B = torch.full((len(x_BLC),), x_BLC.shape[1], device=x_BLC.device)
        return checkpointed(self._forward, x_BLC, lengths_B, log_weight_BL)

    def first_row(self, x_BLC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """What the first token gives to each token [B, H, L], float32, without the convolution; zeros in front and padding have 0.

        With `first_rows` it is what the row gives that the first token receives: of a zero where zeros stand in front.
        """
        L, m = x_BLC.shape[1], self.landmarks
        if lengths_B is None:
            lengths_B = torch.full((len(x_BLC),), L, device=x_BLC.device)
        padded_BPC, front_B = fronted(self.qkv(x_BLC), lengths_B, m)
        q, k, _ = (split_heads(x, self.heads) for x in padded_BPC.chunk(3, -1))
        row_BHL = q.new_zeros((len(q), self.heads, L), dtype=torch.float32)
        for b, (n, front) in enumerate(zip(lengths_B.tolist(), front_B.tolist(), strict=True)):
            q_HPD, k_HPD = q[b, :, : n + front], k[b, :, : n + front]
            place = 0 if self.first_rows else front
            row_BHL[b, :, :n] = nystrom_row(q_HPD, k_HPD, place, m, self.iterations, heads_together=True)[:, front:]
        return row_BHL

    def _forward(self, x_BLC: Tensor, lengths_B: Tensor, log_weight_BL: Tensor | None) -> Tensor:
        L, m = x_BLC.shape[1], self.landmarks
        # No bias, so zeros before the projection are zeros behind it.
        padded_BPC, front_B = fronted(self.qkv(x_BLC), lengths_B, m)
        q, k, v = (split_heads(x, self.heads) for x in padded_BPC.chunk(3, -1))
        y_BHPD = torch.zeros_like(v)
        weight_BP = None if log_weight_BL is None else fronted(log_weight_BL[..., None], lengths_B, m)[0][..., 0]
        for b, p in enumerate((lengths_B + front_B).tolist()):
            weight_1P = None if weight_BP is None else weight_BP[b : b + 1, :p]
            y_BHPD[b, :, :p] = padded_attention(q[b, :, :p], k[b, :, :p], v[b, :, :p], m, self.iterations, weight_1P)
        y_BPC = merge_heads(y_BHPD)
        if self.conv is not None:
            y_BPC = y_BPC + self.conv(padded_BPC.chunk(3, -1)[2])
        start_B1 = torch.zeros_like(front_B)[:, None] if self.first_rows else front_B[:, None]
        rows_BL = (torch.arange(L, device=x_BLC.device) + start_B1).clamp_max(y_BPC.shape[1] - 1)
        return self.out(y_BPC.gather(1, rows_BL[..., None].expand(-1, -1, y_BPC.shape[2])))
