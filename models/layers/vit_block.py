"""The block of a Vision Transformer (Dosovitskiy et al. 2021) under timm's names.

Shape letters: B samples, L tokens, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attention import attention, merge_heads, split_heads
from models.layers.checkpointing import checkpointed
from models.layers.relative import relative_index, table_size

EPS = 1e-6
Gelu = Literal["none", "tanh", "quick"]
# The table of relative positions under timm's name; it takes no weight decay.
RELATIVE = "relative_position_bias_table"


class Attention(nn.Module):
    """Multi-head self-attention under timm's names (qkv, proj)."""

    relative_position_bias_table: nn.Parameter | None
    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, qkv_bias: bool = True):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.register_parameter(RELATIVE, None)

    def add_relative_positions(self, grid: tuple[int, int], extra: int) -> None:
        """From now on a learned number for each head and offset is added to the logits; 0 at first, which changes nothing."""
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_size(grid, extra), self.heads))
        self.register_buffer("relative_position_index", relative_index(grid, extra), persistent=False)

    def _bias(self) -> Tensor | None:
        """[1, heads, L, L]; the table belongs to this module, in whose forward sharded weights are whole."""
        if self.relative_position_bias_table is None:
            return None
        return F.embedding(self.relative_position_index, self.relative_position_bias_table).permute(2, 0, 1)[None]

    def heads_of(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, heads, L, D / heads]."""
        q, k, v = (split_heads(x, self.heads) for x in self.qkv(x_BLD).chunk(3, -1))
        return q, k, v

    @torch.no_grad()
    def class_row(self, x_BLD: Tensor) -> Tensor:
        """What the first token gives to each token, mean of heads, [B, L] float32, without gradient; not of relative positions."""
        assert self.relative_position_bias_table is None
        q, k, _ = self.heads_of(x_BLD)
        return ((q[:, :, :1] @ k.mT).float() * q.shape[-1] ** -0.5).softmax(-1)[:, :, 0].mean(1)

    def forward(self, x_BLD: Tensor, bias: Tensor | None = None) -> Tensor:
        """bias: added to the logits, [1, heads, L, L], beside the own one: of all blocks together (`SharedBias`). Where there are no
        relative positions it may be bool, [B, 1, 1, L]: True where a token is looked at."""
        own = self._bias()
        both = own if bias is None else bias if own is None else own + bias
        return self.proj(merge_heads(attention(*self.heads_of(x_BLD), both)))


class SharedBias(nn.Module):
    """One table of relative positions for all blocks (BEiT's pre-training, SimMIM): its bias [1, heads, L, L], once a pass; 0 at first."""

    relative_position_index: Tensor

    def __init__(self, grid: tuple[int, int], extra: int, heads: int):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_size(grid, extra), heads))
        self.register_buffer("relative_position_index", relative_index(grid, extra), persistent=False)

    def forward(self) -> Tensor:
        return F.embedding(self.relative_position_index, self.relative_position_bias_table).permute(2, 0, 1)[None]


class Mlp(nn.Module):
    """Linear, GELU, Linear; the GELU exact as PyTorch's, or `tanh`, the approximation that flax has by default, or CLIP's `quick` one."""

    def __init__(self, dim: int, ratio: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, round(dim * ratio))
        self.fc2 = nn.Linear(round(dim * ratio), dim)
        self.gelu: Gelu = "none"

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLI = self.fc1(x_BLD)
        return self.fc2(quick_gelu(x_BLI) if self.gelu == "quick" else F.gelu(x_BLI, approximate=self.gelu))


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x) (Radford et al. 2021)."""
    return x * torch.sigmoid(1.702 * x)


def as_clips(module: nn.Module) -> None:
    """From now on its blocks have CLIP's GELU, and its norms CLIP's epsilon."""
    for m in module.modules():
        if isinstance(m, Mlp):
            m.gelu = "quick"
        elif isinstance(m, nn.LayerNorm):
            m.eps = 1e-5


class DropPath(nn.Module):
    """Leaves a residual branch out for a whole sample, with probability `rate` (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x_BLD: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x_BLD
        keep_B11 = x_BLD.new_empty(len(x_BLD), 1, 1).bernoulli_(1 - self.rate)
        return x_BLD * keep_B11 / (1 - self.rate)


class Block(nn.Module):
    """x + MSA(LN(x)), then x + MLP(LN(x)); either branch times a layer scale, if one is added."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = True, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, mlp_ratio)
        self.ls1: nn.Module = nn.Identity()
        self.ls2: nn.Module = nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BLD: Tensor, bias: Tensor | None = None) -> Tensor:
        return checkpointed(self._forward, x_BLD, bias)

    def _forward(self, x_BLD: Tensor, bias: Tensor | None) -> Tensor:
        x_BLD = x_BLD + self.drop_path(self.ls1(self.attn(self.norm1(x_BLD), bias)))
        return x_BLD + self.drop_path(self.ls2(self.mlp(self.norm2(x_BLD))))
