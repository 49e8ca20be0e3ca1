"""A sample as the mean of what is measured in it, without a weight: what a linear probe of it reaches, a system has to beat.

A slide is the mean of its patches' features; an image its pixels, averaged to 16 x 16. Neither is learned, so nothing but the probe is.

Shape letters: B samples, N patches, F their width, H x W pixels, C channels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from models.baselines._fixed import Fixed
from models.contract import MethodError, Options, Record, Sample, Schema
from models.registry import register
from models.transforms.crops import eight_bit

SIDE = 16


class MeanFeaturesOptions(Options):
    reads: Literal["patches", "image"] = "patches"
    """The field: features of a slide's patches, or the pixels of an image."""


@register("mean_features")
class MeanFeatures(Fixed):
    """The mean of a slide's patch features, or an image of 16 x 16; zero where there is none."""

    Options = MeanFeaturesOptions
    options: MeanFeaturesOptions

    def __init__(self, options: MeanFeaturesOptions, schema: Schema):
        super().__init__(options, schema)
        if options.reads not in schema.fields:
            raise MethodError([schema.lacks(options.reads, self.name)])
        self.inputs = (options.reads,)
        self.width = schema.need("patches").width if options.reads == "patches" else SIDE * SIDE * 3

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """`vector` [F], or [16 * 16 * 3] from 0 to 1."""
        name = self.options.reads
        present = record.has(name) and (name == "image" or record.shape(name)[0] > 0)
        if not present:
            mean_F = np.zeros(self.width, np.float32)
        elif name == "patches":
            mean_F = record.read(name).mean(0, dtype=np.float64).astype(np.float32)
        else:
            mean_F = small(record.read(name))
        return Sample({"vector": mean_F}, {name: present})


def small(image_HWC: np.ndarray) -> np.ndarray:
    """Means of 16 x 16 areas of an image, three channels, from 0 to 1, flat."""
    from PIL import Image

    image_HWC = np.broadcast_to(eight_bit(image_HWC), (*image_HWC.shape[:2], 3))
    drawn = Image.fromarray(np.ascontiguousarray(image_HWC)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return (np.asarray(drawn, np.float32) / 255).reshape(-1)
