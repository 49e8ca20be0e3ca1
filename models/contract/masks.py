"""Which masks a segmentation draws: one structure a channel, each from a field of a sample and by values in it."""

from __future__ import annotations

from typing import NamedTuple


class MaskField(NamedTuple):
    """A structure `name` is where `field` holds one of `values`; without values, where it is above 0."""

    name: str
    field: str
    values: tuple[int, ...] = ()
