"""Places of patches: fixed sine-cosine ones, and those of a file on the grid of another image.

A file that does not say its grid (models/init/grids.py) is taken for one of square images, as the published ones are, but never in
silence for a model to which the same number means something else.

Shape letters: P patches (grid rows x columns), L positions = P (+ 1 of a class token), D width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.contract import MethodError
from models.init.grids import Grid

TOLERANCE = 1e-4


def sincos_2d(rows: int, columns: int, dim: int) -> Tensor:
    """Fixed positions [rows * columns, dim]: the first half tells the column, the second the row (MAE, section A).

    Each half is sin then cos of place / 10000^(2i / (dim/2)), i = 0 .. dim/4 - 1 (Vaswani et al. 2017, section 3.5).
    """
    assert dim % 4 == 0, f"2-D sin-cos positions need a width that 4 divides, not {dim}"
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([sincos(place.flatten(), dim // 2) for place in (column, row)], 1)


def sincos(place_L: Tensor, dim: int) -> Tensor:
    """All sines, then all cosines, of place / 10000^(2i / dim), i = 0 .. dim/2 - 1, [L, dim]."""
    assert dim % 2 == 0, f"sin-cos positions need an even width, not {dim}"
    angle = place_L[:, None] * 10_000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    return torch.cat([angle.sin(), angle.cos()], 1).float()


def fitted(places_1LD: Tensor, own: Grid, extra: int, known: Grid | None = None, where: str = "the weights") -> Tensor:
    """A file's positions on the grid `own`, [1, P + extra, D]: bicubic where the grids differ.

    Args:
        extra: 1 if the model has a class token.
        known: the grid that the file says it has.

    Raises:
        MethodError: a number of positions that fits no grid, or several.
    """
    L = places_1LD.shape[1]
    grid = known or _told(places_1LD, own, extra, where)
    spare = L - grid[0] * grid[1]
    if spare not in (0, 1) or extra > spare:
        has = "with" if extra else "without"
        what = f"{L} positions, for a grid of {grid[0]} x {grid[1]}"
        raise MethodError([f"{where}: {what}; the model is {has} a class token and has a grid of {own[0]} x {own[1]}"])
    head, body = places_1LD[:, :extra], places_1LD[:, spare:]
    if grid != own:
        body = regridded(body, grid, own)
    return torch.cat([head, body.to(head.dtype)], 1)


def regridded(body_1PD: Tensor, grid: Grid, own: Grid, offset: float = 0.0) -> Tensor:
    """Values on one grid, bicubic on another one, float32 [1, P, D].

    offset: of DINO's code (Caron et al. 2021), which takes the share (own + offset) / grid for the scale, 0.1 to keep it from rounding
        down: places are then a little off. 0: the grids cover the same image.
    """
    map_1DHW = body_1PD.transpose(1, 2).unflatten(2, grid).float()
    to: dict[str, Any] = {"size": own}
    if offset:
        to = {"scale_factor": tuple((n + offset) / g for n, g in zip(own, grid, strict=True))}
    return F.interpolate(map_1DHW, mode="bicubic", align_corners=False, **to).flatten(2).transpose(1, 2)


def carried(places_1PD: Tensor, grid: Grid, own: Grid | None, offset: float = 0.0) -> Tensor:
    """`regridded` with a gradient whose sums have one order, on a GPU too: interpolation as a matrix. None: the same grid."""
    if own is None or grid == own:
        return places_1PD
    each_1PP = torch.eye(places_1PD.shape[1], device=places_1PD.device)[None]
    return regridded(each_1PP, grid, own, offset) @ places_1PD.float()


def _told(places_1LD: Tensor, own: Grid, extra: int, where: str) -> Grid:
    """The grid of positions that nothing is said of: of fixed ones their own, else a square's; the model's where only that is possible."""
    L, P = places_1LD.shape[1], own[0] * own[1]
    square = next(((s, s) for spare in (1, 0) if (s := math.isqrt(L - spare)) and s * s == L - spare), None)
    same = P + extra == L
    if square is None or square == own:
        if same or square is not None:
            return own
        raise MethodError(
            [f"{where}: {L} positions, which are of no square image, and the file does not say of which; {_FIX}"]
        )
    if not same:
        return square
    for grid in (own, square):
        if _is_fixed(places_1LD[:, L - grid[0] * grid[1] :], grid):
            return grid
    one, other = (f"{g[0]} x {g[1]}" for g in (square, own))
    raise MethodError(
        [
            f"{where}: {L} positions are of {one} patches or of {other}, as this model's, and the file does not say; {_FIX}"
        ]
    )


_FIX = (
    "save the weights by torch.save(model.state_dict(), FILE), which keeps the grid, or with safetensors' "
    'save_file(..., metadata={"grid": "ROWSxCOLUMNS"})'
)


def _is_fixed(body_1PD: Tensor, grid: Grid) -> bool:
    D = body_1PD.shape[2]
    return D % 4 == 0 and bool((body_1PD[0].float() - sincos_2d(*grid, D)).abs().max() < TOLERANCE)
