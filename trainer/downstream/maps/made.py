"""The maps that a task asks for, of the trained weights of its first seed: attention over patches, and contributions of places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models.finetuned import Downstream
from shards.read.dataset import Dataset
from trainer.downstream.maps.cases import FOLDER, CaseMaps, case_maps, write_cases
from trainer.downstream.maps.deletion import Deletion, deletions
from trainer.downstream.maps.deletion import told as told_deletions
from trainer.downstream.maps.slides import chosen_slides
from trainer.downstream.maps.write import SlideMaps, maps_of, told_of, write_maps
from trainer.downstream.task.schema import Task

UNTESTED = "warning: {}: no case has two places or more, so no map could be tested by deletion: do not read them as what decides"


@dataclass
class Made:
    """attention and gradients of the cases that were drawn, each with its deletion test; `asked` how many of each."""

    asked: tuple[int, int]
    attention: list[SlideMaps] = field(default_factory=list)
    attention_tested: list[Deletion] = field(default_factory=list)
    gradients: list[CaseMaps] = field(default_factory=list)
    gradients_tested: list[Deletion] = field(default_factory=list)

    def write(self, out: Path) -> None:
        """Into `out`/attention and `out`/gradients."""
        if self.attention:
            write_maps(out / "attention", self.attention, self.attention_tested)
        if self.gradients:
            write_cases(out / FOLDER, self.gradients, self.gradients_tested)

    def told(self, out: Path, split: str) -> Iterator[str]:
        """Lines for a person."""
        if self.attention:
            yield told_of(self.attention, out / "attention", self.asked[0], split)
        yield from told_deletions(self.attention_tested)
        if self.attention and not self.attention_tested:
            yield UNTESTED.format("attention")
        if self.gradients:
            yield _told_gradients(self.gradients, out / FOLDER, self.asked[1], split)
            slides = self.gradients[0].image_HWC is None
            yield from told_deletions(
                self.gradients_tested, *(("patches", "slides") if slides else ("cells", "images"))
            )
            if not self.gradients_tested:
                yield UNTESTED.format("gradients")


def asks_for_maps(task: Task) -> bool:
    return bool(task.output.attention or task.output.gradients)


def make_maps(task: Task, method: Downstream, data: Dataset, indices_N: np.ndarray, device: torch.device) -> Made:
    """Every rank makes them for itself, since a sharded method is called by all ranks together."""
    made = Made((task.output.attention, task.output.gradients))
    for i in chosen_slides(task, indices_N).tolist():
        made.attention.append(maps_of(method, data, i, device))
        made.attention_tested += deletions(method, data, i, made.attention[-1], device)
    for i in chosen_slides(task, indices_N, task.output.gradients).tolist():
        maps, tested = case_maps(method, data, i, device)
        made.gradients.append(maps)
        made.gradients_tested += tested
    return made


def _told_gradients(cases: Sequence[CaseMaps], folder: Path, asked: int, split: str) -> str:
    few = f" (all that there are, of {asked} asked for)" if len(cases) < asked else ""
    missed = max(float(np.abs(c.found.missed / _scale(c)).max()) for c in cases)
    return (
        f"gradients of {len(cases)} {split} cases{few}, of the first seed: {folder}; contributions miss at most {missed:.1%} of what they "
        "should sum to"
    )


def _scale(case: CaseMaps) -> np.ndarray:
    """What the contributions of a case sum to, or where that is small what they come to without their signs, [M]."""
    sum_M = np.abs(case.found.answer_M - case.found.background_M)
    return np.maximum(np.maximum(sum_M, np.abs(case.found.of_MN).sum(1)), 1e-12)
