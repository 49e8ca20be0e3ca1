"""Quality control of fundus photographs: find the circle of the retina, crop it, drop the brightest and darkest.

The paper finds the circle with a Hough transform and drops what has none, then 0.5 % at either end of brightness, each eye
apart. Here the circle is fitted to the outline of the lit area instead, which needs no tuning to resolution and gives the
same answer where the disc is cut off by the frame: lit pixels by Otsu's threshold (1979), the largest connected area, its
outermost points in every row and column, those on the frame left out, an algebraic least-squares circle (Kasa 1976), twice
refitted without its worst points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SHORT_SIDE = 256  # pixels at which the circle is looked for
MARGIN = 5  # pixels of the original around the circle
MAX_RESIDUAL = 0.04  # of the radius, median
MIN_ARC = 0.25  # of the full circle that the outline must cover


@dataclass(frozen=True)
class Circle:
    """Centre and radius in pixels of the image."""

    x: float
    y: float
    radius: float


def otsu(grey_HW: np.ndarray) -> float:
    """The threshold with the largest variance between the two classes it makes (Otsu 1979)."""
    count = np.bincount(grey_HW.ravel(), minlength=256).astype(np.float64)
    below, level = np.cumsum(count), np.arange(256)
    mass = np.cumsum(count * level)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = mass / below - (mass[-1] - mass) / above
        between = np.nan_to_num(below * above * gap**2)
    return float(between.argmax())


def find_circle(image_HWC: np.ndarray) -> Circle | None:
    """The retina's circle, or None where there is none: nothing lit, an outline that is no circle, too little of one, or
    a radius below a quarter of the shorter side or above the longer one."""
    from scipy import ndimage

    assert image_HWC.dtype == np.uint8, "images come through shards/format/images.py"
    assert image_HWC.shape[2] in (1, 3), "images come through shards/format/images.py"
    step = max(1, min(image_HWC.shape[:2]) // SHORT_SIDE)
    grey_HW = ndimage.median_filter(image_HWC[::step, ::step].max(-1), 5)
    lit = grey_HW > min(otsu(grey_HW), 60)  # a bright disc must not push its own dim rim below the threshold
    areas, n = ndimage.label(lit)
    if n == 0:
        return None
    area = areas == 1 + np.argmax(ndimage.sum_labels(lit, areas, np.arange(1, n + 1)))
    points = _outline(area)
    circle = _fitted(points)
    if circle is None:
        return None
    H, W = grey_HW.shape
    if not min(H, W) / 4 <= circle.radius <= max(H, W):
        return None
    return Circle(circle.x * step, circle.y * step, circle.radius * step)


def _outline(area_HW: np.ndarray) -> np.ndarray:
    """[N, 2] outermost points (x, y) of an area in every row and column, without those that the frame cuts."""
    H, W = area_HW.shape
    rows, columns = np.flatnonzero(area_HW.any(1)), np.flatnonzero(area_HW.any(0))
    left, right = area_HW[rows].argmax(1), W - 1 - area_HW[rows][:, ::-1].argmax(1)
    top, bottom = area_HW[:, columns].argmax(0), H - 1 - area_HW[::-1, columns].argmax(0)
    x = np.concatenate([left, right, columns, columns])
    y = np.concatenate([rows, rows, top, bottom])
    inside = (x > 1) & (x < W - 2) & (y > 1) & (y < H - 2)
    return np.stack([x[inside], y[inside]], 1).astype(np.float64)


def _fitted(points_N2: np.ndarray) -> Circle | None:
    """Least-squares circle, refitted twice without the worst fifth; None where the points lie on none."""
    if len(points_N2) < 20:
        return None
    keep = points_N2
    for _ in range(3):
        x, y = keep.T
        # x^2 + y^2 = 2 a x + 2 b y + c is linear in (a, b, c) (Kasa 1976)
        (a, b, c), *_ = np.linalg.lstsq(np.stack([2 * x, 2 * y, np.ones_like(x)], 1), x**2 + y**2, rcond=None)
        squared = c + a**2 + b**2
        if squared <= 0:
            return None
        radius = float(np.sqrt(squared))
        gap = np.abs(np.hypot(points_N2[:, 0] - a, points_N2[:, 1] - b) - radius)
        keep = points_N2[gap <= np.quantile(gap, 0.8)]
    sectors = np.unique(np.floor(np.arctan2(keep[:, 1] - b, keep[:, 0] - a) / (2 * np.pi) * 36))
    if np.median(gap) > MAX_RESIDUAL * radius or len(sectors) < MIN_ARC * 36:
        return None
    return Circle(float(a), float(b), radius)


def crop(image_HWC: np.ndarray, circle: Circle) -> np.ndarray:
    """The square around the circle with a small margin; what lies outside the frame is black."""
    half = int(np.ceil(circle.radius)) + MARGIN
    x, y = round(circle.x), round(circle.y)
    H, W, C = image_HWC.shape
    square = np.zeros((2 * half, 2 * half, C), image_HWC.dtype)
    top, left, bottom, right = max(0, y - half), max(0, x - half), min(H, y + half), min(W, x + half)
    square[top - y + half : bottom - y + half, left - x + half : right - x + half] = image_HWC[top:bottom, left:right]
    return square


def tails(brightness: Mapping[str, float], group: Mapping[str, str], share: float) -> dict[str, str]:
    """Images to drop: {name: "darkest" or "brightest"}, `share` at either end of each group, rounded down."""
    dropped: dict[str, str] = {}
    for one in sorted(set(group.values())):
        names: Sequence[str] = sorted((n for n in brightness if group[n] == one), key=lambda n: (brightness[n], n))
        n = int(share * len(names))
        dropped |= dict.fromkeys(names[:n], "darkest") | dict.fromkeys(
            names[len(names) - n :] if n else (), "brightest"
        )
    return dropped
