"""What systems share that read a slide as a bag of patch features: reading, padding, which instances are real.

Shape letters: B bags, N instances, F patch feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch, Method, MethodError, Options, Record, Sample, Schema
from models.contract.bags import Bags, computes


class BagMethod(Method):
    """Base of systems that read `patches` [N, F], whole slides unless they say otherwise.

    A batch stacks bags padded at their ends; layers get real patches alone (`rows`) or all of it (`bags`). A slide without patches is a
    missing modality: its pooled vector is zero.
    """

    inputs: tuple[str, ...] = ("patches",)
    per_patch: ClassVar[tuple[str, ...]] = ("patches",)
    """Arrays of a sample with one row a patch; where there are any, the patches are among them."""
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
        return super().collate(filled(samples, [n for n in self.per_patch if n in samples[0].arrays]))

    def answerable(self, batch: Batch) -> Tensor:
        """Which samples have what an answer needs, [B]; nothing is computed of the others' patches."""
        return batch.present["patches"]

    def rows(self, batch: Batch) -> Bags:
        """Patch features of each slide without padding [P, F]; a sample that has no answer has no patch."""
        bags = real_rows(batch, self.answerable(batch))
        # Cast behind the choice: padding costs not even that.
        return bags.of(bags.rows_PD.to(self.dtype))

    def bags(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Patch features [B, N, F], 0 where no patch is, and which are real [B, N]."""
        return real_patches(batch, self.dtype)


def exact_problems(attention: str, exact_tokens: int, landmarks: int) -> Iterator[str]:
    """What `attention` and `exact_tokens` of a system with Nystrom attention do not say together."""
    if attention == "auto" and exact_tokens <= landmarks:
        yield (
            f"method.attention=auto: method.exact_tokens ({exact_tokens}) says of no bag beyond method.landmarks ({landmarks}) that "
            "its attention is exact; `python launch/doctor.py --attention` measures up to how many tokens it is faster on a machine: set "
            "method.exact_tokens=2048, say"
        )
    if attention != "auto" and exact_tokens:
        yield f"method.exact_tokens: {exact_tokens} plays no part in method.attention={attention}; set method.attention=auto"


def real_rows(batch: Batch, present_B: Tensor) -> Bags:
    """Patch features of each slide as they are stored, without padding; none of a sample that is not present."""
    x_BNF = batch["patches"]
    length_B = batch.get("length", torch.full((len(x_BNF),), x_BNF.shape[1], device=x_BNF.device))
    bags = Bags.of_padded(x_BNF, (length_B * present_B).tolist())
    computes(len(bags.rows_PD), sum(bags.lengths))
    return bags


def one_by_one(bags: Bags, encoder: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Bags]:
    """What an encoder [1, n, F] -> (vector [1, C], tokens [1, n, D]) that looks at a whole bag gives of each by itself: [B, C] and tokens.

    So also where lengths are equal, and of a bag without patches as of one patch of zeros: under ZeRO-3 every rank must make the same
    calls. The vector of such a bag is the caller's to silence; it has no tokens.
    """
    made = [encoder((x_NF if len(x_NF) else x_NF.new_zeros(1, x_NF.shape[1]))[None]) for x_NF in bags.each()]
    tokens = [tokens_1ND[0, :n] for (_, tokens_1ND), n in zip(made, bags.lengths, strict=True)]
    return torch.cat([vector_1C for vector_1C, _ in made]), bags.of(torch.cat(tokens))


def real_patches(batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Patch features [B, N, F], 0 where no patch is, and which are real [B, N]. For windows of one length; whole slides are `real_rows`."""
    x_BNF = batch["patches"].to(dtype)
    B, N = x_BNF.shape[:2]
    length_B = batch.get("length", torch.full((B,), N, device=x_BNF.device))
    mask_BN = (torch.arange(N, device=x_BNF.device) < length_B[:, None]) & batch.present["patches"][:, None]
    computes(B * N, int(mask_BN.sum()))
    # Padding may hold anything, even NaN, which a weight of 0 would not silence.
    return x_BNF.masked_fill(~mask_BN[..., None], 0.0), mask_BN


class Filled(list[Sample]):
    """Samples and their stacked arrays, as `Method.collate` takes them."""

    stacked: dict[str, np.ndarray]


def filled(samples: Sequence[Sample], names: Sequence[str]) -> Sequence[Sample]:
    """Samples with the fields `names`, of one row a patch, filled up to the longest bag; where bags differ, with their `length`.

    The padding is memory that the system hands out as zeros and that nobody writes or reads.
    """
    lengths = [len(s.arrays[names[0]]) for s in samples] if names else []
    if len(set(lengths)) <= 1:
        return samples
    more = Filled(samples)
    more.stacked = dict(getattr(samples, "stacked", {}))
    for s, n in zip(samples, lengths, strict=True):
        s.arrays["length"] = np.array(n, np.int64)
    for name in names:
        first = samples[0].arrays[name]
        out = np.zeros((len(samples), max(lengths), *first.shape[1:]), first.dtype)
        for row, s in zip(out, samples, strict=True):
            row[: len(s.arrays[name])] = s.arrays[name]
        more.stacked[name] = out
    return more


def width_problems(schema: Schema, name: str, axes: int, method: str) -> Iterator[str]:
    """What is wrong with an array field that a method takes its width from."""
    shape = schema.fields[name].shape if name in schema.fields else None
    if name not in schema.fields:
        yield schema.lacks(name, method)
    elif not shape or shape[-1] is None:
        yield f"field '{name}' of {schema.source} has no fixed width (shape {shape}); pack it with one width"
    elif len(shape) != axes:
        yield f"field '{name}' of {schema.source} has shape {shape}, {len(shape)} axes for {axes}: pack it again from its source"
