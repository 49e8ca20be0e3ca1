"""Did a system ever leave one answer? A value of a constant answer says what the cases are, not what the system knows."""

from __future__ import annotations

import numpy as np

from trainer.downstream.metrics.predictions import Predictions


def is_constant(p: Predictions, decided: bool) -> bool:
    """Whether all known cases got the same answer: the same scores, or where a metric looks at `decided` classes, the same ones.

    Of masks: nothing is drawn anywhere. A single case is no sign of anything.
    """
    known = p.known()
    if len(known) < 2:
        return False
    if p.kind == "retrieval":
        return False  # ranks are no answers: one answer for all stands at the middle of the ranks
    if p.kind == "segmentation":
        return not known.score[:, known.score.shape[1] // 2 :].any()
    if np.ptp(known.scores, axis=0).max() == 0:
        return True
    if not decided:
        return False
    if p.kind == "multilabel":
        above_NK = known.score > 0.5
        return not (above_NK.any(0) & ~above_NK.all(0)).any()
    return p.kind in ("binary", "multiclass", "ordinal") and len(np.unique(known.decided())) == 1
