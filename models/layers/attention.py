"""Softmax attention: the one function through which every layer goes.

Shape letters: B batch, H heads, L queries, S keys, D width of a head, C = H x D model width.
"""

from __future__ import annotations

import functools
import importlib
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HALF = (torch.float16, torch.bfloat16)


def attention(
    q_BHLD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    key_bias_BS: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T * scale) v, [B, H, L, D] (Vaswani et al. 2017, eq. 1), without a matrix of L x S.

    Args:
        mask: broadcastable to [B, H, L, S]. bool: True where a query may look at a key; a query with no key gives zeros. Float: a
            bias added to the scaled logits, with gradient (relative positions).
        dropout: probability of dropping an attention weight; the caller passes 0 in eval mode.
        scale: default 1 / sqrt(D).
        key_bias_BS: added to the scaled logits of each key, for all heads and queries, with gradient.
    """
    if key_bias_BS is not None:
        D, scale = v_BHSD.shape[-1], scale or q_BHLD.shape[-1] ** -0.5
        wider = _with_key_bias(q_BHLD, k_BHSD, v_BHSD, key_bias_BS / scale)
        return attention(*wider, mask, dropout, scale)[..., :D]
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q_BHLD.dtype)
    if backend(q_BHLD.device, q_BHLD.dtype, q_BHLD.shape[-1], mask is not None) == "xformers":
        return _xformers_attention(q_BHLD, k_BHSD, v_BHSD, dropout, scale)
    return F.scaled_dot_product_attention(q_BHLD, k_BHSD, v_BHSD, attn_mask=mask, dropout_p=dropout, scale=scale)


def _with_key_bias(q_BHLD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, bias_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eight columns more of queries, keys and values, by which `bias_BS` is added to the products q k^T.

    So the kernels, which want one width that is a multiple of eight, need no matrix of L x S, nor does the gradient of the bias.
    """
    one = F.pad(q_BHLD.new_ones(*q_BHLD.shape[:3], 1), (0, 7))
    bias = F.pad(bias_BS[:, None, :, None].expand(*k_BHSD.shape[:3], 1).to(k_BHSD.dtype), (0, 7))
    return torch.cat([q_BHLD, one], -1), torch.cat([k_BHSD, bias], -1), F.pad(v_BHSD, (0, 8))


def backend(device: torch.device, dtype: torch.dtype, head_dim: int, masked: bool) -> str:
    """Which kernels run: "xformers" on CUDA in half precision when they load and no mask is given, else "sdpa".

    xformers wants a mask as an additive bias of aligned strides, which costs the matrix we avoid; SDPA takes masks and biases
    as they are.
    """
    if device.type != "cuda" or masked or dtype not in _HALF:
        return "sdpa"
    return "xformers" if xformers_loads(device.index or 0, dtype, head_dim) else "sdpa"


@functools.lru_cache
def xformers_loads(device_index: int, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether xformers has a kernel for this dtype and head width on this GPU: tried once, on a tiny input."""
    try:
        ops = importlib.import_module("xformers.ops")
        x = torch.zeros(1, 8, 1, head_dim, device=f"cuda:{device_index}", dtype=dtype, requires_grad=True)
        ops.memory_efficient_attention(x, x, x).sum().backward()
    except Exception as e:
        # Whatever keeps a compiled kernel from loading (missing package, other CUDA, no operator) has the same remedy.
        warnings.warn(
            f"attention runs on PyTorch's kernels: xformers does not work here ({type(e).__name__}: {e})", stacklevel=2
        )
        return False
    return True


def _xformers_attention(q_BHLD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, dropout: float, scale: float | None) -> Tensor:
    ops = importlib.import_module("xformers.ops")
    q, k, v = (x.transpose(1, 2) for x in (q_BHLD, k_BHSD, v_BHSD))
    return ops.memory_efficient_attention(q, k, v, p=dropout, scale=scale).transpose(1, 2)


def split_heads(x_BLC: Tensor, heads: int) -> Tensor:
    """[B, L, H*D] -> [B, H, L, D]"""
    return x_BLC.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x_BHLD: Tensor) -> Tensor:
    """[B, H, L, D] -> [B, L, H*D]"""
    return x_BHLD.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with learned projections."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, qkv_bias: bool = True):
        super().__init__()
        assert dim % heads == 0, f"width {dim} is not a multiple of {heads} heads"
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_BLC: Tensor, real_BL: Tensor | None = None) -> Tensor:
        """real_BL: True where a token is real; the others are looked at by nobody."""
        q, k, v = (split_heads(x, self.heads) for x in self.qkv(x_BLC).chunk(3, -1))
        mask = None if real_BL is None else real_BL[:, None, None, :]
        return self.out(merge_heads(attention(q, k, v, mask, self.dropout if self.training else 0.0)))
