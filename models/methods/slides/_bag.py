"""What systems share that read a slide as a bag of patch features: reading, padding, which instances are real.

Shape letters: B bags, N instances, F patch feature width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch, Method, MethodError, Options, Record, Sample, Schema


class BagMethod(Method):
    """Base of systems that read `patches` [N, F], whole slides unless they say otherwise.

    Bags of a batch are padded at their ends. A slide without patches is a missing modality: its pooled vector is zero.
    """

    inputs: tuple[str, ...] = ("patches",)
    pairs = "slide bag, with a task's labels"
    features: int
    """F, from the data set."""

    def __init__(self, options: Options, schema: Schema):
        super().__init__(options, schema)
        if problems := list(width_problems(schema, "patches", 2, self.name)):
            raise MethodError(problems)
        self.features = schema.need("patches").width

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        present = record.has("patches") and record.shape("patches")[0] > 0
        patches = record.read("patches") if present else np.zeros((1, self.features), np.float16)
        return Sample({"patches": patches}, {"patches": present})

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stacks; bags of different length are padded at their ends and get `length`."""
        lengths = [len(s.arrays["patches"]) for s in samples]
        if len(set(lengths)) > 1:
            for s, n in zip(samples, lengths, strict=True):
                s.arrays["length"] = np.array(n, np.int64)
                s.arrays["patches"] = np.pad(s.arrays["patches"], ((0, max(lengths) - n), (0, 0)))
        return super().collate(samples)

    def bags(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Patch features [B, N, F], 0 where no patch is, and which are real [B, N]."""
        return real_patches(batch, self.dtype)


def real_patches(batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Patch features [B, N, F], 0 where no patch is, and which are real [B, N]."""
    x_BNF = batch["patches"].to(dtype)
    B, N = x_BNF.shape[:2]
    length_B = batch.get("length", torch.full((B,), N, device=x_BNF.device))
    mask_BN = (torch.arange(N, device=x_BNF.device) < length_B[:, None]) & batch.present["patches"][:, None]
    # Padding may hold anything, even NaN, which a weight of 0 would not silence.
    return x_BNF.masked_fill(~mask_BN[..., None], 0.0), mask_BN


def width_problems(schema: Schema, name: str, axes: int, method: str) -> Iterator[str]:
    """What is wrong with an array field that a method takes its width from."""
    shape = schema.fields[name].shape if name in schema.fields else None
    if name not in schema.fields:
        yield f"{schema.source} has no field '{name}', which {method} reads; it has {', '.join(sorted(schema.fields))}"
    elif not shape or shape[-1] is None:
        yield f"field '{name}' of {schema.source} has no fixed width (shape {shape}); pack it with one width"
    elif len(shape) != axes:
        yield f"field '{name}' of {schema.source} has shape {shape}, {len(shape)} axes for {axes}: pack it again from its source"
