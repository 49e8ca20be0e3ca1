"""The grid attention gate of Attention U-Net (Oktay et al. 2018, arXiv 1804.03999, section 2).

Shape letters: B images, C channels of what is gated, G of the gating signal, H x W and h x w their places.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.batch_norm import GlobalBatchNorm2d


class AttentionGate(nn.Module):
    """x [B, C, H, W] and a coarser signal g [B, G, h, w] -> W(a x), of the size of x.

    a = sigmoid(psi ReLU(theta x + phi g)) on the places of theta, which halves x; phi g is resized to them, a to those of x, bilinearly.
    W is a 1 x 1 convolution with batch norm.
    """

    def __init__(self, channels: int, gating: int, inner: int | None = None):
        super().__init__()
        inner = inner or channels
        self.theta = nn.Conv2d(channels, inner, 2, 2, bias=False)
        self.phi = nn.Conv2d(gating, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)
        self.out = nn.Sequential(nn.Conv2d(channels, channels, 1), GlobalBatchNorm2d(channels))

    def forward(self, x_BCHW: Tensor, g_BGhw: Tensor) -> Tensor:
        theta = self.theta(x_BCHW)
        phi = F.interpolate(self.phi(g_BGhw), theta.shape[2:], mode="bilinear", align_corners=False)
        a = self.psi((theta + phi).relu()).sigmoid()
        return self.out(F.interpolate(a, x_BCHW.shape[2:], mode="bilinear", align_corners=False) * x_BCHW)
