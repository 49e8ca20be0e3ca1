"""Is the training healthy? The budget of non-finite steps, and monitors of collapse.

Shape letters: B samples, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.errors import TrainingError, everywhere


class BadSteps:
    """Counts non-finite steps of a run and ends it when there are too many."""

    def __init__(self, limit: int, seen: list[tuple[int, list[str]]] | None = None):
        self.limit = limit
        self.seen = seen or []

    def add(self, step: int, keys: list[str]) -> None:
        """Notes a skipped step.

        Raises:
            TrainingError: this one is over the budget; all of them are named with their samples.
        """
        self.seen.append((step, keys))
        if len(self.seen) > self.limit:
            lines = [f"  step {s}: {', '.join(k)}" for s, k in self.seen]
            error = TrainingError(
                f"{len(self.seen)} steps had a non-finite loss or gradient (health.max_bad_steps={self.limit}). "
                "Look at these samples (python -m shards lint DIR), or lower optim.lr:\n" + "\n".join(lines)
            )
            raise everywhere(error)


def feature_std(x_BD: Tensor) -> float:
    """Mean over dimensions of the standard deviation over samples, of L2-normalised rows times sqrt(D).

    About 1 when directions spread evenly, 0 when all samples have collapsed onto one (Chen and He, arXiv 2011.10566, 4.1).
    """
    x = torch.nn.functional.normalize(x_BD.double(), dim=1) * x_BD.shape[1] ** 0.5
    return float(x.std(0, unbiased=False).mean())


def effective_rank(x_BD: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred features (Roy and Vetterli, 2007).

    Between 1 (one direction left) and min(B - 1, D).
    """
    x = x_BD.double() - x_BD.double().mean(0)
    s = torch.linalg.svdvals(x)
    p = s / s.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.exp(-(p * torch.log(p.clamp_min(torch.finfo(torch.float64).tiny))).sum()))


def collapse_readings(features: dict[str, Tensor]) -> dict[str, float]:
    """Both monitors for every named feature matrix that can be read: two samples or more, all of them finite."""
    out: dict[str, float] = {}
    for name, x_BD in features.items():
        if len(x_BD) > 1 and bool(torch.isfinite(x_BD).all()):
            out[f"feature_std/{name}"] = feature_std(x_BD)
            out[f"effective_rank/{name}"] = effective_rank(x_BD)
    return out
