"""Pictures for TensorBoard that several methods draw. Shape letters: B samples, N x M cells, D width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from models.contract import Batch

MOST = 8  # samples in a picture
CELL = 32  # pixels of a cell: room for a number
# Blue, green, yellow: viridis' ends and middle, in which brightness grows evenly.
COLOURS = np.array([[68.0, 1, 84], [33, 145, 140], [253, 231, 37]])


def first(batch: Batch, n: int = MOST) -> Batch:
    """The first n samples."""
    present = {k: v[:n] for k, v in batch.present.items()}
    return Batch({k: v[:n] for k, v in batch.items()}, present, batch.weight_B[:n], batch.keys_B[:n])


def alike(a_BD: Tensor, b_BD: Tensor | None = None) -> Tensor:
    """Cosines of samples with samples [B, B], or of two views of them (row: first, column: second)."""
    a, b = (F.normalize(x.float(), dim=-1) for x in (a_BD, a_BD if b_BD is None else b_BD))
    return a @ b.T


def matrices(rows: Sequence[Sequence[Tensor]]) -> np.ndarray:
    """Matrices [N, M] of cosines, in rows and columns of one picture; uint8 [H, W, 3].

    Each column of the picture has its own scale, from its lowest value (dark) to its highest (yellow), so that small
    differences show; the numbers in the cells, in hundredths, tell how small they are.
    """
    drawn = []
    for column in zip(*rows, strict=True):
        values = [m.detach().float().cpu().numpy() for m in column]
        low, high = min(v.min() for v in values), max(v.max() for v in values)
        drawn.append(np.concatenate([_drawn(v, float(low), float(high)) for v in values], 0))
    return np.concatenate(drawn, 1)


def _drawn(x_NM: np.ndarray, low: float, high: float) -> np.ndarray:
    """One matrix with a white line right and below."""
    from PIL import Image, ImageDraw

    share_NM = (x_NM - low) / max(high - low, 1e-6)
    colour_NM3 = np.stack([np.interp(share_NM, (0, 0.5, 1), COLOURS[:, c]) for c in range(3)], -1).round()
    pixels = colour_NM3.astype(np.uint8).repeat(CELL, 0).repeat(CELL, 1)
    picture = Image.fromarray(np.pad(pixels, ((0, 2), (0, 2), (0, 0)), constant_values=255))
    pen = ImageDraw.Draw(picture)
    for (n, m), value in np.ndenumerate(x_NM):
        ink = (0, 0, 0) if share_NM[n, m] > 0.6 else (255, 255, 255)
        # Cosines that are nearly equal differ behind the point.
        pen.text((m * CELL + 4, n * CELL + 10), f"{100 * value:.{int(high - low < 0.2)}f}", fill=ink)
    return np.asarray(picture)


def row_of_images(image_BHWC: Tensor) -> np.ndarray:
    """Images as stored, side by side, uint8 [H, B * W, 3]; one channel becomes grey."""
    return np.concatenate([i.expand(*i.shape[:2], 3).numpy() for i in image_BHWC.cpu()], 1)
