"""What a trained method says of every case of a split, once each, on every rank.

Shape letters: N cases, B samples of a batch, K outputs, D width of the encoder's pooled vector, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from models.finetuned import Downstream
from models.transforms.crops import colours, eight_bit
from models.view import shaped_mask
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from shards.read.subset import Subset
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.validation_loss import cross_entropy_of_pixels, validation_loss
from trainer.downstream.samples import Realigned, SplitLoader
from trainer.downstream.targets.read import Targets
from trainer.engine.feed import EvalLoader, batches_on_device
from trainer.runtime import Runtime, gather_objects

EXAMPLES = 6
Drawn = Callable[[int, np.ndarray], None]
"""What is done with a case's masks: its index in the data set, uint8 [K, H, W]."""


@dataclass(frozen=True)
class Example:
    """A case to look at: image uint8 [H, W, 3], true and predicted mask of each structure uint8 [K, H, W], and the structures' names
    (none where there is one)."""

    key: str
    image_HWC: np.ndarray
    truth_KHW: np.ndarray
    predicted_KHW: np.ndarray
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvalOutput:
    """predictions in the data set's order; `examples` are some masks to look at, `pooled_ND` what the head was given, `loss` that of
    these cases (validation_loss.py)."""

    predictions: Predictions
    examples: list[Example]
    pooled_ND: np.ndarray
    loss: float


@dataclass(frozen=True)
class EvalCases:
    """What an evaluation of some samples reads: the data set, which samples, and how.

    genes   `SplitLoader.genes`
    view    `SplitLoader.view`
    """

    data: Dataset
    subset: Subset
    batch: int
    workers: int
    genes: Callable[[int], int | None] | None = None
    view: Callable[[ShardRecord], Realigned] | None = None


def evaluated(
    cases: EvalCases,
    method: Downstream,
    targets: Targets,
    runtime: Runtime,
    examples: bool = False,
    drawn: Drawn | None = None,
) -> EvalOutput:
    """What a trained method says of each of these samples: the one way to a number that is reported, whatever the samples' origin."""
    loader = SplitLoader(cases.data, cases.subset, method, runtime, cases.batch, cases.workers, cases.genes, cases.view)
    try:
        return predict(method, loader, cases.data, targets, runtime, examples, drawn)
    finally:
        loader.close()


@torch.no_grad()
def predict(
    method: Downstream,
    loader: EvalLoader,
    data: Dataset,
    targets: Targets,
    runtime: Runtime,
    examples: bool = False,
    drawn: Drawn | None = None,
) -> EvalOutput:
    """What the method says of the cases of `loader`; with `examples`, also some masks.

    Args:
        drawn: called with the index of each case and its masks, uint8 [K, H, W] at the image's own size.
    """
    was = method.training
    method.eval()
    index, score, pooled, pixels = [], [], [], []
    shown: list[tuple[int, Example]] = []
    for batch in batches_on_device(loader.evaluate(), runtime.device):
        counts_B = (batch.weight_B > 0).cpu().numpy()
        here = batch["index"].cpu().numpy()[counts_B]
        values, pooled_BD = (x.cpu().numpy()[counts_B] for x in method.scores(batch))
        losses_B = np.zeros(len(here))
        if method.question.kind == "segmentation":
            p_BKHW = values.reshape(len(here), method.question.outputs, *values.shape[-2:])
            t_BKHW = batch["target_mask"].cpu().numpy()[counts_B].reshape(p_BKHW.shape)
            values = _mask_rows(data, method, here, p_BKHW, t_BKHW, drawn)
            losses_B = np.array([cross_entropy_of_pixels(t, p) for t, p in zip(t_BKHW, p_BKHW, strict=True)])
            if examples and len(shown) < EXAMPLES:
                shown += _examples(data, method, here, p_BKHW, values)
        index.append(here)
        score.append(values)
        pooled.append(pooled_BD)
        pixels.append(losses_B)
    method.train(was)
    # The first of all cases, not of a rank's: the number of ranks changes nothing.
    first = sorted((e for share in gather_objects(shown) for e in share), key=lambda e: e[0])[:EXAMPLES]
    shares = gather_objects(tuple(np.concatenate(x) for x in (index, score, pooled, pixels)))
    index_N, score_N, pooled_ND, pixels_N = (np.concatenate(x) for x in zip(*shares, strict=True))
    order = np.argsort(index_N, kind="stable")
    said = as_predictions(targets, data, index_N[order], score_N[order].astype(np.float64))
    return EvalOutput(said, [e for _, e in first], pooled_ND[order], validation_loss(said, pixels_N[order]))


def as_predictions(targets: Targets, data: Dataset, index_N: np.ndarray, score: np.ndarray) -> Predictions:
    """Scores of the samples `index_N` with what is true of them. For masks `score` holds pixels in the intersection, predicted,
    true, a column a structure each, and what `Predictions.soft_N3` is, if it was asked for."""
    q, value_NT = targets.question, targets.value_NT[index_N]
    soft_N3 = None
    if q.kind == "segmentation":
        K = q.outputs
        soft_N3 = score[:, 3 * K :] if score.shape[1] > 3 * K else None
        target, score = score[:, 2] if K == 1 else score[:, 2 * K : 3 * K], score[:, : 2 * K]
    else:
        target = (
            value_NT
            if q.kind in ("multilabel", "survival") or (q.outputs > 1 and q.kind == "regression")
            else value_NT[:, 0]
        )
    if q.kind == "multilabel":
        target = np.where(target > 1, np.nan, target)  # an uncertain answer is none to be right or wrong about
    scale = q.std_K
    if targets.own is not None:
        assert q.mean_K is not None
        # The same z-score, in the numbers that the split's own mean and deviation make of it.
        mean_K, scale = targets.own
        score = (score.reshape(len(score), -1) - np.array(q.mean_K)) / np.array(q.std_K) * np.array(scale) + np.array(
            mean_K
        )
    if q.kind == "regression" and q.outputs == 1:
        score = score.reshape(-1)
    return Predictions(
        kind=q.kind,
        keys_N=np.array(data.keys_of(index_N)),
        patients_N=np.array(data.patients_of(index_N)),
        target=target,
        score=score,
        classes=q.classes if q.kind in ("multiclass", "multilabel", "ordinal", "binary", "segmentation") else (),
        scale_K=None if scale is None else np.array(scale),
        soft_N3=soft_N3,
        horizons_H=np.array(targets.horizons) if targets.horizons else None,
    )


def _truth(data: Dataset, method: Downstream, index: int) -> np.ndarray:
    """Masks of a sample at their own size, uint8 [K, H, W]; one that it lacks is empty."""
    record = data[index]
    size = record.shape("image")[:2]
    drawn = [
        shaped_mask(record.read(m.field), values=m.values) if record.has(m.field) else np.zeros(size, np.uint8)
        for m in method.fit.masks
    ]
    return np.stack(drawn)


def _decided(p_KHW: np.ndarray, size: tuple[int, ...], pad: bool) -> np.ndarray:
    """Probabilities on the encoder's grid -> masks at the image's own size (bilinear, above one half); what `pad` filled is cut off."""
    p = torch.from_numpy(np.ascontiguousarray(p_KHW))[None]
    whole = (max(size),) * 2 if pad else size
    full = p if p.shape[2:] == whole else F.interpolate(p, whole, mode="bilinear", align_corners=False)
    return (full[0, :, : size[0], : size[1]].numpy() > 0.5).astype(np.uint8)


def _mask_counts(data: Dataset, method: Downstream, index: int, p_KHW: np.ndarray, drawn: Drawn | None) -> list[int]:
    """Pixels in the intersection, predicted, true, of each structure: at the masks' own resolution."""
    truth_KHW = _truth(data, method, index)
    predicted_KHW = _decided(p_KHW, truth_KHW.shape[1:], method.fit.pad)
    if drawn is not None:
        drawn(index, predicted_KHW)
    return [int(n) for x in (truth_KHW & predicted_KHW, predicted_KHW, truth_KHW) for n in x.sum((1, 2))]


def _mask_rows(
    data: Dataset,
    method: Downstream,
    index_B: np.ndarray,
    p_BKHW: np.ndarray,
    t_BKHW: np.ndarray,
    drawn: Drawn | None,
) -> np.ndarray:
    """What is kept of each case's masks, [B, 3 K] or [B, 3 K + 3]: pixels in the intersection, predicted, true, a column a structure
    each, and `Predictions.soft_N3` where a metric asks for it. `t_BKHW`: the true masks on the encoder's grid."""
    counts = [_mask_counts(data, method, int(i), p, drawn) for i, p in zip(index_B, p_BKHW, strict=True)]
    rows = np.array(counts, np.float64).reshape(-1, 3 * method.question.outputs)
    return np.concatenate([rows, _soft_sums(p_BKHW, t_BKHW)], 1) if method.fit.soft_dice else rows


def _examples(
    data: Dataset, method: Downstream, index_B: np.ndarray, p_BKHW: np.ndarray, rows_BC: np.ndarray
) -> list[tuple[int, Example]]:
    """The cases of which any structure has a true pixel."""
    K = method.question.outputs
    cases = zip(index_B.tolist(), p_BKHW, rows_BC[:, 2 * K : 3 * K], strict=True)
    return [(i, _example(data, method, i, p)) for i, p, true_K in cases if true_K.any()]


def _soft_sums(p_BKHW: np.ndarray, t_BKHW: np.ndarray) -> np.ndarray:
    """`Predictions.soft_N3`, on the encoder's grid as the published code has it."""
    p_BKHW, t_BKHW = p_BKHW.astype(np.float64), t_BKHW.astype(np.float64)
    return np.stack([x.sum((1, 2, 3)) for x in (p_BKHW * t_BKHW, p_BKHW, t_BKHW)], 1)


def _example(data: Dataset, method: Downstream, index: int, p_KHW: np.ndarray) -> Example:
    record: Any = data[index]
    truth_KHW = _truth(data, method, index)
    image = colours(eight_bit(record.read("image")), grayscale=False)
    predicted_KHW = _decided(p_KHW, truth_KHW.shape[1:], method.fit.pad)
    return Example(record.key, np.ascontiguousarray(image), truth_KHW, predicted_KHW, method.question.classes)
