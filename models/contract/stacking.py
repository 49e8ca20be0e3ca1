"""Samples into a batch: of each array one tensor, where all samples have it and in one shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from models.contract.batch import Batch, Sample
from models.contract.errors import MethodError


def stack(samples: Sequence[Sample]) -> Batch:
    """Each array of the samples stacked along B; what the loader has stacked already (`samples.stacked`) is taken as it is.

    Raises:
        MethodError: samples that hold other arrays than the others, or an array in several shapes.
    """
    if problems := list(_unlike(samples)):
        raise MethodError(problems)
    done = getattr(samples, "stacked", {})
    tensors = {
        n: torch.from_numpy(done[n]) if n in done else _stacked(n, [s.arrays[n] for s in samples])
        for n in samples[0].arrays
    }
    return Batch(tensors, {n: torch.tensor([s.present[n] for s in samples]) for n in samples[0].present})


def _unlike(samples: Sequence[Sample]) -> Iterator[str]:
    """What only some of the samples have; taken from the first sample alone, it would be lost without a word."""
    arrays, present = {*samples[0].arrays}, {*samples[0].present}
    some = {n for s in samples for n in arrays ^ s.arrays.keys()}
    if some:
        yield (
            f"only some samples of a batch have the array {_quoted(some)}: `sample` gives all arrays of every sample, "
            "zeros in place of a field that is missing, and says so in `present`"
        )
    told = {n for s in samples for n in present ^ s.present.keys()}
    if told:
        yield f"only some samples of a batch say whether {_quoted(told)} is present: `sample` says it of every sample"


def _stacked(name: str, arrays: Sequence[np.ndarray]) -> Tensor:
    shapes = sorted({a.shape for a in arrays})
    if len(shapes) > 1:
        raise MethodError(
            [
                f"array '{name}' has {len(shapes)} shapes in a batch of {len(arrays)} samples ({shapes[0]} and {shapes[1]}, say): "
                "`sample` cuts or fills it to one shape, or the method pads in a `collate` of its own "
                "(BagMethod in models/methods/slides/_bag.py)"
            ]
        )
    return torch.from_numpy(np.stack(arrays))


def _quoted(names: set[str]) -> str:
    return ", ".join(f"'{n}'" for n in sorted(names))
