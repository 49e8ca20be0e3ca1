"""Bags: fields of one row a patch, [N, D]. Their names, and the forms that tools write them in."""

from __future__ import annotations

BAGS = ("patches", "coords")
FIX = "store it as [patches, features]: regions of patches (HIPT's [M, 256, 384]) reshaped, one vector a slide as a field of another name"


def is_bag(name: str) -> bool:
    """Fields whose rows are patches: `patches`, `coords`, and those named after them (`patches_uni`)."""
    return name.split("_")[0] in BAGS


def bag_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a field is stored: a bag loses the leading axis of one that a batch of one slide left on it."""
    return shape[1:] if is_bag(name) and len(shape) == 3 and shape[0] == 1 else shape
