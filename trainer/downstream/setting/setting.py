"""A setting: a task and an encoder that fit each other, and what can be asked of them before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.decoders.build import decoder_of
from models.registry import get_method
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from trainer.downstream.code import code_hash
from trainer.downstream.init import Init
from trainer.downstream.joint.prompts import ReadPrompts
from trainer.downstream.joint.retrieval import Reports
from trainer.downstream.results import hash_of
from trainer.downstream.samples import Realigned
from trainer.downstream.setting.identity import identity
from trainer.downstream.targets import said
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import Targets
from trainer.downstream.targets.values import words_of
from trainer.downstream.task.leak import LeakReport
from trainer.downstream.task.schema import Task
from trainer.downstream.trial import batch_size, length


@dataclass
class Setting:
    """A task and an encoder, checked against each other; nothing is trained yet.

    splits   {split: the samples that take part}; of mode zeroshot, which neither learns nor chooses, the test split alone
    new      weights of the encoder that no file holds
    prompts  mode zeroshot: what is said of an image of each class
    reports  retrieval: the reports to choose among
    """

    task: Task
    source: Init
    out: Path
    data: Dataset
    targets: Targets
    fields: tuple[str, ...]
    splits: dict[str, np.ndarray]
    leak: LeakReport
    metrics: list[str]
    world: int
    new: tuple[str, ...] = ()
    prompts: ReadPrompts | None = None
    reports: Reports | None = None
    view: Callable[[ShardRecord], Realigned] | None = None
    """How a record of data of another origin is read: with the features that the encoder was trained on, in their order."""

    def close(self) -> None:
        self.data.close()

    @property
    def first_line(self) -> str:
        """What a reader must see first."""
        own = (
            "STANDARDISED ON EACH SPLIT: test targets are scaled and filled by the test cases' own numbers (standardise=each_split): "
            "to be set beside ContIG's alone"
        )
        return "; ".join([*[own] * (self.task.standardise == "each_split"), *filter(None, [self.leak.first_line])])

    @property
    def meaning(self) -> list[str]:
        """Which words of the labels mean what, and how many there are in each split."""
        return said.lines(self.task, self.targets, self.splits)

    @property
    def finetunes(self) -> bool:
        return self.task.mode in ("finetune", "scratch")

    @property
    def decoder(self) -> str | None:
        """What draws the masks, by name, a system's own as the system is called; None where nothing is drawn."""
        if self.task.kind != "segmentation":
            return None
        return decoder_of(get_method(self.source.method_name), self.task.output.decoder)

    def steps(self, seed: int) -> int:
        """Length of a training of this seed, whose share of the labels may have more samples than another's."""
        samples = len(labelled(self.task, self.data, self.targets, self.splits[self.task.data.train], seed))
        return length(self.task, samples, batch_size(self.task, samples, self.world))

    def hashes(self) -> dict[str, Any]:
        return {
            "config": hash_of(self.about()),
            "data": self.data.fingerprint,
            "checkpoint": self.source.sha256(),
            "code": code_hash(self.source.method_name),
        }

    def init(self) -> dict[str, Any]:
        """Where the encoder's weights come from, and which come from nowhere."""
        return self.source.describe() | ({"new": list(self.new)} if self.new else {})

    def groups(self) -> dict[str, dict[str, str]]:
        """Of each label of `groups` what the test cases have, by their keys; "" where it is not known."""
        return {n: self.words_of_test(n) for n in self.task.groups}

    def words_of_test(self, label: str) -> dict[str, str]:
        """What the test cases have of a label, by their keys; "" where it is not known."""
        test = self.splits[self.task.data.test]
        return dict(zip(self.data.keys_of(test), words_of(self.data, label)[test].tolist(), strict=True))

    def in_one_split(self, least: int) -> dict[str, str]:
        """Sites of so many patients or more that lie in one split alone, and in which."""
        if self.task.site is None or self.task.hold_out is not None:
            return {}
        word_N = words_of(self.data, self.task.site)
        found: dict[str, list[str]] = {}
        for split, at in self.splits.items():
            for word in sorted(set(word_N[at].tolist()) - {""}):
                if len(set(self.data.patients_of(at[word_N[at] == word]))) >= least:
                    found.setdefault(word, []).append(split)
        there = {w: [s for s, at in self.splits.items() if w in word_N[at]] for w in found}
        return {w: splits[0] for w, splits in there.items() if len(splits) == 1 and len(self.splits) > 1}

    def about(self) -> dict[str, Any]:
        """All that decides the result but data and weights."""
        return identity(self)
