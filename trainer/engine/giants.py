"""Refuses a method that this machine cannot hold, before a byte of it is allocated: else the system ends the process without a word."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import psutil
import torch

from models.contract import Method, Options, Schema
from trainer.errors import UserError

MOST_TOKENS = 1_000_000
"""Patches of an image; attention over more has never been tried, and tables of their positions alone take gigabytes."""


def refuse_giants(cls: type[Method], options: Options, schema: Schema) -> None:
    """Raises a UserError where the float32 weights alone are more than this machine's memory, or an image has too many patches."""
    for name, group in _groups(options, "method"):
        side, patch = getattr(group, "image_size", None), getattr(group, "patch", None)
        if side and patch and (tokens := (side // patch) ** 2) > MOST_TOKENS:
            raise UserError(
                f"{name}: images of {side} in patches of {patch} are {tokens:,} tokens, at most {MOST_TOKENS:,}: "
                "use smaller images or larger patches"
            )
    parameters, memory = _parameters(cls, options, schema), psutil.virtual_memory().total
    if 4 * parameters > memory:
        raise UserError(
            f"method: {parameters:,} parameters take {4 * parameters / 1e9:,.0f} GB in float32, this machine has {memory / 1e9:,.0f} GB: "
            "give smaller widths (method.*dim) or depths"
        )


def _groups(options: Options, name: str) -> Iterator[tuple[str, Options]]:
    """The options, then every group in them, with their dotted names."""
    yield name, options
    for key in type(options).model_fields:
        if isinstance(group := getattr(options, key), Options):
            yield from _groups(group, f"{name}.{key}")


def _parameters(cls: type[Method], options: Options, schema: Schema) -> int:
    """How many, counted on tensors without memory; 0 where the method cannot be built so (then it is built, and says why)."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        warnings.simplefilter("ignore")
        try:
            return sum(p.numel() for p in cls(options, schema).parameters())
        except Exception:
            return 0
