"""The Mamba block (Gu and Dao 2023, section 3.4) under mamba_ssm's nine parameter names: state dicts exchange strictly.

Shape letters: B batch, L time, C model width, D inner width, N states of a channel, R rank of the step size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.checkpointing import checkpointed
from models.layers.scan import selective_scan

# Step sizes at the start: log-uniform between these (section 3.6).
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class Mamba(nn.Module):
    """[B, L, C] -> [B, L, C]: expand, short causal convolution, selective scan, SiLU gate, project back.

    Parameters: in_proj.weight, conv1d.weight, conv1d.bias, x_proj.weight, dt_proj.weight, dt_proj.bias, A_log, D,
    out_proj.weight.
    """

    def __init__(self, dim: int, states: int = 16, kernel: int = 4, expand: int = 2, rank: int | None = None):
        super().__init__()
        inner = expand * dim
        self.states, self.kernel, self.rank = states, kernel, rank or math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.x_proj = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1, states + 1).float().log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._initialise_steps()

    @torch.no_grad()
    def _initialise_steps(self) -> None:
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        low, high = math.log(DT_MIN), math.log(DT_MAX)
        dt_D = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp_().clamp_min_(DT_FLOOR)
        # The inverse of softplus, so that softplus(bias) is dt.
        self.dt_proj.bias.copy_(dt_D + torch.log(-torch.expm1(-dt_D)))

    def forward(self, x_BLC: Tensor) -> Tensor:
        L = x_BLC.shape[1]
        x_BLD, gate_BLD = self.in_proj(x_BLC).chunk(2, -1)
        # Padded on both sides; the first L outputs are the causal ones.
        x_BLD = F.silu(self.conv1d(x_BLD.transpose(1, 2))[..., :L]).transpose(1, 2)
        dt_BLR, B_BLN, C_BLN = self.x_proj(x_BLD).split([self.rank, self.states, self.states], -1)
        delta_BLD = F.softplus(self.dt_proj(dt_BLR))
        # exp in float32: decay rates span a factor of 16 and enter an exponent again.
        A_DN = -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp()
        y_BLD = selective_scan(x_BLD, delta_BLD, A_DN, B_BLN, C_BLN, self.D)
        return self.out_proj(y_BLD * F.silu(gate_BLD))


class MambaBlock(nn.Module):
    """x + Mamba(RMSNorm(x)); with `bidirectional`, a second Mamba reads the sequence from its end and is added.

    recompute: keep only the block's input for the backward pass, whatever the run's switch says; sequences of tens of
        thousands of tokens do not fit otherwise.
    """

    def __init__(
        self,
        dim: int,
        states: int = 16,
        kernel: int = 4,
        expand: int = 2,
        bidirectional: bool = False,
        recompute: bool = False,
    ):
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.mixer = Mamba(dim, states, kernel, expand)
        self.backwards = Mamba(dim, states, kernel, expand) if bidirectional else None
        self.recompute = recompute

    def forward(self, x_BLC: Tensor) -> Tensor:
        return checkpointed(self._forward, x_BLC, always=self.recompute)

    def _forward(self, x_BLC: Tensor) -> Tensor:
        z_BLC = self.norm(x_BLC)
        y_BLC = self.mixer(z_BLC)
        if self.backwards is not None:
            y_BLC = y_BLC + self.backwards(z_BLC.flip(1)).flip(1)
        return x_BLC + y_BLC
