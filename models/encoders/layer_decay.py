"""Learning rates that fall from one layer of an encoder to the one below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from models.contract import Method

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers)\.(\d+)\.")
_ABOVE = re.compile(r"(?:^|\.)(?:norm|fc_norm)\.")


def layer_scales(encoder: Method, decay: float) -> Callable[[str], float]:
    """{name of an encoder's parameter: learning-rate factor}: decay^(layers above it), the head's layer being the topmost.

    An image encoder says its layers itself (`ImageEncoder.layers`). Elsewhere what lies outside the blocks is below them (patches,
    tokens, positions), but the last norm above. Each stack of blocks counts its own (a method may hold a deeper decoder, which says
    nothing of its encoder); other parameters belong to the stack nearest by name.
    """
    if decay == 1.0:
        return lambda name: 1.0
    image = _image_scales(encoder, decay)
    depths: dict[str, int] = {}
    for name, _ in encoder.named_parameters():
        if found := _BLOCK.search(name):
            stack = name[: found.start(1)]
            depths[stack] = max(depths.get(stack, 0), int(found[1]) + 1)
    others = partial(_layer_scale, depths=depths, decay=decay)
    return lambda name: image[name] if name in image else others(name)


def _image_scales(encoder: Method, decay: float) -> dict[str, float]:
    """Factors of the image encoder's parameters; none where a method has no such encoder."""
    image = encoder.image_encoder()
    at = next((n for n, m in encoder.named_modules() if m is image), None)
    if at is None or image is None:
        return {}
    layers, lead = image.layers(), f"{at}." * bool(at)
    assert isinstance(image, nn.Module)
    found = {}
    for name, _ in image.named_parameters():
        own = [i for i, beginnings in enumerate(layers) if name.startswith(beginnings)]
        assert len(own) == 1, f"{name} is in {len(own)} of the layers of {type(image).__name__}"
        found[lead + name] = decay ** (len(layers) - own[0])
    return found


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
