"""The samples of a split with all that an order needs of them; no shard is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import bad
from shards.format.info import SPLITS

if TYPE_CHECKING:
    from shards.read.dataset import Dataset


@dataclass(frozen=True)
class Subset:
    """Samples chosen from a data set.

    indices  int64 [n], ascending: which samples (`dataset[i]`)
    patients int64 [n]: patient codes, equal for samples of one patient
    labels   name -> [n]: int64 class codes (-1 missing) or float64 numbers (NaN missing)
    classes  name -> class names in code order, of the labels that are classes
    starts   int64 [shards + 1]: first index of every shard, then the end
    """

    indices: np.ndarray
    patients: np.ndarray
    labels: Mapping[str, np.ndarray]
    classes: Mapping[str, tuple[str, ...]]
    starts: np.ndarray
    source: str = "the data set"

    def __len__(self) -> int:
        return len(self.indices)

    def keep(self, chosen: np.ndarray, source: str | None = None) -> Subset:
        """A part of these samples, by a boolean mask or positions.

        Raises:
            DataError: nothing is left.
        """
        at = np.flatnonzero(chosen) if chosen.dtype == bool else np.unique(chosen)
        if not len(at):
            raise bad("no sample is left", source or self.source, "choose another part")
        labels = {name: values[at] for name, values in self.labels.items()}
        return replace(
            self, indices=self.indices[at], patients=self.patients[at], labels=labels, source=source or self.source
        )


def choose(data: Dataset, split: str | None, split_codes: np.ndarray) -> Subset:
    """The samples of a split; None for all."""
    if split is not None and split not in SPLITS:
        raise bad(f"no split '{split}'", data.path, f"use one of {', '.join(SPLITS)}")
    name = f"{data.info.name}, {'all samples' if split is None else f'split {split!r}'}"
    at = np.arange(len(data)) if split is None else np.flatnonzero(split_codes == SPLITS.index(split))
    if not len(at):
        raise bad(f"split '{split}' is empty", data.path, "run `python -m shards split` with fractions that fill it")
    return Subset(
        indices=at.astype(np.int64),
        patients=data.patient_codes[at],
        labels={name: values[at] for name, values in data.label_values.items()},
        classes={name: label.classes for name, label in data.info.labels.items() if label.kind == "class"},
        starts=data.starts,
        source=name,
    )
