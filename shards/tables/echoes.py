"""Features that are a label: a column whose values equal a label's in every sample is that label, whatever it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from shards.errors import Problem
from shards.tables.cells import number
from shards.tables.features import FeatureRule, matches

FEWEST = 10  # samples; of fewer, equality may be chance
DISTINCT = 3  # values; a mutation may rightly be a label of two values


class Echoes:
    """Call `add` for every vector with its sample's labels, then `problems`."""

    def __init__(self) -> None:
        self._equal: dict[
            tuple[str, str], np.ndarray
        ] = {}  # (field, label): positions [K] that were equal in all samples so far
        self._values: dict[tuple[str, str], tuple[int, set[float]]] = {}

    def add(self, name: str, x_D: np.ndarray, labels: Mapping[str, str | float]) -> None:
        """One sample's vector of field `name`, as it stood in its source (before any transform)."""
        for label, given in labels.items():
            value = number(given) if isinstance(given, str) else given
            at = self._equal.get((name, label))
            if value is None or (at is not None and not len(at)):
                continue
            at = np.arange(len(x_D)) if at is None else at
            at = at[at < len(x_D)]
            self._equal[name, label] = at[x_D[at].astype(np.float32) == np.float32(value)]
            count, values = self._values.setdefault((name, label), (0, set()))
            self._values[name, label] = count + 1, values | {value} if len(values) < DISTINCT else values

    def problems(self, vocab: Mapping[str, Sequence[str]], rule: FeatureRule) -> list[Problem]:
        found = []
        for (name, label), at in self._equal.items():
            count, values = self._values[name, label]
            if count < FEWEST or len(values) < DISTINCT:
                continue
            words = vocab.get(name, ())
            for i in at.tolist():
                feature = words[i] if i < len(words) else f"column {i}"
                if not matches(feature, rule.keep):
                    what = f"feature '{feature}' equals the label '{label}' in all {count} samples that have both: it is the label"
                    fix = f"--not-features '{feature}' leaves it out of tables, --keep-features '{feature}' keeps it"
                    found.append(Problem(what, f"field '{name}'", fix))
        return found
