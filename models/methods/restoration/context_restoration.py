"""Context Restoration: Self-supervised learning for medical image analysis using image context restoration (Chen et al. 2019).

Pairs of small patches of an image are exchanged, so that its values stay and their places do not; a network restores the image. There is
no official code; docs/methods/context_restoration.md says what the paper leaves open and what was chosen.
"""

from __future__ import annotations

from pydantic import Field as Bounded

from models.contract import Schema
from models.methods.restoration._restore import RestorationMethod, RestorationOptions
from models.methods.restoration._swaps import SwapOptions
from models.registry import register
from models.transforms.corrupt import Corruption


class ContextRestorationOptions(RestorationOptions, SwapOptions):
    swaps: int = Bounded(10, ge=1, le=1000)
    """Pairs of patches that are exchanged, one after another."""


@register("context_restoration")
class ContextRestoration(RestorationMethod):
    """See the base."""

    Options = ContextRestorationOptions
    paper = (
        "Chen et al., Self-supervised learning for medical image analysis using image context restoration, "
        "Medical Image Analysis 2019"
    )
    options: ContextRestorationOptions

    def __init__(self, options: ContextRestorationOptions, schema: Schema):
        super().__init__(options, schema)
        self.corruption = Corruption(options.swaps, (options.patch_min, options.patch_max))
        self.enter("")
