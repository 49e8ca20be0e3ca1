"""A baseline of joint spaces, fitted to the images and reports of the training split; the test split takes no part.

Shape letters: N samples, P numbers of an image, V of a text, M different texts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.contract import Method
from models.contract.joint import FittedSpace
from shards.read.dataset import Dataset
from trainer.downstream.joint.embed import image_vectors, text_vectors
from trainer.downstream.joint.retrieval import ranks
from trainer.downstream.probes.features import encoded
from trainer.downstream.samples import part
from trainer.downstream.task.schema import Task
from trainer.downstream.task.texts import FIELD
from trainer.runtime import Runtime

STRENGTHS = tuple(10.0**k for k in range(-3, 4))
MOST = 2_000
"""Validation samples that a strength is chosen on, the first ones of the split."""


class Pairs(NamedTuple):
    """The samples of a split with an image and a report, and these reports."""

    index_N: np.ndarray
    texts: list[str]


def fitted_space(method: Method, task: Task, data: Dataset, runtime: Runtime) -> str:
    """Fits the method and says to what: its strength finds the reports of the validation split best, by the mean logarithm of ranks."""
    assert isinstance(method, FittedSpace)
    train, val = (pairs(data, split) for split in (task.data.train, task.data.val))
    if len(train.texts) < 2:
        few = f"{len(train.texts)} images with a report in split '{task.data.train}'"
        return f"{method.name}: {few}: it knows no word, all answers are alike"
    subset = part(data, train.index_N, task.data.train)
    batch, workers = task.protocol.eval_batch, task.data.workers
    pixels_NP = encoded(method, data, subset, runtime, batch, workers, lambda b: method.encode(b)["pooled_BD"])
    method.fit(pixels_NP, np.stack([method.read_text(t).sample.arrays["words"] for t in train.texts]))
    found = {s: _misses(method, task, data, val, runtime, s) for s in STRENGTHS}
    best = min(found, key=lambda s: found[s])
    method.shrink(best)
    return (
        f"{method.name}: fitted to {len(train.texts)} images with reports, strength {best:g} chosen on {len(val.texts)}"
    )


def pairs(data: Dataset, split: str) -> Pairs:
    found = [(i, str(data[i].read(FIELD))) for i in data.subset(split).indices.tolist() if _whole(data, i)]
    return Pairs(np.array([i for i, _ in found], int), [text for _, text in found])


def _whole(data: Dataset, i: int) -> bool:
    return FIELD in data.info.fields and data[i].has(FIELD) and data[i].has("image")


def _misses(method: Method, task: Task, data: Dataset, val: Pairs, runtime: Runtime, strength: float) -> float:
    """Mean logarithm of both ranks over the validation samples; equal reports are one candidate. 0 where there is nothing to choose by."""
    assert isinstance(method, FittedSpace)
    method.shrink(strength)
    if len(val.texts) < 2:
        return 0.0
    index_N, texts = val.index_N[:MOST], val.texts[:MOST]
    different = list(dict.fromkeys(texts))
    batch, workers = task.protocol.eval_batch, task.data.workers
    image_NC = image_vectors(method, data, part(data, index_N, task.data.val), runtime, batch, workers)
    report_MC = text_vectors(method, [method.read_text(t) for t in different], runtime, batch)
    of_N = np.array([different.index(t) for t in texts])
    return float(np.log(ranks(image_NC, report_MC, of_N)).mean())
