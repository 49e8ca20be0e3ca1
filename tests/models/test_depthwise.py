"""Gradients of depth-wise convolutions on a CPU against float64.

torch's CPU kernel for float32 (oneDNN, seen in torch 2.14.1) gives a wrong gradient of the weights of a depth-wise convolution of more than
32 taps when its input lies in plain memory, at some lengths alone: of 33 taps at every length of 46 + 15 i, 256 among them, which is what a
bag of up to 255 patches is padded to before Nystrom attention with 256 landmarks. Outputs and gradients of inputs are right, so a model
trains on, only worse. Layers with such kernels hold their input in channels-last memory, whose kernel is right.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.encoders.aggregator import PPEG
from models.layers.nystrom import HeadConv, LongAttention
from models.layers.nystrom_library import LibraryAttention

LENGTHS = (46, 255, 256)


def weight_gradients(layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    layer.zero_grad(set_to_none=True)
    (layer(x) * y).sum().backward()
    return {n: p.grad.double() for n, p in layer.named_parameters()}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: HeadConv(8, 33),
        lambda: HeadConv(2, 65),
        lambda: LongAttention(16, 8, 8),
        lambda: LibraryAttention(16, 8, 8),
        lambda: LibraryAttention(16, 8, 256),
        lambda: PPEG(16),
    ],
    ids=["taps33", "taps65", "attention", "library", "library_padded", "square"],
)
def test_weight_gradients_equal_those_of_float64(make, L, batch):
    torch.manual_seed(0)
    layer = make()
    x, y = torch.randn(2, batch, L, 16).unbind()
    found = weight_gradients(layer, x, y)
    wanted = weight_gradients(layer.double(), x.double(), y.double())
    for name, value in wanted.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4 * scale, msg=lambda m, n=name: f"{n}: {m}")
