"""The columns of a table alone: age, sex, stage. A system that reads images should know more than they say.

Which columns these are is said by name (`columns`), never taken from what else a data set holds: a label may be another form of the answer.

Shape letters: B samples, D numbers that the columns make.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from models.baselines._fixed import Fixed
from models.contract import MethodError, Options, Record, Sample, Schema
from models.registry import register


class ClinicalOptions(Options):
    columns: tuple[str, ...] = ()
    """Labels of the data set, or array fields of one axis, that the probe reads: [age, sex]. They must not hold the task's answer."""
    reads: Literal["patches", "image"] = "patches"
    """The field that a sample must have to take part, so that the same cases are compared; it is not read."""


@register("clinical")
class Clinical(Fixed):
    """Numbers as they are, words one-hot by the classes of the label; what is not known is 0, with a further number that says so."""

    Options = ClinicalOptions
    options: ClinicalOptions

    def __init__(self, options: ClinicalOptions, schema: Schema):
        super().__init__(options, schema)
        if problems := list(_problems(options, schema, self.name)):
            raise MethodError(problems)
        self.inputs = (options.reads,)

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """`vector` [D]."""
        parts = [
            self._of_label(record, n) if n in self.schema.labels else self._of_field(record, n)
            for n in self.options.columns
        ]
        return Sample({"vector": np.concatenate(parts).astype(np.float32)}, {self.options.reads: True})

    def _of_label(self, record: Record, name: str) -> np.ndarray:
        label, value = self.schema.labels[name], record.labels.get(name)
        if label.kind == "class":
            return np.array([value == c for c in label.classes] + [value not in label.classes], np.float64)
        return _known(np.array([np.nan if value is None else float(value)]))

    def _of_field(self, record: Record, name: str) -> np.ndarray:
        width = self.schema.need(name).width
        return _known(np.asarray(record.read(name), np.float64) if record.has(name) else np.full(width, np.nan))


def _known(value_D: np.ndarray) -> np.ndarray:
    missing_D = ~np.isfinite(value_D)
    return np.concatenate([np.where(missing_D, 0.0, value_D), missing_D])


def _problems(options: ClinicalOptions, schema: Schema, name: str) -> Iterator[str]:
    if not options.columns:
        yield f"{name}: no column is named; give method.columns=[age, sex], labels or array fields of {schema.source}"
    if options.reads not in schema.fields:
        yield schema.lacks(options.reads, name)
    for column in options.columns:
        shape = schema.fields[column].shape if column in schema.fields else None
        if column not in schema.labels and (not shape or len(shape) != 1 or shape[0] is None):
            known = ", ".join(schema.labels) or "none"
            yield f"{name}: '{column}' is no label and no array of one axis of {schema.source}; labels: {known}; mend method.columns"
