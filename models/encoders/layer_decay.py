"""Learning rates that fall from one layer of an encoder to the one below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from models.contract import Method

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers)\.(\d+)\.")
_ABOVE = re.compile(r"(?:^|\.)(?:norm|fc_norm)\.")


def layer_scales(encoder: Method, decay: float) -> Callable[[str], float]:
    """{name of an encoder's parameter: learning-rate factor}: decay^(layers above it), the head's layer being the topmost.

    What lies outside the blocks is below them (patches, tokens, positions), but the last norm above. Each stack of blocks counts its
    own (a method may hold a deeper decoder, which says nothing of its encoder); other parameters belong to the stack nearest by name.
    """
    if decay == 1.0:
        return lambda name: 1.0
    depths: dict[str, int] = {}
    for name, _ in encoder.named_parameters():
        if found := _BLOCK.search(name):
            stack = name[: found.start(1)]
            depths[stack] = max(depths.get(stack, 0), int(found[1]) + 1)
    return partial(_layer_scale, depths=depths, decay=decay)


def _layer_scale(name: str, depths: Mapping[str, int], decay: float) -> float:
    found = _BLOCK.search(name)
    if found:
        return decay ** (depths[name[: found.start(1)]] - int(found[1]))
    nearest = max(depths, key=lambda stack: (_shared(stack, name), depths[stack]), default="")
    return decay if _ABOVE.search(name) else decay ** (depths.get(nearest, 0) + 1)


def _shared(a: str, b: str) -> int:
    """How many of the first parts of two dotted names are equal."""
    pairs = zip(a.split("."), b.split("."), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(a.count("."), b.count(".")) + 1)
