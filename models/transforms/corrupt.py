"""Corruptions of an image that a network learns to undo: patches swapped, pixels shuffled, values bent, parts painted over.

Chen et al. 2019 (Context Restoration): swaps. Zhou et al. 2021 (Models Genesis): the others; Haghighi et al. 2021 (TransVW): one of these.
All draws come from `rng`, in a loader thread; what is done with a draw is a function of its own, so that it can be compared with what
others do with the same draw.

Shape letters: H x W pixels, C channels, N windows or boxes, M pixels of all windows, S samples of a curve.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.transforms.elastic import deform

SMALLEST = 14  # pixels of a side: below, no box of out-painting fits between its margins
MARGIN = 3  # pixels around what is painted
SWAP_TRIES = 100
Box = tuple[int, int, int, int]
"""Height, width, top and left."""
Swap = tuple[int, int, int, int, int, int]
"""Top and left of one patch and of another, height and width of both."""
CURVE_SAMPLES = 4096
"""Places of a Bezier curve between which it is taken for straight: with more, an image of 8 bits changes by less than 1e-5."""


@dataclass(frozen=True)
class Corruption:
    """Swaps, then a shuffle, a curve and painting, each of these with a probability of its own; with probability 0 nothing is drawn for it.

    swaps      pairs of patches that are exchanged, one after another
    patch      their least and largest side, as shares of the image's
    shuffle_p, windows   the shuffle's probability, and its windows
    curve_p    the curve's probability
    paint_p    painting's probability; with `inpaint_p` it is in-painting, else out-painting
    """

    swaps: int = 0
    patch: tuple[float, float] = (1 / 16, 1 / 8)
    shuffle_p: float = 0.0
    windows: int = 1000
    curve_p: float = 0.0
    paint_p: float = 0.0
    inpaint_p: float = 0.2

    def __call__(self, image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 -> float32 in [0, 1]; the image itself is left as it is."""
        x_HWC = swapped(image_HWC, drawn_swaps(image_HWC.shape[0], image_HWC.shape[1], self.swaps, self.patch, rng))
        if falls(self.shuffle_p, rng):
            x_HWC = shuffle(x_HWC, self.windows, rng)
        # Until here pixels are of 8 bits: the curve is asked for 256 values, not for every pixel.
        x_HWC = bend(x_HWC, rng) if falls(self.curve_p, rng) else unit(x_HWC)
        if falls(self.paint_p, rng):
            x_HWC = (inpaint if rng.random() < self.inpaint_p else outpaint)(x_HWC, rng)
        return x_HWC


@dataclass(frozen=True)
class Perturbation:
    """An elastic deformation, then one of four, a quarter each: a shuffle, a curve, one block painted over, all but one box painted over.

    elastic    deviation of the moves, as a share of the image's side; 0: none
    windows    of a shuffle
    """

    elastic: float = 0.05
    windows: int = 5

    def __call__(self, image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 -> float32 in [0, 1]; the image itself is left as it is."""
        x_HWC = unit(image_HWC)
        x_HWC = deform(x_HWC, self.elastic, rng) if self.elastic else x_HWC
        which = int(rng.integers(4))
        if which < 2:
            return shuffle(x_HWC, self.windows, rng) if which == 0 else bend(x_HWC, rng)
        return inpaint(x_HWC, rng, 1, 1) if which == 2 else outpaint(x_HWC, rng, 1)


def falls(p: float, rng: np.random.Generator) -> bool:
    """Whether something of probability `p` happens."""
    return p > 0 and bool(rng.random() < p)


def unit(x_HWC: np.ndarray) -> np.ndarray:
    """8 bits -> float32 in [0, 1]."""
    return x_HWC.astype(np.float32) / np.float32(255)


# ---------------------------------------------------------------------------------------------------------------- swaps


def drawn_swaps(H: int, W: int, count: int, patch: tuple[float, float], rng: np.random.Generator) -> list[Swap]:
    """Pairs of patches that do not overlap; of a pair that finds no place nothing."""
    found = []
    for _ in range(count):
        h, w = (int(rng.integers(max(1, int(n * patch[0])), max(1, int(n * patch[1])) + 1)) for n in (H, W))
        places = rng.integers(0, (H - h + 1, W - w + 1), (1 + SWAP_TRIES, 2))
        (top, left), others = places[0], places[1:]
        apart = (np.abs(others[:, 0] - top) >= h) | (np.abs(others[:, 1] - left) >= w)
        if apart.any():
            second = others[apart.argmax()]
            found.append((int(top), int(left), int(second[0]), int(second[1]), h, w))
    return found


def swapped(x_HWC: np.ndarray, swaps: Sequence[Swap]) -> np.ndarray:
    """A copy with these patches exchanged, in turn."""
    out_HWC = x_HWC.copy()
    for top, left, top_2, left_2, h, w in swaps:
        a, b = out_HWC[top : top + h, left : left + w], out_HWC[top_2 : top_2 + h, left_2 : left_2 + w]
        a[:], b[:] = b.copy(), a.copy()
    return out_HWC


# -------------------------------------------------------------------------------------------------------------- shuffle


def shuffle(x_HWC: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pixels permuted within each of `count` windows with sides up to a tenth of the image's."""
    H, W = x_HWC.shape[:2]
    windows_N4 = drawn_windows(H, W, count, rng)
    owner_HW = last_window(H, W, windows_N4)
    # Windows of which nothing is left are drawn no permutation.
    left_N = np.zeros(len(windows_N4) + 1, bool)
    left_N[owner_HW] = True
    left_N = left_N[:-1]
    kept_N4, new_N = windows_N4[left_N], np.append(left_N.cumsum() - 1, -1)
    return _moved(x_HWC, kept_N4, drawn_orders(kept_N4, rng), new_N[owner_HW])


def drawn_windows(H: int, W: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Height, width, top and left of windows, [N, 4]."""
    h_N, w_N = rng.integers(1, max(1, H // 10) + 1, count), rng.integers(1, max(1, W // 10) + 1, count)
    return np.stack([h_N, w_N, rng.integers(0, H - h_N + 1), rng.integers(0, W - w_N + 1)], 1)


def last_window(H: int, W: int, windows_N4: np.ndarray) -> np.ndarray:
    """Of each pixel the last window that covers it, int [H, W]; -1: none."""
    owner_HW = np.full((H, W), -1, np.int64)
    for i, (h, w, top, left) in enumerate(windows_N4.tolist()):
        owner_HW[top : top + h, left : left + w] = i
    return owner_HW


def drawn_orders(windows_N4: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation of each window's pixels, one after another, [M]: from which place of the window a pixel comes."""
    area_N = windows_N4[:, 0] * windows_N4[:, 1]
    if not len(area_N):
        return np.zeros(0, np.int64)
    # Sorting numbers of three parts permutes all windows at once: the window, a random part, and the place, which is what is asked for.
    low = int(area_N.max()).bit_length()
    window_M = np.repeat(np.arange(len(area_N)), area_N)
    place_M = np.arange(area_N.sum()) - np.repeat(area_N.cumsum() - area_N, area_N)
    random_bits = 63 - low - len(area_N).bit_length()
    random_M = rng.integers(0, 1 << random_bits, len(place_M))
    return np.sort((window_M << (random_bits + low)) | (random_M << low) | place_M) & ((1 << low) - 1)


def shuffled(x_HWC: np.ndarray, windows_N4: np.ndarray, order_M: np.ndarray) -> np.ndarray:
    """Each window of the image as it was, its pixels in the given order, written one window over another."""
    return _moved(x_HWC, windows_N4, order_M, last_window(x_HWC.shape[0], x_HWC.shape[1], windows_N4))


def _moved(x_HWC: np.ndarray, windows_N4: np.ndarray, order_M: np.ndarray, owner_HW: np.ndarray) -> np.ndarray:
    _, W, C = x_HWC.shape
    at_P = np.flatnonzero(owner_HW >= 0)
    own_P = owner_HW.ravel()[at_P]
    # 32 bits: most of the time is divisions, and the loader does this for each image.
    h_N, w_N, top_N, left_N = windows_N4.T.astype(np.int32)
    row_P = (at_P // W).astype(np.int32)
    column_P = at_P.astype(np.int32) - row_P * np.int32(W)
    area_N, w_P = h_N * w_N, w_N[own_P]
    # Of each window the place in `order_M` of what would be the image's first pixel in it.
    zero_N = area_N.cumsum() - area_N - top_N * w_N - left_N
    from_P = order_M[zero_N[own_P] + row_P * w_P + column_P].astype(np.int32)
    down_P = from_P // w_P
    source_P = (top_N * np.int32(W) + left_N)[own_P] + down_P * np.int32(W) + (from_P - down_P * w_P)
    out_HWC = x_HWC.copy()
    if C == 1:
        out_HWC.reshape(-1)[at_P] = x_HWC.reshape(-1)[source_P]
    else:
        out_HWC.reshape(-1, C)[at_P] = x_HWC.reshape(-1, C)[source_P]
    return out_HWC


# ---------------------------------------------------------------------------------------------------------------- curve


def bend(x_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """8 bits, or values in [0, 1] -> such values along a random monotone curve, half the time a falling one."""
    line = curve(rng.random((2, 2)), bool(rng.random() >= 0.5))
    if x_HWC.dtype == np.uint8:
        return bent(np.arange(256) / 255, *line).astype(np.float32)[x_HWC]
    return bent(x_HWC, *line).astype(np.float32)


@functools.cache
def _weights(samples: int) -> np.ndarray:
    """Bernstein's polynomials of degree three, [4, S]; the curve is run through from its last point to its first."""
    t_S = np.linspace(0, 1, samples)
    return np.stack([t_S**3, 3 * t_S**2 * (1 - t_S), 3 * t_S * (1 - t_S) ** 2, (1 - t_S) ** 3])


def curve(controls_22: np.ndarray, rising: bool, samples: int = CURVE_SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a cubic Bezier curve between (0, 0) and (1, 1) with two control points [2 (points), 2 (x, y)].

    Both are sorted for a rising map. It is x alone that is sorted for a falling one: y stands from the last point to the first.
    """
    x_S, y_S = (np.array([0, *controls_22[:, i], 1]) @ _weights(samples) for i in (0, 1))
    return np.sort(x_S), np.sort(y_S) if rising else y_S


def bent(x: np.ndarray, x_S: np.ndarray, y_S: np.ndarray) -> np.ndarray:
    """Values of the map through these points, straight between them."""
    return np.interp(x, x_S, y_S)


# ------------------------------------------------------------------------------------------------------------- painting


def inpaint(x_HWC: np.ndarray, rng: np.random.Generator, least: int = 0, most: int = 5) -> np.ndarray:
    """At least `least` and up to `most` blocks, with sides of a sixth to a third of the image's, become noise that all channels share."""
    H, W = x_HWC.shape[:2]
    boxes: list[Box] = []
    noises: list[np.ndarray] = []
    while len(boxes) < least or (len(boxes) < most and rng.random() < 0.95):
        h, w = (int(rng.integers(n // 6, n // 3 + 1)) for n in (H, W))
        boxes.append(_placed(H, W, h, w, rng))
        noises.append(rng.random((h, w), np.float32))
    return painted_in(x_HWC, boxes, noises)


def outpaint(x_HWC: np.ndarray, rng: np.random.Generator, most: int = 5) -> np.ndarray:
    """Noise, in every channel its own, but in one to `most` boxes with sides of three to four sevenths of the image's."""
    H, W = x_HWC.shape[:2]
    canvas_HWC = rng.random(x_HWC.shape, np.float32)
    boxes: list[Box] = []
    while not boxes or (len(boxes) < most and rng.random() < 0.95):
        h, w = (n - int(rng.integers(3 * n // 7, 4 * n // 7 + 1)) for n in (H, W))
        boxes.append(_placed(H, W, h, w, rng))
    return painted_out(x_HWC, boxes, canvas_HWC)


def _placed(H: int, W: int, h: int, w: int, rng: np.random.Generator) -> Box:
    """Height, width, top and left of a box that keeps from the border."""
    top, left = (int(rng.integers(MARGIN, n - side - MARGIN + 1)) for n, side in ((H, h), (W, w)))
    return h, w, top, left


def painted_in(x_HWC: np.ndarray, boxes: Sequence[Box], noises: Sequence[np.ndarray]) -> np.ndarray:
    """A copy with each box (height, width, top, left) filled with its noise [h, w], one after another."""
    out_HWC = x_HWC.copy()
    for (h, w, top, left), noise_hw in zip(boxes, noises, strict=True):
        out_HWC[top : top + h, left : left + w] = noise_hw[..., None]
    return out_HWC


def painted_out(x_HWC: np.ndarray, boxes: Sequence[Box], canvas_HWC: np.ndarray) -> np.ndarray:
    """The canvas, with the image in each box (height, width, top, left)."""
    out_HWC = canvas_HWC.copy()
    for h, w, top, left in boxes:
        out_HWC[top : top + h, left : left + w] = x_HWC[top : top + h, left : left + w]
    return out_HWC


# ---------------------------------------------------------------------------------------------------------------- flips


def flipped(x_HWC: np.ndarray, p: float, axes: int, rng: np.random.Generator, most: int = 3) -> np.ndarray:
    """While a number falls below `p`, at most three times, rows or columns are reversed; more than two `axes` hold nothing."""
    for _ in range(most):
        if not falls(p, rng):
            break
        axis = int(rng.integers(axes))
        x_HWC = np.flip(x_HWC, axis) if axis < 2 else x_HWC
    return np.ascontiguousarray(x_HWC)
