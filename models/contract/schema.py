"""What a data set offers, known before any sample is read: widths, counts and vocabularies come from here, never from an option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.contract.errors import MethodError

TEXTS = ("report",)  # fields that methods read as words


@dataclass(frozen=True)
class Field:
    """What is known of a field before any sample is read. `shape` has None where samples differ."""

    name: str
    kind: Literal["image", "array", "text", "json"]
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    vocabulary: tuple[str, ...] | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    meaning: Mapping[str, str] = field(default_factory=dict)  # what the numbers are, such as {"encoder": "conch_v15"}

    @property
    def width(self) -> int:
        """Length of the last axis: features of a patch, genes of a sample.

        Raises:
            MethodError: samples differ in it, or the field is no array.
        """
        width = self.shape[-1] if self.shape else None
        if width is None:
            raise MethodError(
                [
                    f"field '{self.name}' has no fixed width (kind {self.kind}, shape {self.shape}); pack it with one width"
                ]
            )
        return width


@dataclass(frozen=True)
class Label:
    """A label column: `class` with its names in code order, or `number`."""

    name: str
    kind: Literal["class", "number"]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """What a data set offers. Widths, counts and vocabularies come from here, never from an option."""

    fields: Mapping[str, Field]
    labels: Mapping[str, Label] = field(default_factory=dict)
    source: str = "the data set"

    def need(self, name: str) -> Field:
        if name not in self.fields:
            raise MethodError(
                [f"{self.source} has no field '{name}' (it has: {', '.join(sorted(self.fields)) or 'none'})"]
            )
        return self.fields[name]

    def lacks(self, name: str, method: str) -> str:
        """What to say of a field that a method reads and the data set has not."""
        column = f"{'text' if name in TEXTS else 'field'}:{name}"
        has = ", ".join(sorted(self.fields)) or "none"
        return (
            f"{self.source} has no field '{name}', which {method} reads (it has: {has}); pack it from a manifest with a column {column}, "
            "or take a method that reads what is there (python -m models list)"
        )

    def need_label(self, name: str) -> Label:
        if name not in self.labels:
            raise MethodError(
                [f"{self.source} has no label '{name}' (it has: {', '.join(sorted(self.labels)) or 'none'})"]
            )
        return self.labels[name]
