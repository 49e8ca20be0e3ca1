"""An interval of a result in words, wherever one is shown: a number without width is not passed off as certainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BOOTSTRAP, DEGENERATE, NONE = "bootstrap-se", "degenerate", "none"
PERCENTILES = "bootstrap"
"""What results of earlier versions call their intervals, percentiles of resamples."""


def interval_text(m: Mapping[str, Any], digits: int = 4) -> str:
    """Of a metric's entry in result.json: "0.7529 to 1.0000 (Clopper-Pearson)", "degenerate", or "-" where there is none.

    Results of first versions do not say what gave an interval: one without width counts as degenerate.
    """
    low, high = m.get("interval") or (None, None)
    if low is None or high is None:
        return "-"
    by = m.get("interval_by") or (DEGENERATE if low == high else BOOTSTRAP)
    if by == DEGENERATE:
        return DEGENERATE
    return f"{low:.{digits}f} to {high:.{digits}f}" + ("" if by in (BOOTSTRAP, PERCENTILES) else f" ({by})")
