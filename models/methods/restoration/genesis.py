"""Models Genesis in two dimensions (Zhou et al., MICCAI 2019, arXiv 1908.06912; Medical Image Analysis 67, 2021).

Pixels of an image are shuffled in small windows, its values bent along a curve, parts of it painted over; a network restores the image.
docs/methods/genesis.md says what the official code, which is for volumes alone, does and what was chosen for images.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field as Bounded

from models.contract import Schema
from models.methods.restoration._restore import RestorationMethod, RestorationOptions
from models.methods.restoration._swaps import SwapOptions
from models.registry import register
from models.transforms.corrupt import Corruption

WINDOWS = {"recommended": 1000, "published": 10_000}


class GenesisOptions(RestorationOptions, SwapOptions):
    conventions: Literal["recommended", "published"] = "recommended"
    """`published`: the official code's count of windows, and its flips, a third of which do nothing (docs)."""
    shuffle_p: float = Bounded(0.5, ge=0, le=1)
    """Share of images whose pixels are shuffled."""
    shuffle_windows: int | None = Bounded(None, ge=1, le=100_000)
    """Windows of a shuffle, with sides up to a tenth of the image's; none given: 1,000, or the published code's 10,000 for its cubes."""
    curve_p: float = Bounded(0.9, ge=0, le=1)
    """Share of images whose values are bent along a random monotone curve."""
    paint_p: float = Bounded(0.9, ge=0, le=1)
    """Share of images that are painted over."""
    inpaint_p: float = Bounded(0.2, ge=0, le=1)
    """Of these the share in which parts are painted over; in the others all is but for parts."""
    swaps: int = Bounded(0, ge=0, le=1000)
    """Pairs of patches that are exchanged first (Context Restoration's corruption)."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not (self.swaps or self.shuffle_p or self.curve_p or self.paint_p):
            yield f"{where}: nothing is corrupted, so there is nothing to restore; give {where}.shuffle_p, curve_p, paint_p or swaps"


@register("genesis")
class Genesis(RestorationMethod):
    """See the base."""

    Options = GenesisOptions
    paper = "Zhou et al., Models Genesis, Medical Image Analysis 2021"
    options: GenesisOptions

    def __init__(self, options: GenesisOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        # Theirs are axes of (channel, row, column), and there is one channel.
        self.flip_axes = 3 if o.conventions == "published" else 2
        self.corruption = Corruption(
            o.swaps, (o.patch_min, o.patch_max), o.shuffle_p, o.shuffle_windows or WINDOWS[o.conventions], o.curve_p, o.paint_p,
            o.inpaint_p,
        )  # fmt: skip
        self.enter("")
