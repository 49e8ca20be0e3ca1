"""Whether a map says what the answer rests on: the patches of the largest shares are taken out, and so are as many at random.

The deletion test of Samek et al. (Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS 28, 2017), for bags:
patches are removed, not painted over, since a bag may have any length. The answer is the log-odds of the class that the whole slide is
given, so that what is lost can be compared where probabilities are near 0 or 1; of a number or a risk the distance that it moves.

Shape letters: N patches of a slide, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.finetuned import Downstream
from shards.order.streams import sample_rng
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from trainer.downstream.maps.slides import COORDS, OF_SLIDE, PATCHES
from trainer.downstream.samples import Behind

if TYPE_CHECKING:
    from trainer.downstream.maps.write import SlideMaps

SHARE, DRAWS = 0.1, 20
"""Of the patches, rounded up, and random choices of as many."""


@dataclass(frozen=True)
class Deletion:
    """What an answer lost without the `removed` patches of largest shares, and what it lost on average without as many random ones."""

    key: str
    map: str
    removed: int
    top: float
    random: float
    random_sd: float

    @property
    def holds(self) -> bool:
        return self.top > self.random


class Kept(Behind):
    """A record with some of its patches (models' `Record`)."""

    def __init__(self, record: ShardRecord, keep_N: np.ndarray):
        super().__init__(record)
        self._keep_N = keep_N

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self._record.shape(name)
        return (len(self._keep_N), *shape[1:]) if name in (PATCHES, COORDS, OF_SLIDE) else shape

    def read(self, name: str) -> np.ndarray:
        found = self._record.read(name)
        return found[self._keep_N] if name in (PATCHES, COORDS, OF_SLIDE) else found

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return (
            self.read(name)[start:stop] if name in (PATCHES, COORDS, OF_SLIDE) else self._record.rows(name, start, stop)
        )


@torch.no_grad()
def deletions(method: Downstream, data: Dataset, index: int, slide: SlideMaps, device: torch.device) -> list[Deletion]:
    """The test of every map of a slide; none of a slide with a single patch."""
    N = slide.share_MN.shape[1]
    removed = int(np.ceil(SHARE * N))
    if removed >= N:
        return []
    record, rng = data[index], np.random.default_rng([index, 6_917])

    def logits(out_N: np.ndarray) -> Tensor:
        kept = Kept(record, np.setdiff1d(np.arange(N), out_N))
        batch = method.collate([method.eval_sample(kept, sample_rng(0, 0, index, 0))]).to(device)
        return method.logits(batch)[0][0].double()

    was = method.training
    method.eval()
    whole_K = logits(np.empty(0, int))
    random = [lost(method, whole_K, logits(rng.choice(N, removed, replace=False))) for _ in range(DRAWS)]
    found = [
        Deletion(
            slide.key, name, removed,
            lost(method, whole_K, logits(np.argsort(-share_N, kind="stable")[:removed])), float(np.mean(random)), float(np.std(random)),
        )
        for name, share_N in zip(slide.names, slide.share_MN, strict=True)
    ]  # fmt: skip
    method.train(was)
    return found


def lost(method: Downstream, whole_K: Tensor, without_K: Tensor) -> float:
    """By how much the log-odds of the class that the whole is given fall; of answers that are no classes how far they move."""
    kind = method.question.kind
    if kind == "binary":
        return float((whole_K - without_K)[0] * (1 if whole_K[0] >= 0 else -1))
    if kind == "multiclass":
        c = int(whole_K.argmax())
        return float(odds(whole_K, c) - odds(without_K, c))
    return float((whole_K - without_K).abs().sum())


def odds(logit_K: Tensor, c: int) -> Tensor:
    others_K = torch.cat([logit_K[:c], logit_K[c + 1 :]])
    return logit_K[c] - others_K.logsumexp(0)


def told(found: Sequence[Deletion]) -> list[str]:
    """For each map in how many slides its patches cost more than random ones."""
    lines = []
    for name in dict.fromkeys(d.map for d in found):
        of = [d for d in found if d.map == name]
        holds = sum(d.holds for d in of)
        top, random = np.mean([d.top for d in of]), np.mean([d.random for d in of])
        lines.append(
            f"deletion test, map {name}: the {SHARE:.0%} of largest shares cost more than as many random patches in {holds} of {len(of)} "
            f"slides (mean loss {top:.3g} against {random:.3g})"
        )
    return lines
