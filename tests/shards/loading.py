"""A transform, a collate and a loader over the small data sets, for the loader's tests."""

from __future__ import annotations

import itertools

import numpy as np

from models.contract import Batch, Method, Sample
from shards.load.loader import Loader
from shards.order.mix import make_plan

STEPS = 12


def transform(record, rng: np.random.Generator) -> Sample:
    """A crop, a window of the bag, and a value of the record's own."""
    image, at = record.read("image"), rng.integers(0, 9, 2)
    start = int(rng.integers(0, record.shape("patches")[0] - 3))
    genes = record.read("rna") if record.has("rna") else np.zeros(12, np.float32)
    arrays = {
        "image": image[at[0] : at[0] + 16, at[1] : at[1] + 16],
        "patches": record.rows("patches", start, start + 4),
        "rna": genes,
        "index": np.array(record.index),
    }
    return Sample(arrays, {"rna": record.has("rna")})


def collate(samples) -> Batch:
    return Method.collate(None, samples)  # type: ignore[arg-type]


def take(loader: Loader, steps: int = STEPS, epoch: int = 0, step: int = 0) -> list:
    run = loader.iterate(epoch, step)
    out = list(itertools.islice(run, steps))
    run.close()  # type: ignore[attr-defined]
    return out


def content(steps: list) -> list:
    """All that a step holds, in plain bytes."""
    return [
        (s.epoch, s.step, s.consumed, s.keys_hash, [{n: t.numpy().tobytes() for n, t in b.items()} for b in s.micro],
         [b.keys_B for b in s.micro], [b.patients_B for b in s.micro], [b.present["rna"].tolist() for b in s.micro])
        for s in steps
    ]  # fmt: skip


def loader_of(data, strategy="shuffle", batch=8, call=transform, label=None, **options) -> Loader:
    return Loader(data, make_plan(data, None, strategy, 5, batch, label=label), call, collate, **options)


def failing(bad: set[int]):
    """The transform with samples that ask for a field that is not there."""

    def call(record, rng):
        if record.index in bad:
            record.read("nothing")
        return transform(record, rng)

    return call
