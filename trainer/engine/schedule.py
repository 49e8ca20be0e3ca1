"""The learning rate as a function of the number of updates made. Skipped steps do not count, so it stands still on them."""

from __future__ import annotations

import math

from trainer.config.schema import Optim


def learning_rate(optim: Optim, update: int, updates: int) -> float:
    """Learning rate of update number `update` (from 0) of `updates`: linear warm-up from lr/n to lr, then the schedule.

    Cosine: min + (lr - min) * (1 + cos(pi t)) / 2 with t in [0, 1) over what follows the warm-up (Loshchilov and Hutter,
    arXiv 1608.03983, without restarts).
    """
    warm = round(optim.warmup * updates)
    if update < warm:
        return optim.lr * (update + 1) / warm
    if optim.schedule == "constant":
        return optim.lr
    t = min(1.0, (update - warm) / max(1, updates - warm))
    fall = (1 + math.cos(math.pi * t)) / 2 if optim.schedule == "cosine" else 1 - t
    return optim.min_lr + (optim.lr - optim.min_lr) * fall
