"""A sample that is in memory, as a method reads one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GivenRecord:
    """Arrays by field, as models' `Record`: it has no labels and belongs to nobody known."""

    key: str
    arrays: Mapping[str, np.ndarray]

    @property
    def patient(self) -> str:
        return self.key

    @property
    def labels(self) -> Mapping[str, str | float | None]:
        return {}

    def has(self, name: str) -> bool:
        return name in self.arrays

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.arrays[name][start:stop]
