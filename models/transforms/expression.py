"""Expression values and scores as z-scores. Shape letters: B samples, F features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from models.contract import Schema


def standardised(x_BF: Tensor, mean_F: Tensor, std_F: Tensor, clip: float | None = None) -> Tensor:
    """(x - mean) / std in float32, cut off at `clip` deviations either way if that is given.

    A gene that is all but constant in the training split can stand thousands of deviations off in a sample, and then rules
    everything that is linear in the values.
    """
    z_BF = (x_BF.float() - mean_F.float()) / std_F.float()
    return z_BF if clip is None else z_BF.clamp(-clip, clip)


def clip_problems(clip: float | None, normalise: str, fields: Iterable[str], schema: Schema) -> Iterable[str]:
    """Why these fields cannot be clipped: their values would be no z-scores."""
    known: Mapping = schema.fields
    if clip is None:
        return
    if normalise != "stats":
        yield f"method.gene_clip: {clip:g} deviations of values as stored mean nothing; set method.normalise=stats, or leave it out"
        return
    for name in fields:
        if name in known and (known[name].mean is None or known[name].std is None):
            yield f"method.gene_clip needs statistics of '{name}', which {schema.source} lacks; pack it again, or leave it out"
