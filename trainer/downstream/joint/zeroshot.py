"""Zero-shot classification: an image is of the class whose prompts lie nearest to it. No label is read but to measure.

A class's vector is the mean of its prompts' unit vectors (the ensemble of Radford et al. 2021, section 3.1.4); probabilities are a softmax
over classes of cosines times what training multiplied them by, or for a label of several over what is said with it and without it
(Boecking et al. 2022; Tiu et al. 2022).

Shape letters: N images, S things that are said (classes; a label's two sides), K classes or labels, C compared width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.contract import Method
from models.contract.joint import JointSpace
from shards.read.dataset import Dataset
from shards.read.subset import Subset
from trainer.downstream.joint.embed import image_vectors, text_vectors
from trainer.downstream.joint.prompts import ReadPrompts
from trainer.downstream.task.schema import Task
from trainer.runtime import Runtime


def zeroshot_scores(
    task: Task, method: Method, data: Dataset, subset: Subset, prompts: ReadPrompts, runtime: Runtime
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the samples in the convention of `Predictions`, and their unit vectors [N, C]."""
    assert isinstance(method, JointSpace)
    batch, workers = task.protocol.eval_batch, task.data.workers
    image_NC = image_vectors(method, data, subset, runtime, batch, workers)
    said_SC = class_vectors(method, prompts, runtime, batch)
    return scores(task.kind, image_NC @ said_SC.T * method.similarity_scale()), image_NC


def class_vectors(method: Method, prompts: ReadPrompts, runtime: Runtime, batch: int) -> np.ndarray:
    """A unit vector [S, C] for each thing that is said."""
    texts = [t for read in prompts.read.values() for t in read]
    x_MC = text_vectors(method, texts, runtime, batch)
    ends = np.cumsum([len(read) for read in prompts.read.values()])
    return ensembles(np.split(x_MC, ends[:-1]))


def ensembles(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of each group of unit vectors, at unit length, [S, C]."""
    mean_SC = np.stack([part.mean(0) for part in parts])
    return mean_SC / np.maximum(np.linalg.norm(mean_SC, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def scores(kind: str, logits_NS: np.ndarray) -> np.ndarray:
    """Scaled similarities as probabilities: [N] binary, [N, K] multiclass, multilabel; ordinal P(at least grade k)."""
    if kind == "multilabel":
        return _softmax(logits_NS.reshape(len(logits_NS), -1, 2))[..., 1]
    p_NK = _softmax(logits_NS)
    if kind == "binary":
        return p_NK[:, 1]
    if kind == "ordinal":
        return np.minimum(p_NK[:, ::-1].cumsum(1)[:, ::-1], 1.0)
    return p_NK


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
