"""The options of patches that are exchanged, for systems that have it."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field as Bounded

from models.contract import Options


class SwapOptions(Options):
    """Sides of the exchanged patches."""

    patch_min: float = Bounded(1 / 16, gt=0, lt=0.5)
    """Least side of an exchanged patch, as a share of the image's."""
    patch_max: float = Bounded(1 / 8, gt=0, lt=0.5)
    """Its largest side."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.patch_min > self.patch_max:
            yield f"{where}.patch_min: {self.patch_min} is above {where}.patch_max ({self.patch_max}); exchange them"
