"""Images and texts as unit vectors of a method's joint space, each once, on every rank, in their order.

Shape letters: N images, M texts, C compared width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.contract import Method
from models.contract.joint import JointSpace, ReadText
from shards.read.dataset import Dataset
from shards.read.subset import Subset
from trainer.downstream.probes.features import encoded
from trainer.errors import UserError
from trainer.runtime import Runtime, gather_objects


def image_vectors(
    method: Method, data: Dataset, subset: Subset, runtime: Runtime, batch: int, workers: int
) -> np.ndarray:
    """Unit vectors [N, C] of the samples' images, float64.

    Raises:
        UserError: vectors that are not finite, or without length.
    """
    assert isinstance(method, JointSpace)
    x_NC = encoded(method, data, subset, runtime, batch, workers, method.embed_images)
    return _unit(x_NC, data.keys_of(subset.indices))


@torch.no_grad()
def text_vectors(method: Method, texts: Sequence[ReadText], runtime: Runtime, batch: int) -> np.ndarray:
    """Unit vectors [M, C] of texts, float64. Texts that the encoder cannot tell apart are embedded once, so that they tie exactly.

    Raises:
        UserError: vectors that are not finite, or without length.
    """
    assert isinstance(method, JointSpace)
    method.enter("")
    method.eval()
    first = {t.key: t for t in reversed(texts)}
    once, parts = list(first.values()), []
    # Blocks go to the ranks in turn, as those of images do.
    for start in range(runtime.rank * batch, len(once), runtime.world * batch):
        block = once[start : start + batch]
        made = method.embed_texts(method.collate([t.sample for t in block]).to(runtime.device))
        parts.append((start, made.double().cpu().numpy()))
    shares = [parts] if runtime.world == 1 else gather_objects(parts)
    blocks = sorted((p for share in shares for p in share), key=lambda p: p[0])
    at = {key: i for i, key in enumerate(first)}
    x_MC = np.concatenate([x for _, x in blocks])[[at[t.key] for t in texts]]
    return _unit(x_MC, [f"text {i}" for i in range(len(texts))])


def _unit(x_NC: np.ndarray, names: Sequence[str]) -> np.ndarray:
    x_NC = x_NC.astype(np.float64)
    length_N1 = np.linalg.norm(x_NC, axis=1, keepdims=True)
    if (bad := ~(np.isfinite(length_N1[:, 0]) & (length_N1[:, 0] > 0))).any():
        raise UserError(
            f"compared vectors of {bad.sum()} of {len(x_NC)} are not finite or without length ('{names[int(bad.argmax())]}', ...); "
            "the encoder diverged: take another checkpoint"
        )
    return x_NC / length_N1
