"""Whether a map says what the answer rests on: the places of the largest shares are taken out, and so are as many at random.

The deletion test of Samek et al. (Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS 28, 2017). Patches of
bags are removed, not painted over, since a bag may have any length; cells of an image become its background (gradients.py). The answer
is the log-odds of the class that the whole case is given, so that what is lost can be compared where probabilities are near 0 or 1; of a
number or a risk the distance that it moves.

Shape letters: N patches of a slide, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.finetuned import Downstream
from shards.order.streams import sample_rng
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from trainer.downstream.maps.gradients import odds
from trainer.downstream.maps.slides import COORDS, OF_SLIDE, PATCHES
from trainer.downstream.maps.weighed import NAME, losses_of
from trainer.downstream.samples import Behind

if TYPE_CHECKING:
    from trainer.downstream.maps.write import SlideMaps

SHARE, DRAWS = 0.1, 20
"""Of the patches, rounded up, and random choices of as many."""
ENOUGH = 0.95
"""Share of cases in which a map must hold, or it comes with a warning."""


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


def deletions(method: Downstream, data: Dataset, index: int, slide: SlideMaps, device: torch.device) -> list[Deletion]:
    """The test of every map of a slide, shares first; none of a slide with a single patch."""
    names, map_MN, signed = slide.names, slide.share_MN, slide.signed

    def losses(whole_K: Tensor, less_K: Tensor) -> list[float]:
        of_shares = [lost(method, whole_K, less_K)] * len(slide.names)
        return of_shares if signed is None else [*of_shares, *losses_of(method, signed)(whole_K, less_K)]

    if signed is not None:
        names, map_MN = (*names, *signed.maps(NAME)), np.concatenate([map_MN, signed.toward])
    was = method.training
    method.eval()
    found = trials(slide.key, index, names, map_MN, without_patches(method, data, index, device), losses)
    method.train(was)
    return found


def without_patches(
    method: Downstream, data: Dataset, index: int, device: torch.device
) -> Callable[[np.ndarray], Tensor]:
    """Gives the logits [K] of a slide without some of its patches; the method is in eval mode."""

    @torch.no_grad()
    def logits(out_N: np.ndarray) -> Tensor:
        record = data[index]
        kept = Kept(record, np.setdiff1d(np.arange(record.shape(PATCHES)[0]), out_N))
        batch = method.collate([method.eval_sample(kept, sample_rng(0, 0, index, 0))]).to(device)
        return method.logits(batch)[0][0].double()

    return logits


def trials(
    key: str,
    index: int,
    names: Sequence[str],
    share_MN: np.ndarray,
    without: Callable[[np.ndarray], Tensor],
    losses: Callable[[Tensor, Tensor], Sequence[float]],
) -> list[Deletion]:
    """The test of M maps of one case over its N places; none where a tenth of them is all.

    Args:
        index: the case's number, from which the random choices follow.
        without: logits [K] of the case without these places.
        losses: what the answer of each map lost, from whole to without.
    """
    N = share_MN.shape[1]
    removed = int(np.ceil(SHARE * N))
    if removed >= N:
        return []
    rng = np.random.default_rng([index, 6_917])
    whole_K = without(np.empty(0, int))
    random_DM = np.array([losses(whole_K, without(rng.choice(N, removed, replace=False))) for _ in range(DRAWS)])
    tops = [
        losses(whole_K, without(np.argsort(-share_N, kind="stable")[:removed]))[m] for m, share_N in enumerate(share_MN)
    ]
    return [
        Deletion(key, name, removed, top, float(random_DM[:, m].mean()), float(random_DM[:, m].std()))
        for m, (name, top) in enumerate(zip(names, tops, strict=True))
    ]


def lost(method: Downstream, whole_K: Tensor, without_K: Tensor) -> float:
    """By how much the log-odds of the class that the whole is given fall; of answers that are no classes how far they move."""
    kind = method.question.kind
    if kind == "binary":
        return float((whole_K - without_K)[0] * (1 if whole_K[0] >= 0 else -1))
    if kind == "multiclass":
        c = int(whole_K.argmax())
        return float(odds(whole_K, c) - odds(without_K, c))
    return float((whole_K - without_K).abs().sum())


def told(found: Sequence[Deletion], places: str = "patches", cases: str = "slides") -> list[str]:
    """For each map in how many cases its places cost more than random ones, and a warning where that is too seldom."""
    lines = []
    for name in dict.fromkeys(d.map for d in found):
        of = [d for d in found if d.map == name]
        holds = sum(d.holds for d in of)
        top, random = np.mean([d.top for d in of]), np.mean([d.random for d in of])
        lines.append(
            f"deletion test, map {name}: the {SHARE:.0%} of largest shares cost more than as many random {places} in {holds} of {len(of)} "
            f"{cases} (mean loss {top:.3g} against {random:.3g})"
        )
        if holds < ENOUGH * len(of):
            lines.append(
                f"warning: map {name} holds in less than {ENOUGH:.0%} of these {cases}: do not read its {places} as what decides"
            )
    return lines
