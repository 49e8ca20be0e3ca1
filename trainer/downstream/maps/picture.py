"""A map as a picture: each patch a square at its place, coloured by the rank of its share among the slide's patches.

Shares of thousands of patches differ by orders of magnitude; ranks show the whole slide. The table has the shares themselves.

Shape letters: N patches, H x W cells of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FINE, MOST = 4, 1600
"""Cells of a patch's side, where the picture's side stays within so many of them."""
INCHES = 6.0


def picture(xy_N2: np.ndarray, share_N: np.ndarray, title: str) -> bytes:
    """A PNG; x runs to the right and y down, as in slides."""
    cells_HW = painted(xy_N2, ranks(share_N))
    with_title = f"{title}, {len(share_N):,} patches"
    return _drawn(
        with_title, [], cells_HW, "rank of the patch's share, percent", {"cmap": "viridis", "vmin": 0, "vmax": 100}
    )


def signed_places(xy_N2: np.ndarray, value_N: np.ndarray, title: str) -> bytes:
    """The same of contributions: red what speaks for the answer, blue what speaks against it, white 0."""
    return _drawn(f"{title}, {len(value_N):,} patches", [], painted(xy_N2, value_N), ADDS, _around_0(value_N))


def signed_cells(image_HWC: np.ndarray, value_HW: np.ndarray, title: str) -> bytes:
    """An image [H, W, 1 or 3], 0 to 255, and beside it the contributions of its cells over a pale form of it."""
    grey_HW = image_HWC[..., :3].astype(float).mean(2)
    return _drawn(title, [grey_HW], value_HW, ADDS, _around_0(value_HW), grey_HW)


ADDS = "what a place adds to the answer"


def _around_0(value: np.ndarray) -> dict[str, Any]:
    most = float(np.abs(value).max()) or 1.0
    return {"cmap": "RdBu_r", "vmin": -most, "vmax": most}


def _drawn(
    title: str,
    beside: Sequence[np.ndarray],
    cells_HW: np.ndarray,
    label: str,
    colours: Mapping[str, Any],
    under_HW: np.ndarray | None = None,
) -> bytes:
    """Grey images, then cells in colours, through which another image shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wide = 1 + len(beside)
    figure = Figure(figsize=(wide * INCHES, INCHES), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for i, grey_HW in enumerate(beside, 1):
        axes = figure.add_subplot(1, wide, i)
        axes.imshow(grey_HW, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
    axes = figure.add_subplot(1, wide, wide)
    if under_HW is not None:
        axes.imshow(under_HW, cmap="gray", vmin=0, vmax=255)
    shown = axes.imshow(cells_HW, interpolation="nearest", alpha=1.0 if under_HW is None else 0.6, **colours)
    axes.set_axis_off()
    # A dollar sign would start mathematics.
    axes.set_title(title.replace("$", r"\$"), fontsize=9)
    figure.colorbar(shown, ax=axes, shrink=0.6, label=label)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    return out.getvalue()


def ranks(share_N: np.ndarray) -> np.ndarray:
    """0 for the smallest share, 100 for the largest; equal shares have their mean; 50 where there is one patch."""
    from scipy.stats import rankdata

    N = len(share_N)
    return np.full(N, 50.0) if N == 1 else 100 * (rankdata(share_N) - 1) / (N - 1)


def step_of(xy_N2: np.ndarray) -> float:
    """The commonest distance of neighbours within a row or a column of patches, the smaller of equal ones; 1 without neighbours."""
    gaps = [_gaps(xy_N2[:, a], xy_N2[:, 1 - a]) for a in (0, 1)]
    sizes, counts = np.unique(np.concatenate(gaps), return_counts=True)
    return float(sizes[counts.argmax()]) if len(sizes) else 1.0


def _gaps(line_N: np.ndarray, along_N: np.ndarray) -> np.ndarray:
    """Distances between neighbours on one line."""
    order = np.lexsort((along_N, line_N))
    same, gap = np.diff(line_N[order]) == 0, np.diff(along_N[order])
    return np.round(gap[same & (gap > 0)], 3)


def painted(xy_N2: np.ndarray, value_N: np.ndarray) -> np.ndarray:
    """Cells [H, W], NaN where no patch lies; sections of a slide need not share a grid, so a patch has several cells a side."""
    xy_N2 = np.asarray(xy_N2, np.float64)
    step = step_of(xy_N2)
    place_N2 = (xy_N2 - xy_N2.min(0)) / step
    fine = max(1, min(FINE, int(MOST / (place_N2.max() + 1))))
    scale = min(1.0, MOST / ((place_N2.max() + 1) * fine))
    corner_N2 = np.round(place_N2 * fine * scale).astype(int)
    width, height = corner_N2.max(0) + fine
    cells_HW = np.full((height, width), np.nan)
    for dy in range(fine):
        for dx in range(fine):
            cells_HW[corner_N2[:, 1] + dy, corner_N2[:, 0] + dx] = value_N
    return cells_HW
