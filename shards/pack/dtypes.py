"""Compact dtypes: which one a field gets, and conversion that refuses to lose what matters."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from shards.format.describe import HeaderError
from shards.read.stats import Moments

DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64")
# Rounding may cost a feature this much of its standard deviation (root mean square). float16 keeps 11 bits, so a standardised
# feature loses 0.02 %; over one per cent means an offset or a range that float16 does not suit.
TOLERANCE = 0.01
TRANSFORMS = {"none": lambda x: x, "log2p1": lambda x: np.log2(x + 1)}


@dataclass
class VectorProfile:
    """What the vectors of one field look like, over all samples: decides the dtype and the imputed values."""

    width: int
    all: Moments = field(init=False)
    train: Moments = field(init=False)
    squared_error: np.ndarray = field(init=False)  # [D], of rounding to float16
    low: float = np.inf
    high: float = -np.inf
    whole: bool = True
    missing: int = 0

    def __post_init__(self) -> None:
        self.all, self.train, self.squared_error = Moments(self.width), Moments(self.width), np.zeros(self.width)

    def add(self, x_D: np.ndarray, in_train: bool) -> None:
        self.all.add(x_D)
        if in_train:
            self.train.add(x_D)
        known = np.isfinite(x_D)
        self.missing += int((~known).sum())
        if not known.any():
            return
        values = x_D[known].astype(np.float64)
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.whole = self.whole and bool((values == np.round(values)).all())
        with np.errstate(over="ignore", invalid="ignore"):
            error = values - values.astype(np.float16)
        self.squared_error[known] += error**2

    @property
    def float16_error(self) -> float:
        """Largest root mean square rounding error of a feature, as a share of its standard deviation."""
        std_D = self.all.std_D
        varies = std_D > 0
        if not varies.any():
            return 0.0
        rms_D = np.sqrt(self.squared_error / np.maximum(self.all.count_D, 1))
        return float((rms_D[varies] / std_D[varies]).max())

    def dtype(self) -> tuple[str, str]:
        """The most compact dtype that keeps the field, and the reason in words."""
        if self.whole and self.low >= -128 and self.high <= 127:
            return "int8", f"whole numbers from {self.low:g} to {self.high:g}"
        if max(abs(self.low), abs(self.high)) > 65504:
            return "float32", f"values reach {max(abs(self.low), abs(self.high)):g}, over the range of float16"
        if not self.float16_error <= TOLERANCE:
            return "float32", f"float16 would cost a feature {self.float16_error:.1%} of its standard deviation"
        return "float16", f"rounding costs no feature more than {self.float16_error:.2%} of its standard deviation"


def array_dtype(name: str, source: str) -> str:
    """Default dtype of a field of two or more axes, from its source dtype: floats become float16, coordinates int32."""
    if name == "coords" or source in ("int64", "uint32", "uint64"):
        return "int32"
    if source == "bool":
        return "uint8"
    if source == "uint16":
        return "int32"
    return "float16" if source.startswith("float") else source


def convert(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in another dtype.

    Raises:
        HeaderError: a value does not fit, a fraction would be cut off, or rounding costs over TOLERANCE of the spread.
    """
    if array.dtype == dtype:
        return array
    target = np.dtype(dtype)
    if target.kind in "iu":
        limits = np.iinfo(target)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise HeaderError(f"holds values from {array.min():g} to {array.max():g}, which {dtype} cannot")
        cast = array.astype(target)
        if not np.array_equal(cast, array):
            raise HeaderError(f"holds fractions, which {dtype} cannot")
        return cast
    with np.errstate(over="ignore"):
        cast = array.astype(target)
    if not np.isfinite(cast).all() and np.isfinite(array).all():
        raise HeaderError(f"holds values up to {np.abs(array).max():g}, over the range of {dtype}")
    return cast


def rounding_loss(array: np.ndarray, cast: np.ndarray) -> float:
    """Root mean square rounding error over the standard deviation of the whole array."""
    spread = float(array.std(dtype=np.float64))
    error = np.subtract(array, cast, dtype=np.float64)
    return float(np.sqrt(np.mean(error**2))) / spread if spread > 0 else 0.0
