"""Expression values and scores as z-scores. Shape letters: B samples, F features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Field, Options, Schema


class ExpressionOptions(Options):
    """How vectors of genes are given to their encoder: base of the options of every such encoder."""

    normalise: Literal["stats", "none"] = "stats"
    """Values as z-scores by the training split's statistics of the data set, or as stored."""
    clip: float | None = Bounded(None, gt=0)
    """Cut z-scores off at so many deviations either way; null: none are (the papers). Real tables hold genes that are all but constant
    in the training split and thousands of deviations off elsewhere."""

    def clip_problems(self, where: str, fields: Iterable[str], schema: Schema) -> Iterable[str]:
        """Why these fields cannot be clipped: their values would be no z-scores."""
        clip = self.clip
        if clip is None:
            return
        if self.normalise != "stats":
            yield (
                f"{where}.clip: {clip:g} deviations of values as stored mean nothing; set {where}.normalise=stats, or leave it out"
            )
            return
        for name in fields:
            field = schema.fields.get(name)
            if field is not None and (field.mean is None or field.std is None):
                yield f"{where}.clip needs statistics of '{name}', which {schema.source} lacks; pack it again, or leave it out"

    def scale(self, field: Field, width: int) -> tuple[np.ndarray, np.ndarray]:
        """What is taken out of a field's values and what they are divided by, float32 [width]: 0 and 1 where they stay as stored.

        A gene that never varies has the deviation 0: it carries nothing.
        """
        if self.normalise == "none" or field.mean is None or field.std is None:
            return np.zeros(width, np.float32), np.ones(width, np.float32)
        return np.asarray(field.mean, np.float32), np.asarray(field.std, np.float32)


def standardised(x_BF: Tensor, mean_F: Tensor, std_F: Tensor, clip: float | None = None) -> Tensor:
    """(x - mean) / std in float32, cut off at `clip` deviations either way if that is given.

    A gene that is all but constant in the training split can stand thousands of deviations off in a sample, and then rules
    everything that is linear in the values.
    """
    z_BF = (x_BF.float() - mean_F.float()) / std_F.float()
    return z_BF if clip is None else z_BF.clamp(-clip, clip)
