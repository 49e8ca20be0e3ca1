"""Intervals and p values from what resamples say of a number's standard error.

The reach of an interval is Student's t with P - 1 degrees of freedom times the standard error, on a scale that has no ends: log odds of a
share, logarithm of an error, Fisher's z of a correlation, by the delta method. Percentiles of the resamples themselves were replaced:
in simulation (docs/results/coverage.md) they held the true value too seldom wherever a number lies near its end, or its resamples lie
to one side of it.

Shape letters: R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

NAN = float("nan")
Scale = Literal["share", "error", "correlation", "below_one", "real"]
"""Where a number lies: within 0 and 1, above 0, within -1 and 1, below 1, anywhere."""
Map = Callable[[float], float]


def _log_odds(x: float) -> float:
    return math.log(x) - math.log1p(-x)


def _share(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


FREE: dict[Scale, tuple[Map, Map, Map]] = {
    "share": (_log_odds, _share, lambda x: 1 / (x * (1 - x))),
    "error": (math.log, math.exp, lambda x: 1 / x),
    "correlation": (math.atanh, math.tanh, lambda x: 1 / (1 - x * x)),
    "below_one": (lambda x: -math.log1p(-x), lambda z: -math.expm1(-z), lambda x: 1 / (1 - x)),
    "real": (lambda x: x, lambda z: z, lambda x: 1.0),
}
"""By scale: the way to one without ends, the way back, and the slope of the way there."""


def error_of(value_R: np.ndarray, patients: int) -> float:
    """The standard error that resamples of so many patients show: a resample's patients vary by sqrt((P - 1) / P) too little."""
    defined_R = value_R[~np.isnan(value_R)]
    if patients < 2 or len(defined_R) < 2:
        return NAN
    # Equal resamples: exactly none, not a rounding error.
    return 0.0 if np.ptp(defined_R) == 0 else float(defined_R.std(ddof=1)) * math.sqrt(patients / (patients - 1))


def interval(value: float, error: float, freedom: float, level: float, scale: Scale = "real") -> tuple[float, float]:
    """Of a number with this standard error; NaN where either is none. At an end of its scale, whose slope is infinite, it is the number."""
    from scipy.special import stdtrit  # what scipy.stats.t asks, without its checks of arrays

    if math.isnan(value) or math.isnan(error):
        return NAN, NAN
    there, back, slope = FREE[scale]
    try:
        z, reach = there(value), float(-stdtrit(freedom, (1 - level) / 2)) * error * slope(value)
    except (ValueError, ZeroDivisionError):
        return value, value
    return (back(z - reach), back(z + reach)) if reach else (value, value)


def p_value(difference: float, error: float, freedom: float) -> float:
    """Two-sided, of a difference that is 0 in truth; NaN where there is no error to measure it by."""
    from scipy.special import stdtr

    if difference == 0:
        return 1.0
    return float(2 * stdtr(freedom, -abs(difference) / error)) if error > 0 else NAN


def joined(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """(error, degrees of freedom) of a sum of independent parts, each (error, degrees of freedom): Satterthwaite 1946.

    NaN where an error is not known.
    """
    if any(math.isnan(e) for e, _ in parts):
        return NAN, NAN
    total, squares = sum(e**2 for e, _ in parts), sum(e**4 / df for e, df in parts)
    return math.sqrt(total), (total**2 / squares if squares > 0 else parts[0][1])
