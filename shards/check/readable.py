"""Whether features can be looked at: asked before they go into an embedding, a decomposition or a probe.

What libraries do with numbers that are not finite, with too few samples or with samples that are all alike differs from one to the next
(an error, NaN, a library's abort), and none of it may end a run.

Shape letters: N samples, D width.
"""

from __future__ import annotations

import numpy as np

LARGEST = 1e18
"""Beyond it squares overflow in float32."""
ALIKE = 1e-6


def unreadable(x_ND: np.ndarray, fewest: int = 2, distinct: int = 2, width: int = 1) -> str | None:
    """Why not, or None where all is well.

    Args:
        fewest: samples needed.
        distinct: samples needed that differ from each other; 1 where features that are all alike are an answer too.
        width: columns needed.
    """
    if x_ND.ndim != 2 or x_ND.shape[1] < width:
        return f"features of shape {list(x_ND.shape)}, at least {width} numbers a sample are needed"
    if len(x_ND) < fewest:
        return f"{len(x_ND)} samples, at least {fewest} are needed"
    bad_N = ~np.isfinite(x_ND).all(1)
    if bad_N.any():
        return f"{int(bad_N.sum())} of {len(x_ND)} samples have features that are not finite"
    top_D = np.abs(x_ND).max(0)
    if top_D.max() > LARGEST:
        return f"features up to {top_D.max():.1e}: the encoder diverged"
    spread_D = np.ptp(x_ND.astype(np.float64), axis=0)
    if distinct > 1 and not (spread_D > ALIKE * top_D).any():
        return "all samples have the same features: the encoder collapsed"
    if distinct > 2 and (found := len(np.unique(x_ND, axis=0))) < distinct:
        return f"{found} different features among {len(x_ND)} samples, at least {distinct} are needed"
    return None
