"""Relation masking: attention whose strongest weights are set to zero (MRM, Yang et al., ICCV 2023, section 3.2).

Shape letters: B samples, H heads, L queries, S keys, D width of a head, C model width, O width of the other modality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from models.init.first import xavier_linears
from models.layers.attention import merge_heads, split_heads

EPS = 1e-6
# Elements of the relation matrix that are worked on at once: bounds what selection needs beside the one matrix it fills.
CHUNK = {"cpu": 1 << 19, "cuda": 1 << 24}


@dataclass(frozen=True)
class Masking:
    """How relations are masked.

    ratio: share tau of a row's keys whose relation is masked, the strongest first.
    renorm: scale what is left of a row to sum 1 (the paper does not).
    share_heads: choose by the mean over the heads, the same elements in all of them.
    spare_cls: the first query and the first key (class tokens) are neither masked nor counted.
    """

    ratio: float
    renorm: bool = False
    share_heads: bool = False
    spare_cls: bool = False


def count_masked(ratio: float, keys: int) -> int:
    """k = tau * n rounded, halves up."""
    return math.floor(ratio * keys + 0.5)


def masked_places(r_BHLS: Tensor, masking: Masking, real_BS: Tensor | None) -> Tensor:
    """True where eq. 4 and 6 put a zero: at r^p, the k-th largest of the row, and above; [B, H or 1, L, S].

    Elements below the threshold stay, so what ties with it is masked too.
    """
    rank = r_BHLS.mean(1, keepdim=True) if masking.share_heads else r_BHLS
    masked = rank >= _row_threshold(rank[..., 1:] if masking.spare_cls else rank, masking, real_BS)
    if masking.spare_cls:
        masked[..., 0] = False
        masked[:, :, 0] = False
    return masked


def _row_threshold(rank: Tensor, masking: Masking, real_BS: Tensor | None) -> Tensor:
    """r^p: the k-th largest of each row [.., 1], infinite where k is 0; k counts real keys only."""
    keys = rank.shape[-1]
    if real_BS is None:
        k = count_masked(masking.ratio, keys)
        if k == 0:
            return rank.new_full((*rank.shape[:-1], 1), torch.inf)
        return rank.kthvalue(keys - k + 1, -1, keepdim=True).values
    real_BS = real_BS[:, 1:] if masking.spare_cls else real_BS
    k_B = torch.floor(masking.ratio * real_BS.sum(1) + 0.5).long()
    # Absent keys have relation 0, so they come last and the k-th largest is one of the real keys.
    order = rank.sort(-1, descending=True).values
    at = (k_B - 1).clamp_min(0)[:, None, None, None].expand(*rank.shape[:-1], 1)
    return order.gather(-1, at).masked_fill((k_B == 0)[:, None, None, None], torch.inf)


def _relation(q_BHLD: Tensor, k_BHSD: Tensor, real_BS: Tensor | None, scale: float) -> Tensor:
    """R = softmax(q k^T * scale) over the real keys (eq. 3, 5) in float32; a row without any is 0."""
    logits = (q_BHLD @ k_BHSD.mT).float().mul_(scale)
    if real_BS is None:
        return logits.softmax(-1)
    logits.masked_fill_(~real_BS[:, None, None, :], -torch.inf)
    return logits.softmax(-1).nan_to_num_(0.0)


class _Kept(Protocol):
    """What `_MaskedRelation` keeps for its backward: tensors, and the factor of its logits."""

    scale: float

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _MaskedRelation(torch.autograd.Function):
    """R^M v and the row sums of R^M, keeping a single matrix for the backward: R with a minus sign where it is masked.

    The gradient of softmax needs R at masked places too, hence the sign and not a zero. Everything else lives in
    chunks of a few samples.
    """

    @staticmethod
    def forward(
        ctx: _Kept,
        q_BHLD: Tensor,
        k_BHSD: Tensor,
        v_BHSD: Tensor,
        real_BS: Tensor | None,
        scale: float,
        masking: Masking,
    ) -> tuple[Tensor, Tensor]:
        B, H, L, _ = q_BHLD.shape
        signed_BHLS = q_BHLD.new_empty(B, H, L, k_BHSD.shape[2])
        out_BHLD = v_BHSD.new_empty(B, H, L, v_BHSD.shape[-1])
        kept_BHL = q_BHLD.new_empty(B, H, L, dtype=torch.float32)
        for part in _parts(signed_BHLS):
            real = None if real_BS is None else real_BS[part]
            r = _relation(q_BHLD[part], k_BHSD[part], real, scale)
            masked = masked_places(r, masking, real)
            kept_BHL[part] = r.masked_fill(masked, 0.0).sum(-1)
            signed_BHLS[part] = torch.where(masked, -r, r)
            torch.matmul(signed_BHLS[part].clamp_min(0), v_BHSD[part], out=out_BHLD[part])
        ctx.save_for_backward(q_BHLD, k_BHSD, v_BHSD, signed_BHLS)
        ctx.scale = scale
        return out_BHLD, kept_BHL

    @staticmethod
    def backward(ctx: _Kept, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g_out, g_kept = grads
        q, k, v, signed = ctx.saved_tensors
        gq, gk, gv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for part in _parts(signed):
            m = signed[part]
            gv[part] = m.clamp_min(0).mT @ g_out[part]
            g_rm = (g_out[part] @ v[part].mT).float() + g_kept[part][..., None]
            r, g_r = m.abs().float(), g_rm.masked_fill_(m <= 0, 0.0)
            g_logits = r * (g_r - (g_r * r).sum(-1, keepdim=True))
            g_logits = g_logits.mul_(ctx.scale).to(q.dtype)
            gq[part], gk[part] = g_logits @ k[part], g_logits.mT @ q[part]
        return gq, gk, gv, None, None, None


def _parts(matrix_BHLS: Tensor) -> list[slice]:
    each = matrix_BHLS[0].numel() if len(matrix_BHLS) else 1
    step = max(1, CHUNK["cpu" if matrix_BHLS.device.type == "cpu" else "cuda"] // max(1, each))
    return [slice(i, i + step) for i in range(0, len(matrix_BHLS), step)]


def relation_attention(
    q_BHLD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, masking: Masking, real_BS: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """R^M v (eq. 3-6): softmax first, then the k strongest of each row become zero; no renormalisation by default.

    The threshold is a constant: no gradient runs through the choice.

    Args:
        real_BS: True where a key is real; absent keys are left out before the softmax and before the count of k. A
            sample without any real key gives zeros.

    Returns:
        [B, H, L, D], and the kept mass (row sums of R^M) [B, H, L] in float32, 1 - ratio if attention were uniform.
    """
    out_BHLD, kept_BHL = _MaskedRelation.apply(q_BHLD, k_BHSD, v_BHSD, real_BS, q_BHLD.shape[-1] ** -0.5, masking)
    if masking.renorm:
        tiny = torch.finfo(torch.float32).tiny
        out_BHLD = out_BHLD / kept_BHL.clamp_min(tiny).to(out_BHLD.dtype)[..., None]
    return out_BHLD, kept_BHL.detach()


def masked_self_attention(
    block: nn.Module, x_BLC: Tensor, masking: Masking, real_BL: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """z^S: the attention half of a ViT block with its relation masked; the block's own weights (eq. 3, 4).

    Returns:
        tokens with their residual [B, L, C], kept mass of each sample [B] (mean over heads and real queries).
    """
    q, k, v = block.attn.heads_of(block.norm1(x_BLC))  # type: ignore[operator,union-attr]
    out, kept_BHL = relation_attention(q, k, v, masking, real_BL)
    x_BLC = x_BLC + block.drop_path(block.attn.proj(merge_heads(out)))  # type: ignore[operator,union-attr]
    return x_BLC, mean_over_queries(kept_BHL, real_BL)


def mean_over_queries(kept_BHL: Tensor, real_BL: Tensor | None) -> Tensor:
    """[B, H, L] -> [B]: mean over heads and real queries."""
    kept_BL = kept_BHL.mean(1)
    return kept_BL.mean(1) if real_BL is None else (kept_BL * real_BL).sum(1) / real_BL.sum(1).clamp_min(1)


class CrossRelation(nn.Module):
    """Masked attention of one modality's tokens to the other's, with a residual (eq. 5, 6); pre-norm on both sides."""

    def __init__(self, dim: int, other_dim: int, heads: int):
        super().__init__()
        assert dim % heads == 0, f"width {dim} is not a multiple of {heads} heads"
        self.heads = heads
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.norm_other = nn.LayerNorm(other_dim, eps=EPS)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(other_dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        xavier_linears(self)

    def forward(
        self,
        x_BLC: Tensor,
        other_BSO: Tensor,
        masking: Masking,
        real_BL: Tensor | None = None,
        other_real_BS: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens after the cross attention [B, L, C], kept mass of each sample [B]."""
        q = split_heads(self.q(self.norm(x_BLC)), self.heads)
        k, v = (split_heads(t, self.heads) for t in self.kv(self.norm_other(other_BSO)).chunk(2, -1))
        out, kept_BHL = relation_attention(q, k, v, masking, other_real_BS)
        return x_BLC + self.proj(merge_heads(out)), mean_over_queries(kept_BHL, real_BL)
