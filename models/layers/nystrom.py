"""Nystrom attention (Xiong et al. 2021): softmax attention through m landmarks, linear in the number of tokens.

Shape letters: B batch, H heads, L tokens, D width of a head, C = H x D model width, m landmarks.

Three things differ from the usual implementations, each because it changes results:
- nothing is padded: segments differ in length by at most one token, so the first token (the CLS) shares a landmark with
  its neighbours and never with zeros;
- the pseudo-inverse is started from each matrix's own norms, so a sample's output does not depend on its batch mates;
- the two outer softmax products are plain attention calls, so no L x m matrix is ever stored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attention import attention, merge_heads, split_heads
from models.layers.checkpointing import checkpointed


def segment_ids(lengths_B: Tensor, L: int, m: int) -> Tensor:
    """Landmark of every token, [B, L]: of n real tokens the first n mod m segments hold one more than the others."""
    token_L = torch.arange(L, device=lengths_B.device)
    q_B1, r_B1 = (lengths_B // m)[:, None], (lengths_B % m)[:, None]
    long_B1 = r_B1 * (q_B1 + 1)
    in_tail = r_B1 + (token_L - long_B1) // q_B1.clamp_min(1)
    return torch.where(token_L < long_B1, token_L // (q_B1 + 1), in_tail).clamp_max(m - 1)


def segment_means(
    x_BHLD: Tensor, m: int, lengths_B: Tensor | None = None, log_weight_BL: Tensor | None = None
) -> Tensor:
    """Means of m runs of consecutive tokens, [B, H, m, D]; tokens past a sample's length do not enter, others by their weight."""
    L = x_BHLD.shape[2]
    if log_weight_BL is not None:
        weight_B1L1 = log_weight_BL.exp()[:, None, :, None]
        sum_BHmD, of_B1m1 = (segment_means(x, m, lengths_B) for x in (x_BHLD * weight_B1L1, weight_B1L1))
        return (sum_BHmD / of_B1m1).to(x_BHLD.dtype)
    if lengths_B is not None:
        return _ragged_segment_means(x_BHLD, m, lengths_B)
    q, r = divmod(L, m)
    tail = x_BHLD[:, :, r * (q + 1) :].unflatten(2, (m - r, q)).mean(3)
    if r == 0:
        return tail
    head = x_BHLD[:, :, : r * (q + 1)].unflatten(2, (r, q + 1)).mean(3)
    return torch.cat([head, tail], 2)


def _ragged_segment_means(x_BHLD: Tensor, m: int, lengths_B: Tensor) -> Tensor:
    B, H, L, D = x_BHLD.shape
    id_BL = segment_ids(lengths_B, L, m)
    real_BL = torch.arange(L, device=x_BHLD.device) < lengths_B[:, None]
    work = torch.promote_types(x_BHLD.dtype, torch.float32)
    # Sums of up to L / m half-precision terms are taken in float32.
    x = x_BHLD.to(work) * real_BL[:, None, :, None]
    sums = x.new_zeros(B, H, m, D).scatter_add(2, id_BL[:, None, :, None].expand(B, H, L, D), x)
    count_Bm = x.new_zeros(B, m).scatter_add(1, id_BL, real_BL.to(work))
    return (sums / count_Bm.clamp_min(1)[:, None, :, None]).to(x_BHLD.dtype)


def pseudo_inverse(a_BHmm: Tensor, iterations: int, heads_together: bool = False) -> Tensor:
    """Moore-Penrose inverse by the third-order Newton-Schulz iteration (Xiong et al. 2021, eq. 13; Razavi et al. 2014).

    Started at A^T / (|A|_1 |A|_inf), each matrix by its own norms. Computed in at least float32 outside autocast: the
    products leave the range of float16. With A = U S V^T, k iterations give V p_k(S^2 / c) S^-1 U^T, where
    p_0(t) = t and p_k+1 = p (13 - p (15 - p (7 - p))) / 4 at p = p_k, which tends to 1 on (0, 1].

    Args:
        heads_together: start all heads of a sample from their largest norms.
    """
    with torch.autocast(a_BHmm.device.type, enabled=False):
        a = a_BHmm.to(torch.promote_types(a_BHmm.dtype, torch.float32))
        size = a.abs()
        over = (-2, -1) if heads_together else (-1,)
        z = a.mT / (size.sum(-2).amax(over, True) * size.sum(-1).amax(over, True))[..., None]
        eye = torch.eye(a.shape[-1], device=a.device, dtype=a.dtype)
        for _ in range(iterations):
            az = a @ z
            z = 0.25 * (z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))))
        return z


def nystrom_attention(
    q_BHLD: Tensor, k_BHLD: Tensor, v_BHLD: Tensor, landmarks: int, iterations: int = 6, lengths_B: Tensor | None = None,
    exact_tokens: int = 0, log_weight_BL: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """softmax(q k~^T) pinv(softmax(q~ k~^T)) softmax(q~ k^T) v, [B, H, L, D] (GiMP eq. 2, scale 1 / sqrt(D)).

    Samples with no more tokens than landmarks, or than `exact_tokens`, get exact attention. With `lengths_B` a sample's real
    tokens stand first; the outputs of the others are meaningless but finite, and no real output depends on them.

    Args:
        log_weight_BL: how much of a key there is, 0 for all of it: added to its logits, and its weight in the mean of a landmark. For whole
            bags alone.
    """
    exact = max(landmarks, exact_tokens)
    assert lengths_B is None or log_weight_BL is None, "weights are of bags without padding"
    if q_BHLD.shape[2] <= exact:
        mask = key_mask(lengths_B, q_BHLD.shape[2])
        return attention(q_BHLD, k_BHLD, v_BHLD, mask, key_bias_BS=log_weight_BL)
    if lengths_B is None:
        return _nystrom(q_BHLD, k_BHLD, v_BHLD, landmarks, iterations, None, log_weight_BL)
    short_B = lengths_B <= exact
    if not bool(short_B.any()):
        return _nystrom(q_BHLD, k_BHLD, v_BHLD, landmarks, iterations, lengths_B)
    # Short samples exactly, long ones through landmarks, so that neither depends on which others share its batch.
    short, long = short_B.nonzero().flatten(), (~short_B).nonzero().flatten()
    out = torch.zeros_like(v_BHLD).index_copy(0, short, _short(q_BHLD, k_BHLD, v_BHLD, exact, lengths_B, short))
    if len(long) == 0:
        return out
    q, k, v = (x[long] for x in (q_BHLD, k_BHLD, v_BHLD))
    return out.index_copy(0, long, _nystrom(q, k, v, landmarks, iterations, lengths_B[long]))


def _short(q: Tensor, k: Tensor, v: Tensor, most: int, lengths_B: Tensor, these: Tensor) -> Tensor:
    """Exact attention of these samples, none of which has more than `most` tokens."""
    L = v.shape[2]
    q, k, v = (x[these, :, :most] for x in (q, k, v))
    return F.pad(attention(q, k, v, key_mask(lengths_B[these], most)), (0, 0, 0, L - most))


def key_mask(lengths_B: Tensor | None, L: int) -> Tensor | None:
    """[B, 1, 1, L], True at the first `lengths_B` keys."""
    if lengths_B is None:
        return None
    return (torch.arange(L, device=lengths_B.device) < lengths_B[:, None])[:, None, None, :]


def exact_row(q_HD: Tensor, k_HLD: Tensor) -> Tensor:
    """What a query gives to each key of its bag, [H, L], float32; sums to 1."""
    work = torch.promote_types(q_HD.dtype, torch.float32)
    return torch.einsum("hd,hld->hl", q_HD.to(work) * q_HD.shape[-1] ** -0.5, k_HLD.to(work)).softmax(-1)


def nystrom_row(
    q_HLD: Tensor, k_HLD: Tensor, place: int, m: int, iterations: int, heads_together: bool = False
) -> Tensor:
    """The row of a query in the product of three that stands for the softmax of one bag, [H, L], at least float32.

    Sums to 1 as far as the pseudo-inverse is one; single weights may be below 0.
    """
    work = torch.promote_types(q_HLD.dtype, torch.float32)
    q_HLD, k_HLD = q_HLD.to(work) * q_HLD.shape[-1] ** -0.5, k_HLD.to(work)
    ql_HmD, kl_HmD = segment_means(q_HLD[None], m)[0], segment_means(k_HLD[None], m)[0]
    z_Hmm = pseudo_inverse((ql_HmD @ kl_HmD.mT).softmax(-1)[None], iterations, heads_together)[0]
    to_HLm = (q_HLD[:, place, None] @ kl_HmD.mT).softmax(-1) @ z_Hmm
    # Head by head: all heads' m x L at once are gigabytes of a long bag.
    rows = [to_1m @ (ql_mD @ k_LD.mT).softmax(-1) for to_1m, ql_mD, k_LD in zip(to_HLm, ql_HmD, k_HLD, strict=True)]
    return torch.cat(rows)


def _nystrom(
    q: Tensor, k: Tensor, v: Tensor, m: int, iterations: int, lengths_B: Tensor | None,
    log_weight_BL: Tensor | None = None,
) -> Tensor:  # fmt: skip
    ql_BHmD, kl_BHmD = (segment_means(x, m, lengths_B, log_weight_BL) for x in (q, k))
    with torch.autocast(q.device.type, enabled=False):
        work = torch.promote_types(q.dtype, torch.float32)
        a_BHmm = ((ql_BHmD.to(work) * q.shape[-1] ** -0.5) @ kl_BHmD.to(work).mT).softmax(-1)
    summary_BHmD = attention(ql_BHmD, k, v, key_mask(lengths_B, k.shape[2]), key_bias_BS=log_weight_BL)
    values_BHmD = (pseudo_inverse(a_BHmm, iterations) @ summary_BHmD.to(work)).to(v.dtype)
    return attention(q, kl_BHmD, values_BHmD)


class HeadConv(nn.Module):
    """Depth-wise convolution of the values along the tokens, one kernel a head (the skip path of Nystromformer)."""

    def __init__(self, heads: int, kernel: int):
        super().__init__()
        assert kernel % 2 == 1, f"an even kernel ({kernel}) has no centre"
        self.weight_HK = nn.Parameter(torch.empty(heads, kernel).uniform_(-(kernel**-0.5), kernel**-0.5))

    def forward(self, v_BLC: Tensor) -> Tensor:
        H, K = self.weight_HK.shape
        # Heads are the channels. Channels-last memory is not for speed alone (half again as fast on a CPU): in plain memory torch's CPU
        # kernel (oneDNN, seen in torch 2.14.1) gives a wrong gradient of depth-wise weights of more than 32 taps at some lengths, among
        # them 46 and 256, by up to its full size; tests/models/test_depthwise.py.
        v_BHLD = split_heads(v_BLC, H).contiguous(memory_format=torch.channels_last)
        return merge_heads(F.conv2d(v_BHLD, self.weight_HK[:, None, :, None], padding=(K // 2, 0), groups=H))


class LongAttention(nn.Module):
    """Multi-head self-attention over long bags: Nystrom, or exact when `landmarks` is None and for bags of up to `exact_tokens`.

    Projections have no bias (GiMP eq. 1); `conv_kernel` None leaves the convolutional skip path out.
    """

    def __init__(
        self, dim: int, heads: int, landmarks: int | None, iterations: int = 6, conv_kernel: int | None = 33,
        exact_tokens: int = 0,
    ):  # fmt: skip
        super().__init__()
        assert dim % heads == 0, f"width {dim} is not a multiple of {heads} heads"
        self.heads, self.landmarks, self.iterations, self.exact_tokens = heads, landmarks, iterations, exact_tokens
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.conv = HeadConv(heads, conv_kernel) if conv_kernel else None

    def forward(self, x_BLC: Tensor, lengths_B: Tensor | None = None, log_weight_BL: Tensor | None = None) -> Tensor:
        """`log_weight_BL`: see `nystrom_attention`."""
        return checkpointed(self._forward, x_BLC, lengths_B, log_weight_BL)

    def first_row(self, x_BLC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """What the first token gives to each token [B, H, L], float32, without the convolution; padding has 0."""
        q, k, _ = (split_heads(x, self.heads) for x in self.qkv(x_BLC).chunk(3, -1))
        row_BHL = q.new_zeros(q.shape[:3], dtype=torch.float32)
        ends = [q.shape[2]] * len(q) if lengths_B is None else lengths_B.tolist()
        for b, n in enumerate(ends):
            short = self.landmarks is None or n <= max(self.landmarks, self.exact_tokens)
            q_HLD, k_HLD = q[b, :, :n], k[b, :, :n]
            row_HL = (
                exact_row(q_HLD[:, 0], k_HLD)
                if short
                else nystrom_row(q_HLD, k_HLD, 0, self.landmarks or n, self.iterations)
            )
            row_BHL[b, :, :n] = row_HL
        return row_BHL

    def _forward(self, x_BLC: Tensor, lengths_B: Tensor | None, log_weight_BL: Tensor | None) -> Tensor:
        q_BLC, k_BLC, v_BLC = self.qkv(x_BLC).chunk(3, -1)
        if lengths_B is not None:
            v_BLC = v_BLC * (torch.arange(v_BLC.shape[1], device=v_BLC.device) < lengths_B[:, None])[..., None]
        q, k, v = (split_heads(x, self.heads) for x in (q_BLC, k_BLC, v_BLC))
        m = q.shape[2] if self.landmarks is None else self.landmarks
        y_BLC = merge_heads(nystrom_attention(q, k, v, m, self.iterations, lengths_B, self.exact_tokens, log_weight_BL))
        return self.out(y_BLC if self.conv is None else y_BLC + self.conv(v_BLC))
