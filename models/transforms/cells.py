"""Cells of images, the small squares that a tokenizer names by codes; and how many codes a name leaves open.

Shape letters: B images, H x W pixels, N cells of a grid, P values of a cell (row, column, colour), S cells of many images, V codes.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def cells_of(image_BHWC: Tensor, grid: tuple[int, int], cell: int) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, N, P] from -1 to 1: means over areas make rows x columns of cells out of any size."""
    x_BCHW = image_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1
    rows, columns = grid
    if x_BCHW.shape[2:] != (rows * cell, columns * cell):
        x_BCHW = F.interpolate(x_BCHW, (rows * cell, columns * cell), mode="area")
    return (
        x_BCHW.unflatten(3, (columns, cell))
        .unflatten(2, (rows, cell))
        .permute(0, 2, 4, 3, 5, 1)
        .flatten(3)
        .flatten(1, 2)
    )


def choices_of(logits_SV: Tensor, temperature: float) -> float:
    """The effective number of codes that softmax(logits / temperature) leaves open: the exponential of its mean entropy."""
    log_SV = (logits_SV.double() / temperature).log_softmax(-1)
    return math.exp(-float((log_SV.exp() * log_SV).sum(-1).mean()))


def temperature_of(logits_SV: Tensor, choices: float) -> float:
    """The temperature at which `choices` codes are left open, to a thousandth, by halving; more of it leaves more open."""
    low, high = (math.log(float(logits_SV.abs().max())) + shift for shift in (-25.0, 25.0))
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if choices_of(logits_SV, math.exp(middle)) < choices else (low, middle)
    return math.exp((low + high) / 2)
