"""Pictures of contrastive training for TensorBoard. Shape letters: B samples, H x W pixels, C channels."""

from __future__ import annotations

import numpy as np
from torch import Tensor

MOST = 8  # samples in a picture
CELL = 24  # pixels of a matrix's cell
LOW, HIGH = np.array([49.0, 54, 149]), np.array([253.0, 231, 37])


def similarity(cosines_BB: Tensor) -> np.ndarray:
    """A matrix of cosines (row: first view, column: second) as colours from -1 (blue) to 1 (yellow), uint8 [H, W, 3]."""
    share_BB1 = ((cosines_BB.float().cpu().numpy() + 1) / 2).clip(0, 1)[..., None]
    cells = (LOW + share_BB1 * (HIGH - LOW)).round().astype(np.uint8)
    return cells.repeat(CELL, 0).repeat(CELL, 1)


def row_of_images(image_BHWC: Tensor) -> np.ndarray:
    """The images side by side as stored, uint8 [H, B * W, 3]; one channel becomes grey."""
    image_BHWC = image_BHWC[:MOST].cpu()
    return np.concatenate([i.expand(*i.shape[:2], 3).numpy() for i in image_BHWC], 1)
